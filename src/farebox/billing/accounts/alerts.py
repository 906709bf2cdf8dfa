"""Alerts that time brings about: pace, spikes, low balances. The bookkeeper looks once a minute, where there is somebody to tell.

    budget_forecast   at the pace of its window so far, a budget will be used up before the window ends: once per window and limit
    spend_spike       this hour's charges are a multiple of what is usual for the hour of the day: once per hour
    low_balance       the credit, or credit line, that is left is below an amount: once per limit
    runway            at the pace of the last week it is used up within so many days: once per limit

A limit changes with every top-up, which re-arms an account's alerts. That a budget's threshold is reached needs no look: it is
written by the transaction that posts the charge (`billing.books.outbox`).
"""

from collections import defaultdict
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.hours import US_PER_HOUR
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.periods import format_second
from farebox.billing.budgets import Window, window_end_us, window_name, window_start_us
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.tables import accounts, alert_settings, budgets

ACCOUNTS_MAX = 10_000
"""Accounts, and scopes of a window, that one look considers."""
FORECAST_WINDOWS: tuple[Window, ...] = ("day", "week", "month")
ZONED_WINDOWS_MAX = 3 * 600
"""Windows in different time zones that one look considers: there are not more than 600 zones' names in use."""
_OF_ZONE = "JOIN budgets AS b ON b.id = s.budget_id WHERE b.\"window\" = ? AND b.zone = ?"
_WITHOUT_ZONE = "WHERE s.budget_id IS NULL"
"""Keys' own budgets and tiers go by UTC."""
FORECAST_SHARE = 24
"""Part of a window that must have passed before its pace means something: one twenty-fourth, an hour of a day."""
PACE_HOURS = 7 * 24
PACE_HOURS_MIN = 24
"""A younger account's pace is reckoned as if it had spent over a whole day."""
SPIKE_DAYS = 14
SPIKE_DAYS_MIN = 3
"""Days of history without which nothing is usual yet."""
FACTOR_MAX = 1_000
DAYS_MAX = 366


class Watch(msgspec.Struct, frozen=True):
    """What to look for, where an account has no settings of its own. 0 is: not at all."""

    forecast: bool = True
    low_balance_nano: int = 5_000_000_000
    runway_days: int = 3
    spike_factor: int = 5
    spike_min_nano: int = 1_000_000_000
    """Less than this in an hour is no spike."""


class AlertSettings(msgspec.Struct, frozen=True):
    """An account's own wishes; None: as configured, 0: never."""

    low_balance_nano: int | None = None
    runway_days: int | None = None
    spike_factor: int | None = None


def set_alerts(database: Database, account_id: str, settings: AlertSettings) -> None:
    """Set what an account wants to be told of."""
    if (settings.low_balance_nano or 0) < 0:
        raise CommandRefused("a balance to warn at is not negative")
    if not 0 <= (settings.runway_days or 0) <= DAYS_MAX:
        raise CommandRefused(f"runway days are from 0 to {DAYS_MAX}")
    if not 0 <= (settings.spike_factor or 0) <= FACTOR_MAX or settings.spike_factor == 1:
        raise CommandRefused(f"a spike factor is from 2 to {FACTOR_MAX}, or 0 for none")

    def work(connection: Connection) -> None:
        if connection.execute(select(accounts.c.id).where(accounts.c.id == account_id)).one_or_none() is None:
            raise CommandRefused(f"the account `{account_id}` does not exist")
        values = msgspec.structs.asdict(settings)
        changed = connection.execute(update(alert_settings).where(alert_settings.c.account_id == account_id).values(**values))
        if not changed.rowcount:
            connection.execute(insert(alert_settings).values(account_id=account_id, **values))

    try:
        database.write(work)
    except IntegrityError as error:
        raise CommandRefused("the settings were changed by another command at the same moment; try again") from error


