"""Adjustments: an estimated or recovered attempt gets its exact figures later (billing.md §3.6).

The row that was posted stays. A new row of the same attempt, with the next revision, says the **difference**, and new transfers
move it; the attempt's own rates and markup still apply. The rule for each side:

- **our cost** is always trued up, in either direction, to what the exact usage costs;
- **the customer's charge** goes down to the exact price at once, and the refund returns to the credit that paid it;
- it goes **up only when asked** (`may_raise`), and then by no more than the rest of the call's hold and the headroom that
  every scope of the call has now; what does not fit, or may not be raised, is recorded as our loss;
- an attempt that the customer did not pay for by policy stays unpaid.

The figures are absolute, so the same adjustment again changes nothing.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, func, select

from farebox.billing import pricing
from farebox.billing.books import carrying, evidence, own_key_usage, scopes
from farebox.billing.books import transfers as entries
from farebox.billing.books.customers import CommandRefused, lock_account
from farebox.billing.books.ledger import restore, spend
from farebox.billing.books.transfers import Transfer, insert_transfers
from farebox.billing.budgets import Scope
from farebox.billing.meter import CONTINUED_FLAG, REPORTED_COST_FLAG
from farebox.billing.posting.batch import USAGE_COLUMNS
from farebox.billing.records import Attempt, Settle
from farebox.billing.sealing import seals
from farebox.catalog.price import Rates
from farebox.money import PICO_PER_NANO, divide_half_even
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import grants, usage
from farebox.wires.usage import Usage

REVISIONS_MAX = 100
CORRECTED_FLAG = "corrected"
NOT_AFTERWARDS = frozenset({CORRECTED_FLAG, REPORTED_COST_FLAG})
"""A row that was charged by its provider's reported cost is charged by its counts once they are corrected."""
PAID_OUTCOME = "ok"
WAIVED_FLAG = "unbilled"
"""Taken back: the customer pays nothing for it, whatever it is priced at."""


class Adjusted(msgspec.Struct, frozen=True):
    """What an adjustment changed; all zero when the figures were right already. Nano-dollars."""

    revision: int
    """Of the new row; 0 when there is none."""
    charge_nano: int
    cost_nano: int
    loss_nano: int


class _Totals(msgspec.Struct, frozen=True):
    """What an attempt came to. Nano-dollars and tokens."""

    charge: int
    loss: int
    cost: int | None
    prompt: int | None
    completion: int | None
    cached: int | None
    reasoning: int | None


def adjust(
    database: Database,
    ids: Ids,
    *,
    hold_id: str,
    attempt: int,
    exact: Usage,
    rates: Rates | None = None,
    may_raise: bool = False,
    now_us: int,
) -> Adjusted:
    """Correct one attempt to its exact usage. `rates` are needed only where the row has none (nothing was known then)."""
    return database.write(
        lambda connection: adjust_within(database, connection, ids, hold_id, attempt, exact, rates, may_raise, now_us)
    )


def adjust_within(
    database: Database,
    connection: Connection,
    ids: Ids,
    hold_id: str,
    number: int,
    exact: Usage,
    rates: Rates | None,
    may_raise: bool,
    now_us: int,
) -> Adjusted:
    """The same within a transaction of the caller's. Raises `CommandRefused` before anything is written."""
    rows = _rows(connection, hold_id)
    mine = [row for row in rows if row.attempt == number]
    if not mine or number == 0:
        raise CommandRefused(f"the call `{hold_id}` has no posted attempt {number}")
    account_id = mine[0].account_id
    lock_account(connection, account_id)
    # Read again behind the lock: adjustments of one account come one after another.
    rows = _rows(connection, hold_id)
    mine = [row for row in rows if row.attempt == number]
    call = evidence.settle(next(row for row in rows if row.final))
    before = _totals(mine)
    known = evidence.attempt(mine[-1])
    assert known is not None, "only attempt 0 has no attempt record"
    rates = known.rates or rates
    if rates is None:
        raise CommandRefused(f"attempt {number} of `{hold_id}` has no rates of its own: say which ones apply")
    connection.execute(select(grants.c.id).where(grants.c.account_id == account_id).order_by(grants.c.id).with_for_update())
    pico = pricing.cost_pico(exact, rates)
    room = _room(connection, rows, call) if may_raise else 0
    after = _corrected(before, exact, pico, known, room)
    if after == before:
        return Adjusted(0, 0, 0, 0)
    words = msgspec.structs.replace(
        known,
        usage=exact,
        basis="reported",
        rates=rates,
        cost_nano=after.cost,
        charge_nano=after.charge,
        loss_nano=after.loss,
        flags=(*(flag for flag in known.flags if flag not in NOT_AFTERWARDS), CORRECTED_FLAG),
    )
    return _revise(database, connection, ids, mine, call, before, after, words, now_us)


