"""A response parser without I/O: bytes in, one response out. The same bytes split anywhere give the same response.

llhttp (through `httptools`) judges the head and decodes chunks; this file decides where the message ends and closes what
llhttp leaves open, because a message whose end two parsers see in different places is how requests are smuggled
(RFC 9112 §11.2). Refused here although llhttp 9 accepts it:

- versions other than 1.0 and 1.1, protocols other than HTTP, empty lines before the status line, control characters in
  the reason phrase, status below 100 and 101 (nobody asked for an upgrade);
- any transfer coding but a single `chunked` (RFC 9112 §6.1 lets a client refuse those it does not know), and any at all in
  HTTP/1.0;
- heads, trailers and chunk framing without bound.

Repeated `content-length`, `content-length` beside `transfer-encoding`, folded lines, bare CR or LF are refused by llhttp 9;
the checks that decide framing are made here again, so that an older or laxer llhttp would not matter. Bytes after the end
do not spoil the response, but the connection that sent them is never used again.

A reader serves one response; its parser is thrown away with it, so no state can leak from one response into the next.
"""

import re
from collections.abc import Callable
from typing import Final, NoReturn

import httptools

from .errors import HeadersTooLarge, Phase, ProtocolError, Truncated
from .head import Head
from .limits import HEADER_BYTES_MAX, HEADERS_MAX, INTERIM_MAX

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n")
_FRAMING_FIELD: Final = re.compile(rb"\n(content-length|transfer-encoding|connection):[ \t]*([^\r]*)")  # in a lower-cased head
_BARE_LF: Final = re.compile(rb"(?:^|[^\r])\n")
_FIELD_BYTES_MIN: Final = 4  # `a:` CRLF; a head too short for HEADERS_MAX such lines need not be counted
_LENGTH_DIGITS_MAX: Final = 18  # below 2**63
_WITHOUT_BODY: Final = frozenset({204, 304})


# How the end of the body is known (RFC 9112 §6.3). Plain integers: looking up an enum member costs a call, and these are
# looked up for every piece of every stream.
_UNKNOWN: Final = 0  # the final head has not come
_LENGTH: Final = 1
_CHUNKED: Final = 2
_CLOSE: Final = 3


