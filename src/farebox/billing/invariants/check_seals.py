"""Checks of receipts' chains: I10 for what was sealed. Each account's chain is gone through again from the rows themselves, a
thousand at a time: a row that was changed or removed, a seal that is missing or does not follow, a row that never got one."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import groupby, islice

import msgspec
from sqlalchemy import Connection, select

from farebox.billing.books.periods import format_day
from farebox.billing.books.problem import Problem
from farebox.billing.sealing import receipts, seal_runs
from farebox.billing.sealing.receipts import FORMAT, START, Place
from farebox.billing.sealing.seal_runs import Key, Run
from farebox.storage.queries import UsageRow
from farebox.storage.seal_tables import sealing, unsealed
from farebox.storage.tables import usage

ROWS_AT_ONCE = 1_000
PROBLEMS_MAX = 1_000
"""Of each kind: a chain that is broken altogether is not told of receipt by receipt for ever."""


def receipts_are_rows(connection: Connection) -> list[Problem]:
    """I10: every sealed row is what it was when it was sealed, and every posted row is sealed or waits for it."""
    with closing(_broken(connection)) as broken, closing(_without(connection)) as without:
        return [*islice(broken, PROBLEMS_MAX), *islice(without, PROBLEMS_MAX)]


def _problem(account: str, day: str, call: Key, sentence: str) -> Problem:
    hold, attempt, revision = call
    which = f"attempt {attempt}" + (f", revision {revision}" if revision else "")
    return Problem("I10", hold, f"{sentence} ({which}, account {account}, {day})")


def _broken(connection: Connection) -> Generator[Problem]:
    last_day = connection.execute(select(sealing.c.day)).scalar_one()
    account, day, number, previous = "", "", 0, START
    for run, keys, rows in _with_rows(connection):
        if run.account_id != account:
            account, day, number, previous = run.account_id, "", 0, START
        if run.day != day:
            day, number = run.day, 0
            if day > last_day:
                yield _problem(account, day, keys[0], f"the receipt is of a day after {last_day}, the last that was sealed in")
        if run.number != number + 1:
            yield _problem(account, day, keys[0], _gap(number + 1, run.number))
            previous = ""
        for number, key in enumerate(keys, run.number):
            sentence = _against(run, rows.get(key), Place(day, number, previous), following=bool(previous))
            if sentence is not None:
                yield _problem(account, day, key, sentence)
            previous = run.digest(number)


def _with_rows(connection: Connection) -> Iterator[tuple[Run, list[Key], dict[Key, UsageRow]]]:
    """Every run, with the keys and those of their rows that there are."""
    page: list[tuple[Run, list[Key]]] = []
    count = 0
    with closing(seal_runs.in_order(connection)) as runs:
        while True:
            run = next(runs, None)
            if page and (run is None or count >= ROWS_AT_ONCE):
                rows = seal_runs.rows(connection, [key for _, keys in page for key in keys])
                yield from ((run, keys, rows) for run, keys in page)
                page, count = [], 0
            if run is None:
                return
            page.append((run, _keys(run)))
            count += len(page[-1][1])


def _keys(run: Run) -> list[Key]:
    """As many as there are seals in it: what cannot be read, or is not there, is the row of no call."""
    keys = _read(run.receipts)
    return keys + [("", 0, 0)] * max(len(run) - len(keys), 0 if keys else 1)


def _read(words: str) -> list[Key]:
    try:
        return seal_runs.keys_of(words)
    except msgspec.MsgspecError:
        return []


def _gap(wanted: int, found: int) -> str:
    if found < wanted:
        return f"this one is numbered {found} after receipt {wanted - 1}"
    return f"{f'receipt {wanted} is' if found == wanted + 1 else f'receipts {wanted} to {found - 1} are'} missing before this one"


def _against(run: Run, row: UsageRow | None, place: Place, *, following: bool) -> str | None:
    """What is wrong with one seal and its row; None when nothing is, or, after a gap, when nothing can be said."""
    if row is None:
        return f"the usage row of receipt {place.number} is gone"
    if row.account_id != run.account_id:
        return f"receipt {place.number} is of a usage row of the account {row.account_id}"
    if run.format != FORMAT:
        return f"receipt {place.number} has a form that is not known here: {run.format}"
    if not following:
        return None
    try:
        digest = receipts.digest(receipts.receipt(row, place))
    except (msgspec.MsgspecError, ValueError) as error:
        return f"the usage row of receipt {place.number} cannot be read: {error}"
    if digest != run.digest(place.number):
        return f"the usage row, or its seal, is not what it was when it was sealed as receipt {place.number}"
    return None


def _without(connection: Connection) -> Generator[Problem]:
    """Rows without a seal whose posting left no mark, or whose mark was taken; and rows that have two."""
    query = (
        select(usage.c.posted_us, usage.c.hold_id, usage.c.attempt, usage.c.revision, usage.c.account_id)
        .where(usage.c.posted_us.not_in(select(unsealed.c.posted_us)))
        .order_by(usage.c.posted_us)
    )
    with (
        closing(seal_runs.by_posting(connection)) as runs,
        connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as found,
    ):
        sealed_us, words = next(runs, _NO_MORE)
        for posted_us, rows in groupby(found, key=lambda row: row.posted_us):
            sealed: dict[Key, int] = {}
            while sealed_us <= posted_us:
                if sealed_us == posted_us:
                    for key in _read(words):
                        sealed[key] = sealed.get(key, 0) + 1
                sealed_us, words = next(runs, _NO_MORE)
            for row in rows:
                call = (row.hold_id, row.attempt, row.revision)
                seals = sealed.get(call, 0)
                if seals != 1:
                    sentence = "the usage row has no seal, nor waits for one" if not seals else f"the usage row has {seals} seals"
                    yield _problem(row.account_id, f"posted {format_day(row.posted_us)}", call, sentence)


_NO_MORE = (2**63, "")
