"""HTTP/1.1 on the client's side: one protocol object per connection, llhttp (`httptools`) as its parser.

A server of our own, because this is what a gateway does all day: per call uvicorn cost five times as much as everything here
(docs/decisions/0003-own-http-server.md). It does what the gateway needs and nothing else: whole request bodies, bounded; one
answer at a time per connection; streams with back-pressure; a call told the moment its client hangs up.

Strict in what could be read two ways (request smuggling): llhttp refuses a message with both Content-Length and
Transfer-Encoding, bad chunk sizes and folded headers; this file refuses repeated framing or host fields, unknown transfer
codings, and anything but an origin-form target.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

import httptools

if TYPE_CHECKING:
    from farebox.edge.server import HttpServer

HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 128
TARGET_BYTES_MAX = 8 * 1024
PIPELINE_MAX = 16
"""Requests that may wait on one connection behind the one being answered."""
WRITE_BUFFER_BYTES_MAX = 256 * 1024
"""Unsent bytes at which a stream waits for its reader."""

_REASONS = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    415: b"Unsupported Media Type", 417: b"Expectation Failed", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip
_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in _REASONS.items()}
_ONCE = frozenset({b"content-length", b"transfer-encoding", b"host"})
_LAST_CHUNK = b"0\r\n\r\n"


def status_line(status: int) -> bytes:
    return _LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


class Request:
    """One request, complete."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "problem", "query")

    def __init__(self) -> None:
        self.method = b""
        self.path = ""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = True
        self.problem: tuple[int, str] | None = None
        """Why it can only be refused: (status, sentence). The connection ends with the refusal."""


