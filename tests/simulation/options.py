"""What is on in one run: drawn from its seed (a swarm: each run has some faults often and others not at all), and its cut-downs.

Every draw is made from the seed and a name, never from what was drawn before: taking a fault class or a call away leaves the
rest as it was, which is what shrinking needs.
"""

import random
from functools import lru_cache

import msgspec

CLASSES: tuple[str, ...] = (
    # what providers do
    "refusals",  # 429 with and without Retry-After, 500, 503, 529
    "resets",  # a reset before the head, in the middle
    "cuts",  # an end at any byte
    "silence",  # no head until the time-out
    "stalls",  # a stream that stops and stays open
    "slow",  # late first tokens, pauses between tokens
    "errors",  # error events before and after content, errors with status 200
    "garbage",  # events that are not JSON, HTML pages, a missing end
    "usage",  # usage missing, twice, absurd
    "prefills",  # the beginning of an answer, refused or repeated
    "escalation",  # policies whose first model's answer may not do
    "bytes",  # odd framing: compressed, split, trailers, CR LF, comments
    # the way there
    "dial",  # names not found, connections refused, packets lost
    "fragments",  # pieces of any size
    # what callers do
    "vanish",
    "readers",  # who take their bytes late
    "rush",  # many calls at the same moments
    # processes and machines
    "worker_crash",
    "bookkeeper_crash",
    "torn",  # a crash may leave half a line
    "machine",  # everything is killed at once
    "restarts",  # clean ends and new beginnings, with other prices
    "store_slow",
    "store_away",
    "lost_ack",  # the commit came through, its answer did not
    "disk_full",
    "skew",  # wall clocks of processes differ
    # business
    "scarce",  # balances and budgets that run low
    "prices",  # other prices while calls are under way
    "fallbacks",  # other models to go on with, wishes about providers
    "changes",  # keys revoked, accounts suspended, credit added, limits moved
    "hedging",  # a second provider beside a late one
    "own_keys",  # customers with keys of their own at providers, the first few calls by them free
    "probes",  # providers that are asked how they are, and are down for seconds
    "leaps",  # hours and days in which nothing runs: day, month and budget windows end
)
SHARE = 0.4
"""How likely a class is on."""
CALLS = (6, 28)
RATES = (0.08, 0.2, 0.45)
CRASH_RATES = (0.002, 0.006, 0.02)


@lru_cache(maxsize=16)
def _classes(seed: int, without: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        name for name in CLASSES if name not in without and random.Random(f"{seed}/class {name}").random() < SHARE
    )


class Options(msgspec.Struct, frozen=True):
    """One run."""

    seed: int
    without: tuple[str, ...] = ()
    """Classes taken away from what the seed draws."""
    only_calls: tuple[int, ...] | None = None
    """The calls that are made, by number; None: all."""

    def random(self, name: str) -> random.Random:
        """The chance that belongs to one thing."""
        return random.Random(f"{self.seed}/{name}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The fault classes that are on."""
        return _classes(self.seed, self.without)

    @property
    def call_count(self) -> int:
        return self.random("call count").randint(*CALLS)

    @property
    def calls(self) -> tuple[int, ...]:
        every = range(self.call_count)
        return tuple(every) if self.only_calls is None else tuple(call for call in self.only_calls if call in every)

    @property
    def workers(self) -> int:
        return self.random("workers").choice((1, 1, 2, 3))

    def rate(self, name: str) -> float:
        """How often a class of faults strikes, per call and attempt."""
        return self.random(f"rate {name}").choice(RATES) if name in self.classes else 0.0

    def crash_rate(self, name: str) -> float:
        """The same per place at which a process can die, or per transaction."""
        return self.random(f"rate {name}").choice(CRASH_RATES) if name in self.classes else 0.0

    @property
    def shuffled(self) -> bool:
        return self.random("shuffled").random() < 0.8

    def describe(self) -> str:
        cut = f", without {' '.join(self.without)}" if self.without else ""
        calls = f"{len(self.calls)} of {self.call_count} calls" if self.only_calls is not None else f"{self.call_count} calls"
        return f"seed {self.seed}: {calls}, {self.workers} workers, {' '.join(self.classes) or 'no faults'}{cut}"

    def arguments(self) -> str:
        """The command line that runs this again."""
        words = [f"--seed {self.seed}", *(f"--without {name}" for name in self.without)]
        if self.only_calls is not None:
            words.append(f"--calls {','.join(map(str, self.calls))}")
        return " ".join(words)
