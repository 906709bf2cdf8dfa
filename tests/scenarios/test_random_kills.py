"""Anything may be killed at any moment: worker, bookkeeper, supervisor, all of them. See `tests/support/killing.py`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.callers import Load
from tests.support.killing import CALLERS, FULL, SEED, Bench, bench_in, choose, reconciled
from tests.support.running import wait_until

ANSWERS_BETWEEN_KILLS = (5, 60)
TARGETS = ("all", "worker", "bookkeeper", "supervisor")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path) as found:
        yield found


def test_random_kills(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    """Anything may be killed at any moment."""
    kills = int(os.environ.get("FAREBOX_KILLS", "0")) or (80 if FULL else 5)
    bench.box.start()
    with Load(bench.box.port, bench.box.key, choose, CALLERS, SEED) as load:
        for number in range(kills):
            wanted = load.answered + bench.chance.randint(*ANSWERS_BETWEEN_KILLS)
            wait_until(lambda wanted=wanted: load.answered >= wanted, "callers get answers", timeout_s=45)
            bench.kill(TARGETS[number % len(TARGETS)], load)
            bench.check_ledger()
    record_property("figures", reconciled(bench, load.fates))
