"""Alerts that time brings about: pace, spikes, low balances; each told once, and again when its window or limit changes."""

from datetime import UTC, datetime

import msgspec
import pytest
from sqlalchemy import select, text

from farebox.billing.accounts import alerts, budget_commands
from farebox.billing.accounts.alerts import AlertSettings, Watch, look
from farebox.billing.books import customers
from farebox.billing.books.customers import CommandRefused
from farebox.storage.tables import outbox
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
QUIET = Watch(forecast=False, low_balance_nano=0, runway_days=0, spike_factor=0)
CALL = Usage(input=100_000)
"""$0.25 at the tests' rates, and $0.0000000015 for the request."""


def payloads(world, kind):
    rows = world.database.read(
        lambda connection: connection.execute(select(outbox.c.payload).where(outbox.c.kind == kind).order_by(outbox.c.id)).all()
    )
    return [msgspec.json.decode(row.payload) for row in rows]


def watch(world, **wanted):
    return look(world.database, world.ids, msgspec.structs.replace(QUIET, **wanted), world.clock.us)


def spend(world, worker, key, calls=1):
    for _ in range(calls):
        assert worker.call(key, CALL) is not None
    world.post()


def test_a_budget_whose_pace_passes_it_is_told_of_once_per_window_and_limit(world):
    account = world.account(1_000 * DOLLAR)
    key = world.key(account, 2 * DOLLAR, "day")
    worker = world.worker()
    spend(world, worker, key)
    assert watch(world, forecast=True) == 0, "a pace of no time at all means nothing"
    world.clock.us += 4 * HOUR_US
    assert watch(world, forecast=True) == 0, "0.25 in four hours is 1.50 a day"
    spend(world, worker, key)
    assert watch(world, forecast=True) == 1
    (told,) = payloads(world, "budget_forecast")
    assert told["scope"] == f"key:{key}:2026-11-23"
    assert told["expected_nano"] == told["posted_nano"] * 6
    assert told["used_up_at"] == "2026-11-23T15:59:59Z", "0.50 in four hours makes 2.00 in sixteen"
    assert watch(world, forecast=True) == 0
    customers.set_key_budget(world.database, key, DOLLAR, "day")
    assert watch(world, forecast=True) == 1, "the limit is another one"
    world.clock.us += DAY_US
    spend(world, worker, key, 3)
    assert watch(world, forecast=True) == 1, "so is the window"
    assert world.check() == []


def test_a_limit_that_is_reached_has_no_forecast(world):
    account = world.account(1_000 * DOLLAR)
    key = world.key(account, 250_000_002, "day")
    world.clock.us += 2 * HOUR_US
    spend(world, world.worker(), key)
    posted = world.scope(f"key:{key}:2026-11-23").posted_nano
    customers.set_key_budget(world.database, key, posted, "day")
    assert watch(world, forecast=True) == 0


@pytest.mark.parametrize(
    ("zone", "window", "hours"),
    [
        # Hours into the day at 2026-11-23T04:00Z: in Kolkata it began at 18:30 UTC, in Los Angeles at 08:00 the day before.
        ("Asia/Kolkata", "2026-11-23", 9.5),
        ("America/Los_Angeles", "2026-11-22", 20),
        ("UTC", "2026-11-23", 4),
    ],
)
def test_a_budgets_pace_goes_by_its_own_day(world, zone, window, hours):
    account = world.account(1_000 * DOLLAR)
    key = world.key(account)
    worker = world.worker()
    world.clock.us += 4 * HOUR_US
    # One and a half calls: too little for the day, unless most of it has passed.
    budget = world.budget(account, 375_000_000, "day", zone=zone)
    spend(world, worker, key)
    posted = world.scope(f"budget:{budget}:{window}").posted_nano
    expected = int(posted * 24 / hours)
    assert watch(world, forecast=True) == (expected > 375_000_000)
    if expected > 375_000_000:
        (told,) = payloads(world, "budget_forecast")
        assert (told["scope"], told["expected_nano"]) == (f"budget:{budget}:{window}", expected)
    assert world.check() == []


def test_a_day_of_25_hours_has_a_slower_pace(world):
    account = world.account(1_000 * DOLLAR)
    key = world.key(account)
    budget = world.budget(account, 10 * DOLLAR, "day", zone="Europe/Berlin")
    world.clock.us = int(datetime(2026, 10, 24, 22, tzinfo=UTC).timestamp()) * 1_000_000 + 5 * HOUR_US
    spend(world, world.worker(), key, 9)
    assert watch(world, forecast=True) == 1
    (told,) = payloads(world, "budget_forecast")
    assert told["scope"] == f"budget:{budget}:2026-10-25"
    assert told["expected_nano"] == told["posted_nano"] * 5


def test_a_removed_budget_has_no_forecast(world):
    account = world.account(1_000 * DOLLAR)
    key = world.key(account)
    budget = world.budget(account, DOLLAR, "month", zone="Asia/Tokyo")
    world.clock.us += 2 * DAY_US
    spend(world, world.worker(), key, 3)
    budget_commands.remove_budget(world.database, budget, now_us=world.clock.us)
    assert watch(world, forecast=True) == 0


