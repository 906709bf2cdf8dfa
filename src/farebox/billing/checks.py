"""Checks: the invariants of billing.md §5, each recomputed from the facts and said in a sentence when it is broken.

`check` is what `farebox ledger check` prints and what the tests assert after every step. It only reads, from one snapshot, and
shares no arithmetic with what it checks: prices are summed here from the rows' own JSON.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec
from sqlalchemy import Connection, case, func, select, text

from farebox.billing import transfers as entries
from farebox.billing.check_journal import Problem, held_is_allotted, nothing_reopens
from farebox.billing.records import Settle
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import IMMUTABLE, accounts, allotments, grants, lives, scopes, transfers, usage

ROWS_AT_ONCE = 1_000
UNBILLED_OUTCOMES_OK = frozenset({"ok"})
"""An attempt that ended well is paid for; one that did not may be free by policy (billing.md §4)."""
FREE_FLAGS = frozenset({"unbilled", "cache_hit"})
CONTINUED_FLAG = "continued"
"""A continuation on another offer bills its output only: the input is billed once (billing.md §4)."""
INPUT_CLASSES = frozenset({"input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input"})

Violation = Problem


def check(database: Database, journal_root: Path | None = None) -> list[Violation]:
    """Every violation of I1–I10. With the journals, holds in flight are checked too (I4, I10)."""
    found = database.read(_check)
    if journal_root is not None:
        found += held_is_allotted(database, journal_root)
        found += nothing_reopens(journal_root)
    return found


def _check(connection: Connection) -> list[Violation]:
    invariants: tuple[Callable[[Connection], list[Violation]], ...] = (
        debits_are_credits,
        balances_are_entries,
        one_end_per_hold,
        ended_lives_hold_nothing,
        charges_have_one_transfer,
        nobody_below_zero,
        scopes_within_limits,
        accrual_is_usage,
        rows_recompute,
        facts_are_guarded,
    )
    return [violation for invariant in invariants for violation in invariant(connection)]


def _balances(connection: Connection, prefix: str) -> dict[str, int]:
    """Debits − credits of every ledger account whose name starts so; the name without the prefix."""
    sums: dict[str, int] = defaultdict(int)
    for column, sign in ((transfers.c.debit, 1), (transfers.c.credit, -1)):
        query = (
            select(column, func.sum(transfers.c.amount_nano)).where(column.startswith(prefix, autoescape=True)).group_by(column)
        )
        for name, amount in connection.execute(query):
            sums[name[len(prefix) :]] += sign * int(amount)
    return sums


def debits_are_credits(connection: Connection) -> list[Violation]:
    """I1: every transfer has two known accounts and a positive amount, and all balances together are zero."""
    found: list[Violation] = []
    bad = select(transfers.c.id).where((transfers.c.amount_nano <= 0) | (transfers.c.debit == transfers.c.credit))
    found += [
        Violation("I1", row, "the transfer does not move a positive amount between two accounts")
        for row in connection.execute(bad).scalars()
    ]
    balances = _balances(connection, "")
    total = sum(balances.values())
    if total:
        found.append(Violation("I1", "ledger", f"debits exceed credits by {total} nano-dollars"))
    known_accounts = set(connection.execute(select(accounts.c.id)).scalars())
    known_grants = set(connection.execute(select(grants.c.id)).scalars())
    for name in balances:
        kind, _, owner = name.partition(":")
        known = (
            name in entries.PLATFORM
            or (kind == "credit" and owner in known_grants)
            or (kind == "receivable" and owner in known_accounts)
            or (kind == "provider_payable" and bool(owner))
        )
        if not known:
            found.append(Violation("I1", name, "transfers name an account that does not exist"))
    return found


def balances_are_entries(connection: Connection) -> list[Violation]:
    """I2: every projection equals its facts: grants, receivables, scopes, allotments."""
    found: list[Violation] = []
    credit = _balances(connection, "credit:")
    for row in connection.execute(select(grants)):
        if row.remaining_nano != -credit.get(row.id, 0):
            found.append(
                Violation("I2", row.id, f"the grant says {row.remaining_nano} remain, its transfers {-credit.get(row.id, 0)}")
            )
    posted, charged = _posted(connection)
    allotted: dict[str, int] = defaultdict(int)
    for row in connection.execute(select(allotments).order_by(allotments.c.scope_id)):
        if not row.released:
            allotted[row.scope_id] += row.granted_nano - row.posted_nano
        if row.posted_nano > charged.get((row.scope_id, row.life), 0):
            found.append(
                Violation("I2", f"{row.scope_id} {row.life}", "the allotment says more is posted than its calls were charged")
            )
    limits = _limits(connection)
    for row in connection.execute(select(scopes)):
        if row.posted_nano != posted.get(row.id, 0):
            found.append(
                Violation(
                    "I2", row.id, f"the scope says {row.posted_nano} is posted, its calls were charged {posted.get(row.id, 0)}"
                )
            )
        if row.allotted_nano != allotted.get(row.id, 0):
            found.append(
                Violation(
                    "I2", row.id, f"the scope says {row.allotted_nano} is allotted, its allotments hold {allotted.get(row.id, 0)}"
                )
            )
        target = row.limit_nano if row.wanted_limit_nano is None else row.wanted_limit_nano
        if row.kind == "account" and target != limits.get(row.account_id, 0):
            found.append(
                Violation("I2", row.id, f"the limit is {target}, credit and payments make {limits.get(row.account_id, 0)}")
            )
        if row.wanted_limit_nano is not None and row.limit_nano != row.posted_nano + row.allotted_nano:
            found.append(Violation("I2", row.id, "a lower limit is wanted and the limit is not as low as it can be"))
    for scope_id in posted.keys() - {row.id for row in connection.execute(select(scopes.c.id))}:
        found.append(Violation("I2", scope_id, "calls were charged in a scope that does not exist"))
    return found


def _posted(connection: Connection) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Charges by scope (corrections included), and by scope and life (as first posted)."""
    by_scope: dict[str, int] = defaultdict(int)
    by_life: dict[tuple[str, str], int] = defaultdict(int)
    for call, rows in _calls(connection):
        charge = sum(row.charge_nano for row in rows)
        first = sum(row.charge_nano for row in rows if row.revision == 0)
        if call is None or not (charge or first):
            continue
        for scope in {*call.scopes, f"account:{call.account}"}:
            by_scope[scope] += charge
            by_life[scope, call.life] += first
    return by_scope, by_life


