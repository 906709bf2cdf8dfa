"""One HTTP exchange as the pipeline sees it: what the client sent, and how to answer. `edge` makes these; no HTTP here."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from farebox.gate.wishes import NO_WISHES, Wishes
from farebox.surface import Surface

if TYPE_CHECKING:
    pass


class Answer(Protocol):
    """The client's end of the exchange. `headers` are encoded lines, each ended by CR LF."""

    @property
    def gone(self) -> bool:
        """The client has hung up."""
        ...

    @gone.setter
    def gone(self, gone: bool) -> None: ...

    @property
    def started(self) -> bool:
        """A status line has been sent: from here on an error can only be told inside the body."""
        ...

    @property
    def ended(self) -> bool:
        """The last part has been sent."""
        ...

    @property
    def on_gone(self) -> Callable[[], None] | None:
        """Called at once when the client hangs up before the end, or has done so already."""
        ...

    @on_gone.setter
    def on_gone(self, told: Callable[[], None] | None) -> None: ...

    @property
    def peer(self) -> str:
        """The address at the other end of the connection; empty when it has none."""
        ...

    def whole(self, status: int, headers: bytes, body: bytes) -> None:
        """The complete answer."""
        ...

    def start(self, headers: bytes) -> None:
        """Begin a streamed answer with status 200; does nothing when it has begun."""
        ...

    def send(self, data: bytes) -> bool:
        """A part of a streamed answer. True when the client reads slower than we send: then `await drain()`."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken enough, or is gone."""
        ...

    def end(self, data: bytes = b"") -> None:
        """The last part."""
        ...


class Exchange:
    """What came in, and where the answer goes."""

    __slots__ = ("answer", "body", "headers", "limits", "notes", "request_id", "surface", "wishes")

    def __init__(
        self,
        surface: Surface,
        headers: Mapping[bytes, bytes],
        body: bytes,
        answer: Answer,
        request_id: str,
        notes: dict[str, object] | None = None,
        limits: bytes = b"",
        wishes: Wishes = NO_WISHES,
    ) -> None:
        self.surface = surface
        self.headers = headers
        self.body = body
        self.answer = answer
        self.request_id = request_id
        self.notes: dict[str, object] = {} if notes is None else notes
        """What has been worked out of the headers; kept for requests that have the same."""
        self.limits = limits
        """Header lines that say what is left of the caller's rate limits."""
        self.wishes = wishes
        """What the headers ask for; read when it is known whose request it is."""

    @property
    def base(self) -> bytes:
        """The header lines that every answer of this exchange carries."""
        return self.surface.head(self.request_id.encode()) + self.limits
