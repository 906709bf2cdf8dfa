"""What a process takes from outside its own memory: clock, chance, ids, database, journal."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from farebox.billing.journal import Journal, SyncPolicy
from farebox.config import Loaded
from farebox.failpoints import armed
from farebox.ports import Clock, Ids, Random, SystemClock, SystemRandom, TimeOrderedIds
from farebox.storage.database import Database


class Outside(msgspec.Struct, frozen=True):
    """What a process takes from outside its own memory, beside the network, which is its event loop's. The simulation brings
    its own (`tests/simulation`)."""

    clock: Clock
    random: Random
    ids: Ids
    open_database: Callable[[Loaded], Database]
    open_journal: Callable[[Path, SyncPolicy], Journal]
    """Raises `SlotBusy` while another process owns the slot."""
    fail_point: Callable[[str], None]


def real_outside(environment: Mapping[str, str]) -> Outside:
    """The machine itself."""
    clock = SystemClock()
    return Outside(
        clock=clock,
        random=SystemRandom(),
        ids=TimeOrderedIds(clock),
        open_database=open_database,
        open_journal=lambda slot, sync: Journal(slot, sync=sync),
        fail_point=armed(environment),
    )


def open_database(loaded: Loaded) -> Database:
    return Database.open(loaded.database_url)
