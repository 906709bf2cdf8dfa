"""Scopes and their windows: where a call's money comes from, computed from time, never reset by zeroing.

A scope id is text that says what it limits and for which window: `account:acc-1`, `key:key-1:2026-11-23`. A new day is a new
scope, so nothing has to be cleared at midnight and a call that crosses it settles where it was held.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal, assert_never

import msgspec

Window = Literal["none", "hour", "day", "week", "month"]
"""`none` is a budget for the whole life of its owner."""

_US_PER_HOUR = 3_600_000_000
_US_PER_DAY = 24 * _US_PER_HOUR


def window_name(window: Window, now_us: int) -> str:
    """The window's name at a moment, UTC: `` (none), `2026-11-23T07`, `2026-11-23`, `2026-W48`, `2026-11`."""
    if window == "none":
        return ""
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    match window:
        case "hour":
            return moment.strftime("%Y-%m-%dT%H")
        case "day":
            return moment.strftime("%Y-%m-%d")
        case "week":
            year, week, _ = moment.isocalendar()
            return f"{year}-W{week:02d}"
        case "month":
            return moment.strftime("%Y-%m")
        case _:
            assert_never(window)


def window_end_us(window: Window, now_us: int) -> int | None:
    """When the current window ends (microseconds since the epoch), or None for `none`: what `Retry-After` is made of."""
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    match window:
        case "none":
            return None
        case "hour":
            return (now_us // _US_PER_HOUR + 1) * _US_PER_HOUR
        case "day":
            return (now_us // _US_PER_DAY + 1) * _US_PER_DAY
        case "week":
            monday = moment.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=moment.weekday())
            return int((monday + timedelta(days=7)).timestamp()) * 1_000_000
        case "month":
            first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            following = (first + timedelta(days=32)).replace(day=1)
            return int(following.timestamp()) * 1_000_000
        case _:
            assert_never(window)


class Scope(msgspec.Struct, frozen=True):
    """One limit that a call counts against."""

    id: str
    kind: Literal["account", "key", "project", "end_user"]
    owner: str
    window: str = ""


def account_scope(account: str) -> Scope:
    return Scope(f"account:{account}", "account", account)


def key_scope(key: str, window: Window, now_us: int) -> Scope:
    name = window_name(window, now_us)
    return Scope(f"key:{key}:{name}" if name else f"key:{key}", "key", key, name)
