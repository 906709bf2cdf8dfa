"""A step: where a call that is driven lets the others of its turn come as far as it has."""

from collections.abc import Generator
from typing import TYPE_CHECKING


class _Step(tuple[None]):
    """A tuple's iterator gives its one None to whoever drives the coroutine: nothing is made or called for a step but that."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __await__(self) -> Generator[None, None, None]: ...
    else:
        __await__ = tuple.__iter__


STEP = _Step((None,))
"""Let the other fibers come as far as this one has, before any goes on: `if fibers.running is not None: await STEP`."""
