"""Exports: usage rows, and the ledger as journal entries, as tables of typed columns. `export_files` writes them.

Rows are streamed from one snapshot in the order of an index, so that an export of any length is consistent and needs the memory
of a thousand rows. Amounts leave as integers of nano-dollars and are written as decimals, never as floats.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Select, func, select

from farebox.billing.books.breakdown import broken_down
from farebox.billing.books.evidence import settle
from farebox.billing.pricing import cost_pico
from farebox.money import PICO_PER_NANO, divide_half_even
from farebox.storage.queries import UsageRow
from farebox.storage.reports import Narrow
from farebox.storage.tables import accounts, transfers, usage
from farebox.wires.usage import Usage

ROWS_AT_ONCE = 1_000
OWNERS_MAX = 1_000
"""Accounts that are remembered: rows come by account, so one would nearly do."""

Kind = Literal["text", "count", "quantity", "amount", "decimal", "time"]
"""`quantity`: a count that its format wants as a decimal · `amount`: nano-dollars ·
`decimal`: picos of a dollar · `time`: microseconds since the epoch. None is empty."""
Values = tuple[str | int | None, ...]


class Column(msgspec.Struct, frozen=True):
    name: str
    kind: Kind = "text"


USAGE_COLUMNS: tuple[Column, ...] = (
    Column("id"), Column("attempt", "count"), Column("revision", "count"), Column("created_at", "time"),
    Column("posted_at", "time"), Column("account_id"), Column("account"), Column("key_id"), Column("project"),
    Column("end_user"), Column("model"), Column("requested_model"), Column("provider"), Column("upstream_model"),
    Column("state"), Column("outcome"), Column("basis"), Column("flags"),
    *(Column(name, "count") for name in (*Usage.TOKEN_CLASSES, "web_searches")),
    Column("list_usd", "amount"), Column("cost_usd", "amount"), Column("fee_usd", "amount"), Column("charge_usd", "amount"),
    Column("loss_usd", "amount"), Column("markup_plan"), Column("markup_bp", "count"), Column("price_version"),
)  # fmt: skip
"""One line per attempt and correction. A correction's amounts are differences; its counts restate the attempt. `list_usd` is what
the usage costs by the list; `cost_usd`, what we owe, is empty where it is not known yet."""

JOURNAL_COLUMNS: tuple[Column, ...] = (
    Column("entry"), Column("booked_at", "time"), Column("ledger_account"), Column("debit_usd", "amount"),
    Column("credit_usd", "amount"), Column("kind"), Column("reference"), Column("account_id"), Column("account"),
)  # fmt: skip
"""Two lines per transfer, debit and credit, joined by `entry`."""


class Owners:
    """Accounts by id, asked for as their rows come: an export does not hold all customers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, tuple[str, str]] = {}

    def name(self, account_id: str) -> str:
        return self._of(account_id)[0]

    def prepaid(self, account_id: str) -> bool:
        return self._of(account_id)[1] == "prepaid"

    def _of(self, account_id: str) -> tuple[str, str]:
        found = self._known.get(account_id)
        if found is None:
            if len(self._known) >= OWNERS_MAX:
                self._known.clear()
            row = self._connection.execute(_OWNER.where(accounts.c.id == account_id)).one_or_none()
            # A call is exported whatever became of the row of its account.
            found = self._known[account_id] = ("", "") if row is None else (row.name, row.kind)
        return found


_OWNER = select(accounts.c.name, accounts.c.kind)


def stream(connection: Connection, query: Select[*tuple[Any, ...]]) -> Iterator[Any]:
    """Rows a thousand at a time, from a cursor on the server where the engine has one."""
    return iter(connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).mappings())


def count_usage(connection: Connection, narrow: Narrow) -> int:
    """How many rows `usage_rows` will give."""
    return connection.execute(narrow.apply(select(func.count()).select_from(usage))).scalar_one()


def usage_rows(connection: Connection, narrow: Narrow) -> Iterator[UsageRow]:
    """Usage rows by account and time, a call's rows together."""
    order = (usage.c.account_id, usage.c.created_us, usage.c.hold_id, usage.c.attempt, usage.c.revision)
    for row in stream(connection, narrow.apply(select(usage)).order_by(*order)):
        yield UsageRow(**row)


def usage_table(connection: Connection, narrow: Narrow) -> Iterator[Values]:
    """The lines of `USAGE_COLUMNS`."""
    owners = Owners(connection)
    requested: tuple[str, str] = ("", "")
    for row, attempt, parts in broken_down(usage_rows(connection, narrow)):
        if row.final and requested[0] != row.hold_id:
            requested = (row.hold_id, settle(row).requested)
        usage_of = (attempt.usage if attempt is not None else None) or Usage()
        known = attempt is not None and attempt.usage is not None
        rates = attempt.rates if attempt is not None else None
        listed = divide_half_even(cost_pico(usage_of, rates), PICO_PER_NANO) if rates is not None and known else None
        yield (
            row.hold_id,
            row.attempt,
            row.revision,
            row.created_us,
            row.posted_us,
            row.account_id,
            owners.name(row.account_id),
            row.key_id,
            row.project,
            row.end_user,
            row.model,
            requested[1] if requested[0] == row.hold_id else None,
            row.provider,
            attempt.upstream_id if attempt is not None else None,
            row.state,
            row.outcome,
            row.basis,
            " ".join(attempt.flags) if attempt is not None else None,
            *(getattr(usage_of, name) if known else None for name in (*Usage.TOKEN_CLASSES, "web_searches")),
            listed,
            row.cost_nano,
            parts.fee_nano,
            row.charge_nano,
            row.loss_nano,
            attempt.plan if attempt is not None else None,
            attempt.markup_bp if attempt is not None else None,
            attempt.price_version if attempt is not None else None,
        )


def _transfers(query: Select[*tuple[Any, ...]], narrow: Narrow) -> Select[*tuple[Any, ...]]:
    query = query.where(transfers.c.at_us >= narrow.since_us)
    if narrow.until_us is not None:
        query = query.where(transfers.c.at_us < narrow.until_us)
    return query if narrow.account_id is None else query.where(transfers.c.account_id == narrow.account_id)


def count_journal(connection: Connection, narrow: Narrow) -> int:
    """How many transfers `journal_table` will give, two lines each."""
    return connection.execute(_transfers(select(func.count()).select_from(transfers), narrow)).scalar_one()


def journal_table(connection: Connection, narrow: Narrow) -> Iterator[Values]:
    """The ledger's transfers of a period as `JOURNAL_COLUMNS`; only the account and the period narrow them."""
    named = select(transfers, accounts.c.name).outerjoin(accounts, accounts.c.id == transfers.c.account_id)
    for row in stream(connection, _transfers(named, narrow).order_by(transfers.c.id)):
        rest = (row["cause_kind"], row["cause_id"], row["account_id"], row["name"])
        yield (row["id"], row["at_us"], row["debit"], row["amount_nano"], None, *rest)
        yield (row["id"], row["at_us"], row["credit"], None, row["amount_nano"], *rest)