def alert_settings_of(connection: Connection, account_id: str) -> AlertSettings:
    """An account's own settings; all None when it has none."""
    row = connection.execute(select(alert_settings).where(alert_settings.c.account_id == account_id)).mappings().one_or_none()
    return AlertSettings() if row is None else AlertSettings(row["low_balance_nano"], row["runway_days"], row["spike_factor"])


def look(database: Database, ids: Ids, watch: Watch, now_us: int) -> int:
    """Look at every budget in use and every account that spent this week; how many messages were new."""

    def ask(connection: Connection) -> list[Message]:
        found = forecasts(database, connection, now_us) if watch.forecast else []
        found += balances(database, connection, watch, now_us)
        return found + spikes(database, connection, watch, now_us)

    messages = database.read(ask)
    return database.write(lambda connection: put(database, connection, ids, messages, now_us)) if messages else 0


def forecasts(database: Database, connection: Connection, now_us: int) -> list[Message]:
    """Budgets whose window's pace so far passes the limit before the window ends, each in its own time zone."""
    zoned = connection.execute(
        select(budgets.c.window, budgets.c.zone).where(budgets.c.removed_us.is_(None), budgets.c.window.in_(FORECAST_WINDOWS))
        .distinct().order_by(budgets.c.window, budgets.c.zone).limit(ZONED_WINDOWS_MAX)
    )  # fmt: skip
    found: list[Message] = []
    for window in FORECAST_WINDOWS:
        found += _forecast(database, connection, now_us, window, "UTC", _WITHOUT_ZONE)
    for window, zone in zoned.all():
        found += _forecast(database, connection, now_us, window, zone, _OF_ZONE, window, zone)
    return found


