"""Volumes: what an account was charged in the month, the step it passes, and rows that recompute with any markup."""

from sqlalchemy import select

from farebox.billing.accounts import adjustments
from farebox.billing.books import customers
from farebox.billing.markup import Band, Fees, MarkupPlan, Rule, Terms
from farebox.billing.pricing import charge_nano, cost_pico
from farebox.storage import queries
from farebox.storage.tables import transfers, volumes
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
STEPS = {"steps": MarkupPlan("steps", (Rule("*", "*", (Band(0, Terms("steps", 500)), Band(10_000_000, Terms("steps 2", 300)))),))}
CALL = Usage(input=1_000, output=300)


def version(world):
    return world.database.read(queries.current_version)


def volume(world, account):
    row = world.database.read(lambda c: c.execute(select(volumes).where(volumes.c.account_id == account)).one())
    return row.month, row.charged_nano


def test_charges_count_to_their_month_and_a_step_is_told_once(world):
    account = world.account(DOLLAR)
    customers.set_markup(world.database, account, "steps", now_us=0)
    key = world.key(account)
    worker = world.worker()
    before = version(world)
    first = worker.call(key, CALL).charge_nano
    world.post(markups=STEPS)
    assert volume(world, account) == ("2026-11", first) and version(world) == before
    second = worker.call(key, CALL).charge_nano
    world.post(markups=STEPS)
    assert first + second > 10_000_000 and version(world) == before + 1, "gateways ask for the volume anew"
    worker.call(key, CALL)
    world.post(markups=STEPS)
    assert version(world) == before + 1
    found = world.database.read(lambda c: queries.principal_by_digest(c, key.encode()))
    assert (found.account.markup, found.month, found.charged_nano) == ("steps", "2026-11", first + second + first)
    world.clock.us += 30 * 86_400_000_000
    worker.call(key, CALL)
    world.post(markups=STEPS)
    assert volume(world, account) == ("2026-12", first)
    assert world.check() == []


def test_a_row_with_fees_recomputes_and_is_corrected_by_its_own_terms(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    fees = Fees(per_call_nano=2_500, min_nano=400_000, max_nano=900_000)
    hold = worker.hold(key, 100_000_000, markup_bp=700)
    price = charge_nano(cost_pico(CALL, hold.rates), 700, fees)
    settle = worker.settle(hold, worker.attempt(hold, CALL, fees=fees, plan="shop", charge_nano=price, basis="estimated"))
    world.post()
    assert world.check() == []
    exact = Usage(input=10, output=3)
    done = adjustments.adjust(
        world.database, world.ids, hold_id=settle.id, attempt=1, exact=exact, now_us=world.clock.us
    )
    assert done.charge_nano == charge_nano(cost_pico(exact, hold.rates), 700, fees) - price
    assert charge_nano(cost_pico(exact, hold.rates), 700, fees) == 10 * 2_500 + 3 * 10_000 + 2 + 400_000, "the floor"
    assert world.check() == []


def test_by_the_customers_own_key_the_fee_is_all_and_nobody_is_owed_anything(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    fees = Fees(per_call_nano=2_500, own_key=True)
    hold = worker.hold(key, 100_000_000, markup_bp=500)
    price = charge_nano(cost_pico(CALL, hold.rates), 500, fees)
    assert price == cost_pico(CALL, hold.rates) // 20_000 + 2_500
    terms = {"fees": fees, "plan": "shop BYOK", "cost_nano": 0, "basis": "estimated"}
    settle = worker.settle(hold, worker.attempt(hold, CALL, charge_nano=price, **terms))
    world.post()
    assert world.check() == []
    exact = Usage(input=10, output=3)
    done = adjustments.adjust(world.database, world.ids, hold_id=settle.id, attempt=1, exact=exact, now_us=world.clock.us)
    assert (done.charge_nano, done.cost_nano) == ((10 * 2_500 + 3 * 10_000) // 20 + 2_500 - price, 0)
    assert world.check() == []
    owed = world.database.read(lambda c: c.execute(select(transfers).where(transfers.c.cause_kind == "cost")).all())
    assert owed == []
    # A row that says the provider's bill were ours is not true.
    other = worker.hold(key, 100_000_000, markup_bp=500)
    worker.settle(other, worker.attempt(other, CALL, charge_nano=price, **(terms | {"cost_nano": 1})))
    world.post()
    assert [violation.invariant for violation in world.check()] == ["I9"]


def test_a_row_that_does_not_follow_its_fees_is_seen(world):
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 100_000_000)
    worker.settle(hold, worker.attempt(hold, CALL, fees=Fees(per_call_nano=2)))
    world.post()
    assert [violation.invariant for violation in world.check()] == ["I9"]