class HttpAnswer:
    """`farebox.exchange.Answer` over a connection."""

    __slots__ = ("_chunked", "_connection", "_head_only", "_keep_alive", "ended", "gone", "on_gone", "started")

    def __init__(self, connection: "HttpConnection", request: Request) -> None:
        self._connection = connection
        self._keep_alive = request.keep_alive
        self._head_only = request.method == b"HEAD"
        self._chunked = False
        self.gone = False
        self.started = False
        self.ended = False
        self.on_gone: Callable[[], None] | None = None

    def whole(self, status: int, headers: bytes, body: bytes) -> None:
        """The complete answer; `headers` are encoded lines, each ended by CR LF."""
        self.started = self.ended = True
        connection = self._connection
        close = b"" if self._keep_alive else b"connection: close\r\n"
        head = b"%bdate: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (
            _LINES.get(status) or status_line(status), connection.server.date, len(body), headers, close,
        )  # fmt: skip
        connection.write(head if self._head_only else head + body)
        connection.finish(self._keep_alive)

    def start(self, headers: bytes) -> None:
        """Begin a streamed answer with status 200; does nothing when it has begun."""
        if self.started:
            return
        self.started = True
        # HTTP/1.0 clients cannot read chunks: the end of the connection is the end of the body.
        self._chunked = self._connection.chunks_understood
        if not self._chunked:
            self._keep_alive = False
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        close = b"" if self._keep_alive else b"connection: close\r\n"
        self._connection.write(
            b"HTTP/1.1 200 OK\r\ndate: %b\r\n%b%b%b\r\n" % (self._connection.server.date, framing, headers, close)
        )

    def send(self, data: bytes) -> bool:
        """A part of a streamed answer. True when the client reads slower than we send: then `await drain()`."""
        connection = self._connection
        connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return connection.paused is not None

    async def drain(self) -> None:
        """Wait until the client has taken enough, or is gone."""
        paused = self._connection.paused
        if paused is not None:
            await asyncio.shield(paused)

    def end(self, data: bytes = b"") -> None:
        """The last part."""
        self.ended = True
        connection = self._connection
        if self._chunked:
            connection.write((b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + _LAST_CHUNK)
        elif data:
            connection.write(data)
        connection.finish(self._keep_alive)


class HttpConnection(asyncio.Protocol):
    """One client's connection: requests in their order, one answer at a time."""

    __slots__ = (
        "_begun_us", "_body", "_body_bytes", "_head_bytes", "_in_head", "_parser", "_queue", "_request", "_task", "_transport",
        "answer", "chunks_understood", "closing", "paused", "server", "since_us",
    )  # fmt: skip

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self.answer: HttpAnswer | None = None
        self.paused: asyncio.Future[None] | None = None
        self.chunks_understood = True
        self.closing = False
        self.since_us = 0
        """When the client last made progress; what idle and slow connections are judged by."""
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._begun_us = 0
        self._in_head = True
        self._head_bytes = 0
        self._queue: list[Request] = []
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)

    # --- the event loop's calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self.since_us = self.server.now_us
        self.server.opened(self)

    def data_received(self, data: bytes) -> None:
        self.since_us = self.server.now_us
        if self.closing:
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # WebSockets are refused at once, so that clients which try them first fall back to HTTP.
            self._refuse(400, "this endpoint does not upgrade to another protocol")
        except httptools.HttpParserError:
            self._refuse(400, "the request is not valid HTTP/1.1")
        else:
            if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(431, f"the request's header fields are larger than {HEAD_BYTES_MAX} bytes")

    def eof_received(self) -> bool:
        # A client that half-closes has gone as far as HTTP/1.1 clients of ours are concerned.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.server.closed(self)
        self.resume_writing()
        answer = self.answer
        if answer is not None and not answer.ended:
            answer.gone = True
            if answer.on_gone is not None:
                answer.on_gone()

    def pause_writing(self) -> None:
        if self.paused is None:
            self.paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        paused, self.paused = self.paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    # --- the parser's calls ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = Request()
        self._body = []
        self._body_bytes = 0
        self._begun_us = self.server.now_us

    def on_url(self, url: bytes) -> None:
        request = self._request
        assert request is not None, "the parser begins a message before its target"
        path, _, query = (request.query + url).partition(b"?") if request.query else url.partition(b"?")
        if len(url) > TARGET_BYTES_MAX:
            request.problem = (431, f"the request target is longer than {TARGET_BYTES_MAX} bytes")
        if not path.startswith(b"/"):
            request.problem = (400, "the request target must be a path")
        if b"%" in path:
            path = unquote_to_bytes(path)
        request.path = path.decode("utf-8", "replace")
        request.query = query

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        assert request is not None, "the parser begins a message before its fields"
        name = name.lower()
        headers = request.headers
        if name in headers:
            if name in _ONCE:
                request.problem = (400, f"`{name.decode('latin-1')}` is given twice")
            value = headers[name] + b", " + value
        elif len(headers) >= HEADERS_MAX:
            request.problem = (431, f"the request has more than {HEADERS_MAX} header fields")
            return
        headers[name] = value

    def on_headers_complete(self) -> None:
        request = self._request
        assert request is not None, "the parser begins a message before its end"
        parser = self._parser
        request.method = parser.get_method()
        request.keep_alive = parser.should_keep_alive()
        self.chunks_understood = parser.get_http_version() != "1.0"
        self._in_head = False
        headers = request.headers
        if request.problem is None:
            length = headers.get(b"content-length")
            coding = headers.get(b"transfer-encoding")
            if length is not None and int(length) > self.server.body_bytes_max:
                request.problem = self.server.too_large()
            elif coding is not None and coding.lower() != b"chunked":
                request.problem = (400, "`transfer-encoding` other than `chunked` is not understood")
            elif self.chunks_understood and b"host" not in headers:
                request.problem = (400, "the `host` field is missing")
        if request.problem is not None:
            self._refuse(*request.problem)
        elif b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                self._refuse(417, "`expect` other than `100-continue` is not understood")
            elif self.answer is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self.server.body_bytes_max:
            if not self.closing:
                self._refuse(*self.server.too_large())
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        request = self._request
        self._request = None
        self._in_head = True
        self._head_bytes = 0
        if request is None or self.closing:
            return
        body = self._body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        if self.answer is None:
            self._begin(request)
        elif len(self._queue) >= PIPELINE_MAX:
            self._transport.abort()
        else:
            self._queue.append(request)
            self._transport.pause_reading()

    # --- answering -------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        answer = self.answer = HttpAnswer(self, request)
        self._task = self.server.run(request, answer)

    def _refuse(self, status: int, problem: str) -> None:
        """Tell the client why and hang up; what it sends further is not read."""
        if self.closing:
            return
        self.closing = True
        self._request = None
        if self.answer is None:
            request = Request()
            request.keep_alive = False
            answer = self.answer = HttpAnswer(self, request)
            self.server.refuse(answer, status, problem)
        # Else the answer under way is finished first; `finish` then closes.

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def finish(self, keep_alive: bool) -> None:
        """The answer is complete: the next request, or the end."""
        self.answer = None
        self._task = None
        self.since_us = self.server.now_us
        if not keep_alive or self.closing or self.server.draining:
            self.closing = True
            self._transport.close()
            return
        if self._queue:
            request = self._queue.pop(0)
            if not self._queue:
                self._transport.resume_reading()
            self._begin(request)

    def abort(self) -> None:
        self._transport.abort()

    @property
    def reading(self) -> bool:
        """In the middle of a request."""
        return self._request is not None

    def is_slow(self, now_us: int, *, header_us: int, body_grace_us: int, body_bytes_per_s: int) -> bool:
        """Whether the request being read takes longer than an honest client would."""
        spent_us = now_us - self._begun_us
        if self._in_head:
            return spent_us > header_us
        return spent_us > body_grace_us and self._body_bytes * 1_000_000 < (spent_us - body_grace_us) * body_bytes_per_s

    def time_out(self) -> None:
        self._refuse(408, "the request did not arrive in time")


Handler = Callable[[Request, HttpAnswer], Coroutine[Any, Any, None]]