def test_a_low_balance_is_told_of_once_per_top_up(world):
    account = world.account(2 * DOLLAR)
    key = world.key(account)
    worker = world.worker()
    assert watch(world, low_balance_nano=5 * DOLLAR) == 0, "an account that never spent needs nothing"
    spend(world, worker, key)
    assert watch(world, low_balance_nano=DOLLAR) == 0
    assert watch(world, low_balance_nano=5 * DOLLAR) == 1
    assert watch(world, low_balance_nano=5 * DOLLAR) == 0
    world.top_up(account, DOLLAR)
    assert watch(world, low_balance_nano=5 * DOLLAR) == 1
    first, _ = payloads(world, "low_balance")
    assert first["left_nano"] == world.balance(account).remaining_nano - DOLLAR
    world.top_up(account, 10 * DOLLAR)
    assert watch(world, low_balance_nano=5 * DOLLAR) == 0


def test_runway_goes_by_the_pace_of_the_week(world):
    account = world.account(4 * DOLLAR)
    key = world.key(account)
    worker = world.worker()
    spend(world, worker, key)
    assert watch(world, runway_days=3) == 0, "a young account's pace is reckoned over a whole day: 15 days are left"
    for _ in range(3):
        world.clock.us += DAY_US
        spend(world, worker, key, 4)
    # 3.25 in four days (73 hours begun): about 1.07 a day, and 0.75 left.
    assert watch(world, runway_days=3) == 1
    (told,) = payloads(world, "runway")
    assert 16 <= told["left_hours"] <= 17 and told["days"] == 3
    assert told["per_day_nano"] == pytest.approx(1_068_493_156, abs=1_000)
    assert watch(world, runway_days=3) == 0
    assert world.check() == []


def test_a_spike_is_against_the_same_hour_of_other_days(world):
    account = world.account(1_000 * DOLLAR)
    key = world.key(account)
    worker = world.worker()
    for day in range(3):
        spend(world, worker, key)
        assert watch(world, spike_factor=3, spike_min_nano=100_000_000) == 0, f"after {day} days nothing is usual"
        # The hours around are busy, which does not count.
        world.clock.us += 2 * HOUR_US
        spend(world, worker, key, 8)
        world.clock.us += 22 * HOUR_US
    spend(world, worker, key, 3)
    assert watch(world, spike_factor=3, spike_min_nano=100_000_000) == 0
    spend(world, worker, key, 1)
    assert watch(world, spike_factor=3, spike_min_nano=10 * DOLLAR) == 0, "little is no spike"
    assert watch(world, spike_factor=3, spike_min_nano=100_000_000) == 1
    assert watch(world, spike_factor=3, spike_min_nano=100_000_000) == 0
    (told,) = payloads(world, "spend_spike")
    assert told["hour"] == "2026-11-26T00:00:00Z" and told["hour_nano"] == 4 * told["usual_nano"]


def test_an_account_has_its_own_wishes(world):
    account = world.account(2 * DOLLAR)
    key = world.key(account)
    spend(world, world.worker(), key)
    alerts.set_alerts(world.database, account, AlertSettings(low_balance_nano=0))
    assert watch(world, low_balance_nano=5 * DOLLAR) == 0
    alerts.set_alerts(world.database, account, AlertSettings(low_balance_nano=3 * DOLLAR, runway_days=20))
    assert watch(world, low_balance_nano=0) == 2
    assert {"low_balance", "runway"} == {
        row.kind for row in world.database.read(lambda connection: connection.execute(select(outbox.c.kind)).all())
    }
    assert world.database.read(lambda connection: alerts.alert_settings_of(connection, account)).runway_days == 20


@pytest.mark.parametrize(
    "settings",
    [
        AlertSettings(low_balance_nano=-1),
        AlertSettings(runway_days=-1),
        AlertSettings(runway_days=400),
        AlertSettings(spike_factor=1),
    ],
)
def test_wishes_that_cannot_be_are_refused(world, settings):
    with pytest.raises(CommandRefused):
        alerts.set_alerts(world.database, world.account(), settings)


def test_nobody_is_told_of_an_account_that_is_not(world):
    with pytest.raises(CommandRefused, match="does not exist"):
        alerts.set_alerts(world.database, "acc-none", AlertSettings(runway_days=1))


def test_a_balance_is_no_budget(world):
    """Of all credit ever bought, a good customer has always spent nearly everything."""
    key = world.key(world.account(250_000_002))
    spend(world, world.worker(), key)
    assert world.outbox("budget_threshold") == []


def test_the_books_notice_an_hour_that_is_not_its_transfers(world):
    key = world.key(world.account(DOLLAR))
    spend(world, world.worker(), key)
    assert world.check() == []
    world.database.write(lambda connection: connection.execute(text("UPDATE hours SET charged_nano = charged_nano + 1")))
    assert [problem.invariant for problem in world.check()] == ["I2"]
