"""Payments by card against a strict Stripe: credited once or not at all, whatever comes twice, late, wrong, or never."""

import threading

import pytest
from tests.support.cards import DOLLAR, PAGES, Died, again, event_states, hear, make_till, order, settle
from tests.support.stripe_site import StripeSite

from farebox.billing.books.customers import CommandRefused
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments import card_payments
from farebox.control.stripe_api import Stripe
from farebox.control.till import Till
from farebox.failpoints import POINTS


@pytest.fixture
def site():
    with StripeSite() as made:
        yield made


def test_a_payment_becomes_paid_credit_once_however_often_it_is_told(world, site):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    assert payment.state == "wanted" and till.round() == 1
    opened = again(world, payment)
    assert opened.state == "open" and opened.url.startswith("https://checkout.stripe.com/")
    assert order(world, account) == opened, "the same command is the same payment"
    paid = site.pay(opened.session_id)
    other = site.event("checkout.session.async_payment_succeeded", site.objects[opened.session_id])
    for event in (other, paid, paid, other):
        new = event["id"] not in event_states(world)
        assert hear(world, event) == new
        till.round()
    for _ in range(3):
        settle(world, till, 5)
    assert again(world, payment).state == "credited" and world.balance(account).remaining_nano == 25 * DOLLAR
    assert world.credits(account).granted_nano == 25 * DOLLAR and world.sums()["cash"] == 25 * DOLLAR
    assert set(event_states(world).values()) == {"done"} and not world.check()


def test_a_payment_is_found_without_any_webhook(world, site):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    till.round()
    site.pay(again(world, payment).session_id)
    assert till.round() == 0, "it is not asked for all the time"
    settle(world, till, 65)
    assert again(world, payment).state == "credited" and world.balance(account).remaining_nano == 25 * DOLLAR


@pytest.mark.parametrize(
    ("came", "said"),
    [({"amount": 2_499}, "2499 cents were paid, 2500 asked for"), ({"amount": 2_501}, "2501"), ({"currency": "eur"}, "in eur")],
)
def test_what_does_not_fit_is_not_credited_and_told(world, site, came, said):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    till.round()
    event = site.pay(again(world, payment).session_id, **came)
    hear(world, event)
    settle(world, till, 70)
    found = again(world, payment)
    assert found.state == "quarantined" and said in found.problem
    assert world.balance(account).remaining_nano == 0 and not world.check()
    assert world.outbox("payment_quarantined")[0] == (payment.id, 0)
    assert event_states(world)[event["id"]] == "quarantined"


def test_pages_of_others_are_left_alone_and_unknown_ones_are_told(world, site):
    till = make_till(world, site)
    states = {}
    for reference in (None, "order-7", "pay-nobody"):
        session = site._make_session(
            {"mode": "payment", "client_reference_id": reference, "success_url": "x",
             "line_items": {"0": {"price_data": {"currency": "usd", "unit_amount": "500", "product_data": {}}, "quantity": "1"}}}
        )  # fmt: skip
        event = site.pay(session["id"])
        hear(world, event)
        states[reference] = event["id"]
    gone = site.event("checkout.session.completed", {"id": "cs_test_gone"})
    hear(world, gone)
    other = site.event("customer.created", {"id": "cus_1"})
    hear(world, other)
    settle(world, till, 3)
    found = event_states(world)
    assert [found[states[one]] for one in (None, "order-7", "pay-nobody")] == ["ignored", "ignored", "quarantined"]
    assert found[gone["id"]] == "quarantined" and found[other["id"]] == "ignored"
    assert {one for one, _ in world.outbox("payment_quarantined")} == {states["pay-nobody"], gone["id"]}
    card_payments.retry_event(world.database, gone["id"], now_us=world.clock.us)
    assert event_states(world)[gone["id"]] == "new"


def test_another_page_that_names_our_payment_credits_nothing(world, site):
    """Somebody with the publishable side of the account makes a cheaper page with our reference."""
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    till.round()
    cheap = site._make_session(
        {"mode": "payment", "client_reference_id": payment.id, "success_url": "x",
         "line_items": {"0": {"price_data": {"currency": "usd", "unit_amount": "2500", "product_data": {}}, "quantity": "1"}}}
    )  # fmt: skip
    hear(world, site.pay(cheap["id"]))
    settle(world, till, 3)
    assert again(world, payment).state == "open" and world.balance(account).remaining_nano == 0
    assert len(world.outbox("payment_quarantined")) == 1


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("card.") and point != "card.after_event"])
def test_death_between_any_two_steps_credits_once(world, site, point):
    account = world.account()
    payment = order(world, account)
    for _ in range(3):
        try:
            make_till(world, site, point).round()
        except Died:
            continue
    settle(world, make_till(world, site), 3)
    opened = again(world, payment)
    assert opened.state == "open"
    assert len([one for one in site.objects if one.startswith("cs_")]) == 1, "one page, however often it was asked for"
    event = site.pay(opened.session_id)
    hear(world, event)
    for _ in range(3):
        try:
            make_till(world, site, point).round()
        except Died:
            hear(world, event)
    settle(world, make_till(world, site), 3)
    assert again(world, payment).state == "credited" and event_states(world)[event["id"]] == "done"
    assert world.balance(account).remaining_nano == 25 * DOLLAR and world.sums()["cash"] == 25 * DOLLAR
    assert not world.check()


