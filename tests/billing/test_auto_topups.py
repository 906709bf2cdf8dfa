"""Top-ups by a saved card: one charge for a crossing, whatever dies, hangs, races or declines; never above the month's cap."""

import threading

import pytest
from sqlalchemy import select
from tests.support.cards import DOLLAR, TERMS, Died, again, event_states, hear, make_till, settle
from tests.support.stripe_site import StripeSite

from farebox.billing.books import customers
from farebox.billing.books.customers import CommandRefused
from farebox.billing.payments import auto_topups, card_payments
from farebox.storage.tables import outbox
from farebox.wires.usage import Usage

DAY_US = 86_400_000_000
USAGE = Usage(input=1_000_000, output=100_000)
"""About 3.50 USD at the world's rates."""


@pytest.fixture
def site():
    with StripeSite() as made:
        yield made


def wish(world, account, below=5, amount=25, cap=200):
    return auto_topups.set_up(
        world.database, TERMS, account_id=account, below_nano=below * DOLLAR, amount_nano=amount * DOLLAR,
        month_cap_nano=cap * DOLLAR, now_us=world.clock.us,
    )  # fmt: skip


def ready(world, site, credit=6, **wishes):
    """An account above its threshold, with a saved card."""
    account = world.account(credit * DOLLAR)
    wish(world, account, **wishes)
    page = auto_topups.order_setup(world.database, TERMS, id=world.ids.new("pay"), account_id=account, now_us=world.clock.us)
    till = make_till(world, site)
    till.round()
    hear(world, site.save_card(again(world, page).session_id))
    till.round()
    assert again(world, page).state == "credited" and stored(world, account).payment_method.startswith("pm_")
    return account


def stored(world, account):
    return world.database.read(lambda connection: auto_topups.auto_topup(connection, account))


def payments(world, account, kind="auto"):
    found = world.database.read(lambda connection: card_payments.listed(connection, account_id=account))
    return [one for one in reversed(found) if one.kind == kind]


def spend(world, account):
    worker = world.worker(f"w{len(world.workers)}")
    made = worker.call(world.key(account), USAGE)
    worker.close()
    world.post()
    return made.charge_nano


def told(world, kind):
    query = select(outbox.c.payload).where(outbox.c.kind == kind)
    return list(world.database.read(lambda connection: connection.execute(query).scalars().all()))


def test_one_charge_for_a_crossing(world, site):
    account, till = ready(world, site), make_till(world, site)
    settle(world, till, 5)
    assert site.charges() == [], "it is not below yet"
    charged = spend(world, account)
    settle(world, till, 20)
    assert site.charges() == [2_500] and [one.state for one in payments(world, account)] == ["credited"]
    assert world.balance(account).remaining_nano == 31 * DOLLAR - charged and not world.check()
    (intent,) = [one for one in site.objects.values() if one["object"] == "payment_intent"]
    event = site.event("payment_intent.succeeded", intent)
    hear(world, event)
    settle(world, till, 2)
    assert world.balance(account).remaining_nano == 31 * DOLLAR - charged and event_states(world)[event["id"]] == "done"


