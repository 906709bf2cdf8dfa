"""The poster: from the workers' journals into the ledger, each record exactly once.

`post` reads every slot from where the last run stopped and writes, in **one** transaction: a usage row per attempt, one charge
transfer per account, its payment from credit, one cost transfer per provider, the losses, the move from allotted to posted in
every scope, alerts, and the new positions. Either all of it is there or none of it; a run that died, or whose commit was
acknowledged to nobody, is simply run again from the position that the database has.

Two posters may run by mistake: the position is moved only from where it was read, so one of them changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select

from farebox.billing import tail
from farebox.billing.books import allotments, carrying, hours, own_key_usage, volumes
from farebox.billing.books.ledger import spend
from farebox.billing.books.outbox import THRESHOLDS_PERCENT, Message, alert_thresholds, put
from farebox.billing.books.transfers import insert_transfers
from farebox.billing.journal import JournalError
from farebox.billing.markup import MarkupPlan
from farebox.billing.position import Position
from farebox.billing.posting.batch import USAGE_COLUMNS, Batch, NeedsCare, build
from farebox.billing.posting.care import judge
from farebox.billing.records import Closed, Opened
from farebox.billing.sealing import seals
from farebox.billing.settled import Reading, Settled
from farebox.ports import Clock, Ids
from farebox.storage import queries
from farebox.storage.database import Database, RowRefused
from farebox.storage.tables import lives, usage

RECORDS_MAX = 4_000
"""Records of one slot in one transaction: about 2,000 calls, or 50 ms of the write lock."""
SLOTS_MAX = 256


class Posted(msgspec.Struct, frozen=True):
    """What one run did."""

    records: int = 0
    calls: int = 0
    rows: int = 0
    charge_nano: int = 0
    cost_nano: int = 0
    loss_nano: int = 0
    refused: int = 0
    reduced: int = 0
    released: int = 0
    """Allotments of ended lives that were returned."""
    lost: bool = False
    """Another poster was faster; nothing was changed."""
    damaged: tuple[str, ...] = ()
    """Slots that could not be read, with the reason; the others were posted."""
    fresh: seals.Fresh | None = None
    """The rows, for whoever seals them at once."""


class _Lost(Exception):
    """The position is not where it was read."""


def post(
    database: Database,
    journal_root: Path,
    ids: Ids,
    clock: Clock,
    *,
    records_max: int = RECORDS_MAX,
    thresholds_percent: Sequence[int] = THRESHOLDS_PERCENT,
    markups: Mapping[str, MarkupPlan] | None = None,
    before_commit: Callable[[], None] | None = None,
) -> Posted:
    """Post what is new in every slot, up to `records_max` records of each. Call again while `records` is not 0.

    `before_commit` is called with everything written and nothing committed: a fail point.
    """
    readings, damaged = _read(database, journal_root, records_max)
    if not readings:
        return Posted(damaged=damaged)
    now_us = clock.now_us()
    calls = [call for reading in readings for call in reading.settled]

    def run(care: bool) -> Posted:
        prepared = None if care else build(calls, ids, now_us)

        def work(connection: Connection) -> Posted:
            done = _post(database, connection, readings, calls, prepared, ids, now_us, thresholds_percent, markups or {})
            if before_commit is not None:
                before_commit()
            return done

        return database.write(work)

    try:
        try:
            posted = run(care=False)
        except (RowRefused, NeedsCare):
            posted = run(care=True)
    except _Lost:
        return Posted(lost=True, damaged=damaged)
    return msgspec.structs.replace(posted, damaged=damaged)


def _read(database: Database, journal_root: Path, records_max: int) -> tuple[list[Reading], tuple[str, ...]]:
    """What is new in every slot. A damaged one is left out and told of."""
    slots = sorted(path for path in journal_root.iterdir() if path.is_dir()) if journal_root.is_dir() else []
    assert len(slots) <= SLOTS_MAX, f"{len(slots)} slots are more than any machine serves"
    stored = positions(database)
    readings: list[Reading] = []
    damaged: list[str] = []
    for slot in slots:
        try:
            reading = tail.read(slot, stored.get(slot.name, Position()), records_max=records_max)
        except JournalError as error:
            damaged.append(str(error))
            continue
        if reading.records:
            readings.append(reading)
    return readings, tuple(damaged)


def positions(database: Database) -> dict[str, Position]:
    """How far each slot is posted."""
    sql = "SELECT slot, segment, byte_offset FROM journal_positions"
    rows = database.read(lambda connection: database.rows(connection, sql, ()))
    return {row.slot: Position(row.segment, row.byte_offset) for row in rows}


def _post(
    database: Database,
    connection: Connection,
    readings: Sequence[Reading],
    calls: Sequence[tuple[Settled, str]],
    batch: Batch | None,
    ids: Ids,
    now_us: int,
    thresholds_percent: Sequence[int],
    markups: Mapping[str, MarkupPlan],
) -> Posted:
    for reading in readings:
        _advance(database, connection, reading)
    ended = _end_lives(database, connection, readings, now_us)
    messages: list[Message] = []
    refused = reduced = 0
    if batch is None:
        care, messages = judge(connection, calls)
        refused, reduced = len(care.refused), len(care.allowed_nano)
        batch = build(calls, ids, now_us, care)
    else:
        _accounts_exist(database, connection, batch)
    database.insert_rows(connection, usage, USAGE_COLUMNS, batch.rows)
    if batch.rows:
        seals.mark(database, connection, batch.id, now_us)
    spent = spend(database, connection, ids, batch.charges, cause_id=batch.id, now_us=now_us) if batch.charges else []
    insert_transfers(database, connection, [*batch.transfers, *spent])
    own_key_calls = _record_own_keys(database, connection, batch) if batch.own_keys else {}
    volumes.count(database, connection, batch.charges, now_us, markups, own_key_calls)
    hours.count(database, connection, batch.charges, now_us)
    touched = _move_scopes(database, connection, batch)
    changed = carrying.revised(connection, batch.charges) if batch.charges else ()
    if changed:
        rows = [queries.UsageRow(*row) for row in batch.rows]  # pyright: ignore[reportArgumentType]
        of_calls = [list(of_call) for _, of_call in groupby(rows, key=lambda row: row.hold_id)]
        held = {call.id: {*call.scopes} for call, _ in calls}
        touched = sorted({*touched, *carrying.carry(database, connection, changed, of_calls, held)})
    released = allotments.return_slices(database, connection, ended)
    alert_thresholds(database, connection, ids, touched, thresholds_percent, now_us)
    put(database, connection, ids, messages, now_us)
    return Posted(
        records=sum(reading.records for reading in readings),
        calls=batch.calls,
        rows=len(batch.rows),
        charge_nano=batch.charge_nano,
        cost_nano=batch.cost_nano,
        loss_nano=batch.loss_nano,
        refused=refused,
        reduced=reduced,
        released=released,
        fresh=seals.Fresh(batch.id, now_us, batch.rows, batch.ordinary) if batch.rows else None,
    )


def _record_own_keys(database: Database, connection: Connection, batch: Batch) -> dict[str, int]:
    """What of a batch was answered by customers' own keys."""
    rows = [queries.UsageRow(*row) for row in batch.rows]  # pyright: ignore[reportArgumentType]
    return own_key_usage.record(database, connection, rows)


