"""What both wires' writers give: an answer whole, or as opening, content and closing events. No I/O."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from farebox.simulator.refusals import Refusal, Wire

CREATED_S = 1_767_225_600
"""Every answer is dated 2026-01-01T00:00:00Z: the same request gives the same bytes."""


def request_id(wire: Wire, seed: int, number: int) -> str:
    """The provider's id of its n-th attempt: always of one length, different under another seed."""
    return f"{'chatcmpl-' if wire == 'chat' else 'msg_'}s{seed}n{number:012d}"


class Event(NamedTuple):
    """A step of generation: its bytes on the wire (none for a token that is not shown) and the tokens that it cost."""

    data: bytes
    output: int = 0
    reasoning: int = 0


class Answer(Protocol):
    """One planned answer in the words of one wire."""

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        ...

    def opening(self) -> list[bytes]:
        """Events before any token."""
        ...

    def content(self) -> Iterator[Event]:
        """The tokens, one by one."""
        ...

    def closing(self) -> list[bytes]:
        """Finish, usage and end; the last one is the terminal event."""
        ...

    def failure(self, refusal: Refusal) -> bytes:
        """An error event within the stream."""
        ...
