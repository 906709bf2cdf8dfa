"""What a coroutine tells whoever drives it, by awaiting: that the others of its turn may come as far as it has, or that it needs
a task (`farebox.fiber`)."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Final


class _Sign(tuple[object]):
    """A tuple's iterator gives its one item to whoever drives the coroutine: nothing is made or called for a step but that."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __await__(self) -> Generator[object, None, None]: ...
    else:
        __await__ = tuple.__iter__


STEP = _Sign((None,))
"""Let the other fibers come as far as this one has, before any goes on: `if fibers.running is not None: await STEP`."""
NEEDS_TASK: Final = object()
"""What the driver gets of a coroutine that has to be a task."""
AS_TASK = _Sign((NEEDS_TASK,))
