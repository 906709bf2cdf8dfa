"""ASGI plumbing: reading bounded bodies, answering, noticing that a client hung up. Any ASGI server will do."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import zstandard

from farebox.errors import FareboxError, Kind, invalid
from farebox.exchange import Header

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

INFLATION_MAX = 20
"""A compressed body may grow by this factor at most (security.md §3)."""
INFLATE_FLOOR_BYTES = 64 * 1024
"""Small bodies may grow to this size whatever their factor."""
JSON_TYPE: Header = (b"content-type", b"application/json")
EVENT_STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
CORS: Header = (b"access-control-allow-origin", b"*")


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int) -> bytes:
    """The request's body, decompressed. Too large is a 413, told as soon as it is known."""
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientLeft
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":
                raise ClientLeft
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > bytes_max:
                raise _too_large(bytes_max)
            parts.append(part)
        body = b"".join(parts)
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding != b"identity":
        body = _decompress(body, encoding, min(bytes_max, max(len(body) * INFLATION_MAX, INFLATE_FLOOR_BYTES)))
    return body


class ClientLeft(Exception):
    """The client hung up before its request was complete: nobody is there to be told anything."""


def _too_large(bytes_max: int) -> FareboxError:
    return FareboxError(Kind.TOO_LARGE, f"the request body is larger than {bytes_max} bytes; send files by URL, or less text")


def _decompress(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    try:
        if encoding in (b"gzip", b"deflate"):
            unpacker = zlib.decompressobj(wbits=47 if encoding == b"gzip" else 15)
            data = unpacker.decompress(body, bytes_max + 1)
            complete = unpacker.eof
        elif encoding == b"zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(body)
            data = reader.read(bytes_max + 1)
            complete = True
        else:
            raise FareboxError(
                Kind.UNSUPPORTED_MEDIA,
                f"`content-encoding: {encoding[:32].decode('latin-1')}` is not understood; use gzip, zstd or none",
            )
    except (zlib.error, zstandard.ZstdError):
        raise invalid("the request body is not valid in its `content-encoding`") from None
    if len(data) > bytes_max:
        raise FareboxError(Kind.TOO_LARGE, f"the request body unpacks to more than {bytes_max} bytes")
    if not complete:
        raise invalid("the compressed request body is cut short")
    return data


class AsgiAnswer:
    """`farebox.exchange.Answer` over ASGI."""

    __slots__ = ("_base", "_receive", "_send", "ended", "gone", "started")

    def __init__(self, receive: Receive, send: Send, base: Sequence[Header]) -> None:
        """`base` are the header fields of every answer of this exchange."""
        self._receive = receive
        self._send = send
        self._base = base
        self.gone = False
        self.started = False
        self.ended = False

    async def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.started = self.ended = True
        length = (b"content-length", b"%d" % len(body))
        await self._send({"type": "http.response.start", "status": status, "headers": [JSON_TYPE, length, *self._base, *headers]})
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, headers: Sequence[Header]) -> None:
        if self.started:
            return
        self.started = True
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": [*EVENT_STREAM_HEADERS, *self._base, *headers]}
        )

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def wait_gone(self) -> None:
        while not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                if self.ended:
                    # The server says so at the end of every exchange, too.
                    await asyncio.Event().wait()
                return
