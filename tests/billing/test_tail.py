"""The poster's reader sees the same records at the same places as the journal's own."""

import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.billing import tail
from farebox.billing.journal import Journal, JournalError, encode_line, read, read_all, segment_name
from farebox.billing.position import Position
from farebox.billing.records import Attempt, Closed, Hold, Opened, Settle
from farebox.catalog.price import Rates
from farebox.wires.usage import Usage

RATES = Rates(input=5, output=7)


def settle(number, error=""):
    attempts = tuple(
        Attempt(n, "p", "m", 1, 2, "ok", usage=Usage(input=n, reasoning=number), rates=RATES, cost_nano=None, error=error)
        for n in range(1, 1 + number % 3)
    )
    return Settle(f"gen-{number}", "settled", 1, "a", "k", ("s1", "s2"), 9, 5, "chat", "m", attempts, 1, "life", project="p")


def hold(number):
    return Hold(f"gen-{number}", 1, "a", "k", ("s",), 5, "chat", "m", "p", "m", "v", RATES)


records = st.lists(
    st.one_of(
        st.integers(0, 99).map(settle),
        st.integers(0, 99).map(hold),
        st.builds(settle, st.integers(1, 2), st.sampled_from(["é" * 1_000, "x" * 300_000])),
        st.just(Opened("life", 1)),
        st.just(Closed("life", 2)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, database=None)
@given(written=records, records_max=st.integers(1, 7), closed=st.booleans())
def test_it_reads_what_was_written(written, records_max, closed):
    with tempfile.TemporaryDirectory() as folder:
        slot = Path(folder) / "w1"
        journal = Journal(slot, sync="os", segment_bytes_max=8_192)
        for record in written:
            journal.write(record)
        if closed:
            journal.close()
        here = there = Position()
        settled, lives, count = [], [], 0
        for _ in range(100):
            reading = tail.read(slot, here, records_max=records_max)
            _, there = read(slot, there, records_max=records_max)
            assert reading.start == here and (reading.end == there or not reading.records)
            here = reading.end
            settled += reading.settled
            lives += reading.lives
            count += reading.records
        journal.close()
        assert count == len(written) and list(read_all(slot)) == written
        assert lives == [record for record in written if isinstance(record, Opened | Closed)]
        ends = [record for record in written if isinstance(record, Settle)]
        assert [text for _, text in settled] == [msgspec.json.encode(record).decode() for record in ends]
        for (call, text), record in zip(settled, ends, strict=True):
            assert (call.id, call.scopes, call.life, call.project) == (record.id, record.scopes, record.life, record.project)
            assert [(one.n, one.usage, one.cost_nano) for one in call.attempts] == [
                (one.n, one.usage, one.cost_nano) for one in record.attempts
            ]
            assert [msgspec.json.decode(part, type=Attempt) for part in tail.attempt_texts(text)] == list(record.attempts)


def files(tmp_path, *contents):
    slot = tmp_path / "w1"
    slot.mkdir()
    for number, content in enumerate(contents, 1):
        (slot / segment_name(number)).write_bytes(content)
    return slot


GOOD = encode_line(settle(1))
BAD = GOOD.replace(b"gen-1", b"gen-2")


def test_a_damaged_last_line_is_being_written(tmp_path):
    slot = files(tmp_path, GOOD + BAD + b"\0" * 100)
    reading = tail.read(slot, Position(), records_max=10)
    assert (reading.records, reading.end) == (1, Position(1, len(GOOD)))
    assert tail.read(slot, reading.end, records_max=10).records == 0


@pytest.mark.parametrize(
    "contents",
    [
        (GOOD + BAD + GOOD,),
        (GOOD + BAD, GOOD),
        (GOOD + GOOD[:-5], GOOD),
        (GOOD + b"zzzzzzzz {}\n" + GOOD,),
        (GOOD + encode_line(hold(1)).replace(b"gen-1", b"gen-2") + GOOD,),
    ],
)
def test_damage_before_the_end_is_told(tmp_path, contents):
    slot = files(tmp_path, *contents)
    with pytest.raises(JournalError, match="w1/00000001.journal at"):
        for _ in range(3):
            tail.read(slot, Position(), records_max=10)


def test_a_replaced_journal_is_told(tmp_path):
    """Peers row 17: a silent return, and nothing is ever written down."""
    slot = files(tmp_path, GOOD)
    with pytest.raises(JournalError, match="was the folder replaced"):
        tail.read(slot, Position(2, 0), records_max=10)
    with pytest.raises(JournalError, match="already ended"):
        tail.read(slot, Position(1, len(GOOD) + 1), records_max=10)


def test_what_is_posted_is_on_the_disk_first(tmp_path, monkeypatch):
    """A position behind the end of a journal that a power loss cut short would stop the slot for ever."""
    synced = []
    monkeypatch.setattr(tail.os, "fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    slot = files(tmp_path, GOOD, GOOD + GOOD)
    reading = tail.read(slot, Position(), records_max=10)
    assert reading.records == 3
    assert synced == [str(slot / segment_name(1)), str(slot / segment_name(2))]
    synced.clear()
    assert tail.read(slot, reading.end, records_max=10).records == 0
    assert not synced, "nothing new, nothing to sync"
