"""The life of one request at the simulated provider, top to bottom: name it, refuse it or accept it, generate, bill, send."""

from typing import assert_never

import msgspec

from farebox.simulator.answer import Answer, request_id
from farebox.simulator.bench import BENCH, BENCH_BLOCKS, bench_orders
from farebox.simulator.bill import FARE_HEADER, BillWriter, Reason
from farebox.simulator.config import CONTEXT_TOKENS, SimulatorConfig
from farebox.simulator.connection import Connection, Inbound
from farebox.simulator.dialects import DIALECTS, Dialect
from farebox.simulator.directives import NONE, DirectiveError, Directives, split_model
from farebox.simulator.faults import Faults
from farebox.simulator.outlet import Break, Broken, Hangup, Outlet
from farebox.simulator.plan import Plan, plan
from farebox.simulator.prefixes import PrefixCache
from farebox.simulator.read_chat import read as read_chat
from farebox.simulator.read_messages import read as read_messages
from farebox.simulator.refusals import Refusal, Wire
from farebox.simulator.request import Request
from farebox.simulator.write_chat import ChatAnswer
from farebox.simulator.write_messages import MessagesAnswer
from farebox.wires.usage import Usage

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
HTML = b"<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>\n"
INVALID_KEY_PREFIXES = ("invalid", "sk-invalid")
"""Keys that begin so are refused with 401; every other key is good."""


class _Peek(msgspec.Struct):
    model: str = ""


_decode_peek = msgspec.json.Decoder(_Peek).decode
_encode = msgspec.json.Encoder().encode


