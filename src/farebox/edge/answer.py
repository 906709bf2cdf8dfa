"""The answer to one request, as bytes on its connection: whole, or streamed with back-pressure."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from farebox.edge.request import Request

if TYPE_CHECKING:
    from farebox.edge.http import HttpConnection

_REASONS: Final = {
    200: b"OK", 201: b"Created", 204: b"No Content",
    400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large",
    415: b"Unsupported Media Type", 417: b"Expectation Failed", 426: b"Upgrade Required", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout",
}  # fmt: skip
_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in _REASONS.items()}
_LAST_CHUNK: Final = b"0\r\n\r\n"


def status_line(status: int) -> bytes:
    return _LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


class HttpAnswer:
    """`farebox.exchange.Answer` over a connection."""

    __slots__ = ("_chunked", "_connection", "_on_gone", "ended", "gone", "keep_alive", "request", "started")

    def __init__(
        self,
        connection: "HttpConnection",
        request: Request,
        keep_alive: bool = True,
        gone: bool = False,
        started: bool = False,
        ended: bool = False,
    ) -> None:
        self._connection = connection
        self.request = request
        self.keep_alive = keep_alive
        self._chunked: bool = False
        self.gone = gone
        self.started = started
        self.ended = ended
        self._on_gone: Callable[[], None] | None = None

    @property
    def peer(self) -> str:
        """The address at the other end of the connection; empty when it has none."""
        return self._connection.peer

    @property
    def on_gone(self) -> Callable[[], None] | None:
        """Called when the client hangs up; at once, when it has done so before anybody listened."""
        return self._on_gone

    @on_gone.setter
    def on_gone(self, told: Callable[[], None] | None) -> None:
        self._on_gone = told
        if told is not None and self.gone:
            told()

    def whole(self, status: int, headers: bytes, body: bytes) -> None:
        """The complete answer; `headers` are encoded lines, each ended by CR LF."""
        self.started = self.ended = True
        connection = self._connection
        if status == 200 and self.keep_alive and self.request.method != b"HEAD":
            # As nearly every answer.
            length = b"content-length: %d\r\n\r\n" % len(body)
            connection.write(b"".join((connection.server.ok, headers, length, body)))
            connection.finish(True)
            return
        close = b"" if self.keep_alive else b"connection: close\r\n"
        # A 204 has no body, and must not say how long it is (RFC 9110 §8.6).
        length = b"content-length: %d\r\n" % len(body) if status != 204 else b""
        head = b"%bdate: %b\r\n%b%b%b\r\n" % (
            _LINES.get(status) or status_line(status), connection.server.date, length, headers, close,
        )  # fmt: skip
        connection.write(head if self.request.method == b"HEAD" else head + body)
        connection.finish(self.keep_alive)

    def start(self, headers: bytes) -> None:
        """Begin a streamed answer with status 200; does nothing when it has begun."""
        if self.started:
            return
        self.started = True
        connection = self._connection
        # HTTP/1.0 clients cannot read chunks: the end of the connection is the end of the body.
        self._chunked = self.request.chunks_understood
        if not self._chunked:
            self.keep_alive = False
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        close = b"" if self.keep_alive else b"connection: close\r\n"
        connection.write(b"HTTP/1.1 200 OK\r\ndate: %b\r\n%b%b%b\r\n" % (connection.server.date, framing, headers, close))

    def send(self, data: bytes) -> bool:
        """A part of a streamed answer. True when the client reads slower than we send: then `await drain()`."""
        connection = self._connection
        if data:  # an empty chunk would be the last one
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
        connection.finish(self.keep_alive)

    def leave(self) -> None:
        """The client has hung up before the end."""
        self.gone = True
        if self._on_gone is not None:
            self._on_gone()
