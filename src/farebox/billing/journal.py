"""The journal: an append-only, checksummed file per gateway worker, written before anything is sent or answered.

A line is `crc32 of the payload, 8 hex digits` + space + JSON of one record + newline, so that it can be read with `tail`.
Files are segments `NNNNNNNN.journal` in the worker's slot folder.

The segment being written is reserved on the disk in full (`posix_fallocate`), so a full disk can only stop the next segment,
never a line. Behind the last line the file has zeros; they are cut off when the segment ends.

A worker's records of one turn of the event loop are one write (`Journal.group`), before any byte leaves that depends on them
(`farebox.turn`); what is written survives `kill -9`. Power loss is the business of the sync policy (billing.md §7): `always`
(fdatasync with every write), `interval` (a thread, every 50 ms), `os`. docs/decisions/0010-one-turn-one-write.md has the
measurements.

At the end of the last segment a line that is torn or fails its checksum is unfinished; anywhere else it is corruption
(`JournalError`), except what a dead writer's power loss left, which `cut_torn_tail` mends before the next one writes.
"""

import fcntl
import os
import re
import threading
import zlib
from binascii import hexlify
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import msgspec

from farebox.billing.position import Position
from farebox.billing.records import Closed, Record, Settle

SyncPolicy = Literal["always", "interval", "os"]
SYNC_INTERVAL_S: Final = 0.05
SEGMENT_BYTES_MIN: Final = 4096
SEGMENT_BYTES_MAX: Final = 16 * 2**20
"""Reserved on the disk for the segment being written."""
END_SHARE: Final = 4
"""A quarter of each segment is for ends only: on a full disk, calls under way still settle in what was reserved before."""
LINE_BYTES_MAX: Final = 2**20
READ_BYTES_MAX: Final = 2**20

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)
_SUFFIX: Final = ".journal"
_RESERVED: Final = "next"
"""The name of a segment before it begins: readers take a segment for complete as soon as there is a later one."""
_PIECE: Final = re.compile(rb"[^\n\0]+\n?")


class JournalError(Exception):
    """The journal cannot be written, or a line in its middle is damaged."""


class SlotBusy(JournalError):
    """Another living process owns this slot."""


def encode_line(record: Record) -> bytes:
    payload = _encoder.encode(record)
    return b"".join((hexlify(zlib.crc32(payload).to_bytes(4, "big")), b" ", payload, b"\n"))


def segment_name(number: int) -> str:
    return f"{number:08d}{_SUFFIX}"


def segments(slot: Path) -> list[int]:
    """Segment numbers of a slot, ascending."""
    if not slot.is_dir():
        return []
    return sorted(int(path.stem) for path in slot.glob(f"*{_SUFFIX}"))