def credential_of(inbound: Inbound) -> str:
    """The caller's key from either header, or nothing."""
    key = inbound.header(b"x-api-key")
    if key is not None:
        return key
    scheme, _, token = (inbound.header(b"authorization") or "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def check_credential(inbound: Inbound, wire: Wire) -> str:
    """Raises the wire's own 401."""
    key = credential_of(inbound)
    if wire == "messages":
        if not key:
            raise Refusal(401, "x-api-key header is required")
        if key.startswith(INVALID_KEY_PREFIXES):
            raise Refusal(401, "invalid x-api-key")
        if inbound.header(b"anthropic-version") is None:
            raise Refusal(400, "anthropic-version: header is required")
        return key
    if not key:
        raise Refusal(
            401, "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
            "(i.e. Authorization: Bearer YOUR_KEY).",
        )  # fmt: skip
    if key.startswith(INVALID_KEY_PREFIXES):
        raise Refusal(401, "Incorrect API key provided. You can find your API key in the simulator's documentation.")
    return key


class _Ended(Exception):
    """The answer is over before its end, and the bill already knows."""


class Exchange:
    """One attempt. `run` answers it; `reason` and `status` say afterwards how it went."""

    def __init__(
        self,
        config: SimulatorConfig,
        faults: Faults,
        cache: PrefixCache,
        bill: BillWriter | None,
        wire: Wire,
        number: int,
        inbound: Inbound,
        connection: Connection,
    ) -> None:
        self._config = config
        self._faults = faults
        self._cache = cache
        self._bill = bill
        self._wire: Wire = wire
        self._number = number
        self._inbound = inbound
        self._connection = connection
        self.id = request_id(wire, config.seed, number)
        self._model = ""
        self._fare = inbound.header(FARE_HEADER.encode())
        self._output = self._reasoning = self._recorded = 0
        self._prompt: Usage | None = None
        """Set once the request is accepted, and owed from then on."""
        self.reason: Reason | None = None
        self.status: int | None = None

    @property
    def _fields(self) -> dict[str, str]:
        return {"x-request-id" if self._wire == "chat" else "request-id": self.id}

    async def run(self) -> bool:
        """Answers; true when the connection may carry another request."""
        orders = NONE
        try:
            orders, request, planned, dialect = self._accept()
        except Refusal as refusal:
            return await self._refuse(refusal)
        outlet = self._outlet(orders)
        try:
            if request is None:
                return await self._unaccepted(orders, outlet)
            if orders.error_before_content:
                await self._error_before_content(request, planned, orders, dialect, outlet)
                return outlet.reusable
            answer = self._answer(planned, request, orders, dialect)
            self._prompt = planned.prompt
            if request.stream:
                await self._stream(answer, planned, orders, outlet)
            else:
                await self._whole(answer, planned, orders, outlet)
        except Hangup:
            await self._settle("client_gone")
            return False
        except Broken:
            return False
        except _Ended:
            pass  # in an orderly way: the head has promised to keep the connection
        return outlet.reusable

    def _outlet(self, orders: Directives) -> Outlet:
        persist = orders.ignore_hangup or not self._config.abort_stops_billing
        return Outlet(self._connection, orders, persist=persist, before_break=self._settle_break)

    # Accepting

    def _accept(self) -> tuple[Directives, Request | None, Plan, Dialect]:
        """Orders, request, plan; the request is None when the orders refuse it before it is read."""
        key = check_credential(self._inbound, self._wire)
        body = self._inbound.body
        try:
            self._model = _decode_peek(body).model
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._model = ""
        base, text = split_model(self._model)
        try:
            orders = self._faults.orders(self._inbound.path, self._model, base, text, key)
        except DirectiveError as error:
            raise Refusal(400, str(error), param="model", code="unknown_directive" if self._wire == "chat" else None) from None
        if base == BENCH:
            orders = bench_orders(orders)
        dialect = DIALECTS.get(orders.dialect or self._config.dialect)
        if dialect is None:
            raise Refusal(400, f"`dialect` takes one of {', '.join(DIALECTS)}", param="model")
        nothing = Plan((), Usage(), Usage(), "off")
        if orders.reset_before_headers or orders.html or orders.status is not None or orders.error_in_200 is not None:
            return orders, None, nothing, dialect
        if orders.empty_account:
            raise self._empty_account()
        request = read_chat(body, dialect) if self._wire == "chat" else read_messages(body, self._config.seed)
        if not self._known(base):
            raise self._unknown_model()
        if base == BENCH:
            request = msgspec.structs.replace(request, blocks=BENCH_BLOCKS)
        if orders.reject_prefill and request.prefill:
            raise Refusal(
                400, "This model does not support assistant message prefill. The conversation must end with a user message."
            )
        cached = self._cache.pass_through(request, key.encode())
        planned = plan(request, orders, self._config.seed, cached, self._config.answer_tokens_max)
        if orders.context_length or planned.prompt.prompt_tokens > CONTEXT_TOKENS:
            raise self._too_long(planned.prompt.prompt_tokens)
        return orders, request, planned, dialect

    def _known(self, base: str) -> bool:
        return self._config.any_model or base in ("sim", BENCH) or base.startswith("sim-") or base in self._config.models

    def _unknown_model(self) -> Refusal:
        if self._wire == "messages":
            return Refusal(404, f"model: {self._model[:200]}")
        return Refusal(
            404, f"The model `{self._model[:200]}` does not exist or you do not have access to it.", code="model_not_found"
        )

    def _too_long(self, tokens: int) -> Refusal:
        tokens = max(tokens, CONTEXT_TOKENS + 1)
        if self._wire == "messages":
            return Refusal(400, f"prompt is too long: {tokens} tokens > {CONTEXT_TOKENS} maximum")
        return Refusal(
            400, f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, your messages resulted in {tokens} "
            "tokens. Please reduce the length of the messages.", param="messages", code="context_length_exceeded",
        )  # fmt: skip

    def _empty_account(self) -> Refusal:
        """As Anthropic and OpenAI say it: with a status that elsewhere is the caller's fault, or a limit that passes."""
        if self._wire == "messages":
            return Refusal(
                400, "Your credit balance is too low to access the Anthropic API. "
                "Please go to Plans & Billing to upgrade or purchase credits.",
            )  # fmt: skip
        return Refusal(
            429, "You exceeded your current quota, please check your plan and billing details.", code="insufficient_quota"
        )

    def _answer(self, planned: Plan, request: Request, orders: Directives, dialect: Dialect) -> Answer:
        match self._wire:
            case "chat":
                return ChatAnswer(planned, request, orders, dialect, self.id, self._number)
            case "messages":
                return MessagesAnswer(planned, request, orders, self._config.seed, self.id, self._number)
            case _:
                assert_never(self._wire)

    # Refusing

    async def _refuse(self, refusal: Refusal) -> bool:
        """A refusal of the request's own doing; it leaves undisturbed."""
        outlet = Outlet(self._connection, NONE, persist=True, before_break=self._settle_break)
        await self._refused(refusal.status)
        await outlet.whole(refusal.status, JSON, refusal.body(self._wire, self.id), self._fields)
        return outlet.reusable

    async def _refused(self, status: int | None) -> None:
        self.status = status
        self.reason = "refused"
        if self._bill is not None:
            self._bill.refused(self.id, self._model, self._fare)
            await self._bill.synced()

    async def _unaccepted(self, orders: Directives, outlet: Outlet) -> bool:
        """A refusal by order."""
        if orders.reset_before_headers:
            await self._refused(None)
            await outlet.refuse_silently()
            return False
        status = orders.status or 200
        await self._refused(status)
        await outlet.pause(orders.delay_first_us)
        if orders.html:
            await outlet.whole(status, "text/html; charset=utf-8", HTML, self._fields)
            return outlet.reusable
        refusal = Refusal(status, f"The simulated provider was ordered to answer {status}.", code=orders.code)
        body = refusal.body(self._wire, self.id)
        if orders.error_in_200 is not None:
            refusal = Refusal(500, "The simulated provider was ordered to fail within a success.", code=orders.code)
            body = refusal.body(self._wire, self.id)
            if orders.error_in_200 == "base-resp":
                body = _encode({"id": self.id, "choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
        await outlet.whole(status, JSON, body, self._fields)
        return outlet.reusable

    async def _error_before_content(
        self, request: Request, planned: Plan, orders: Directives, dialect: Dialect, outlet: Outlet
    ) -> None:
        refusal = Refusal(503 if self._wire == "chat" else 529, "Overloaded", code=orders.code)
        await self._refused(200 if request.stream else refusal.status)
        if not request.stream:
            await outlet.whole(refusal.status, JSON, refusal.body(self._wire, self.id), self._fields)
            return
        answer = self._answer(planned, request, orders, dialect)
        await outlet.open(SSE, self._fields)
        if self._wire == "messages":
            for event in answer.opening():
                await outlet.event(event)
        await outlet.pace()
        await outlet.event(answer.failure(refusal), last=True)
        await outlet.end()

    # Generating

    async def _whole(self, answer: Answer, planned: Plan, orders: Directives, outlet: Outlet) -> None:
        bill = self._bill
        if orders.delay_first_us or orders.delay_chunk_us:
            self._start()
            await outlet.pause(orders.delay_first_us)
            for event in answer.content():
                if event.output or event.reasoning:
                    await outlet.pause(orders.delay_chunk_us)
                    await self._generated(event.output, event.reasoning)
        elif bill is not None:
            bill.whole(self.id, self._model, planned.usage, planned.prompt, self._fare)
            await bill.synced()
            self.reason = "complete"
        self._output, self._reasoning = planned.usage.output, planned.usage.reasoning
        await self._settle("complete")
        self.status = 200
        await outlet.whole(200, JSON, answer.whole(), self._fields)

    async def _stream(self, answer: Answer, planned: Plan, orders: Directives, outlet: Outlet) -> None:
        self._start()
        self.status = 200
        await outlet.open(SSE, self._fields)
        await outlet.pause(orders.delay_first_us)
        for data in answer.opening():
            await outlet.event(data)
        shown = 0
        for event in answer.content():
            if orders.error_in_stream == shown:
                await self._fail(answer, orders, outlet)
            await outlet.pace()
            await self._generated(event.output, event.reasoning)
            if event.data:
                await outlet.event(event.data)
                shown += 1
        if orders.error_in_stream is not None and orders.error_in_stream >= shown:
            await self._fail(answer, orders, outlet)
        assert (self._output, self._reasoning) == (planned.usage.output, planned.usage.reasoning)
        await self._settle("complete")
        closing = answer.closing()
        if orders.no_done:
            closing.pop()
        for at, data in enumerate(closing):
            await outlet.event(data, last=at == len(closing) - 1)
        await outlet.end()

    async def _fail(self, answer: Answer, orders: Directives, outlet: Outlet) -> None:
        await self._settle("error_mid_stream")
        refusal = Refusal(503 if self._wire == "chat" else 529, "Overloaded", code=orders.code)
        await outlet.event(answer.failure(refusal), last=True)
        await outlet.end()
        raise _Ended

    # Billing

    def _start(self) -> None:
        assert self._prompt is not None
        if self._bill is not None:
            self._bill.start(self.id, self._model, self._prompt, self._fare)

    async def _generated(self, output: int, reasoning: int) -> None:
        self._output += output
        self._reasoning += reasoning
        total = self._output + self._reasoning
        if self._bill is not None and total - self._recorded >= self._config.fsync_tokens:
            self._recorded = total
            self._bill.tokens(self.id, self._output, self._reasoning)
            await self._bill.synced()

    async def _settle_break(self, kind: Break) -> None:
        await self._settle(kind)

    async def _settle(self, reason: Reason) -> None:
        """The final line, once, durable before the closing bytes leave. The first reason stands."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._bill is not None and self._prompt is not None:
            usage = msgspec.structs.replace(self._prompt, output=self._output, reasoning=self._reasoning)
            self._bill.final(self.id, reason, usage)
            await self._bill.synced()
