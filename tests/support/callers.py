"""Callers for load: raw HTTP/1.1 on asyncio, each call's whole fate written down, and clients that vanish when told to."""

import asyncio
import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

CALL_S_MAX = 60.0
_GENERATION = re.compile(rb"\r\nx-generation-id: ([^\r]+)")
_COST = re.compile(rb'"cost_usd":"([0-9.]+)"')


@dataclass
class Fate:
    """What a caller saw of one call."""

    surface: str
    model: str
    stream: bool
    leave_after: int | None = None
    """Hang up once so many bytes of body have come; None: stay."""
    generation: str | None = None
    status: int | None = None
    body: bytes = b""
    head: bytes = b""
    complete: bool = False
    """The whole answer came: a 200 body to its last byte, or a stream with its terminal marker."""
    left: bool = False
    error: str = ""

    @property
    def cost_usd(self) -> str | None:
        found = _COST.findall(self.body)
        return found[-1].decode() if found else None

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        found = re.search(rb"\r\n" + name.encode() + rb": ([^\r]*)", self.head, re.IGNORECASE)
        return None if found is None else found[1].decode()


def body_for(surface: str, model: str, *, stream: bool, text: str = "hello", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    if surface == "messages":
        body.setdefault("max_tokens", 2000)
    if stream:
        body["stream"] = True
        if surface == "chat":
            body.setdefault("stream_options", {"include_usage": True})
    return body


async def call(
    port: int, key: str, fate: Fate, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Fate:
    """Make the call; never raises for what the network does."""
    path = "/v1/messages" if fate.surface == "messages" else "/v1/chat/completions"
    data = json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"connection: close\r\n{extra}content-length: {len(data)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(CALL_S_MAX):
            await _exchange(port, head.encode() + data, fate)
    except TimeoutError:
        fate.error = f"no end within {CALL_S_MAX} s"
    except (OSError, asyncio.IncompleteReadError) as error:
        fate.error = type(error).__name__
    return fate


async def _exchange(port: int, request: bytes, fate: Fate) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        if fate.leave_after == 0:
            await writer.drain()
            fate.left = True
            return
        fate.head = await reader.readuntil(b"\r\n\r\n")
        fate.status = int(fate.head[9:12])
        found = _GENERATION.search(fate.head)
        fate.generation = None if found is None else found[1].decode()
        if b"transfer-encoding: chunked" in fate.head:
            ended = await _chunks(reader, fate)
        else:
            length = fate.header("content-length")
            fate.body = await reader.readexactly(int(length)) if length is not None else await reader.read()
            ended = True
        if ended:
            marker = b"data: [DONE]" if fate.surface == "chat" else b"event: message_stop"
            fate.complete = fate.status == 200 and (marker in fate.body if fate.stream else True)
    finally:
        writer.transport.abort()


async def _chunks(reader: asyncio.StreamReader, fate: Fate) -> bool:
    """The body until its last chunk, or until the caller leaves."""
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            length = int(await reader.readuntil(b"\r\n"), 16)
            data = await reader.readexactly(length + 2)
            if not length:
                return True
            parts.append(data[:-2])
            size += length
            if fate.leave_after is not None and size >= fate.leave_after:
                fate.left = True
                return False
    finally:
        fate.body = b"".join(parts)


def together(
    port: int,
    key: str,
    calls: list[tuple[Fate, dict[str, Any]]],
    headers: Mapping[str, str] | None = None,
    *,
    beside: Callable[[], None] | None = None,
) -> list[Fate]:
    """All calls at once, and what is done in a thread meanwhile."""

    async def run() -> list[Fate]:
        meanwhile = asyncio.create_task(asyncio.to_thread(beside)) if beside is not None else None
        fates = list(await asyncio.gather(*(call(port, key, fate, body, headers) for fate, body in calls)))
        if meanwhile is not None:
            await meanwhile
        return fates

    return asyncio.run(run())


@dataclass
class Load:
    """So many callers at work in a thread of their own until told to stop; a refused connection is tried again."""

    port: int
    key: str
    choose: Callable[[random.Random], tuple[Fate, dict[str, Any]]]
    callers: int
    seed: int
    fates: list[Fate] = field(default_factory=list)
    answered: int = 0
    """Complete answers so far: what a test waits on."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Load":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="callers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(CALL_S_MAX + 10)
        assert not self._thread.is_alive(), "the callers did not end"

    async def _run(self) -> None:
        await asyncio.gather(*(self._caller(random.Random(f"{self.seed}/{number}")) for number in range(self.callers)))

    async def _caller(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            fate, body = self.choose(chance)
            await call(self.port, self.key, fate, body)
            self.fates.append(fate)
            self.answered += fate.complete
            if fate.status is None and not fate.left:
                # Nobody listens at the moment.
                await asyncio.sleep(0.1)