def waive(
    database: Database, connection: Connection, ids: Ids, *, hold_id: str, attempt: int, now_us: int
) -> Adjusted:
    """Take an attempt's charge back whole, in a transaction that has locked the account. Counts and our cost stay."""
    rows = _rows(connection, hold_id)
    mine = [row for row in rows if row.attempt == attempt]
    before = _totals(mine)
    known = evidence.attempt(mine[-1])
    if known is None or not before.charge:
        return Adjusted(0, 0, 0, 0)
    call = evidence.settle(next(row for row in rows if row.final))
    account = mine[0].account_id
    connection.execute(select(grants.c.id).where(grants.c.account_id == account).order_by(grants.c.id).with_for_update())
    after = msgspec.structs.replace(before, charge=0, loss=0)
    words = msgspec.structs.replace(known, charge_nano=0, loss_nano=0, flags=(*known.flags, WAIVED_FLAG))
    return _revise(database, connection, ids, mine, call, before, after, words, now_us)


def _revise(
    database: Database,
    connection: Connection,
    ids: Ids,
    mine: Sequence[UsageRow],
    call: Settle,
    before: _Totals,
    after: _Totals,
    words: Attempt,
    now_us: int,
) -> Adjusted:
    """Write the row of differences and what it moves."""
    hold_id, number, account_id = mine[0].hold_id, mine[0].attempt, mine[0].account_id
    revision = mine[-1].revision + 1
    assert revision <= REVISIONS_MAX, "an attempt is corrected a few times at most"
    cause = f"{hold_id}:{number}:{revision}"
    charge, loss = after.charge - before.charge, after.loss - before.loss
    cost = (after.cost or 0) - (before.cost or 0)
    payable = entries.provider_payable(words.provider)
    moved = [
        _between(ids, now_us, entries.receivable(account_id), entries.REVENUE, charge, account_id, "correction", cause),
        _between(ids, now_us, entries.PROVIDER_COST, payable, cost, None, "cost_correction", cause),
        _between(ids, now_us, entries.PROVIDER_LOSS, entries.REVENUE, loss, account_id, "loss_correction", cause),
    ]
    if charge:
        _move_charge(database, connection, ids, call, charge, cause, now_us)
    row = _row(mine[0], revision, before, after, words, moved[0], moved[1], now_us)
    insert_transfers(database, connection, [transfer for transfer in moved if transfer is not None])
    database.insert_rows(connection, usage, USAGE_COLUMNS, [tuple(getattr(row, name) for name in USAGE_COLUMNS)])
    own_key_usage.correct(database, connection, [*mine, row])
    seals.mark(database, connection, ids.new("batch"), now_us)
    return Adjusted(revision, charge, cost, loss)


def _rows(connection: Connection, hold_id: str) -> list[UsageRow]:
    found = select(usage).where(usage.c.hold_id == hold_id).order_by(usage.c.attempt, usage.c.revision)
    return [UsageRow(**row) for row in connection.execute(found).mappings()]


def _sum(values: Sequence[int | None]) -> int | None:
    """A sum of differences; unknown only when nothing is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _totals(rows: Sequence[UsageRow]) -> _Totals:
    return _Totals(
        sum(row.charge_nano for row in rows),
        sum(row.loss_nano for row in rows),
        _sum([row.cost_nano for row in rows]),
        _sum([row.prompt_tokens for row in rows]),
        _sum([row.completion_tokens for row in rows]),
        _sum([row.cached_tokens for row in rows]),
        _sum([row.reasoning_tokens for row in rows]),
    )


def _corrected(before: _Totals, exact: Usage, pico: int, known: Attempt, room: int) -> _Totals:
    cost = pricing.owed_nano(divide_half_even(pico, PICO_PER_NANO), known.fees)
    charge = loss = 0
    if before.charge + before.loss or not _may_be_free(known):
        if CONTINUED_FLAG in known.flags:
            assert known.rates is not None, "what was charged has rates"
            pico = pricing.rest_pico(exact, known.rates)
        price = pricing.charge_nano(pico, known.markup_bp, known.fees)
        charge = min(price, before.charge + room)
        loss = price - charge
    return _Totals(
        charge, loss, cost, exact.prompt_tokens, exact.completion_tokens, exact.cache_read, exact.reasoning
    )


def _may_be_free(known: Attempt) -> bool:
    """Whether policy lets an attempt like this one go unpaid. Of any other a charge of 0 was its price: an estimate
    of nothing, say, where the exact figures are more."""
    return known.outcome != PAID_OUTCOME or WAIVED_FLAG in known.flags


def _room(connection: Connection, rows: Sequence[UsageRow], call: Settle) -> int:
    """By how much the call's charge may still rise: the rest of its hold, and what every scope of it has left. Locks them."""
    room = call.hold_nano - sum(row.charge_nano for row in rows)
    for scope_id in _scopes(call):
        scope = scopes.lock(connection, scope_id)
        room = min(room, 0 if scope is None else scopes.headroom_nano(scope))
    for carried in _carrying(connection, rows, call):
        scope = scopes.lock(connection, carried.id) or scopes.make(connection, carried)
        assert scope is not None, "the budget exists"
        room = min(room, scopes.headroom_nano(scope) - carrying.earlier_nano(connection, carried))
    return max(room, 0)


