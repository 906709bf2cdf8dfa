"""Slots: a worker's journal folder. Whoever owns one first finishes what an earlier life left open."""

import os
import signal
from pathlib import Path

from farebox.billing import journal as journals
from farebox.billing.journal import Journal
from farebox.billing.posting import recovery
from farebox.billing.records import Closed, Opened
from farebox.config import Loaded
from farebox.outside import Outside, real_outside

SLOT_WAIT_S = 10.0
"""How long a new life waits for the last one to let go of its slot."""


def slot_path(loaded: Loaded, number: int) -> Path:
    return loaded.journal_dir / f"w{number}"


def open_slot(loaded: Loaded, slot: Path, outside: Outside) -> tuple[Journal, str]:
    """Own the slot, finish its open holds, begin a new life."""
    clock = outside.clock
    deadline_us = clock.monotonic_us() + int(SLOT_WAIT_S * 1_000_000)
    while True:
        try:
            journal = outside.open_journal(slot, loaded.config.journal.sync)
            break
        except journals.SlotBusy:
            if clock.monotonic_us() > deadline_us:
                raise
            signal.sigtimedwait([], 0.05)
    owed = recovery.finish(journals.read_all(slot), clock)
    if owed:
        journal.write(*owed)
        journal.sync()
    life = outside.ids.new("life")
    journal.write(Opened(life=life, at_us=clock.now_us(), pid=os.getpid()))
    return journal, life


def finish_orphans(loaded: Loaded, workers: int) -> None:
    """Slots that no worker of this start will own are finished and closed here."""
    outside = real_outside(os.environ)
    for slot in sorted(loaded.journal_dir.glob("w*")) if loaded.journal_dir.is_dir() else []:
        if slot.name[1:].isdigit() and int(slot.name[1:]) >= workers and not _is_closed(slot):
            journal, life = open_slot(loaded, slot, outside)
            journal.write(Closed(life=life, at_us=outside.clock.now_us()))
            journal.close()


def _is_closed(slot: Path) -> bool:
    """Whether the slot's last line is a clean end, so that starting often does not grow it."""
    files = sorted(slot.glob("*.journal"))
    if not files:
        return True
    data = files[-1].read_bytes()[-4096:]
    return data.endswith(b"\n") and b'"type":"closed"' in data.splitlines()[-1] if data else False
