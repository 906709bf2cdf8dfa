"""The load generator: a fixed number of keep-alive connections, each sending its next request when the last is answered.

It runs in a process of its own (`python -m bench.load`) and takes a `Spec` per line of standard input: it connects, warms up,
says `ready`, and on `go` sends for real and answers with a `Result`. It is written on the bare protocol, without tasks, so that
it leaves the machine to the gateway; what it costs itself is not counted.
"""

import asyncio
import gc
import subprocess
import sys
import time
from array import array
from types import TracebackType
from typing import cast

import msgspec
import uvloop

MARK = b"data: "
"""Opens an event; never split into more than two reads, and counted across them."""
END_OF_CHUNKED = b"0\r\n\r\n"
STALL_S_MAX = 180.0
"""How long the last answers may take after the end of a run."""
ERRORS_MAX = 20
"""So many failed calls end a run."""


class Spec(msgspec.Struct, kw_only=True):
    """One run. It ends after `seconds`, or after `requests` if that is not 0; calls under way are finished and counted."""

    port: int
    path: str
    headers: dict[str, str]
    body: str
    concurrency: int
    warm_s: float
    seconds: float
    requests: int = 0
    chunks_min: int = 0
    """0: plain answers. Otherwise answers are streams, and one with fewer events counts as an error."""


class Times(msgspec.Struct):
    """Percentiles in µs."""

    p50: float = 0.0
    p99: float = 0.0


class Result(msgspec.Struct, kw_only=True):
    requests: int
    errors: int
    first_error: str
    elapsed_s: float
    whole: Times
    """From the first byte sent to the last one read."""
    first: Times
    """To the first event of a stream."""
    events: int
    reads: int
    """Reads of the socket that brought at least one event."""


