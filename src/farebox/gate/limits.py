"""Rate limits: GCRA and a count of calls in flight, in memory, per key. Pure: the time is an argument.

GCRA (the generic cell rate algorithm, ITU-T I.371) keeps one number per bucket, the theoretical arrival time. A minute's
allowance may come at once, and flows back evenly: a burst after a quiet minute, and the minute that it opens, pass at most twice
the limit; on average it holds exactly. All buckets of a call are taken together or not at all.
"""

import msgspec

BUCKETS_MAX = 100_000
"""Remembered keys; beyond it the buckets that are idle are forgotten, which loses nothing."""

_US_PER_MINUTE = 60_000_000


class Limits(msgspec.Struct, frozen=True):
    """What one key may do."""

    requests_per_minute: int
    concurrent_calls: int


class Refusal(msgspec.Struct, frozen=True):
    """Which limit said no, and when it frees."""

    limit: str
    maximum: int
    retry_after_s: int


class Bucket:
    """One key's state."""

    __slots__ = ("arrival_us", "in_flight")

    def __init__(self) -> None:
        self.arrival_us = 0
        self.in_flight = 0


class Limiter:
    """Decides for every key; a call that was admitted must be released, whatever becomes of it."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def admit(self, key: str, limits: Limits, now_us: int) -> Bucket | Refusal:
        """A bucket to release later, or the refusal. A burst of a minute's worth of requests is allowed at once."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= BUCKETS_MAX:
                self._forget_idle(now_us)
            bucket = self._buckets[key] = Bucket()
        if bucket.in_flight >= limits.concurrent_calls:
            return Refusal("concurrent_calls", limits.concurrent_calls, 1)
        interval_us = _US_PER_MINUTE // limits.requests_per_minute or 1
        arrival_us = max(bucket.arrival_us, now_us)
        # Burst tolerance: a full minute's allowance minus the one request being taken.
        earliest_us = arrival_us - interval_us * (limits.requests_per_minute - 1)
        if earliest_us > now_us:
            return Refusal("requests_per_minute", limits.requests_per_minute, -(-(earliest_us - now_us) // 1_000_000))
        bucket.arrival_us = arrival_us + interval_us
        bucket.in_flight += 1
        return bucket

    @staticmethod
    def release(bucket: Bucket) -> None:
        """Give the concurrency slot back; exactly once per admission."""
        bucket.in_flight -= 1

    def _forget_idle(self, now_us: int) -> None:
        self._buckets = {key: b for key, b in self._buckets.items() if b.in_flight or b.arrival_us > now_us}
