"""Old journal segments: which holds are still open in a slot, and which files nothing needs any more.

A segment is needed until it is posted and while a hold written in it has no end. Segments go in their order only: were a
`Settle` gone while its `Hold` is still there, recovery would take the hold for an open one. The newest `Opened` says which life
the slot is in, so an old segment that has it is cut down to that line instead.
"""

import os
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
    return {item.hold.id: item.hold for item in recovery.open_holds(read_all(slot))}


def remove_posted(database: Database, slot: Path, *, keep: int = KEEP) -> list[int]:
    """Delete a slot's old segments that nothing needs; their numbers. Call seldom: it reads them once more."""
    assert keep >= 1, "the newest segment is being written"
    numbers = segments(slot)
    position = positions(database).get(slot.name)
    if position is None:
        return []
    removed: list[int] = []
    opened = next((number for number in reversed(numbers) if _opened_line(slot / segment_name(number))), None)
    for number in numbers[:-keep]:
        path = slot / segment_name(number)
        if number >= position.segment or _open_in(database, path):
            break
        if number == opened:
            _cut_down(path)
            continue
        path.unlink()
        removed.append(number)
    return removed


def _opened_line(path: Path) -> bytes:
    """The last `Opened` of a segment, or nothing."""
    with path.open("rb") as file:
        found = [line for line in file if line.startswith(_OPENED, 9)]
    return found[-1] if found else b""


def _cut_down(path: Path) -> None:
    """Leave of a segment only its last `Opened`; the file has either content at every moment."""
    line = _opened_line(path)
    if path.stat().st_size == len(line):
        return
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


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
