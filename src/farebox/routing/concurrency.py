"""How many calls a provider's key takes at a time, learned from its refusals: additive increase, multiplicative decrease. Pure.

There is no limit until the provider says 429 for the first time. Then it is a part of what was in flight at that moment, and
grows by one each time that many calls were answered (https://www.rfc-editor.org/rfc/rfc5681 has the same rule for TCP).
"""

from typing import Final

DECREASE_PERCENT: Final = 70
FORGET_US: Final = 600_000_000
"""Without a refusal for so long the provider's limit is unknown again."""
HOLD_US: Final = 1_000_000
"""Refusals within this time of the last decrease are of the same moment: they do not decrease again."""


class Concurrency:
    """One key's calls in flight and their limit."""

    __slots__ = ("_answered", "_decreased_us", "_refused_us", "in_flight", "limit")

    def __init__(self) -> None:
        self.in_flight = 0
        self.limit: int | None = None
        self._answered = 0
        self._decreased_us = 0
        self._refused_us = 0

    @property
    def full(self) -> bool:
        return self.limit is not None and self.in_flight >= self.limit

    def started(self) -> None:
        self.in_flight += 1

    def ended(self) -> None:
        assert self.in_flight > 0, "an attempt ends once"
        self.in_flight -= 1

    def answered(self, now_us: int) -> bool:
        """A call was answered in full. True: the limit is unknown again."""
        if self.limit is None:
            return False
        if now_us - self._refused_us >= FORGET_US:
            self.limit = None
            return True
        self._answered += 1
        if self._answered >= self.limit:
            self._answered = 0
            self.limit += 1
        return False

    def refused(self, now_us: int) -> None:
        """A 429, told before `ended`: the refused call still counts as in flight."""
        self._refused_us = now_us
        if self.limit is not None and now_us - self._decreased_us < HOLD_US:
            return
        base = self.in_flight if self.limit is None else min(self.limit, self.in_flight)
        self.limit = max(base * DECREASE_PERCENT // 100, 1)
        self._decreased_us = now_us
        self._answered = 0
