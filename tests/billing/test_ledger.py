"""Commands on money and customers: idempotent, bounded, in balance."""

import pytest

from farebox.billing.books import customers, ledger
from farebox.billing.books.customers import CommandRefused, NewKey
from farebox.storage import queries, reports
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000


def give(world, account, amount=DOLLAR, command="cmd-1", **more):
    return ledger.top_up(
        world.database, world.ids, command_id=command, account_id=account, amount_nano=amount, now_us=world.clock.us, **more
    )


def pay(world, account, amount, command="cmd-1"):
    return ledger.pay(
        world.database, world.ids, command_id=command, account_id=account, amount_nano=amount, now_us=world.clock.us
    )


def test_the_same_top_up_twice_is_one(world):
    """Peers rows 6 and 26: a retried command applied twice."""
    account = world.account()
    assert give(world, account) == give(world, account)
    assert world.sums()["cash"] == DOLLAR and world.balance(account).limit_nano == DOLLAR
    with pytest.raises(CommandRefused, match="other particulars"):
        give(world, account, 2 * DOLLAR)
    with pytest.raises(CommandRefused, match="other particulars"):
        give(world, world.account())
    assert world.check() == []


def test_top_ups_at_the_same_moment_with_one_command_are_one(world):
    """Peers row 26."""
    import threading

    account, made, failed = world.account(), [], []

    def run():
        try:
            made.append(give(world, account))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(set(grant.id for grant in made)) == 1
    assert world.sums()["cash"] == DOLLAR
    assert world.check() == []


@pytest.mark.parametrize("amount", [0, -1, 2**60 + 1])
def test_amounts_have_bounds(world, amount):
    with pytest.raises(CommandRefused, match="between 1 and"):
        give(world, world.account(), amount)


def test_commands_that_cannot_be(world):
    prepaid, postpaid = world.account(), world.account(kind="postpaid", line_nano=DOLLAR)
    with pytest.raises(CommandRefused, match="prepaid"):
        pay(world, prepaid, 1)
    with pytest.raises(CommandRefused, match="postpaid"):
        give(world, postpaid)
    with pytest.raises(CommandRefused, match="does not exist"):
        give(world, "acc-nobody")
    with pytest.raises(CommandRefused, match="expired already"):
        give(world, prepaid, expires_us=world.clock.us)
    with pytest.raises(CommandRefused, match="prepaid"):
        customers.set_credit_limit(world.database, prepaid, 5, now_us=0)
    with pytest.raises(CommandRefused, match="exists already"):
        customers.create_account(world.database, id="acc-new", name=prepaid, kind="prepaid", now_us=1)
    with pytest.raises(CommandRefused, match="does not exist"):
        customers.create_key(world.database, NewKey("key-1", "acc-nobody", "x", b"x", "x"), now_us=1)
    with pytest.raises(CommandRefused, match="does not exist"):
        customers.revoke_key(world.database, "key-nobody", now_us=1)
    assert world.check() == []


def test_credit_is_spent_soonest_expiring_first_then_oldest(world):
    account = world.account()
    old = world.top_up(account, 3_000_000)
    world.clock.us += 1
    late = world.top_up(account, 3_000_000, expires_us=world.clock.us + 9 * DAY_US, promo=True)
    soon = world.top_up(account, 3_000_000, expires_us=world.clock.us + DAY_US)
    worker = world.worker()
    key = world.key(account)
    worker.call(key, Usage(input=2_000))
    world.post()
    sums = world.sums()
    assert [-sums[f"credit:{grant.id}"] for grant in (soon, late, old)] == [0, 999_998, 3_000_000]
    assert sums["promo_expense"] == 3_000_000 and sums["cash"] == 6_000_000
    assert world.check() == []


def test_expired_credit_lapses_but_for_what_calls_in_flight_may_need(world):
    account = world.account(10_000_000)
    world.top_up(account, 6_000_000, expires_us=world.clock.us + DAY_US, promo=True)
    worker = world.worker()
    key = world.key(account)
    hold = worker.hold(key, 4_000_000)
    expire = lambda: ledger.expire(world.database, world.ids, now_us=world.clock.us)  # noqa: E731
    assert expire() == 0
    world.clock.us += DAY_US
    assert expire() == 2_000_000 and expire() == 0
    assert world.balance(account).limit_nano == 14_000_000
    worker.settle(hold, worker.attempt(hold, Usage(input=400)))
    world.post()
    worker.give_back(f"account:{account}")
    assert expire() == 4_000_000 - 1_000_002
    assert world.sums()["breakage"] == -(6_000_000 - 1_000_002)
    assert world.credits(account) == queries.Credits(16_000_000, 1_000_002, 4_999_998, 10_000_000)
    assert world.check() == []


