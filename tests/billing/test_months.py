"""Months: every charge is on one document or accrued, to the nano-dollar, whatever comes late or is taken back."""

import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import func, select, text

from farebox import display
from farebox.billing.accounts import adjustments
from farebox.billing.books import customers, ledger
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.periods import month_bounds, month_of
from farebox.billing.invoicing import dunning, invoices
from farebox.billing.invoicing.credit_notes import credit_note
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.invoicing.months import MonthCloser, close, stored
from farebox.billing.markup import Fees
from farebox.billing.pricing import charge_nano, cost_pico
from farebox.storage.tables import budgets, closed_months, invoice_parts, scopes, usage
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
CENT = 10_000_000
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
TERMS = Terms(seller="Example Ltd", address=("1 Some Street",), tax_id="X1", tax_bp=1_900)


def nano(amount):
    return int(Decimal(amount).scaleb(9))


def documents(world, **wanted):
    return world.database.read(lambda connection: stored(connection, **wanted))


def shut(world, account, month, terms=TERMS, **more):
    return close(world.database, world.ids, account_id=account, month=month, terms=terms, now_us=world.clock.us, **more)


def charged(world, account):
    query = select(func.coalesce(func.sum(usage.c.charge_nano), 0)).where(usage.c.account_id == account)
    return int(world.database.read(lambda c: c.execute(query).scalar_one()))


def accrued(world, account):
    """Charges that are on no document, by a query of its own."""
    query = text(
        "SELECT COALESCE(SUM(charge_nano), 0) FROM usage u WHERE account_id = :account AND NOT EXISTS "
        "(SELECT 1 FROM invoice_parts p WHERE p.transfer_id = u.transfer_id "
        "AND p.from_us <= u.created_us AND u.created_us < p.until_us)"
    )
    return int(world.database.read(lambda c: c.execute(query, {"account": account}).scalar_one()))


def assert_balanced(world, account):
    """Σ usage = Σ lines + rounding + accrual, exactly; each line is its rows, rounded to cents once."""
    made = documents(world, account_id=account)
    total = 0
    for document in made:
        lines = sum(nano(line.amount) for line in document.lines)
        assert lines == nano(document.net) and lines % CENT == 0
        for line in document.lines:
            assert nano(line.amount) == round(Fraction(nano(line.exact), CENT)) * CENT
        assert lines + nano(document.rounding) == nano(document.usage) == sum(nano(line.exact) for line in document.lines)
        total += lines + nano(document.rounding)
    assert total + accrued(world, account) == charged(world, account)


@pytest.fixture
def busy(world):
    """A prepaid and a postpaid account with a call each in November."""
    world.prepaid, world.postpaid = world.account(10 * DOLLAR), world.account(kind="postpaid", line_nano=10 * DOLLAR)
    world.keys = [world.key(world.prepaid), world.key(world.postpaid)]
    world.calls = []
    world.gateway = world.worker()
    for key in world.keys:
        world.calls.append(world.gateway.call(key, Usage(input=100_000, output=30_000), markup_bp=1_000, hold_nano=DOLLAR))
    world.post()
    return world


def to_december(world, days=2):
    world.clock.us = month_bounds("2026-12")[0] + days * DAY_US


def test_an_invoice_has_lines_by_class_and_the_fee_apart(busy):
    to_december(busy)
    (made,) = shut(busy, busy.postpaid, "2026-11")
    price = busy.calls[1].charge_nano
    assert [(line.model, line.unit, line.quantity, line.amount) for line in made.lines] == [
        ("openai/gpt-4o", "input", 100_000, "0.25"),
        ("openai/gpt-4o", "output", 30_000, "0.30"),
        ("openai/gpt-4o", "request", 1, "0.00"),
        ("openai/gpt-4o", "gateway_fee", 0, "0.06"),
    ]
    assert (made.number, made.kind, made.month, made.issued, made.due_day) == (
        "INV-000001", "invoice", "2026-11", "2026-12-03", "2026-12-17",
    )  # fmt: skip
    assert nano(made.usage) == price == 605_000_002
    assert (made.net, made.rounding, made.tax.percent, made.tax.amount) == ("0.61", "-0.004999998", "19.00", "0.12")
    assert (made.total, made.credit, made.due) == ("0.73", "0.00", "0.73")
    owed = busy.sums()[f"receivable:{busy.postpaid}"]
    assert owed == 73 * CENT, "the account owes what its invoice says, in whole cents"
    assert busy.balance(busy.postpaid).remaining_nano == 10 * DOLLAR - owed
    assert busy.check() == []


