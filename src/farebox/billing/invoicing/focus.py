"""FOCUS: the FinOps cost and usage format, version 1.3 (or 1.2), one line per day, project, key, model, provider and price.

    usage        one line per unit class: `SkuId` the model, `SkuMeter` the class; `ListCost` as listed, `ContractedCost` ours
    top-up       ChargeCategory `Purchase`: it is billed then, and what is drawn from it has a `BilledCost` of 0
    refund       of a top-up, or a dispute that is lost: `Purchase` with ChargeClass `Correction`, on the day when the money goes
    promotion    ChargeCategory `Credit`: lowers the effective cost
    correction   ChargeClass `Correction`, in the period of the call that it corrects

So over a prepaid account `BilledCost` is the money that came in and `EffectiveCost` what was consumed; over a postpaid one both
are what was consumed. https://focus.finops.org
"""

from collections.abc import Iterator
from typing import Literal

import msgspec
from sqlalchemy import Connection, bindparam, select

from farebox.billing.books.breakdown import allocate, broken_down
from farebox.billing.books.periods import month_bounds, month_of
from farebox.billing.budgets import window_end_us
from farebox.billing.invoicing.exports import Column, Owners, Values, stream, usage_rows
from farebox.billing.records import Attempt
from farebox.money import PICO_PER_NANO, divide_half_even
from farebox.storage.queries import UsageRow
from farebox.storage.reports import US_PER_DAY, Narrow
from farebox.storage.tables import grants, invoices, transfers

Version = Literal["1.2", "1.3"]
LINES_OPEN_MAX = 10_000
"""Lines summed up at a time; a day with more of them is written in several parts, which FOCUS allows."""
ISSUER = "Farebox"

_COMMON: tuple[Column, ...] = (
    Column("BilledCost", "amount"), Column("BillingAccountId"), Column("BillingAccountName"), Column("BillingCurrency"),
    Column("BillingPeriodStart"), Column("BillingPeriodEnd"), Column("ChargeCategory"), Column("ChargeClass"),
    Column("ChargeDescription"), Column("ChargeFrequency"), Column("ChargePeriodStart"), Column("ChargePeriodEnd"),
    Column("ConsumedQuantity", "quantity"), Column("ConsumedUnit"), Column("ContractedCost", "amount"),
    Column("ContractedUnitPrice", "decimal"), Column("EffectiveCost", "amount"), Column("InvoiceId"),
    Column("InvoiceIssuerName"), Column("ListCost", "amount"), Column("ListUnitPrice", "decimal"), Column("PricingCategory"),
    Column("PricingQuantity", "quantity"), Column("PricingUnit"), Column("ProviderName"), Column("PublisherName"),
    Column("ServiceCategory"), Column("ServiceSubcategory"), Column("ServiceName"), Column("SkuId"), Column("SkuMeter"),
    Column("SkuPriceDetails"), Column("SkuPriceId"), Column("SubAccountId"), Column("SubAccountName"), Column("Tags"),
    Column("x_KeyId"), Column("x_MarkupPlan"),
)  # fmt: skip
_PARTICIPANTS: tuple[Column, ...] = (Column("ServiceProviderName"), Column("HostProviderName"))
"""New in 1.3: who offered the service, and who runs it."""


def columns(version: Version) -> tuple[Column, ...]:
    return _COMMON if version == "1.2" else (*_COMMON, *_PARTICIPANTS)


class _Key(msgspec.Struct, frozen=True):
    """What one line is about."""

    corrected: bool
    project: str
    key_id: str
    model: str
    provider: str
    unit: str
    rate_pico: int
    price_version: str
    plan: str
    tags: str
    """As on the usage row: a JSON list, or empty."""

    @property
    def price_id(self) -> str | None:
        """One price of one unit: a version has a price for each unit class, and for each tier of prompt size."""
        return f"{self.price_version}/{self.unit}@{self.rate_pico}" if self.price_version else None


class _Sum(msgspec.Struct):
    quantity: int = 0
    list_nano: int = 0
    charge_nano: int = 0


