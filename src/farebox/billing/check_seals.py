"""Checks of receipts' chains: I10 for what was sealed. Each account's chain is gone through again from the rows themselves, a
thousand at a time: a row that was changed or removed, a seal that is missing or does not follow, a row that never got one."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, exists, or_, select

from farebox.billing import receipts
from farebox.billing.check_journal import Problem
from farebox.billing.periods import format_day
from farebox.billing.receipts import FORMAT, START, Place
from farebox.storage.queries import UsageRow
from farebox.storage.seal_tables import sealing, seals, unsealed
from farebox.storage.tables import usage

ROWS_AT_ONCE = 1_000
PROBLEMS_MAX = 1_000
"""Of each kind: a chain that is broken altogether is not told of receipt by receipt for ever."""

_NAMES = UsageRow.__struct_fields__
_SEAL = [seals.c[name].label(f"seal_{name}") for name in ("hold_id", "attempt", "revision", "account_id", "day", "number")]
_SAME = and_(seals.c.hold_id == usage.c.hold_id, seals.c.attempt == usage.c.attempt, seals.c.revision == usage.c.revision)


def receipts_are_rows(connection: Connection) -> list[Problem]:
    """I10: every sealed row is what it was when it was sealed, and every posted row is sealed or waits for it."""
    with closing(_broken(connection)) as broken:
        return [*islice(broken, PROBLEMS_MAX), *_without(connection)]


def _problem(account: str, day: str, call: tuple[Any, ...], sentence: str) -> Problem:
    hold, attempt, revision = call
    which = f"attempt {attempt}" + (f", revision {revision}" if revision else "")
    return Problem("I10", hold, f"{sentence} ({which}, account {account}, {day})")


def _broken(connection: Connection) -> Generator[Problem]:
    last_day = connection.execute(select(sealing.c.day)).scalar_one()
    query = (
        select(*_SEAL, seals.c.format, seals.c.digest, *(usage.c[name] for name in _NAMES))
        .outerjoin_from(seals, usage, _SAME)
        .order_by(seals.c.account_id, seals.c.day, seals.c.number)
    )
    account, day, number, previous = "", "", 0, START
    with connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as found:
        for row in found.mappings():
            call = (row["seal_hold_id"], row["seal_attempt"], row["seal_revision"])
            if row["seal_account_id"] != account:
                account, day, number, previous = row["seal_account_id"], "", 0, START
            if row["seal_day"] != day:
                day, number = row["seal_day"], 0
                if day > last_day:
                    yield _problem(account, day, call, f"the receipt is of a day after {last_day}, the last that was sealed in")
            number += 1
            if row["seal_number"] != number:
                missing = row["seal_number"] - number
                which = f"receipt {number} is" if missing == 1 else f"receipts {number} to {row['seal_number'] - 1} are"
                yield _problem(account, day, call, f"{which} missing before this one")
                number, previous = row["seal_number"], ""
            sentence = _against(row, Place(day, number, previous), following=bool(previous))
            if sentence is not None:
                yield _problem(account, day, call, sentence)
            previous = row["digest"].hex()


def _against(row: Any, place: Place, *, following: bool) -> str | None:
    """What is wrong with one seal and its row; None when nothing is, or, after a gap, when nothing can be said."""
    if row["hold_id"] is None:
        return f"the usage row of receipt {place.number} is gone"
    if row["account_id"] != row["seal_account_id"]:
        return f"receipt {place.number} is of a usage row of the account {row['account_id']}"
    if row["format"] != FORMAT:
        return f"receipt {place.number} has a form that is not known here: {row['format']}"
    if not following:
        return None
    try:
        digest = receipts.digest(receipts.receipt(UsageRow(*(row[name] for name in _NAMES)), place))
    except (msgspec.MsgspecError, ValueError) as error:
        return f"the usage row of receipt {place.number} cannot be read: {error}"
    if digest != row["digest"].hex():
        return f"the usage row, or its seal, is not what it was when it was sealed as receipt {place.number}"
    return None


def _without(connection: Connection) -> Iterator[Problem]:
    """Rows without a seal whose posting left no mark, or whose mark was taken."""
    sealed, waits = exists().where(_SAME), exists().where(unsealed.c.posted_us == usage.c.posted_us)
    query = (
        select(usage.c.hold_id, usage.c.attempt, usage.c.revision, usage.c.account_id, usage.c.posted_us)
        .where(~or_(sealed, waits))
        .order_by(usage.c.account_id, usage.c.posted_us, usage.c.hold_id, usage.c.attempt, usage.c.revision)
        .limit(PROBLEMS_MAX)
    )
    for row in connection.execute(query):
        call = (row.hold_id, row.attempt, row.revision)
        sentence = "the usage row has no seal, nor waits for one"
        yield _problem(row.account_id, f"posted {format_day(row.posted_us)}", call, sentence)
