"""The gateway's books against a provider's true bill: plain SQL and integers, no code in common with the gateway's billing.

    report = reconcile(read_books(url), read_bill(path), PRICES, markup_bp=0)
    assert not report.problems

Every attempt on the bill must have one usage row that says the same, at the exact price. A row that says of itself that it does
not know (recovered, estimated, observed, unknown cost) is not a problem but is **listed**, with the truth to correct it by.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

Rates = Mapping[str, int]
"""Pico-dollars per unit by class of usage; a class that is not named bills as `input` or `output`."""
_INPUT = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input")


def rates(*, input: str = "2.50", output: str = "10.00", cached_input: str | None = None) -> Rates:
    """Prices in USD per million tokens, as in the configuration."""
    pico = {"input": int(Decimal(input) * 10**6), "output": int(Decimal(output) * 10**6)}
    return pico if cached_input is None else {**pico, "cache_read": int(Decimal(cached_input) * 10**6)}


def half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def pico(usage: Mapping[str, int], prices: Rates) -> int:
    return sum(count * prices.get(name, prices["input" if name in _INPUT else "output"]) for name, count in usage.items())


def cost(usage: Mapping[str, int], prices: Rates) -> int:
    """What a provider invoices, in nano-dollars."""
    return half_even(pico(usage, prices), 1_000)


def price(usage: Mapping[str, int], prices: Rates, markup_bp: int = 0) -> int:
    """What a customer pays, in nano-dollars."""
    return half_even(pico(usage, prices) * (10_000 + markup_bp), 10_000 * 1_000)


# --- the provider's side ------------------------------------------------------------------------------------------------


@dataclass
class Truth:
    """What one attempt owes by the provider's own book."""

    model: str
    usage: dict[str, int]
    reason: str = "unfinished"


def read_bill(path: Path) -> dict[str, Truth]:
    """By the gateway's own name of the attempt, `<generation>/<n>`."""
    by_id: dict[str, Truth] = {}
    names: dict[str, str] = {}
    found: dict[str, Truth] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        id = line["id"]
        if line["line"] == "start" or id not in by_id:
            name = line["farebox_attempt"]
            assert name not in found, f"the provider saw the attempt {name} twice"
            by_id[id] = found[name] = Truth(line["model"], dict(line["usage"]))
            names[id] = name
        truth = by_id[id]
        if line["line"] == "tokens":
            truth.usage |= {"output": line["output"], "reasoning": line["reasoning"]}
        if line["line"] == "final":
            truth.usage, truth.reason = dict(line["usage"]), line["reason"]
    return found


# --- the gateway's side -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    hold: str
    attempt: int
    revision: int
    final: bool
    state: str
    outcome: str
    basis: str
    provider: str
    charge: int
    loss: int
    cost: int | None
    words: dict[str, Any]
    """The attempt's own record."""

    @property
    def name(self) -> str:
        return f"{self.hold}/{self.attempt}"

    @property
    def usage(self) -> dict[str, int] | None:
        return self.words.get("usage")

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(self.words.get("flags", ()))


@dataclass
class Books:
    rows: list[Row]
    transfers: list[tuple[str, str, int, str]]
    """Debit, credit, amount, cause."""
    scopes: dict[str, tuple[int, int, int]]
    """Limit, posted, allotted."""
    positions: dict[str, tuple[int, int]]
    outbox: list[tuple[str, str]] = field(default_factory=list)

    @property
    def charged(self) -> int:
        return sum(row.charge for row in self.rows)

    @property
    def costs(self) -> int:
        return sum(row.cost or 0 for row in self.rows)

    @property
    def allotted(self) -> int:
        return sum(allotted for _, _, allotted in self.scopes.values())

    def call(self, hold: str) -> list[Row]:
        return [row for row in self.rows if row.hold == hold]

    def moved(self, account: str) -> int:
        """Debits less credits of a ledger account, or of all whose names begin so."""
        return sum(
            amount * (debit.startswith(account) - credit.startswith(account)) for debit, credit, amount, _ in self.transfers
        )


_ROWS = (
    "SELECT hold_id, attempt, revision, final, state, outcome, basis, provider, charge_nano, loss_nano, cost_nano, record"
    " FROM usage ORDER BY hold_id, attempt, revision"
)
_TRANSFERS = "SELECT debit, credit, amount_nano, cause_kind FROM transfers"
_SCOPES = "SELECT id, limit_nano, posted_nano, allotted_nano FROM scopes"
_POSITIONS = "SELECT slot, segment, byte_offset FROM journal_positions"
_OUTBOX = "SELECT kind, payload FROM outbox"


def _select(url: str, *queries: str) -> list[list[Any]]:
    """The answers to some queries, on one snapshot."""
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True, timeout=20)
        try:
            connection.execute("BEGIN")
            return [connection.execute(query).fetchall() for query in queries]
        finally:
            connection.close()
    with psycopg.connect(url) as server:
        server.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return [server.execute(query.encode()).fetchall() for query in queries]


def read_books(url: str) -> Books:
    rows, transfers, scopes, positions, outbox = _select(url, _ROWS, _TRANSFERS, _SCOPES, _POSITIONS, _OUTBOX)
    return Books(
        [_row(values) for values in rows],
        [tuple(values) for values in transfers],
        {id: (limit, posted, allotted) for id, limit, posted, allotted in scopes},
        {slot: (segment, offset) for slot, segment, offset in positions},
        [tuple(values) for values in outbox],
    )


