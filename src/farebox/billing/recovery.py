"""Recovery: finishing the journal of a worker that died, before its slot serves again (billing.md §3.6).

A hold without a terminal record is settled now: one whose first byte may have left by the last progress record, flagged
`recovered`; what its provider later reports exactly is a correction (`billing.adjustments`).
"""

from collections.abc import Iterable

import msgspec

from farebox.billing import pricing
from farebox.billing.markup import Terms
from farebox.billing.records import Attempt, Dispatch, Hold, Opened, Progress, Record, Settle
from farebox.catalog.price import Schedule
from farebox.ports import Clock


class _Open(msgspec.Struct):
    hold: Hold
    life: str
    dispatch: Dispatch | None = None
    progress: Progress | None = None


def open_holds(records: Iterable[Record]) -> list[tuple[Hold, str, Dispatch | None, Progress | None]]:
    """Holds without an end, oldest first, with the life they were taken in and the last that is known of them."""
    found: dict[str, _Open] = {}
    life = ""
    for record in records:
        match record:
            case Opened():
                life = record.life
            case Hold():
                found[record.id] = _Open(record, life)
            case Settle():
                found.pop(record.id, None)
            case Dispatch():
                if record.id in found:
                    found[record.id].dispatch = record
                    found[record.id].progress = None
            case Progress():
                if record.id in found:
                    found[record.id].progress = record
            case _:
                pass
    return [(item.hold, item.life, item.dispatch, item.progress) for item in found.values()]


def finish(records: Iterable[Record], clock: Clock) -> list[Settle]:
    """The terminal records that a dead worker's journal still owes."""
    return [_settle(*item, clock.now_us()) for item in open_holds(records)]


def _settle(hold: Hold, life: str, dispatch: Dispatch | None, progress: Progress | None, now_us: int) -> Settle:
    """The hold's last attempt by its last progress record.

    Without one, nothing is known to have reached the client: the customer pays nothing, and our cost is unknown (None), not
    zero, until the provider's own record says.
    """
    before = dispatch.before if dispatch is not None else ()
    rates = dispatch.rates if dispatch is not None else hold.rates
    terms = Terms(hold.plan, hold.markup_bp, hold.fees)
    if dispatch is not None and dispatch.terms is not None:
        terms = dispatch.terms
    usage = progress.usage if progress is not None else None
    charged_before = sum(attempt.charge_nano for attempt in before)
    charge = loss = 0
    cost = None
    flags: tuple[str, ...] = ("recovered",)
    if usage is not None:
        quoted = pricing.Quote(hold.price_version, Schedule(rates), terms.bp, {}, fees=terms.fees)
        billed = pricing.bill(usage, quoted)
        cost, charge = billed.cost_nano, min(billed.charge_nano, hold.amount_nano - charged_before)
        loss = billed.charge_nano - charge
        if loss:
            flags = (*flags, "hold_exceeded")
    attempt = Attempt(
        n=dispatch.n if dispatch is not None else 1,
        provider=dispatch.provider if dispatch is not None else hold.provider,
        upstream_id=dispatch.upstream_id if dispatch is not None else hold.upstream_id,
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
        fees=terms.fees,
        plan=terms.plan,
        cost_nano=cost,
        charge_nano=charge,
        loss_nano=loss,
    )
    return Settle(
        id=hold.id,
        state="recovered",
        at_us=now_us,
        account=hold.account,
        key=hold.key,
        scopes=hold.scopes,
        hold_nano=hold.amount_nano,
        charge_nano=charged_before + charge,
        surface=hold.surface,
        model=hold.model,
        attempts=(*before, attempt),
        created_us=hold.at_us,
        life=life,
        project=hold.project,
        end_user=hold.end_user,
        requested=hold.requested,
        streamed=hold.streamed,
        cancelled=True,
    )