def test_a_prepaid_invoice_is_paid_by_its_credit(busy):
    to_december(busy)
    (made,) = shut(busy, busy.prepaid, "2026-11")
    assert (made.net, made.tax.amount, made.tax.percent, made.credit, made.due, made.due_day) == (
        "0.61", "0.00", "0.00", "0.61", "0.00", None,
    )  # fmt: skip
    sums = busy.sums()
    assert sums["rounding"] == 4_999_998 and sums.get(f"receivable:{busy.prepaid}", 0) == 0
    assert busy.check() == []


def test_closing_again_gives_the_same_bytes(busy):
    to_december(busy)
    first = [invoices.encode(one) for one in shut(busy, busy.postpaid, "2026-11")]
    for day in range(10):
        busy.clock.us += day * DAY_US
        assert [invoices.encode(one) for one in shut(busy, busy.postpaid, "2026-11", Terms(seller="Renamed"))] == first
    customers.set_credit_limit(busy.database, busy.postpaid, 20 * DOLLAR, now_us=0)
    assert [invoices.encode(one) for one in documents(busy, account_id=busy.postpaid)] == first


def test_a_month_is_not_closed_before_its_grace_is_over(busy):
    busy.clock.us = month_bounds("2026-12")[0] + 23 * HOUR_US
    with pytest.raises(CommandRefused, match="from 2026-12-02T00:00:00"):
        shut(busy, busy.postpaid, "2026-11")
    assert shut(busy, busy.postpaid, "2026-11", early=True)
    with pytest.raises(CommandRefused, match="2027-01-01"):
        shut(busy, busy.postpaid, "2026-12", early=True)


def test_late_usage_goes_to_the_next_invoice_in_lines_of_its_month(busy):
    hold = busy.gateway.hold(busy.keys[1], DOLLAR)
    to_december(busy)
    shut(busy, busy.postpaid, "2026-11")
    late = busy.gateway.settle(hold, busy.gateway.attempt(hold, Usage(input=40_000)))
    busy.gateway.call(busy.keys[1], Usage(output=7_000), hold_nano=DOLLAR)
    busy.post()
    assert accrued(busy, busy.postpaid) > late.charge_nano
    busy.clock.us = month_bounds("2027-01")[0] + 2 * DAY_US
    (made,) = [one for one in shut(busy, busy.postpaid, "2026-12")]
    assert [(line.month, line.unit) for line in made.lines] == [
        ("2026-11", "input"), ("2026-11", "request"), ("2026-12", "output"), ("2026-12", "request"),
    ]  # fmt: skip
    assert made.number == "INV-000002" and accrued(busy, busy.postpaid) == 0
    assert_balanced(busy, busy.postpaid)
    assert busy.check() == []


def test_another_currency_is_frozen_into_the_invoice_and_its_credit_note(busy):
    to_december(busy)
    euro = msgspec.structs.replace(TERMS, display=display.read("EUR", {"2026-11-15": "0.92"}, "the bank"))
    yen = msgspec.structs.replace(TERMS, display=display.read("JPY", {"2026-11-01": "150"}))
    (invoice,) = shut(busy, busy.postpaid, "2026-11", euro)
    told = invoice.display
    assert (told.currency, told.rate, told.day, told.source) == ("EUR", "0.92", "2026-11-15", "the bank")
    assert nano(told.total) == round(Fraction(nano(invoice.total)) * 92 / 100 / 10**7) * 10**7
    assert shut(busy, busy.postpaid, "2026-11", yen) == [invoice], "a rate that changes later changes nothing about it"
    note = credit_note(
        busy.database, busy.ids, number=invoice.number, calls=[busy.calls[1].id], reason="r", terms=yen, now_us=busy.clock.us
    )
    assert note.display == msgspec.structs.replace(told, total="-" + told.total, due="-" + told.due)
    assert busy.check() == []