class ResponseReader:
    """One response being received.

    `head` is set once the final head came, `complete` at the end of the message. `body` holds the pieces nobody took yet
    and `buffered` bounds their size from above in bytes (chunk framing may be counted). `reusable` is meaningful when
    complete: the connection stands exactly at the start of the next response. `touched`: at least one byte came.
    """

    __slots__ = (
        "_framing", "_interim", "_parser", "_partial", "_remaining", "_unproductive", "body", "buffered", "complete", "head",
        "head_only", "on_body", "reusable", "touched",
    )

    def __init__(
        self,
        *,
        head_only: bool = False,
        head: Head | None = None,
        buffered: int = 0,
        complete: bool = False,
        reusable: bool = True,
        touched: bool = False,
        on_body: Callable[[bytes], None] | None = None,
    ) -> None:
        self.head_only = head_only
        """The request was HEAD, so the response has no body whatever it says."""
        self.head = head
        self.body: list[bytes] = []
        self.buffered = buffered
        self.complete = complete
        self.reusable = reusable
        self.touched = touched
        self.on_body = on_body
        """Called by llhttp for every piece, without a Python frame."""
        self._framing: int = _UNKNOWN
        self._interim: int = 0
        self._partial: bytes = b""
        self._remaining: int = 0
        self._unproductive: int = 0
        self._parser: httptools.HttpResponseParser | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection, in any split.

        Raises `ProtocolError`, after which the reader must not be fed again. Bytes past the end only clear `reusable`.
        """
        if self.complete:
            self.reusable = False
            return
        framing = self._framing
        if framing == _UNKNOWN:
            data = self._read_heads(data)
            if not data:
                return
            if self.complete:
                self.reusable = False
                return
            framing = self._framing
        if framing == _CHUNKED:
            self._read_chunks(data)
            return
        if framing == _LENGTH:
            missing = self._remaining - len(data)
            if missing <= 0:
                self.complete = True
                if missing < 0:
                    self.reusable = False
                    data = data[: self._remaining]
                    missing = 0
            self._remaining = missing
        self.body.append(data)
        self.buffered += len(data)

    def feed_eof(self) -> None:
        """The connection ended. Completes a body that ends so; raises `Truncated` for any other before its end."""
        self.reusable = False
        if self.complete:
            return
        if self._framing == _CLOSE:
            self.complete = True
            return
        what = "before a response" if not self.touched else "inside the head" if self.head is None else "inside the body"
        raise Truncated(f"the server closed the connection {what}", sent=True, phase=self.phase)

    @property
    def phase(self) -> Phase:
        """What is being waited for."""
        return "headers" if self.head is None else "body"

    @property
    def missing(self) -> int | None:
        """Bytes of body still to come, when the head said how many."""
        return self._remaining if self._framing == _LENGTH else None

    def drop_parser(self) -> None:
        """Break the cycle between the reader and its parser, so that neither waits for the garbage collector."""
        self._parser = None

    # Heads.

    def _read_heads(self, data: bytes) -> bytes:
        """Take interim heads and the final one; returns what follows."""
        if self._partial:
            data = self._partial + data
        else:
            self.touched = True
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._check_partial(data)
                self._partial = data
                return b""
            if end > HEADER_BYTES_MAX:
                raise HeadersTooLarge(f"the response head is longer than {HEADER_BYTES_MAX} bytes", sent=True, phase="headers")
            self._read_head(data[:end])
            data = data[end:]
            if self.head is not None:
                self._partial = b""
                return data

    def _check_partial(self, data: bytes) -> None:
        """Refuse early what can never become a head, instead of waiting for its end."""
        if len(data) >= HEADER_BYTES_MAX:
            raise HeadersTooLarge(f"the response head is longer than {HEADER_BYTES_MAX} bytes", sent=True, phase="headers")
        if not data.startswith(b"HTTP/1."[: len(data)]):
            self._refuse("it does not start with `HTTP/1.`")
        if _BARE_LF.search(data):
            self._refuse("a line of its head does not end in CRLF")

    def _read_head(self, raw: bytes) -> None:
        """Judge one head; sets `head` and the framing unless it is an interim one."""
        minor, status = b"1", 200
        if not raw.startswith(b"HTTP/1.1 200 OK\r\n"):
            match = _STATUS_LINE.match(raw)
            if match is None:
                self._refuse(f"status line {raw[:64]!r}")
            minor, status = match[1], int(match[2])
            if status == 101:
                self._refuse("101 without an upgrade in the request")
        if len(raw) > HEADERS_MAX * _FIELD_BYTES_MIN and raw.count(b"\n") > HEADERS_MAX + 2:
            raise HeadersTooLarge(f"the response has more than {HEADERS_MAX} header fields", sent=True, phase="headers")
        parser = self._parser
        if parser is None:
            self.on_body = self.body.append
            parser = self._parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserError as error:
            self._refuse(str(error))
        lower = raw.lower()
        length: int | None = None
        chunked = close = False
        for name, value in _FRAMING_FIELD.findall(lower):
            if name == b"content-length":
                if length is not None:
                    self._refuse("several `content-length`")
                value = value.rstrip(b" \t")
                if not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX:
                    self._refuse(f"`content-length` is {value[:64]!r}")
                length = int(value)
            elif name == b"connection":
                close = close or b"close" in value
            elif chunked or value.rstrip(b" \t") != b"chunked" or minor == b"0":
                self._refuse(f"unknown transfer coding {value[:64]!r}")
            else:
                chunked = True
        if chunked and length is not None:
            self._refuse("`content-length` beside `transfer-encoding`")
        if status < 200:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                self._refuse(f"more than {INTERIM_MAX} interim responses")
            return
        self.head = Head(raw, lower, status)
        if close or minor == b"0":
            self.reusable = False
        if self.head_only or status in _WITHOUT_BODY or length == 0:
            self._framing = _LENGTH
            self.complete = True
        elif length is not None:
            self._framing = _LENGTH
            self._remaining = length
        elif chunked:
            self._framing = _CHUNKED
        else:
            self._framing = _CLOSE
            self.reusable = False

    # Chunks. The names `on_…` are llhttp's.

    def _read_chunks(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None, "a released reader was fed"
        pieces = len(self.body)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                self._refuse(str(error))
            self.reusable = False  # the error lies behind the end
        if len(self.body) > pieces:
            self.buffered += len(data)
            self._unproductive = 0
        else:
            self._unproductive += len(data)
            if self._unproductive > HEADER_BYTES_MAX:
                self._refuse(f"more than {HEADER_BYTES_MAX} bytes of chunk framing or trailers")
        if self.complete and not data.endswith(b"0\r\n\r\n"):
            # llhttp skips empty lines behind a message without a word. Only this ending, by far the usual one, proves
            # that there were none; an unusual ending (trailers, a split inside it) costs the connection.
            self.reusable = False

    def on_message_begin(self) -> None:
        """llhttp sees the first byte of a head: an interim one, the final one, or one that nobody asked for."""
        if self.complete:
            raise ValueError("bytes after the end of the response")

    def on_message_complete(self) -> None:
        """llhttp sees the end of a message: of an interim response, or of ours."""
        if self._framing == _CHUNKED:
            self.complete = True

    def _refuse(self, why: str) -> NoReturn:
        raise ProtocolError(f"malformed response: {why}", sent=True, phase=self.phase)
