"""HTTP/1.1 on the client's side: one protocol object per connection, llhttp (`httptools`) as its parser.

A server of our own, because this is what a gateway does all day: per call uvicorn cost five times as much as everything here
(docs/decisions/0003-own-http-server.md). It does what the gateway needs and nothing else: whole request bodies, bounded; one
answer at a time per connection; streams with back-pressure; a call told the moment its client hangs up.

What is refused, and why, stands in `edge.request`. A refusal ends the connection, but only after the client could read it:
closing a socket with unread bytes resets it, and the answer would be lost (RFC 9112 §9.6). So the sending side is shut, and
what still comes is thrown away for a while.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, cast

import httptools

from farebox.edge.answer import HttpAnswer
from farebox.edge.body import PIECES_MAX, LongBody
from farebox.edge.repeated import RepeatedHead
from farebox.edge.request import LENGTH_DIGITS_MAX, Problem, Request, head_without_upgrade, judge
from farebox.fiber import Handling

if TYPE_CHECKING:
    from farebox.edge.server import HttpServer

HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_PIECE_BYTES: Final = 4096
"""How exactly a large read's share of a head is counted."""
HEADERS_MAX: Final = 128
TARGET_BYTES_MAX: Final = 8 * 1024
PIPELINE_MAX: Final = 16
"""Requests that may wait on one connection behind the one being answered, and no more bytes than one body may have."""
WRITE_BUFFER_BYTES_MAX: Final = 256 * 1024
"""Unsent bytes at which a stream waits for its reader."""
DISCARD_BYTES_MAX: Final = 128 * 2**20
"""What a refused client may send on before it is cut off."""

_ONCE: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOT_HTTP: Final[Problem] = (400, "the request is not valid HTTP/1.1")


