"""What processes have used: run time of their threads in ns, resident memory in bytes. Linux, from /proc.

The run time is the scheduler's own (`/proc/PID/task/*/schedstat`). The ticks in `/proc/PID/stat` are sampled: work that is
done between two ticks, as a server's is, can be off by half there.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

PROC = Path("/proc")


class Usage(msgspec.Struct, frozen=True):
    """One process at one moment."""

    threads_ns: dict[int, int]
    """By thread id."""
    clock_ns: int
    """The process's CPU clock, which also knows of threads that have ended."""
    rss_bytes: int


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        for task in _tasks(one):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except FileNotFoundError:
                continue
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except FileNotFoundError:
        return []


def read(pids: Iterable[int]) -> dict[int, Usage]:
    """The usage of every process that is alive."""
    found: dict[int, Usage] = {}
    for pid in pids:
        threads: dict[int, int] = {}
        try:
            for task in _tasks(pid):
                try:
                    threads[int(task.name)] = int((task / "schedstat").read_text().split()[0])
                except FileNotFoundError:
                    continue
            # A process's CPU clock as clock_getcpuclockid(3) makes it: the complement of its id, and CPUCLOCK_SCHED.
            clock_ns = time.clock_gettime_ns((~pid << 3) | 2)
            found[pid] = Usage(threads, clock_ns, rss_bytes(pid))
        except (FileNotFoundError, ProcessLookupError, OSError):
            continue
    return found


def rss_bytes(pid: int) -> int:
    """Resident pages; those shared between processes count in each."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def private_bytes(pid: int) -> int:
    """The resident part that is not a file's: without code and the mapped journal, whose window fills and starts again."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def spent_ns(before: dict[int, Usage], after: dict[int, Usage]) -> dict[int, int]:
    """Run time between two readings, by process. Raises `ProcessLookupError` if one has ended: its share would be missing."""
    for pid in before:
        if pid not in after:
            raise ProcessLookupError(f"process {pid} ended while it was measured")
    return {pid: _between(before.get(pid), now) for pid, now in after.items()}


def _between(then: Usage | None, now: Usage) -> int:
    if then is None:
        return sum(now.threads_ns.values())
    if then.threads_ns.keys() <= now.threads_ns.keys():
        return sum(now.threads_ns.values()) - sum(then.threads_ns.values())
    return now.clock_ns - then.clock_ns  # a thread has ended and taken its schedstat along
