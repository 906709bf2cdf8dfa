"""Invoices paid by card against a strict Stripe: paid once or not at all, whatever comes twice, late, wrong, or never."""

import pytest
from sqlalchemy import select, text
from tests.support.cards import TERMS, Died, event_states, hear, make_till, settle
from tests.support.stripe_site import StripeSite

from farebox.billing.books import ledger
from farebox.billing.books.customers import CommandRefused, NotFound
from farebox.billing.invariants.checks import check
from farebox.billing.invoicing import dunning, months
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments import bill_payments, card_payments
from farebox.failpoints import POINTS
from farebox.storage import queries
from farebox.storage.tables import transfers
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
OUTPUT = Usage(output=100_000)
INVOICES = Terms(seller="Example Ltd", tax_bp=1_900)
DUE = 1_190_000_000
"""One dollar of output and the fee of a request that rounds away, with 19 % tax."""


@pytest.fixture
def site():
    with StripeSite() as made:
        yield made


@pytest.fixture
def owing(world):
    """A postpaid account with the invoice of November, on 3 December."""
    world.owner = world.account(kind="postpaid", line_nano=100 * DOLLAR)
    world.owner_key = world.key(world.owner)
    world.slot = world.worker()
    close(world, "2026-11", 10 * DAY_US)
    return world


def close(world, month, days_us):
    assert world.slot.call(world.owner_key, OUTPUT)
    world.post()
    world.clock.us += days_us
    months.close(world.database, world.ids, account_id=world.owner, month=month, terms=INVOICES, now_us=world.clock.us)


def ask(world, number="INV-000001", command="one", account=None):
    return bill_payments.order(
        world.database, TERMS, INVOICES, id=world.ids.new("bill"), account_id=account or world.owner, number=number,
        command_id=command, now_us=world.clock.us,
    )  # fmt: skip


def again(world, payment):
    return world.database.read(lambda connection: bill_payments.payment(connection, payment.id))


def standing(world):
    found = world.database.read(lambda c: dunning.standings(c, world.owner, INVOICES, world.clock.us))
    return [(one.number, one.open_nano, one.state) for one in found]


def booked(world):
    query = select(transfers.c.cause_id, transfers.c.amount_nano).where(transfers.c.cause_kind == "payment")
    return [tuple(row) for row in world.database.read(lambda connection: connection.execute(query).all())]


def test_an_invoice_is_paid_once_however_often_it_is_told(owing, site):
    world, till = owing, make_till(owing, site)
    assert standing(world) == [("INV-000001", DUE, "open")]
    payment = ask(world)
    assert (payment.state, payment.amount_nano, payment.amount_minor) == ("wanted", DUE, 119)
    assert till.round() == 1
    opened = again(world, payment)
    assert opened.state == "open" and opened.url.startswith("https://checkout.stripe.com/")
    page = site.objects[opened.session_id]
    assert page["amount_total"] == 119 and page["client_reference_id"] == payment.id
    assert ask(world) == opened and ask(world, command="another") == opened, "one page at a time"
    event = site.pay(opened.session_id)
    other = site.event("checkout.session.async_payment_succeeded", site.objects[opened.session_id])
    for one in (other, event, event, other):
        hear(world, one)
        till.round()
    settle(world, till, 70)
    assert again(world, payment).state == "paid"
    assert booked(world) == [(f"card:{payment.id}", DUE)] and standing(world) == [("INV-000001", 0, "paid")]
    assert world.sums()["cash"] == DUE and set(event_states(world).values()) == {"done"} and not world.check()
    with pytest.raises(CommandRefused, match="nothing is open of `INV-000001`"):
        ask(world, command="two")
    assert ask(world).state == "paid", "the same command tells what became of it"