def _limits(connection: Connection) -> dict[str, int]:
    """What an account's limit should be: all credit − expired + the credit line + payments."""
    lines = connection.execute(select(accounts.c.id, accounts.c.credit_limit_nano))
    limits: dict[str, int] = {row.id: row.credit_limit_nano for row in lines}
    given = select(grants.c.account_id, func.sum(grants.c.amount_nano - grants.c.expired_nano)).group_by(grants.c.account_id)
    paid = (
        select(transfers.c.account_id, func.sum(transfers.c.amount_nano))
        .where(transfers.c.cause_kind == "payment")
        .group_by(transfers.c.account_id)
    )
    for query in (given, paid):
        for account, amount in connection.execute(query):
            limits[account] += int(amount)
    return limits


_decode_settle = msgspec.json.Decoder(Settle).decode


def _calls(connection: Connection) -> Iterator[tuple[Settle | None, list[UsageRow]]]:
    """Every call with its rows in order; None for the record when a final row is missing."""
    query = select(usage).order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision)
    streamed = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query).mappings()
    for _, group in groupby(streamed, key=lambda row: row["hold_id"]):
        rows = [UsageRow(**row) for row in group]
        final = next((row for row in rows if row.final), None)
        yield (None if final is None else _decode_settle(final.record)), rows


def one_end_per_hold(connection: Connection) -> list[Violation]:
    """I3: every posted hold has exactly one final row, and all its rows the same state."""
    finals = func.sum(case((usage.c.final, 1), else_=0))
    query = (
        select(usage.c.hold_id, finals, func.min(usage.c.state), func.max(usage.c.state))
        .group_by(usage.c.hold_id)
        .having((finals != 1) | (func.min(usage.c.state) != func.max(usage.c.state)))
    )
    return [
        Violation("I3", row[0], f"the hold has {row[1]} ends and is {row[2]} and {row[3]}") for row in connection.execute(query)
    ]


