"""Death at each named place of the code, and during the recovery from it. See `tests/support/killing.py`."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.callers import Load
from tests.support.killing import CALLERS, FULL, SEED, Bench, bench_in, choose, reconciled
from tests.support.running import wait_until

from farebox.failpoints import POINTS

CALL_POINTS = tuple(point for point in POINTS if not point.startswith(("alert.", "card.", "reconcile.")))
"""Those on the way of a call and its record; the others have their own tests."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path) as found:
        yield found


def test_kill_at_every_fail_point(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    """Each named place once (in the full run thrice), and once more, everything, while that is being recovered."""
    box = bench.box
    box.start(wait=False)
    with Load(box.port, box.key, choose, CALLERS, SEED) as load:
        wait_until(lambda: load.answered > 10, "callers get answers", timeout_s=45)
        for point in CALL_POINTS * (3 if FULL else 1):
            box.kill()
            bench.note("all")
            victim = "bookkeeper" if point.startswith(("poster.", "seal.")) else "worker 0"
            visits = bench.chance.randint(1, 3 if victim == "bookkeeper" or point == "stream.after_checkpoint" else 30)
            death = f"{victim} ended with status -9"
            seen = box.log_text().count(death)
            box.start(environment={"FAREBOX_FAILPOINT": f"{point}:{visits}"}, wait=False)
            wait_until(
                lambda seen=seen, death=death: box.log_text().count(death) > seen, f"{victim} dies at {point}", timeout_s=45
            )
            bench.note(point)
        box.kill()
        bench.note("all")
        started = time.monotonic()
        box.start(wait=False)
        answered = load.answered
        wait_until(lambda: load.answered > answered + 20, f"answers after the last kill: {box.log()}", timeout_s=45)
        bench.first_answers_s.append(time.monotonic() - started)
    record_property("figures", reconciled(bench, load.fates))
