"""What a month has besides calls: providers that fail, a price that changes, an invoice, a part of it taken back, a payment."""

import msgspec
from sqlalchemy import Connection, select

from farebox.billing.accounts import price_book
from farebox.billing.books import ledger
from farebox.billing.books.periods import format_day, month_bounds
from farebox.billing.invoicing import credit_notes, dunning, months
from farebox.billing.invoicing.invoices import Document
from farebox.catalog.rates import write_price
from farebox.demo.founding import Founded, credential
from farebox.demo.organisation import KEYS, PRICED_UP, RAISED_PERCENT, RUNAWAY
from farebox.demo.stage import Stage
from farebox.demo.traffic import DAY_US, Traffic
from farebox.market import make_market
from farebox.money import format_rate, parse_amount
from farebox.storage.tables import closed_months, invoice_parts, usage
from farebox.terms import invoice_terms

OUTAGE_OF = "anthropic"
OUTAGE_DAY = 8
OUTAGE_CALLS = 8
HICCUPS = ("status=500", "error-in-stream=5", "context-length", "reset-before-headers", "error-in-stream=9")
"""One call each; the second and fifth need a stream."""
HICCUP_DAY = 10
PROPOSED_DAY, APPROVED_DAY, RAISED_DAY = 11, 13, 15
"""Days after the first: the price is announced on the 12th, approved on the 14th, and holds from the 16th on."""
TAKEN_BACK = 2
TAKEN_BACK_DAY = 4
PAID_DAY = 9
"""Days after the month's end."""
LAST_DAY = 10
"""The story is over."""
ROUNDS_MAX = 200


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong at the providers: before which call (by its place in the traffic) they are told to."""

    outage: tuple[int, int]
    """From this call on one provider refuses everything, before the second it is well again."""
    once: dict[int, str]
    """Directives for one request."""


def plan_faults(traffic: Traffic, start_us: int) -> Faults:
    """Pure."""
    after_us = start_us + OUTAGE_DAY * DAY_US
    struck = [
        at for at, one in enumerate(traffic.calls) if one.at_us >= after_us and one.model.startswith(f"{OUTAGE_OF}/")
    ][:OUTAGE_CALLS]
    once: dict[int, str] = {}
    after_us = start_us + HICCUP_DAY * DAY_US
    for directives in HICCUPS:
        for at, one in enumerate(traffic.calls):
            fits = one.stream or "in-stream" not in directives
            if at > struck[-1] and one.at_us >= after_us and fits and not one.mistyped and not one.tools and at not in once:
                once[at] = directives
                break
    return Faults((struck[0], struck[-1] + 1), once)


async def outage(stage: Stage) -> None:
    """A provider refuses everything until told otherwise."""
    await stage.order("faults", {"directives": "status=503", "credential": credential(OUTAGE_OF)})


async def recovery(stage: Stage) -> None:
    """It is well again; its caches are cold."""
    await stage.order("reset", {})


async def hiccup(stage: Stage, directives: str) -> None:
    """The next request goes wrong."""
    await stage.order("faults", {"directives": directives, "times": 1})


def announce(stage: Stage, start_us: int) -> tuple[str, ...]:
    """A provider announces a new price: the proposals' ids."""
    versions = stage.database.read(price_book.versions)
    market = make_market(stage.loaded, local_url=None, versions=versions)[0]
    model = market.catalog.get(PRICED_UP)
    assert model is not None, "the organisation calls what the catalog has"
    day = format_day(start_us + RAISED_DAY * DAY_US)
    found: list[price_book.Proposal] = []
    for offer in model.offers:
        price = offer.price_on(day)
        assert price is not None, "a model that is called has a price"
        rates = price.standard.rates
        raised = {
            "input": format_rate(rates.input * (100 + RAISED_PERCENT) // 100),
            "output": format_rate(rates.output * (100 + RAISED_PERCENT) // 100),
        }
        record = write_price(price, offer.provider, offer.id, offer.variant)
        changed = msgspec.structs.replace(
            record, rates=msgspec.structs.replace(record.rates, **raised), effective_from=day, checked=day,
            source=("announced by the provider",), version=None,
        )  # fmt: skip
        bp = market.markups[""].terms("", "").bp
        proposal = price_book.compare(model, offer, changed, bp=bp, source="demo: a provider's announcement")
        assert proposal is not None, "it is another price"
        found.append(proposal)
    return tuple(one.id for one in price_book.propose(stage.database, stage.ids, found, now_us=stage.now_us))


def approve(stage: Stage, proposals: tuple[str, ...]) -> None:
    """The operator takes the new price over."""
    for one in proposals:
        price_book.decide(stage.database, stage.ids, one, "approved", confirmed=True, now_us=stage.now_us)


async def close(stage: Stage, founded: Founded, month: str) -> Document:
    """The bookkeeper closes the month by itself, once its grace is over: the invoice."""
    grace_us = stage.loaded.config.invoices.grace_hours * 3_600_000_000
    stage.clock.move_to(month_bounds(month)[1] + grace_us + 60_000_000)
    for _ in range(ROUNDS_MAX):
        await stage.post()
        if stage.database.read(lambda connection: _closed(connection, month)):
            break
    (made,) = stage.database.read(
        lambda connection: months.stored(connection, account_id=founded.account, month=month, kind="invoice")
    )
    return made


def _closed(connection: Connection, month: str) -> bool:
    return connection.execute(select(closed_months.c.month).where(closed_months.c.month == month)).one_or_none() is not None


def take_back(stage: Stage, founded: Founded, invoice: Document, month: str) -> Document:
    """The dearest calls of the job that ran away are taken back: a credit note."""
    stage.clock.move_to(month_bounds(month)[1] + TAKEN_BACK_DAY * DAY_US)
    dearest = (
        select(usage.c.hold_id)
        .join(invoice_parts, (invoice_parts.c.transfer_id == usage.c.transfer_id) & (invoice_parts.c.number == invoice.number))
        .where(usage.c.key_id == founded.key_ids[RUNAWAY], usage.c.model == KEYS[RUNAWAY].models[0])
        .order_by(usage.c.charge_nano.desc(), usage.c.created_us)
        .limit(TAKEN_BACK)
    )
    calls = stage.database.read(lambda connection: list(connection.execute(dearest).scalars()))
    return credit_notes.credit_note(
        stage.database, stage.ids, number=invoice.number, calls=calls, reason="The connector sent these calls twice.",
        terms=invoice_terms(stage.loaded), now_us=stage.now_us,
    )  # fmt: skip


def pay(stage: Stage, founded: Founded, invoice: Document, note: Document, month: str) -> None:
    """The customer pays what is left of the invoice."""
    stage.clock.move_to(month_bounds(month)[1] + PAID_DAY * DAY_US)
    owed_nano = parse_amount(invoice.due) + parse_amount(note.due)
    if owed_nano > 0:
        ledger.pay(
            stage.database, stage.ids, command_id=f"{invoice.number}-paid", account_id=founded.account, amount_nano=owed_nano,
            now_us=stage.now_us,
        )  # fmt: skip
    dunning.paid_again(stage.database, stage.ids, founded.account, invoice_terms(stage.loaded), stage.now_us)