def test_it_is_found_without_any_webhook_and_a_paused_account_works_again(owing, site):
    world, till = owing, make_till(owing, site)
    world.clock.us += 60 * DAY_US
    dunning.remind(world.database, world.ids, INVOICES, world.clock.us)
    status = lambda: world.database.read(lambda c: queries.account(c, world.owner)).status  # noqa: E731
    assert status() == "suspended" and standing(world)[0][2] == "paused"
    payment = ask(world)
    till.round()
    site.pay(again(world, payment).session_id)
    assert till.round() == 0 and status() == "suspended"
    settle(world, till, 65)
    assert again(world, payment).state == "paid" and status() == "active"
    assert [subject for subject, _ in world.outbox("account_resumed")] == [world.owner] and not world.check()


@pytest.mark.parametrize(
    ("came", "said"), [({"amount": 118}, "118 cents were paid, 119 asked for"), ({"currency": "eur"}, "paid in eur")]
)
def test_what_does_not_fit_is_not_booked_and_told(owing, site, came, said):
    world, till = owing, make_till(owing, site)
    payment = ask(world)
    till.round()
    event = site.pay(again(world, payment).session_id, **came)
    hear(world, event)
    settle(world, till, 3)
    found = again(world, payment)
    assert found.state == "quarantined" and said in found.problem and booked(world) == []
    assert world.outbox("payment_quarantined")[0][0] == payment.id and event_states(world)[event["id"]] == "quarantined"
    assert standing(world)[0][2] == "open" and not world.check()
    # The doctor counts the payment and the webhook that told of it.
    assert world.database.read(card_payments.standing).quarantined == 2
    assert [one.id for one in world.database.read(lambda c: bill_payments.listed(c, state="quarantined"))] == [payment.id]


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("card.") and point != "card.after_event"])
def test_death_between_any_two_steps_books_once(owing, site, point):
    world = owing
    payment = ask(world)
    for _ in range(3):
        try:
            make_till(world, site, point).round()
        except Died:
            continue
    settle(world, make_till(world, site), 3)
    opened = again(world, payment)
    assert opened.state == "open" and len([one for one in site.objects if one.startswith("cs_")]) == 1
    hear(world, site.pay(opened.session_id))
    for _ in range(3):
        try:
            make_till(world, site, point).round()
        except Died:
            continue
    settle(world, make_till(world, site), 3)
    assert again(world, payment).state == "paid" and booked(world) == [(f"card:{payment.id}", DUE)] and not world.check()


