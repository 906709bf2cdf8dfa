"""The journal: what was written is read back, whatever a death or a full disk left behind; damage in the middle is an error."""

import errno
import mmap
import os
import threading
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.billing import journal as journals
from farebox.billing.journal import Journal, JournalError, SlotBusy, cut_torn_tail, encode_line, read, read_all, segment_name
from farebox.billing.position import Position
from farebox.billing.records import Closed, Hold, Opened, Record, Settle
from farebox.catalog.price import Rates

RECORDS: list[Record] = [Opened(life=f"life-{n}", at_us=n, pid=n) for n in range(5)] + [Closed(life="é\0\n", at_us=9)]
LINES = [encode_line(record) for record in RECORDS]
DATA = b"".join(LINES)
PAGE = mmap.PAGESIZE


def leave_behind(slot: Path, data: bytes, number: int = 1) -> Path:
    """A segment as a dead writer left it."""
    slot.mkdir(parents=True, exist_ok=True)
    path = slot / segment_name(number)
    path.write_bytes(data)
    return path


def test_what_is_written_is_read_in_order_by_the_next_life_too(tmp_path: Path) -> None:
    first = Journal(tmp_path / "w0", sync="os")
    first.write(RECORDS[0])
    first.write(*RECORDS[1:3])
    first.close()
    second = Journal(tmp_path / "w0", sync="os")
    second.write(*RECORDS[3:])
    assert list(read_all(tmp_path / "w0")) == RECORDS, "while it is still being written"
    second.close()
    assert list(read_all(tmp_path / "w0")) == RECORDS
    assert b"\0" not in (tmp_path / "w0" / segment_name(2)).read_bytes(), "what was reserved is given back"


@pytest.mark.parametrize("tail", [b"", b"\0" * 3 * PAGE], ids=["cut", "zeros"])
def test_a_writer_may_die_at_every_byte(tmp_path: Path, tail: bytes) -> None:
    ends = [len(b"".join(LINES[:count])) for count in range(len(LINES) + 1)]
    for length in range(len(DATA) + 1):
        slot = tmp_path / f"{length}"
        path = leave_behind(slot, DATA[:length] + tail)
        whole = max(count for count, end in enumerate(ends) if end <= length)
        assert list(read_all(slot)) == RECORDS[:whole], "a reader beside the dead writer leaves the end alone"
        cut_torn_tail(path)
        assert path.read_bytes() == b"".join(LINES[:whole])
        torn = DATA[ends[whole] : length]
        assert path.with_suffix(".cut").exists() == bool(torn)
        assert not torn or path.with_suffix(".cut").read_bytes() == torn


@settings(max_examples=200, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=300), zeros=st.integers(0, 50))
def test_garbage_behind_the_last_line_is_cut_and_kept(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, zeros: int
) -> None:
    """Power loss may leave anything in the last pages, whole lines with wrong checksums too."""
    slot = tmp_path_factory.mktemp("slot")
    path = leave_behind(slot, DATA + b"\0" * zeros + garbage + b"\n" + LINES[0][:9] + b"{}\n")
    cut_torn_tail(path)
    assert path.read_bytes() == DATA and path.with_suffix(".cut").exists()
    writer = Journal(slot, sync="os")
    writer.write(RECORDS[0])
    writer.close()
    assert list(read_all(slot)) == [*RECORDS, RECORDS[0]]


@settings(max_examples=200, deadline=None)
@given(holes=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 200)), min_size=1, max_size=3))
def test_good_lines_around_pages_that_never_reached_the_disk_are_kept(
    tmp_path_factory: pytest.TempPathFactory, holes: list[tuple[int, int]]
) -> None:
    left = bytearray(DATA)
    for start, size in holes:
        left[start : start + size] = bytes(len(left[start : start + size]))
    ends = [0, *accumulate(map(len, LINES))]
    whole = [
        record for record, start, end in zip(RECORDS, ends, ends[1:], strict=False) if left[start:end] == DATA[start:end]
    ]
    slot = tmp_path_factory.mktemp("slot")
    path = leave_behind(slot, bytes(left) + b"\0" * 4096)
    cut_torn_tail(path)
    assert list(read_all(slot)) == whole
    in_front = next((count for count in range(len(LINES)) if left[: ends[count + 1]] != DATA[: ends[count + 1]]), len(LINES))
    assert path.with_suffix(".damaged").exists() == (len(whole) > in_front)
    before = path.read_bytes()
    cut_torn_tail(path)
    assert path.read_bytes() == before, "mending twice changes nothing"


def test_damage_in_the_middle_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    for place in range(0, len(DATA), 3):
        slot = tmp_path / f"{place}"
        damaged = bytearray(DATA)
        damaged[place] ^= 0x15
        leave_behind(slot, bytes(damaged), 1)
        leave_behind(slot, DATA, 2)
        with pytest.raises(JournalError, match=segment_name(1)):
            list(read_all(slot))


def test_a_torn_line_before_another_segment_is_an_error(tmp_path: Path) -> None:
    leave_behind(tmp_path, DATA[:-4], 1)
    leave_behind(tmp_path, DATA, 2)
    with pytest.raises(JournalError, match="torn line before the end"):
        list(read_all(tmp_path))


