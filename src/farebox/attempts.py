"""Attempts: send, retry and fail over until the first content byte reaches the client; then stream, meter and settle.

A `Flight` is one call from its first attempt to its settlement. Whatever ends it (an answer, an error, a vanished client, a
cancelled task), its settlement is closed in a `finally`. Two endings need care: a client that hangs up where the provider
honours that is cut and billed by what was seen; where it does not, the stream is read on, unsent, to its usage.
"""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from farebox import bridge, continuation
from farebox.billing import seams
from farebox.billing.meter import ESCALATED_FLAG, Ending, Seen, Verdict
from farebox.billing.settlement import AttemptStart, Settlement, cost_fields, cost_members
from farebox.continuation import Recovery, Rest
from farebox.errors import FareboxError, Kind
from farebox.escalation import Escalation
from farebox.exchange import Exchange
from farebox.money import format_amount
from farebox.routing import explain
from farebox.routing.lessons import KEY_KINDS
from farebox.routing.patience import NO_DEMAND, Demand
from farebox.routing.plan import Candidate, Plan
from farebox.routing.retry import Tries
from farebox.transport import (
    BodyTooLarge,
    ChunkTimeout,
    ConnectTimeout,
    GivenUp,
    HeadersTimeout,
    Response,
    TotalTimeout,
    TransportError,
)
from farebox.verdict import Failure, barred, upstream_failure
from farebox.wires.call import Call
from farebox.wires.neutral import UpstreamError
from farebox.wires.relay import MalformedStream, NotACompletion, Relay, Reply, with_members
from farebox.wires.usage import Usage

if TYPE_CHECKING:
    from farebox.gateway import Gateway

REPLY_BYTES_MAX = 64 * 2**20
ERROR_BYTES_MAX = 64 * 2**10
CHECKPOINT_US = 2_000_000
CHECKPOINT_TOKENS = 256
SEND_STALL_US = 30_000_000
"""A client that takes no bytes for this long counts as gone."""


