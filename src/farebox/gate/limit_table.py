"""The cells of rate limits: a hash table of 64-bit integers in one flat view. Pure: whoever makes the view may share it.

A slot is what one owner has used: its mark, and the levels of its buckets with the moments for which they hold. Beside the slots
every worker has columns of its own, one cell per slot: the calls that it has in flight, and the tokens that they have reserved. A
worker's columns are worth as much as its life: whoever follows it empties them, and with them the places of calls that died.
"""

from hashlib import blake2b
from typing import Final

FIELDS: Final = 9
MARK, REQUEST_LEVEL, REQUEST_LAST, MINUTE_LEVEL, MINUTE_LAST, MINUTE_LOST, DAY_LEVEL, DAY_LAST, DAY_LOST = range(FIELDS)
COLUMNS: Final = 2
"""Of each worker: calls in flight, and the tokens that these have reserved."""
SLOTS: Final = 1 << 17
PROBES_MAX: Final = 64
"""How far an owner's slot may be from where its mark points."""
IDLE_US: Final = 86_400_000_000
"""A slot not used for this long, the longest period, may be given to somebody else."""
CELL_BYTES: Final = 8


class TableFull(Exception):
    """More owners at a time than the table can tell apart."""


def mark_of(name: str) -> int:
    """An owner's name as a number that is not 0."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True) or 1


def table_bytes(workers: int, slots: int = SLOTS) -> int:
    return (FIELDS + COLUMNS * workers) * slots * CELL_BYTES


class LimitTable:
    """The view, and which columns are ours."""

    __slots__ = ("_columns", "_others", "_slots", "cells", "own", "reserved")

    def __init__(self, cells: memoryview, *, workers: int, worker: int, slots: int = SLOTS) -> None:
        """`cells` has the format `q` and `(FIELDS + COLUMNS * workers) * slots` items, zeros at first."""
        assert len(cells) == (FIELDS + COLUMNS * workers) * slots, "the view is of another table"
        assert 0 <= worker < workers, "a worker has one of the columns"
        assert slots & (slots - 1) == 0, "marks are masked"
        self.cells = cells
        self._slots = slots
        self._columns = tuple((FIELDS + COLUMNS * number) * slots for number in range(workers))
        self._others = self._columns[:worker] + self._columns[worker + 1 :]
        self.own = self._columns[worker]
        """Where our calls in flight are,"""
        self.reserved = self.own + slots
        """and their tokens."""

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

    def in_hand(self, place: int) -> tuple[int, int]:
        """What the owner of a slot has in flight, over all workers: calls, and the tokens that they have reserved, which may yet
        come back. `place` is the slot's number."""
        cells, slots = self.cells, self._slots
        at = self.own + place
        calls, tokens = cells[at], cells[at + slots]
        for column in self._others:
            at = column + place
            calls += cells[at]
            tokens += cells[at + slots]
        return calls, tokens

    def own_calls(self) -> dict[int, int]:
        """Calls in flight of this worker, by their owners' marks."""
        column = self.cells[self.own : self.own + self._slots].tolist()
        return {self.cells[slot * FIELDS]: calls for slot, calls in enumerate(column) if calls}

    def columns_of(self, worker: int) -> tuple[memoryview, memoryview]:
        """A worker's calls in flight and reserved tokens, by slot."""
        start, slots = self._columns[worker], self._slots
        return self.cells[start : start + slots], self.cells[start + slots : start + 2 * slots]

    def forget_column(self, worker: int) -> None:
        """The calls of a worker's earlier life are over, whatever became of them."""
        start = self._columns[worker]
        length = COLUMNS * self._slots
        self.cells[start : start + length] = memoryview(bytearray(length * CELL_BYTES)).cast("q")

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
        return now_us - last_us > IDLE_US and not self.in_hand(base // FIELDS)[0]