def test_two_tills_at_once_charge_once(world, site):
    account = ready(world, site)
    spend(world, account)
    threads = [threading.Thread(target=make_till(world, site).round) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settle(world, make_till(world, site), 5)
    assert site.charges() == [2_500] and len(payments(world, account)) == 1 and not world.check()


@pytest.mark.parametrize("point", ["card.before_call", "card.after_call", "card.before_credit", "card.after_credit"])
def test_death_between_any_two_steps_charges_once(world, site, point):
    account = ready(world, site)
    charged = spend(world, account)
    for _ in range(3):
        try:
            make_till(world, site, point).round()
        except Died:
            continue
    settle(world, make_till(world, site), 5)
    assert site.charges() == [2_500] and [one.state for one in payments(world, account)] == ["credited"]
    assert world.balance(account).remaining_nano == 31 * DOLLAR - charged and not world.check()


@pytest.mark.parametrize("fault", ["500", "500_after", "429", "lost"])
def test_what_goes_wrong_at_stripe_charges_once(world, site, fault):
    account, till = ready(world, site), make_till(world, site)
    spend(world, account)
    site.faults = [("POST", "/v1/payment_intents", fault), ("GET", "/v1/payment_intents", fault)]
    settle(world, till, 60, step_s=15)
    assert site.charges() == [2_500] and [one.state for one in payments(world, account)] == ["credited"] and not world.check()


def test_another_card_after_a_lost_answer_charges_no_second_time(world, site):
    """The key was used for the first card: Stripe refuses the second body, and what became of the first is looked for."""
    account = ready(world, site)
    spend(world, account)
    with pytest.raises(Died):
        make_till(world, site, "card.after_call").round()
    page = auto_topups.order_setup(world.database, TERMS, id=world.ids.new("pay"), account_id=account, now_us=world.clock.us)
    session = make_till(world, site).advance(page).session_id
    hear(world, site.save_card(session))
    settle(world, make_till(world, site), 10)
    assert site.charges() == [2_500] and [one.state for one in payments(world, account)] == ["credited"]


def test_a_declined_card_is_tried_later_and_then_no_more(world, site):
    account, till = ready(world, site), make_till(world, site)
    spend(world, account)
    site.card = "card_declined"
    settle(world, till, 5)
    assert [one.state for one in payments(world, account)] == ["declined"], "not again and again"
    world.clock.us += 3_700_000_000
    settle(world, till, 5)
    assert len(payments(world, account)) == 2 and stored(world, account).enabled
    for _ in range(3):
        world.clock.us += DAY_US
        settle(world, till, 3)
    assert [one.state for one in payments(world, account)] == ["declined"] * 3 and not stored(world, account).enabled
    assert len(told(world, "auto_topup_declined")) == 3 and len(told(world, "auto_topup_disabled")) == 1
    assert "declined" in told(world, "auto_topup_declined")[0]
    site.card = "ok"
    wish(world, account)
    settle(world, till, 3)
    assert site.charges() == [2_500] and stored(world, account).declines == 0 and not world.check()


def test_where_the_bank_wants_its_customer_a_page_is_told(world, site):
    account, till = ready(world, site), make_till(world, site)
    charged = spend(world, account)
    site.card = "authentication_required"
    settle(world, till, 5)
    (page,) = payments(world, account, "checkout")
    assert page.state == "open" and [page.url in one for one in told(world, "payment_authentication")] == [True]
    hear(world, site.pay(page.session_id))
    settle(world, till, 5)
    assert world.balance(account).remaining_nano == 31 * DOLLAR - charged and site.charges() == [] and not world.check()


def test_a_charge_that_takes_its_time(world, site):
    account, till = ready(world, site), make_till(world, site)
    spend(world, account)
    site.card = "processing"
    settle(world, till, 70)
    (one,) = payments(world, account)
    assert one.state == "open" and len([call for call in site.calls if call[:2] == ("POST", "/v1/payment_intents")]) == 1
    intent = site.objects[one.intent_id]
    intent |= {"status": "succeeded", "amount_received": intent["amount"]}
    hear(world, site.event("payment_intent.succeeded", intent))
    settle(world, till, 2)
    assert payments(world, account)[0].state == "credited" and len(payments(world, account)) == 1 and not world.check()


def test_the_month_has_a_cap(world, site):
    account, till = ready(world, site, below=50, amount=25, cap=60), make_till(world, site)
    settle(world, till, 5)
    assert site.charges() == [2_500, 2_500], "6 + 25 + 25 is above 50"
    for _ in range(2):
        for _ in range(3):
            spend(world, account)
        world.clock.us += DAY_US
        settle(world, till, 5)
    assert site.charges() == [2_500, 2_500] and len(told(world, "auto_topup_capped")) == 1
    world.clock.us += 8 * DAY_US  # December
    settle(world, till, 5)
    assert len(site.charges()) == 3 and not world.check()


def test_what_does_not_fit_is_not_credited_and_never_charged_again(world, site):
    account = ready(world, site)
    spend(world, account)
    with pytest.raises(Died):
        make_till(world, site, "card.before_credit").round()
    (intent,) = [one for one in site.objects.values() if one["object"] == "payment_intent"]
    intent["amount_received"] = 100
    site._answers.clear()
    hear(world, site.event("payment_intent.succeeded", intent))
    settle(world, make_till(world, site), 10)
    assert [one.state for one in payments(world, account)] == ["quarantined"] and not stored(world, account).enabled
    assert len(told(world, "payment_quarantined")) >= 1 and not world.check()


def test_what_is_off_or_suspended_is_not_charged(world, site):
    first, second = ready(world, site), ready(world, site)
    auto_topups.switch_off(world.database, first)
    customers.set_account_status(world.database, second, "suspended", now_us=world.clock.us)
    for account in (first, second):
        world.database.write(
            lambda c, a=account: c.exec_driver_sql(f"UPDATE auto_topups SET below_nano = 100000000000 WHERE account_id = '{a}'")
        )
    settle(world, make_till(world, site), 3)
    assert site.charges() == []


def test_what_is_refused(world):
    account = world.account()
    with pytest.raises(CommandRefused, match="at least one top-up"):
        wish(world, account, cap=24)
    with pytest.raises(CommandRefused, match=r"from 5\.00"):
        wish(world, account, amount=1)
    with pytest.raises(CommandRefused, match="postpaid"):
        wish(world, world.account(kind="postpaid", line_nano=DOLLAR))
    with pytest.raises(CommandRefused, match="no automatic top-up"):
        auto_topups.order_setup(world.database, TERMS, id="pay-1", account_id=account, now_us=world.clock.us)
