"""The journal: an append-only, checksummed file per gateway worker, written before anything is sent or answered.

A line is `crc32 of the payload, 8 hex digits` + space + JSON of one record + newline, so that it can be read with `tail`.
One `write()` per call puts the lines into the kernel, which survives `kill -9`; power loss is the business of the sync
policy (billing.md §7): `always` (fdatasync before the write returns), `interval` (a thread, every 50 ms), `os`.

Files are segments `NNNNNNNN.journal` in the worker's slot folder. A line that is torn or fails its checksum is an end of
file if it is the last of the last segment, and corruption (`JournalError`) anywhere else.
"""

import fcntl
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from farebox.billing.records import Record

SyncPolicy = Literal["always", "interval", "os"]
SYNC_INTERVAL_S = 0.05
SEGMENT_BYTES_MAX = 64 * 2**20
LINE_BYTES_MAX = 2**20
READ_BYTES_MAX = 4 * 2**20

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_SUFFIX = ".journal"


class JournalError(Exception):
    """The journal cannot be written, or a line in its middle is damaged."""


class SlotBusy(JournalError):
    """Another living process owns this slot."""


def encode_line(record: Record) -> bytes:
    payload = _encoder.encode(record)
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


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
        """Take the slot (`SlotBusy` if another process has it), cut a torn last line, and append to a new segment."""
        slot.mkdir(parents=True, exist_ok=True)
        self.slot = slot
        self._sync = sync
        self._segment_bytes_max = segment_bytes_max
        self._lock_fd = os.open(slot / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise SlotBusy(f"the journal slot `{slot.name}` is in use by another process") from error
        self._closed = False
        self._dirty = False
        numbers = segments(slot)
        if numbers:
            _cut_torn_tail(slot / segment_name(numbers[-1]))
        self.segment = (numbers[-1] + 1) if numbers else 1
        self._fd = self._create(self.segment)
        self._size = 0
        self._stop = threading.Event()
        self._syncer: threading.Thread | None = None
        if sync == "interval":
            self._syncer = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
            self._syncer.start()

    def _create(self, number: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.slot / segment_name(number), flags, 0o600)
        folder = os.open(self.slot, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return fd

    def write(self, *records: Record) -> None:
        """Append records in one `write()`; when this returns they survive the death of the process.

        A short or failed write (disk full) is undone by truncating to the last whole line and raises `JournalError`: the
        caller then refuses the call, or for a settlement keeps it in memory and tries again (`pipeline`).
        """
        data = encode_line(records[0]) if len(records) == 1 else b"".join(map(encode_line, records))
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            raise JournalError(f"the journal cannot be written: {error.strerror}") from error
        if written != len(data):
            os.ftruncate(self._fd, self._size)
            raise JournalError("the journal cannot be written: the disk is full")
        self._size += written
        if self._sync == "always":
            os.fdatasync(self._fd)
        else:
            self._dirty = True
        if self._size >= self._segment_bytes_max:
            self._rotate()

    def _rotate(self) -> None:
        fresh = self._create(self.segment + 1)
        old, self._fd = self._fd, fresh
        self.segment += 1
        self._size = 0
        os.fdatasync(old)
        os.close(old)

    def _sync_loop(self) -> None:
        while not self._stop.wait(SYNC_INTERVAL_S):
            self.sync()

    def sync(self) -> None:
        """Force what was written to the disk."""
        if self._dirty and not self._closed:
            self._dirty = False
            try:
                os.fdatasync(self._fd)
            except OSError:
                # The segment was rotated (and synced) under this thread; the next round takes the new one.
                self._dirty = True

    def close(self) -> None:
        """Sync, close, give the slot back. Idempotent."""
        if self._closed:
            return
        self._stop.set()
        if self._syncer is not None:
            self._syncer.join()
        self._closed = True
        os.fdatasync(self._fd)
        os.close(self._fd)
        os.close(self._lock_fd)


def _cut_torn_tail(path: Path) -> None:
    """Remove a last line that the death of its writer left unfinished."""
    with path.open("r+b") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end != len(data):
            file.truncate(end)


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


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in a slot's journal: everything before it has been read."""

    segment: int = 0
    offset: int = 0


def read(slot: Path, start: Position, *, records_max: int) -> tuple[list[tuple[Record, Position]], Position]:
    """Records from `start` on, each with the position behind it, and where to go on.

    Safe beside a living writer: an unfinished last line is left for the next call. Moves to the next segment only when one
    exists, since a segment is complete by then.
    """
    found: list[tuple[Record, Position]] = []
    here = start
    numbers = [number for number in segments(slot) if number >= start.segment]
    for index, number in enumerate(numbers):
        if number != here.segment:
            here = Position(number, 0)
        last_segment = index == len(numbers) - 1
        with (slot / segment_name(number)).open("rb") as file:
            file.seek(here.offset)
            while len(found) < records_max:
                data = file.read(READ_BYTES_MAX)
                cut = data.rfind(b"\n") + 1
                if cut == 0:
                    if data and not last_segment:
                        raise JournalError(f"{slot.name}/{segment_name(number)} at {here.offset}: torn line before the end")
                    break
                offset = here.offset
                for line in data[: cut - 1].split(b"\n"):
                    place = offset
                    offset += len(line) + 1
                    record = decode_line(line, f"{slot.name}/{segment_name(number)} at {place}")
                    found.append((record, Position(number, offset)))
                    if len(found) >= records_max:
                        break
                here = Position(number, offset)
                file.seek(offset)
            if len(found) >= records_max:
                return found, here
    return found, here


def read_all(slot: Path) -> Iterator[Record]:
    """Every record of a slot, oldest first."""
    here = Position()
    while True:
        batch, here = read(slot, here, records_max=10_000)
        if not batch:
            return
        for record, _ in batch:
            yield record