class HttpConnection(asyncio.Protocol):
    """One client's connection: requests in their order, one answer at a time."""

    __slots__ = (
        "_begun_us", "_body", "_body_bytes", "_completed", "_continue", "_discarded", "_handling", "_head_bytes", "_headers",
        "_host", "_in_head", "_long_body", "_parser", "_path", "_plain", "_query", "_queue", "_repeated", "_request", "_target",
        "_transport", "_turned_away", "_upgrade", "answer", "closing", "lingering_us", "paused", "server", "since_us",
    )  # fmt: skip

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self.answer: HttpAnswer | None = None
        self.paused: asyncio.Future[None] | None = None
        self.closing = False
        """What comes further is not read."""
        self.lingering_us = 0
        """Since when the last answer is out and we only wait for the client to take it; 0 = not yet."""
        self.since_us = 0
        """When the last answer ended; what idle connections are judged by."""
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._headers: dict[bytes, bytes] = {}
        # The last target and host that were judged, and what they mean.
        self._target = self._query = b""
        self._host: bytes | None = None
        self._path = ""
        self._repeated: RepeatedHead | None = None
        self._completed: Request | None = None
        """The last one, if its head can be recognised when it comes again."""
        self._plain = False
        self._body: list[bytes] = []
        self._long_body: LongBody | None = None
        self._body_bytes = self._head_bytes = self._discarded = 0
        self._begun_us = 0
        self._in_head = True
        self._continue = False
        self._upgrade = False
        self._turned_away: Problem | None = None
        self._queue: list[Request] = []
        self._handling: Handling | None = None
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)

    # --- the event loop's calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self.since_us = self.server.now_us
        self.server.opened(self)

    def data_received(self, data: bytes) -> None:
        rest = self._take(data)
        while rest:
            rest = self._take(rest)

    def _take(self, data: bytes) -> bytes:
        """Read as much as can be judged at once; what is left is to be given again."""
        if self.closing:
            self._discard(len(data))
            return b""
        in_head = self._in_head
        body_bytes = self._body_bytes
        at_start = self._request is None and in_head
        if at_start and self._repeated is not None:
            again = self._repeated.read(data, self.server.body_bytes_max)
            if again is not None:
                self._arrived(again)
                return b""
        rest = b""
        if in_head:
            if self._head_bytes + len(data) > HEAD_BYTES_MAX and len(data) > HEAD_PIECE_BYTES:
                # It may hold more than a head is allowed, or a head and much of a body: the head has to be counted.
                data, rest = data[:HEAD_PIECE_BYTES], data[HEAD_PIECE_BYTES:]
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            return self._without_upgrade(data[stop.args[0] :]) + rest
        except httptools.HttpParserError:
            self._refuse(*_NOT_HTTP)
        else:
            if self._in_head:
                if at_start and self._completed is not None:
                    self._repeated = RepeatedHead.of(data, self._completed)
                    self._completed = None
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse(431, f"the request's header fields are larger than {HEAD_BYTES_MAX} bytes")
            elif not in_head:
                long_body = self._long_body = self._long_body or LongBody()
                if long_body.is_padded(len(data), self._body_bytes, productive=self._body_bytes > body_bytes):
                    self._refuse(400, "the request body has more chunk framing than content")
        return rest

    def eof_received(self) -> bool:
        # Who shuts the sending side has hung up, as far as a call that costs money is concerned.
        self._queue.clear()
        if self.answer is not None and not self.answer.ended:
            self._transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._queue.clear()
        # The parser and the connection hold each other: part them, so that neither waits for the garbage collector.
        self._parser = cast("httptools.HttpRequestParser", None)
        self.server.closed(self)
        self.resume_writing()
        if self.answer is not None and not self.answer.ended:
            self.answer.leave()

    def pause_writing(self) -> None:
        if self.paused is None:
            self.paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        paused, self.paused = self.paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    # --- the parser's calls ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.closing:
            raise ValueError("nothing is read behind a refusal")  # stops the parser
        request = self._request = Request()
        self._headers = request.headers
        self._body = []
        self._body_bytes = 0
        self._begun_us = self.server.now_us

    def on_url(self, url: bytes) -> None:
        request = self._request
        assert request is not None, "the parser begins a message before its target"
        target = request.target = request.target + url if request.target else url
        if len(target) > TARGET_BYTES_MAX and request.problem is None:
            request.problem = (431, f"the request target is longer than {TARGET_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            value = self._joined(name, value)
        elif len(headers) >= HEADERS_MAX:
            self._too_many()
            return
        headers[name] = value

    def on_headers_complete(self) -> None:
        request = self._request
        assert request is not None, "the parser begins a message before its end"
        parser = self._parser
        headers = request.headers
        request.method = parser.get_method()
        request.keep_alive = parser.should_keep_alive()
        self._in_head = False
        self._begun_us = self.server.now_us
        version = parser.get_http_version()
        unusual = b"transfer-encoding" in headers or b"expect" in headers or b"upgrade" in headers or version != "1.1"
        self._plain = not unusual
        if request.target == self._target and headers.get(b"host") == self._host and not unusual:
            # As nearly every request behind the first of its connection: only the length is news.
            request.path, request.query = self._path, self._query
        elif request.problem is None:
            request.problem = judge(request, version)
            self._target, self._host, self._path, self._query = request.target, headers.get(b"host"), request.path, request.query
        if b"content-length" in headers and request.problem is None:
            request.problem = self._announced(headers[b"content-length"])
        if request.problem is not None:
            self._plain = False
            self._refuse(*request.problem)  # and with it ends what this connection may ask
        elif unusual:
            self._unusual(request, version)

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self.server.body_bytes_max:
            self._refuse(*self.server.too_large())
            return
        body = self._body
        body.append(data)
        if len(body) >= PIECES_MAX:
            long_body = self._long_body = self._long_body or LongBody()
            long_body.collect(body)

    def on_message_complete(self) -> None:
        request = self._request
        if request is None or self._upgrade:
            return
        self._request = None
        self._in_head = True
        self._continue = False
        self._head_bytes = 0
        body = self._body
        long_body, self._long_body = self._long_body, None
        request.body = long_body.whole(body) if long_body is not None else body[0] if len(body) == 1 else b"".join(body)
        if self._plain and request.keep_alive:
            self._completed = request
        self._arrived(request)

    def _arrived(self, request: Request) -> None:
        if self.answer is None:
            self._begin(request)
            return
        queue = self._queue
        queue.append(request)
        if len(queue) >= PIPELINE_MAX or sum(len(waiting.body) for waiting in queue) > self.server.body_bytes_max:
            # This one is told that it is the last; the rest can be sent again. Reading is never paused: only who reads sees
            # that a client hangs up.
            request.keep_alive = False
            self.closing = True

    # --- what few requests need ------------------------------------------------------------------------------------------

    def _joined(self, name: bytes, value: bytes) -> bytes:
        """A repeated field is one list (RFC 9110 §5.3), except those that must stand once."""
        request = self._request
        if request is None:
            return value
        request.repeated += 1
        if name in _ONCE and self._in_head:
            request.problem = (400, f"`{name.decode('latin-1')}` is given twice")
        elif request.repeated > HEADERS_MAX:
            self._too_many()
            return self._headers[name]
        return self._headers[name] + b", " + value

    def _too_many(self) -> None:
        if self._request is not None:
            self._request.problem = (431, f"the request has more than {HEADERS_MAX} header fields")

    def _announced(self, length: bytes) -> Problem | None:
        length = length.strip(b" \t")
        if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
            return 400, "`content-length` must be one whole number"
        return self.server.too_large() if int(length) > self.server.body_bytes_max else None

    def _unusual(self, request: Request, version: str) -> None:
        headers = request.headers
        if b"transfer-encoding" in headers:
            # Trailers are fields, too, and must not pass for header fields: they are read and forgotten.
            self._headers = {}
        protocol = headers.get(b"upgrade")
        expectation = headers.get(b"expect")
        if protocol is not None and self._parser.should_upgrade():
            # WebSockets are refused at once, so that clients which try them first fall back; anything else is ignored.
            if b"websocket" in protocol.lower():
                self._refuse(426, "this endpoint does not speak WebSocket; send the request over plain HTTP")
            else:
                self._upgrade = True
        elif expectation is None or version == "1.0":
            pass  # an HTTP/1.0 client does not wait
        elif expectation.strip(b" \t").lower() != b"100-continue":
            self._refuse(417, "`expect` other than `100-continue` is not understood")
        elif self.answer is None:
            self.write(_CONTINUE)
        else:
            self._continue = True  # told when the answers before it are out

    def _without_upgrade(self, rest: bytes) -> bytes:
        """llhttp stops at an upgrade; one that we ignore (`h2c`) has an ordinary body behind it (RFC 9110 §7.8): `rest`, which is
        returned to be read.

        A parser cannot be told so, but a new one can be told the same head without the upgrade.
        """
        request = self._request
        if request is None or self.closing or not self._upgrade:
            self._refuse(400, "this endpoint does not upgrade to another protocol")
            return b""
        self._upgrade = False
        self._in_head = True
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(head_without_upgrade(request))
        return rest

    def _discard(self, size: int) -> None:
        if self._turned_away is not None:
            self.closing = False
            problem, self._turned_away = self._turned_away, None
            self._refuse(*problem)
            return
        self._discarded += size
        if self._discarded > DISCARD_BYTES_MAX:
            self.abort()

    # --- answering -------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        answer = self.answer = HttpAnswer(self, request, request.keep_alive)
        if request.problem is None:
            self._handling = self.server.run(request, answer)
        else:
            self.server.refuse(answer, *request.problem)

    def _refuse(self, status: int, problem: str) -> None:
        """Tell the client why and hang up, after the answers that it waits for; what it sends further is not read."""
        if self.closing:
            return
        self.closing = True
        refused = Request()
        if self._request is not None:
            refused.method, refused.path = self._request.method, self._request.path  # in whose surface's shape it is told
        refused.keep_alive = False
        refused.problem = (status, problem)
        self._request = self._long_body = None
        self._body = []
        if self.answer is None:
            self._begin(refused)
        else:
            self._queue.append(refused)

    def write(self, data: bytes) -> None:
        """Send with the rest of this turn, behind the records that were written in it."""
        self.server.turn.send(self._transport, data)

    def finish(self, keep_alive: bool) -> None:
        """The answer is complete: the next request, or the end."""
        self.answer = None
        self._handling = None
        self.since_us = self.server.now_us
        if not keep_alive or self.server.draining:
            self._end()
        elif self._queue:
            self._begin(self._queue.pop(0))
        elif self._continue:
            self._continue = False
            self.write(_CONTINUE)

    def _end(self) -> None:
        """The last answer is written. A client that may still be sending gets the time to read it."""
        self.server.turn.flush()
        transport = self._transport
        if transport.is_closing():
            return
        if self.closing or self._queue or self._request is not None:
            self._queue.clear()
            self.lingering_us = self.server.now_us or 1
            transport.write_eof()
        else:
            transport.close()
        self.closing = True

    def turn_away(self, status: int, problem: str) -> None:
        """Refuse whatever this client asks, as soon as it asks."""
        self.closing = True
        self.lingering_us = self.server.now_us or 1
        self._turned_away = (status, problem)

    def abort(self) -> None:
        self._queue.clear()
        self._transport.abort()

    def hang_up(self) -> None:
        """End when everything written is sent."""
        self._queue.clear()
        self.server.turn.flush()
        self._transport.close()

    @property
    def peer(self) -> str:
        """The address at the other end; empty for a socket that has none."""
        name: tuple[str, int] | str | None = self._transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else ""

    @property
    def reading(self) -> bool:
        """In the middle of a request."""
        return self._request is not None

    @property
    def handler(self) -> Handling | None:
        """What answers the request at hand, while it does."""
        return self._handling if self._handling is not None and not self._handling.done() else None

    @property
    def forsaken(self) -> bool:
        """The handler is over without having answered: a bug in it, which must not leave the client waiting."""
        return self._handling is not None and self._handling.done()

    def is_slow(self, now_us: int, *, header_us: int, body_grace_us: int, body_bytes_per_s: int) -> bool:
        """Whether the request being read takes longer than an honest client would."""
        spent_us = now_us - self._begun_us
        if self._in_head:
            return spent_us > header_us
        return spent_us > body_grace_us and self._body_bytes * 1_000_000 < (spent_us - body_grace_us) * body_bytes_per_s

    def time_out(self) -> None:
        self._refuse(408, "the request did not arrive in time")


Handler = Callable[[Request, HttpAnswer], Coroutine[Any, Any, None]]
