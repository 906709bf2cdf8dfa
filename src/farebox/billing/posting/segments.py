"""Old journal segments: which holds are still open in a slot, and which files nothing needs any more.

A segment is needed until it is posted and while a hold written in it has no end. Segments go in their order only: were a
`Settle` gone while its `Hold` is still there, recovery would take the hold for an open one. The newest `Opened` says which life
the slot is in, so an old segment that has it is cut down to that line instead.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from farebox.billing.journal import read_all, segment_name, segments
from farebox.billing.posting import recovery
from farebox.billing.posting.poster import positions
from farebox.billing.records import Hold
from farebox.storage.database import Database
from farebox.storage.tables import usage

KEEP: Final = 2
"""The newest segments of a slot stay in any case."""
LOOKUP_MAX: Final = 500
REMOVED_MAX: Final = 4
"""Segments removed at once, of a slot: reading them takes some twenty milliseconds each, and nothing is posted meanwhile."""


_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_HOLD, _SETTLE, _OPENED = b'{"type":"hold"', b'{"type":"settle"', b'{"type":"opened"'
_HEAD: Final = 9
"""Bytes of a line before its JSON: the checksum and a space."""
_ID: Final = b',"id":"'
"""What follows the type, as the journal writes it: then the id need not be looked for."""
READ_BYTES: Final = 256 * 1024


def open_holds(slot: Path) -> dict[str, Hold]:
    """Holds of a slot without a terminal record, oldest first."""
    return {item.hold.id: item.hold for item in recovery.open_holds(read_all(slot))}


def remove_posted(database: Database, slot: Path, *, keep: int = KEEP, most: int = REMOVED_MAX) -> list[int]:
    """Delete a slot's oldest segments that nothing needs, `most` of them beside the one that was cut down; their numbers. What is
    deleted is read once more."""
    assert keep >= 1, "the newest segment is being written"
    numbers = segments(slot)
    position = positions(database).get(slot.name)
    if position is None:
        return []
    done: list[tuple[int, bool]] = []
    for number in numbers[:-keep][: most + 1]:
        if number >= position.segment:
            break
        held, opens = _read(slot / segment_name(number))
        if _still_open(database, held):
            break
        done.append((number, opens))
    opened = _opened(slot, done, numbers[len(done) :])
    removed: list[int] = []
    for number, _ in done:
        path = slot / segment_name(number)
        if number == opened:
            _cut_down(path)
            continue
        path.unlink()
        removed.append(number)
    return removed


def _opened(slot: Path, done: Sequence[tuple[int, bool]], later: Sequence[int]) -> int | None:
    """Which of the segments that nothing else needs has the newest `Opened` of all."""
    opened = next((number for number, opens in reversed(done) if opens), None)
    if opened is None or any(_begins_life(slot / segment_name(number)) for number in reversed(later)):
        return None
    return opened


def _begins_life(path: Path) -> bool:
    """Whether a life begins with a segment, as most do. One that first writes what its slot owed has its `Opened` later: then the
    one before stays, a line long, until that segment goes."""
    with path.open("rb") as file:
        return file.read(_HEAD + len(_OPENED)).startswith(_OPENED, _HEAD)


def _opened_line(path: Path) -> bytes:
    """The last `Opened` of a segment, or nothing."""
    with path.open("rb") as file:
        found = [line for line in file if line.startswith(_OPENED, _HEAD)]
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


def _read(path: Path) -> tuple[set[str], bool]:
    """Holds written in a segment that have no end in it; whether a life begins in it."""
    held: set[bytes] = set()
    opens = False
    with path.open("rb", READ_BYTES) as file:
        for line in file:
            if line.startswith(_HOLD, _HEAD):
                held.add(_id(line, _HEAD + len(_HOLD)))
            elif line.startswith(_SETTLE, _HEAD):
                held.discard(_id(line, _HEAD + len(_SETTLE)))
            elif line.startswith(_OPENED, _HEAD):
                opens = True
    return {found.decode() for found in held}, opens


def _id(line: bytes, place: int) -> bytes:
    """The id in a line whose type ends at a place: at little cost, since every call is two lines here."""
    if line.startswith(_ID, place):
        start = place + len(_ID)
        found = line[start : line.index(b'"', start)]
        if found.find(b"\\") < 0:  # `in` is slower: it first tries the text as a number
            return found
    return _decode_text(_decode(line[_HEAD:])["id"]).encode()


def _still_open(database: Database, held: set[str]) -> bool:
    """Whether one of these has no end in the ledger."""
    rest = sorted(held)
    for start in range(0, len(rest), LOOKUP_MAX):
        part = rest[start : start + LOOKUP_MAX]
        if database.read(partial(_ended, part)) < len(part):
            return True
    return False


def _ended(held: Sequence[str], connection: Connection) -> int:
    """How many of these holds have an end in the ledger."""
    query = select(usage.c.hold_id).where(usage.c.hold_id.in_(held), usage.c.final).distinct()
    return len(connection.execute(query).scalars().all())
