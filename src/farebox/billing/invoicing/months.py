"""Months: closing them. Once a UTC month is over and its grace has passed, each account's usage is frozen into an invoice.

A usage row belongs to the first document that finds it without one: `invoice_parts` says which rows of which transfer are on
which document, and its key keeps them from being on two. Rows that are posted later go to the next invoice, in lines of their own
month; a correction that lowers usage which is on an invoice already becomes a credit note to that invoice.

The lines are made from one snapshot, outside of any lock. The transaction that freezes them takes the parts of exactly that usage
and compares the sums; if something was posted in between, it is all done again. Closing again gives the stored bytes.
"""

from collections import deque

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select, text

from farebox.billing.books import evidence
from farebox.billing.books import transfers as entries
from farebox.billing.books.breakdown import breakdown, broken_down
from farebox.billing.books.customers import CommandRefused, lock_account
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.periods import format_moment, month_before, month_bounds, month_of
from farebox.billing.books.scopes import bump_version, shift_account_limit
from farebox.billing.books.transfers import Transfer, insert_transfers
from farebox.billing.invoicing import invoices
from farebox.billing.invoicing.exports import stream
from farebox.billing.invoicing.invoices import Customer, Document, Kind, Tally, Terms, Totals
from farebox.ports import Clock, Ids
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import accounts, closed_months, invoice_parts, transfers, usage
from farebox.storage.tables import invoices as invoices_table

LATE_US = 400 * 86_400_000_000
"""How far back usage is looked for that has no invoice yet: what is later than this stays accrued."""
ATTEMPTS_MAX = 5
LOOK_US = 60_000_000


class _Moved(Exception):
    """Something was posted between the snapshot and the freezing."""


class Correction(msgspec.Struct):
    """Corrections of one frozen invoice's usage, which become its credit note."""

    tally: Tally
    parts: list[tuple[str, str, int]]
    """Transfer, month and charge."""


class Collected(msgspec.Struct):
    """What an account's next documents are made of."""

    tally: Tally
    corrections: dict[str, Correction]
    """By the number of the invoice that they correct."""


def without_document() -> ColumnElement[bool]:
    """Charged usage rows that are on no invoice or credit note."""
    part = (
        select(invoice_parts.c.transfer_id)
        .where(
            invoice_parts.c.transfer_id == usage.c.transfer_id,
            invoice_parts.c.from_us <= usage.c.created_us,
            usage.c.created_us < invoice_parts.c.until_us,
        )
        .exists()
    )
    return (usage.c.charge_nano != 0) & usage.c.transfer_id.is_not(None) & ~part


def document_of(connection: Connection, transfer_id: str | None, created_us: int) -> str | None:
    """The document that a usage row is on."""
    if transfer_id is None:
        return None
    query = select(invoice_parts.c.number).where(
        invoice_parts.c.transfer_id == transfer_id,
        invoice_parts.c.from_us <= created_us,
        invoice_parts.c.until_us > created_us,
    )
    return connection.execute(query).scalar_one_or_none()


def collect(connection: Connection, account_id: str, until_us: int) -> Collected:
    """The account's usage of before `until_us` that is on no document, summed up into lines."""
    found = Collected(Tally(), {})
    order = (usage.c.created_us, usage.c.hold_id, usage.c.attempt, usage.c.revision)
    query = (
        select(usage)
        .where(usage.c.account_id == account_id, usage.c.created_us < until_us, usage.c.created_us >= until_us - LATE_US)
        .where(without_document())
        .order_by(*order)
    )
    for values in stream(connection, query):
        row = UsageRow(**values)
        if row.revision:
            _collect_correction(connection, row, found)
            continue
        attempt = evidence.attempt(row)
        assert attempt is not None, "a charged row has an attempt (I9)"
        found.tally.add(row, breakdown(attempt, row.charge_nano), own_key=attempt.own_key)
    return found


def _collect_correction(connection: Connection, row: UsageRow, found: Collected) -> None:
    same = (usage.c.hold_id == row.hold_id) & (usage.c.attempt == row.attempt)
    revisions = [UsageRow(**one) for one in connection.execute(select(usage).where(same).order_by(usage.c.revision)).mappings()]
    attempt, parts = next((words, parts) for one, words, parts in broken_down(revisions) if one.revision == row.revision)
    own_key = attempt is not None and attempt.own_key
    frozen = document_of(connection, revisions[0].transfer_id, row.created_us)
    if frozen is None or row.charge_nano > 0:
        found.tally.add(row, parts, own_key=own_key)
        return
    correction = found.corrections.setdefault(frozen, Correction(Tally(), []))
    correction.tally.add(row, parts, own_key=own_key)
    assert row.transfer_id is not None, "rows without a transfer are not collected"
    correction.parts.append((row.transfer_id, month_of(row.created_us), row.charge_nano))


