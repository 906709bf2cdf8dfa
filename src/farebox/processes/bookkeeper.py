"""The bookkeeper: posts the workers' journals to the ledger; seals receipts; lets credit expire; closes months; looks for what
people want to be told of, and, in a thread of its own, tells them.

One per database. It may be killed at any moment: what it had not posted stays in the journals, and what it had is known by
position, so nothing is lost and nothing is counted twice.
"""

import argparse
import fcntl
import gc
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from farebox.billing.accounts import alerts, promotion, signups
from farebox.billing.books import hours, ledger
from farebox.billing.books.customers import CommandRefused
from farebox.billing.invoicing import dunning
from farebox.billing.invoicing.months import MonthCloser
from farebox.billing.journal import JournalError
from farebox.billing.posting import poster, segments
from farebox.billing.posting.poster import Posted
from farebox.billing.sealing import seals
from farebox.config import ConfigError, Loaded, load
from farebox.market import markup_plans
from farebox.outside import Outside, real_outside
from farebox.pepper import read_pepper
from farebox.processes import courier, till
from farebox.processes.channels import watch_of
from farebox.processes.lifeline import die_with_parent
from farebox.storage.database import StoreError
from farebox.terms import invoice_terms, make_ladder

IDLE_S = 0.1
"""Pause between batches: a call is in the ledger within about this time."""
BATCH_RECORDS_MAX = 4_000
RETRY_S = 1.0
HOUSEKEEPING_US = 60_000_000
SEGMENTS_US = 1_000_000
"""How often posted segments are removed, a few at a time. A busy worker fills one or two a second."""
TIERS_US = 5_000_000
"""How soon who has paid finds itself in a higher tier."""
SEALING_US = 1_000_000
"""How soon a correction that somebody else posted is in its account's chain of receipts."""
SEALING_RETRY_US = 60_000_000
"""When a row that could not be sealed is looked at again."""
COURIER_END_S = 30.0
"""For tries that are under way when the bookkeeper ends."""