def test_a_call_is_taken_back_by_a_credit_note(busy):
    to_december(busy)
    (invoice,) = shut(busy, busy.postpaid, "2026-11")
    call = busy.calls[1]
    note = credit_note(
        busy.database, busy.ids, number=invoice.number, calls=[call.id], reason="sent twice", terms=TERMS, now_us=busy.clock.us
    )
    assert (note.number, note.kind, note.corrects, note.reason) == ("CN-000001", "credit_note", invoice.number, "sent twice")
    assert [(line.unit, line.quantity, line.amount) for line in note.lines] == [
        (line.unit, -line.quantity, "-" + line.amount if nano(line.amount) else line.amount) for line in invoice.lines
    ]
    assert nano(note.due) == -nano(invoice.due)
    assert busy.sums().get(f"receivable:{busy.postpaid}", 0) == 0 and busy.sums().get("tax_payable", 0) == 0
    assert busy.balance(busy.postpaid).remaining_nano == 10 * DOLLAR
    assert busy.check() == []
    (first, second) = busy.database.read(lambda c: dunning.standings(c, busy.postpaid, TERMS, busy.clock.us))
    assert (first.state, first.open_nano, second.open_nano) == ("paid", 0, 0)
    again = dict(number=invoice.number, calls=[call.id], reason="again", terms=TERMS, now_us=busy.clock.us)
    with pytest.raises(CommandRefused, match="charged any more"):
        credit_note(busy.database, busy.ids, **again)
    with pytest.raises(CommandRefused, match="is not on the invoice"):
        credit_note(busy.database, busy.ids, **{**again, "calls": [busy.calls[0].id]})
    with pytest.raises(CommandRefused, match="there is no invoice"):
        credit_note(busy.database, busy.ids, **{**again, "number": "INV-9"})
    with pytest.raises(CommandRefused, match="has a reason"):
        credit_note(busy.database, busy.ids, **{**again, "reason": " "})
    assert len(documents(busy, account_id=busy.postpaid)) == 2, "what is refused leaves no number behind"


def test_a_correction_of_frozen_usage_becomes_a_credit_note_at_the_next_close(busy):
    hold = busy.gateway.hold(busy.keys[0], DOLLAR)
    settle = busy.gateway.settle(hold, busy.gateway.attempt(hold, Usage(output=50_000), basis="estimated"))
    busy.post()
    to_december(busy)
    (invoice,) = shut(busy, busy.prepaid, "2026-11")
    adjustments.adjust(
        busy.database, busy.ids, hold_id=settle.id, attempt=1, exact=Usage(output=20_000), now_us=busy.clock.us
    )
    busy.clock.us = month_bounds("2027-01")[0] + 2 * DAY_US
    (note,) = shut(busy, busy.prepaid, "2026-12")
    assert (note.kind, note.corrects, note.month) == ("credit_note", invoice.number, "2026-12")
    assert [(line.unit, line.quantity, line.amount) for line in note.lines] == [("output", -30_000, "-0.30")]
    assert_balanced(busy, busy.prepaid)
    assert busy.check() == []


def test_promotional_credit_is_taken_off_a_postpaid_invoice(busy):
    busy.top_up(busy.postpaid, 5 * CENT + 7, promo=True)
    busy.gateway.call(busy.keys[1], Usage(output=10_000), hold_nano=DOLLAR)
    busy.post()
    to_december(busy)
    (made,) = shut(busy, busy.postpaid, "2026-11")
    assert made.credit == "0.05" and nano(made.due) == nano(made.total) - 5 * CENT
    assert busy.check() == []


# --- paying ---------------------------------------------------------------------------------------------------------------


def pay(world, account, amount):
    command = world.ids.new("cmd")
    ledger.pay(world.database, world.ids, command_id=command, account_id=account, amount_nano=amount, now_us=world.clock.us)


def states(world, account):
    found = world.database.read(lambda c: dunning.standings(c, account, TERMS, world.clock.us))
    return [(one.state, one.open_nano) for one in found]


def status(world, account):
    from farebox.storage import queries

    return world.database.read(lambda c: queries.account(c, account)).status