# --- closing ------------------------------------------------------------------------------------------------------------


def close(
    database: Database, ids: Ids, *, account_id: str, month: str, terms: Terms, now_us: int, early: bool = False
) -> list[Document]:
    """Close an account's months up to and including one; the invoice of that month (if it has usage) and what else was made.

    Refused before the grace is over; with `early`, before the month is. Again, it changes nothing and gives the same bytes.
    """
    until_us = month_bounds(month)[1]
    ready_us = until_us if early else until_us + terms.grace_us
    if now_us < ready_us:
        raise CommandRefused(f"the month {month} can be closed from {format_moment(ready_us)} on")
    made: list[Document] = []
    for one in _open_months(database, account_id, month):
        made += _close_month(database, ids, account_id, one, terms, now_us)
    known = database.read(lambda connection: stored(connection, account_id=account_id, month=month, kind="invoice"))
    numbers = {document.number for document in made}
    return made + [document for document in known if document.number not in numbers]


def _open_months(database: Database, account_id: str, month: str) -> list[str]:
    """Months up to this one that have neither been closed nor an invoice, from the first with usage that has none."""
    until_us = month_bounds(month)[1]

    def ask(connection: Connection) -> tuple[int | None, set[str]]:
        first = (
            select(func.min(usage.c.created_us))
            .where(usage.c.account_id == account_id, usage.c.created_us < until_us, usage.c.created_us >= until_us - LATE_US)
            .where(without_document())
        )
        done = set(connection.execute(select(closed_months.c.month)).scalars())
        invoiced = select(invoices_table.c.month).where(
            invoices_table.c.account_id == account_id, invoices_table.c.kind == "invoice"
        )
        return connection.execute(first).scalar_one(), done | set(connection.execute(invoiced).scalars())

    first_us, done = database.read(ask)
    if first_us is None:
        return []
    found: list[str] = []
    one = month
    while month_bounds(one)[1] > first_us:
        if one not in done:
            found.append(one)
        one = month_before(one)
    return found[::-1]


def _close_month(database: Database, ids: Ids, account_id: str, month: str, terms: Terms, now_us: int) -> list[Document]:
    until_us = month_bounds(month)[1]
    for _ in range(ATTEMPTS_MAX):
        collected = database.read(lambda connection: collect(connection, account_id, until_us))
        if not collected.tally.rows and not collected.corrections:
            return []
        try:
            return database.write(
                lambda connection, found=collected: _freeze(database, connection, ids, account_id, month, found, terms, now_us)
            )
        except _Moved:
            continue
    raise CommandRefused(f"usage of {month} is being posted all the time; try again in a moment")


def _freeze(
    database: Database,
    connection: Connection,
    ids: Ids,
    account_id: str,
    month: str,
    collected: Collected,
    terms: Terms,
    now_us: int,
) -> list[Document]:
    account = lock_account(connection, account_id)
    customer = Customer(account_id, account.name, account.kind)
    if stored(connection, account_id=account_id, month=month, kind="invoice"):
        return []  # somebody else was faster
    made: list[Document] = []
    for corrects in sorted(collected.corrections):
        found = collected.corrections[corrects]
        number = next_number(connection, "credit_note", terms)
        take_parts(connection, number, found.parts)
        made.append(
            issue(
                database, connection, ids, number=number, kind="credit_note", month=month, tally=found.tally, terms=terms,
                customer=customer, now_us=now_us, corrects=corrects, reason="usage was corrected",
            )
        )  # fmt: skip
    if not collected.tally.rows:
        return made
    number = next_number(connection, "invoice", terms)
    for one in sorted(collected.tally.months):
        from_us, end_us = month_bounds(one)
        rows = (
            select(
                usage.c.transfer_id,
                text(str(from_us)),
                text(str(end_us)),
                text(":number").bindparams(number=number),
                func.sum(usage.c.charge_nano),
            )
            .where(usage.c.account_id == account_id, usage.c.created_us >= from_us, usage.c.created_us < end_us)
            .where(without_document())
            .group_by(usage.c.transfer_id)
        )
        connection.execute(insert(invoice_parts).from_select(list(invoice_parts.c.keys()), rows))
    taken = select(func.coalesce(func.sum(invoice_parts.c.charge_nano), 0)).where(invoice_parts.c.number == number)
    if int(connection.execute(taken).scalar_one()) != collected.tally.usage_nano:
        raise _Moved
    made.append(
        issue(
            database, connection, ids, number=number, kind="invoice", month=month, tally=collected.tally, terms=terms,
            customer=customer, now_us=now_us,
        )
    )  # fmt: skip
    return made


