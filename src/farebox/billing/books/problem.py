"""What a check of the books finds."""

import msgspec


class Problem(msgspec.Struct, frozen=True, order=True):
    """One broken invariant."""

    invariant: str
    """`I1` … `I10`."""
    subject: str
    """The row, scope, hold or account that it is about."""
    sentence: str
