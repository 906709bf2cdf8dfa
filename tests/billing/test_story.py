"""A customer's story from sign-up to credit note: after each step all invariants hold, and the balance is what one would say."""

from decimal import Decimal

from farebox.billing.books.periods import month_bounds
from farebox.billing.invoicing import dunning
from farebox.billing.invoicing.credit_notes import credit_note
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.invoicing.months import MonthCloser, close, stored
from farebox.billing.markup import Terms as Markup
from farebox.billing.pricing import bill, quote, worst_case_nano
from farebox.catalog.price import Price, Rates, Schedule
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
OLD = Price("m@old", "2026-01-01", Schedule(Rates(input=2_000_000, output=8_000_000)))
NEW = Price("m@new", "2026-11-24", Schedule(Rates(input=4_000_000, output=16_000_000)))
TERMS = Terms(seller="Example Ltd")
MARKUP = Markup("shop", 1_000)
USED = Usage(input=2_000, output=1_000)


class Customer:
    """One account's calls, quoted, held and settled as the gateway does."""

    def __init__(self, world):
        self.world = world
        self.account = world.account()
        self.key = world.key(self.account)
        self.worker = world.worker()

    def hold(self, price):
        quoted = quote(price, terms=MARKUP, service_tier=None, now_us=self.world.clock.us)
        worst = worst_case_nano(quoted, input_tokens=2_000, output_tokens=2_000)
        return self.worker.hold(self.key, worst, rates=price.standard.rates, markup_bp=MARKUP.bp)

    def settle(self, hold, price):
        quoted = quote(price, terms=MARKUP, service_tier=None, now_us=self.world.clock.us)
        charge = bill(USED, quoted).charge_nano
        return self.worker.settle(hold, self.worker.attempt(hold, USED, charge_nano=charge, plan=MARKUP.plan))

    def left(self):
        return self.world.balance(self.account).remaining_nano


def test_from_sign_up_to_credit_note(world):
    def step(expected_left):
        world.post()
        assert customer.left() == expected_left
        assert world.check() == []

    customer = Customer(world)
    assert customer.hold(OLD) is None, "nothing without credit"
    step(0)

    world.top_up(customer.account, 100_000_000)
    step(100_000_000)

    price, worst = 13_200_000, 22_000_000  # 12 m$ and 10 %; the hold is for 2,000 output tokens
    burst = [customer.hold(OLD) for _ in range(6)]
    assert [hold is not None for hold in burst] == [True, True, True, True, False, False], "402: four holds fit into 0.10"
    assert burst[0].amount_nano == worst
    calls = [customer.settle(hold, OLD) for hold in burst[:4]]
    step(100_000_000 - 4 * price)

    world.top_up(customer.account, DOLLAR)
    step(1_100_000_000 - 4 * price)

    streaming = customer.hold(OLD)
    world.clock.us += DAY_US
    dearer = customer.hold(NEW)
    assert customer.settle(streaming, OLD).charge_nano == price, "the price of its hold, though another is in force"
    assert customer.settle(dearer, NEW).charge_nano == 2 * price
    left = 1_100_000_000 - 7 * price
    step(left)

    late = customer.hold(NEW)
    world.clock.us = month_bounds("2026-12")[0] + DAY_US
    closer = MonthCloser(world.database, world.ids, world.clock, TERMS)
    while closer.step():
        pass
    (invoice,) = world.database.read(lambda c: stored(c, account_id=customer.account))
    assert [(line.unit, line.quantity, line.amount) for line in invoice.lines] == [
        ("input", 12_000, "0.03"), ("output", 6_000, "0.06"), ("gateway_fee", 0, "0.01"),
    ]  # fmt: skip
    assert (invoice.usage, invoice.net, invoice.rounding, invoice.due) == ("0.0924", "0.10", "-0.0076", "0.00")
    step(left)

    customer.settle(late, NEW)
    left -= 2 * price
    step(left)
    assert world.database.read(lambda c: stored(c, account_id=customer.account)) == [invoice]

    note = credit_note(
        world.database, world.ids, number=invoice.number, calls=[calls[0].id], reason="wrong answer", terms=TERMS,
        now_us=world.clock.us,
    )  # fmt: skip
    assert (note.usage, note.corrects, note.due) == ("-0.0132", invoice.number, "0.00")
    left += price
    step(left)

    world.clock.us = month_bounds("2027-01")[0] + DAY_US
    (following,) = close(
        world.database, world.ids, account_id=customer.account, month="2026-12", terms=TERMS, now_us=world.clock.us
    )
    assert {line.month for line in following.lines} == {"2026-11"} and following.usage == "0.0264"
    step(left)

    documents = world.database.read(lambda c: stored(c, account_id=customer.account))
    assert [one.number for one in documents] == ["INV-000001", "CN-000001", "INV-000002"]
    total = sum(Decimal(one.net) + Decimal(one.rounding) for one in documents)
    assert total == Decimal(1_100_000_000 - left).scaleb(-9), "Σ lines + rounding = what was drawn from the credit"
    assert {one.state for one in world.database.read(lambda c: dunning.standings(c, customer.account, TERMS, 0))} == {"paid"}
