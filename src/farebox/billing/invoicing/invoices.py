"""Invoices: what one says. Lines from usage rows, totals in cents, the document that is frozen. No database here.

    line      the nano-dollars of its rows, rounded to cents once, half-even
    net       Σ lines, in cents
    rounding  Σ usage − net: booked to the ledger's `rounding` account, so Σ usage = Σ lines + rounding, exactly
    tax       net × rate, rounded to cents once; postpaid accounts only, a prepaid one is taxed with its top-ups
    credit    what credit has paid of it: all of it for a prepaid account
    due       net + tax − credit

A line is one unit class of one model in one project; the gateway's fee (the markup) has lines of its own. Usage of an earlier
month that came too late for its invoice has its own lines, named by that month.
"""

from collections.abc import Iterable
from datetime import date
from typing import Literal

import msgspec

from farebox import display
from farebox.billing.books.breakdown import UNITS, Breakdown
from farebox.billing.books.periods import format_day, month_of
from farebox.display import Rate, Shown
from farebox.money import BASIS_POINTS, divide_half_even, format_amount
from farebox.storage.queries import UsageRow

NANO_PER_CENT = 10_000_000
FEE = "gateway_fee"
OWN_KEY_FEE = "own_key_fee"
"""For calls by the customer's own keys, whose units are on the providers' own bills."""
FEES = (FEE, OWN_KEY_FEE)
LINES_MAX = 100_000
"""Projects × models × classes of one month and account."""
_ORDER = {unit: index for index, unit in enumerate((*UNITS, *FEES))}

Kind = Literal["invoice", "credit_note"]


class Terms(msgspec.Struct, frozen=True):
    """How this operator invoices; from the configuration's `[invoices]`."""

    seller: str = ""
    address: tuple[str, ...] = ()
    tax_id: str = ""
    tax_label: str = "VAT"
    tax_bp: int = 0
    prefix: str = "INV-"
    credit_note_prefix: str = "CN-"
    grace_us: int = 24 * 3_600_000_000
    due_days: int = 14
    reminder_days: tuple[int, ...] = (3, 10)
    pause_after_days: int = 21
    """0: never."""
    display: Shown | None = None
    """A second currency for the totals."""


class Line(msgspec.Struct, frozen=True):
    """One line. `exact` is the sum of its rows' charges, `amount` that in cents."""

    month: str
    project: str
    model: str
    unit: str
    quantity: int
    """Tokens, searches or requests; 0 on fees."""
    amount: str
    exact: str


class Tax(msgspec.Struct, frozen=True):
    label: str
    percent: str
    amount: str


class Seller(msgspec.Struct, frozen=True):
    name: str
    address: tuple[str, ...]
    tax_id: str


class Customer(msgspec.Struct, frozen=True):
    id: str
    name: str
    kind: str


class InCurrency(msgspec.Struct, frozen=True):
    """Totals in another currency, for the reader: what is owed is owed in USD. Each is converted once from the amount in USD."""

    currency: str
    rate: str
    """Units per US dollar, as it was configured."""
    day: str
    """From which day on that rate was in force."""
    source: str
    total: str
    due: str


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """An invoice or credit note as issued: amounts are decimal strings of USD, days are UTC."""

    number: str
    kind: Kind
    month: str
    issued: str
    due_day: str | None
    currency: str
    seller: Seller
    customer: Customer
    corrects: str | None
    """The invoice that a credit note corrects."""
    reason: str
    lines: tuple[Line, ...]
    usage: str
    """The exact sum of the charges."""
    net: str
    rounding: str
    """usage − net."""
    tax: Tax
    total: str
    """net + tax."""
    credit: str
    """Paid from credit already."""
    due: str
    display: InCurrency | None = None
    """By the rate of the day of issue; a credit note's by its invoice's. Older documents have none."""


class Totals(msgspec.Struct, frozen=True):
    """A document's amounts in nano-dollars; all but usage and rounding (and a prepaid account's credit) are whole cents."""

    usage_nano: int
    net_nano: int
    tax_nano: int
    credit_nano: int

    @property
    def rounding_nano(self) -> int:
        return self.usage_nano - self.net_nano

    @property
    def total_nano(self) -> int:
        return self.net_nano + self.tax_nano

    @property
    def due_nano(self) -> int:
        return self.total_nano - self.credit_nano


