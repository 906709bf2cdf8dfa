"""Calls by customers' own keys in the books: the fee is all that is charged, and what the provider bills is told beside it."""

import msgspec
import pytest
from sqlalchemy import select, text
from tests.billing.conftest import exact

from farebox.billing.accounts import adjustments
from farebox.billing.accounts import compare as comparing
from farebox.billing.books import customers, evidence
from farebox.billing.books.breakdown import broken_down
from farebox.billing.invoicing import exports, focus
from farebox.billing.invoicing.invoices import FEE, OWN_KEY_FEE, Tally
from farebox.billing.markup import Fees, flat, own_key_terms
from farebox.billing.own_keys import provider_nano
from farebox.billing.posting import recovery
from farebox.billing.pricing import charge_nano, cost_pico
from farebox.billing.records import Progress
from farebox.catalog.price import Rates
from farebox.reconciliation import records
from farebox.storage import key_queries, queries, reports
from farebox.storage.reports import Narrow
from farebox.storage.tables import own_key_usage, volumes
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
CALL = Usage(input=1_000, output=300)
FEES = Fees(own_key=True)
PLANS = {"": msgspec.structs.replace(flat(0), own_key=own_key_terms("", free_calls=2))}
EVER = Narrow(since_us=0)


def own_call(world, worker, key, usage=CALL, *, free=False, **more):
    """A call that the customer's own key answered, at 5 % of the list price."""
    hold = worker.hold(key, 100_000_000, markup_bp=0 if free else 500)
    price = charge_nano(cost_pico(usage, hold.rates), hold.markup_bp, FEES)
    values = {"fees": FEES, "plan": "BYOK", "cost_nano": 0, "charge_nano": price, "provider_key": "byok:one"}
    return worker.settle(hold, worker.attempt(hold, usage, **(values | more)))


def beside(world):
    query = select(own_key_usage).order_by(own_key_usage.c.hold_id, own_key_usage.c.attempt, own_key_usage.c.revision)
    return world.database.read(lambda c: c.execute(query).all())


def listed(settle, usage=CALL):
    return exact(usage, settle.attempts[-1].rates)


def test_the_fee_is_posted_and_the_providers_bill_stands_beside_it(world):
    account = world.account(DOLLAR)
    key = world.key(account)
    worker = world.worker()
    house = worker.call(key, CALL)
    own = own_call(world, worker, key)
    free = own_call(world, worker, key, free=True)
    world.post()
    assert [(row.hold_id, row.provider_nano, row.counted) for row in beside(world)] == [
        (own.id, listed(own), True), (free.id, listed(free), True),
    ]  # fmt: skip
    assert free.charge_nano == 0 and own.charge_nano == (listed(own) + 10) // 20
    assert world.balance(account).posted_nano == house.charge_nano + own.charge_nano
    assert world.check() == []
    costs = world.database.read(lambda c: key_queries.own_key_costs(c, [key], day_us=0, week_us=0, month_us=0))
    assert costs[key].total_nano == costs[key].month_nano == 2 * listed(own)
    groups = ("model", "provider")
    lines = world.database.read(lambda c: reports.own_key_lines(c, groups, EVER))
    assert lines == {("openai/gpt-4o", "openai"): 2 * listed(own)}
    ours = world.database.read(lambda c: list(records.attempts(c, "openai", 0, world.clock.us + 1)))
    assert [one.hold_id for one in ours] == [house.id], "the provider bills the customer for the others, not us"


def test_gateways_hear_of_the_last_free_call_and_months_begin_anew(world):
    account = world.account(DOLLAR)
    key = world.key(account)
    worker = world.worker()

    def counted():
        row = world.database.read(lambda c: c.execute(select(volumes).where(volumes.c.account_id == account)).one())
        return row.month, row.own_key_calls

    before = world.database.read(queries.current_version)
    own_call(world, worker, key, free=True)
    world.post(markups=PLANS)
    assert counted() == ("2026-11", 1) and world.database.read(queries.current_version) == before
    own_call(world, worker, key, free=True)
    world.post(markups=PLANS)
    assert counted() == ("2026-11", 2) and world.database.read(queries.current_version) == before + 1
    found = world.database.read(lambda c: queries.principal_by_digest(c, key.encode()))
    assert found.own_key_calls == 2
    world.clock.us += 30 * 86_400_000_000
    own_call(world, worker, key)
    world.post(markups=PLANS)
    assert counted() == ("2026-12", 1) and world.check() == []


def test_a_call_counts_once_whatever_its_attempts(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 100_000_000, markup_bp=500)
    price = charge_nano(cost_pico(CALL, hold.rates), 500, FEES)
    own = {"fees": FEES, "plan": "BYOK", "cost_nano": 0, "provider_key": "byok:one"}
    refused = {"outcome": "http_error", "basis": "none", "rates": None, "charge_nano": 0}
    worker.settle(
        hold,
        worker.attempt(hold, Usage(), n=1, **(own | refused)),
        worker.attempt(hold, CALL, n=2, charge_nano=price, flags=("escalated",), **own),
        worker.attempt(hold, CALL, n=3, charge_nano=price, **own),
    )
    world.post()
    assert [(row.attempt, row.counted) for row in beside(world)] == [(2, True), (3, False)]
    assert world.check() == []


