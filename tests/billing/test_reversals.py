"""Money that goes back to cards: credit is withdrawn at once and once, what was spent is owed, and the books always agree."""

import random

import pytest
from tests.billing.conftest import RATES
from tests.support.cards import DOLLAR, Died, again, event_states, hear, make_till, order, settle
from tests.support.stripe_site import StripeSite

from farebox.billing.accounts import adjustments
from farebox.billing.books.customers import CommandRefused
from farebox.billing.invoicing import focus
from farebox.billing.payments import reversals
from farebox.storage.reports import Narrow
from farebox.wires.usage import Usage

USAGE = Usage(input=1_000_000, output=100_000)
"""About 3.50 USD at the world's rates."""


@pytest.fixture
def site():
    with StripeSite() as made:
        yield made


def bought(world, site, account, amount_nano=25 * DOLLAR, command="one"):
    """A payment that is credited."""
    payment, till = order(world, account, amount_nano, command), make_till(world, site)
    till.round()
    hear(world, site.pay(again(world, payment).session_id))
    till.round()
    found = again(world, payment)
    assert found.state == "credited"
    return found


def refund(world, payment, amount_nano=None, command="back", **more):
    return reversals.order_refund(
        world.database, world.ids, id=world.ids.new("rev"), payment_id=payment.id, amount_nano=amount_nano,
        command_id=command, now_us=world.clock.us, **more,
    )  # fmt: skip


def states(world, payment):
    found = world.database.read(lambda connection: reversals.of_payment(connection, payment.id))
    return [(one.kind, one.state, one.amount_minor) for one in found]


def left(world, account):
    return world.balance(account).remaining_nano


def tell(world, till, event):
    hear(world, event)
    settle(world, till, 2)
    assert not world.check()


def spend(world, account, calls=None):
    """A call of about 3.50 USD, posted; what it was charged."""
    worker = world.worker(f"w{len(world.workers)}")
    made = worker.call(world.key(account), USAGE)
    worker.close()
    world.post()
    assert not world.check()
    if made is not None and calls is not None:
        calls.append(made)
    return 0 if made is None else made.charge_nano


def test_a_part_and_then_the_rest_go_back(world, site):
    account = world.account()
    payment, till = bought(world, site, account), make_till(world, site)
    made = refund(world, payment, 10 * DOLLAR)
    assert made.state == "wanted" and left(world, account) == 15 * DOLLAR, "withdrawn before it is asked for"
    assert not world.check()
    assert world.sums()["refunds"] == -10 * DOLLAR
    assert refund(world, payment, 10 * DOLLAR) == made, "the same command is the same refund"
    settle(world, till, 2)
    assert states(world, payment) == [("refund", "done", 1_000)] and world.sums()["cash"] == 15 * DOLLAR
    with pytest.raises(CommandRefused, match=r"15\.00 USD can be refunded"):
        refund(world, payment, 16 * DOLLAR, "more")
    refund(world, payment, None, "rest")
    settle(world, till, 2)
    assert states(world, payment)[1] == ("refund", "done", 1_500) and left(world, account) == 0
    assert world.sums()["cash"] == 0 and world.sums()["refunds"] == 0 and not world.check()
    assert [one["amount"] for one in site.objects.values() if one["object"] == "refund"] == [1_000, 1_500]
    assert len(world.outbox("payment_refunded")) == 2
    lines = world.database.read(lambda c: list(focus.focus_table(c, Narrow(since_us=0), "1.3")))
    billed = [column.name for column in focus.columns("1.3")].index("BilledCost")
    assert [line[billed] for line in lines] == [25 * DOLLAR, -10 * DOLLAR, -15 * DOLLAR], "what is billed is what came in"
    for event in list(site.events):
        tell(world, till, event)
    assert len(states(world, payment)) == 2 and left(world, account) == 0, "told again, nothing moves"
    late = site.dispute(payment.intent_id, 2_500)
    tell(world, till, late)
    assert event_states(world)[late["id"]] == "quarantined", "a dispute of what was refunded whole is for a person"
    assert len(states(world, payment)) == 2 and left(world, account) == 0 and not world.check()
    assert len(world.outbox("payment_quarantined")) == 1


def test_credit_that_is_spent_is_owed_and_paid_by_the_next_top_up(world, site):
    account = world.account()
    payment, till = bought(world, site, account, 5 * DOLLAR), make_till(world, site)
    charged = spend(world, account)
    with pytest.raises(CommandRefused, match="below zero"):
        refund(world, payment)
    tell(world, till, site.refund(payment.intent_id, 500))
    assert left(world, account) == -charged and states(world, payment) == [("refund", "done", 500)]
    assert world.sums()[f"clawback:{account}"] == charged and len(world.outbox("credit_below_zero")) == 1
    assert spend(world, account) == 0, "nothing is served below zero"
    world.top_up(account, 10 * DOLLAR, promo=True)
    settle(world, till, 6)
    assert world.sums()[f"clawback:{account}"] == charged and not world.check(), "what is given away pays nothing of it"
    bought(world, site, account, 10 * DOLLAR, "two")
    settle(world, till, 6)
    assert world.sums()[f"clawback:{account}"] == 0 and left(world, account) == 20 * DOLLAR - charged and not world.check()
    assert spend(world, account) > 0
    credits = world.credits(account)
    assert credits.granted_nano - credits.expired_nano - credits.reversed_nano - credits.used_nano == left(world, account)


