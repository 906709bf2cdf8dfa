"""A whole Farebox in this process and on this event loop, under a wall clock that a test moves, over real sockets.

The worker is the real one (`processes.worker.serve`), so is the bookkeeper, whose rounds the test calls. Time passes at its usual
pace between the jumps; only what is measured, not dated (time-outs, pauses), knows nothing of them.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from farebox.app import Worker
from farebox.billing.invariants import checks
from farebox.config import load
from farebox.outside import real_outside
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.processes.bookkeeper import Bookkeeper
from farebox.processes.worker import serve
from farebox.storage import queries
from farebox.storage.database import Database
from tests.support.callers import Fate, body_for, call
from tests.support.running import Farebox

WAIT_S = 20.0
HOUSE_US = 120_000_000
"""What a bookkeeper's round takes by its own clock: so that each looks at everything."""


class MovableClock:
    """A wall clock that is set, and goes on from there."""

    def __init__(self, start_us: int) -> None:
        self._real = SystemClock()
        self._ahead_us = start_us - self._real.now_us()

    def now_us(self) -> int:
        return self._real.now_us() + self._ahead_us

    def monotonic_us(self) -> int:
        return self._real.monotonic_us()

    def jump_to(self, us: int) -> None:
        assert us >= self.now_us(), "time goes on"
        self._ahead_us = us - self._real.now_us()


class HastyClock:
    """The bookkeeper's: the same wall clock, but whatever is due every so often is due."""

    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock
        self._passed_us = 0

    def now_us(self) -> int:
        return self._clock.now_us()

    def monotonic_us(self) -> int:
        self._passed_us += HOUSE_US
        return self._passed_us


class Vendor:
    """A provider of chat completions whose answers end when it is told to."""

    def __init__(self, usage: Mapping[str, int]) -> None:
        self.usage = dict(usage)
        self.gate = asyncio.Event()
        """Open: answers are not held back."""
        self.gate.set()
        self.waiting = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(length))
                await self._answer(asked, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        about = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if asked.get("stream"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self._event(writer, {**about, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "well,"}}]})
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        usage = {**self.usage, "total_tokens": sum(self.usage.values())}
        if asked.get("stream"):
            self._event(writer, {**about, "choices": [{"index": 0, "delta": {"content": " yes"}, "finish_reason": "stop"}]})
            self._event(writer, {**about, "choices": [], "usage": usage})
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "well, yes"}, "finish_reason": "stop"}
            body = json.dumps({**about, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    @staticmethod
    def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        data = b"data: " + json.dumps({"object": "chat.completion.chunk", **event}).encode() + b"\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


class Town:
    """One worker, one bookkeeper, their customers."""

    def __init__(self, box: Farebox, clock: MovableClock, worker: Worker, bookkeeper: Bookkeeper, port: int) -> None:
        self.box, self.clock, self.worker, self.bookkeeper, self.port = box, clock, worker, bookkeeper, port
        self.loaded = load(box.config_path, box.environment)
        self.ids = TimeOrderedIds(clock)
        self.database = Database.open(self.loaded.database_url)

    @property
    def now_us(self) -> int:
        return self.clock.now_us()

    async def cli(self, *arguments: str, check: bool = True) -> Any:
        return await asyncio.to_thread(lambda: self.box.cli(*arguments, check=check))

    async def ask(self, key: str, model: str, *, surface: str = "chat", stream: bool = False, **fields: Any) -> Fate:
        headers: dict[str, str] = fields.pop("headers", {})
        fate = Fate(surface, model, stream)
        return await call(self.port, key, fate, body_for(surface, model, stream=stream, **fields), headers)

    async def get(self, key: str, path: str) -> Any:
        """A JSON page of the worker's."""
        status, _, body = await asyncio.to_thread(self._get, key, path)
        assert status == 200, (path, status, body)
        return body

    def _get(self, key: str, path: str) -> tuple[int, Mapping[str, str], Any]:
        self.box.port = self.port
        reply = self.box.get(path, key=key)
        return reply.status, reply.headers, reply.json()

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value of a condition."""
        async with asyncio.timeout(WAIT_S):
            while not (found := condition()):
                await asyncio.sleep(0.005)
            return found

    async def post(self) -> None:
        """The bookkeeper's rounds until nothing is left to do; months that are over are closed by them."""
        quiet = 0
        while quiet < 3:
            quiet = quiet + 1 if not await asyncio.to_thread(self.bookkeeper.round) else 0

    def problems(self) -> list[str]:
        """What `farebox ledger check` finds."""
        return [str(found) for found in checks.check(self.database, self.loaded.journal_dir)]

    def left_nano(self, account: str) -> int:
        found = self.database.read(lambda connection: queries.balance(connection, account))
        assert found is not None
        return found.remaining_nano


@asynccontextmanager
async def town(
    folder: Path, config: str, start_us: int, vendor: Vendor, **more: Any
) -> AsyncGenerator[Town]:
    """`config` may name the vendor's address as `{origin}`."""
    site = await asyncio.start_server(vendor.serve, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{site.sockets[0].getsockname()[1]}"
    box = Farebox(folder, config=config.replace("{origin}", origin), **more)
    loaded = load(box.config_path, box.environment)
    clock = MovableClock(start_us)
    real = real_outside(os.environ)
    outside = msgspec.structs.replace(real, clock=clock, ids=TimeOrderedIds(clock))
    bookkeeper = Bookkeeper(loaded, msgspec.structs.replace(real, clock=HastyClock(clock), ids=TimeOrderedIds(clock)))
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = int(listening.getsockname()[1])
    stop = asyncio.Event()
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(loaded, listening, 0, None, outside, ready.set_result, stop=stop))
    done, _ = await asyncio.wait((ready, serving), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    assert ready in done, serving.exception() if serving.done() else "the worker is not ready"
    made = Town(box, clock, ready.result(), bookkeeper, port)
    try:
        yield made
    finally:
        vendor.gate.set()
        stop.set()
        await asyncio.wait_for(serving, WAIT_S)
        site.close()
        made.database.close()
        bookkeeper.close()