def remind(world):
    dunning.remind(world.database, world.ids, TERMS, world.clock.us)


def test_who_does_not_pay_is_reminded_and_paused_and_works_again_when_it_has_paid(busy):
    to_december(busy)
    (made,) = shut(busy, busy.postpaid, "2026-11")
    due = nano(made.due)
    assert states(busy, busy.postpaid) == [("open", due)]
    seen = []
    for _ in range(40):
        remind(busy)
        (found,) = states(busy, busy.postpaid)
        seen.append(found[0])
        busy.clock.us += DAY_US
    assert Counter(seen) == {"open": 14, "overdue": 21, "paused": 5} and seen == sorted(seen)
    assert status(busy, busy.postpaid) == "suspended"
    assert busy.outbox("invoice_overdue") == [(made.number, 0), (made.number, 3), (made.number, 10)], "each once"
    assert len(busy.outbox("account_paused")) == 1
    pay(busy, busy.postpaid, due - 1)
    dunning.paid_again(busy.database, busy.ids, busy.postpaid, TERMS, busy.clock.us)
    assert status(busy, busy.postpaid) == "suspended", "a nano-dollar is open"
    pay(busy, busy.postpaid, 1)
    dunning.paid_again(busy.database, busy.ids, busy.postpaid, TERMS, busy.clock.us)
    assert (status(busy, busy.postpaid), states(busy, busy.postpaid)) == ("active", [("paid", 0)])
    assert len(busy.outbox("account_resumed")) == 1 and busy.sums()[f"receivable:{busy.postpaid}"] == 0
    assert busy.check() == []


def test_an_operators_own_suspension_stays(busy):
    to_december(busy)
    (made,) = shut(busy, busy.postpaid, "2026-11")
    customers.set_account_status(busy.database, busy.postpaid, "suspended", now_us=0)
    busy.clock.us += 60 * DAY_US
    remind(busy)
    pay(busy, busy.postpaid, nano(made.due))
    remind(busy)
    dunning.paid_again(busy.database, busy.ids, busy.postpaid, TERMS, busy.clock.us)
    assert status(busy, busy.postpaid) == "suspended"


def test_payments_pay_the_oldest_invoice_first():
    def invoice(number, due, net):
        return dunning.Standing(
            str(number), "invoice" if net > 0 else "credit_note", "a", "m", None, number, due, net, net, 0, 0
        )

    found = dunning.settle([invoice(1, 10, 100), invoice(2, 20, 50), invoice(3, None, -30), invoice(4, 40, 70)], 90, TERMS, 15)
    assert [(one.open_nano, one.state) for one in found] == [(0, "paid"), (30, "open"), (0, "paid"), (70, "open")]


# --- by itself ------------------------------------------------------------------------------------------------------------


def test_the_closer_closes_what_is_due_and_nothing_twice(busy):
    closer = MonthCloser(busy.database, busy.ids, busy.clock, TERMS)
    assert not closer.step(), "the month is not over"
    busy.clock.us = month_bounds("2027-01")[0] + 23 * HOUR_US
    while closer.step():
        pass
    marked = busy.database.read(lambda c: list(c.execute(select(closed_months.c.month)).scalars()))
    assert marked == ["2026-11"] and len(documents(busy)) == 2, "December has its grace"
    busy.clock.us += 2 * DAY_US
    other = MonthCloser(busy.database, busy.ids, busy.clock, TERMS)
    while other.step() or closer.step():
        pass
    assert len(documents(busy)) == 2 and busy.check() == []
    assert sorted(subject for subject, _ in busy.outbox("invoice_ready")) == ["INV-000001", "INV-000002"]


