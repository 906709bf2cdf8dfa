"""Comparisons against an oracle of fractions: each call at each offer's price of its day, tier and hour."""

from fractions import Fraction

from farebox.billing.accounts import adjustments
from farebox.billing.accounts.compare import compare
from farebox.billing.books import evidence
from farebox.billing.invoicing import exports
from farebox.catalog.model import Model, Offer
from farebox.catalog.price import OffPeak, Price, Rates, Schedule, Tier
from farebox.storage.reports import Narrow
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
HOUR_US = 3_600_000_000
CHEAP, DEAR = Rates(input=1_000_001, output=3_000_000), Rates(input=5_000_000, output=9_000_000)


def offer(provider: str, *prices: Price, variant: str = "") -> Offer:
    return Offer(provider, "m", "openai_chat", prices, 128_000, 4_096, variant=variant)


MODEL = Model(
    "openai/gpt-4o", "m", 128_000, 4_096,
    (
        offer("flat", Price("a", "1970-01-01", Schedule(CHEAP))),
        offer("tiered", Price("b", "1970-01-01", Schedule(CHEAP, (Tier(3_000, DEAR),)))),
        offer("dated", Price("c", "1970-01-01", Schedule(DEAR)), Price("d", "2026-11-24", Schedule(CHEAP))),
        offer("late", Price("e", "2026-11-24", Schedule(Rates(input=1)))),
        offer("hourly", Price("f", "1970-01-01", Schedule(DEAR), off_peak=OffPeak(Schedule(CHEAP), ((60, 120),)))),
        offer("cloud", Price("g", "1970-01-01", Schedule(DEAR)), variant="us"),
        offer("cloud", Price("h", "1970-01-01", Schedule(CHEAP)), variant="eu"),
    ),
)  # fmt: skip


def test_every_call_is_priced_at_every_offer(world):
    account = world.account(10 * DOLLAR)
    key, worker = world.key(account), world.worker()
    calls = []
    plan = ((0, Usage(input=1_000, output=7)), (1, Usage(input=3_001, output=11)), (24, Usage(input=2_999, output=1)))
    for hours, usage in plan:
        world.clock.us += hours * HOUR_US
        settle = worker.call(key, usage, hold_nano=DOLLAR, markup_bp=1_000)
        calls.append((hours, usage, settle))
    corrected = worker.call(key, Usage(input=9_000), hold_nano=DOLLAR)
    failed = worker.hold(key, DOLLAR)
    worker.settle(failed, worker.attempt(failed, Usage(input=5_000), room_nano=0, loss_nano=0, outcome="truncated"))
    world.post()
    adjustments.adjust(
        world.database, world.ids, hold_id=corrected.id, attempt=1, exact=Usage(input=100), now_us=world.clock.us
    )
    ever = Narrow(since_us=0, account_id=account)
    (one,), total = world.database.read(
        lambda c: compare(exports.usage_rows(c, ever), evidence.attempt, {MODEL.slug: MODEL}.get)
    )
    used = [usage for _, usage, _ in calls] + [Usage(input=100)]

    def at(*rates):
        return round(sum(Fraction(u.input * r.input + u.output * r.output, 1_000) for u, r in zip(used, rates, strict=True)))

    assert one.calls == total.calls == 4
    assert one.here_nano == world.credits(account).used_nano
    direct = {line.provider: line.direct_nano for line in one.direct}
    assert direct == {
        "flat": at(CHEAP, CHEAP, CHEAP, CHEAP),
        "tiered": at(CHEAP, DEAR, CHEAP, CHEAP),
        "dated": at(DEAR, DEAR, CHEAP, CHEAP),
        "hourly": at(CHEAP, DEAR, DEAR, DEAR),
        "cloud#us": at(DEAR, DEAR, DEAR, DEAR),
        "cloud#eu": at(CHEAP, CHEAP, CHEAP, CHEAP),
    }, "an offer without a price for all of the calls is left out"
    assert (one.cheapest, one.cheapest_nano) == ("cloud#eu", direct["flat"])
    assert total.cheapest_nano == one.cheapest_nano and total.as_served_nano == one.as_served_nano
    assert [line.difference_nano for line in total.direct] == sorted(value - one.here_nano for value in direct.values())


def test_models_that_nobody_lists_cost_what_they_cost_here(world):
    key, worker = world.key(world.account(DOLLAR)), world.worker()
    settle = worker.call(key, Usage(input=1_000))
    world.post()
    ever = Narrow(since_us=0)
    (one,), total = world.database.read(lambda c: compare(exports.usage_rows(c, ever), evidence.attempt, {}.get))
    assert (one.direct, one.cheapest, one.cheapest_nano, total.cheapest_nano) == ((), "", settle.charge_nano, settle.charge_nano)
    assert world.database.read(lambda c: compare(iter(()), evidence.attempt, {}.get))[1].calls == 0


def test_a_reported_cost_is_corrected_by_counts(world):
    """A row charged by its provider's own words must still recompute (I9) after its counts were corrected."""
    key, worker = world.key(world.account(DOLLAR)), world.worker()
    hold = worker.hold(key, DOLLAR // 2)
    attempt = worker.attempt(
        hold, Usage(input=100), flags=("reported_cost",), provider_cost_usd="0.001", cost_nano=1_000_000, charge_nano=1_000_000
    )
    settle = worker.settle(hold, attempt)
    world.post()
    assert world.check() == []
    adjustments.adjust(world.database, world.ids, hold_id=settle.id, attempt=1, exact=Usage(input=50), now_us=world.clock.us)
    assert world.check() == []
