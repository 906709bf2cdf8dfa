"""Credit notes: usage that was wrong and is on an invoice already is taken back, call by call.

Each attempt that was charged gets a correction row that takes its charge (and loss) to zero and keeps its counts and our cost;
the money goes back to where it came from. The rows are the credit note's parts: its lines are the invoice's, with a minus.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from farebox.billing.accounts import adjustments
from farebox.billing.books.breakdown import broken_down
from farebox.billing.books.customers import CommandRefused, lock_account
from farebox.billing.books.periods import month_of
from farebox.billing.invoicing.invoices import Customer, Document, Tally, Terms
from farebox.billing.invoicing.months import document_of, issue, next_number, stored, take_parts
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import usage

CALLS_MAX = 1_000
REASON_MAX = 500


def credit_note(
    database: Database, ids: Ids, *, number: str, calls: Sequence[str], reason: str, terms: Terms, now_us: int
) -> Document:
    """Take back calls of an invoice and issue its credit note. `CommandRefused` when one is not on it, or taken back already."""
    if not 0 < len(reason.strip()) <= REASON_MAX:
        raise CommandRefused(f"a credit note has a reason of 1 to {REASON_MAX} characters")
    if not 0 < len(set(calls)) == len(calls) <= CALLS_MAX:
        raise CommandRefused(f"a credit note is for 1 to {CALLS_MAX} calls, each once")
    return database.write(lambda connection: _write(database, connection, ids, number, calls, reason.strip(), terms, now_us))


def _write(
    database: Database,
    connection: Connection,
    ids: Ids,
    number: str,
    calls: Sequence[str],
    reason: str,
    terms: Terms,
    now_us: int,
) -> Document:
    found = stored(connection, number=number, kind="invoice")
    if not found:
        raise CommandRefused(f"there is no invoice `{number}`")
    corrected = found[0]
    account = lock_account(connection, corrected.customer.id)
    tally, parts = Tally(), list[tuple[str, str, int]]()
    for call in calls:
        waived = [row for row in _rows(connection, call) if row.account_id == account.id]
        if not waived or not any(document_of(connection, row.transfer_id, row.created_us) == number for row in waived):
            raise CommandRefused(f"the call `{call}` is not on the invoice `{number}`")
        for attempt in sorted({row.attempt for row in waived}):
            adjustments.waive(database, connection, ids, hold_id=call, attempt=attempt, now_us=now_us)
        for row, words, broken in broken_down(_rows(connection, call)):
            if row.revision and row.transfer_id is not None and document_of(connection, row.transfer_id, row.created_us) is None:
                tally.add(row, broken, own_key=words is not None and words.own_key)
                parts.append((row.transfer_id, month_of(row.created_us), row.charge_nano))
    if not parts:
        raise CommandRefused("nothing of these calls is charged any more")
    made = next_number(connection, "credit_note", terms)
    take_parts(connection, made, parts)
    customer = Customer(account.id, account.name, account.kind)
    return issue(
        database, connection, ids, number=made, kind="credit_note", month=month_of(now_us), tally=tally, terms=terms,
        customer=customer, now_us=now_us, corrects=number, reason=reason,
    )  # fmt: skip


def _rows(connection: Connection, hold_id: str) -> list[UsageRow]:
    query = select(usage).where(usage.c.hold_id == hold_id).order_by(usage.c.attempt, usage.c.revision)
    return [UsageRow(**row) for row in connection.execute(query).mappings()]
