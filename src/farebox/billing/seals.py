"""Seals: gives each posted usage row its place in its account's chain of receipts, once, after it was posted.

The transaction that posts rows leaves a mark (`mark`). `seal` takes the oldest marks and, in one transaction of at most
`rows_max` rows, writes a seal for each row and removes the marks whose rows all have one. It may be killed and run again at any
moment: a row has either its seal or, with its transaction, still its mark. Whoever seals holds the one row of `sealing`, so there
is one chain, however many run.

A day is the UTC day on which rows are sealed; `sealing.day` never goes back, so a day before it gets no more receipts.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, and_, exists, func, select, update

from farebox.billing import receipts
from farebox.billing.periods import format_day
from farebox.billing.receipt_forms import Forms
from farebox.billing.receipts import START, Content, Place
from farebox.billing.tail import Settled
from farebox.ports import Clock
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.seal_tables import sealing, seals, unsealed
from farebox.storage.tables import usage

ROWS_MAX = 2_500
"""Rows of one transaction: more than a full batch of the poster, so that its rows are read and sorted once; about 50 ms of the
write lock."""
MARKS_MAX = 64
"""Marks that one transaction looks at."""
PAGE_MAX = 1_000
"""Receipts read at once."""
SEAL_COLUMNS = ("hold_id", "attempt", "revision", "account_id", "day", "number", "format", "digest")


class SealBroken(Exception):
    """A usage row is not what it was when it was sealed: somebody changed the database."""


class Fresh(msgspec.Struct, frozen=True, eq=False):
    """Rows as they were posted a moment ago, in the order of their columns: nobody has to read them again."""

    batch_id: str
    posted_us: int
    rows: Sequence[tuple[Any, ...]]
    calls: Sequence[Settled | None]
    """Of each row: the call, if it is an ordinary one (`batch.Batch.ordinary`)."""


class Sealed(msgspec.Struct, frozen=True):
    """What one run did."""

    rows: int = 0
    more: bool = False
    """There are marks left."""


class _Link(msgspec.Struct):
    """The end of an account's chain."""

    day: str = ""
    number: int = 0
    digest: str = START


def mark(database: Database, connection: Connection, batch_id: str, posted_us: int) -> None:
    """Leave word, in the transaction that posts them, that the rows with this `posted_us` want a place in the chain."""
    sql = "INSERT INTO unsealed (batch_id, posted_us) VALUES (?, ?)"
    database.execute_many(connection, sql, [(batch_id, posted_us)])


def seal(
    database: Database,
    clock: Clock,
    *,
    rows_max: int = ROWS_MAX,
    fresh: Fresh | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Sealed:
    """Seal up to `rows_max` rows, the earliest posted first. Call again while there is `more`.

    `fresh` is what this process has just posted. Its rows are taken from there if its mark is there and all of them fit: then
    nobody has sealed a part of them. `before_commit` is called with everything written and nothing committed: a fail point.
    """
    if fresh is None and not database.read(lambda connection: database.rows(connection, _ANY, ())):
        return Sealed()

    def work(connection: Connection) -> Sealed:
        day = _day(database, connection, clock)
        rows, done, more = _waiting(database, connection, rows_max, fresh)
        database.insert_rows(connection, seals, SEAL_COLUMNS, _seals(database, connection, rows, day))
        database.execute_many(connection, "DELETE FROM unsealed WHERE batch_id = ?", [(batch_id,) for batch_id in done])
        if before_commit is not None:
            before_commit()
        return Sealed(len(rows), more)

    return database.write(work)


def turn_day(database: Database, clock: Clock) -> None:
    """Begin the new day, though there may be nothing to seal: the one before it is final then."""
    database.write(lambda connection: _day(database, connection, clock))


def _day(database: Database, connection: Connection, clock: Clock) -> str:
    """The day to seal in, with the lock that lets one seal at a time."""
    ((known,),) = database.rows(connection, _LOCK + database.for_update, ())
    day = max(known, format_day(clock.now_us()))
    if day != known:
        connection.execute(update(sealing).values(day=day))
    return day


_LOCK = "SELECT day FROM sealing"
_ANY = "SELECT 1 FROM unsealed LIMIT 1"
_OLDEST = "SELECT batch_id, posted_us FROM unsealed ORDER BY posted_us, batch_id LIMIT ?"
_END = "SELECT day, number, digest FROM seals WHERE account_id = ? ORDER BY day DESC, number DESC LIMIT 1"
_ROW = [usage.c[name] for name in UsageRow.__struct_fields__]
_POSTED = UsageRow.__struct_fields__.index("posted_us")
_SEALED = exists().where(
    and_(seals.c.hold_id == usage.c.hold_id, seals.c.attempt == usage.c.attempt, seals.c.revision == usage.c.revision)
)


Waiting = tuple[tuple[Any, ...], Settled | None]
"""A row to seal, and its call if it is ordinary."""


def _waiting(
    database: Database, connection: Connection, rows_max: int, fresh: Fresh | None = None
) -> tuple[list[Waiting], list[str], bool]:
    """Rows to seal, the marks that are done with by them, and whether there is more."""
    marks: dict[int, list[str]] = {}
    found = database.rows(connection, _OLDEST, (MARKS_MAX + 1,))
    for one in found[:MARKS_MAX]:
        marks.setdefault(one.posted_us, []).append(one.batch_id)
    rows: list[Waiting] = []
    done: list[str] = []
    for posted_us, batch_ids in marks.items():
        room = rows_max - len(rows)
        if fresh is not None and posted_us == fresh.posted_us and batch_ids == [fresh.batch_id] and len(fresh.rows) <= room:
            rows += zip(fresh.rows, fresh.calls, strict=True)
            done += batch_ids
            continue
        query = select(*_ROW).where(usage.c.posted_us == posted_us, ~_SEALED)
        query = query.order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision).limit(room + 1)
        page = connection.execute(query).all()
        rows += [(tuple(row), None) for row in page[:room]]
        if len(page) > room:
            return rows, done, True
        done += batch_ids
    return rows, done, len(found) > MARKS_MAX