class Tally:
    """Rows being summed up into lines."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str, str], list[int]] = {}
        self.usage_nano = 0
        self.rows = 0
        self.months: set[str] = set()

    def add(self, row: UsageRow, parts: Breakdown, *, own_key: bool) -> None:
        month = month_of(row.created_us)
        self.months.add(month)
        self.rows += 1
        self.usage_nano += row.charge_nano
        for unit, part in () if own_key else parts.parts.items():
            self._line(month, row, unit, part.quantity, part.list_nano)
        if parts.fee_nano:
            self._line(month, row, OWN_KEY_FEE if own_key else FEE, 0, parts.fee_nano)

    def _line(self, month: str, row: UsageRow, unit: str, quantity: int, nano: int) -> None:
        key = (month, row.project, row.model, unit)
        found = self._sums.get(key)
        if found is None:
            assert len(self._sums) < LINES_MAX, f"an invoice has no more than {LINES_MAX} lines"
            found = self._sums[key] = [0, 0]
        found[0] += quantity
        found[1] += nano

    def lines(self) -> tuple[tuple[Line, ...], int]:
        """The lines in their order, and their sum in cents, as nano-dollars."""
        made: list[Line] = []
        net = 0
        for key in sorted(self._sums, key=lambda key: (*key[:3], _ORDER[key[3]])):
            quantity, nano = self._sums[key]
            amount = divide_half_even(nano, NANO_PER_CENT) * NANO_PER_CENT
            net += amount
            made.append(Line(*key, quantity, format_amount(amount), format_amount(nano)))
        return tuple(made), net


def tax_nano(net_nano: int, tax_bp: int) -> int:
    """The tax on a net amount, rounded to cents once."""
    return divide_half_even(net_nano * tax_bp, BASIS_POINTS * NANO_PER_CENT) * NANO_PER_CENT


def document(
    *,
    number: str,
    kind: Kind,
    month: str,
    lines: Iterable[Line],
    totals: Totals,
    terms: Terms,
    customer: Customer,
    issued_us: int,
    due_us: int | None,
    corrects: str | None = None,
    reason: str = "",
    shown: InCurrency | None = None,
) -> Document:
    """Put a document together; its bytes are `encode`'s, and are stored."""
    taxed = totals.tax_nano != 0 or customer.kind == "postpaid"
    percent = format_amount(terms.tax_bp * NANO_PER_CENT if taxed else 0)
    return Document(
        number=number,
        kind=kind,
        month=month,
        issued=format_day(issued_us),
        due_day=None if due_us is None else format_day(due_us),
        currency="USD",
        seller=Seller(terms.seller, terms.address, terms.tax_id),
        customer=customer,
        corrects=corrects,
        reason=reason,
        lines=tuple(lines),
        usage=format_amount(totals.usage_nano),
        net=format_amount(totals.net_nano),
        rounding=format_amount(totals.rounding_nano),
        tax=Tax(terms.tax_label, percent, format_amount(totals.tax_nano)),
        total=format_amount(totals.total_nano),
        credit=format_amount(totals.credit_nano),
        due=format_amount(totals.due_nano),
        display=shown,
    )


def in_currency(totals: Totals, shown: Shown | None, issued_us: int) -> InCurrency | None:
    """A new invoice's totals by the rate of its day of issue; None without a currency, or before its first rate."""
    rate = None if shown is None else shown.rate_on(date.fromisoformat(format_day(issued_us)))
    return None if shown is None or rate is None else _converted(totals, shown, rate)


def by_rate_of(totals: Totals, frozen: InCurrency | None) -> InCurrency | None:
    """A credit note's totals by the very rate of its invoice."""
    if frozen is None:
        return None
    shown = display.read(frozen.currency, {frozen.day: frozen.rate}, frozen.source)
    return _converted(totals, shown, shown.rates[0])


def _converted(totals: Totals, shown: Shown, rate: Rate) -> InCurrency:
    total, due = shown.convert(totals.total_nano, rate), shown.convert(totals.due_nano, rate)
    return InCurrency(shown.currency, rate.text, rate.day.isoformat(), shown.source, total, due)


_decoder = msgspec.json.Decoder(Document)


def encode(made: Document) -> str:
    return msgspec.json.encode(made).decode()


def decode(text: str) -> Document:
    return _decoder.decode(text)