def test_what_cannot_be_asked_for(owing):
    world = owing
    with pytest.raises(NotFound, match="no invoice `INV-9`"):
        ask(world, "INV-9")
    with pytest.raises(NotFound, match="no invoice `INV-000001` on this account"):
        ask(world, account=world.account(kind="postpaid", line_nano=DOLLAR))
    for command in ("", "x" * 201, "farebox-one"):
        with pytest.raises(CommandRefused, match="a command's id has between 1 and 200"):
            ask(world, command=command)
    close(world, "2026-12", 31 * DAY_US)
    with pytest.raises(CommandRefused, match="the oldest invoice first: pay `INV-000001` before `INV-000002`"):
        ask(world, "INV-000002")
    ask(world, command="mine")
    with pytest.raises(CommandRefused, match="already carried out for the invoice `INV-000001`"):
        ask(world, "INV-000002", command="mine")
    # A part comes by transfer: the page over all of it stays the only one, until it expires.
    pay = {"account_id": world.owner, "now_us": world.clock.us}
    ledger.pay(world.database, world.ids, command_id="bank-1", amount_nano=DOLLAR // 2, **pay)
    with pytest.raises(CommandRefused, match="there is a page over 1.19 USD for `INV-000001` already"):
        ask(world, command="less")
    (waits,) = world.database.read(bill_payments.listed)
    bill_payments.end(world.database, waits.id, "expired", "nobody paid it in time", now_us=world.clock.us)
    assert ask(world, command="less").amount_minor == 69
    (waits, _) = world.database.read(lambda c: bill_payments.listed(c, account_id=world.owner))
    bill_payments.end(world.database, waits.id, "expired", "nobody paid it in time", now_us=world.clock.us)
    ledger.pay(world.database, world.ids, command_id="bank-2", amount_nano=DOLLAR // 2, **pay)
    with pytest.raises(CommandRefused, match="0.19 USD are open of `INV-000001`: by card from 0.50 to 999999.99"):
        ask(world, command="rest")
    # A fraction of a cent is asked for as a whole one, and what is too much is paid ahead.
    ledger.pay(world.database, world.ids, command_id="bank-3", amount_nano=DUE - DOLLAR + 1, **pay)
    rest = ask(world, "INV-000002", command="rest")
    assert rest.amount_minor == 119 and standing(world)[1][1] == DUE - 1


def test_who_pays_after_it_was_paid_otherwise_has_paid_ahead(owing, site):
    world, till = owing, make_till(owing, site)
    payment = ask(world)
    till.round()
    ledger.pay(
        world.database, world.ids, command_id="bank", account_id=world.owner, amount_nano=DUE, now_us=world.clock.us
    )
    hear(world, site.pay(again(world, payment).session_id))
    settle(world, till, 2)
    assert again(world, payment).state == "paid" and world.sums()["cash"] == 2 * DUE
    close(world, "2026-12", 31 * DAY_US)
    assert standing(world) == [("INV-000001", 0, "paid"), ("INV-000002", 0, "paid")] and not world.check()


def test_a_page_that_expires_makes_room_for_another(owing, site):
    world, till = owing, make_till(owing, site)
    first = ask(world)
    till.round()
    hear(world, site.expire(again(world, first).session_id))
    settle(world, till, 2)
    assert again(world, first).state == "expired" and ask(world).state == "expired"
    second = ask(world, command="two")
    assert second.id != first.id and second.state == "wanted"


def test_pages_that_are_not_the_payments_own_book_nothing(owing, site):
    world, till = owing, make_till(owing, site)
    payment = ask(world)
    till.round()
    for reference in (payment.id, "bill-nobody"):
        cheap = site._make_session(
            {"mode": "payment", "client_reference_id": reference, "success_url": "x",
             "line_items": {"0": {"price_data": {"currency": "usd", "unit_amount": "119", "product_data": {}}, "quantity": "1"}}}
        )  # fmt: skip
        event = site.pay(cheap["id"])
        hear(world, event)
        settle(world, till, 2)
        assert event_states(world)[event["id"]] == "quarantined"
    assert again(world, payment).state == "open" and booked(world) == []


def test_a_refund_or_dispute_of_it_is_for_a_person(owing, site):
    world, till = owing, make_till(owing, site)
    payment = ask(world)
    till.round()
    hear(world, site.pay(again(world, payment).session_id))
    settle(world, till, 2)
    intent = again(world, payment).intent_id
    for event in (site.refund(intent, 119), site.dispute(intent, 119)):
        hear(world, event)
        settle(world, till, 2)
        assert event_states(world)[event["id"]] == "quarantined"
    assert len(world.outbox("payment_quarantined")) == 2 and standing(world)[0][2] == "paid" and not world.check()


def test_an_account_that_became_prepaid_meanwhile_is_told_of(owing, site):
    world, till = owing, make_till(owing, site)
    payment = ask(world)
    till.round()
    hear(world, site.pay(again(world, payment).session_id))
    change = text("UPDATE accounts SET kind = 'prepaid', credit_limit_nano = 0 WHERE id = :id")
    world.database.write(lambda connection: connection.execute(change, {"id": world.owner}))
    settle(world, till, 2)
    found = again(world, payment)
    assert found.state == "quarantined" and "is prepaid by now" in found.problem and booked(world) == []


def test_the_check_finds_a_payment_without_its_transfer_and_the_other_way_round(owing, site):
    world, till = owing, make_till(owing, site)
    payment = ask(world)
    till.round()
    hear(world, site.pay(again(world, payment).session_id))
    settle(world, till, 2)
    for sql, said in (
        ("UPDATE bill_payments SET state = 'failed'", "the transfer is of a payment by card that was not paid"),
        ("UPDATE bill_payments SET state = 'paid', amount_nano = 1", "its transfer is not what was paid"),
    ):
        world.database.write(lambda connection, sql=sql: connection.execute(text(sql)))
        found = [one for one in check(world.database) if one.invariant == "I2"]
        assert len(found) == 1 and said in found[0].sentence