class Journal:
    """The writing end; one per worker process, owner of its slot for as long as it lives."""

    def __init__(self, slot: Path, *, sync: SyncPolicy = "interval", segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        """Take the slot (`SlotBusy` if another process has it), cut a torn end, and write to a new segment."""
        assert segment_bytes_max >= SEGMENT_BYTES_MIN, f"a segment has at least {SEGMENT_BYTES_MIN} bytes"
        slot.mkdir(parents=True, exist_ok=True)
        self.slot = slot
        self._policy = sync
        self._segment_bytes_max = segment_bytes_max
        self._lock_fd = os.open(slot / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise SlotBusy(f"the journal slot `{slot.name}` is in use by another process") from error
        self._closed = False
        self._dirty = False
        self._changing = threading.Lock()
        """Held while the segment is changed, so that the sync thread never has a file closed under it."""
        numbers = segments(slot)
        if numbers:
            cut_torn_tail(slot / segment_name(numbers[-1]))
        self.segment = numbers[-1] if numbers else 0
        self.group: Callable[[], None] | None = None
        """Called when records wait for a `commit`, which is then its business; None: every write commits itself."""
        self.on_broken: Callable[[OSError], None] | None = None
        """Told when the disk does not take what was reserved on it; does not return. None: the `OSError` is raised."""
        self._pending: list[bytes] = []
        self._fd = -1
        self._written = self._size = self._limit = self._reserved = 0
        """Bytes on the file, with those pending, before new calls are refused, and in all."""
        try:
            self._begin(segment_bytes_max)
        except JournalError:
            os.close(self._lock_fd)
            raise
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None
        if sync == "interval":
            self._syncer = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
            self._syncer.start()

    def _begin(self, bytes_min: int) -> None:
        """Reserve and map the next segment, then end the one before. A full disk is a `JournalError` and changes nothing."""
        size = max(self._segment_bytes_max, bytes_min)
        reserved = self.slot / _RESERVED
        fd = os.open(reserved, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            os.close(fd)
            reserved.unlink(missing_ok=True)
            raise JournalError(f"the journal cannot be written: {error.strerror}") from error
        with self._changing:
            self._end()
            self.segment += 1
            reserved.rename(self.slot / segment_name(self.segment))
            _sync_folder(self.slot)
            self._fd, self._reserved = fd, size
            self._written = self._size = 0
            self._limit = size - self._segment_bytes_max // END_SHARE

    def write(self, *records: Record) -> None:
        """Append records. When this returns, or in a group when its `commit` does, they survive the death of the process.

        A disk without room for the next segment is a `JournalError`: the caller then refuses the call. Ends (`Settle`, `Closed`)
        have a share of every segment to themselves; should that be full, too, a settlement is kept in memory and tried again
        (`billing.settlement`).
        """
        data = encode_line(records[0]) if len(records) == 1 else b"".join(map(encode_line, records))
        if self._size + len(data) > self._limit:
            self._make_room(records, len(data))
        self._size += len(data)
        pending = self._pending
        pending.append(data)
        if self.group is None:
            self.commit()
        elif len(pending) == 1:
            self.group()

    def commit(self) -> None:
        """Put what is pending on the file. What was reserved can be written: an error here (`OSError`) means that the disk has
        failed, and nobody can say what is on it. The process then has to end; the next life reads what is there."""
        pending = self._pending
        if not pending:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        try:
            while data:
                count = os.pwrite(self._fd, data, self._written)
                self._written += count
                data = data[count:]
            if self._policy == "always":
                os.fdatasync(self._fd)
            else:
                self._dirty = True
        except OSError as error:
            # Also where a full segment ends in the middle of a call: nobody may go on as if it had been refused in time.
            if self.on_broken is not None:
                self.on_broken(error)
            raise

    def _make_room(self, records: Sequence[Record], size: int) -> None:
        """See that so many bytes fit: into this segment if they are an end, else into the next."""
        if self._fd < 0:
            raise JournalError("the journal is closed")
        if self._size + size <= self._reserved and all(isinstance(record, Settle | Closed) for record in records):
            return
        self._begin(size + self._segment_bytes_max // END_SHARE)

    def _end(self) -> None:
        """Cut the segment to what was written, on the disk."""
        if self._fd < 0:
            return
        self.commit()
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._size = self._limit = 0
        self._dirty = False

    def _sync_loop(self) -> None:
        while not self._stop.wait(SYNC_INTERVAL_S):
            self.sync()

    def sync(self) -> None:
        """Force what was written to the disk."""
        if not self._dirty:
            return
        with self._changing:
            if self._fd >= 0:
                self._dirty = False
                os.fdatasync(self._fd)

    def close(self) -> None:
        """Sync, close, give the slot back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._changing:
            self._end()
        os.close(self._lock_fd)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cut_torn_tail(path: Path) -> None:
    """End a dead writer's segment behind its last good line.

    A killed writer leaves at most one line half written; it is kept in a `.cut` file. Power loss may leave any page out, since
    the kernel writes pages in the order it likes: then the good lines behind a damaged place are moved up to it, so that they
    count like all others, and what is not a line is kept in a `.damaged` file, of which `farebox doctor` tells.
    """
    data = path.read_bytes()
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        if not _is_good(data[good:end]):
            break
        good = end + 1
    if good == len(data):
        return
    rest = data[good:].rstrip(b"\0")
    salvaged, damaged = _salvage(rest)
    if salvaged:
        _keep(path.with_suffix(".damaged"), damaged)
        _keep(path, data[:good] + salvaged)
        return
    if rest:
        _keep(path.with_suffix(".cut"), rest)
    with path.open("r+b") as file:
        file.truncate(good)
        file.flush()
        os.fsync(file.fileno())


def _is_good(line: bytes) -> bool:
    try:
        decode_line(line, "")
    except JournalError:
        return False
    return True


def _salvage(data: bytes) -> tuple[bytes, bytes]:
    """What is good lines of a damaged piece, and what is not. A page that never reached the disk reads as zeros."""
    good: list[bytes] = []
    damaged: list[bytes] = []
    for piece in _PIECE.findall(data):
        (good if piece.endswith(b"\n") and _is_good(piece[:-1]) else damaged).append(piece)
    return b"".join(good), b"".join(damaged)


def _keep(path: Path, data: bytes) -> None:
    """Write a whole file, or leave the old one as it was."""
    half = path.with_suffix(path.suffix + ".half")
    with half.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    _sync_folder(path.parent)


def decode_line(line: bytes, where: str) -> Record:
    """One line without its newline → the record. `JournalError` names the place of a damaged line."""
    if len(line) < 10 or line[8:9] != b" ":
        raise JournalError(f"{where}: not a journal line")
    payload = line[9:]
    try:
        wanted = int(line[:8], 16)
    except ValueError:
        raise JournalError(f"{where}: damaged checksum") from None
    if zlib.crc32(payload) != wanted:
        raise JournalError(f"{where}: the checksum does not match")
    try:
        return _decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise JournalError(f"{where}: {error}") from error


def read(slot: Path, start: Position, *, records_max: int) -> tuple[list[tuple[Record, Position]], Position]:
    """Records from `start` on, each with the position behind it, and where to go on.

    Safe beside a living writer: an unfinished end is left for the next call. Moves to the next segment only when one exists,
    since a segment is complete by then.
    """
    found: list[tuple[Record, Position]] = []
    here = start
    numbers = [number for number in segments(slot) if number >= start.segment]
    for number in numbers:
        if number != here.segment:
            here = Position(number, 0)
        last = number == numbers[-1]
        name = f"{slot.name}/{segment_name(number)}"
        with (slot / segment_name(number)).open("rb") as file:
            while len(found) < records_max:
                file.seek(here.offset)
                lines, rest = whole_lines(file.read(READ_BYTES_MAX))
                if not lines:
                    if rest != "nothing" and not last:
                        raise JournalError(f"{name} at {here.offset}: torn line before the end")
                    break
                before = len(found)
                for index, line in enumerate(lines):
                    try:
                        record = decode_line(line[:-1], f"{name} at {here.offset}")
                    except JournalError:
                        if last and index == len(lines) - 1:
                            break  # being written at this moment
                        raise
                    here = Position(number, here.offset + len(line))
                    found.append((record, here))
                    if len(found) >= records_max:
                        return found, here
                if len(found) == before:
                    break
    return found, here


def whole_lines(data: bytes) -> tuple[list[bytes], Literal["nothing", "reserved", "torn"]]:
    """The complete lines of a piece of a segment, each with its newline, and what follows them: nothing, reserved zeros, or part
    of a line.

    A line has no NUL (JSON escapes it), so the first one is where the reserved zeros begin.
    """
    end = data.find(b"\0")
    rest: Literal["nothing", "reserved", "torn"] = "nothing"
    if end >= 0:
        data = data[:end]
        rest = "reserved"
    cut = data.rfind(b"\n") + 1
    if cut < len(data):
        rest = "torn"
    # Seven times as quick as `split`, which looks at every byte by itself.
    return list(BytesIO(data[:cut])), rest


def read_all(slot: Path) -> Iterator[Record]:
    """Every record of a slot, oldest first."""
    here = Position()
    while True:
        batch, here = read(slot, here, records_max=10_000)
        if not batch:
            return
        for record, _ in batch:
            yield record
