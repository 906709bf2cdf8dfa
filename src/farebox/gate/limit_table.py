"""The cells of rate limits: a hash table of 64-bit integers in one flat view. Pure: whoever makes the view may share it.

A slot is what one owner has used: its mark, the levels of its buckets with the moments for which they hold, and all tokens that
it ever took. Beside the slots every worker has a column of its own with the calls that it has in flight, one cell per slot. A
worker's column is worth as much as its life: whoever follows it empties the column, and with it the places of calls that died.
"""

from hashlib import blake2b

FIELDS = 8
MARK, REQUEST_LEVEL, REQUEST_LAST, MINUTE_LEVEL, MINUTE_LAST, DAY_LEVEL, DAY_LAST, TAKEN = range(FIELDS)
SLOTS = 1 << 17
PROBES_MAX = 64
"""How far an owner's slot may be from where its mark points."""
IDLE_US = 86_400_000_000
"""A slot not used for this long, the longest period, may be given to somebody else."""
CELL_BYTES = 8


class TableFull(Exception):
    """More owners at a time than the table can tell apart."""


def mark_of(name: str) -> int:
    """An owner's name as a number that is not 0."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True) or 1


def table_bytes(workers: int, slots: int = SLOTS) -> int:
    return (FIELDS + workers) * slots * CELL_BYTES


class LimitTable:
    """The view, and whose column is ours."""

    __slots__ = ("_columns", "_slots", "cells", "fields", "own")

    def __init__(self, cells: memoryview, *, workers: int, worker: int, slots: int = SLOTS) -> None:
        """`cells` has the format `q` and `(FIELDS + workers) * slots` items, zeros at first."""
        assert len(cells) == (FIELDS + workers) * slots, "the view is of another table"
        assert 0 <= worker < workers, "a worker has one of the columns"
        assert slots & (slots - 1) == 0, "marks are masked"
        self.cells = cells
        self.fields = FIELDS
        self._slots = slots
        self._columns = tuple(FIELDS * slots + number * slots for number in range(workers))
        self.own = self._columns[worker]

    @classmethod
    def private(cls, slots: int = 1 << 12) -> "LimitTable":
        """A table of one process, in its own memory."""
        return cls(memoryview(bytearray(table_bytes(1, slots))).cast("q"), workers=1, worker=0, slots=slots)

    def find(self, mark: int, now_us: int) -> int:
        """Where the owner's slot begins; made when there is none yet. Raises `TableFull`."""
        cells, slots = self.cells, self._slots
        idle = -1
        for step in range(PROBES_MAX):
            base = ((mark + step) & (slots - 1)) * FIELDS
            there = cells[base]
            if there == mark:
                return base
            if not there:
                return self._take(base if idle < 0 else idle, mark)
            if idle < 0 and self._is_idle(base, now_us):
                idle = base
        if idle < 0:
            raise TableFull
        return self._take(idle, mark)

    def in_flight(self, base: int) -> int:
        """Calls of an owner, over all workers."""
        cells = self.cells
        slot = base // FIELDS
        columns = self._columns
        if len(columns) == 1:
            return cells[columns[0] + slot]
        found = 0
        for column in columns:
            found += cells[column + slot]
        return found

    def own_calls(self) -> dict[int, int]:
        """Calls in flight of this worker, by their owners' marks."""
        column = self.cells[self.own : self.own + self._slots].tolist()
        return {self.cells[slot * FIELDS]: calls for slot, calls in enumerate(column) if calls}

    def forget_column(self, worker: int) -> None:
        """The calls of a worker's earlier life are over, whatever became of them."""
        start = self._columns[worker]
        self.cells[start : start + self._slots] = memoryview(bytearray(self._slots * CELL_BYTES)).cast("q")

    def _take(self, base: int, mark: int) -> int:
        cells = self.cells
        for field in range(1, FIELDS):
            cells[base + field] = 0
        # The mark last: whoever dies in between leaves an idle slot, not somebody else's levels.
        cells[base] = mark
        return base

    def _is_idle(self, base: int, now_us: int) -> bool:
        cells = self.cells
        last_us = max(cells[base + REQUEST_LAST], cells[base + MINUTE_LAST], cells[base + DAY_LAST] * 1_000)
        return now_us - last_us > IDLE_US and not self.in_flight(base)
