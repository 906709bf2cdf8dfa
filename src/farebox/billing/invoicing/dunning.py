"""Dunning: what postpaid accounts owe on their invoices, reminders, and the pause of those that do not pay.

Payments and credit notes pay the oldest invoice first. Nothing about this is stored: what is open follows from the invoices and
the payments, and each reminder is a message of the outbox that can be written once. Only that an account was suspended *for not
paying* is remembered, so that the payment lets it work again and an operator's own suspension stays.

    paid       nothing is open
    open       not due yet
    overdue    due, and not paid; reminders follow after `reminder_days`
    paused     overdue for `pause_after_days`: the account is suspended until nothing is as late as that
"""

from typing import Literal

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from farebox.billing.books.customers import lock_account
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.scopes import bump_version
from farebox.billing.invoicing.invoices import Terms
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.tables import accounts, dunning, invoices, transfers

State = Literal["paid", "open", "overdue", "paused"]
US_PER_DAY = 86_400_000_000
DOCUMENTS_MAX = 10_000
"""Of one account, as far as lists go: a hundred years of months with credit notes."""


class Standing(msgspec.Struct, frozen=True):
    """A document and what is still open of it. Nano-dollars."""

    number: str
    kind: Literal["invoice", "credit_note"]
    account_id: str
    month: str
    corrects: str | None
    issued_us: int
    due_us: int | None
    usage_nano: int
    net_nano: int
    tax_nano: int
    credit_nano: int
    open_nano: int = 0
    state: State = "paid"

    @property
    def total_nano(self) -> int:
        return self.net_nano + self.tax_nano

    @property
    def due_nano(self) -> int:
        return self.total_nano - self.credit_nano


def days_late(standing: Standing, now_us: int) -> int:
    """Whole days since an open invoice was due; negative before."""
    assert standing.due_us is not None, "an open invoice has a due day"
    return (now_us - standing.due_us) // US_PER_DAY


def settle(documents: list[Standing], paid_nano: int, terms: Terms, now_us: int) -> list[Standing]:
    """Spread payments and credit notes over the invoices of one account, the oldest first. Pure."""
    left = paid_nano - sum(one.due_nano for one in documents if one.due_nano < 0)
    found: list[Standing] = []
    for one in documents:
        used = min(max(one.due_nano, 0), left)
        left -= used
        rest = max(one.due_nano, 0) - used
        state: State = "paid"
        if rest:
            late = days_late(one, now_us)
            paused = bool(terms.pause_after_days) and late >= terms.pause_after_days
            state = "paused" if paused else "overdue" if one.due_us is not None and now_us >= one.due_us else "open"
        found.append(msgspec.structs.replace(one, open_nano=rest, state=state))
    return found


def standings(connection: Connection, account_id: str, terms: Terms, now_us: int) -> list[Standing]:
    """An account's documents with what is open of them, in the order of issue."""
    names = [name for name in Standing.__struct_fields__ if name not in ("open_nano", "state")]
    columns = [invoices.c[name] for name in names]
    query = select(*columns).where(invoices.c.account_id == account_id).limit(DOCUMENTS_MAX)
    rows = connection.execute(query.order_by(invoices.c.issued_us, invoices.c.kind.desc(), invoices.c.number)).mappings()
    documents = [Standing(**row) for row in rows]
    paid = select(func.coalesce(func.sum(transfers.c.amount_nano), 0)).where(
        transfers.c.account_id == account_id, transfers.c.cause_kind == "payment"
    )
    return settle(documents, int(connection.execute(paid).scalar_one()), terms, now_us)


def remind(database: Database, ids: Ids, terms: Terms, now_us: int) -> None:
    """Tell of invoices that are late, suspend accounts that are too late, and let those work again that have paid."""
    due = select(invoices.c.account_id).where(invoices.c.due_us <= now_us).union(select(dunning.c.account_id))
    owners = database.read(lambda connection: sorted(set(connection.execute(due).scalars())))
    for account_id in owners:
        found, paused = database.read(
            lambda connection, owner=account_id: (
                standings(connection, owner, terms, now_us),
                connection.execute(select(dunning.c.account_id).where(dunning.c.account_id == owner)).one_or_none() is not None,
            )
        )
        late = [one for one in found if one.open_nano and one.state != "open"]
        if late or paused:
            database.write(lambda connection, o=account_id: _remind(database, connection, ids, o, terms, now_us))


def _remind(database: Database, connection: Connection, ids: Ids, account_id: str, terms: Terms, now_us: int) -> None:
    account = lock_account(connection, account_id)
    found = standings(connection, account_id, terms, now_us)
    messages: list[Message] = []
    for one in found:
        if not one.open_nano or one.state == "open":
            continue
        late = days_late(one, now_us)
        payload: dict[str, str | int] = {"number": one.number, "account": account_id, "open_nano": one.open_nano}
        for step in (0, *terms.reminder_days):
            if late >= step:
                messages.append(Message("invoice_overdue", one.number, {**payload, "days_late": step}, threshold=step))
    must_pause = any(one.state == "paused" for one in found)
    known = connection.execute(select(dunning).where(dunning.c.account_id == account_id)).one_or_none()
    if must_pause and known is None and account.status == "active":
        connection.execute(insert(dunning).values(account_id=account_id, paused_us=now_us))
        _set_status(connection, account_id, "suspended")
        messages.append(Message("account_paused", account_id, {"account": account_id}, window=str(now_us)))
    if not must_pause and known is not None:
        connection.execute(delete(dunning).where(dunning.c.account_id == account_id))
        if account.status == "suspended":
            _set_status(connection, account_id, "active")
        messages.append(Message("account_resumed", account_id, {"account": account_id}, window=str(now_us)))
    put(database, connection, ids, messages, now_us)


def _set_status(connection: Connection, account_id: str, status: str) -> None:
    version = bump_version(connection)
    connection.execute(accounts.update().where(accounts.c.id == account_id).values(status=status, version=version))


def paid_again(database: Database, ids: Ids, account_id: str, terms: Terms, now_us: int) -> None:
    """After a payment: let the account work at once if it was only waiting for that."""
    waiting = select(dunning.c.account_id).where(dunning.c.account_id == account_id)
    if database.read(lambda connection: connection.execute(waiting).one_or_none()) is not None:
        database.write(lambda connection: _remind(database, connection, ids, account_id, terms, now_us))