def ended_lives_hold_nothing(connection: Connection) -> list[Violation]:
    """I4, the part that needs no journal: what an ended life did not spend is back in its scopes."""
    query = (
        select(allotments.c.scope_id, allotments.c.life)
        .join(lives, lives.c.life == allotments.c.life)
        .where(lives.c.ended_us.is_not(None), allotments.c.released.is_(False))
    )
    return [
        Violation("I4", f"{row.scope_id} {row.life}", "the life has ended and its allotment is not released")
        for row in connection.execute(query)
    ]


def charges_have_one_transfer(connection: Connection) -> list[Violation]:
    """I5: a row with an amount has its transfer, and each transfer is the sum of its rows; costs and losses likewise."""
    found: list[Violation] = []
    plan = (
        ("charge", usage.c.transfer_id, usage.c.charge_nano, ("usage", "correction"), entries.REVENUE),
        ("cost", usage.c.cost_transfer_id, usage.c.cost_nano, ("cost", "cost_correction"), entries.PROVIDER_COST),
    )
    for name, link, amount, kinds, account in plan:
        orphans = select(usage.c.hold_id, usage.c.attempt).where(func.coalesce(amount, 0) != 0, link.is_(None))
        found += [
            Violation("I5", f"{row.hold_id}/{row.attempt}", f"the row has a {name} and belongs to no transfer")
            for row in connection.execute(orphans)
        ]
        linked = select(link, func.sum(amount)).where(link.is_not(None)).group_by(link)
        sums = {row[0]: int(row[1]) for row in connection.execute(linked)}
        for row in connection.execute(select(transfers).where(transfers.c.cause_kind.in_(kinds))):
            # A charge credits revenue, a cost debits our cost; a correction downwards is the same the other way round.
            forward = row.credit == account if name == "charge" else row.debit == account
            moved = row.amount_nano if forward else -row.amount_nano
            if sums.pop(row.id, 0) != moved:
                found.append(Violation("I5", row.id, f"the transfer moves {moved}, which is not the sum of its rows' {name}s"))
        found += [Violation("I5", str(rest), f"rows' {name}s name a transfer that does not exist") for rest in sums]
    lost = int(connection.execute(select(func.coalesce(func.sum(usage.c.loss_nano), 0))).scalar_one())
    booked = _balances(connection, entries.PROVIDER_LOSS).get("", 0)
    if lost != booked:
        found.append(Violation("I5", entries.PROVIDER_LOSS, f"rows lost {lost}, transfers say {booked}"))
    return found


def nobody_below_zero(connection: Connection) -> list[Violation]:
    """I6: a prepaid account owes nothing and no grant is overspent; a postpaid one stays within its line."""
    found: list[Violation] = []
    owed = _balances(connection, "receivable:")
    for row in connection.execute(select(accounts)):
        debt = owed.get(row.id, 0)
        if row.kind == "prepaid" and debt:
            found.append(Violation("I6", row.id, f"a prepaid account owes {debt} nano-dollars"))
    beyond = select(scopes.c.account_id).where(scopes.c.kind == "account", scopes.c.posted_nano > scopes.c.limit_nano)
    found += [Violation("I6", row, "the account is beyond its credit") for row in connection.execute(beyond).scalars()]
    overspent = select(grants.c.id).where(grants.c.remaining_nano < 0)
    return found + [Violation("I6", row, "the grant is overspent") for row in connection.execute(overspent).scalars()]


def scopes_within_limits(connection: Connection) -> list[Violation]:
    """I7: posted + allotted ≤ limit in every scope."""
    beyond = scopes.c.posted_nano + scopes.c.allotted_nano > scopes.c.limit_nano
    query = select(scopes.c.id).where(beyond | (scopes.c.posted_nano < 0) | (scopes.c.allotted_nano < 0))
    return [
        Violation("I7", row, "posted + allotted is above the limit, or negative") for row in connection.execute(query).scalars()
    ]


def accrual_is_usage(connection: Connection) -> list[Violation]:
    """I8: what an account's receivable was debited for calls, less refunds, is the sum of its usage."""
    charges = {
        row[0]: int(row[1])
        for row in connection.execute(select(usage.c.account_id, func.sum(usage.c.charge_nano)).group_by(usage.c.account_id))
    }
    signed = case((transfers.c.credit == entries.REVENUE, transfers.c.amount_nano), else_=-transfers.c.amount_nano)
    query = (
        select(transfers.c.account_id, func.sum(signed))
        .where(transfers.c.cause_kind.in_(("usage", "correction")))
        .group_by(transfers.c.account_id)
    )
    accrued = {row[0]: int(row[1]) for row in connection.execute(query)}
    return [
        Violation("I8", account, f"usage comes to {charges.get(account, 0)}, the ledger accrued {accrued.get(account, 0)}")
        for account in sorted(charges.keys() | accrued.keys())
        if charges.get(account, 0) != accrued.get(account, 0)
    ]


