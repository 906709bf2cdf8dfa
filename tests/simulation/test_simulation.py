"""Seeds: each is a whole gateway, its customers and its providers under faults of its own, and must leave exact books.

`python -m tests.simulation --seeds 17:18` replays one, and shows its last events.
"""

import os
import time

import pytest

from tests.simulation.options import Options
from tests.simulation.world import World

FULL = bool(os.environ.get("FAREBOX_FULL"))
SEEDS = 80
FRESH = time.time_ns() % 10**12


def run(seed: int) -> World:
    world = World(Options(seed))
    world.run()
    events = "\n".join(world.events)
    assert not world.problems, f"{world.options.describe()}\n" + "\n".join(world.problems) + f"\n{events}"
    return world


@pytest.mark.parametrize("start", range(0, SEEDS, 20))
def test_the_books_are_exact_whatever_happens(start: int) -> None:
    for seed in range(start, start + 20):
        run(seed)


def test_a_fresh_seed(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nfresh seed {FRESH}")
    run(FRESH)


@pytest.mark.parametrize("seed", range(900, 906))
def test_a_seed_decides_everything(seed: int) -> None:
    assert run(seed).digest == run(seed).digest
