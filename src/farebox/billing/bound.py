"""What a call may take at most, in tokens."""

from typing import Final


class Bound:
    """Upper bounds in tokens, for one model."""

    __slots__ = ("cap", "capped", "input_tokens", "output_tokens")

    def __init__(self, input_tokens: int, output_tokens: int, cap: int, capped: bool) -> None:
        self.input_tokens: Final = input_tokens
        self.output_tokens: Final = output_tokens
        """Cap × choices."""
        self.cap: Final = cap
        """The cap per choice that the hold covers, and that the provider must be told."""
        self.capped: Final = capped
        """The client stated this cap; if not, it has to be written into the upstream request."""
