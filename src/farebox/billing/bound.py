"""What a call may take at most, in tokens."""

import msgspec


class Bound(msgspec.Struct, frozen=True, gc=False):
    """Upper bounds in tokens, for one model."""

    input_tokens: int
    output_tokens: int
    """Cap × choices."""
    cap: int
    """The cap per choice that the hold covers, and that the provider must be told."""
    capped: bool
    """The client stated this cap; if not, it has to be written into the upstream request."""