def times(samples: "array[int]") -> Times:
    """Nearest-rank percentiles of nanoseconds."""
    if not samples:
        return Times()
    ordered = sorted(samples)
    return Times(ordered[(len(ordered) - 1) // 2] / 1000, ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1000)


class Run:
    """What all connections of a run share."""

    def __init__(self, spec: Spec, loop: asyncio.AbstractEventLoop) -> None:
        head = [f"POST {spec.path} HTTP/1.1", f"host: 127.0.0.1:{spec.port}", "content-type: application/json"]
        head += [f"{name}: {value}" for name, value in spec.headers.items()]
        body = spec.body.encode()
        head += [f"content-length: {len(body)}", "\r\n"]
        self.message = "\r\n".join(head).encode() + body
        self.chunks_min = spec.chunks_min
        self.loop = loop
        self.callers: list[Caller] = []
        self.busy = 0
        self.idle: asyncio.Future[None] = loop.create_future()
        self.reset(0.0, 0)

    def reset(self, seconds: float, requests: int) -> None:
        self.requests = self.errors = self.events = self.reads = 0
        self.first_error = ""
        self.whole: array[int] = array("q")
        self.first: array[int] = array("q")
        self.left = requests or sys.maxsize
        self.until_ns = sys.maxsize if requests else time.perf_counter_ns() + int(seconds * 1e9)

    def another(self, now_ns: int) -> bool:
        """Whether one more call is to be made; it is then taken."""
        if now_ns >= self.until_ns or self.left <= 0 or self.errors >= ERRORS_MAX:
            return False
        self.left -= 1
        return True

    def fail(self, what: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or what

    def rest(self) -> None:
        """A caller has no more to do."""
        self.busy -= 1
        if self.busy == 0 and not self.idle.done():
            self.idle.set_result(None)

    async def run(self, seconds: float, requests: int = 0) -> Result:
        self.reset(seconds, requests)
        self.idle = self.loop.create_future()
        self.busy = len(self.callers)
        start_ns = time.perf_counter_ns()
        for caller in self.callers:
            caller.next()
        try:
            await asyncio.wait_for(self.idle, None if requests else seconds + STALL_S_MAX)
        except TimeoutError:
            self.fail(f"{self.busy} calls were not answered within {STALL_S_MAX} s")
        return Result(
            requests=self.requests,
            errors=self.errors,
            first_error=self.first_error,
            elapsed_s=(time.perf_counter_ns() - start_ns) / 1e9,
            whole=times(self.whole),
            first=times(self.first),
            events=self.events,
            reads=self.reads,
        )


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.transport: asyncio.Transport | None = None
        self.waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.waiting:
            self.waiting = False
            self.run.fail(f"the connection ended in the middle of an answer ({exc or 'closed'})")
            self.run.rest()

    def next(self) -> None:
        """Send the next request, or rest."""
        run = self.run
        now_ns = time.perf_counter_ns()
        if self.transport is None:
            run.fail("the gateway closed an idle connection")
            run.rest()
        elif run.another(now_ns):
            self.waiting = self.in_head = True
            self.head = b""
            self.tail = b""
            self.left = -1
            self.events = 0
            self.start_ns = now_ns
            self.transport.write(run.message)
        else:
            run.rest()

    def data_received(self, data: bytes) -> None:
        if not self.waiting:
            self.run.fail(f"bytes that no request asked for: {data[:80]!r}")
            return
        if self.in_head:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self.head[end + 4 :]
            self.read_head(self.head[:end])
        if self.run.chunks_min:
            self.count_events(data)
        if self.left >= 0:
            self.left -= len(data)
            done = self.left <= 0
        else:
            self.tail = (self.tail + data)[-len(END_OF_CHUNKED) :] if len(data) < len(END_OF_CHUNKED) else data[-5:]
            done = self.tail == END_OF_CHUNKED
        if self.status != 200:
            self.refused += data
        if done:
            self.finish()

    def read_head(self, head: bytes) -> None:
        self.in_head = False
        self.status = int(head[9:12])
        self.refused = b""
        self.mark_tail = b""
        lower = head.lower()
        place = lower.find(b"\r\ncontent-length:")
        if place >= 0:
            self.left = int(lower[place + 17 :].partition(b"\r\n")[0])

    def count_events(self, data: bytes) -> None:
        found = (self.mark_tail + data).count(MARK)
        self.mark_tail = data[1 - len(MARK) :]
        if found:
            if not self.events:
                self.run.first.append(time.perf_counter_ns() - self.start_ns)
            self.events += found
            self.run.reads += 1

    def finish(self) -> None:
        run = self.run
        self.waiting = False
        run.whole.append(time.perf_counter_ns() - self.start_ns)
        run.requests += 1
        run.events += self.events
        if self.status != 200:
            run.fail(f"status {self.status}: {self.refused[:300].decode(errors='replace')}")
        elif self.events < run.chunks_min:
            run.fail(f"a stream ended after {self.events} events instead of {run.chunks_min} or more")
        self.next()


async def serve_spec(spec: Spec) -> Result:
    loop = asyncio.get_running_loop()
    run = Run(spec, loop)

    async def connect() -> None:
        """As many connections as wanted; those that rested long in a slow warm-up may have been closed."""
        run.callers = [caller for caller in run.callers if caller.transport is not None]
        while len(run.callers) < spec.concurrency:
            _, caller = await loop.create_connection(lambda: Caller(run), "127.0.0.1", spec.port)
            run.callers.append(caller)

    await connect()
    try:
        warmed = await run.run(spec.warm_s)
        print("ready", flush=True)
        if sys.stdin.buffer.readline() != b"go\n":
            sys.exit(0)
        if warmed.errors:
            return warmed
        await connect()
        return await run.run(spec.seconds, spec.requests)
    finally:
        for caller in run.callers:
            if caller.transport is not None:
                caller.transport.abort()


def main() -> None:
    gc.disable()  # Nothing here is cyclic for long; a pause of the collector would look like one of the gateway.
    while line := sys.stdin.buffer.readline():
        result = uvloop.run(serve_spec(msgspec.json.decode(line, type=Spec)))
        print(msgspec.json.encode(result).decode(), flush=True)
        gc.collect()


class LoadFailed(Exception):
    """The load generator ended, or calls failed."""


class Load:
    """The other side: `with Load() as load: load.prepare(spec); …; load.go()`."""

    def __enter__(self) -> "Load":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailed("the load generator ended; its last words are above")
        return line

    def prepare(self, spec: Spec) -> None:
        """Connect and warm up."""
        self._say(msgspec.json.encode(spec))
        self._hear()

    def go(self) -> Result:
        """Send. Raises `LoadFailed` when a call failed."""
        self._say(b"go")
        result = msgspec.json.decode(self._hear(), type=Result)
        if result.errors:
            raise LoadFailed(f"{result.errors} of {result.requests} calls failed; the first: {result.first_error}")
        return result


if __name__ == "__main__":
    main()
