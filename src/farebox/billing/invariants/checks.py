"""Checks: the invariants of billing.md §5, each recomputed from the facts and said in a sentence when it is broken.

`check` is what `farebox ledger check` prints and what the tests assert after every step. It only reads, from one snapshot, and
shares no arithmetic with what it checks: sums are SQL of its own, prices are added up here from the rows' own JSON.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from farebox.billing.accounts.codes import uses_are_redemptions
from farebox.billing.books import carrying
from farebox.billing.books import transfers as entries
from farebox.billing.books.carrying import Revised
from farebox.billing.books.hours import hours_are_transfers
from farebox.billing.books.own_key_usage import own_keys_are_usage
from farebox.billing.books.problem import Problem
from farebox.billing.invariants.check_cards import bills_are_payments, payments_are_credit, reversals_are_transfers
from farebox.billing.invariants.check_invoices import invoices_are_usage
from farebox.billing.invariants.check_journal import held_is_allotted, nothing_reopens
from farebox.billing.invariants.check_reconciliations import findings_are_transfers
from farebox.billing.invariants.check_seals import receipts_are_rows
from farebox.billing.records import Settle
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import IMMUTABLE

ROWS_AT_ONCE = 1_000
BILLED_OUTCOMES = frozenset({"ok"})
"""An attempt that ended well is paid for; one that did not may be free by policy (billing.md §4)."""
FREE_FLAGS = frozenset({"unbilled", "cache_hit"})
CONTINUED_FLAG = "continued"
"""A continuation on another offer bills its output only: the input, and the fee per request, are billed once."""
INPUT_CLASSES = frozenset({"input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input"})

EPOCH = date(1970, 1, 1)

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
        hours_are_transfers,
        own_keys_are_usage,
        uses_are_redemptions,
        payments_are_credit,
        bills_are_payments,
        reversals_are_transfers,
        one_end_per_hold,
        ended_lives_hold_nothing,
        charges_have_one_transfer,
        findings_are_transfers,
        nobody_below_zero,
        scopes_within_limits,
        accrual_is_usage,
        invoices_are_usage,
        rows_recompute,
        facts_are_guarded,
        receipts_are_rows,
    )
    return [violation for invariant in invariants for violation in invariant(connection)]


def _rows(connection: Connection, sql: str) -> list[Any]:
    """The rows of a fixed statement that both engines understand."""
    return list(connection.exec_driver_sql(sql))


def _sums(connection: Connection, sql: str) -> dict[str, int]:
    """Names and sums; an engine may say them as decimals."""
    return {name: int(amount) for name, amount in connection.exec_driver_sql(sql)}


def _each(connection: Connection, invariant: str, sentence: str, sql: str) -> list[Violation]:
    """A violation for every row of a statement; its columns name the subject."""
    return [Violation(invariant, "/".join(str(part) for part in row), sentence) for row in connection.exec_driver_sql(sql)]


def _balances(connection: Connection, prefix: str = "") -> dict[str, int]:
    """Debits − credits of every ledger account whose name starts so; the name without the prefix."""
    sums = _sums(
        connection,
        "SELECT name, SUM(amount) FROM (SELECT debit AS name, amount_nano AS amount FROM transfers "
        "UNION ALL SELECT credit, -amount_nano FROM transfers) AS entries GROUP BY name",
    )
    return {name[len(prefix) :]: amount for name, amount in sums.items() if name.startswith(prefix)}


def debits_are_credits(connection: Connection) -> list[Violation]:
    """I1: every transfer has two known accounts and a positive amount, and all balances together are zero."""
    found = _each(
        connection,
        "I1",
        "the transfer does not move a positive amount between two accounts",
        "SELECT id FROM transfers WHERE amount_nano <= 0 OR debit = credit",
    )
    balances = _balances(connection)
    total = sum(balances.values())
    if total:
        found.append(Violation("I1", "ledger", f"debits exceed credits by {total} nano-dollars"))
    owners = {f"receivable:{row.id}" for row in _rows(connection, "SELECT id FROM accounts")}
    owners |= {f"clawback:{row.id}" for row in _rows(connection, "SELECT id FROM accounts")}
    owners |= {f"credit:{row.id}" for row in _rows(connection, "SELECT id FROM grants")}
    for name in balances.keys() - owners - set(entries.PLATFORM):
        if not name.startswith("provider_payable:"):
            found.append(Violation("I1", name, "transfers name an account that does not exist"))
    return found


def balances_are_entries(connection: Connection) -> list[Violation]:
    """I2: every projection equals its facts: grants, scopes and their limits, allotments."""
    found: list[Violation] = []

    def compare(subject: str, what: str, stored: int, facts: int) -> None:
        if stored != facts:
            found.append(Violation("I2", subject, what.format(stored, facts)))

    credit = _balances(connection, "credit:")
    for row in _rows(connection, "SELECT id, remaining_nano FROM grants"):
        compare(row.id, "the grant says {} remain, its transfers {}", row.remaining_nano, -credit.get(row.id, 0))
    revised = carrying.revised(connection)
    posted, charged, carried = _posted(connection, revised)
    allotted: dict[str, int] = defaultdict(int)
    for row in _rows(connection, "SELECT * FROM allotments"):
        if not row.released:
            allotted[row.scope_id] += row.granted_nano - row.posted_nano
        # Less is possible: a charge that no allotment covered went straight to the scope (`billing.posting.care`).
        if row.posted_nano > charged.get((row.scope_id, row.life), 0):
            subject = f"{row.scope_id} {row.life}"
            found.append(Violation("I2", subject, "the allotment says more is posted than its calls were charged"))
    for account, stored, facts in _volumes(connection):
        compare(account, "the month's volume says {}, its usage transfers {}", stored, facts)
    limits = _limits(connection)
    known: set[str] = set()
    # Of an earlier revision, what it would count is not known any more.
    revisions = {one.budget.id: one.budget.revision for one in revised}
    for row in _rows(connection, "SELECT * FROM scopes"):
        known.add(row.id)
        facts = posted.get(row.id, 0) + row.carried_nano
        compare(row.id, "the scope says {} is posted, its calls were charged {}", row.posted_nano, facts)
        if revisions.get(row.budget_id) == row.revision:
            there = carried.get(row.id, 0)
            compare(row.id, "the scope carries {}, calls from before its budget was changed {}", row.carried_nano, there)
        compare(row.id, "the scope says {} is allotted, its allotments hold {}", row.allotted_nano, allotted.get(row.id, 0))
        target = row.limit_nano if row.wanted_limit_nano is None else row.wanted_limit_nano
        if row.kind == "account":
            compare(row.id, "the limit is {}, credit and payments make {}", target, limits.get(row.account_id, 0))
        if row.wanted_limit_nano is not None and row.limit_nano != row.posted_nano + row.allotted_nano:
            found.append(Violation("I2", row.id, "a lower limit is wanted and the limit is not as low as it can be"))
    for scope_id in posted.keys() - known:
        found.append(Violation("I2", scope_id, "calls were charged in a scope that does not exist"))
    return found


def _posted(
    connection: Connection, revised: Sequence[Revised]
) -> tuple[dict[str, int], dict[tuple[str, str], int], dict[str, int]]:
    """Charges by scope (corrections included), by scope and life (as first posted), and by scope that carries them."""
    carried: dict[str, int] = defaultdict(int)
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
        for one in revised:
            scope = None if one.account_id != call.account else carrying.scope_carrying(one, carrying.charged(rows, call.scopes))
            if scope is not None:
                carried[scope.id] += charge
    return by_scope, by_life, carried


def _volumes(connection: Connection) -> Iterator[tuple[str, int, int]]:
    """Each account's volume as stored, and the sum of the usage transfers of its month."""
    by_month: dict[tuple[str, str], int] = defaultdict(int)
    days = (
        "SELECT account_id, at_us / 86400000000 AS day, SUM(amount_nano) AS amount FROM transfers WHERE cause_kind = 'usage' "
        "GROUP BY account_id, at_us / 86400000000"
    )
    for row in _rows(connection, days):
        by_month[row.account_id, (EPOCH + timedelta(days=int(row.day))).strftime("%Y-%m")] += int(row.amount)
    for row in _rows(connection, "SELECT account_id, month, charged_nano FROM volumes"):
        yield row.account_id, row.charged_nano, by_month.get((row.account_id, row.month), 0)