def test_a_correction_has_its_difference_beside_it(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    settle = own_call(world, worker, key, basis="estimated")
    world.post()
    known = Usage(input=10, output=3)
    done = adjustments.adjust(world.database, world.ids, hold_id=settle.id, attempt=1, exact=known, now_us=world.clock.us)
    assert done.cost_nano == 0 and done.charge_nano < 0
    assert [row.provider_nano for row in beside(world)] == [listed(settle), listed(settle, known) - listed(settle)]
    assert world.check() == []


def test_what_the_provider_reported_is_what_it_billed(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 100_000_000, markup_bp=500)
    values = {"fees": FEES, "cost_nano": 0, "charge_nano": 617_284, "provider_key": "byok:one"}
    settle = worker.settle(hold, worker.attempt(hold, CALL, flags=("reported_cost",), provider_cost_usd="0.012345678", **values))
    world.post()
    assert provider_nano(settle.attempts[0]) == 12_345_678 == beside(world)[0].provider_nano
    assert world.check() == []


@pytest.mark.parametrize("damage", ["UPDATE own_key_usage SET provider_nano = 1", "DELETE FROM own_key_usage"])
def test_damage_beside_the_rows_is_seen(world, damage):
    own_call(world, world.worker(), world.key(world.account(DOLLAR)))
    world.post()
    world.database.write(lambda c: c.execute(text(damage)))
    assert {violation.invariant for violation in world.check()} == {"I2"}


def test_a_month_that_miscounts_is_seen(world):
    own_call(world, world.worker(), world.key(world.account(DOLLAR)))
    world.post()
    world.database.write(lambda c: c.execute(text("UPDATE volumes SET own_key_calls = 7")))
    assert ["7 calls by own keys" in violation.sentence for violation in world.check()] == [True]


def test_an_invoice_has_the_fee_alone_in_a_line_of_its_own(world):
    account = world.account(DOLLAR)
    key = world.key(account)
    worker = world.worker()
    own, house = own_call(world, worker, key), worker.call(key, CALL)
    world.post()
    tally = Tally()
    rows = world.database.read(lambda c: list(broken_down(exports.usage_rows(c, EVER))))
    for row, attempt, parts in rows:
        tally.add(row, parts, own_key=attempt.own_key)
    lines = {line.unit: line for line in tally.lines()[0]}
    assert FEE not in lines and lines["input"].quantity == 1_000, "the units of the own call are on the provider's bill"
    assert lines[OWN_KEY_FEE].exact == f"0.{own.charge_nano:09d}".rstrip("0")
    assert tally.usage_nano == own.charge_nano + house.charge_nano


def test_a_comparison_counts_what_was_paid_to_the_provider(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    own, free = own_call(world, worker, key), own_call(world, worker, key, free=True)
    world.post()
    models, total = world.database.read(
        lambda c: comparing.compare(exports.usage_rows(c, EVER), evidence.attempt, lambda _slug: None)
    )
    assert total.calls == 2 and models[0].as_served_nano == 2 * cost_pico(CALL, own.attempts[0].rates) // 1_000
    assert total.here_nano == 2 * listed(own) + own.charge_nano + free.charge_nano


def test_an_account_of_its_own_plan_is_told_by_it(world):
    account = world.account(DOLLAR)
    customers.set_markup(world.database, account, "none", now_us=0)
    own_call(world, world.worker(), world.key(account), free=True)
    before = world.database.read(queries.current_version)
    world.post(markups=PLANS)
    assert world.database.read(queries.current_version) == before, "its plan is not among those known"


def test_whoever_always_leaves_before_the_end_uses_up_the_free_calls_too(world):
    account = world.account(DOLLAR)
    key = world.key(account)
    worker = world.worker()
    own_call(world, worker, key, free=True, outcome="client_gone")
    own_call(world, worker, key, free=True, outcome="recovered")
    own_call(world, worker, key, free=True, usage=Usage(), outcome="client_gone", cost_nano=0, rates=Rates())
    own_call(world, worker, key, free=True, outcome="truncated")
    world.post(markups=PLANS)
    row = world.database.read(lambda c: c.execute(select(volumes).where(volumes.c.account_id == account)).one())
    assert row.own_key_calls == 2, "what nobody got is not counted"
    assert world.check() == []


def test_what_a_crash_left_open_is_finished_by_the_terms_that_were_held(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker("one")
    seen, unseen = (
        msgspec.structs.replace(worker.hold(key, 10_000_000, markup_bp=500), fees=FEES, plan="BYOK") for _ in range(2)
    )
    first, second = recovery.finish([seen, unseen, Progress(seen.id, 1, world.clock.us, CALL)], world.clock)
    one, other = first.attempts[0], second.attempts[0]
    assert (one.cost_nano, one.charge_nano) == (0, charge_nano(cost_pico(CALL, seen.rates), 500, FEES))
    assert (one.plan, one.markup_bp, one.fees, one.own_key) == ("BYOK", 500, FEES, True)
    assert (other.cost_nano, other.charge_nano) == (0, 0), "whatever it was, it is not ours: nothing is unknown"


def test_finance_tools_see_the_fee_by_the_call_and_no_units(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    first, second = own_call(world, worker, key), own_call(world, worker, key, basis="estimated")
    world.post()
    known = Usage(input=10, output=3)
    done = adjustments.adjust(world.database, world.ids, hold_id=second.id, attempt=1, exact=known, now_us=world.clock.us)
    names = [column.name for column in focus.columns("1.3")]
    found = world.database.read(lambda c: list(focus.focus_table(c, EVER, "1.3")))
    lines = [dict(zip(names, line, strict=True)) for line in found]
    usage, correction = (line for line in lines if line["ChargeCategory"] == "Usage")
    assert (usage["EffectiveCost"], usage["ListCost"], usage["PricingQuantity"]) == (2 * first.charge_nano, 0, 2)
    assert (usage["PricingUnit"], usage["SkuMeter"]) == ("Requests", "own_key_fee")
    assert (correction["ChargeClass"], correction["EffectiveCost"]) == ("Correction", done.charge_nano)
