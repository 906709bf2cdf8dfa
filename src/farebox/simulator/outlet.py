"""Writes one response as its directives order: honest, slow, split, cut, reset, or lying about its length."""

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Literal

from farebox.simulator.connection import Connection
from farebox.simulator.directives import Directives

STALL_S_MAX = 3600.0
"""A stalled answer gives up after an hour."""
LIE_BYTES_MAX = 1_000_000

Break = Literal["cut", "reset"]
_MICRO = 1_000_000
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus} | {529: b"Overloaded"}


class Hangup(Exception):
    """The caller is gone, and the provider stops for it."""


class Broken(Exception):
    """The provider broke the connection as ordered; the bill was told before."""


class Outlet:
    """One response. `event` for streams, `whole` for the rest; both may raise `Hangup` or `Broken`."""

    def __init__(
        self, connection: Connection, orders: Directives, *, persist: bool, before_break: Callable[[Break], Awaitable[None]]
    ) -> None:
        self._connection = connection
        self._orders = orders
        self._persist = persist
        self._before_break = before_break
        self._chunked = False
        self._body_bytes = 0
        self._events = 0
        self._deflate = zlib.compressobj(wbits=31) if orders.gzip else None
        self._plain = not orders.bends_bytes and orders.malformed_event is None
        self.reusable = not (orders.close or orders.silent_close)
        """Whether the connection may carry another request afterwards."""

    def check(self) -> None:
        """Raises `Hangup` when nobody listens and the provider minds."""
        if self._connection.gone and not self._persist:
            raise Hangup

    async def pause(self, duration_us: int) -> None:
        """Waits; a provider that generates to the end waits it out though the caller left."""
        if duration_us:
            if self._persist and self._connection.gone:
                await asyncio.sleep(duration_us / _MICRO)
            else:
                await self._connection.pause(duration_us / _MICRO)
            self.check()

    async def pace(self) -> None:
        """The wait before an event, and room for the loop to notice a hang-up."""
        delay_us = self._orders.delay_chunk_us if self._events else self._orders.delay_first_us
        if delay_us:
            await self.pause(delay_us)
        else:
            await asyncio.sleep(0)
            self.check()

    # Heads

    async def _head(self, status: int, content_type: str, length: int | None, fields: dict[str, str]) -> bytes:
        orders = self._orders
        lines = [
            b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b"Unknown")),
            b"content-type: " + content_type.encode(),
            *(f"{name}: {value}".encode("latin-1") for name, value in fields.items()),
        ]
        if orders.retry_after is not None:
            lines.append(b"retry-after: %d" % orders.retry_after)
        if orders.retry_after_ms is not None:
            lines.append(b"retry-after-ms: %d" % orders.retry_after_ms)
        if orders.should_retry is not None:
            lines.append(b"x-should-retry: " + (b"true" if orders.should_retry else b"false"))
        if orders.big_header is not None:
            lines.append(b"x-sim-padding: " + b"p" * orders.big_header)
        if orders.gzip:
            lines.append(b"content-encoding: gzip")
        if orders.close:
            lines.append(b"connection: close")
        if length is None:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
            if orders.trailers:
                lines.append(b"trailer: x-sim-trailer")
        else:
            lines.append(b"content-length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def _send_head(self, head: bytes) -> None:
        await self.pause(self._orders.delay_headers_us)
        pause_us = self._orders.slow_headers_us
        if pause_us is None:
            await self._send(head)
            return
        for at in range(len(head)):
            await self._connection.write(head[at : at + 1])
            await asyncio.sleep(0)
            await self.pause(pause_us)

    async def _send(self, data: bytes) -> None:
        size = self._orders.split
        if size is None:
            await self._connection.write(data)
            return
        for start in range(0, len(data), size):
            await self._connection.write(data[start : start + size])
            await asyncio.sleep(0)
            self.check()

    # Whole answers

    async def whole(self, status: int, content_type: str, body: bytes, fields: dict[str, str]) -> None:
        """An answer that is not streamed."""
        orders = self._orders
        if orders.gzip:
            body = gzip.compress(body, 6, mtime=0)
            self._deflate = None
        chunked = orders.truncated_chunked or orders.trailers
        length = None if chunked else max(0, len(body) + (orders.lying_length or 0))
        head = await self._head(status, content_type, length, fields)
        if self._plain and not chunked:
            await self._connection.write(head + body)
            return
        await self._send_head(head)
        await self._body(body, orders.stall_after, orders.reset_after)
        await self.end()

    # Streams

    async def open(self, content_type: str, fields: dict[str, str]) -> None:
        """The head of a stream."""
        length = None if self._orders.lying_length is None else min(LIE_BYTES_MAX, max(0, self._orders.lying_length))
        await self._send_head(await self._head(200, content_type, length, fields))

    async def event(self, data: bytes, *, last: bool = False) -> None:
        """One server-sent event, its end of event included."""
        self._events += 1
        if self._plain:
            await self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        orders = self._orders
        data = framed(data, orders, first=self._events == 1, last=last)
        if orders.malformed_event == self._events:
            data = data.rstrip(b"\r\n}]") + b"\n\n"
        sent = self._events - 1
        if orders.stall_after is not None and sent >= orders.stall_after:
            await self._stall()
        if orders.reset_after is not None and sent >= orders.reset_after:
            await self._break("reset", b"")
        await self._body(data, None, None)

    async def _body(self, data: bytes, stall_at: int | None, reset_at: int | None) -> None:
        """Body bytes through the limits that are counted in bytes; compressed first, framed last."""
        orders = self._orders
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        limits: tuple[tuple[int | None, Break | Literal["stall"]], ...] = (
            (orders.cut_at_byte, "cut"),
            (orders.reset_at_byte, "reset"),
            (reset_at, "reset"),
            (stall_at, "stall"),
        )
        end = self._body_bytes + len(data)
        breaks: list[tuple[int, Break | Literal["stall"]]] = [
            (limit - self._body_bytes, kind) for limit, kind in limits if limit is not None and end > limit
        ]
        head = b"%x\r\n" % len(data) if self._chunked else b""
        tail = b"\r\n" if self._chunked else b""
        if breaks:
            at, kind = min(breaks, key=lambda found: found[0])
            if kind == "stall":
                await self._send(head + data[:at])
                await self._stall()
            else:
                # At a border between chunks nothing of the next one is sent.
                await self._break(kind, head + data[:at] if at else b"")
        else:
            await self._send(head + data + tail)
        self._body_bytes += len(data)

    async def _stall(self) -> None:
        await self._connection.pause(STALL_S_MAX)
        if not self._persist:
            raise Hangup

    async def _break(self, kind: Break, rest: bytes) -> None:
        await self._before_break(kind)
        if rest:
            await self._send(rest)
        await (self._connection.reset() if kind == "reset" else self._connection.flush())
        raise Broken

    async def end(self) -> None:
        """The end of the body, honest or not. A `cut-at-byte` beyond the body has no effect."""
        orders = self._orders
        if self._deflate is not None:
            data = self._deflate.flush()
            self._deflate = None
            if data:
                await self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if orders.lying_length is not None or orders.truncated_chunked:
            self.reusable = False
        elif self._chunked:
            await self._send(b"0\r\nx-sim-trailer: end\r\n\r\n" if orders.trailers else b"0\r\n\r\n")

    async def refuse_silently(self) -> None:
        """RST before any byte."""
        await self._connection.reset()


def framed(event: bytes, orders: Directives, *, first: bool, last: bool) -> bytes:
    """An event in another of the forms that the server-sent events standard allows (or, `no-final-newline`, tolerates)."""
    match orders.sse:
        case None:
            return event
        case "crlf":
            return event.replace(b"\n", b"\r\n")
        case "cr":
            return event.replace(b"\n", b"\r")
        case "comments":
            return b": SIMULATOR PROCESSING\n\n" + event
        case "bom":
            return b"\xef\xbb\xbf" + event if first else event
        case "no-space":
            return (b"\n" + event).replace(b"\ndata: ", b"\ndata:").replace(b"\nevent: ", b"\nevent:")[1:]
        case "multi-line":
            # A line break between tokens is white space to JSON.
            return event.replace(b"data: {", b"data: {\ndata: ", 1)
        case "no-final-newline":
            return event.rstrip(b"\n") if last else event
