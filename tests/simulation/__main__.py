"""`python -m tests.simulation --seeds 0:200` runs seeds; a failing one is made small and shown with its last events.

`--seed 17 --without leaps --without vanish --calls 3,8` runs one that was made small, `--twice` checks that it repeats itself.
"""

import argparse
import sys
import time

from tests.simulation.options import CLASSES, Options
from tests.simulation.shrink import shrink
from tests.simulation.world import World

SHOWN_MAX = 10


def show(options: Options) -> None:
    """The run's problems and last events."""
    world = World(options)
    world.run()
    print(options.describe())
    print("\n".join(world.events))
    for problem in world.problems[:SHOWN_MAX]:
        print(f"  {problem[:1_000]}")
    print(f"again: python -m tests.simulation {options.arguments()}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="", help="a range, as 0:200")
    parser.add_argument("--seed", type=int, default=None, help="one seed, shown whatever comes of it")
    parser.add_argument("--without", action="append", default=[], choices=CLASSES, help="a class of faults to leave out")
    parser.add_argument("--calls", default="", help="numbers of the calls to make, as 3,8; default: all")
    parser.add_argument("--twice", action="store_true", help="run every seed twice and compare their events")
    parser.add_argument("--keep-whole", action="store_true", help="do not make failing seeds small")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        calls = tuple(int(call) for call in chosen.calls.split(",")) if chosen.calls else None
        show(Options(chosen.seed, tuple(chosen.without), calls))
        return 0
    first, _, last = (chosen.seeds or "0:100").partition(":")
    failed: list[int] = []
    began_s = time.monotonic()
    crashes = calls = 0
    for seed in range(int(first), int(last)):
        options = Options(seed, tuple(chosen.without))
        world = World(options)
        world.run()
        crashes += world.crashes
        calls += len(world.callers)
        repeats = True
        if chosen.twice:
            again = World(options)
            again.run()
            repeats = again.digest == world.digest
            if not repeats:
                print(f"seed {seed} does not repeat itself")
        if not world.problems and repeats:
            continue
        failed.append(seed)
        print(f"seed {seed} fails: {world.problems[:1]}")
        if world.problems and not chosen.keep_whole:
            show(shrink(options, lambda text: print(f"  {text}")))
    took_s = time.monotonic() - began_s
    count = int(last) - int(first)
    print(f"{count} seeds, {calls} calls, {crashes} processes ended, {took_s:.0f} s ({count / took_s:.1f} seeds/s)")
    print(f"failed: {failed}" if failed else "every one exact")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