def test_a_reader_beside_a_living_writer_sees_everything_once(tmp_path: Path) -> None:
    writer = Journal(tmp_path / "w0", sync="os", segment_bytes_max=PAGE)
    wanted: list[Record] = [Opened(life=f"life-{n}" + "x" * (n % 90), at_us=n) for n in range(2_000)]
    done = threading.Event()

    def write() -> None:
        for record in wanted:
            writer.write(record)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    found: list[Record] = []
    here = Position()
    while True:
        finished = done.is_set()
        batch, here = read(tmp_path / "w0", here, records_max=7)
        found += [record for record, _ in batch]
        assert all(first < second for (_, first), (_, second) in zip(batch, batch[1:], strict=False)), "positions grow"
        if finished and not batch:
            break
    thread.join()
    writer.close()
    assert found == wanted
    assert len(journals.segments(tmp_path / "w0")) > 20, "it went through many segments"


@pytest.mark.parametrize("start", range(len(RECORDS) + 1))
def test_reading_goes_on_from_any_position(tmp_path: Path, start: int) -> None:
    leave_behind(tmp_path, DATA)
    positions = [Position(), *(position for _, position in read(tmp_path, Position(), records_max=100)[0])]
    batch, here = read(tmp_path, positions[start], records_max=100)
    assert [record for record, _ in batch] == RECORDS[start:] and here == positions[-1]


def test_a_slot_has_one_owner(tmp_path: Path) -> None:
    owner = Journal(tmp_path / "w0", sync="os")
    with pytest.raises(SlotBusy, match="w0"):
        Journal(tmp_path / "w0", sync="os")
    owner.close()
    owner.close()
    Journal(tmp_path / "w0", sync="os").close()


def test_each_policy_syncs_when_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    calls: list[int] = []

    def count(fd: int) -> None:
        calls.append(fd)
        synced.set()

    monkeypatch.setattr(os, "fdatasync", count)
    lazy = Journal(tmp_path / "os", sync="os")
    lazy.write(RECORDS[0])
    assert calls == []
    strict = Journal(tmp_path / "always", sync="always")
    strict.write(RECORDS[0])
    strict.write(RECORDS[1])
    assert len(calls) == 2
    synced.clear()
    steady = Journal(tmp_path / "interval", sync="interval")
    steady.write(RECORDS[0])
    assert synced.wait(5), "the thread syncs soon"
    for writer in (lazy, strict, steady):
        writer.close()


def test_a_full_disk_refuses_the_next_segment_and_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Journal(tmp_path / "w0", sync="os", segment_bytes_max=PAGE)
    wanted: list[Record] = []
    reserve = os.posix_fallocate

    def full(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    record = Opened(life="x" * 300, at_us=1)
    with pytest.raises(JournalError, match="No space left"):
        while True:
            writer.write(record)
            wanted.append(record)
    for _ in range(3):
        with pytest.raises(JournalError):
            writer.write(record)
    assert wanted and list(read_all(tmp_path / "w0")) == wanted, "nothing that was refused can be read"
    assert journals.segments(tmp_path / "w0") == [1]
    monkeypatch.setattr(os, "posix_fallocate", reserve)
    writer.write(record)
    writer.close()
    assert list(read_all(tmp_path / "w0")) == [*wanted, record]


def test_calls_under_way_settle_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settlement that only waited in memory was lost with its process, and its finished call recovered by an estimate."""
    writer = Journal(tmp_path / "w0", sync="os", segment_bytes_max=4 * PAGE)
    hold = Hold("gen-1", 1, "acc-1", "key-1", ("account:acc-1",), 9, "messages", "m/x", "lab", "x", "m@1", Rates())
    settle = Settle("gen-1", "settled", 2, "acc-1", "key-1", ("account:acc-1",), 9, 5, "messages", "m/x", (), 1, "life-1")

    def full(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    holds = 0
    with pytest.raises(JournalError):
        while True:
            writer.write(hold)
            holds += 1
    ends = PAGE // len(journals.encode_line(settle))
    for _ in range(ends):
        writer.write(settle)
    with pytest.raises(JournalError):
        writer.write(hold)
    writer.close()
    with pytest.raises(JournalError, match="closed"):
        writer.write(settle)
    assert holds > 10 and ends > 2 and list(read_all(tmp_path / "w0")) == [hold] * holds + [settle] * ends


def test_a_slot_on_a_full_disk_can_be_taken_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(JournalError):
            Journal(tmp_path / "w0", sync="os")
    Journal(tmp_path / "w0", sync="os").close()


def test_more_than_a_segment_at_once_gets_a_segment_of_its_own(tmp_path: Path) -> None:
    writer = Journal(tmp_path / "w0", sync="os", segment_bytes_max=PAGE)
    big = [Opened(life="y" * 900, at_us=n) for n in range(20)]
    writer.write(RECORDS[0])
    writer.write(*big)
    writer.write(RECORDS[1])
    writer.close()
    assert list(read_all(tmp_path / "w0")) == [RECORDS[0], *big, RECORDS[1]]