def test_what_calls_in_flight_may_need_is_not_withdrawn(world, site):
    account = world.account()
    payment, till = bought(world, site, account, 5 * DOLLAR), make_till(world, site)
    worker = world.worker()
    hold = worker.hold(world.key(account), 4 * DOLLAR)
    with pytest.raises(CommandRefused, match=r"1\.00 USD of bought credit"):
        refund(world, payment)
    refund(world, payment, below_zero=True)
    settle(world, till, 2)
    assert not world.check()
    settled = worker.settle(hold, worker.attempt(hold, USAGE))
    worker.close()
    world.post()
    settle(world, till, 6)
    assert not world.check() and left(world, account) == -settled.charge_nano
    assert world.sums()[f"clawback:{account}"] == settled.charge_nano


@pytest.mark.parametrize("spent", [False, True])
def test_a_dispute_withdraws_and_its_end_decides(world, site, spent):
    account = world.account()
    till = make_till(world, site)
    kept, gone = (bought(world, site, account, 5 * DOLLAR, name) for name in ("kept", "gone"))
    charged = sum(spend(world, account) for _ in range(2)) if spent else 0
    tell(world, till, site.dispute(kept.intent_id, 500, "warning_needs_response"))
    assert states(world, kept) == [], "an inquiry withholds nothing"
    first = site.dispute(kept.intent_id, 500)
    second = site.dispute(gone.intent_id, 300)
    tell(world, till, first)
    tell(world, till, second)
    assert left(world, account) == 2 * DOLLAR - charged and world.sums()["disputes"] == -8 * DOLLAR
    assert len(world.outbox("payment_disputed")) == 2
    won = site.move(first["data"]["object"]["id"], "won")
    lost = site.move(second["data"]["object"]["id"], "lost")
    for event in (won, lost, first, second, lost, won):
        tell(world, till, event)
    assert states(world, kept) == [("dispute", "returned", 500)] and states(world, gone) == [("dispute", "done", 300)]
    assert left(world, account) == 7 * DOLLAR - charged and world.sums()["disputes"] == 0
    assert world.sums()["cash"] == 7 * DOLLAR


def test_a_refund_that_fails_gives_the_credit_back(world, site):
    account = world.account()
    till = make_till(world, site)
    slow, quick = (bought(world, site, account, 5 * DOLLAR, name) for name in ("slow", "quick"))
    site.refund_status = "pending"
    refund(world, slow, command="a")
    settle(world, till, 2)
    site.refund_status = "succeeded"
    refund(world, quick, 2 * DOLLAR, "b")
    settle(world, till, 2)
    assert states(world, slow) == [("refund", "open", 500)] and left(world, account) == 3 * DOLLAR
    for one in [one["id"] for one in site.objects.values() if one["object"] == "refund"]:
        tell(world, till, site.move(one, "failed"))
    assert states(world, slow) == [("refund", "returned", 500)] and states(world, quick) == [("refund", "returned", 200)]
    assert left(world, account) == 10 * DOLLAR and world.sums()["cash"] == 10 * DOLLAR and world.sums()["refunds"] == 0
    refund(world, quick, command="again")
    settle(world, till, 2)
    assert left(world, account) == 5 * DOLLAR and not world.check()


def test_a_refund_that_stripe_refuses_gives_the_credit_back(world, site):
    account = world.account()
    payment, till = bought(world, site, account), make_till(world, site)
    site.refund(payment.intent_id, 2_500)  # at the dashboard, and its webhook is not here yet
    refund(world, payment, 10 * DOLLAR)
    settle(world, till, 2)
    assert states(world, payment) == [("refund", "returned", 1_000)] and left(world, account) == 25 * DOLLAR
    tell(world, till, site.events[-1])
    assert states(world, payment)[-1] == ("refund", "done", 2_500) and left(world, account) == 0


def test_a_refund_that_comes_before_the_payment(world, site):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    till.round()
    paid = site.pay(again(world, payment).session_id)
    (intent,) = [one["id"] for one in site.objects.values() if one["object"] == "payment_intent"]
    tell(world, till, site.refund(intent, 1_000))
    tell(world, till, paid)
    assert left(world, account) == 15 * DOLLAR and states(world, payment) == [("refund", "done", 1_000)]