def _row(values: tuple[Any, ...]) -> Row:
    *fields, record = values
    words = json.loads(record)
    if "attempts" in words:
        words = words["attempts"][-1] if words["attempts"] else {}
    fields[3] = bool(fields[3])
    return Row(*fields, words)


def is_posted(url: str, journals: Path) -> bool:
    """Whether every record of every journal is in the ledger. Behind a segment's last record there is nothing, or zeros."""
    (rows,) = _select(url, _POSITIONS)
    positions = {slot: (segment, offset) for slot, segment, offset in rows}
    for path in journals.glob("w*/*.journal"):
        segment, offset = positions.get(path.parent.name, (0, 0))
        if int(path.stem) < segment:
            continue
        with path.open("rb") as file:
            file.seek(offset if int(path.stem) == segment else 0)
            if file.read(1).strip(b"\0"):
                return False
    return True


# --- the comparison -----------------------------------------------------------------------------------------------------

OUTPUT = {"output", "reasoning", "audio_output", "image_output"}
NOT_EXACT = {"recovered", "estimated", "usage_missing", "usage_anomaly", "upstream_truncated"}


@dataclass
class Report:
    problems: list[str] = field(default_factory=list)
    listed: dict[str, tuple[Row, dict[str, int]]] = field(default_factory=dict)
    """Rows that say that they do not know, by attempt, each with the true usage."""
    exact: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    invoice_nano: int = 0
    """The whole true bill."""


def reconcile(books: Books, bill: Mapping[str, Truth], prices: Mapping[tuple[str, str], Rates], markup_bp: int = 0) -> Report:
    """Compare. `prices` are by provider and the provider's model id."""
    report = Report()
    say = report.problems.append
    revisions: dict[str, list[Row]] = defaultdict(list)
    finals: Counter[str] = Counter()
    states: dict[str, set[str]] = defaultdict(set)
    for row in books.rows:
        revisions[row.name].append(row)
        finals[row.hold] += row.final
        states[row.hold].add(row.state)
    for name, rows in revisions.items():
        if len({row.revision for row in rows}) != len(rows):
            report.duplicates += 1
            say(f"{name}: a usage id stands twice")
    for hold, seen in states.items():
        if finals[hold] != 1 or len(seen) != 1:
            say(f"{hold}: {finals[hold]} ends, states {seen}")
    for name, truth in bill.items():
        if name not in revisions:
            say(f"{name}: the provider has it ({truth.reason}, {truth.usage}), the books do not")
        if truth.reason == "unfinished":
            say(f"{name}: the provider itself has not finished it")
    for name, rows in revisions.items():
        row = rows[-1]
        if row.attempt == 0:
            if row.charge or row.cost:
                say(f"{name}: nothing was sent, and it has amounts")
            continue
        truth = bill.get(name)
        usage = truth.usage if truth is not None else {}
        owed = prices[row.provider, row.words["upstream_id"]]
        report.invoice_nano += cost(usage, owed)
        charge, loss = sum(one.charge for one in rows), sum(one.loss for one in rows)
        costs = [one.cost for one in rows if one.cost is not None]
        corrected = "corrected" in row.flags
        if not corrected and (not costs or row.basis in ("estimated", "observed") or NOT_EXACT & set(row.flags)):
            report.listed[name] = (row, usage)
            report.flags.update(row.flags or ("unknown_cost",))
            continue
        report.exact += 1
        if not costs or sum(costs) != cost(usage, owed):
            say(f"{name}: it cost {cost(usage, owed)}, the books say {costs} ({row.outcome} {row.flags} {row.usage}/{usage})")
        known = {key: count for key, count in (row.usage or {}).items() if count}
        if known != {key: count for key, count in usage.items() if count}:
            say(f"{name}: used {usage}, the books say {row.usage} ({row.outcome} {row.flags})")
        # Who went on with another's answer is paid for its output: the input was paid with the first part (billing.md §4).
        paid = {part: count for part, count in usage.items() if "continued" not in row.flags or part in OUTPUT}
        wanted = price(paid, owed, markup_bp)
        if corrected:
            if charge + loss not in (0, wanted):
                say(f"{name}: corrected, and charge {charge} with loss {loss} is not the price {wanted}")
        elif row.outcome in ("ok", "client_gone"):
            if charge + loss != wanted:
                say(f"{name}: charge {charge} and loss {loss}, the price is {wanted}")
        elif charge or loss:
            say(f"{name}: nobody pays for `{row.outcome}`, and {charge} is charged")
    ledger = books.moved("provider_cost"), books.costs
    if ledger[0] != ledger[1]:
        say(f"transfers cost {ledger[0]}, rows {ledger[1]}")
    charged = sum(
        amount * ((credit == "revenue") - (debit == "revenue"))
        for debit, credit, amount, cause in books.transfers
        if cause in ("usage", "correction")
    )
    if charged != books.charged:
        say(f"customers' transfers come to {charged}, rows to {books.charged}")
    return report


def summary(reports: Iterable[Report]) -> str:
    found = list(reports)
    return f"{sum(report.exact for report in found)} exact, {sum(len(report.listed) for report in found)} listed"
