"""When to try again, and where: pure decisions between attempts, before any content has reached the client.

Another offer comes first, at once. When every offer that may be asked has been, the one whose turn comes soonest is asked
again, after full-jitter exponential back-off (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) or after
what it asked for; never past the call's deadline, and none more often than `per_offer_max`.
"""

from collections.abc import Iterable, Sequence

import msgspec

RETRYABLE_STATUS = frozenset({408, 409, 429, 498, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that another try, here or elsewhere, may cure. 498: Groq's flex capacity; 52x: proxies in front of providers."""
RETRY_AFTER_MAX_US = 20_000_000
"""A provider that asks for a longer wait is not waited for."""


class Policy(msgspec.Struct, frozen=True):
    """How often and how patiently."""

    attempts_max: int
    """Of one call, over all offers."""
    backoff_ms: int
    backoff_max_ms: int
    per_offer_max: int = 3


class Next(msgspec.Struct, frozen=True):
    """The next attempt: which candidate of the plan, after how long."""

    candidate: int
    wait_s: float


class Tries:
    """What one call has tried so far. Candidates are their places in the plan; times are monotonic, in microseconds."""

    __slots__ = ("_asked", "_barred", "_not_before_us")

    def __init__(self) -> None:
        self._asked: dict[int, int] = {}
        """How often each was asked."""
        self._barred: set[int] = set()
        self._not_before_us: dict[int, int] = {}

    def failed(self, candidate: int, now_us: int, *, retry_after_s: float | None = None, barred: Iterable[int] = ()) -> None:
        """An attempt failed; `barred` are the candidates that would fail as well, and are not asked (again)."""
        self._asked[candidate] = self._asked.get(candidate, 0) + 1
        self._barred.update(barred)
        if retry_after_s is None:
            self._not_before_us.pop(candidate, None)
        else:
            self._not_before_us[candidate] = now_us + int(retry_after_s * 1_000_000)

    def pass_over(self, candidate: int) -> None:
        """This one cannot be asked: nothing was tried."""
        self._barred.add(candidate)

    def following(
        self, able: Sequence[int], policy: Policy, *, attempts: int, now_us: int, deadline_us: int, chance: float
    ) -> Next | None:
        """The next attempt after so many in all, or None to give up. `able`: the candidates in question, in the order of the
        plan; `chance` in [0, 1)."""
        if attempts >= policy.attempts_max or now_us >= deadline_us:
            return None
        soonest: tuple[int, int] | None = None
        for index in able:
            if index in self._barred:
                continue
            asked = self._asked.get(index, 0)
            if not asked:
                return Next(index, 0.0)
            if asked >= policy.per_offer_max:
                continue
            ceiling_us = min(policy.backoff_ms << (asked - 1), policy.backoff_max_ms) * 1_000
            told_us = self._not_before_us.get(index)
            wait_us = max(int(ceiling_us * chance), 0 if told_us is None else told_us - now_us)
            if wait_us > RETRY_AFTER_MAX_US or now_us + wait_us >= deadline_us:
                continue
            if soonest is None or wait_us < soonest[0]:
                soonest = (wait_us, index)
        return None if soonest is None else Next(soonest[1], soonest[0] / 1_000_000)
