"""Seals: gives each posted usage row its place in its account's chain of receipts, once, after it was posted.

The transaction that posts rows leaves a mark (`mark`). `seal` takes the oldest marks and, in one transaction of at most
`rows_max` rows, writes a seal for each row and removes the marks whose rows all have one. It may be killed and run again at any
moment: a row has either its seal or, with its transaction, still its mark. Whoever seals holds the one row of `sealing`, so there
is one chain, however many run. How seals are stored is `billing.sealing.seal_runs`.

A day is the UTC day on which rows are sealed; `sealing.day` never goes back, so a day before it gets no more receipts.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, update

from farebox.billing.books.periods import format_day
from farebox.billing.hedges import holds_of
from farebox.billing.sealing import receipts, seal_runs
from farebox.billing.sealing.receipt_forms import Forms
from farebox.billing.sealing.receipts import Content, Place
from farebox.billing.sealing.seal_runs import RUN_MAX, Growing, Key, Run
from farebox.billing.settled import Settled
from farebox.ports import Clock
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.seal_tables import sealing, unsealed
from farebox.storage.tables import usage

ROWS_MAX = 2_500
"""Rows of one transaction: more than a full batch of the poster, so that its rows are read and sorted once; about 50 ms of the
write lock."""
MARKS_MAX = 64
"""Marks that one transaction looks at."""
PAGE_MAX = 1_000
"""Receipts read at once."""


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
        runs = _seals(database, connection, rows, day)
        database.insert_rows(connection, seal_runs.TABLE, seal_runs.COLUMNS, [run.row() for run in runs])
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
_SEALED = "SELECT 1 FROM seal_runs WHERE posted_us = ? LIMIT 1"
_ROW = [usage.c[name] for name in UsageRow.__struct_fields__]
_ACCOUNT = UsageRow.__struct_fields__.index("account_id")
_POSTED = UsageRow.__struct_fields__.index("posted_us")

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
        begun = bool(database.rows(connection, _SEALED, (posted_us,)))
        mine = fresh is not None and posted_us == fresh.posted_us and batch_ids == [fresh.batch_id]
        if fresh is not None and mine and not begun and len(fresh.rows) <= room:
            rows += zip(fresh.rows, fresh.calls, strict=True)
            done += batch_ids
            continue
        sealed: set[Key] = seal_runs.posted(connection, posted_us) if begun else set()
        query = select(*_ROW).where(usage.c.posted_us == posted_us)
        query = query.order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision).limit(room + 1 + len(sealed))
        page = [tuple(row) for row in connection.execute(query) if (row.hold_id, row.attempt, row.revision) not in sealed]
        rows += [(row, None) for row in page[:room]]
        if len(page) > room:
            return rows, done, True
        done += batch_ids
    return rows, done, len(found) > MARKS_MAX


def _seals(database: Database, connection: Connection, rows: Sequence[Waiting], day: str) -> list[Growing]:
    """The runs that go on with the accounts' chains."""
    chains: dict[str, _Chain] = {}
    forms: dict[int, Forms] = {}
    runs: list[Growing] = []
    for row, call in rows:
        account_id, posted_us = row[_ACCOUNT], row[_POSTED]
        chain = chains.get(account_id)
        if chain is None:
            chain = chains[account_id] = _chain(database, connection, account_id, day)
        number = chain.number = chain.number + 1
        run = chain.run
        if run is None or run.posted_us != posted_us or len(run.keys) >= RUN_MAX:
            run = chain.run = Growing(account_id, day, number, posted_us, receipts.FORMAT, [], [])
            runs.append(run)
        digest = None
        if call is not None:
            form = forms.get(posted_us)
            if form is None:
                form = forms[posted_us] = Forms(day, posted_us)
            digest = form.digest(call, number, chain.digest)
        if digest is None:
            content = receipts.receipt(UsageRow(*row), Place(day, number, chain.digest))
            digest = hashlib.sha256(receipts.canonical(content)).digest()
        chain.digest = digest.hex()
        run.keys.append(row[:3])
        run.digests.append(digest)
    return runs


class _Chain(msgspec.Struct):
    """The end of an account's chain while it grows."""

    number: int
    """Of the last receipt of the day that is being sealed."""
    digest: str
    run: Growing | None = None


