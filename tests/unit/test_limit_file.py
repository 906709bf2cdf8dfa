"""Rate limits that processes share: exact over all of them, and none of them can keep the others out by dying."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farebox.gate import limit_file
from farebox.gate.limit_table import table_bytes
from farebox.gate.limiter import Admission, Holder
from farebox.gate.limits import Limits

WORKERS = 3
MANY = """
import json, sys
from pathlib import Path
from farebox.gate import limit_file
from farebox.gate.limiter import Admission, Holder
from farebox.gate.limits import Limits
path, worker = Path(sys.argv[1]), int(sys.argv[2])
limiter = limit_file.open_limiter(path, workers=3, worker=worker)
account = Holder("account:a", "a", Limits(requests_per_minute=6_000, tokens_per_minute=300_000, concurrent_calls=40))
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
let_in = 0
for _ in range(8_000):
    found = limiter.admit([account], 50, 1_000_000)
    if isinstance(found, Admission):
        let_in += 1
        found.release(50, 1_000_000)
print(json.dumps(let_in))
"""
HOLD = """
import sys
from pathlib import Path
from farebox.gate import limit_file
table, lock = limit_file.open_table(Path(sys.argv[1]), workers=3, worker=1)
lock.acquire()
sys.stdout.write("held\\n"); sys.stdout.flush(); sys.stdin.readline()
"""


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("ready", "held")
    return process


def test_limits_are_exact_over_processes(tmp_path: Path) -> None:
    """Three at once ask for four times what there is, at one moment: what they get in all is what there is, to the last one."""
    path = limit_file.make(tmp_path, workers=WORKERS)
    racing = [start(MANY, path, worker) for worker in range(WORKERS)]
    told = [process.communicate("go\n", timeout=60)[0] for process in racing]
    let_in = [json.loads(text) for text in told]
    assert sum(let_in) == 6_000, let_in
    table, _ = limit_file.open_table(path, workers=WORKERS, worker=0)
    assert not any(table.cells[table.own :].tolist()), "nobody is in flight"


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = limit_file.make(tmp_path, workers=WORKERS)
    holder = start(HOLD, path)
    other = os.open(path, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=10)
    began = time.monotonic()
    limiter = limit_file.open_limiter(path, workers=WORKERS, worker=0)
    assert isinstance(limiter.admit([Holder("key:k", "k", Limits(requests_per_minute=1))], 0, 1_000_000), Admission)
    assert time.monotonic() - began < 0.5


def test_a_holder_that_is_stopped_keeps_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_file, "TRIES_MAX", 20)
    path = limit_file.make(tmp_path, workers=WORKERS)
    holder = start(HOLD, path)
    try:
        limiter = limit_file.open_limiter(path, workers=WORKERS, worker=0)
        assert isinstance(limiter.admit([Holder("key:k", "k", Limits(requests_per_minute=1))], 0, 1_000_000), Admission)
    finally:
        holder.communicate("\n", timeout=10)


def test_places_of_the_dead_are_forgotten_and_what_was_taken_is_not(tmp_path: Path) -> None:
    path = limit_file.make(tmp_path, workers=2)
    key = Holder("key:k", "k", Limits(requests_per_minute=10, concurrent_calls=3))
    for _ in range(3):
        limit_file.open_limiter(path, workers=2, worker=0).admit([key], 0, 1_000_000)
    # Each opening was a new life of worker 0, so only the last call's place is taken.
    survivor = limit_file.open_limiter(path, workers=2, worker=1)
    assert all(isinstance(survivor.admit([key], 0, 1_000_000), Admission) for _ in range(2))
    assert not isinstance(survivor.admit([key], 0, 1_000_000), Admission)
    limit_file.forget(path, workers=2, worker=0)
    assert isinstance(survivor.admit([key], 0, 1_000_000), Admission)
    assert survivor.standing([key], 1_000_000).requests_left == 4


def test_the_room_on_the_disk_is_taken_at_once(tmp_path: Path) -> None:
    """Else a full disk would end a worker in the middle of a call."""
    made = limit_file.make(tmp_path, workers=2).stat()
    assert made.st_blocks * 512 >= made.st_size == table_bytes(2)


def test_a_new_start_begins_with_an_empty_file(tmp_path: Path) -> None:
    """Its moments are those of a clock that starts with the machine: an old one's would lie in the future."""
    for _ in range(2):
        limiter = limit_file.open_limiter(limit_file.make(tmp_path, workers=1), workers=1, worker=0)
        key = Holder("key:k", "k", Limits(requests_per_minute=1))
        assert isinstance(limiter.admit([key], 0, 10**12), Admission)
        assert not isinstance(limiter.admit([key], 0, 10**12), Admission)
