"""Rolling measurements with bounded memory: counts by five minutes for a day, and histograms for half an hour. Pure.

Histograms have logarithmic bins, eight to a factor of two, so a percentile is off by at most 5 %; that is much less than it
changes from minute to minute.
"""

from collections import deque
from collections.abc import Iterable
from math import log2
from typing import Final

from farebox.routing.preferences import Percentiles

BUCKET_US: Final = 300_000_000
DAY_BUCKETS: Final = 288
BINS_PER_DOUBLING: Final = 8
BIN_MAX: Final = 8 * 30
"""Values above 2³⁰ count as that."""
HALF_HOUR_BUCKETS: Final = 6


class Counts:
    """Successes and failures of a day."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: deque[list[int]] = deque(maxlen=DAY_BUCKETS)

    def add(self, now_us: int, *, succeeded: bool) -> None:
        bucket = now_us // BUCKET_US
        buckets = self._buckets
        if not buckets or buckets[-1][0] != bucket:
            buckets.append([bucket, 0, 0])
        buckets[-1][1 if succeeded else 2] += 1

    def since(self, start_us: int) -> tuple[int, int]:
        """Succeeded and failed, in the buckets that reach beyond a moment."""
        first = start_us // BUCKET_US
        succeeded = failed = 0
        for bucket, good, bad in reversed(self._buckets):
            if bucket < first:
                break
            succeeded += good
            failed += bad
        return succeeded, failed


def bin_of(value: float) -> int:
    """The bin of a positive value; everything below 1 is in the first."""
    return 0 if value < 1 else min(int(log2(value) * BINS_PER_DOUBLING), BIN_MAX)


def value_of(bin_number: int) -> float:
    """The middle of a bin."""
    return 2 ** ((bin_number + 0.5) / BINS_PER_DOUBLING)


class Histogram:
    """Half an hour's values, such as milliseconds to the first token."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, dict[int, int]]] = deque(maxlen=HALF_HOUR_BUCKETS)

    def add(self, now_us: int, value: float) -> None:
        bucket = now_us // BUCKET_US
        buckets = self._buckets
        if not buckets or buckets[-1][0] != bucket:
            buckets.append((bucket, {}))
        bins = buckets[-1][1]
        number = bin_of(value)
        bins[number] = bins.get(number, 0) + 1

    def bins(self, now_us: int) -> dict[int, int]:
        """The last half hour's counts by bin."""
        first = now_us // BUCKET_US - HALF_HOUR_BUCKETS + 1
        found: dict[int, int] = {}
        for bucket, bins in self._buckets:
            if bucket >= first:
                for number, count in bins.items():
                    found[number] = found.get(number, 0) + count
        return found


def merged(parts: Iterable[dict[int, int]]) -> dict[int, int]:
    """Bins of several places or processes together."""
    found: dict[int, int] = {}
    for bins in parts:
        for number, count in bins.items():
            found[number] = found.get(number, 0) + count
    return found


def percentiles(bins: dict[int, int]) -> Percentiles | None:
    """The percentiles of a histogram; None when it is empty."""
    total = sum(bins.values())
    if not total:
        return None
    found: list[float] = []
    wanted = [total * share // 100 for share in (50, 75, 90, 99)]
    seen = 0
    for number in sorted(bins):
        seen += bins[number]
        while len(found) < len(wanted) and seen > wanted[len(found)]:
            found.append(value_of(number))
    while len(found) < len(wanted):
        found.append(value_of(max(bins)))
    return Percentiles(*found)