def _limits(connection: Connection) -> dict[str, int]:
    """What an account's limit should be: the credit line + all credit − expired − what went back + payments − invoices' tax and
    rounding."""
    return _sums(
        connection,
        "SELECT id, SUM(amount) FROM (SELECT id, credit_limit_nano AS amount FROM accounts "
        "UNION ALL SELECT account_id, amount_nano - expired_nano - reversed_nano FROM grants "
        "UNION ALL SELECT account_id, -owed_nano FROM clawbacks "
        "UNION ALL SELECT account_id, amount_nano FROM transfers WHERE cause_kind = 'payment' "
        # An invoice rounds what is owed to cents and adds tax to it: that is paid, too, but is not usage.
        "UNION ALL SELECT account_id, amount_nano FROM transfers WHERE cause_kind IN ('rounding', 'tax') "
        "AND substr(credit, 1, 11) = 'receivable:' "
        "UNION ALL SELECT account_id, -amount_nano FROM transfers WHERE cause_kind IN ('rounding', 'tax') "
        "AND substr(debit, 1, 11) = 'receivable:') AS parts GROUP BY id",
    )


_decode_settle = msgspec.json.Decoder(Settle).decode
_ALL_USAGE = f"SELECT {', '.join(UsageRow.__struct_fields__)} FROM usage ORDER BY hold_id, attempt, revision"  # noqa: S608


