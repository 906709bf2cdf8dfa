"""The retry budget: a worker's retries are bounded by its calls, so that a provider's bad hour is not made worse. Pure.

Every call adds a part of a retry, every retry takes a whole one; a small floor lets quiet gateways retry, too. What was added is
forgotten after a while (Finagle: https://finagle.github.io/blog/2016/02/08/retry-budgets).
"""

from collections import deque
from typing import Final

WINDOW_US: Final = 10_000_000
BUCKET_US: Final = 1_000_000


class RetryBudget:
    """Retries of the last ten seconds against calls of the last ten seconds."""

    __slots__ = ("_buckets", "floor_per_s", "percent", "refused")

    def __init__(self, *, percent: int, floor_per_s: int) -> None:
        self.percent = percent
        self.floor_per_s = floor_per_s
        self.refused = 0
        self._buckets: deque[list[int]] = deque()
        """`[second, calls, retries]`, oldest first."""

    def called(self, now_us: int) -> None:
        self._bucket(now_us)[1] += 1

    def take(self, now_us: int) -> bool:
        """Take a retry, or be told that there is none left."""
        newest = self._bucket(now_us)
        calls = sum(bucket[1] for bucket in self._buckets)
        retries = sum(bucket[2] for bucket in self._buckets)
        allowed = calls * self.percent // 100 + self.floor_per_s * (WINDOW_US // 1_000_000)
        if retries >= allowed:
            self.refused += 1
            return False
        newest[2] += 1
        return True

    def _bucket(self, now_us: int) -> list[int]:
        number = now_us // BUCKET_US
        buckets = self._buckets
        if not buckets or buckets[-1][0] < number:
            buckets.append([number, 0, 0])
            oldest = number - WINDOW_US // BUCKET_US + 1
            while buckets[0][0] < oldest:
                buckets.popleft()
        return buckets[-1]
