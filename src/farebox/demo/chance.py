"""Chance from a seed: the same numbers on every machine and with every version of Python."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")
_BITS = 53
"""What a float can hold exactly."""


class Dice:
    """A run of draws; `name` keeps the runs of one seed apart."""

    def __init__(self, seed: int, name: str) -> None:
        self._start = f"{seed}/{name}/"
        self._drawn = 0

    def below(self, limit: int) -> int:
        """An integer from 0 to `limit` - 1."""
        assert limit > 0, "there is something to draw from"
        self._drawn += 1
        drawn = blake2b(f"{self._start}{self._drawn}".encode(), digest_size=16).digest()
        return int.from_bytes(drawn, "big") % limit

    def uniform(self) -> float:
        """A number in [0, 1): `farebox.ports.Random`."""
        return self.below(2**_BITS) / 2**_BITS

    def between(self, low: int, high: int) -> int:
        """Both ends included."""
        return low + self.below(high - low + 1)

    def skewed(self, low: int, high: int) -> int:
        """As people's messages are: mostly near the low end, now and then up to the high one."""
        return low + (high - low) * self.below(1_000) ** 2 // 1_000**2

    def percent(self, chance: int) -> bool:
        """True in `chance` of 100 cases."""
        return self.below(100) < chance

    def weighted(self, values: Sequence[T], weights: Iterable[int]) -> T:
        """One of the values, by its share of the weights."""
        sums = list(accumulate(weights))
        drawn = self.below(sums[-1])
        return next(value for value, until in zip(values, sums, strict=True) if drawn < until)