@pytest.mark.parametrize("fault", ["500", "500_after", "429", "lost"])
def test_what_goes_wrong_at_stripe_delays_and_doubles_nothing(world, site, fault):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    site.faults = [("POST", "/v1/checkout/sessions", fault), ("GET", "/v1/checkout/sessions", fault)]
    site.faults.append(("GET", "/v1/payment_intents", fault))
    settle(world, till, 5)
    opened = again(world, payment)
    assert opened.state == "open"
    event = site.pay(opened.session_id)
    hear(world, event)
    settle(world, till, 20)
    assert not site.faults and again(world, payment).state == "credited"
    assert world.balance(account).remaining_nano == 25 * DOLLAR and not world.check()
    keys = {key for method, _, key in site.calls if method == "POST"}
    assert len(keys) == (2 if fault.startswith("500") else 1), "a kept failure needs another key, a lost answer the same one"


def test_a_wrong_key_is_no_verdict_on_a_payment(world, site):
    account = world.account()
    payment = order(world, account)
    api = Stripe("sk_test_wrong", api_base=site.origin)
    wrong = Till(world.database, api, world.clock, world.ids, pages=PAGES, terms=Terms(), fail_point=lambda _: None)
    wrong.round()
    found = again(world, payment)
    assert found.state == "wanted" and "secret key" in found.problem
    world.clock.us += 2_000_000
    make_till(world, site).round()
    assert again(world, payment).state == "open"


def test_an_expired_page_ends_and_a_late_payment_counts_all_the_same(world, site):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    till.round()
    session = again(world, payment).session_id
    hear(world, site.expire(session))
    settle(world, till, 2)
    assert again(world, payment).state == "expired"
    site.objects[session]["status"] = "open"
    hear(world, site.pay(session))
    settle(world, till, 2)
    assert again(world, payment).state == "credited" and world.balance(account).remaining_nano == 25 * DOLLAR


def test_two_tills_at_once_credit_once(world, site):
    account = world.account()
    payments = [order(world, account, (5 + number) * DOLLAR, f"c{number}") for number in range(4)]
    tills = [make_till(world, site) for _ in range(2)]

    def both(work):
        threads = [threading.Thread(target=work, args=(till,)) for till in tills]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    both(lambda till: till.round())
    for payment in payments:
        hear(world, site.pay(again(world, payment).session_id))
    both(lambda till: till.round())
    assert [again(world, payment).state for payment in payments] == ["credited"] * 4
    assert world.balance(account).remaining_nano == sum(5 + number for number in range(4)) * DOLLAR and not world.check()


@pytest.mark.parametrize(
    ("amount_nano", "said"),
    [(4 * DOLLAR, "from 5.00 to 1000.00"), (1_001 * DOLLAR, "from 5.00"), (5 * DOLLAR + 1, "whole cents")],
)
def test_amounts_that_cannot_be_paid_are_refused(world, amount_nano, said):
    with pytest.raises(CommandRefused, match=said):
        order(world, world.account(), amount_nano)


def test_what_else_is_refused(world):
    account, late = world.account(), world.account(kind="postpaid", line_nano=DOLLAR)
    order(world, account)
    with pytest.raises(CommandRefused, match="another amount"):
        order(world, account, 26 * DOLLAR)
    with pytest.raises(CommandRefused, match="postpaid"):
        order(world, late)
    assert order(world, world.account()).id != order(world, account).id, "a command's id is its account's own"


def test_what_nobody_thought_of_holds_up_nothing_else(world, site):
    """One row that makes the till fail is looked at again later; the others are served in the same round."""
    odd, fine = (order(world, world.account(), 5 * DOLLAR, name) for name in ("odd", "fine"))
    till = make_till(world, site)
    make, real = till._api.make_session, {odd.id}

    def fails(**wanted):
        if wanted["payment_id"] in real:
            raise ZeroDivisionError("nobody thought of it")
        return make(**wanted)

    till._api.make_session = fails
    till.round()
    assert again(world, fine).state == "open" and again(world, odd).problem == "ZeroDivisionError: nobody thought of it"
    real.clear()
    settle(world, till, 3)
    assert again(world, odd).state == "open"


def test_old_webhooks_are_forgotten_and_repeat_nothing(world, site):
    account = world.account()
    payment, till = order(world, account), make_till(world, site)
    till.round()
    event = site.pay(again(world, payment).session_id)
    hear(world, event)
    settle(world, till, 2)
    world.clock.us += 91 * 86_400_000_000
    till.round()
    assert event_states(world) == {}
    assert hear(world, event)
    settle(world, till, 2)
    assert world.balance(account).remaining_nano == 25 * DOLLAR and not world.check()