def test_what_is_posted_while_an_invoice_is_made_is_on_it_or_on_the_next(busy, monkeypatch):
    """The snapshot is taken, then a straggler is posted: the freezing sees that its sums moved and begins again."""
    from farebox.billing.invoicing import months

    hold = busy.gateway.hold(busy.keys[1], DOLLAR)
    to_december(busy)
    collect, calls = months.collect, []

    def interrupted(connection, account_id, until_us):
        found = collect(connection, account_id, until_us)
        if not calls:
            calls.append(busy.gateway.settle(hold, busy.gateway.attempt(hold, Usage(input=5_000))))
        return found

    real_write = busy.database.write

    def write(work):
        if len(calls) == 1:
            calls.append(None)
            busy.post()
        return real_write(work)

    monkeypatch.setattr(months, "collect", interrupted)
    monkeypatch.setattr(busy.database, "write", write)
    (made,) = shut(busy, busy.postpaid, "2026-11")
    assert nano(made.usage) == charged(busy, busy.postpaid) and len(calls) == 2
    assert made.number == "INV-000001", "the number of the attempt that failed is given again"
    assert busy.check() == []


# --- a thousand months ------------------------------------------------------------------------------------------------------


ZONES = ("Europe/Berlin", "America/Santiago", "Australia/Lord_Howe")
"""Clocks that change: by an hour in either half of the year, by half an hour, and Santiago's at midnight."""