def test_a_postpaid_account_stays_within_its_line_and_payments_free_it(world):
    """I6."""
    account = world.account(kind="postpaid", line_nano=10_000_000)
    key = world.key(account)
    worker = world.worker()
    assert worker.call(key, Usage(input=3_000))
    assert worker.hold(key, 5_000_000) is None
    world.post()
    assert world.sums()[f"receivable:{account}"] == 7_500_002
    assert pay(world, account, 5_000_000) == pay(world, account, 5_000_000)
    assert worker.call(key, Usage(input=2_000))
    customers.set_credit_limit(world.database, account, 1_000_000, now_us=0)
    assert worker.hold(key, 1) is None
    world.post()
    assert world.sums()[f"receivable:{account}"] == 7_500_004
    assert world.check() == []
    pay(world, account, 7_500_004, "cmd-2")
    assert world.balance(account).available_nano == 1_000_000
    assert world.check() == []


def test_every_change_to_customers_and_limits_bumps_the_control_version(world):
    version = lambda: world.database.read(queries.current_version)  # noqa: E731
    seen = version()
    account = key = ""

    def bumped():
        nonlocal seen
        before, seen = seen, version()
        return seen > before

    account = world.account(kind="postpaid", line_nano=5)
    assert bumped()
    key = world.key(account)
    assert bumped()
    for change in (
        lambda: customers.set_key_budget(world.database, key, 5, "day"),
        lambda: customers.revoke_key(world.database, key, now_us=9),
        lambda: customers.set_credit_limit(world.database, account, 6, now_us=0),
        lambda: customers.set_account_status(world.database, account, "suspended", now_us=0),
        lambda: pay(world, account, 1),
        lambda: world.top_up(account, 1, promo=True),
    ):
        since = seen
        change()
        assert bumped(), change
    (principal,) = world.database.read(lambda connection: queries.principals_changed_since(connection, since - 2))
    assert principal.key.revoked_us == 9 and principal.account.status == "suspended"
    customers.revoke_key(world.database, key, now_us=99)
    assert world.database.read(lambda connection: queries.key(connection, key)).revoked_us == 9


def test_questions_have_answers(world):
    account, other = world.account(DOLLAR), world.account(DOLLAR)
    key = world.key(account, DOLLAR, "month")
    worker = world.worker()
    day_us = world.clock.us
    first = worker.call(key, Usage(input=1_000, output=100))
    world.clock.us += DAY_US
    hold = worker.hold(key, 5_000_000)
    worker.settle(hold, worker.attempt(hold, None), worker.attempt(hold, Usage(input=500), n=2, provider="azure"))
    world.post()
    read = world.database.read
    principal = read(lambda c: queries.principal_by_digest(c, key.encode()))
    assert principal.key == read(lambda c: queries.key(c, key)) and principal.account == read(
        lambda c: queries.account(c, account)
    )
    assert read(lambda c: queries.principal_by_digest(c, b"nothing")) is None
    assert [found.id for found in read(queries.list_accounts)] == sorted([account, other])
    assert [found.id for found in read(lambda c: queries.list_keys(c, account))] == [key]
    assert read(lambda c: queries.list_keys(c, other)) == []
    spent = read(lambda c: queries.key_usage(c, key, day_us=day_us + DAY_US, week_us=day_us, month_us=day_us))
    assert spent == queries.KeyUsage(
        first.charge_nano + 1_250_002, 1_250_002, first.charge_nano + 1_250_002, first.charge_nano + 1_250_002
    )
    assert read(lambda c: queries.key_usage(c, "key-nobody", day_us=0, week_us=0, month_us=0)).total_nano == 0
    assert read(lambda c: queries.generation(c, [first.id], account_id=other)) == [], "another account's call is not found"
    ever = reports.Narrow(since_us=0)
    days = read(lambda c: reports.usage_lines(c, ("day",), ever))
    assert [(line.calls, line.attempts, line.charge_nano) for line in days] == [(1, 1, first.charge_nano), (1, 2, 1_250_002)]
    ours = reports.Narrow(since_us=0, account_id=account)
    providers = {line.groups[0]: line for line in read(lambda c: reports.usage_lines(c, ("provider",), ours))}
    assert (
        providers["openai"].attempts == 2 and providers["openai"].unknown_costs == 1 and providers["azure"].cost_nano == 1_250_002
    )
    assert read(lambda c: reports.usage_lines(c, ("model",), reports.Narrow(since_us=0, account_id=other))) == []
    first_day = reports.Narrow(since_us=0, until_us=day_us + 1, key_id=key)
    (line,) = read(lambda c: reports.usage_lines(c, ("model",), first_day))
    assert (line.groups[0], line.prompt_tokens, line.completion_tokens) == ("openai/gpt-4o", 1_000, 100)
