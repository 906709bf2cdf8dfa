"""What was taken from a budget in the database."""

import msgspec


class Taken(msgspec.Struct, frozen=True):
    """What the database granted now (0: not even the need fits) and how the scope stands."""

    granted_nano: int
    limit_nano: int
    posted_nano: int
    allotted_nano: int
