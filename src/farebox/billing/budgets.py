"""Scopes and their windows: where a call's money comes from, computed from time, never reset by zeroing.

A scope id is text that says what it limits and for which window: `account:acc-1`, `key:key-1:2026-11-23`. A new day is a new
scope, so nothing has to be cleared at midnight and a call that crosses it settles where it was held.

Days, weeks and months are those of a time zone, and follow its clock changes: a day may have 23 or 25 hours. Hours are UTC's.
"""

import hashlib
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

Window = Literal["none", "hour", "day", "week", "month"]
"""`none` is a budget for the whole life of its owner."""
ScopeKind = Literal["account", "key", "budget", "tier"]
BudgetKind = Literal["account", "project", "key", "end_user", "tag"]
EACH = "*"
"""The subject of a budget that every end user has who has none of their own."""

_US_PER_HOUR = 3_600_000_000
_US_PER_DAY = 24 * _US_PER_HOUR


class UnknownZone(ValueError):
    """No time zone of this name."""


def zone_named(name: str) -> tzinfo:
    """An IANA time zone, e.g. `Europe/Berlin`. Raises `UnknownZone`."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownZone(f"there is no time zone `{name}` on this machine; write an IANA name such as `Europe/Berlin`") from None


def window_name(window: Window, now_us: int, zone: str = "UTC") -> str:
    """The window's name at a moment: `` (none), `2026-11-23T07` (UTC), `2026-11-23`, `2026-W48`, `2026-11`."""
    if window == "none":
        return ""
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC if window == "hour" else zone_named(zone))
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


def window_start_us(window: Window, now_us: int, zone: str = "UTC") -> int | None:
    """When the current window began (microseconds since the epoch), or None for `none`."""
    if window == "none":
        return None
    if window == "hour":
        return now_us // _US_PER_HOUR * _US_PER_HOUR
    return _midnight_us(_first_day(window, _local_day(now_us, zone)), zone)


def window_end_us(window: Window, now_us: int, zone: str = "UTC") -> int | None:
    """When the current window ends (microseconds since the epoch), or None for `none`."""
    if window == "none":
        return None
    if window == "hour":
        return (now_us // _US_PER_HOUR + 1) * _US_PER_HOUR
    if window == "day" and zone == "UTC":
        return (now_us // _US_PER_DAY + 1) * _US_PER_DAY
    first = _first_day(window, _local_day(now_us, zone))
    match window:
        case "day":
            following = first + timedelta(days=1)
        case "week":
            following = first + timedelta(days=7)
        case "month":
            following = (first + timedelta(days=32)).replace(day=1)
        case _:
            assert_never(window)
    return _midnight_us(following, zone)


def _local_day(now_us: int, zone: str) -> date:
    return datetime.fromtimestamp(now_us // 1_000_000, zone_named(zone)).date()


def _first_day(window: Literal["day", "week", "month"], day: date) -> date:
    if window == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if window == "month" else day


def _midnight_us(day: date, zone: str) -> int:
    """The first moment of a day. Where the clocks skip midnight it is the moment of the change (PEP 495: fold 0 in a gap)."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone_named(zone)).timestamp()) * 1_000_000


class Scope(msgspec.Struct, frozen=True):
    """One limit that a call counts against."""

    id: str
    kind: ScopeKind
    owner: str
    """The id of the account, key or budget."""
    window: str = ""
    subject: str = ""
    """Whom a budget of each end user limits here."""
    limit_nano: int | None = None
    """Where it is not the database that knows the limit, but the configuration."""
    revision: int = 0
    """Of the budget, as whoever asks knows it."""


def account_scope(account: str) -> Scope:
    return Scope(f"account:{account}", "account", account)


def key_scope(key: str, window: Window, now_us: int) -> Scope:
    name = window_name(window, now_us)
    return Scope(f"key:{key}:{name}" if name else f"key:{key}", "key", key, name)


def tier_scope(account: str, daily_nano: int, now_us: int) -> Scope:
    """What an account's tier lets it spend in a day, UTC."""
    name = window_name("day", now_us)
    return Scope(f"tier:{account}:{name}", "tier", account, name, limit_nano=daily_nano)


class Budget(msgspec.Struct, frozen=True):
    """A budget as stored (see `storage.tables.budgets`)."""

    id: str
    kind: BudgetKind
    amount_nano: int
    window: Window
    subject: str = ""
    name: str = ""
    zone: str = "UTC"
    hard: bool = True
    models: tuple[str, ...] = ()
    """Patterns of slugs, such as `openai/*`; empty is every model."""
    providers: tuple[str, ...] = ()
    """Empty is every provider."""
    revision: int = 0
    """How often what it counts was changed: each revision has scopes of its own (`billing.books.carrying`)."""

    def window_at(self, now_us: int) -> str:
        """The name of the window at a moment; empty for a budget for life."""
        return window_name(self.window, now_us, self.zone)

    @property
    def title(self) -> str:
        """How its owner is told which budget it is."""
        if self.kind in ("end_user", "tag"):
            return self.titled(f"the {self.kind.replace('_', ' ')} `{self.subject}`")
        return self.titled("the organisation" if self.kind == "account" else f"the {self.kind}")

    def titled(self, whose: str) -> str:
        """The same, of somebody whose name is known."""
        return f"the budget `{self.name}` of {whose}" if self.name else f"the budget of {whose}"


def budget_scope(budget: Budget, now_us: int, end_user: str = "") -> Scope:
    """The scope of a budget's current window. Names of end users are the client's own text, so an id has only their digest."""
    window = window_name(budget.window, now_us, budget.zone)
    id = f"budget:{budget.id}.{budget.revision}" if budget.revision else f"budget:{budget.id}"
    if window:
        id = f"{id}:{window}"
    if budget.subject != EACH:
        return Scope(id, "budget", budget.id, window, revision=budget.revision)
    mark = hashlib.blake2b(end_user.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Scope(f"{id}:{mark}", "budget", budget.id, window, end_user, revision=budget.revision)
