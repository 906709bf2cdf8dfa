"""What a process has beside the network in this world: its clock, chance, ids, journal and database, each with its faults."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine

from farebox.billing.journal import Journal, JournalError, SyncPolicy
from farebox.billing.records import Record
from farebox.storage.database import Database, OutcomeUnknown, StoreUnavailable
from tests.simulation.loop import Crash, ProcessLoop, Scheduler

T = TypeVar("T")
SEGMENT_BYTES = 8 * 1024
"""Small, so that segments end and are removed within a run."""


class VirtualClock:
    """A process's clock: the world's time since an epoch, for one process a little off."""

    def __init__(self, scheduler: Scheduler, epoch_us: int, skew_us: int = 0) -> None:
        self._scheduler = scheduler
        self._epoch_us = epoch_us + skew_us

    def now_us(self) -> int:
        return self._epoch_us + self._scheduler.now_us

    def monotonic_us(self) -> int:
        return self._scheduler.now_us + 1_000_000


class SeededRandom:
    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def uniform(self) -> float:
        return self._random.random()


class CountedIds:
    """Unique over all processes of a world, in the order of their making."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._count = 0

    def new(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._process:06d}{self._count:016d}"


class Faults:
    """How often what fails, in one process; all zero when the world is healed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.crash = 0.0
        """At each place where a process can be killed."""
        self.store_unavailable = 0.0
        self.store_lost_ack = 0.0
        self.disk_full = False
        self.torn = False
        """A process that is killed while it writes may leave half a line."""
        self.on_crash: Callable[[str], None] = lambda _place: None

    def heal(self) -> None:
        self.crash = self.store_unavailable = self.store_lost_ack = 0.0
        self.disk_full = False

    def visit(self, place: str) -> None:
        """A place where the process may die."""
        if self.crash and self.random.random() < self.crash:
            self.die(place)

    def die(self, place: str) -> None:
        self.on_crash(place)
        raise Crash(place)


class ProcessJournal(Journal):
    """The real journal, in files; its process can die before, while and after the lines of a turn are written."""

    def __init__(self, slot: Path, sync: SyncPolicy, loop: ProcessLoop, faults: Faults, log: Callable[[str], None]) -> None:
        self._loop = loop
        self._faults = faults
        self._log = log
        self._records: list[tuple[Record, ...]] = []
        """By piece that is pending."""
        self._let_go = False
        """Its files are closed, and its slot is free."""
        super().__init__(slot, sync="os" if sync == "interval" else sync, segment_bytes_max=SEGMENT_BYTES)

    def write(self, *records: Record) -> None:
        if self._loop.dead:
            raise Crash("a dead process writes nothing")
        self._records.append(records)
        try:
            super().write(*records)
        except JournalError:
            self._records.pop()
            raise

    def commit(self) -> None:
        if self._loop.dead:
            raise Crash("a dead process writes nothing")
        if not self._pending:
            return
        count = len(self._pending)
        records = tuple(record for written in self._records[:count] for record in written)
        del self._records[:count]
        faults = self._faults
        if faults.crash:
            faults.visit("journal.before")
            if faults.torn and faults.random.random() < faults.crash:
                self._tear()
                faults.die("journal.torn")
        super().commit()
        for record in records:
            self._log(f"{self.slot.name} {type(record).__name__} {getattr(record, 'id', '')}")
        self.written(records)
        if faults.crash:
            faults.visit("journal.after")

    def written(self, records: tuple[Record, ...]) -> None:
        """Called behind every record; the world looks at what must hold at every moment."""

    def _tear(self) -> None:
        """The beginning of what was to be written, as a write that was cut short leaves it."""
        data = b"".join(self._pending)
        os.pwrite(self._fd, data[: int(self._faults.random.random() * len(data))], self._written)

    def _begin(self, bytes_min: int) -> None:
        if self._faults.disk_full:
            raise JournalError("the journal cannot be written: no space left on device")
        super()._begin(bytes_min)

    def close(self) -> None:
        super().close()
        self._let_go = True

    def abandon(self) -> None:
        """What the kernel does for a process that was killed, if in the middle of `close`: the file stays as it is, the lock is
        free."""
        if self._let_go:
            return
        self._closed = self._let_go = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        os.close(self._lock_fd)


class ProcessDatabase(Database):
    """The real database; a transaction may not come through, or come through without anybody hearing of it."""

    def __init__(self, engine: Engine, loop: ProcessLoop, faults: Faults, log: Callable[[str], None]) -> None:
        super().__init__(engine, random=SeededRandom("unused"))
        self._loop = loop
        self._faults = faults
        self._log = log

    def read(self, work: Callable[[Connection], T]) -> T:
        faults = self._faults
        if self._loop.dead:
            raise Crash("a dead process asks nothing")
        if faults.store_unavailable and faults.random.random() < faults.store_unavailable:
            raise StoreUnavailable("the database is away")
        return super().read(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        faults = self._faults
        if self._loop.dead:
            raise Crash("a dead process writes nothing")
        if faults.store_unavailable and faults.random.random() < faults.store_unavailable:
            self._log(f"{self._loop.name} transaction refused")
            raise StoreUnavailable("the database is away")
        faults.visit("store.before")
        result = super().write(work)
        self._log(f"{self._loop.name} transaction")
        faults.visit("store.after")
        if faults.store_lost_ack and faults.random.random() < faults.store_lost_ack:
            self._log(f"{self._loop.name} acknowledgement lost")
            raise OutcomeUnknown("the connection was lost while the commit was under way")
        return result

    def close(self) -> None:
        """The engine is shared by the processes of this world."""
