"""The bookkeeper: tails the workers' journals and posts them to the ledger; lets credit expire; tidies posted segments.

One per database. It may be killed at any moment: what it had not posted stays in the journals, and what it had is known by
position, so nothing is lost and nothing is counted twice.
"""

import argparse
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from farebox.app import open_database
from farebox.billing import ledger, poster, segments
from farebox.billing.journal import JournalError
from farebox.config import Loaded, load
from farebox.failpoints import armed
from farebox.ports import Clock, Ids, SystemClock, TimeOrderedIds
from farebox.processes.lifeline import die_with_parent
from farebox.storage.database import Database, StoreError

IDLE_S = 0.1
"""Pause between batches: a call is in the ledger within about this time."""
BATCH_RECORDS_MAX = 4_000
RETRY_S = 1.0
HOUSEKEEPING_US = 60_000_000


def run(loaded: Loaded, stop: threading.Event) -> None:
    """Post until told to stop, then post what is left."""
    run_dir = loaded.folder / "run"
    run_dir.mkdir(exist_ok=True)
    lock = os.open(run_dir / "bookkeeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    clock = SystemClock()
    ids = TimeOrderedIds(clock)
    database = open_database(loaded)
    fail_point = armed(os.environ)
    tidied_us = 0
    try:
        while True:
            ending = stop.is_set()
            try:
                posted = _post(database, loaded, ids, clock, fail_point)
                if posted:
                    fail_point("poster.after_commit")
                now_us = clock.monotonic_us()
                if now_us - tidied_us > HOUSEKEEPING_US:
                    tidied_us = now_us
                    ledger.expire(database, ids, now_us=clock.now_us())
                    for slot in sorted(loaded.journal_dir.glob("w*")):
                        segments.remove_posted(database, slot)
            except (StoreError, JournalError) as error:
                sys.stderr.write(f"farebox: bookkeeper: {error}\n")
                if ending or stop.wait(RETRY_S):
                    return
                continue
            if posted >= BATCH_RECORDS_MAX:
                continue
            if ending:
                return
            stop.wait(IDLE_S)
    finally:
        database.close()
        os.close(lock)


def _post(database: Database, loaded: Loaded, ids: Ids, clock: Clock, fail_point: Callable[[str], None]) -> int:
    posted = poster.post(
        database,
        loaded.journal_dir,
        ids,
        clock,
        records_max=BATCH_RECORDS_MAX,
        before_commit=lambda: fail_point("poster.before_commit"),
    )
    for problem in posted.damaged:
        sys.stderr.write(f"farebox: bookkeeper: {problem}\n")
    return posted.records


def main() -> None:
    parser = argparse.ArgumentParser(prog="farebox-bookkeeper")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(options.parent, signal.SIGKILL)
    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(load(options.config), stop)


if __name__ == "__main__":
    main()
