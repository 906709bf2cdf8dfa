"""Periods: UTC moments as people write them, and the months that are invoiced. Pure."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from farebox.billing.budgets import window_end_us, window_name

_SPAN: Final = re.compile(r"([0-9]{1,5})([mhdw])")
_UNIT_US: Final = {"m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
SECONDS_MAX: Final = 4_096
"""Whose text is remembered: rows of the same second come together."""
FORMS: Final = "write 7d, 12h, 30m, 2w, a date such as 2026-11-01, or a time such as 2026-11-01T08:00:00Z"


def parse_moment(text: str, now_us: int) -> int:
    """A moment as microseconds since the epoch: `7d` before now, a UTC date, or an RFC 3339 time. `ValueError` otherwise."""
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now_us - int(span[1]) * _UNIT_US[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not understood; {FORMS}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds


def format_moment(us: int) -> str:
    """Microseconds since the epoch → `2026-11-23T07:30:00.000000Z`."""
    return f"{_second(us // 1_000_000)}.{str(1_000_000 + us % 1_000_000)[1:]}Z"


@lru_cache(maxsize=SECONDS_MAX)
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def format_second(us: int) -> str:
    """Microseconds since the epoch → the second `2026-11-23T07:30:00Z`."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_day(us: int) -> str:
    """The UTC day `2026-11-23` of a moment."""
    return window_name("day", us)


def parse_day(text: str) -> str:
    """A UTC day `2026-11-23`, if it is one. `ValueError` otherwise."""
    try:
        if _DAY.fullmatch(text) is None:
            raise ValueError
        datetime(int(text[:4]), int(text[5:7]), int(text[8:]), tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{text!r} is not a day such as 2026-11-23") from None
    return text


def month_of(us: int) -> str:
    """The UTC month `2026-11` of a moment."""
    return window_name("month", us)


def month_bounds(month: str) -> tuple[int, int]:
    """The first microsecond of a month `2026-11`, and of the next. `ValueError` when it is not one."""
    found = _MONTH.fullmatch(month)
    if found is None or not (1970 <= int(found[1]) <= 9998 and 1 <= int(found[2]) <= 12):
        raise ValueError(f"{month!r} is not a month such as 2026-11")
    start_us = int(datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC).timestamp()) * 1_000_000
    end_us = window_end_us("month", start_us)
    assert end_us is not None, "a month has an end"
    return start_us, end_us


def month_before(month: str) -> str:
    """`2026-01` → `2025-12`."""
    return month_of(month_bounds(month)[0] - 1)