def _calls(connection: Connection) -> Iterator[tuple[Settle | None, list[UsageRow]]]:
    """Every call with its rows in order; None for the record when a final row is missing."""
    streamed = connection.exec_driver_sql(_ALL_USAGE, execution_options={"yield_per": ROWS_AT_ONCE})
    for _, group in groupby(streamed, key=lambda row: row.hold_id):
        rows = [UsageRow(*row) for row in group]
        final = next((row for row in rows if row.final), None)
        yield (None if final is None else _decode_settle(final.record)), rows


def one_end_per_hold(connection: Connection) -> list[Violation]:
    """I3: every posted hold has exactly one final row, and all its rows the same state."""
    sql = (
        "SELECT hold_id, SUM(CASE WHEN final THEN 1 ELSE 0 END) AS ends, MIN(state) AS first, MAX(state) AS last FROM usage "
        "GROUP BY hold_id HAVING SUM(CASE WHEN final THEN 1 ELSE 0 END) <> 1 OR MIN(state) <> MAX(state)"
    )
    return [
        Violation("I3", row.hold_id, f"the hold has {row.ends} ends and is {row.first} and {row.last}")
        for row in _rows(connection, sql)
    ]


def ended_lives_hold_nothing(connection: Connection) -> list[Violation]:
    """I4, the part that needs no journal: what an ended life did not spend is back in its scopes."""
    return _each(
        connection,
        "I4",
        "the life has ended and its allotment is not released",
        "SELECT scope_id, life FROM allotments JOIN lives USING (life) WHERE ended_us IS NOT NULL AND NOT released",
    )


def charges_have_one_transfer(connection: Connection) -> list[Violation]:
    """I5: a row with an amount has its transfer, and each transfer is the sum of its rows; costs and losses likewise."""
    found: list[Violation] = []
    # A charge credits revenue, a cost debits our cost; a correction downwards is the same the other way round.
    plan = (
        ("charge", "transfer_id", "usage", "correction", "credit", entries.REVENUE),
        ("cost", "cost_transfer_id", "cost", "cost_correction", "debit", entries.PROVIDER_COST),
    )
    for name, link, kind, correction, side, account in plan:
        amount = f"{name}_nano"
        found += _each(
            connection,
            "I5",
            f"the row has a {name} and belongs to no transfer",
            f"SELECT hold_id, attempt FROM usage WHERE {amount} <> 0 AND {link} IS NULL",  # noqa: S608
        )
        sums = _sums(
            connection,
            f"SELECT {link}, COALESCE(SUM({amount}), 0) FROM usage WHERE {link} IS NOT NULL GROUP BY {link}",  # noqa: S608
        )
        moved = _sums(
            connection,
            f"SELECT id, CASE WHEN {side} = '{account}' THEN amount_nano ELSE -amount_nano END FROM transfers "  # noqa: S608
            f"WHERE cause_kind IN ('{kind}', '{correction}')",
        )
        for transfer, amount_nano in moved.items():
            if sums.pop(transfer, 0) != amount_nano:
                found.append(Violation("I5", transfer, f"the transfer moves {amount_nano}, not the sum of its rows' {name}s"))
        found += [Violation("I5", transfer, f"rows' {name}s name a transfer that does not exist") for transfer in sums]
    lost = sum(row[0] for row in _rows(connection, "SELECT CAST(COALESCE(SUM(loss_nano), 0) AS BIGINT) FROM usage"))
    booked = _balances(connection, entries.PROVIDER_LOSS).get("", 0)
    if lost != booked:
        found.append(Violation("I5", entries.PROVIDER_LOSS, f"rows lost {lost}, transfers say {booked}"))
    return found


def nobody_below_zero(connection: Connection) -> list[Violation]:
    """I6: a prepaid account owes nothing and no grant is overspent; a postpaid one stays within its line."""
    owed = _balances(connection, "receivable:")
    found = [
        Violation("I6", row.id, f"a prepaid account owes {owed[row.id]} nano-dollars")
        for row in _rows(connection, "SELECT id FROM accounts WHERE kind = 'prepaid'")
        if owed.get(row.id)
    ]
    beyond = "SELECT account_id FROM scopes WHERE kind = 'account' AND posted_nano > limit_nano"
    found += _each(connection, "I6", "the account is beyond its credit", beyond)
    return found + _each(connection, "I6", "the grant is overspent", "SELECT id FROM grants WHERE remaining_nano < 0")


