"""The head that repeats: nearly every request of a connection has the head of the one before it, but for its length.

Such a head was parsed and judged once, with nothing to say against it. A later one that is the same bytes up to the digits of its
`content-length`, in one read with its whole body, needs no parser: it means what the first one meant.
"""

from typing import Final

from farebox.edge.request import LENGTH_DIGITS_MAX, Request

_LENGTH: Final = b"\r\ncontent-length:"
_END: Final = b"\r\n\r\n"


class RepeatedHead:
    """One connection's last head that can be recognised."""

    __slots__ = ("_after", "_before", "_headers", "_method", "_notes", "_path", "_query", "_target")

    def __init__(self, before: bytes, after: bytes, request: Request) -> None:
        self._before = before
        """Up to the digits of the length."""
        self._after = after
        """Behind them, to the end of the head."""
        self._method, self._target, self._path, self._query = request.method, request.target, request.path, request.query
        self._headers, self._notes = request.headers, request.notes

    @classmethod
    def of(cls, data: bytes, request: Request) -> "RepeatedHead | None":
        """The head of a request that was read in one piece with its body, `data`; None for one that has to be parsed always."""
        end = data.find(_END) + len(_END)
        length = request.headers.get(b"content-length")
        if length is None or end + len(request.body) != len(data) or not length.isdigit() or request.repeated:
            return None
        start = data.lower().find(_LENGTH, 0, end) + len(_LENGTH)
        if start < len(_LENGTH):
            return None
        while data[start : start + 1] == b" ":
            start += 1
        after = start + len(length)
        if data[start:after] != length or data[after : after + 2] != b"\r\n":
            return None
        return cls(data[:start], data[after:end], request)

    def read(self, data: bytes, body_bytes_max: int) -> Request | None:
        """The request that `data` is, if it is exactly one with this head."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + LENGTH_DIGITS_MAX + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits = data[start:end]
        body_start = end + len(after)
        size = len(data) - body_start
        if not digits.isdigit() or int(digits) != size or size > body_bytes_max:
            return None
        headers = self._headers
        if headers[b"content-length"] != digits:
            headers = {**headers, b"content-length": digits}
        return Request(self._method, self._target, self._path, self._query, headers, self._notes, data[body_start:])