def next_number(connection: Connection, kind: Kind, terms: Terms) -> str:
    """The next number of a series; it is given back if the transaction fails, so there are no gaps."""
    taken = text(
        "INSERT INTO document_numbers (series, last) VALUES (:series, 1) "
        "ON CONFLICT (series) DO UPDATE SET last = document_numbers.last + 1 RETURNING last"
    )
    last = connection.execute(taken, {"series": kind}).scalar_one()
    return f"{terms.prefix if kind == 'invoice' else terms.credit_note_prefix}{last:06d}"


def take_parts(connection: Connection, number: str, parts: list[tuple[str, str, int]]) -> None:
    """Put single rows on a document: transfer, month of creation, charge."""
    for transfer_id, month, charge_nano in parts:
        from_us, until_us = month_bounds(month)
        values = {"transfer_id": transfer_id, "from_us": from_us, "until_us": until_us, "number": number}
        connection.execute(insert(invoice_parts).values(**values, charge_nano=charge_nano))


def issue(
    database: Database,
    connection: Connection,
    ids: Ids,
    *,
    number: str,
    kind: Kind,
    month: str,
    tally: Tally,
    terms: Terms,
    customer: Customer,
    now_us: int,
    corrects: str | None = None,
    reason: str = "",
) -> Document:
    """Freeze a document whose parts are taken: its row, its transfers, its message. The account is locked."""
    lines, net = tally.lines()
    postpaid = customer.kind == "postpaid"
    tax = invoices.tax_nano(net, terms.tax_bp) if postpaid else 0
    credit = _credit(connection, customer.id, net + tax) if postpaid else net
    totals = Totals(tally.usage_nano, net, tax, credit)
    due_us = now_us + terms.due_days * 86_400_000_000 if postpaid and totals.due_nano > 0 else None
    if corrects is None:
        shown = invoices.in_currency(totals, terms.display, now_us)
    else:
        shown = invoices.by_rate_of(totals, stored(connection, number=corrects)[0].display)
    made = invoices.document(
        number=number, kind=kind, month=month, lines=lines, totals=totals, terms=terms, customer=customer, issued_us=now_us,
        due_us=due_us, corrects=corrects, reason=reason, shown=shown,
    )  # fmt: skip
    connection.execute(
        insert(invoices_table).values(
            number=number, kind=kind, account_id=customer.id, month=month, corrects=corrects, issued_us=now_us, due_us=due_us,
            usage_nano=totals.usage_nano, net_nano=net, tax_nano=tax, credit_nano=credit, document=invoices.encode(made),
        )
    )  # fmt: skip
    moved = _transfers(ids, number, customer, totals, now_us)
    insert_transfers(database, connection, moved)
    if postpaid and totals.rounding_nano != tax:
        bump_version(connection)
        shift_account_limit(connection, customer.id, totals.rounding_nano - tax)
    payload: dict[str, str | int] = {
        "number": number, "account": customer.id, "month": month, "total_nano": totals.total_nano, "due_nano": totals.due_nano,
    }  # fmt: skip
    put(database, connection, ids, [Message(f"{kind}_ready", number, payload)], now_us)
    return made


