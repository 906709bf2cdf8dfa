"""The month's calls, as a seed wants them: offices open on weekdays, people go to lunch, jobs run at night, and one afternoon a
job runs away. Pure; the same seed, month and number give the same calls.
"""

import msgspec

from farebox.billing.books.periods import month_bounds
from farebox.demo.chance import Dice
from farebox.demo.organisation import KEYS, RUNAWAY
from farebox.simulator.words import digest, words

CALLS_MIN = 150
"""Fewer would not show every model, budget and fault."""
CALLS_MAX = 50_000
US_PER_S = 1_000_000
DAY_US = 86_400 * US_PER_S
_WEEKDAY, _WEEKEND = 100, 9
_OFFICE = (0, 0, 0, 0, 0, 1, 4, 20, 60, 95, 100, 90, 55, 70, 98, 95, 80, 50, 25, 14, 9, 6, 3, 1)
"""How busy the hours of a day (UTC) are."""
_NIGHT = (30, 60, 100, 80, 20, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_SPIKE_HOUR = 14
_SPIKE_WEEKDAY = 2
"""A Wednesday, in the month's third week: what is usual is known by then."""
_SPIKE_SHARE = 20
_SPIKE_CALLS_MIN = 25
_MISTYPED_PERCENT = 1
EACH = 2
"""Calls that every model of every key has at least."""


class Planned(msgspec.Struct, frozen=True):
    """One call to come."""

    at_us: int
    key: int
    """Index of `KEYS`."""
    model: str
    stream: bool
    tools: bool
    question: int
    """Words."""
    end_user: str
    number: int
    """Decides the words."""
    mistyped: bool = False

    @property
    def model_sent(self) -> str:
        """People mistype names; that is refused, and costs nothing."""
        return f"{self.model}-latest" if self.mistyped else self.model

    def text(self, seed: int) -> str:
        return "".join(words(digest(seed, b"question", self.number.to_bytes(8, "big")), self.question))


class Traffic(msgspec.Struct, frozen=True):
    """The calls in order, and the hour of the runaway job."""

    calls: tuple[Planned, ...]
    spike_us: int


def briefing(key: int, seed: int) -> str:
    """The instructions that all calls of a key begin with."""
    return "".join(words(digest(seed, b"briefing", key.to_bytes(2, "big")), KEYS[key].briefing))


def plan(month: str, calls: int, seed: int) -> Traffic:
    """So many calls over a UTC month such as `2026-10`."""
    assert CALLS_MIN <= calls <= CALLS_MAX, f"from {CALLS_MIN} to {CALLS_MAX} calls"
    dice = Dice(seed, "traffic")
    start_us, end_us = month_bounds(month)
    days = (end_us - start_us) // DAY_US
    spike_us = _spike_us(start_us)
    found: list[Planned] = []

    def add(at_us: int, key: int, model: str, *, mistyped: bool = False) -> None:
        about = KEYS[key]
        found.append(
            Planned(
                at_us=at_us,
                key=key,
                model=model,
                stream=dice.percent(about.stream_percent),
                tools=dice.percent(about.tools_percent),
                question=dice.skewed(*about.question),
                end_user=f"user-{dice.between(1, about.end_users)}" if about.end_users else "",
                number=len(found),
                mistyped=mistyped,
            )
        )

    for at in range(max(calls // _SPIKE_SHARE, _SPIKE_CALLS_MIN)):
        pause_us = 3_000 * US_PER_S // max(calls // _SPIKE_SHARE, _SPIKE_CALLS_MIN)
        add(spike_us + at * pause_us + dice.below(10) * US_PER_S, RUNAWAY, KEYS[RUNAWAY].models[0])
    for index, key in enumerate(KEYS):
        for model in key.models:
            for _ in range(EACH):
                add(_moment(dice, start_us, days, at_night=key.at_night), index, model)
    while len(found) < calls:
        index = dice.weighted(range(len(KEYS)), [key.share for key in KEYS])
        key = KEYS[index]
        model = dice.weighted(key.models, range(3 * len(key.models), 0, -3))
        at_us = _moment(dice, start_us, days, at_night=key.at_night)
        add(at_us, index, model, mistyped=dice.percent(_MISTYPED_PERCENT))
    return Traffic(tuple(sorted(found, key=lambda one: (one.at_us, one.number))), spike_us)


def _weekday(us: int) -> int:
    """0 is Monday: the first of January 1970 was a Thursday."""
    return (us // DAY_US + 3) % 7


def _spike_us(start_us: int) -> int:
    third_week = start_us + 14 * DAY_US
    return third_week + (_SPIKE_WEEKDAY - _weekday(third_week)) % 7 * DAY_US + _SPIKE_HOUR * 3_600 * US_PER_S


def _moment(dice: Dice, start_us: int, days: int, *, at_night: bool) -> int:
    day_us = dice.weighted(
        [start_us + day * DAY_US for day in range(days)],
        # A little busier every day: the company grows.
        [
            (_WEEKEND if _weekday(start_us + day * DAY_US) > 4 else _WEEKDAY) * (100 + day)
            for day in range(days)
        ],
    )
    hour = dice.weighted(range(24), _NIGHT if at_night else _OFFICE)
    return day_us + (hour * 3_600 + dice.below(3_600)) * US_PER_S
