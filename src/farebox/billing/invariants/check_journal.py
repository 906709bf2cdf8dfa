"""The invariants that need the journals: what is held in them is allotted (I4), and what has ended stays so (I10)."""

from collections import defaultdict
from pathlib import Path

from sqlalchemy import select

from farebox.billing.books.problem import Problem
from farebox.billing.journal import JournalError, read_all
from farebox.billing.journal import read as read_from
from farebox.billing.position import Position
from farebox.billing.posting import recovery
from farebox.billing.records import Dispatch, Hold, Progress, Settle
from farebox.storage.database import Database
from farebox.storage.tables import allotments, journal_positions, usage

RECORDS_AT_ONCE = 10_000
LOOKUP_MAX = 500
LOOKS = 3
"""A system at work changes between reading its journals and its database: a violation counts when it stays."""


def _slots(journal_root: Path) -> list[Path]:
    return sorted(path for path in journal_root.iterdir() if path.is_dir()) if journal_root.is_dir() else []


def held_is_allotted(database: Database, journal_root: Path) -> list[Problem]:
    """I4: open holds and charges not yet posted fit into the allotment they came from, in every scope and life."""
    found = _held(database, journal_root)
    for _ in range(LOOKS - 1):
        if not found:
            break
        again = {problem.subject for problem in _held(database, journal_root)}
        found = [problem for problem in found if problem.subject in again]
    return found


def _held(database: Database, journal_root: Path) -> list[Problem]:
    needed: dict[tuple[str, str], int] = defaultdict(int)
    positions = {
        row.slot: Position(row.segment, row.byte_offset)
        for row in database.read(lambda connection: connection.execute(select(journal_positions)).all())
    }
    found: list[Problem] = []
    unposted: dict[str, Settle] = {}
    for slot in _slots(journal_root):
        try:
            for hold, life in ((item.hold, item.life) for item in recovery.open_holds(read_all(slot))):
                for scope in hold.scopes:
                    needed[scope, life] += hold.amount_nano
            for settle in _unposted(slot, positions.get(slot.name, Position())):
                unposted.setdefault(settle.id, settle)
        except JournalError as error:
            found.append(Problem("I4", slot.name, f"the journal cannot be read: {error}"))
    # A second end of a hold needs nothing: the poster refuses it.
    for hold_id in _final(database, list(unposted)):
        del unposted[hold_id]
    for settle in unposted.values():
        for scope in settle.scopes:
            needed[scope, settle.life] += settle.charge_nano
    living = select(allotments).where(allotments.c.released.is_(False))
    free = {
        (row.scope_id, row.life): row.granted_nano - row.posted_nano
        for row in database.read(lambda connection: connection.execute(living).all())
    }
    return found + [
        Problem("I4", f"{scope} {life}", f"calls need {amount} nano-dollars, the allotment has {free.get((scope, life), 0)}")
        for (scope, life), amount in sorted(needed.items())
        if amount > free.get((scope, life), 0)
    ]


def _final(database: Database, hold_ids: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(hold_ids), LOOKUP_MAX):
        part = hold_ids[start : start + LOOKUP_MAX]
        query = select(usage.c.hold_id).where(usage.c.hold_id.in_(part), usage.c.final)
        found.update(database.read(lambda connection, query=query: connection.execute(query).scalars().all()))
    return found


def _unposted(slot: Path, position: Position) -> list[Settle]:
    found: list[Settle] = []
    while True:
        batch, position = read_from(slot, position, records_max=RECORDS_AT_ONCE)
        if not batch:
            return found
        found += [record for record, _ in batch if isinstance(record, Settle)]


def nothing_reopens(journal_root: Path) -> list[Problem]:
    """I10: after a hold's terminal record, nothing more is written about it."""
    found: list[Problem] = []
    for slot in _slots(journal_root):
        ended: set[str] = set()
        try:
            for record in read_all(slot):
                match record:
                    case Settle():
                        ended.add(record.id)
                    case Hold() | Dispatch() | Progress():
                        if record.id in ended:
                            found.append(Problem("I10", record.id, "the journal goes on about a hold after its end"))
                    case _:
                        pass
        except JournalError as error:
            found.append(Problem("I10", slot.name, f"the journal cannot be read: {error}"))
    return found
