"""What only large bodies need: those that come in many reads or many chunks."""

FRAMING_BYTES_MAX = 64 * 1024
"""Chunk sizes, extensions or trailers in a row without a byte of content."""
FRAMING_FACTOR_MAX = 8
"""Chunks may take so many times their content on the wire (a byte per chunk takes six)."""
PIECES_MAX = 1024
"""Pieces kept apart: more are joined, so that tiny chunks do not cost many times their bytes in memory."""


class LongBody:
    """Bounds on one body's framing, and its joined pieces."""

    __slots__ = ("_collected", "_framing_bytes", "_wire_bytes")

    def __init__(self) -> None:
        self._collected = bytearray()
        self._framing_bytes = self._wire_bytes = 0

    def is_padded(self, size: int, body_bytes: int, *, productive: bool) -> bool:
        """Whether, with a read of `size` bytes, framing outweighs content. `productive`: it had content."""
        self._wire_bytes += size
        self._framing_bytes = 0 if productive else self._framing_bytes + size
        return (
            self._framing_bytes > FRAMING_BYTES_MAX or self._wire_bytes > FRAMING_FACTOR_MAX * body_bytes + 2 * FRAMING_BYTES_MAX
        )

    def collect(self, pieces: list[bytes]) -> None:
        """Take the pieces out of the list."""
        self._collected += b"".join(pieces)
        pieces.clear()

    def whole(self, rest: list[bytes]) -> bytes:
        """All of it; `rest` are the pieces not taken yet."""
        if not self._collected:
            return b"".join(rest)
        self.collect(rest)
        return bytes(self._collected)
