"""Server-sent events, fed bytes and giving events; the same bytes split anywhere give the same events.

Tolerant where real providers demand it (providers.md §1.5): `data:` with or without the space, LF, CRLF or CR, several
`data:` lines per event, comments, a byte-order mark, and a last event whose blank line was cut off. `id:` and `retry:` are
read and ignored: a model's answer is not resumable. Source of the grammar: WHATWG HTML, "Server-sent events".
"""

from typing import NamedTuple

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""One event, newlines included. A provider that sends more is broken or hostile."""

_BOM = b"\xef\xbb\xbf"
_LF, _CR = 0x0A, 0x0D


class ServerSentEvent(NamedTuple):
    event: str
    """The event's name; empty when the stream names none."""
    data: bytes


class Decoder:
    """Feed it bytes; it returns the events they complete.

    When an event passes `event_bytes_max`, `too_large` becomes true, the events before it have been returned, and everything
    after is ignored.
    """

    __slots__ = ("_after_cr", "_event_bytes_max", "_pieces", "_size", "_started", "too_large")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._pieces: list[bytes] = []
        """The unfinished event, in pieces: joined once, when it is whole, so that a long one costs no more than its bytes."""
        self._size = 0
        self._after_cr = False
        self._started = False
        self._event_bytes_max = event_bytes_max
        self.too_large = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        if self.too_large or not data:
            return []
        if self._after_cr:
            # The CR at the end of the last piece was already taken as a line end; its LF, if any, adds nothing.
            self._after_cr = False
            if data[0] == _LF:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == _CR
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        if not self._started:
            data = self._begin(data)
            if not data:
                return []
        pieces = self._pieces
        if b"\n\n" not in data and not (data[0] == _LF and pieces and pieces[-1][-1] == _LF):
            pieces.append(data)
            self._size += len(data)
            # One more than the bound: the last byte may be the first LF of the pair that ends an event of just that size.
            if self._size > self._event_bytes_max + 1:
                self._overflow()
            return []
        if pieces:
            pieces.append(data)
            data = b"".join(pieces)
            pieces.clear()
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        self._size = len(rest)
        if rest:
            pieces.append(rest)
        if len(data) > self._event_bytes_max and (found := self._within_bound(blocks)) is not None:
            return found
        return [event for block in blocks if (event := _event(block)) is not None]

    def _within_bound(self, blocks: list[bytes]) -> list[ServerSentEvent] | None:
        """The events before the first that is too large; None when there is no such one."""
        for i, block in enumerate([*blocks, *self._pieces]):
            # The unfinished rest may hold the first LF of its own end.
            if len(block) > self._event_bytes_max + (i == len(blocks)):
                self._overflow()
                return [event for earlier in blocks[:i] if (event := _event(earlier)) is not None]
        return None

    def end(self) -> list[ServerSentEvent]:
        """The stream is over: an event whose final blank line is missing is still an event."""
        if self.too_large:
            return []
        rest = b"".join(self._pieces).strip(b"\n")
        self._pieces.clear()
        event = _event(rest) if rest else None
        return [] if event is None else [event]

    def _begin(self, data: bytes) -> bytes:
        """Drops a byte-order mark; b"" while it cannot be told yet."""
        data = b"".join([*self._pieces, data])
        self._pieces.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._pieces.append(data)
            return b""
        self._started = True
        return data.removeprefix(_BOM)

    def _overflow(self) -> None:
        self.too_large = True
        self._pieces.clear()


def _event(block: bytes) -> ServerSentEvent | None:
    """The lines of one event, without its final blank line. None when it has no data."""
    if block.startswith(b"data:") and b"\n" not in block:  # the shape of nearly every event
        return ServerSentEvent("", block[6:] if block[5:6] == b" " else block[5:])
    name = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return ServerSentEvent(name, b"\n".join(data)) if data else None


def encode(data: bytes, event: str = "") -> bytes:
    """One event. `data` must hold no line break, which JSON written by msgspec never does."""
    if event:
        return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A line that every client skips: keeps a connection alive."""
    return b": " + text.encode() + b"\n\n"
