"""A turn of the event loop: what has been read is worked on, call by call and step by step; then everything leaves, first the
journal's lines, then bytes.

A busy worker reads dozens of requests and answers in one turn. Written one by one, each would be a system call between two
pieces of Python, and wake a process that is about to sleep again; written together, after the work, they cost half.
The order is the rule of the journal: no byte leaves before the records that it depends on.

`docs/decisions/0010-one-turn-one-write.md` has the measurements.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from farebox.fiber import Fibers


class Sink(Protocol):
    """The part of `asyncio.WriteTransport` that is used here."""

    def is_closing(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...


TURN_BYTES_MAX: Final = 2**20
"""Waiting for the end of a turn; what is more leaves at once, so that a sender learns that its reader is slow."""


def _nothing() -> None:
    """No journal: bytes may leave at once."""


def _no_point(_name: str) -> None:
    """Nothing fails here on purpose."""


class Turn:
    """One event loop's. Made outside of it or inside; used inside only."""

    __slots__ = ("_bytes", "_commit", "_due", "_fail_point", "_queue", "_scheduled", "fibers", "number")

    def __init__(
        self, commit: Callable[[], None] = _nothing, fail_point: Callable[[str], None] = _no_point
    ) -> None:
        """`commit` writes the records of this turn. It must not fail: nothing could be told to anybody then."""
        self._commit = commit
        self._fail_point = fail_point
        self._queue: list[tuple[Sink, bytes]] = []
        self._bytes = 0
        self._due = False
        self._scheduled = False
        self.fibers = Fibers(self.end_soon)
        """The calls that are worked on in turns."""
        self.number = 0
        """How many turns have ended: what was sent in turn `number` has not left before it grows."""

    def send(self, sink: Sink, data: bytes) -> None:
        """Bytes for a connection, behind those it was sent before."""
        if not self._due:
            self.end_soon()
        self._queue.append((sink, data))
        self._bytes += len(data)
        if self._bytes > TURN_BYTES_MAX:
            self.flush()

    def end_soon(self) -> None:
        """Something waits for the end of this turn."""
        self._due = True
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self.fibers.advance()
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write everything that waits, now; nothing if nothing does."""
        if not self._due:
            return
        self._due = False
        self._bytes = 0
        self._commit()
        self._fail_point("turn.after_commit")
        self.number += 1
        queue, self._queue = self._queue, []
        for sink, data in queue:
            if not sink.is_closing():
                try:
                    sink.write(data)
                except Exception as error:
                    # One connection's trouble must not keep the others' bytes.
                    sink.abort()
                    context = {"message": "a connection did not take its bytes", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(context)
        self._fail_point("turn.after_send")
