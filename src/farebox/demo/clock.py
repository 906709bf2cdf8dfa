"""A wall clock that is moved through a month, and goes on from there at its usual pace."""

from farebox.ports import Clock

HOUSE_US = 120_000_000
"""What a bookkeeper's round takes by its own clock: so that each looks at everything."""


class MonthClock:
    """What is dated goes by the month; what is measured (time-outs, pauses, rates) goes by the machine."""

    def __init__(self, real: Clock, start_us: int) -> None:
        self._real = real
        self._ahead_us = start_us - real.now_us()

    def now_us(self) -> int:
        return self._real.now_us() + self._ahead_us

    def monotonic_us(self) -> int:
        return self._real.monotonic_us()

    def move_to(self, us: int) -> None:
        """Time never goes back: a moment that has passed already leaves it where it is."""
        self._ahead_us += max(us - self.now_us(), 0)


class HouseClock:
    """The bookkeeper's: the same wall clock, but whatever is due every so often is due in every round."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passed_us = 0

    def now_us(self) -> int:
        return self._clock.now_us()

    def monotonic_us(self) -> int:
        self._passed_us += HOUSE_US
        return self._passed_us
