"""Old journal segments: which holds are still open in a slot, and which files nothing needs any more.

A segment is needed until it is posted, while a hold written in it has no end, and while it has the `Opened` of the life that the
slot is in: recovery reads all three.
"""

from pathlib import Path

import msgspec
from sqlalchemy import select

from farebox.billing import recovery
from farebox.billing.journal import read_all, segment_name, segments
from farebox.billing.poster import positions
from farebox.billing.records import Hold
from farebox.storage.database import Database
from farebox.storage.tables import usage

KEEP = 2
"""The newest segments of a slot stay in any case."""
LOOKUP_MAX = 500


class _HoldId(msgspec.Struct, tag="hold", tag_field="type", gc=False):
    id: str


class _SettleId(msgspec.Struct, tag="settle", tag_field="type", gc=False):
    id: str


_decode = msgspec.json.Decoder(_HoldId | _SettleId).decode
_HOLD, _SETTLE, _OPENED = b'{"type":"hold"', b'{"type":"settle"', b'{"type":"opened"'


def open_holds(slot: Path) -> dict[str, Hold]:
    """Holds of a slot without a terminal record, oldest first."""
    return {hold.id: hold for hold, *_ in recovery.open_holds(read_all(slot))}


def remove_posted(database: Database, slot: Path, *, keep: int = KEEP) -> list[int]:
    """Delete a slot's old segments that nothing needs; their numbers. Call seldom: it reads them once more."""
    assert keep >= 1, "the newest segment is being written"
    numbers = segments(slot)
    position = positions(database).get(slot.name)
    if position is None:
        return []
    removed: list[int] = []
    newest_opened = next((number for number in reversed(numbers) if _has_opened(slot / segment_name(number))), None)
    for number in numbers[:-keep]:
        path = slot / segment_name(number)
        if number >= position.segment or number == newest_opened or _open_in(database, path):
            continue
        path.unlink()
        removed.append(number)
    return removed


def _has_opened(path: Path) -> bool:
    with path.open("rb") as file:
        return any(line.startswith(_OPENED, 9) for line in file)


def _open_in(database: Database, path: Path) -> set[str]:
    """Holds written in a posted segment that have no end in it and none in the ledger."""
    held: set[str] = set()
    with path.open("rb") as file:
        for line in file:
            if line.startswith(_HOLD, 9):
                held.add(_decode(line[9:]).id)
            elif line.startswith(_SETTLE, 9):
                held.discard(_decode(line[9:]).id)
    rest = sorted(held)
    for start in range(0, len(rest), LOOKUP_MAX):
        part = rest[start : start + LOOKUP_MAX]
        ended = database.read(
            lambda connection, part=part: (
                connection.execute(select(usage.c.hold_id).where(usage.c.hold_id.in_(part), usage.c.final)).scalars().all()
            )
        )
        held.difference_update(ended)
    return held
