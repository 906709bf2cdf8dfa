"""I8 sees its own breaks where invoices are concerned. Rows are forged past the triggers."""

import pytest
from tests.billing.test_checks import forge

from farebox.billing.books.periods import month_bounds
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.invoicing.months import close
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000


@pytest.fixture
def frozen(world):
    """A postpaid account's invoice with tax, and a call that came after it."""
    account = world.account(kind="postpaid", line_nano=10 * DOLLAR)
    key = world.key(account)
    worker = world.worker()
    worker.call(key, Usage(input=100_000, output=30_000), hold_nano=DOLLAR)
    world.post()
    world.clock.us = month_bounds("2026-12")[0] + 2 * 86_400_000_000
    close(
        world.database, world.ids, account_id=account, month="2026-11", terms=Terms(tax_bp=1_900), now_us=world.clock.us
    )
    worker.call(key, Usage(input=100), hold_nano=DOLLAR)
    world.post()
    assert world.check() == []
    return world


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE invoice_parts SET charge_nano = charge_nano + 1", "its rows another sum"),
        ("UPDATE invoice_parts SET until_us = until_us + 1", "is not a month"),
        ("UPDATE invoice_parts SET number = 'INV-000009'", "does not exist"),
        ("DELETE FROM invoice_parts", "its parts another sum"),
        ("UPDATE invoices SET usage_nano = usage_nano + 1", "its parts another sum"),
        ("UPDATE invoices SET net_nano = net_nano + 10000000", "not booked as it says"),
        ("UPDATE invoices SET tax_nano = 0", "its tax is not booked"),
        ("UPDATE invoices SET number = 'INV-000002'", "without a gap"),
        ("UPDATE document_numbers SET last = 2", "without a gap"),
        ("UPDATE invoices SET document = replace(document, '\"amount\":\"0.30\"', '\"amount\":\"0.31\"')", "rounded to cents"),
        ("UPDATE invoices SET document = replace(document, '\"exact\":\"0.30\"', '\"exact\":\"0.31\"')", "are not its usage"),
        ("UPDATE invoices SET document = replace(document, '\"due\":\"', '\"due\":\"1')", "the total less credit"),
        ("UPDATE invoices SET document = replace(document, '2026-11', '2026-10')", "account or month is another"),
        ("UPDATE transfers SET cause_id = 'INV-7' WHERE cause_kind = 'rounding'", "does not exist"),
    ],
)
def test_a_break_is_seen(frozen, statement, words):
    forge(frozen, statement)
    found = [violation for violation in frozen.check() if violation.invariant == "I8"]
    assert any(words in violation.sentence for violation in found), frozen.check()


@pytest.mark.parametrize("table", ["invoices", "invoice_parts"])
@pytest.mark.parametrize("verb", ["DELETE FROM {}", "UPDATE {} SET number = 'x'"])
def test_documents_are_never_changed(frozen, table, verb):
    from farebox.storage.database import RowRefused

    with pytest.raises(RowRefused, match="append-only"):
        frozen.database.write(lambda c: c.exec_driver_sql(verb.format(table)))
