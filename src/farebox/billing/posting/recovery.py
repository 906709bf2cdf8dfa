"""Recovery: finishing the journal of a worker that died, before its slot serves again (billing.md §3.6).

A hold without a terminal record is settled now: one whose first byte may have left by the last progress record, flagged
`recovered`; what its provider later reports exactly is a correction (`billing.accounts.adjustments`).
"""

from collections.abc import Iterable

import msgspec

from farebox.billing import pricing, seams
from farebox.billing.markup import Terms
from farebox.billing.meter import CONTINUED_FLAG
from farebox.billing.records import Attempt, Dispatch, Hold, Opened, Progress, Record, Settle
from farebox.catalog.price import Schedule
from farebox.ports import Clock


class Flying(msgspec.Struct):
    """An attempt that was dispatched and of whose end the journal does not tell."""

    n: int
    dispatch: Dispatch | None = None
    """None for the first attempt, which stands in the hold."""
    progress: Progress | None = None


class OpenHold(msgspec.Struct):
    """A hold without an end, and the last that is known of it."""

    hold: Hold
    life: str
    """In which it was taken."""
    flying: dict[int, Flying]
    """By attempt. Usually one; a hedged call has two."""
    before: tuple[Attempt, ...] = ()
    """Attempts that had ended when the last one left."""


def open_holds(records: Iterable[Record]) -> list[OpenHold]:
    """Holds without an end, oldest first."""
    found: dict[str, OpenHold] = {}
    life = ""
    for record in records:
        match record:
            case Opened():
                life = record.life
            case Hold():
                found[record.id] = OpenHold(record, life, {1: Flying(1)})
            case Settle():
                found.pop(record.id, None)
            case Dispatch():
                if (item := found.get(record.id)) is not None:
                    item.before = record.before
                    for attempt in record.before:
                        item.flying.pop(attempt.n, None)
                    item.flying[record.n] = Flying(record.n, record)
            case Progress():
                if (item := found.get(record.id)) is not None and record.n in item.flying:
                    item.flying[record.n].progress = record
            case _:
                pass
    return list(found.values())


def finish(records: Iterable[Record], clock: Clock) -> list[Settle]:
    """The terminal records that a dead worker's journal still owes."""
    return [_settle(item, clock.now_us()) for item in open_holds(records)]


def _attempt(hold: Hold, flying: Flying, before: tuple[Attempt, ...], room_nano: int, now_us: int) -> Attempt:
    """An attempt by its last progress record.

    Without one, nothing is known to have reached the client: the customer pays nothing, and our cost is unknown (None), not
    zero, until the provider's own record says; by a key of the customer's own, it is the customer's.
    """
    dispatch = flying.dispatch
    rates = dispatch.rates if dispatch is not None else hold.rates
    terms = Terms(hold.plan, hold.markup_bp, hold.fees)
    if dispatch is not None and dispatch.terms is not None:
        terms = dispatch.terms
    usage = flying.progress.usage if flying.progress is not None else None
    fees = terms.fees
    charge = loss = 0
    cost = 0 if fees is not None and fees.own_key else None
    flags: tuple[str, ...] = ("recovered",)
    quoted = pricing.Quote(hold.price_version, Schedule(rates), terms.bp, {}, fees=fees)
    if dispatch is not None and dispatch.continues:
        flags = ("recovered", CONTINUED_FLAG)
        fees = seams.fees_left(fees, before)
    if usage is not None:
        continues = dispatch is not None and dispatch.continues
        billed = pricing.rest_bill(usage, quoted, fees=fees) if continues else pricing.bill(usage, quoted)
        cost, charge = billed.cost_nano, min(billed.charge_nano, room_nano)
        loss = billed.charge_nano - charge
        if loss:
            flags = (*flags, "hold_exceeded")
    return Attempt(
        n=flying.n,
        provider=dispatch.provider if dispatch is not None else hold.provider,
        upstream_id=dispatch.upstream_id if dispatch is not None else hold.upstream_id,
        model=dispatch.model if dispatch is not None else "",
        provider_key=dispatch.provider_key if dispatch is not None else hold.provider_key,
        started_us=dispatch.at_us if dispatch is not None else hold.at_us,
        ended_us=now_us,
        outcome="recovered",
        usage=usage,
        basis="estimated" if usage is not None else "none",
        flags=flags,
        price_version=dispatch.price_version if dispatch is not None else hold.price_version,
        rates=rates,
        markup_bp=terms.bp,
        fees=fees,
        plan=terms.plan,
        cost_nano=cost,
        charge_nano=charge,
        loss_nano=loss,
    )


def _settle(item: OpenHold, now_us: int) -> Settle:
    """The terminal record of a hold, with an end for every attempt in flight."""
    # An answer that would not do, and in whose place none came, reached nobody.
    hold, attempts = item.hold, [seams.free(one) if seams.aside(one) else one for one in item.before]
    charged = sum(attempt.charge_nano for attempt in attempts)
    for _, flying in sorted(item.flying.items()):
        attempts.append(_attempt(hold, flying, item.before, hold.amount_nano - charged, now_us))
        charged += attempts[-1].charge_nano
    attempts.sort(key=lambda attempt: attempt.n)
    return Settle(
        id=hold.id,
        state="recovered",
        at_us=now_us,
        account=hold.account,
        key=hold.key,
        scopes=hold.scopes_charged(attempts),
        hold_nano=hold.amount_nano,
        charge_nano=charged,
        surface=hold.surface,
        model=hold.model,
        attempts=tuple(attempts),
        created_us=hold.at_us,
        life=item.life,
        project=hold.project,
        end_user=hold.end_user,
        requested=hold.requested,
        streamed=hold.streamed,
        cancelled=True,
        tags=hold.tags,
    )
