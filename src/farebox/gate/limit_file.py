"""The cells of rate limits in a file that the workers of one machine share, and the lock around them.

The file is mapped into memory: what a worker writes, the others see, and a worker that is killed loses nothing of it. It is
made anew whenever the gateway starts, since its moments are those of a clock that starts with the machine. The lock is the
kernel's (`flock`), which a dead process cannot keep.
"""

import fcntl
import mmap
import os
import signal
from pathlib import Path

from farebox.gate.limit_table import LimitTable, table_bytes
from farebox.gate.limiter import Limiter, Lock

NAME = "limits"
TRIES_MAX = 10_000
"""How often a lock that somebody else has is tried for, about a second in all. Who keeps it for longer was stopped in the middle
of a decision, and does not keep the others from theirs."""
PAUSE_S = 0.00005


_TAKE = fcntl.LOCK_EX | fcntl.LOCK_NB
_LEAVE = fcntl.LOCK_UN


class FileLock:
    """Mutual exclusion of processes by `flock` on a descriptor of our own."""

    __slots__ = ("_file", "_flock")

    def __init__(self, file: int) -> None:
        self._file = file
        self._flock = fcntl.flock

    def acquire(self) -> None:
        try:
            self._flock(self._file, _TAKE)
        except BlockingIOError:
            self._wait()

    def release(self) -> None:
        self._flock(self._file, _LEAVE)

    def close(self) -> None:
        os.close(self._file)

    def _wait(self) -> None:
        for _ in range(TRIES_MAX):
            try:
                self._flock(self._file, _TAKE)
                return
            except BlockingIOError:
                signal.sigtimedwait([], PAUSE_S)


def make(run_dir: Path, *, workers: int) -> Path:
    """A new file for so many workers, all cells zero. Its room on the disk (11 MiB for one worker) is taken now: a write to
    mapped memory that finds none would end the process. Raises `OSError`."""
    path = run_dir / NAME
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, table_bytes(workers))
    finally:
        os.close(file)
    return path


def open_table(path: Path, *, workers: int, worker: int) -> tuple[LimitTable, FileLock]:
    """The cells of a file, and its lock as another process sees it."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    cells = memoryview(mmap.mmap(file, table_bytes(workers))).cast("q")
    return LimitTable(cells, workers=workers, worker=worker), FileLock(file)


def open_limiter(path: Path, *, workers: int, worker: int) -> Limiter:
    """The limiter of a worker that begins its life. It is alone when there is no other worker: then nobody is kept away."""
    table, lock = open_table(path, workers=workers, worker=worker)
    lock.acquire()
    table.forget_column(worker)
    lock.release()
    found: Lock | None = lock if workers > 1 else None
    return Limiter(table, found)


def forget(path: Path, *, workers: int, worker: int) -> None:
    """A worker has died: the places of its calls are free."""
    table, lock = open_table(path, workers=workers, worker=worker)
    lock.acquire()
    table.forget_column(worker)
    lock.release()
    # A supervisor that restarts workers for months must not collect descriptors.
    lock.close()