def _seals(database: Database, connection: Connection, rows: Sequence[Waiting], day: str) -> list[tuple[Any, ...]]:
    links: dict[str, _Link] = {}
    forms: dict[int, Forms] = {}
    made: list[tuple[Any, ...]] = []
    for row, call in rows:
        hold_id, attempt, revision, _, account_id = row[:5]
        link = links.get(account_id)
        if link is None:
            link = links[account_id] = _end(database, connection, account_id)
        number = link.number + 1 if link.day == day else 1
        digest = None
        if call is not None:
            posted_us = row[_POSTED]
            form = forms.get(posted_us)
            if form is None:
                form = forms[posted_us] = Forms(day, posted_us)
            digest = form.digest(call, number, link.digest)
        if digest is None:
            content = receipts.receipt(UsageRow(*row), Place(day, number, link.digest))
            digest = hashlib.sha256(receipts.canonical(content)).digest()
        link.day, link.number, link.digest = day, number, digest.hex()
        made.append((hold_id, attempt, revision, account_id, day, number, receipts.FORMAT, digest))
    return made


def _end(database: Database, connection: Connection, account_id: str) -> _Link:
    """The end of an account's chain, at little cost."""
    found = database.rows(connection, _END, (account_id,))
    return _Link(found[0].day, found[0].number, found[0].digest.hex()) if found else _Link()


def _last(connection: Connection, account_id: str, before_day: str | None = None) -> _Link:
    """The end of an account's chain, as it is or as it was before a day."""
    query = select(seals.c.day, seals.c.number, seals.c.digest).where(seals.c.account_id == account_id)
    if before_day is not None:
        query = query.where(seals.c.day < before_day)
    row = connection.execute(query.order_by(seals.c.day.desc(), seals.c.number.desc()).limit(1)).one_or_none()
    return _Link() if row is None else _Link(row.day, row.number, row.digest.hex())


# --- read again --------------------------------------------------------------------------------------------------------------

_PLACED = select(usage, seals.c.day, seals.c.number, seals.c.digest).join(
    seals, and_(seals.c.hold_id == usage.c.hold_id, seals.c.attempt == usage.c.attempt, seals.c.revision == usage.c.revision)
)


def _read(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[tuple[UsageRow, str, int, str]]:
    """Sealed rows with their day, number and digest."""
    found: list[tuple[UsageRow, str, int, str]] = []
    for row in connection.execute(query).mappings():
        values = {column.name: row[column.name] for column in usage.c}
        found.append((UsageRow(**values), row["day"], row["number"], row["digest"].hex()))
    return found


def _receipt(row: UsageRow, place: Place, digest: str) -> Content:
    content = receipts.receipt(row, place)
    if receipts.digest(content) != digest:
        name = f"{row.hold_id}, attempt {row.attempt}, revision {row.revision}"
        raise SealBroken(f"the usage row {name} is not what was sealed as receipt {place.number} of {place.day}")
    return content


def of_call(connection: Connection, account_id: str, hold_id: str) -> list[tuple[UsageRow, Content]]:
    """The sealed rows of a call, with their receipts, in order. Raises `SealBroken`."""
    query = _PLACED.where(usage.c.hold_id == hold_id, usage.c.account_id == account_id)
    found: list[tuple[UsageRow, Content]] = []
    for row, day, number, digest in _read(connection, query.order_by(usage.c.attempt, usage.c.revision).limit(PAGE_MAX)):
        place = Place(day, number, _before(connection, account_id, day, number))
        found.append((row, _receipt(row, place, digest)))
    return found


def _before(connection: Connection, account_id: str, day: str, number: int) -> str:
    """The digest of the receipt before one."""
    if number == 1:
        return _last(connection, account_id, day).digest
    query = select(seals.c.digest).where(seals.c.account_id == account_id, seals.c.day == day, seals.c.number == number - 1)
    return connection.execute(query).scalar_one().hex()


def of_day(connection: Connection, account_id: str, day: str, *, after: int = 0, limit: int = PAGE_MAX) -> list[Content]:
    """Up to `PAGE_MAX` receipts of a day, those after a number. Raises `SealBroken`."""
    query = _PLACED.where(seals.c.account_id == account_id, seals.c.day == day, seals.c.number > after)
    page = _read(connection, query.order_by(seals.c.number).limit(min(limit, PAGE_MAX)))
    previous = _before(connection, account_id, day, page[0][2]) if page else ""
    found: list[Content] = []
    for row, _, number, digest in page:
        found.append(_receipt(row, Place(day, number, previous), digest))
        previous = digest
    return found


def head(connection: Connection, account_id: str, day: str) -> Content:
    """What a day comes to; one without receipts opens and ends with the same digest."""
    count = connection.execute(
        select(func.coalesce(func.max(seals.c.number), 0)).where(seals.c.account_id == account_id, seals.c.day == day)
    ).scalar_one()
    opening = _last(connection, account_id, day).digest
    return receipts.head(
        account=account_id,
        day=day,
        count=count,
        opening=opening,
        last=_before(connection, account_id, day, count + 1) if count else opening,
        final=day < connection.execute(select(sealing.c.day)).scalar_one(),
    )


def waiting(connection: Connection) -> int:
    """How many posting transactions have rows without a seal."""
    return connection.execute(select(func.count()).select_from(unsealed)).scalar_one()