def focus_table(connection: Connection, narrow: Narrow, version: Version) -> Iterator[Values]:
    """The lines of `columns(version)`. `InvoiceId` is the month's invoice once it is closed."""
    owners = Owners(connection)
    yield from _granted(connection, narrow, owners, version)
    yield from _went_back(connection, narrow, owners, version)
    place: tuple[str, int] = ("", 0)
    sums: dict[_Key, _Sum] = {}

    def flush() -> Iterator[Values]:
        if not sums:
            return
        account, day = place
        number = connection.execute(_NUMBER, {"account": account, "month": month_of(day * US_PER_DAY)}).scalar_one_or_none()
        for key, total in sums.items():
            yield _usage_line(owners, account, day, key, total, version, number)
        sums.clear()

    for row, attempt, parts in broken_down(usage_rows(connection, narrow)):
        if (row.account_id, row.created_us // US_PER_DAY) != place or len(sums) >= LINES_OPEN_MAX:
            yield from flush()
            place = (row.account_id, row.created_us // US_PER_DAY)
        if attempt is None or not (row.charge_nano or parts.parts):
            continue
        if attempt.own_key:
            # What was used is on the provider's own bill; here there is the fee of a call alone.
            total = sums.setdefault(_Key(row.revision > 0, *_about(row), OWN_KEY_FEE, 0, *_priced(row, attempt)), _Sum())
            total.quantity += 0 if row.revision else 1
            total.charge_nano += row.charge_nano
            continue
        units = list(parts.parts.items())
        weights = [abs(part.list_nano) for _, part in units]
        if not any(weights):
            weights = [1] * len(units)
        fees = allocate(parts.fee_nano, weights) if units else []
        about, priced = (row.revision > 0, *_about(row)), _priced(row, attempt)
        if not units:
            total = sums.setdefault(_Key(*about, "fee", 0, *priced), _Sum())
            total.charge_nano += parts.fee_nano
        for (unit, part), fee in zip(units, fees, strict=True):
            total = sums.setdefault(_Key(*about, unit, part.rate_pico, *priced), _Sum())
            total.quantity += part.quantity
            total.list_nano += part.list_nano
            total.charge_nano += part.list_nano + fee
    yield from flush()


def _about(row: UsageRow) -> tuple[str, str, str, str]:
    return row.project, row.key_id, row.model, row.provider


def _priced(row: UsageRow, attempt: Attempt) -> tuple[str, str, str]:
    return attempt.price_version, attempt.plan, row.tags


_NUMBER = select(invoices.c.number).where(
    invoices.c.kind == "invoice", invoices.c.account_id == bindparam("account"), invoices.c.month == bindparam("month")
)


def _time(us: int) -> str:
    """FOCUS's date/time format: no fraction."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


OWN_KEY_FEE = "own_key_fee"
_UNIT_NAMES = {"web_searches": "Searches", "request": "Requests", "fee": "Requests", OWN_KEY_FEE: "Requests"}


def _tags(tags: str) -> str:
    """Tags have no values here; FOCUS gives such ones the value `true`."""
    return msgspec.json.encode(dict.fromkeys(msgspec.json.decode(tags, type=list[str]), True)).decode() if tags else "{}"


def _usage_line(
    owners: Owners, account: str, day: int, key: _Key, total: _Sum, version: Version, number: str | None
) -> Values:
    start_us = day * US_PER_DAY
    unit = _UNIT_NAMES.get(key.unit, "Tokens")
    contracted = divide_half_even(total.charge_nano * PICO_PER_NANO, total.quantity) if total.quantity > 0 else None
    # Properties that FOCUS does not define begin with `x_`.
    words = {"x_UnitClass": key.unit, "x_MarkupPlan": key.plan} if key.plan else {"x_UnitClass": key.unit}
    return _line(
        account,
        owners.name(account),
        version,
        category="Usage",
        charge_class="Correction" if key.corrected else None,
        description=f"{key.model} at {key.provider}: {key.unit.replace('_', ' ')}",
        frequency="Usage-Based",
        start_us=start_us,
        end_us=start_us + US_PER_DAY,
        billed=0 if owners.prepaid(account) else total.charge_nano,
        listed=total.list_nano,
        contracted=total.charge_nano,
        effective=total.charge_nano,
        quantity=total.quantity,
        unit=unit,
        list_price=key.rate_pico,
        contracted_price=contracted,
        number=number,
        key=key,
        details=msgspec.json.encode(words).decode() if key.price_id is not None else None,
    )


def _line(
    account: str,
    account_name: str,
    version: Version,
    *,
    category: str,
    charge_class: str | None,
    description: str,
    frequency: str,
    start_us: int,
    end_us: int,
    billed: int,
    listed: int,
    contracted: int,
    effective: int,
    quantity: int | None,
    unit: str | None,
    list_price: int | None,
    contracted_price: int | None,
    number: str | None,
    key: _Key | None,
    details: str | None,
) -> Values:
    month_us, month_end_us = month_bounds(month_of(start_us))
    consumed = category == "Usage" and charge_class is None
    project = key.project or None if key is not None else None
    publisher = key.model.partition("/")[0] if key is not None else ISSUER
    host = key.provider if key is not None else ISSUER
    common: Values = (
        billed,
        account,
        account_name,
        "USD",
        _time(month_us),
        _time(month_end_us),
        category,
        charge_class,
        description,
        frequency,
        _time(start_us),
        _time(end_us),
        quantity if consumed else None,
        unit if consumed else None,
        contracted,
        None if charge_class else contracted_price,
        effective,
        number,
        ISSUER,
        listed,
        None if charge_class else list_price,
        None if charge_class else "Standard" if category in ("Usage", "Purchase") else None,
        None if charge_class else quantity,
        None if charge_class else unit,
        ISSUER,
        publisher,
        "AI and Machine Learning",
        "Generative AI",
        "Model inference",
        key.model if key is not None else "credit",
        key.unit if key is not None else "credit",
        details,
        key.price_id if key is not None else "credit/usd" if category == "Purchase" else None,
        project,
        project,
        _tags(key.tags) if key is not None else "{}",
        key.key_id if key is not None else None,
        key.plan or None if key is not None else None,
    )
    return common if version == "1.2" else (*common, ISSUER, host)


def _granted(connection: Connection, narrow: Narrow, owners: Owners, version: Version) -> Iterator[Values]:
    """Top-ups and promotional credit of the period."""
    query = select(grants).where(grants.c.created_us >= narrow.since_us).order_by(grants.c.account_id, grants.c.created_us)
    if narrow.until_us is not None:
        query = query.where(grants.c.created_us < narrow.until_us)
    if narrow.account_id is not None:
        query = query.where(grants.c.account_id == narrow.account_id)
    for row in stream(connection, query):
        account = row["account_id"]
        paid, amount, at_us = row["kind"] == "paid", row["amount_nano"], row["created_us"]
        end_us = window_end_us("day", at_us)
        assert end_us is not None, "a day has an end"
        # A credit is its own charge: what is listed and contracted is what is billed.
        billed = amount if paid else 0 if owners.prepaid(account) else -amount
        yield _line(
            account,
            owners.name(account),
            version,
            category="Purchase" if paid else "Credit",
            charge_class=None,
            description="Prepaid credit" if paid else "Promotional credit",
            frequency="One-Time",
            start_us=end_us - US_PER_DAY,
            end_us=end_us,
            billed=billed,
            listed=billed,
            contracted=billed,
            effective=0 if paid else -amount,
            quantity=1 if paid else None,
            unit="Credits" if paid else None,
            list_price=amount * PICO_PER_NANO if paid else None,
            contracted_price=amount * PICO_PER_NANO if paid else None,
            number=None,
            key=None,
            details=None,
        )


WENT_BACK = {
    "refund_paid": (-1, "Refund of prepaid credit"),
    "dispute_paid": (-1, "Disputed payment"),
    "refund_back": (1, "Refund that failed"),
    "dispute_back": (1, "Disputed payment that was won"),
}
"""By the transfer's cause (`billing.payments.reversals`): the sign of what is billed, and what it is called."""


def _went_back(connection: Connection, narrow: Narrow, owners: Owners, version: Version) -> Iterator[Values]:
    """Bought credit whose money went back in the period."""
    query = select(transfers).where(transfers.c.cause_kind.in_(WENT_BACK), transfers.c.at_us >= narrow.since_us)
    if narrow.until_us is not None:
        query = query.where(transfers.c.at_us < narrow.until_us)
    if narrow.account_id is not None:
        query = query.where(transfers.c.account_id == narrow.account_id)
    for row in stream(connection, query.order_by(transfers.c.account_id, transfers.c.at_us, transfers.c.id)):
        sign, description = WENT_BACK[row["cause_kind"]]
        billed = sign * row["amount_nano"]
        end_us = window_end_us("day", row["at_us"])
        assert end_us is not None, "a day has an end"
        yield _line(
            row["account_id"],
            owners.name(row["account_id"]),
            version,
            category="Purchase",
            charge_class="Correction",
            description=description,
            frequency="One-Time",
            start_us=end_us - US_PER_DAY,
            end_us=end_us,
            billed=billed,
            listed=billed,
            contracted=billed,
            effective=0,
            quantity=None,
            unit=None,
            list_price=None,
            contracted_price=None,
            number=None,
            key=None,
            details=None,
        )