def _credit(connection: Connection, account_id: str, total_nano: int) -> int:
    """What promotional credit has paid of a postpaid account's invoice: in whole cents, the rest counts for the next one."""
    spent = select(
        func.coalesce(func.sum(transfers.c.amount_nano).filter(transfers.c.cause_kind == "spend"), 0),
        func.coalesce(func.sum(transfers.c.amount_nano).filter(transfers.c.cause_kind == "restore"), 0),
    ).where(transfers.c.account_id == account_id, transfers.c.cause_kind.in_(("spend", "restore")))
    used, restored = connection.execute(spent).one()
    shown = select(func.coalesce(func.sum(invoices_table.c.credit_nano), 0)).where(invoices_table.c.account_id == account_id)
    left = int(used) - int(restored) - int(connection.execute(shown).scalar_one())
    return max(min(left // invoices.NANO_PER_CENT * invoices.NANO_PER_CENT, total_nano), 0)


def _transfers(ids: Ids, number: str, customer: Customer, totals: Totals, now_us: int) -> list[Transfer]:
    """What a document moves: its rounding, and the tax that is owed with it.

    A postpaid account owes whole cents from now on; with a prepaid one nothing is owed, and what its credit paid beyond the cents
    of its invoice (or short of them) is told apart from revenue.
    """
    receivable = entries.receivable(customer.id)
    plan = (
        (entries.ROUNDING, receivable, totals.rounding_nano, "rounding")
        if customer.kind == "postpaid"
        else (entries.REVENUE, entries.ROUNDING, totals.rounding_nano, "rounding"),
        (receivable, entries.TAX_PAYABLE, totals.tax_nano, "tax"),
    )
    made: list[Transfer] = []
    for debit, credit, amount, kind in plan:
        if amount:
            debit, credit = (debit, credit) if amount > 0 else (credit, debit)
            made.append(Transfer(ids.new("trf"), now_us, debit, credit, abs(amount), customer.id, kind, number))
    return made


def stored(
    connection: Connection,
    *,
    account_id: str | None = None,
    month: str | None = None,
    kind: Kind | None = None,
    number: str | None = None,
) -> list[Document]:
    """Documents as issued, in the order of issue."""
    order = (invoices_table.c.issued_us, invoices_table.c.kind.desc(), invoices_table.c.number)
    query = select(invoices_table.c.document).order_by(*order)
    wanted = {"account_id": account_id, "month": month, "kind": kind, "number": number}
    for name, value in wanted.items():
        if value is not None:
            query = query.where(invoices_table.c[name] == value)
    return [invoices.decode(one) for one in connection.execute(query).scalars()]


# --- by itself ------------------------------------------------------------------------------------------------------------


class MonthCloser:
    """Closes months as they fall due, one account a step, so that posting never waits for long."""

    def __init__(self, database: Database, ids: Ids, clock: Clock, terms: Terms) -> None:
        self._database = database
        self._ids = ids
        self._clock = clock
        self._terms = terms
        self._month: str | None = None
        self._queue: deque[str] = deque()
        self._look_us = 0

    def step(self) -> bool:
        """Do one piece of the work that is due; False when there is none."""
        if self._month is None:
            now_us = self._clock.monotonic_us()
            if now_us < self._look_us:
                return False
            self._month = self._due()
            if self._month is None:
                self._look_us = now_us + LOOK_US
                return False
            self._queue.extend(self._candidates(self._month))
        if self._queue:
            now_us = self._clock.now_us()
            close(
                self._database, self._ids, account_id=self._queue[0], month=self._month, terms=self._terms, now_us=now_us
            )
            self._queue.popleft()
            return True
        month, now_us = self._month, self._clock.now_us()
        mark = text("INSERT INTO closed_months (month, closed_us) VALUES (:month, :now) ON CONFLICT (month) DO NOTHING")
        self._database.write(lambda connection: connection.execute(mark, {"month": month, "now": now_us}))
        self._month = None
        return True

    def _due(self) -> str | None:
        """The first month that is over, with its grace, and not closed; None when there is none."""
        latest = month_before(month_of(self._clock.now_us() - self._terms.grace_us))

        def ask(connection: Connection) -> tuple[str | None, int | None]:
            last = connection.execute(select(func.max(closed_months.c.month))).scalar_one()
            if last is not None:
                return last, None
            of_account = select(func.min(usage.c.created_us)).where(usage.c.account_id == accounts.c.id)
            per_account = of_account.correlate(accounts).scalar_subquery()
            return None, connection.execute(select(func.min(per_account)).select_from(accounts)).scalar_one()

        last, first_us = self._database.read(ask)
        if last is not None:
            following = month_of(month_bounds(last)[1])
            return following if following <= latest else None
        if first_us is None:
            return None
        first = month_of(first_us)
        return first if first <= latest else None

    def _candidates(self, month: str) -> list[str]:
        """Accounts that may have something to invoice, by id."""
        until_us = month_bounds(month)[1]
        used = (
            select(usage.c.hold_id)
            .where(
                usage.c.account_id == accounts.c.id, usage.c.created_us < until_us, usage.c.created_us >= until_us - LATE_US
            )
            .correlate(accounts)
            .exists()
        )
        query = select(accounts.c.id).where(used).order_by(accounts.c.id)
        return self._database.read(lambda connection: list(connection.execute(query).scalars()))