_ADVANCE = (
    "UPDATE journal_positions SET segment = ?, byte_offset = ? WHERE slot = ? AND segment = ? AND byte_offset = ?"
)
_START = "INSERT INTO journal_positions (segment, byte_offset, slot) VALUES (?, ?, ?) ON CONFLICT (slot) DO NOTHING"


def _advance(database: Database, connection: Connection, reading: Reading) -> None:
    """Move a slot's position from where it was read. The first statement of the transaction: a second poster waits here."""
    assert reading.end > reading.start, "records were read"
    end = (reading.end.segment, reading.end.offset, reading.slot)
    if reading.start == Position():
        changed = database.execute_many(connection, _START, [end])
    else:
        changed = database.execute_many(connection, _ADVANCE, [(*end, reading.start.segment, reading.start.offset)])
    if changed != 1:
        raise _Lost


def _end_lives(database: Database, connection: Connection, readings: Sequence[Reading], now_us: int) -> list[str]:
    """Lives that ended: closed ones, and all earlier ones of a slot that was opened again.

    Their slices return after the calls of this batch are posted, since those were held out of them.
    """
    ended: set[str] = set()
    opened: list[tuple[str, str]] = []
    for reading in readings:
        for record in reading.lives:
            match record:
                case Opened():
                    before = select(lives.c.life).where(lives.c.slot == reading.slot, lives.c.ended_us.is_(None))
                    ended.update(connection.execute(before).scalars())
                    ended.update(life for life, slot in opened if slot == reading.slot)
                    ended.discard(record.life)
                    opened.append((record.life, reading.slot))
                case Closed():
                    ended.add(record.life)
    open_sql = "INSERT INTO lives (life, slot) VALUES (?, ?) ON CONFLICT (life) DO UPDATE SET slot = excluded.slot"
    database.execute_many(connection, open_sql, opened)
    allotments.end_lives(database, connection, sorted(ended), now_us)
    return sorted(ended)


def _accounts_exist(database: Database, connection: Connection, batch: Batch) -> None:
    charged = list(batch.charges)
    if not charged:
        return
    marks = ", ".join("?" * len(charged))
    ((known,),) = database.rows(connection, f"SELECT COUNT(*) FROM accounts WHERE id IN ({marks})", charged)  # noqa: S608
    if known != len(charged):
        raise NeedsCare


_POST_SCOPE = (
    "UPDATE scopes SET posted_nano = posted_nano + ?, allotted_nano = allotted_nano - ? WHERE id = ? AND allotted_nano >= ?"
)
_POST_ALLOTMENT = (
    "UPDATE allotments SET posted_nano = posted_nano + ? "
    "WHERE scope_id = ? AND life = ? AND released = false AND granted_nano - posted_nano >= ?"
)
_POST_UNCOVERED = "UPDATE scopes SET posted_nano = posted_nano + ? WHERE id = ?"


def _move_scopes(database: Database, connection: Connection, batch: Batch) -> list[str]:
    """From allotted to posted, per scope and per allotment; the scopes concerned."""
    by_scope: dict[str, int] = {}
    for (scope, _), amount in batch.covered.items():
        by_scope[scope] = by_scope.get(scope, 0) + amount
    moved = [(amount, amount, scope, amount) for scope, amount in sorted(by_scope.items())]
    used = [(amount, scope, life, amount) for (scope, life), amount in sorted(batch.covered.items())]
    straight = [(amount, scope) for scope, amount in sorted(batch.uncovered.items())]
    changed = database.execute_many(connection, _POST_SCOPE, moved)
    changed += database.execute_many(connection, _POST_UNCOVERED, straight)
    changed += database.execute_many(connection, _POST_ALLOTMENT, used)
    if changed != len(moved) + len(used) + len(straight):
        raise NeedsCare
    return sorted({*by_scope, *batch.uncovered})
