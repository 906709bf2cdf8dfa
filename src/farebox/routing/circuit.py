"""A circuit: whether an offer that has been failing is left alone for a while, and when it is tried again. Pure.

It opens on failures in a row, or on a bad share of many within a window; it stays open longer each time; then one call, the
probe, may pass, and its end decides. Values after Envoy's outlier detection
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier).
"""

from collections import deque
from typing import Final

from farebox.routing.health_rules import Rules

BUCKET_US: Final = 5_000_000
"""How exactly the window slides."""
CLAIM_US: Final = 1_000_000
"""How long a call that is to be the probe may take to leave: then another one may be it."""


class Circuit:
    """One offer's. Attempts are told of with the time they started, so that what left before the circuit opened, and comes
    back late, decides nothing."""

    __slots__ = ("_claimed", "_closed_us", "_row", "_window", "open_until_us", "opened", "opened_us", "probe_us")

    def __init__(self) -> None:
        self.opened = 0
        """How often in a row it opened without having been healthy for long in between; what the time out grows by."""
        self.open_until_us = 0
        """0 = closed; until then nothing passes, and behind it one probe."""
        self.opened_us = 0
        self.probe_us = 0
        """When the probe under way started; 0 = none."""
        self._claimed = False
        """A call is planned that is to be the probe: it does not wait for `open_until_us`, others do."""
        self._closed_us = 0
        self._row = 0
        self._window: deque[list[int]] = deque()
        """`[bucket, succeeded, failed]`, oldest first; no more than the window has buckets."""

    @property
    def closed(self) -> bool:
        return not self.open_until_us

    def passes(self, now_us: int) -> bool:
        """Whether a call may be sent now; with an open circuit, as its probe."""
        return not self.open_until_us or (now_us >= self.open_until_us and not self.probe_us)

    def claim(self, now_us: int) -> bool:
        """The next call that is sent is to be the probe, if one is due: nobody else is planned to go here until it has left."""
        if not self.open_until_us or now_us < self.open_until_us or self.probe_us:
            return False
        self.open_until_us = now_us + CLAIM_US
        self._claimed = True
        return True

    def started(self, now_us: int) -> bool:
        """A call is sent; whether it is the probe."""
        if self.open_until_us and (now_us >= self.open_until_us or self._claimed) and not self.probe_us:
            self.probe_us = now_us
            # The time of a claim was for the call to leave: should it say nothing, the next one need not wait for the rest.
            self.open_until_us = min(self.open_until_us, now_us)
            self._claimed = False
            return True
        return False

    def due(self, now_us: int) -> bool:
        """Somebody has seen that it is well again: the time out is over, and the next call is its probe. Whether it was out."""
        if self.open_until_us <= now_us:
            return False
        self.open_until_us = now_us
        return True

    def stays_out(self, now_us: int, rules: Rules) -> bool:
        """Somebody has seen that it is still down: it stays out for as long as a first time out, since that may be seen again
        before. Whether it was due already."""
        due = now_us >= self.open_until_us
        self._claimed = False
        self.open_until_us = max(self.open_until_us, now_us + rules.ejection_us)
        return due

    def forget_probe(self, started_us: int) -> None:
        """The probe ended without saying anything, such as a caller who left: the next call is the probe."""
        if self.probe_us and started_us >= self.probe_us:
            self.probe_us = 0

    def answers(self, started_us: int, now_us: int) -> bool:
        """An attempt has brought content; whether that closed the circuit. A probe that is a long stream would keep everybody
        away until its end; how it ends counts as any attempt's."""
        if not self.open_until_us or not self.probe_us or started_us < self.probe_us:
            return False
        self.open_until_us = self.probe_us = self._row = 0
        self._closed_us = now_us
        self._window.clear()
        return True

    def succeeded(self, started_us: int, now_us: int, rules: Rules) -> bool:
        """An attempt ended well; whether that closed the circuit."""
        if self.open_until_us:
            return self.answers(started_us, now_us)
        self._row = 0
        self._count(now_us, rules, 1)
        return False

    def failed(self, started_us: int, now_us: int, rules: Rules) -> bool:
        """An attempt failed; whether that opened the circuit, or opened it again."""
        if self.open_until_us:
            if not self.probe_us or started_us < self.probe_us:
                return False
            self._open(now_us, rules)
            return True
        self._row += 1
        self._count(now_us, rules, 2)
        failed = sum(bucket[2] for bucket in self._window)
        total = failed + sum(bucket[1] for bucket in self._window)
        bad_share = total >= rules.samples_min and failed * 100 >= total * rules.failed_share_percent
        if self._row < rules.failures_in_a_row and not bad_share:
            return False
        self._open(now_us, rules)
        return True

    def _open(self, now_us: int, rules: Rules) -> None:
        if self._closed_us:
            # Each healthy while of a time out's length takes one from the count.
            healthy = (now_us - self._closed_us) // rules.ejection_us
            self.opened = max(self.opened - healthy, 0)
        self.opened += 1
        self.opened_us = now_us
        self.open_until_us = now_us + min(rules.ejection_us * self.opened, rules.ejection_max_us)
        self.probe_us = self._row = self._closed_us = 0
        self._claimed = False
        self._window.clear()

    def _count(self, now_us: int, rules: Rules, place: int) -> None:
        bucket = now_us // BUCKET_US
        window = self._window
        if not window or window[-1][0] != bucket:
            window.append([bucket, 0, 0])
            oldest = (now_us - rules.window_us) // BUCKET_US
            while window[0][0] < oldest:
                window.popleft()
        window[-1][place] += 1
