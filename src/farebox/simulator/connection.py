"""One caller's connection: requests in through httptools, bytes out, and whether the caller is still there.

Written by hand on `asyncio.Protocol` because the simulator is also the upstream of the benchmarks: it must cost far less
than the gateway that it measures.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Protocol, cast
from urllib.parse import unquote

import httptools
import msgspec

from farebox.simulator.config import BODY_BYTES_MAX

PIPELINE_MAX = 32
"""Requests waiting on one connection; more closes it."""
HEADER_BYTES_MAX = 256 * 1024
"""A head that is still unfinished after so many bytes closes the connection."""
HEADERS_MAX = 1_000
FLUSH_S_MAX = 30.0
"""A caller that does not read delays a cut or reset at most so long."""
FLUSH_POLL_S = 0.001
WRITE_BUFFER_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class Inbound(msgspec.Struct):
    """One request, read to its end."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes
    keep_alive: bool

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: bytes) -> str | None:
        for known, value in self.headers:
            if known == name:
                return value.decode("latin-1")
        return None


class BenchStream(msgspec.Struct, frozen=True):
    """A prebuilt stream: frames already chunked, and the pauses between them."""

    frames: tuple[bytes, ...]
    delay_first_s: float = 0.0
    delay_chunk_s: float = 0.0


class Handler(Protocol):
    """What answers requests."""

    def quick(self, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes | BenchStream | None:
        """A prebuilt answer, if this request has one; it must not wait for anything. Header names are as sent."""
        ...

    async def serve(self, inbound: Inbound, connection: "Connection") -> bool:
        """Answers, and says whether the connection may carry another request."""
        ...


class Connection(asyncio.Protocol):
    """See the module. One request is answered at a time; further ones wait in order."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop, open_connections: "set[Connection]") -> None:
        self._handler = handler
        self._loop = loop
        self._open = open_connections
        self._transport: asyncio.Transport | None = None
        self.gone = False
        """The caller hung up: half-closed, closed or reset."""
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._waiting: deque[Inbound] = deque()
        self._task: asyncio.Task[None] | None = None
        self._frames: Iterator[bytes] | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = False
        """A head has begun and not ended; `_head_bytes` have come since."""
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._open.discard(self)
        self._wake()

    def eof_received(self) -> bool:
        self.gone = True
        self._wake()
        return False

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES_MAX or len(self._headers) > HEADERS_MAX:
                self._refuse(b"431 Request Header Fields Too Large")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(b"501 Not Implemented")
        except httptools.HttpParserError:
            self._refuse(b"400 Bad Request")

    def _refuse(self, status: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
            self._transport.close()

    # The parser's side

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._in_head = True
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if len(name) == 6 and name.lower() == b"expect" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            self._body = []
            self._refuse(b"413 Content Too Large")
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep_alive = self._parser.should_keep_alive()
        if self._task is None and self._frames is None and body:
            reply = self._handler.quick(self._target, self._headers, body)
            if isinstance(reply, bytes):
                transport.write(reply)
                if not keep_alive:
                    transport.close()
                return
            if reply is not None:
                self._start_frames(reply, keep_alive)
                return
        if len(self._waiting) >= PIPELINE_MAX:
            self._refuse(b"503 Service Unavailable")
            return
        method = self._parser.get_method().decode()
        headers = [(name.lower(), value) for name, value in self._headers]
        self._waiting.append(Inbound(method, self._target.decode("latin-1"), headers, body, keep_alive))
        self._next()

    def _next(self) -> None:
        if self._task is None and self._frames is None and self._waiting:
            self._task = self._loop.create_task(self._answer(self._waiting.popleft()))

    async def _answer(self, inbound: Inbound) -> None:
        keep = False
        try:
            keep = await self._handler.serve(inbound, self)
        finally:
            # An unforeseen error in here shows to the caller as a closed connection, and on stderr as a traceback.
            self._task = None
            if not keep or not inbound.keep_alive:
                self.close()
            else:
                self._next()

    # Prebuilt streams: one write per turn of the loop, without a task.

    def _start_frames(self, stream: BenchStream, keep_alive: bool) -> None:
        self._frames = iter(stream.frames)
        self._keep_alive = keep_alive
        self._delay_s = stream.delay_chunk_s
        if stream.delay_first_s:
            self._loop.call_later(stream.delay_first_s, self._frame)
        else:
            self._frame()

    def _frame(self) -> None:
        transport, frames = self._transport, self._frames
        if transport is None or frames is None:
            return
        frame = None if self.gone else next(frames, None)
        if frame is None:
            self._frames = None
            if not self._keep_alive:
                transport.close()
            self._next()
            return
        transport.write(frame)
        if self._delay_s:
            self._loop.call_later(self._delay_s, self._frame)
        else:
            self._loop.call_soon(self._frame)

    # The answering side

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def pause(self, seconds: float) -> None:
        """Waits, at most until the caller hangs up."""
        if self.gone:
            return
        end = self._loop.time() + seconds
        while not self.gone and (left := end - self._loop.time()) > 0:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(left, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None

    async def write(self, data: bytes) -> None:
        """Hands bytes to the kernel, waiting while the caller reads slowly; silent when the caller is gone."""
        if self.gone or self._transport is None:
            return
        self._transport.write(data)
        while self._paused and not self.gone:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def flush(self) -> None:
        """Waits until the kernel has everything, or the caller has not read for too long."""
        end = self._loop.time() + FLUSH_S_MAX
        while not self.gone and self._transport is not None and self._transport.get_write_buffer_size():
            if self._loop.time() > end:
                return
            await asyncio.sleep(FLUSH_POLL_S)

    async def reset(self) -> None:
        """Ends the connection with RST, after what was written."""
        await self.flush()
        if self._transport is not None and not self._transport.is_closing():
            peer: socket.socket = self._transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def close(self) -> None:
        """Ends the connection with FIN, after what was written."""
        if self._transport is not None:
            self._transport.close()
