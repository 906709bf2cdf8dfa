"""The head of a response: status and header fields, kept as the bytes that came.

Most heads are asked for two or three fields and then forgotten, so fields are found when asked for. That is sound because
only a head that llhttp and `reader` found strict becomes a `Head`: every line ends in CRLF, no field spans two lines,
no blank stands before a colon. So a field `x` is there exactly when `CRLF x:` is.
"""


class Head:
    """A strict response head including its final empty line; for `reader`, once it was found strict."""

    __slots__ = ("_lower", "_raw", "status")

    def __init__(self, raw: bytes, lower: bytes, status: int) -> None:
        self._raw = raw
        self._lower = lower
        """The same in lower case."""
        self.status = status

    def get(self, name: bytes) -> bytes | None:
        """The first field of that lower-case name, without surrounding blanks; None when there is none."""
        start = self._lower.find(b"\r\n%b:" % name)
        return None if start < 0 else self._value(start + len(name) + 3)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """All fields in order, names in lower case."""
        fields: list[tuple[bytes, bytes]] = []
        for line in self._raw.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            fields.append((name.lower(), value.strip(b" \t")))
        return fields

    def _value(self, start: int) -> bytes:
        return self._raw[start : self._raw.index(b"\r\n", start)].strip(b" \t")