def scopes_within_limits(connection: Connection) -> list[Violation]:
    """I7: posted + allotted ≤ limit in every scope."""
    return _each(
        connection,
        "I7",
        "posted + allotted is above the limit, or negative",
        "SELECT id FROM scopes WHERE posted_nano + allotted_nano > limit_nano OR posted_nano < 0 OR allotted_nano < 0",
    )


def accrual_is_usage(connection: Connection) -> list[Violation]:
    """I8: what an account's receivable was debited for calls, less refunds, is the sum of its usage."""
    charges = _sums(connection, "SELECT account_id, SUM(charge_nano) FROM usage GROUP BY account_id")
    accrued = _sums(
        connection,
        f"SELECT account_id, SUM(CASE WHEN credit = '{entries.REVENUE}' THEN amount_nano ELSE -amount_nano END) "  # noqa: S608
        "FROM transfers WHERE cause_kind IN ('usage', 'correction') GROUP BY account_id",
    )
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
    fees: dict[str, int | bool] = {}
    outcome: str = ""
    flags: tuple[str, ...] = ()
    provider_cost_usd: str = ""


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
        if "reported_cost" in figures.flags:
            yield from _follows_report(figures, cost, charge + loss)
            continue
        pico = sum(count * figures.rates.get(name, 0) for name, count in figures.usage.items()) + figures.rates.get("request", 0)
        # By the customer's own key: the provider's bill is not ours.
        owed = 0 if figures.fees.get("own_key") else _half_even(pico, 1_000)
        if cost is None or cost != owed:
            yield f"the cost is {cost}, its usage costs {owed}"
        if CONTINUED_FLAG in figures.flags:
            pico = _rest(figures.usage, figures.rates)
        price = _marked_up(pico, 1_000, figures)
        free = figures.outcome not in BILLED_OUTCOMES or bool(FREE_FLAGS & set(figures.flags))
        if charge + loss != price and not (free and charge + loss == 0):
            yield f"charge {charge} and loss {loss} are not the price of its usage, {price}"


def _rest(usage: dict[str, int], rates: dict[str, int]) -> int:
    """What a continuation is charged for, in pico-dollars."""
    return sum(count * rates.get(name, 0) for name, count in usage.items() if name not in INPUT_CLASSES)


def _follows_report(figures: _Figures, cost: int | None, charged: int) -> Iterator[str]:
    """Amounts of a provider whose own reported cost is the charge: they follow from its words instead of the counts."""
    whole, _, fraction = figures.provider_cost_usd.partition(".")
    digits, scale = int(whole + fraction or "0"), 10 ** len(fraction)
    owed = 0 if figures.fees.get("own_key") else _half_even(digits * 10**9, scale)
    price = _marked_up(digits * 10**9, scale, figures)
    if CONTINUED_FLAG in figures.flags:
        price = _marked_up(_rest(figures.usage or {}, figures.rates or {}), 1_000, figures)
    if cost != owed:
        yield f"the cost is {cost}, the provider reported {owed}"
    if charged not in (price, 0):
        yield f"charge and loss are {charged}, the marked-up reported cost is {price}"


def _marked_up(cost: int, scale: int, figures: _Figures) -> int:
    """Cost / scale nano-dollars and the fee on it: a percentage and an amount per call, between a floor and a cap."""
    fees = figures.fees
    fee = cost * figures.markup_bp + fees.get("per_call_nano", 0) * 10_000 * scale
    if "min_nano" in fees and fee < fees["min_nano"] * 10_000 * scale:
        fee = fees["min_nano"] * 10_000 * scale
    if "max_nano" in fees and fee > fees["max_nano"] * 10_000 * scale:
        fee = fees["max_nano"] * 10_000 * scale
    return _half_even((0 if fees.get("own_key") else cost * 10_000) + fee, 10_000 * scale)


def _half_even(numerator: int, denominator: int) -> int:
    """Rounded half to even, by doubling: no code in common with `farebox.money`."""
    floor = numerator // denominator
    above = 2 * (numerator - floor * denominator) - denominator
    return floor + (1 if above > 0 or (above == 0 and floor % 2 == 1) else 0)


def facts_are_guarded(connection: Connection) -> list[Violation]:
    """I10, the part that needs no journal: the triggers that keep the facts are in place, and no correction ends a hold."""
    if connection.dialect.name == "sqlite":
        sql = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    else:
        sql = "SELECT tgname AS name FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
    present = {row.name for row in _rows(connection, sql)}
    wanted = {f"{table}_no_{verb}" for table in IMMUTABLE for verb in ("update", "delete")}
    found = [Violation("I10", name, "the trigger that keeps facts from changing is missing") for name in sorted(wanted - present)]
    ends = "SELECT hold_id FROM usage WHERE final AND revision > 0"
    return found + _each(connection, "I10", "a correction ends a hold", ends)
