"""One HTTP exchange as the pipeline sees it: what the client sent, and how to answer. `edge` makes these; no HTTP here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from farebox.errors import FareboxError
from farebox.wires.call import Call

Header = tuple[bytes, bytes]


class Surface(msgspec.Struct, frozen=True):
    """One API that clients speak to us."""

    name: str
    """As in records: `chat_completions`, `messages`."""
    wire: str
    read_call: Callable[[bytes], Call]
    write_error: Callable[..., bytes]
    """`(error, *, request_id) -> body` in the surface's own shape."""
    request_id_header: bytes = b"x-request-id"


class Answer(Protocol):
    """The client's end of the exchange."""

    gone: bool
    """The client has hung up."""
    started: bool
    """A status line has been sent: from here on an error can only be told inside the body."""

    async def whole(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """The complete answer."""
        ...

    async def start(self, headers: Sequence[Header]) -> None:
        """Begin a streamed answer with status 200; does nothing when it has begun."""
        ...

    async def send(self, data: bytes) -> None:
        """A part of a streamed answer; waits while the client reads slower than we send."""
        ...

    async def end(self, data: bytes = b"") -> None:
        """The last part."""
        ...

    async def wait_gone(self) -> None:
        """Returns when the client has hung up."""
        ...


class Exchange:
    """What came in, and where the answer goes."""

    __slots__ = ("answer", "body", "headers", "request_id", "started_us", "surface")

    def __init__(
        self, surface: Surface, headers: Mapping[bytes, bytes], body: bytes, answer: Answer, *, request_id: str, started_us: int
    ) -> None:
        self.surface = surface
        self.headers = headers
        self.body = body
        self.answer = answer
        self.request_id = request_id
        self.started_us = started_us

    def error_body(self, error: FareboxError) -> bytes:
        return self.surface.write_error(error, request_id=self.request_id)