class _Figures(msgspec.Struct):
    """The figures of an attempt's own record, as plain JSON."""

    n: int = 0
    usage: dict[str, int] | None = None
    rates: dict[str, int] | None = None
    markup_bp: int = 0
    outcome: str = ""
    flags: tuple[str, ...] = ()


class _Words(_Figures):
    """A row's record: an attempt, or a call with its attempts."""

    attempts: tuple[_Figures, ...] | None = None
    hold_nano: int = 0


_decode_words = msgspec.json.Decoder(_Words).decode


def rows_recompute(connection: Connection) -> list[Violation]:
    """I9: cost and charge of every attempt follow from its own record; a call is never charged more than its hold."""
    found: list[Violation] = []
    for call, rows in _calls(connection):
        if call is not None and sum(row.charge_nano for row in rows) > call.hold_nano:
            found.append(Violation("I9", call.id, f"the call is charged more than its hold of {call.hold_nano}"))
        for attempt, group in groupby(rows, key=lambda row: row.attempt):
            revisions = list(group)
            found += [Violation("I9", f"{revisions[0].hold_id}/{attempt}", sentence) for sentence in _recompute(revisions)]
    return found


def _recompute(revisions: list[UsageRow]) -> Iterator[str]:
    """What does not follow, for an attempt and its corrections: after each of them, the sums must."""
    charge = loss = 0
    cost: int | None = None
    for row in revisions:
        words = _decode_words(row.record)
        attempts = words.attempts
        figures: _Figures = words if attempts is None else (attempts[-1] if attempts else _Figures())
        charge, loss = charge + row.charge_nano, loss + row.loss_nano
        if row.cost_nano is not None:
            cost = (cost or 0) + row.cost_nano
        if figures.n != row.attempt:
            yield f"the row's record is about attempt {figures.n}"
        if figures.usage is None or figures.rates is None:
            # Nothing known, or nothing that costs: then nothing is charged either.
            if charge or loss or cost:
                yield f"it has amounts (charge {charge}, loss {loss}, cost {cost}) without usage and rates"
            continue
        if any(count < 0 for count in figures.usage.values()):
            yield "a count is negative"
        pico = sum(count * figures.rates.get(name, 0) for name, count in figures.usage.items()) + figures.rates.get("request", 0)
        if cost is None or cost != _half_even(pico, 1_000):
            yield f"the cost is {cost}, its usage costs {_half_even(pico, 1_000)}"
        if CONTINUED_FLAG in figures.flags:
            pico -= sum(count * figures.rates.get(name, 0) for name, count in figures.usage.items() if name in INPUT_CLASSES)
        price = _half_even(pico * (10_000 + figures.markup_bp), 10_000 * 1_000)
        free = figures.outcome not in UNBILLED_OUTCOMES_OK or bool(FREE_FLAGS & set(figures.flags))
        if charge + loss != price and not (free and charge + loss == 0):
            yield f"charge {charge} and loss {loss} are not the price of its usage, {price}"


def _half_even(numerator: int, denominator: int) -> int:
    """Rounded half to even, by doubling: no code in common with `farebox.money`."""
    floor = numerator // denominator
    above = 2 * (numerator - floor * denominator) - denominator
    return floor + (1 if above > 0 or (above == 0 and floor % 2 == 1) else 0)


def facts_are_guarded(connection: Connection) -> list[Violation]:
    """I10, the part that needs no journal: the triggers that keep the facts are in place, and no correction ends a hold."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    else:
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
    present = set(connection.execute(text(query)).scalars())
    wanted = {f"{table}_no_{verb}" for table in IMMUTABLE for verb in ("update", "delete")}
    found = [Violation("I10", name, "the trigger that keeps facts from changing is missing") for name in sorted(wanted - present)]
    ends = select(usage.c.hold_id).where(usage.c.final, usage.c.revision > 0)
    return found + [Violation("I10", row, "a correction ends a hold") for row in connection.execute(ends).scalars()]
