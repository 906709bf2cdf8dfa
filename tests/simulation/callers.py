"""Callers: raw HTTP/1.1 through the in-memory network, each call's whole fate written down."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulation.loop import ProcessLoop
from tests.simulation.market import MODELS, POLICIES
from tests.simulation.network import MemoryTransport
from tests.support.callers import Fate, body_for

if TYPE_CHECKING:
    from tests.simulation.world import World

CONNECT_TRIES = 200
WISHES: tuple[dict[str, Any], ...] = (
    {"sort": "price"},
    {"sort": "latency"},
    {"order": ["fjord", "delta", "amber"]},
    {"order": ["cedar"], "allow_fallbacks": False},
    {"ignore": ["amber", "ember"]},
    {"only": ["birch", "cedar", "delta", "ember"]},
)
HEDGED = ("sim/pair", "sim/pair", "sim/pair", "sim/many")
RUSH_US = 1_900_000
_REQUEST = re.compile(rb"\r\n(?:x-)?request-id: req-([^\r]+)")
_GENERATION = re.compile(rb"\r\nx-generation-id: ([^\r]+)")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")


class Order(msgspec.Struct, frozen=True):
    """One call as it was drawn."""

    number: int
    burst: int
    at_us: int
    """After the burst's beginning."""
    key: int
    surface: str
    model: str
    stream: bool
    max_tokens: int | None
    padding: int
    leave_after: int | None
    """Bytes of body after which the caller hangs up."""
    leave_at_us: int | None
    """Or the time after which it does."""
    leave_softly: bool
    slow_s: float
    """Pause between two looks at what has come."""
    to_balance: bool
    fallback: str | None = None
    """Another model to go on with."""
    wish: dict[str, Any] | None = None
    """About providers, in OpenRouter's words."""


def order(world: "World", number: int, bursts: int, burst_us: int) -> Order:
    chance = world.options.random(f"call {number}")
    draw = chance.random
    vanish, readers = world.rates["vanish"], world.rates["readers"]
    rush_us = RUSH_US if world.rates["rush"] else 1
    leaves = draw() < vanish
    leave_early = draw() < 0.4
    made = Order(
        number=number,
        burst=chance.randrange(bursts),
        at_us=int(burst_us * draw() ** 2) // rush_us * rush_us + int(draw() * 20_000),
        key=chance.randrange(1_000_000),
        surface=chance.choice(("chat", "messages")),
        model=_model(world, number, chance.choice(tuple(MODELS))),
        stream=draw() < 0.7,
        max_tokens=chance.choice((None, 5, 40, 40, 200, 1000)),
        padding=chance.choice((0, 0, 30, 300, 2000)),
        leave_after=chance.choice((1, 40, 300, 900, 2500)) if leaves and not leave_early else None,
        leave_at_us=int(draw() ** 3 * 9_000_000) if leaves and leave_early else None,
        leave_softly=draw() < 0.5,
        slow_s=chance.choice((0.3, 2.0, 40.0)) if draw() < readers else 0.0,
        to_balance=draw() < 0.2,
        fallback=chance.choice(tuple(MODELS)) if draw() < world.rates["fallbacks"] else None,
        wish=chance.choice(WISHES) if draw() < world.rates["fallbacks"] else None,
    )
    if draw() < world.rates["escalation"]:
        made = msgspec.structs.replace(made, model=chance.choice(tuple(POLICIES)))
    return made


def _model(world: "World", number: int, drawn: str) -> str:
    """Where calls are hedged, most are of a few models with several offers: only what has been measured is hedged."""
    chance = world.options.random(f"hedged {number}")
    return chance.choice(HEDGED) if world.rates["hedging"] and chance.random() < 0.9 else drawn


def probe(number: int, model: str) -> Order:
    """A plain call that must be answered when nothing is broken."""
    surface = "chat" if number % 2 else "messages"
    return Order(number, 0, 0, 0, surface, model, number % 3 > 0, 40, 0, None, None, False, 0.0, False)


