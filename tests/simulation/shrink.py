"""Making a failing run small: fault classes and calls are taken away as long as it still fails."""

from collections.abc import Callable

import msgspec

from tests.simulation.options import Options
from tests.simulation.world import World

TRIES_MAX = 150


def problems(options: Options) -> list[str]:
    """What is wrong with one run; a crash of the simulation itself counts."""
    try:
        return World(options).run()
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def shrink(options: Options, say: Callable[[str], None] = lambda _: None) -> Options:
    """The smallest run found of those that fail; every draw hangs on its own name, so what is left stays as it was."""
    tries = 0

    def fails(smaller: Options) -> bool:
        nonlocal tries
        tries += 1
        return tries <= TRIES_MAX and bool(problems(smaller))

    for name in options.classes:
        smaller = msgspec.structs.replace(options, without=(*options.without, name))
        if fails(smaller):
            options = smaller
            say(f"without {name}: {len(options.classes)} classes left")
    size = max(1, len(options.calls) // 2)
    while size:
        kept = options.calls
        for start in range(0, len(kept), size):
            left = tuple(call for call in options.calls if call not in kept[start : start + size])
            smaller = msgspec.structs.replace(options, only_calls=left)
            if len(left) < len(options.calls) and fails(smaller):
                options = smaller
                say(f"{len(left)} calls left")
        size //= 2
    return options