def test_what_cannot_be_is_told_and_moves_nothing(world, site):
    account = world.account()
    payment, till = bought(world, site, account), make_till(world, site)
    more, foreign = site.dispute(payment.intent_id, 2_501), site.dispute(payment.intent_id, 100)
    site.objects[foreign["data"]["object"]["id"]]["currency"] = "eur"
    other = site.dispute(payment.intent_id, 100)
    site.objects[other["data"]["object"]["id"]]["payment_intent"] = None
    for event in (more, foreign, other):
        tell(world, till, event)
    found = event_states(world)
    assert [found[one["id"]] for one in (more, foreign, other)] == ["quarantined", "quarantined", "ignored"]
    assert left(world, account) == 25 * DOLLAR and states(world, payment) == []
    with pytest.raises(CommandRefused, match="nothing was credited"):
        refund(world, order(world, account, command="unpaid"), command="x")
    with pytest.raises(CommandRefused, match="whole cents"):
        refund(world, payment, DOLLAR + 1, "y")


@pytest.mark.parametrize("point", ["card.before_call", "card.after_call"])
def test_death_around_the_call_refunds_once(world, site, point):
    account = world.account()
    payment = bought(world, site, account)
    refund(world, payment, 10 * DOLLAR)
    for _ in range(3):
        with pytest.raises(Died):
            make_till(world, site, point).round()
    settle(world, make_till(world, site), 2)
    assert [one["amount"] for one in site.objects.values() if one["object"] == "refund"] == [1_000]
    assert states(world, payment) == [("refund", "done", 1_000)] and left(world, account) == 15 * DOLLAR and not world.check()


@pytest.mark.parametrize("fault", ["500", "500_after", "429", "lost"])
def test_what_goes_wrong_at_stripe_refunds_once(world, site, fault):
    account = world.account()
    payment, till = bought(world, site, account), make_till(world, site)
    site.faults = [("POST", "/v1/refunds", fault), ("GET", "/v1/refunds", fault)]
    refund(world, payment, 10 * DOLLAR)
    settle(world, till, 60, step_s=15)
    assert not site.faults or fault == "lost"
    assert [one["amount"] for one in site.objects.values() if one["object"] == "refund"] == [1_000]
    assert states(world, payment) == [("refund", "done", 1_000)] and left(world, account) == 15 * DOLLAR and not world.check()


@pytest.mark.parametrize("seed", range(3))
def test_the_books_agree_after_every_step_of_a_random_life(world, site, seed):
    """Top-ups by card and by hand, gifts, calls, corrections, refunds, disputes, their ends, in any order: I1–I10 each time."""
    chance = random.Random(seed)
    account = world.account()
    till = make_till(world, site)
    payments, pending, calls = [], [], []
    kinds = ("buy", "buy", "hand", "gift", "call", "call", "call", "correct", "refund", "dashboard", "dispute", "end", "end")
    for step in range(25):
        what = chance.choice(kinds)
        payment = chance.choice(payments) if payments else None
        if what == "buy":
            payments.append(bought(world, site, account, chance.randint(5, 12) * DOLLAR, f"s{step}"))
        elif what in ("hand", "gift"):
            world.top_up(account, chance.randint(1, 4) * DOLLAR, promo=what == "gift")
        elif what == "call":
            spend(world, account, calls)
        elif what == "correct" and calls:
            call = calls.pop(chance.randrange(len(calls)))
            half = Usage(input=500_000, output=chance.randint(0, 100_000))
            adjustments.adjust(
                world.database, world.ids, hold_id=call.id, attempt=1, exact=half, rates=RATES, now_us=world.clock.us
            )
        elif what == "end" and pending:
            id = pending.pop(chance.randrange(len(pending)))
            ends = ("won", "lost") if site.objects[id]["object"] == "dispute" else ("succeeded", "failed")
            hear(world, site.move(id, chance.choice(ends)))
        elif payment is not None and what in ("refund", "dashboard", "dispute"):
            site.refund_status = chance.choice(("succeeded", "pending"))
            gone = sum(cents for _, state, cents in states(world, payment) if state != "returned")
            cents = chance.randint(1, payment.amount_minor)
            try:
                if what == "refund":
                    refund(world, payment, cents * 10_000_000, f"r{step}", below_zero=chance.random() < 0.5)
                elif cents + gone <= payment.amount_minor:
                    event = (site.refund if what == "dashboard" else site.dispute)(payment.intent_id, cents)
                    hear(world, event)
                    if event["data"]["object"]["status"] in ("pending", "needs_response"):
                        pending.append(event["data"]["object"]["id"])
            except (CommandRefused, Exception) as error:
                assert isinstance(error, CommandRefused) or "greater than" in str(error) or "already" in str(error), error
        settle(world, till, 2)
        assert not world.check(), (seed, step, what)
    world.clock.us += 6_000_000
    till.round()
    sums = world.sums()
    owed = sums.get(f"clawback:{account}", 0)
    bought_left = sum(-amount for name, amount in sums.items() if name.startswith("credit:"))
    assert left(world, account) == bought_left - owed and not world.check()
