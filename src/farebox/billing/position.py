"""A position in a journal: where its reader is, and from where it goes on."""

import msgspec


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in a slot's journal: everything before it has been read."""

    segment: int = 0
    offset: int = 0