def _carrying(connection: Connection, rows: Sequence[UsageRow], call: Settle) -> list[Scope]:
    """The scopes that count the call beside its own, because their budget was changed."""
    return carrying.carrying(connection, carrying.charged(rows, {*call.scopes}))


def _scopes(call: Settle) -> list[str]:
    return sorted({*call.scopes, f"account:{call.account}"})


def _between(
    ids: Ids, at_us: int, debit: str, credit: str, amount: int, account_id: str | None, kind: str, cause: str
) -> Transfer | None:
    """A transfer of a difference: the other way round when it is negative, none when it is zero."""
    if amount < 0:
        debit, credit, amount = credit, debit, -amount
    return Transfer(ids.new("trf"), at_us, debit, credit, amount, account_id, kind, cause) if amount else None


def _move_charge(
    database: Database, connection: Connection, ids: Ids, call: Settle, charge: int, cause: str, now_us: int
) -> None:
    """Change what is posted in the call's scopes, and pay the difference from credit or return it there."""
    account_scope = f"account:{call.account}"
    carried = _carrying(connection, _rows(connection, call.id), call)
    if charge > 0:
        carrying.add(database, connection, [(scope, charge) for scope in carried])
        raised = [(charge, scope_id) for scope_id in _scopes(call)]
        changed = database.execute_many(connection, "UPDATE scopes SET posted_nano = posted_nano + ? WHERE id = ?", raised)
        assert changed == len(raised), "the room was read from every scope"
        insert_transfers(
            database, connection, spend(database, connection, ids, {call.account: charge}, cause_id=cause, now_us=now_us)
        )
        return
    refund = -charge
    scope = scopes.lock(connection, account_scope)
    assert scope is not None, "an account is created with its scope"
    unspent = grants.c.remaining_nano + grants.c.expired_nano + grants.c.reversed_nano
    used = func.coalesce(func.sum(grants.c.amount_nano - unspent), 0)
    from_credit = int(connection.execute(select(used).where(grants.c.account_id == call.account)).scalar_one())
    # Charges spend credit first and then the receivable; a refund goes the same way back.
    on_receivable = min(refund, scope["posted_nano"] - from_credit)
    assert on_receivable >= 0, "credit pays charges and nothing else (I2)"
    if refund > on_receivable:
        amount = refund - on_receivable
        insert_transfers(
            database, connection, restore(database, connection, ids, call.account, amount, cause_id=cause, now_us=now_us)
        )
    lowered = [scopes.return_row(scope_id, refund) for scope_id in _scopes(call)]
    changed = database.execute_many(connection, scopes.UNPOST_SQL, lowered)
    assert changed == len(lowered), "what was charged is posted in every scope of the call (I2)"
    carrying.take_off(database, connection, carried, refund)


def _row(
    first: UsageRow,
    revision: int,
    before: _Totals,
    after: _Totals,
    words: Attempt,
    charged: Transfer | None,
    costed: Transfer | None,
    now_us: int,
) -> UsageRow:
    assert after.prompt is not None and after.completion is not None, "what is corrected has counts"
    return msgspec.structs.replace(
        first,
        revision=revision,
        final=False,
        basis=words.basis,
        charge_nano=after.charge - before.charge,
        loss_nano=after.loss - before.loss,
        cost_nano=(after.cost or 0) - (before.cost or 0),
        prompt_tokens=after.prompt - (before.prompt or 0),
        completion_tokens=after.completion - (before.completion or 0),
        cached_tokens=(after.cached or 0) - (before.cached or 0),
        reasoning_tokens=(after.reasoning or 0) - (before.reasoning or 0),
        record=msgspec.json.encode(words).decode(),
        transfer_id=None if charged is None else charged.id,
        cost_transfer_id=None if costed is None else costed.id,
        posted_us=now_us,
    )