class CallerConnection(asyncio.Protocol):
    """Reads one answer after the other."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop
        self.transport: MemoryTransport | None = None
        self.data = b""
        self.gone = False
        self.woken: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._wake()

    def eof_received(self) -> bool:
        self.gone = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)

    async def more(self) -> None:
        """Waits for bytes or the end."""
        if self.gone:
            raise ConnectionResetError
        self.woken = self._loop.create_future()
        try:
            await self.woken
        finally:
            self.woken = None


class Caller:
    """One call by one caller. `fate` is written whatever happens."""

    def __init__(self, world: "World", wanted: Order, key: str, secret: str) -> None:
        self.world = world
        self.order = wanted
        self.key = key
        self.secret = secret
        self.fate = Fate(wanted.surface, wanted.model, wanted.stream, wanted.leave_after)
        self.began_us = 0
        self.ended_us = 0

    async def run(self) -> None:
        world, fate = self.world, self.fate
        loop = world.people
        self.began_us = world.scheduler.now_us
        connection = await self._connect(loop)
        if connection is None:
            fate.error = "nobody listens"
            return
        assert connection.transport is not None
        self._send(connection)
        if self.order.leave_at_us is not None:
            loop.after(self.order.leave_at_us, self._leave, connection)
        try:
            await self._read(connection)
        except (ConnectionError, OSError) as error:
            fate.error = fate.error or type(error).__name__
        self.ended_us = world.scheduler.now_us
        connection.transport.abort()
        how = "complete" if fate.complete else fate.error or ("left" if fate.left else "")
        world.log(f"call {self.order.number} is over: {fate.status} {how}")

    async def _connect(self, loop: ProcessLoop) -> CallerConnection | None:
        for _ in range(CONNECT_TRIES):
            try:
                _, connection = self.world.network.pair(loop, lambda: CallerConnection(loop), "gateway.test")
            except ConnectionError:
                await asyncio.sleep(1.0)
                continue
            return connection
        return None

    def _send(self, connection: CallerConnection) -> None:
        wanted, fate = self.order, self.fate
        fields: dict[str, Any] = {}
        if wanted.max_tokens is not None:
            fields["max_tokens"] = wanted.max_tokens
        if wanted.fallback is not None:
            fields["models"] = [wanted.fallback]
        if wanted.wish is not None:
            fields["provider"] = wanted.wish
        text = f"call {wanted.number} " + "word " * (wanted.padding // 5)
        body = body_for(fate.surface, fate.model, stream=fate.stream, text=text, **fields)
        data = json.dumps(body, separators=(",", ":")).encode()
        path = "/v1/messages" if fate.surface == "messages" else "/v1/chat/completions"
        extra = "x-farebox-max-output-to-balance: true\r\n" if wanted.to_balance else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {self.secret}\r\n{extra}"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        assert connection.transport is not None
        connection.transport.write(head.encode() + data)

    def _leave(self, connection: CallerConnection) -> None:
        if self.ended_us or connection.transport is None:
            return
        self.fate.left = True
        if self.order.leave_softly:
            connection.transport.close()
        else:
            connection.transport.abort()

    async def _read(self, connection: CallerConnection) -> None:
        fate = self.fate
        while b"\r\n\r\n" not in connection.data:
            await connection.more()
        head, _, rest = connection.data.partition(b"\r\n\r\n")
        connection.data = rest
        fate.head = head + b"\r\n"
        fate.status = int(head[9:12])
        # A call's generation has the name of its request, also where the answer is an error and does not say so; where a second
        # attempt has answered, with an ending.
        found, told = _REQUEST.search(fate.head), _GENERATION.search(fate.head)
        fate.generation = told[1].decode() if told is not None else None if found is None else f"gen-{found[1].decode()}"
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            ended = await self._chunks(connection)
        else:
            length = int(_LENGTH.search(head.lower())[1])  # type: ignore[index]
            while len(connection.data) < length:
                self._maybe_leave(connection, len(connection.data))
                await connection.more()
            fate.body, connection.data = connection.data[:length], connection.data[length:]
            ended = True
        if ended:
            marker = b"data: [DONE]" if fate.surface == "chat" else b"event: message_stop"
            fate.complete = fate.status == 200 and (marker in fate.body if fate.stream else True)

    async def _chunks(self, connection: CallerConnection) -> bool:
        """The body until its last chunk."""
        transport = connection.transport
        assert transport is not None
        parts: list[bytes] = []
        size = 0
        slow_s = self.order.slow_s
        try:
            while True:
                while (end := connection.data.find(b"\r\n")) < 0:
                    await connection.more()
                length = int(connection.data[:end], 16)
                while len(connection.data) < end + 4 + length:
                    await connection.more()
                parts.append(connection.data[end + 2 : end + 2 + length])
                connection.data = connection.data[end + 4 + length :]
                if not length:
                    return True
                size += length
                self._maybe_leave(connection, size)
                if slow_s and not connection.data:
                    transport.pause_reading()
                    await asyncio.sleep(slow_s)
                    transport.resume_reading()
                    slow_s = min(slow_s, 1.0)
        finally:
            self.fate.body = b"".join(parts)

    def _maybe_leave(self, connection: CallerConnection, size: int) -> None:
        if self.order.leave_after is not None and size >= self.order.leave_after:
            self._leave(connection)
            raise ConnectionAbortedError


def events(body: bytes) -> Iterator[Any]:
    """The JSON of an event stream, in any of the forms that the standard allows."""
    text = body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for block in text.split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        data = "\n".join(lines)
        if data and data != "[DONE]":
            yield json.loads(data)


def text_of(fate: Fate) -> str | None:
    """The answer's text as the caller's program puts it together; None if it is not an answer."""
    try:
        if not fate.stream:
            value = json.loads(fate.body)
            if fate.surface == "chat":
                return value["choices"][0]["message"]["content"] or ""
            return "".join(block.get("text", "") for block in value["content"] if block["type"] == "text")
        parts: list[str] = []
        for event in events(fate.body):
            if fate.surface == "chat":
                parts += [choice["delta"].get("content") or "" for choice in event.get("choices", ())]
            elif event["type"] == "content_block_delta":
                parts.append(event["delta"].get("text", ""))
        return "".join(parts)
    except (ValueError, KeyError, IndexError, TypeError):
        return None