class Bookkeeper:
    """One life's work, a round at a time."""

    def __init__(self, loaded: Loaded, outside: Outside) -> None:
        self._loaded = loaded
        self._outside = outside
        self._database = outside.open_database(loaded)
        self._markups = markup_plans(loaded)
        self._terms = invoice_terms(loaded)
        self._closer = MonthCloser(self._database, outside.ids, outside.clock, self._terms)
        self._watch = watch_of(loaded)
        self._ladder = make_ladder(loaded)
        self._looked_at = ""
        """The last account whose tier was looked at, while a look over all of them is under way."""
        self._tidied_us = self._removed_us = self._promoted_us = self._sealed_us = self._seal_us = 0
        self._unsealed = True

    def round(self) -> int:
        """Post what is new, and tidy when it is time. How many records there were: below `BATCH_RECORDS_MAX`, nothing is left.

        Raises `StoreError` and `JournalError`; what was not posted is there for the next round.
        """
        outside, loaded, database = self._outside, self._loaded, self._database
        posted = poster.post(
            database,
            loaded.journal_dir,
            outside.ids,
            outside.clock,
            records_max=BATCH_RECORDS_MAX,
            thresholds_percent=loaded.config.alerts.thresholds_percent,
            markups=self._markups,
            before_commit=lambda: outside.fail_point("poster.before_commit"),
        )
        for problem in posted.damaged:
            _say(problem)
        if posted.records:
            outside.fail_point("poster.after_commit")
        now_us = outside.clock.monotonic_us()
        if now_us >= self._seal_us and (posted.rows or self._unsealed or now_us - self._sealed_us > SEALING_US):
            self._sealed_us = now_us
            try:
                self._seal(posted)
            except (msgspec.MsgspecError, ValueError) as error:
                # A row that says nothing any more keeps receipts waiting, not the credit that expires and the months that end.
                _say(f"receipts wait, since a usage row cannot be read; `farebox doctor` says how many: {error}")
                self._seal_us = now_us + SEALING_RETRY_US
        if self._ladder.climbs and now_us - self._promoted_us > TIERS_US:
            self._promoted_us = now_us
            self._looked_at = promotion.promote(
                database, self._reached, now_us=outside.clock.now_us(), after=self._looked_at
            )
        if now_us - self._tidied_us > HOUSEKEEPING_US:
            self._tidied_us = now_us
            ledger.expire(database, outside.ids, now_us=outside.clock.now_us())
            dunning.remind(database, outside.ids, self._terms, outside.clock.now_us())
            hours.forget(database, outside.clock.now_us())
            seals.turn_day(database, outside.clock)
            self._rekey_signups()
            if loaded.config.alerts.channels or database.read(alerts.has_listener):
                alerts.look(database, outside.ids, self._watch, outside.clock.now_us())
        if now_us - self._removed_us > SEGMENTS_US:
            self._removed_us = now_us
            for slot in sorted(loaded.journal_dir.glob("w*")):
                segments.remove_posted(database, slot)
        if loaded.config.invoices.close:
            self._close_months()
        return posted.records

    def _rekey_signups(self) -> None:
        """Marks of sign-ups from before there were keyed ones, if any."""
        if self._database.read(signups.unkeyed):
            try:
                signups.rekey(self._database, read_pepper(self._loaded))
            except ConfigError as error:
                _say(f"marks of sign-ups wait for the pepper: {error}")

    def _seal(self, posted: Posted) -> None:
        """Seal as many rows as were posted and a batch more: what waits grows less, however much is posted."""
        left = posted.rows + seals.ROWS_MAX
        fresh = posted.fresh
        while left > 0:
            sealed = seals.seal(
                self._database,
                self._outside.clock,
                rows_max=seals.ROWS_MAX,
                fresh=fresh,
                before_commit=lambda: self._outside.fail_point("seal.before_commit"),
            )
            if sealed.rows:
                self._outside.fail_point("seal.after_commit")
            left -= max(sealed.rows, 1)
            fresh = None
            self._unsealed = sealed.more
            if not sealed.more:
                return

    def _reached(self, tier: str, paid_nano: int, age_us: int) -> str:
        return self._ladder.reached(tier, paid_nano=paid_nano, age_us=age_us)

    def _close_months(self) -> None:
        """One account's month at a time, between two batches: posting does not wait for a whole month's end."""
        try:
            self._closer.step()
        except CommandRefused as error:
            _say(error)
    def start_courier(self, stop: threading.Event) -> threading.Thread | None:
        """Begin to tell people; None when that cannot be, which is said. Calls are posted all the same."""
        try:
            return courier.start(self._loaded, self._outside, self._database, stop, _say)
        except ConfigError as error:
            _say(f"no alerts are sent: {error}")
            return None

    def start_till(self, stop: threading.Event) -> threading.Thread | None:
        """Begin to take payments by card; None where none are taken."""
        return till.start(self._loaded, self._outside, self._database, stop, _say)

    def close(self) -> None:
        self._database.close()


def _calm_collector() -> None:
    """What lives now lives as long as the process, and a batch's thousands of rows are freed without the collector."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _say(problem: object) -> None:
    sys.stderr.write(f"farebox: bookkeeper: {problem}\n")


def run(loaded: Loaded, stop: threading.Event) -> None:
    """Post until told to stop, then post what is left."""
    run_dir = loaded.folder / "run"
    run_dir.mkdir(exist_ok=True)
    lock = os.open(run_dir / "bookkeeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    bookkeeper = Bookkeeper(loaded, real_outside(os.environ))
    _calm_collector()
    threads = [bookkeeper.start_courier(stop), bookkeeper.start_till(stop)]
    try:
        while True:
            ending = stop.is_set()
            try:
                records = bookkeeper.round()
            except (StoreError, JournalError) as error:
                _say(error)
                if ending or stop.wait(RETRY_S):
                    return
                continue
            if records >= BATCH_RECORDS_MAX:
                continue
            if ending:
                return
            stop.wait(IDLE_S)
    finally:
        stop.set()
        for thread in threads:
            if thread is not None:
                thread.join(COURIER_END_S)
        bookkeeper.close()
        os.close(lock)


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
