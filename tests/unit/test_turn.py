"""What leaves at the end of a turn, and in which order."""

import asyncio
from pathlib import Path

import pytest

from farebox.billing.journal import Journal, JournalError, read_all
from farebox.billing.records import Opened
from farebox.turn import TURN_BYTES_MAX, Turn


class Sink:
    """A connection that writes down what it is given, in one story with the journal."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.story.append(f"{self.name} aborted")

    def write(self, data: bytes) -> None:
        if data == b"bad":
            raise OSError("no such connection")
        self.story.append(f"{self.name}: {data[:9].decode()}")


async def turn_over() -> None:
    await asyncio.sleep(0)


async def test_records_first_then_bytes_in_their_order() -> None:
    story: list[str] = []
    turn = Turn(lambda: story.append("records"), story.append)
    first, second = Sink("a", story), Sink("b", story)
    turn.send(first, b"1")
    turn.send(second, b"2")
    turn.send(first, b"3")
    assert story == [] and turn.number == 0, "nothing leaves within the turn"
    await turn_over()
    assert story == ["records", "turn.after_commit", "a: 1", "b: 2", "a: 3", "turn.after_send"] and turn.number == 1
    await turn_over()
    assert turn.number == 1, "a turn without anything to say does not end"


async def test_records_alone_are_written_too() -> None:
    story: list[str] = []
    turn = Turn(lambda: story.append("records"))
    turn.end_soon()
    turn.end_soon()
    await turn_over()
    assert story == ["records"]


async def test_a_connection_that_closed_meanwhile_gets_nothing() -> None:
    story: list[str] = []
    turn = Turn()
    gone, here = Sink("gone", story), Sink("here", story)
    turn.send(gone, b"1")
    turn.send(here, b"2")
    gone.closing = True
    await turn_over()
    assert story == ["here: 2"]


async def test_one_connection_that_fails_keeps_nobody_elses_bytes() -> None:
    story: list[str] = []
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    turn = Turn()
    turn.send(Sink("bad", story), b"bad")
    turn.send(Sink("good", story), b"1")
    await turn_over()
    assert story == ["bad aborted", "good: 1"] and told == ["a connection did not take its bytes"]


async def test_a_turn_with_much_to_say_ends_early() -> None:
    """Else a sender that never waits would fill the memory before it learns that nobody reads."""
    story: list[str] = []
    turn = Turn(lambda: story.append("records"))
    sink = Sink("a", story)
    turn.send(sink, b"x" * TURN_BYTES_MAX)
    assert story == []
    turn.send(sink, b"y")
    assert story == ["records", "a: xxxxxxxxx", "a: y"]
    turn.send(sink, b"z")
    await turn_over()
    assert story[3:] == ["records", "a: z"]


async def test_a_journal_in_a_group_writes_once_per_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    journal = Journal(tmp_path / "w0", sync="os")
    journal.write(Opened("life-0", 1))
    written: list[int] = []
    pwrite = os.pwrite

    def count(fd: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        # A write may be cut short; the rest follows.
        return pwrite(fd, data[: max(len(data) // 2, 1)], offset)

    monkeypatch.setattr(os, "pwrite", count)
    turn = Turn(journal.commit)
    journal.group = turn.end_soon
    wanted = [Opened("life-0", 1), *(Opened(f"life-{n}", n) for n in range(1, 40))]
    for record in wanted[1:]:
        journal.write(record)
    assert written == [] and list(read_all(tmp_path / "w0")) == wanted[:1]
    await turn_over()
    assert list(read_all(tmp_path / "w0")) == wanted
    assert written == sorted(written, reverse=True), "one write, and what it left over"
    journal.close()


async def test_a_segment_ends_behind_what_its_group_still_had(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w0", sync="os", segment_bytes_max=4096)
    turn = Turn(journal.commit)
    journal.group = turn.end_soon
    wanted = [Opened(f"life-{n}" + "x" * 200, n) for n in range(100)]
    for record in wanted:
        journal.write(record)
    journal.close()
    assert list(read_all(tmp_path / "w0")) == wanted
    with pytest.raises(JournalError, match="closed"):
        journal.write(wanted[0])


async def test_a_disk_that_fails_where_a_segment_ends_is_told_to_whom_it_concerns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of an innocent call may be what ends the segment: it must not pass for refused."""
    import os

    journal = Journal(tmp_path / "w0", sync="os", segment_bytes_max=4096)
    told: list[OSError] = []
    journal.on_broken = told.append
    turn = Turn(journal.commit)
    journal.group = turn.end_soon

    def broken(_fd: int, _data: bytes, _offset: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match="Input/output"):
        for n in range(100):
            journal.write(Opened(f"life-{n}" + "x" * 200, n))
    assert len(told) == 1
