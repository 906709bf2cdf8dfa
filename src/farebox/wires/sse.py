"""Server-sent events, fed bytes and giving events; the same bytes split anywhere give the same events.

Tolerant where real providers demand it (providers.md §1.5): `data:` with or without the space, LF, CRLF or CR, several
`data:` lines per event, comments, a byte-order mark, and a last event whose blank line was cut off. `id:` and `retry:` are
read and ignored: a model's answer is not resumable. Source of the grammar: WHATWG HTML, "Server-sent events".
"""

from typing import NamedTuple

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""One event, newlines included. A provider that sends more is broken or hostile."""

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    event: str
    """The event's name; empty when the stream names none."""
    data: bytes


class Decoder:
    """Feed it bytes; it returns the events they complete.

    When an event passes `event_bytes_max`, `too_large` becomes true, the events before it have been returned, and everything
    after is ignored.
    """

    __slots__ = ("_after_cr", "_buffer", "_event_bytes_max", "_scanned", "_started", "too_large")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._scanned = 0
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
            if data[0] == 0x0A:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer
        buffer += data
        if not self._started and not self._begin():
            return []
        events: list[ServerSentEvent] = []
        begin = 0
        # One byte back: the first LF of a pair may have been the last byte of the previous piece.
        search = max(self._scanned - 1, 0)
        while (end := buffer.find(b"\n\n", search)) >= 0:
            if end - begin > self._event_bytes_max:
                self._overflow()
                return events
            event = _event(bytes(buffer[begin:end]))
            if event is not None:
                events.append(event)
            begin = search = end + 2
        if begin:
            del buffer[:begin]
        self._scanned = len(buffer)
        # One more than the bound: the last byte may be the first LF of the pair that ends an event of just that size.
        if self._scanned > self._event_bytes_max + 1:
            self._overflow()
        return events

    def end(self) -> list[ServerSentEvent]:
        """The stream is over: an event whose final blank line is missing is still an event."""
        if self.too_large:
            return []
        rest = bytes(self._buffer)
        self._buffer.clear()
        if not self._started and rest.startswith(_BOM):
            rest = rest[len(_BOM) :]
        event = _event(rest.strip(b"\n")) if rest else None
        return [] if event is None else [event]

    def _begin(self) -> bool:
        """Drops a byte-order mark; false while it cannot be told yet."""
        buffer = self._buffer
        if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
            return False
        if buffer.startswith(_BOM):
            del buffer[: len(_BOM)]
        self._started = True
        return True

    def _overflow(self) -> None:
        self.too_large = True
        self._buffer.clear()


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
