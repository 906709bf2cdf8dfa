"""A surface: one of the APIs that clients speak to us."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from farebox.wires.call import Call

if TYPE_CHECKING:
    from farebox.gate.limits import Standing


class Surface(msgspec.Struct, frozen=True):
    """One API that clients speak to us."""

    name: str
    """As in records: `chat_completions`, `messages`."""
    wire: str
    read_call: Callable[[bytes], Call]
    write_error: Callable[..., bytes]
    """`(error, *, request_id) -> body` in the surface's own shape."""
    head: Callable[[bytes], bytes]
    """The request's id → the header lines that every answer of this surface carries."""
    limits: Callable[["Standing", int], bytes]
    """`(how the rate limits stand, now in µs)` → header lines."""