def _forecast(
    database: Database, connection: Connection, now_us: int, window: Window, zone: str, which: str, *marks: str
) -> list[Message]:
    start_us, end_us = window_start_us(window, now_us, zone), window_end_us(window, now_us, zone)
    assert start_us is not None and end_us is not None, "budgets for life have no forecast"
    passed, whole = now_us - start_us, end_us - start_us
    if passed * FORECAST_SHARE < whole:
        return []
    # Only what is still to come is told of: a limit that is reached is the thresholds' news.
    sql = (
        "SELECT s.id, s.account_id, COALESCE(s.soft_limit_nano, s.wanted_limit_nano, s.limit_nano) AS limit_nano, "  # noqa: S608
        f"s.posted_nano, s.epoch FROM scopes AS s {which} AND s.window_name = ? AND s.posted_nano > 0 "
        "AND s.posted_nano < COALESCE(s.soft_limit_nano, s.wanted_limit_nano, s.limit_nano) "
        "ORDER BY s.posted_nano DESC LIMIT ?"
    )
    name = window_name(window, now_us, zone)
    found: list[Message] = []
    for scope in database.rows(connection, sql, (*marks, name, ACCOUNTS_MAX)):
        expected = scope.posted_nano * whole // passed
        if expected <= scope.limit_nano:
            continue
        payload: dict[str, str | int] = {
            "scope": scope.id,
            "account": scope.account_id,
            "limit_nano": scope.limit_nano,
            "posted_nano": scope.posted_nano,
            "expected_nano": expected,
            "used_up_at": format_second(start_us + passed * scope.limit_nano // scope.posted_nano),
        }
        found.append(Message("budget_forecast", scope.id, payload, name, 100, scope.epoch))
    return found


def balances(database: Database, connection: Connection, watch: Watch, now_us: int) -> list[Message]:
    """Accounts that spent this week and have little left, or not for long."""
    hour = now_us // US_PER_HOUR
    sql = (
        "SELECT s.id, s.account_id, s.epoch, COALESCE(s.wanted_limit_nano, s.limit_nano) - s.posted_nano AS left_nano, "
        "w.low_balance_nano, w.runway_days, h.first_hour, h.spent_nano "
        "FROM (SELECT account_id, MIN(hour) AS first_hour, CAST(SUM(charged_nano) AS BIGINT) AS spent_nano FROM hours "
        "WHERE hour > ? GROUP BY account_id) AS h "
        "JOIN scopes AS s ON s.id = 'account:' || h.account_id LEFT JOIN alert_settings AS w ON w.account_id = h.account_id "
        "ORDER BY left_nano LIMIT ?"
    )
    found: list[Message] = []
    for row in database.rows(connection, sql, (hour - PACE_HOURS, ACCOUNTS_MAX)):
        low_nano = watch.low_balance_nano if row.low_balance_nano is None else row.low_balance_nano
        runway_days = watch.runway_days if row.runway_days is None else row.runway_days
        about: dict[str, str | int] = {"scope": row.id, "account": row.account_id, "left_nano": row.left_nano}
        if row.left_nano < low_nano:
            payload = {**about, "below_nano": low_nano}
            found.append(Message("low_balance", row.id, payload, epoch=row.epoch))
        span = max(hour - row.first_hour + 1, PACE_HOURS_MIN)
        if row.spent_nano * runway_days * 24 > row.left_nano * span:
            left_hours = row.left_nano * span // row.spent_nano
            payload = {**about, "per_day_nano": row.spent_nano * 24 // span, "left_hours": left_hours, "days": runway_days}
            found.append(Message("runway", row.id, payload, threshold=runway_days, epoch=row.epoch))
    return found


def spikes(database: Database, connection: Connection, watch: Watch, now_us: int) -> list[Message]:
    """Accounts that were charged a multiple of what is usual for this hour of the day, since it began."""
    hour = now_us // US_PER_HOUR
    current = database.rows(
        connection,
        "SELECT h.account_id, h.charged_nano, w.spike_factor FROM hours AS h "
        "LEFT JOIN alert_settings AS w ON w.account_id = h.account_id "
        "WHERE h.hour = ? AND h.charged_nano >= ? ORDER BY h.charged_nano DESC LIMIT ?",
        (hour, watch.spike_min_nano, ACCOUNTS_MAX),
    )
    factors = {row.account_id: watch.spike_factor if row.spike_factor is None else row.spike_factor for row in current}
    current = [row for row in current if factors[row.account_id]]
    if not current:
        return []
    same_hours = tuple(hour - 24 * day for day in range(1, SPIKE_DAYS + 1))
    marks = ", ".join("?" * len(same_hours))
    usual: dict[str, int] = defaultdict(int)
    for row in database.rows(connection, f"SELECT account_id, charged_nano FROM hours WHERE hour IN ({marks})", same_hours):  # noqa: S608
        usual[row.account_id] += row.charged_nano
    first: dict[str, int] = {
        row.account_id: row.first_hour
        for row in database.rows(
            connection,
            "SELECT account_id, MIN(hour) AS first_hour FROM hours WHERE hour >= ? GROUP BY account_id",
            (hour - 24 * SPIKE_DAYS,),
        )
    }
    found: list[Message] = []
    for row in current:
        days = min((hour - first[row.account_id]) // 24, SPIKE_DAYS)
        mean = usual[row.account_id] // days if days else 0
        factor = factors[row.account_id]
        if days < SPIKE_DAYS_MIN or row.charged_nano <= mean * factor:
            continue
        payload: dict[str, str | int] = {
            "account": row.account_id,
            "hour_nano": row.charged_nano,
            "usual_nano": mean,
            "factor": factor,
            "hour": format_second(hour * US_PER_HOUR),
        }
        found.append(Message("spend_spike", f"account:{row.account_id}", payload, window_name("hour", now_us)))
    return found


def has_listener(connection: Connection) -> bool:
    """Whether any channel of the database would tell somebody."""
    row: Any = connection.execute(text("SELECT 1 FROM alert_channels WHERE removed_us IS NULL LIMIT 1")).one_or_none()
    return row is not None