def _chain(database: Database, connection: Connection, account_id: str, day: str) -> _Chain:
    """As the database has it; at little cost, since each batch asks for each of its accounts."""
    found = database.rows(connection, seal_runs.LAST_SQL, (account_id,))
    end = seal_runs.end_of(found[0] if found else None)
    return _Chain(end.number if end.day == day else 0, end.digest)


# --- read again --------------------------------------------------------------------------------------------------------------

def _receipt(row: UsageRow, place: Place, digest: str) -> Content:
    content = receipts.receipt(row, place)
    if receipts.digest(content) != digest:
        name = _named((row.hold_id, row.attempt, row.revision))
        raise SealBroken(f"the usage row {name} is not what was sealed as receipt {place.number} of {place.day}")
    return content


def _named(key: Key) -> str:
    return f"{key[0]}, attempt {key[1]}, revision {key[2]}"


def of_call(connection: Connection, account_id: str, call: str) -> list[tuple[UsageRow, Content]]:
    """The sealed rows of a call, with their receipts, in order. Raises `SealBroken`."""
    holds = holds_of(call)
    mine = select(*_ROW).where(usage.c.hold_id.in_(holds), usage.c.account_id == account_id)
    mine = mine.order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision).limit(PAGE_MAX)
    rows = [UsageRow(*row) for row in connection.execute(mine)]
    placed: dict[Key, tuple[Run, int]] = {}
    for run in seal_runs.of_postings(connection, account_id, (row.posted_us for row in rows)):
        placed |= {key: (run, number) for number, key in enumerate(run.row_keys(), run.number) if key[0] in holds}
    found: list[tuple[UsageRow, Content]] = []
    for row in rows:
        if (seal := placed.get((row.hold_id, row.attempt, row.revision))) is not None:
            run, number = seal
            place = Place(run.day, number, run.digest(number - 1) or _before(connection, account_id, run.day, number))
            found.append((row, _receipt(row, place, run.digest(number))))
    return found


def _before(connection: Connection, account_id: str, day: str, number: int) -> str:
    """The digest of the receipt before one."""
    if number == 1:
        return seal_runs.last(connection, account_id, before_day=day).digest
    run = next(seal_runs.of_day(connection, account_id, day, number - 1), None)
    digest = "" if run is None else run.digest(number - 1)
    if not digest:
        raise SealBroken(f"receipt {number - 1} of {day} is missing before the next one")
    return digest


def of_day(connection: Connection, account_id: str, day: str, *, after: int = 0, limit: int = PAGE_MAX) -> list[Content]:
    """Up to `PAGE_MAX` receipts of a day, those after a number. Raises `SealBroken`."""
    limit = min(limit, PAGE_MAX)
    page: list[tuple[Key, int, str]] = []
    for run in seal_runs.of_day(connection, account_id, day, after + 1):
        seals = ((key, number, run.digest(number)) for number, key in enumerate(run.row_keys(), run.number))
        page += [seal for seal in seals if seal[1] > after]
        if len(page) >= limit:
            break
    page = page[:limit]
    rows = seal_runs.rows(connection, [key for key, _, _ in page])
    previous = _before(connection, account_id, day, page[0][1]) if page else ""
    found: list[Content] = []
    for key, number, digest in page:
        row = rows.get(key)
        if row is None:
            raise SealBroken(f"the usage row {_named(key)} of receipt {number} of {day} is gone")
        found.append(_receipt(row, Place(day, number, previous), digest))
        previous = digest
    return found


def head(connection: Connection, account_id: str, day: str) -> Content:
    """What a day comes to; one without receipts opens and ends with the same digest."""
    opening = seal_runs.last(connection, account_id, before_day=day).digest
    end = seal_runs.last(connection, account_id, day=day)
    return receipts.head(
        account=account_id,
        day=day,
        count=end.number,
        opening=opening,
        last=end.digest if end.number else opening,
        final=day < connection.execute(select(sealing.c.day)).scalar_one(),
    )


def waiting(connection: Connection) -> int:
    """How many posting transactions have rows without a seal."""
    return connection.execute(select(func.count()).select_from(unsealed)).scalar_one()