def turns(start, end):
    """Moments around the changes of the clocks in a month, and around the end of a leap day."""
    found = []
    for zone in map(ZoneInfo, ZONES):
        offsets = [datetime.fromtimestamp(us // 1_000_000, zone).utcoffset() for us in range(start, end, HOUR_US // 2)]
        changes = [start + n * HOUR_US // 2 for n in range(1, len(offsets)) if offsets[n] != offsets[n - 1]]
        found += [moment + shift for moment in changes for shift in (-1, 0, HOUR_US)]
    leap = datetime.fromtimestamp(start // 1_000_000, UTC)
    if leap.month == 2 and end - start == 29 * DAY_US:
        found += [end - DAY_US, end - 1]
    return found


def windows(world, account):
    """What is posted in each window of each budget."""
    query = select(scopes.c.budget_id, scopes.c.window_name, scopes.c.posted_nano).where(
        scopes.c.account_id == account, scopes.c.kind == "budget", scopes.c.posted_nano > 0
    )
    return {(row.budget_id, row.window_name): row.posted_nano for row in world.database.read(lambda c: c.execute(query).all())}


def windows_by_hand(world, account):
    """The same from the usage rows and a wall calendar."""
    query = select(usage.c.created_us, usage.c.charge_nano).where(usage.c.account_id == account)
    limits = world.database.read(lambda c: c.execute(select(budgets).where(budgets.c.account_id == account)).all())
    forms = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
    found = Counter()
    for row in world.database.read(lambda c: c.execute(query).all()):
        for limit in limits:
            local = datetime.fromtimestamp(row.created_us // 1_000_000, ZoneInfo(limit.zone))
            found[limit.id, local.strftime(forms[limit.window])] += row.charge_nano
    return {window: amount for window, amount in found.items() if amount}


def live(world, chance, months):
    """Accounts over some months: calls at the edges of days and months, of leap days and of changes of the clocks; late
    settlements, corrections, credit notes, changed plans and lines, credit that expires, payments. Every document balances,
    none is ever changed; and every window of a budget, by its own clock, has the charges of the calls that were held in it."""
    accounts = [world.account(50 * DOLLAR), world.account(kind="postpaid", line_nano=50 * DOLLAR)]
    keys = [world.key(account) for account in accounts]
    for account in accounts:
        for zone in ZONES:
            for window in ("day", chance.choice(("week", "month"))):
                world.budget(account, 1_000_000 * DOLLAR, window, zone=zone, hard=chance.random() < 0.5)
    worker, month = world.worker(), month_of(world.clock.us)
    frozen, late, past = {}, [], []
    for _ in range(months):
        start, end = month_bounds(month)
        plan = (chance.choice((0, 550, -200)), chance.choice((None, Fees(per_call_nano=1_234), Fees(min_nano=999_999))))
        edges = (start, start + 1, end - 1, chance.randrange(start, end), *turns(start, end))
        for moment in sorted(chance.choice(edges) for _ in range(chance.randrange(1, 5))):
            world.clock.us = max(world.clock.us, moment)
            key = chance.choice(keys)
            used = Usage(input=chance.randrange(5_000), cache_read=chance.randrange(500), output=chance.randrange(2_000))
            hold = worker.hold(key, DOLLAR // 4, markup_bp=plan[0])
            if hold is None:
                continue
            price = charge_nano(cost_pico(used, hold.rates), *plan)
            attempt = worker.attempt(hold, used, basis="estimated", fees=plan[1], charge_nano=price)
            if chance.random() < 0.15:
                late.append((hold, attempt))
                continue
            past.append(worker.settle(hold, attempt))
        world.post()
        if past and chance.random() < 0.3:
            adjustments.adjust(
                world.database, world.ids, hold_id=chance.choice(past).id, attempt=1, exact=Usage(output=chance.randrange(2_500)),
                may_raise=True, now_us=world.clock.us,
            )  # fmt: skip
        if chance.random() < 0.2:
            until_us = world.clock.us + chance.randrange(1, 90) * DAY_US
            world.top_up(accounts[0], DOLLAR, expires_us=until_us, promo=chance.random() < 0.5)
        if chance.random() < 0.1:
            world.top_up(accounts[1], 3 * CENT + 1, promo=True)
        if chance.random() < 0.2:
            customers.set_credit_limit(world.database, accounts[1], chance.randrange(1, 80) * DOLLAR, now_us=0)
        world.clock.us = max(world.clock.us, end + DAY_US + chance.randrange(3 * DAY_US))
        ledger.expire(world.database, world.ids, now_us=world.clock.us)
        for account in accounts:
            for made in shut(world, account, month):
                frozen.setdefault(made.number, invoices.encode(made))
            assert_balanced(world, account)
        if late and chance.random() < 0.7:
            hold, attempt = late.pop()
            past.append(worker.settle(hold, attempt))
            world.post()
        if chance.random() < 0.15:
            _take_back(world, chance, accounts)
        if chance.random() < 0.5:
            open_nano = sum(amount for _, amount in states(world, accounts[1]))
            if open_nano:
                pay(world, accounts[1], chance.choice((open_nano, open_nano // 2 + 1)))
        month = month_of(end)
    for hold, attempt in late:
        worker.settle(hold, attempt)
    world.post()
    for document in documents(world):
        assert frozen.setdefault(document.number, invoices.encode(document)) == invoices.encode(document)
    for account in accounts:
        assert windows(world, account) == windows_by_hand(world, account)
    parts = world.database.read(lambda c: c.execute(select(func.count()).select_from(invoice_parts)).scalar_one())
    assert parts and world.check() == []
    worker.close()
    return len(frozen)


def _take_back(world, chance, accounts):
    """A credit note for one call of one invoice, if there is one that still has a charge."""
    found = documents(world, account_id=chance.choice(accounts), kind="invoice")
    if not found:
        return
    number = chance.choice(found).number
    query = (
        select(usage.c.hold_id)
        .join(invoice_parts, (invoice_parts.c.transfer_id == usage.c.transfer_id) & (invoice_parts.c.number == number))
        .where(usage.c.created_us >= invoice_parts.c.from_us, usage.c.created_us < invoice_parts.c.until_us)
        .where(usage.c.revision == 0)
        .order_by(usage.c.hold_id)
    )
    calls = world.database.read(lambda c: list(c.execute(query).scalars()))
    if not calls:
        return  # an invoice of late corrections alone
    try:
        credit_note(
            world.database, world.ids, number=number, calls=[chance.choice(calls)], reason="wrong", terms=TERMS,
            now_us=world.clock.us,
        )  # fmt: skip
    except CommandRefused as error:
        assert "charged any more" in str(error)


STARTS = ("2026-10", "2027-12", "2028-01", "2099-11")
"""Summer time ends and begins, a leap day, the turns of years and of a century."""


@pytest.mark.parametrize("seed", range(4))
def test_random_months_balance(make_world, engine, seed):
    if engine == "postgresql" and seed:
        pytest.skip("one life is enough for the other engine")
    world = make_world()
    world.clock.us = month_bounds(STARTS[seed])[0]
    assert live(world, random.Random(seed), months=30) > 30


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4, 24))
def test_a_thousand_random_months_balance(make_world, engine, seed):
    world = make_world()
    world.clock.us = month_bounds(STARTS[seed % 4])[0]
    live(world, random.Random(seed), months=50 if engine == "sqlite" else 10)