_JSON = b"content-type: application/json\r\n"
_EVENT_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Flight:
    """One call on its way; in `Gateway.flights` from its first attempt to its end, where the ticker looks after it."""

    __slots__ = (
        "call", "candidate", "checkpoint_tokens", "checkpoint_us", "deadline_us", "demand", "dropped", "escalation",
        "exchange", "first_token_us", "gateway", "gone_us", "interrupted", "plan", "recovery", "relay", "response",
        "sending_us", "settlement", "started_us", "task",
    )  # fmt: skip

    def __init__(
        self,
        gateway: "Gateway",
        exchange: Exchange,
        call: Call,
        plan: Plan,
        settlement: Settlement,
        recovery: Recovery | None = None,
        demand: Demand = NO_DEMAND,
    ) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.call = call
        self.plan = plan
        self.settlement = settlement
        self.candidate = plan.candidates[0]
        self.recovery = recovery
        self.demand = demand
        self.escalation = Escalation(call, plan) if plan.escalates(call) else None
        self.relay: Relay | None = None
        self.response: Response | None = None
        """Of the attempt under way, from its head on."""
        self.first_token_us = 0
        """When the attempt under way is given up unless content has come; 0: not yet, or not a stream."""
        self.dropped: tuple[str, ...] = ()
        first = settlement.current
        assert first is not None, "the hold has opened the first attempt"
        self.started_us = self.checkpoint_us = first.chosen_us
        self.deadline_us = self.started_us + gateway.total_us(plan, demand)
        self.checkpoint_tokens = 0
        self.sending_us = 0
        self.gone_us = 0
        self.interrupted = False
        self.task = asyncio.current_task()

    # --- the loop over attempts -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer the call, or raise the `FareboxError` that tells why not. The settlement is terminal when this returns."""
        gateway = self.gateway
        gateway.flights[self] = None
        gateway.retries.called(self.started_us)
        index = 0
        try:
            failure = await self._attempt(self.candidate)
            if failure is None:
                return
            tries = Tries()
            while True:
                now_us = gateway.clock.monotonic_us()
                rest = self.rest
                will_not_do = None if self.escalation is None else self.escalation.barred(failure)
                candidates = self.plan.candidates if rest is None else rest.candidates
                tries.failed(
                    index,
                    now_us,
                    retry_after_s=failure.retry_after_s,
                    barred=self._barred(failure, index) if will_not_do is None else will_not_do,
                )
                following = tries.following(
                    range(len(candidates)) if rest is None else rest.able,
                    gateway.retry_policy_for(self.plan, self.demand),
                    attempts=len(self.settlement.attempts),
                    now_us=now_us,
                    deadline_us=self.deadline_us,
                    chance=gateway.random.uniform(),
                )
                # A second opinion is no retry: it does not come out of what those may take.
                left = will_not_do is not None or (following is not None and gateway.retries.take(now_us))
                if following is None or self.exchange.answer.gone or not left:
                    self._give_up(failure.error)
                    return
                if following.wait_s:
                    await asyncio.sleep(following.wait_s)
                index = following.candidate
                start = gateway.start_attempt(
                    self.plan.candidates[index],
                    len(self.settlement.attempts) + 1,
                    streamed=self.call.stream,
                    continues=self.rest is not None,
                    tried=self.settlement.attempts,
                )
                self.settlement.dispatch(start)
                self.candidate = (self.plan if self.rest is None else self.rest).candidates[index]
                failure = await self._attempt(self.candidate)
                if failure is None:
                    return
        finally:
            gateway.flights.pop(self, None)
            self.exchange.answer.on_gone = None
            if not self.settlement.done:
                self.settlement.close(self.seen(), gone=self.exchange.answer.gone)

    def _barred(self, failure: Failure, index: int) -> tuple[int, ...]:
        """Whom a failure of the candidate at `index` rules out."""
        if self.rest is None:
            return barred(failure, index, self.plan.candidates)
        # One that cannot go on with another's answer says nothing about the others.
        return (index,) if failure.bars != "nothing" else ()

    @property
    def rest(self) -> Rest | None:
        """How the stream goes on that another attempt began; None while nobody has delivered anything."""
        return None if self.recovery is None else self.recovery.rest

    def _give_up(self, error: FareboxError) -> None:
        if self.recovery is not None and self.recovery.broke is not None:
            # The client is told of the break, not of who could not mend it.
            self._break_off(self.recovery.broke, "not_continued")
            return
        kept = None if self.escalation is None else self.escalation.kept
        if kept is not None:
            # Nobody stronger had a better one.
            self.candidate = kept.candidate
            self._deliver(kept.candidate, kept.reply, kept.verdict, at_once=False)
            return
        self.settlement.settle(state="voided" if not self.settlement.charge_nano else "settled")
        error.details = {**error.details, "attempts": [self._attempt_summary(n) for n in range(len(self.settlement.attempts))]}
        self.gateway.finished(self, "failed", error.status)
        if self.exchange.answer.started:
            # Only keep-alives were sent so far, but the status line is out: the error has to travel in the stream.
            relay = self.relay or bridge.relay(self.call, self.candidate, id=self.settlement.id, created_s=self._created_s())
            self.exchange.answer.end(relay.fail(error))
            return
        raise error

    def _attempt_summary(self, n: int) -> dict[str, object]:
        attempt = self.settlement.attempts[n]
        return {"provider": attempt.provider, "outcome": attempt.outcome, "status": attempt.status}

    def _created_s(self) -> int:
        return self.gateway.clock.now_us() // 1_000_000

    def seen(self) -> Seen:
        """What was observed of the attempt under way."""
        relay = self.relay
        if relay is None:
            return Seen(None, estimated_input=self.plan.input_estimate)
        # A provider was told the cap; an estimate that is above it is one of another way to count.
        tokens = min(relay.observed_output_tokens(), self.candidate.bound.output_tokens)
        return Seen(relay.report(), tokens, relay.observed_input(), self.plan.input_estimate)

    # --- one attempt ------------------------------------------------------------------------------------------------

    async def _attempt(self, candidate: Candidate) -> Failure | None:
        """One try at one provider: None when the client has its answer (or is gone) and the call is settled."""
        gateway = self.gateway
        self.relay = self.response = None
        current = self.settlement.current
        assert current is not None, "an attempt is opened before it is made"
        self.checkpoint_tokens = 0
        rest = self.rest
        prefilled = rest is not None and bool(rest.text)
        try:
            drop = gateway.drops_unsupported(self.exchange)
            if rest is not None:
                outgoing = rest.outgoing(self.call, candidate, drop_unsupported=drop)
            else:
                outgoing = bridge.outgoing(self.call, candidate, drop_unsupported=drop)
        except FareboxError as error:
            self.settlement.end_attempt("failed_unsent", self.seen(), outcome="unsupported", error=error.message)
            return Failure(error, "offer")
        self.dropped = outgoing.dropped
        head, extra_headers, lines = gateway.upstream_head(
            candidate.target, self.exchange, self.settlement.id, current, prefilled=prefilled
        )
        gateway.begin(current)
        timeouts, first_token_us = gateway.timeouts_for(candidate.target, self)
        self.first_token_us = current.begun_us + first_token_us if self.call.stream else 0
        try:
            response = self.response = await gateway.client.send(
                head, outgoing.body, extra_headers=extra_headers, timeouts=timeouts, lines=lines
            )
        except TransportError as error:
            return self._transport_failure(error, "failed_before_content" if error.sent else "failed_unsent")
        current.status = response.status
        gateway.fail_point("attempt.after_head")
        try:
            request_id = response.header(b"x-request-id") or response.header(b"request-id")
            if request_id is not None:
                current.upstream_request_id = request_id[:128].decode("latin-1")
            if response.status != 200:
                return await self._refused(candidate, response)
            if self.call.stream:
                return await self._stream(candidate, current, response)
            return await self._whole(candidate, current, response)
        except TransportError as error:
            return self._transport_failure(error, "failed_before_content")
        finally:
            response.close()

    def _transport_failure(self, error: TransportError, ending: Ending) -> Failure:
        timed_out = isinstance(error, (ConnectTimeout, HeadersTimeout, ChunkTimeout, TotalTimeout, GivenUp))
        outcome = "timeout" if timed_out else "broken" if error.sent else "connect_error"
        self.settlement.end_attempt(ending, self.seen(), outcome=outcome, error=str(error))
        name = self.candidate.target.provider.title
        if timed_out:
            told = FareboxError(Kind.UPSTREAM_TIMEOUT, f"{name} did not answer in time", should_retry=False)
        else:
            told = FareboxError(Kind.UPSTREAM_BAD, f"{name} could not be reached or broke off: {error}", should_retry=False)
        # A provider that was silent until the time-out is not asked twice.
        silent = timed_out and not isinstance(error, ConnectTimeout)
        return Failure(told, "offer" if silent or isinstance(error, BodyTooLarge) else "nothing")

    async def _refused(self, candidate: Candidate, response: Response) -> Failure:
        """An error status: nothing was generated, nobody pays."""
        body = await response.read(ERROR_BYTES_MAX)
        found = bridge.failure(candidate, body, response.header, status=response.status)
        return self._upstream_failure(found, "refused", "http_error")

    def _upstream_failure(self, found: UpstreamError, ending: Ending, outcome: str) -> Failure:
        current = self.settlement.current
        assert current is not None, "an attempt is under way"
        current.kind = found.kind
        current.retry_after_us = None if found.retry_after_s is None else int(found.retry_after_s * 1_000_000)
        self.settlement.end_attempt(ending, self.seen(), outcome=outcome, error=found.message)
        other_key = found.kind in KEY_KINDS and self.gateway.has_other_key(self.candidate, self.settlement.attempts)
        return upstream_failure(found, self.candidate, other_key=other_key)

    async def _whole(self, candidate: Candidate, current: AttemptStart, response: Response) -> Failure | None:
        """An answer that is not streamed. It is read to its end even if the client left: only then is its price known."""
        gateway = self.gateway
        body = await response.read(REPLY_BYTES_MAX)
        current.first_byte_us = gateway.clock.now_us()
        try:
            reply = bridge.reply(self.call, candidate, body, created_s=current.first_byte_us // 1_000_000)
        except NotACompletion as error:
            return self._garbage(str(error))
        if reply.failure is not None:
            found = bridge.failure(candidate, reply.failure, response.header)
            return self._upstream_failure(found, "failed_before_content", "error_in_body")
        report = reply.report()
        # The answer is measured only where its usage is missing.
        observed = 0 if report is not None and report.usage is not None else reply.observed_output_tokens()
        seen = Seen(report, observed, None, self.plan.input_estimate)
        escalation = self.escalation
        reason = "" if escalation is None or self.exchange.answer.gone else escalation.problem(candidate, body)
        verdict = self.settlement.end_attempt(
            "complete",
            seen,
            outcome="ok",
            finish_reason=reply.finish_reason,
            native_finish_reason=reply.native_finish_reason,
            error=reason,
            flags=(ESCALATED_FLAG,) if reason else (),
        )
        if escalation is not None and reason:
            return escalation.keep(candidate, reply, verdict, reason)
        self._deliver(candidate, reply, verdict, at_once=True)
        return None

    def _deliver(self, candidate: Candidate, reply: Reply, verdict: Verdict, *, at_once: bool) -> None:
        """Settle, and send a whole answer. `at_once`: its attempt has ended at this moment."""
        gateway, settlement, escalation = self.gateway, self.settlement, self.escalation
        settlement.settle(cancelled=self.exchange.answer.gone, settled_at_once=at_once)
        gateway.fail_point("settle.after_journal")
        usage = verdict.usage or Usage()
        cost = format_amount(settlement.charge_nano)
        estimated = verdict.basis != "reported"
        extra = cost_fields(settlement.last_bill, usage, cost, estimated=estimated)
        told = b""
        if escalation is not None and escalation.kept is not None:
            # The usage is the answer's; the costs are of everything that was paid for it.
            extra = cost_members(*seams.list_costs_nano(settlement.attempts), cost, estimated=estimated)
            told = escalation.header(candidate)
        data = reply.write(id=settlement.id, provider=candidate.target.provider.name, usage=usage, extra=extra)
        if gateway.tells(self.exchange):
            data = with_members(data, b'"farebox":%b' % self._metadata())
        shown = cost.encode()
        costs = b"x-farebox-cost-usd: %b\r\nx-litellm-response-cost: %b\r\n" % (shown, shown)
        gateway.finished(self, "ok", 200)
        self.exchange.answer.whole(200, _JSON + self._headers() + told + costs, data)

    def _garbage(self, problem: str) -> Failure:
        self.settlement.end_attempt("failed_before_content", self.seen(), outcome="garbage", error=problem)
        name = self.candidate.target.provider.title
        told = FareboxError(Kind.UPSTREAM_BAD, f"{name} sent an answer that is not of its API", should_retry=False)
        return Failure(told)

    def _metadata(self) -> bytes:
        """The plan, and what became of it, as JSON."""
        settlement = self.settlement
        return msgspec.json.encode(
            {
                "plan": self.gateway.explained(self.call, self.plan),
                "attempts": [explain.attempted(one) for one in settlement.attempts],
                "seams": [] if self.recovery is None else [msgspec.structs.asdict(seam) for seam in self.recovery.seams],
                "hold_usd": format_amount(settlement.hold_nano),
            }
        )

    def _headers(self) -> bytes:
        """Who answered, after how many attempts, and what was left out, as header lines."""
        settlement = self.settlement
        lines = b"%b%bx-farebox-attempts: %d\r\nx-generation-id: %b\r\n" % (
            self.exchange.base,
            self.candidate.target.head,
            len(settlement.attempts) + (settlement.current is not None),
            settlement.id.encode(),
        )
        if self.dropped:
            lines += b"x-farebox-dropped: %b\r\n" % ", ".join(self.dropped).encode("ascii", "replace")
        return lines

    # --- streams ----------------------------------------------------------------------------------------------------

    async def _stream(self, candidate: Candidate, current: AttemptStart, response: Response) -> Failure | None:
        kind = response.header(b"content-type") or b""
        if kind.startswith((b"application/json", b"text/html")):
            body = await response.read(ERROR_BYTES_MAX)
            if b'"error"' in body or b'"base_resp"' in body:
                found = bridge.failure(candidate, body, response.header)
                return self._upstream_failure(found, "failed_before_content", "error_in_body")
            return self._garbage(f"`{kind[:64].decode('latin-1')}` in place of an event stream")
        make = bridge.relay if self.rest is None else self.rest.relay
        relay = self.relay = make(self.call, candidate, id=self.settlement.id, created_s=self._created_s())
        answer = self.exchange.answer
        answer.on_gone = self.client_left
        try:
            broken = await self._forward(relay, current, response)
        except asyncio.CancelledError:
            if not self.interrupted:
                raise
            # Cancelled by our own watcher or ticker: the client is gone, the call is not.
            if self.task is not None:
                self.task.uncancel()
            answer.gone = True
            broken = None
        if answer.gone and not relay.finished:
            return self._client_gone(relay, response)
        if relay.failure is not None or not relay.finished:
            return self._broken(candidate, relay, response, broken)
        ending: Ending = "drained" if answer.gone else "complete"
        verdict = self.settlement.end_attempt(
            ending,
            self.seen(),
            outcome="ok",
            finish_reason=relay.finish_reason,
            native_finish_reason=relay.native_finish_reason,
        )
        self.settlement.settle(cancelled=answer.gone)
        self.gateway.fail_point("settle.after_journal")
        self.gateway.finished(self, "ok", 200)
        usage, extra = self._told(verdict)
        answer.start(self._stream_headers())
        # A comment: readers of event streams skip it, and no SDK has to know of it.
        told = b": farebox %b\n\n" % self._metadata() if self.gateway.tells(self.exchange) else b""
        answer.end(told + relay.finish(usage, extra))
        if relay.done:
            # The end of the body is due now; with it the connection can be used again.
            try:
                await response.next_chunk()
            except TransportError:
                pass
        return None

    def _told(self, verdict: Verdict) -> tuple[Usage, bytes]:
        """The usage that the client is told, and the cost members beside it."""
        settlement = self.settlement
        cost = format_amount(settlement.charge_nano)
        if settlement.pieced:
            shown = seams.shown(settlement.attempts)
            return shown.usage, cost_members(
                shown.upstream_nano, shown.prompt_nano, shown.completion_nano, cost, estimated=True
            )
        usage = verdict.usage or Usage()
        return usage, cost_fields(settlement.last_bill, usage, cost, estimated=verdict.basis != "reported")

    async def _forward(self, relay: Relay, current: AttemptStart, response: Response) -> TransportError | MalformedStream | None:
        """Pump the provider's bytes to the client until the end; the meter sees everything, the client what it may."""
        answer = self.exchange.answer
        gateway = self.gateway
        transcript = None if self.recovery is None else self.recovery.transcript

        def take(data: bytes) -> bool:
            """One piece of the provider's body, straight from its socket to the client's. True to go on."""
            out = relay.feed(data) if data else relay.end()
            if current.first_byte_us is None and relay.content_started:
                current.first_byte_us = gateway.clock.now_us()
            clogged = False
            if out and not answer.gone:
                if not answer.started:
                    answer.start(self._stream_headers())
                clogged = answer.send(out)
                if transcript is not None:
                    transcript.add(out)
                gateway.fail_point("stream.after_first_chunk")
            return not (clogged or relay.done or relay.failure is not None)

        try:
            while await response.pump(take):
                if relay.done or relay.failure is not None:
                    return None
                self.sending_us = gateway.clock.monotonic_us()
                await answer.drain()
                self.sending_us = 0
            take(b"")
        except (TransportError, MalformedStream) as error:
            return error
        return None

    def _stream_headers(self) -> bytes:
        return _EVENT_STREAM + self._headers()

    def _client_gone(self, relay: Relay, response: Response) -> None:
        """The client left before the end: bill what was seen, hang up."""
        response.close()
        self.settlement.end_attempt("client_gone", self.seen(), outcome="client_gone", finish_reason="cancelled")
        self.settlement.settle(cancelled=True)
        self.gateway.finished(self, "client_gone", 499)

    def _broken(
        self, candidate: Candidate, relay: Relay, response: Response, broken: TransportError | MalformedStream | None
    ) -> Failure | None:
        """An error inside the stream, or an end before the end: fail over if the client has nothing yet, else say so."""
        found: UpstreamError | None = None
        if relay.failure is not None:
            found = bridge.failure(candidate, relay.failure, response.header)
        if not relay.content_started:
            if found is not None:
                return self._upstream_failure(found, "failed_before_content", "error_event")
            if isinstance(broken, TransportError):
                return self._transport_failure(broken, "failed_before_content")
            return self._garbage("the stream ended before any content" if broken is None else str(broken))
        timed_out = isinstance(broken, (ChunkTimeout, TotalTimeout, GivenUp))
        reason = "error_event" if found is not None else "timeout" if timed_out else "truncated"
        message = found.message if found is not None else str(broken or "the stream ended without its terminal event")
        error = FareboxError(
            Kind.UPSTREAM_BAD,
            f"{candidate.target.provider.title} broke off in the middle of the answer: {message}",
            code="upstream_truncated" if found is None else None,
            should_retry=False,
            details={"reason": reason},
        )
        taken_over = self._take_over(error)
        ending: Ending = "taken_over" if taken_over else "truncated"
        self.settlement.end_attempt(ending, self.seen(), outcome=reason, finish_reason="error", error=message)
        if taken_over:
            self.exchange.answer.on_gone = None
            return Failure(error)
        self._break_off(error, reason)
        return None

    def _take_over(self, error: FareboxError) -> bool:
        """Whether somebody may go on with the stream that just broke off with `error`."""
        recovery, current, answer = self.recovery, self.settlement.current, self.exchange.answer
        if recovery is None or current is None or answer.gone:
            return False
        seen = self.seen()
        delivered = seams.delivered_tokens(self.settlement.attempts)
        reported = seen.report.usage.completion_tokens if seen.report is not None and seen.report.usage is not None else 0
        return recovery.take_over(
            self.plan,
            attempt=current.n,
            output_tokens=delivered + max(seen.output_tokens, reported),
            room_nano=self.settlement.room_nano(seen),
            told=error,
        )

    def _break_off(self, error: FareboxError, outcome: str) -> None:
        """A stream ends in the middle: the client is told why, and gets no mark of success."""
        if not self.exchange.answer.gone:
            self.settlement.forgive()
        self.settlement.settle()
        self.gateway.finished(self, "client_gone" if self.exchange.answer.gone else outcome, 200)
        if self.recovery is not None:
            told = self.recovery.problem or continuation.NOT_CONTINUED
            error.details = {**error.details, "stream_recovery": told}
        relay = self.relay or bridge.relay(self.call, self.candidate, id=self.settlement.id, created_s=self._created_s())
        self.exchange.answer.start(self._stream_headers())
        self.exchange.answer.end(relay.fail(error))

    def client_left(self) -> None:
        """The client hung up. Where that stops the provider's billing we hang up, too; else we read on to the usage."""
        if self.gone_us:
            return
        self.gone_us = self.gateway.clock.monotonic_us()
        self.exchange.answer.gone = True
        if self.candidate.target.provider.abort_stops_billing or not self.gateway.may_drain():
            self.interrupt()

    def interrupt(self) -> None:
        """Break into whatever the flight is waiting for."""
        if not self.interrupted and self.task is not None and not self.settlement.done:
            self.interrupted = True
            self.task.cancel()

    # --- the ticker's visits ----------------------------------------------------------------------------------------

    def tick(self, now_us: int) -> bool:
        """A few times a second: checkpoints, stalled clients, overlong drains. True when a keep-alive is due."""
        relay = self.relay
        settings = self.gateway.settings
        if relay is None:
            return False
        if self.first_token_us and now_us > self.first_token_us and not relay.content_started and self.response is not None:
            self.first_token_us = 0
            self.response.give_up("no content within the time-out for the first token")
            return False
        if self.gone_us and now_us - self.gone_us > settings.drain_us:
            self.interrupt()
            return False
        if self.sending_us and now_us - self.sending_us > SEND_STALL_US:
            self.client_left()
            self.interrupt()
            return False
        if relay.content_started:
            tokens = relay.observed_output_tokens()
            if tokens - self.checkpoint_tokens >= CHECKPOINT_TOKENS or now_us - self.checkpoint_us >= CHECKPOINT_US:
                self.checkpoint(relay, tokens, now_us)
            return False
        return now_us - self.checkpoint_us >= settings.keepalive_us

    def checkpoint(self, relay: Relay, tokens: int, now_us: int) -> None:
        self.checkpoint_us = now_us
        self.checkpoint_tokens = tokens
        known = relay.observed_input()
        base = known if known is not None else Usage(input=self.plan.input_estimate)
        self.settlement.progress(msgspec.structs.replace(base, output=tokens), exact_input=known is not None)
        self.gateway.fail_point("stream.after_checkpoint")

    def keepalive(self, now_us: int) -> None:
        """Tell the client and what stands between that the answer is still coming."""
        relay = self.relay
        if relay is None or self.exchange.answer.gone:
            return
        self.checkpoint_us = now_us
        self.exchange.answer.start(self._stream_headers())
        self.exchange.answer.send(relay.keepalive())
