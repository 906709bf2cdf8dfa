"""Figures of a statement as they are written: counts, days, dollars. Strict: what is not understood is refused, with its place.

Amounts may have more decimals than a nano-dollar, since providers add up what they have not rounded; they are then rounded once,
half to even, and the statement says so (`Statement.step_pico`). They never pass through a float.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from farebox.money import AMOUNT_NANO_MAX, divide_half_even

COUNT_MAX = 2**53
TEXT_MAX = 200
"""Characters of a name, an id or a number."""
DAY_S = 86_400
SECOND_MAX = 2**35
"""Since the epoch: the year 3058."""
FIRST_DAY, LAST_DAY = "1970-01-01", "9998-12-31"
STEP_PICO = 1_000
"""The step of amounts that had to be rounded: a nano-dollar."""

_NUMBER = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,60}))?(?:[eE]([+-]?[0-9]{1,2}))?")


class StatementError(ValueError):
    """A statement that cannot be read: the file, line, column and value, and what it should be."""


def quoted(value: Any) -> str:
    """A value for a message, cut to a readable length."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 40 else text[:37] + "…")


def amount_nano(text: str, place: str, *, per_usd: int = 1) -> tuple[int, bool]:
    """A decimal of dollars (or of `1/per_usd` dollars: 100 for cents) → nano-dollars, and whether it had to be rounded."""
    match = _NUMBER.fullmatch(text) if len(text) <= TEXT_MAX else None
    if match is None:
        raise StatementError(f"{place}: {quoted(text)} is not an amount such as 0.0125")
    fraction = match[3] or ""
    digits, scale = int(match[2] + fraction), len(fraction) - int(match[4] or 0) - 9
    if scale <= 0:
        nano, rest = divmod(digits * 10**-scale, per_usd)
        rounded = bool(rest)
        nano = divide_half_even(digits * 10**-scale, per_usd)
    else:
        nano = divide_half_even(digits, per_usd * 10**scale)
        rounded = nano * per_usd * 10**scale != digits
    if nano > AMOUNT_NANO_MAX:
        raise StatementError(f"{place}: {quoted(text)} is more than an amount can be")
    return (-nano if match[1] else nano), rounded


def count(value: Any, place: str) -> int:
    """A count of tokens or requests, from JSON or text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise StatementError(f"{place}: {quoted(value)} is not a count")
    return value


def word(value: Any, place: str) -> str:
    """A name or an id; nothing (null) is empty."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > TEXT_MAX or not (value.isprintable() or not value):
        raise StatementError(f"{place}: {quoted(value)} is not a name")
    return value


def day(value: Any, place: str) -> str:
    """A date `2026-11-23`, perhaps with a midnight behind it."""
    text = value.partition("T")[0].partition(" ")[0] if isinstance(value, str) else ""
    try:
        found = date.fromisoformat(text).isoformat()
    except ValueError:
        found = ""
    if not found or found != text or not FIRST_DAY <= found <= LAST_DAY:
        raise StatementError(f"{place}: {quoted(value)} is not a day such as 2026-11-23")
    return found


def moment_day(value: str, zone: tzinfo, place: str) -> str:
    """The day in the provider's zone of a time with an offset, such as 2026-11-23T07:30:00Z."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise StatementError(f"{place}: {quoted(value)} is not a time with its offset, such as 2026-11-23T07:30:00Z")
    try:
        return day(moment.astimezone(zone).date().isoformat(), place)
    except OverflowError:
        raise StatementError(f"{place}: {quoted(value)} is out of all time") from None


def bucket_day(start_s: int, end_s: int, place: str) -> str:
    """The UTC day that a bucket lies in, from its ends in seconds since the epoch."""
    if not 0 <= start_s < end_s <= SECOND_MAX or start_s // DAY_S != (end_s - 1) // DAY_S:
        raise StatementError(f"{place}: the bucket from {start_s} to {end_s} is not within one UTC day; ask for buckets of a day")
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=start_s // DAY_S)).date().isoformat()


def day_in(zone: tzinfo) -> Callable[[int], str]:
    """A function from microseconds since the epoch to the day in a zone."""

    def day_of(us: int) -> str:
        return datetime.fromtimestamp(us // 1_000_000, zone).date().isoformat()

    return day_of
