"""Invoices of postpaid accounts that are paid by card, on a page of Stripe's.

    order      → a row, `wanted`, before anything is asked     the row's id makes the idempotency key
    opened     → `open`: there is a page where it can be paid
    paid       → `paid`: the transfer `cash → receivable`, whose cause is the row's     what was read from Stripe
    end        → `expired`, `failed`: nobody can pay it any more
    quarantine → money that is not what was asked for: nothing is booked, a message is in the outbox

As in `billing.payments.card_payments` each step is one transaction that may come twice. What is asked for is what is open of the
invoice at that moment, in whole cents, upwards: what is paid beyond it counts for the next one. Payments pay the oldest invoice
first, so only that one has a page, and one at a time. Who pays on a page after the invoice was paid otherwise has paid ahead.
"""

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, insert, select, update

from farebox.billing.books import ledger
from farebox.billing.books.customers import CommandRefused, NotFound, lock_account
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.scopes import bump_version
from farebox.billing.invoicing import dunning
from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments.card_payments import (
    AT_ONCE,
    COMMAND_CHARS_MAX,
    LISTED_MAX,
    NANO_PER_CENT,
    OWN,
    PROBLEM_CHARS_MAX,
    US_PER_S,
    CardTerms,
    Paid,
    pause_us,
)
from farebox.money import format_amount
from farebox.ports import Ids
from farebox.storage.database import Database, RowRefused
from farebox.storage.payment_tables import bill_payments

MARK = "bill"
"""What ids begin with, and with it the transfers' causes."""
CENTS_MIN, CENTS_MAX = 50, 99_999_999
"""Stripe's own limits of one payment in US dollars."""
FIRST_LOOK_S = 60

State = Literal["wanted", "open", "paid", "expired", "failed", "quarantined"]
ENDED = ("paid", "expired", "failed", "quarantined")


class BillPayment(msgspec.Struct, frozen=True):
    """A row of `bill_payments`."""

    id: str
    account_id: str
    number: str
    amount_nano: int
    amount_minor: int
    currency: str
    state: State
    command_id: str
    session_id: str | None
    intent_id: str | None
    url: str
    problem: str
    attempt: int
    tries: int
    next_us: int
    created_us: int
    ended_us: int | None


def payment(connection: Connection, payment_id: str) -> BillPayment | None:
    return _one(connection, bill_payments.c.id == payment_id)


def payment_of_intent(connection: Connection, intent_id: str) -> BillPayment | None:
    return _one(connection, bill_payments.c.intent_id == intent_id)


def _one(connection: Connection, which: Any) -> BillPayment | None:
    row = connection.execute(select(bill_payments).where(which)).one_or_none()
    return None if row is None else BillPayment(*row)


def listed(connection: Connection, *, account_id: str | None = None, state: str | None = None) -> list[BillPayment]:
    """The newest first."""
    query = select(bill_payments).order_by(bill_payments.c.created_us.desc(), bill_payments.c.id.desc()).limit(LISTED_MAX)
    if account_id is not None:
        query = query.where(bill_payments.c.account_id == account_id)
    if state is not None:
        query = query.where(bill_payments.c.state == state)
    return [BillPayment(*row) for row in connection.execute(query)]


def due(connection: Connection, now_us: int) -> list[BillPayment]:
    """Payments to look at, those that wait longest first."""
    query = select(bill_payments).where(bill_payments.c.state.in_(("wanted", "open")), bill_payments.c.next_us <= now_us)
    return [BillPayment(*row) for row in connection.execute(query.order_by(bill_payments.c.next_us).limit(AT_ONCE))]


def order(
    database: Database,
    cards: CardTerms,
    terms: Terms,
    *,
    id: str,
    account_id: str,
    number: str,
    command_id: str,
    now_us: int,
) -> BillPayment:
    """Ask for a page to pay an invoice on, under a new id. The same command again gives the same payment, whatever the id; so
    does another command while that page is open."""
    if not 0 < len(command_id) <= COMMAND_CHARS_MAX or command_id.startswith(OWN):
        raise CommandRefused(f"a command's id has between 1 and {COMMAND_CHARS_MAX} characters and does not begin with `{OWN}`")
    command = f"{account_id}:{command_id}"

    def work(connection: Connection) -> BillPayment:
        lock_account(connection, account_id)
        known = _one(connection, bill_payments.c.command_id == command)
        if known is not None:
            if known.number != number:
                raise CommandRefused(f"the command `{command_id}` was already carried out for the invoice `{known.number}`")
            return known
        cents = _cents(connection, account_id, number, terms, now_us)
        waits = _one(connection, (bill_payments.c.number == number) & bill_payments.c.state.in_(("wanted", "open")))
        if waits is not None:
            if (waits.amount_minor, waits.currency) == (cents, cards.currency):
                return waits
            raise CommandRefused(
                f"there is a page over {format_amount(waits.amount_nano)} USD for `{number}` already; use it, or wait a day "
                "until it expires"
            )
        row = {"id": id, "account_id": account_id, "number": number, "amount_nano": cents * NANO_PER_CENT}
        row |= {"amount_minor": cents, "currency": cards.currency, "state": "wanted", "command_id": command}
        connection.execute(insert(bill_payments).values(**row, next_us=now_us, created_us=now_us))
        return _locked(connection, id)

    return database.write(work)


def _cents(connection: Connection, account_id: str, number: str, terms: Terms, now_us: int) -> int:
    """What is open of an invoice, in cents, upwards. Raises `CommandRefused` where no payment would pay it now."""
    found = dunning.standings(connection, account_id, terms, now_us)
    mine = next((one for one in found if one.number == number), None)
    if mine is None:
        raise NotFound(f"there is no invoice `{number}` on this account")
    if not mine.open_nano:
        raise CommandRefused(f"nothing is open of `{number}`")
    first = next(one for one in found if one.open_nano)
    if first is not mine:
        raise CommandRefused(f"payments pay the oldest invoice first: pay `{first.number}` before `{number}`")
    cents = -(-mine.open_nano // NANO_PER_CENT)
    if not CENTS_MIN <= cents <= CENTS_MAX:
        least, most = format_amount(CENTS_MIN * NANO_PER_CENT), format_amount(CENTS_MAX * NANO_PER_CENT)
        raise CommandRefused(
            f"{format_amount(mine.open_nano)} USD are open of `{number}`: by card from {least} to {most} USD can be paid; "
            "pay by transfer"
        )
    return cents


def opened(database: Database, payment_id: str, *, session_id: str, url: str, now_us: int) -> BillPayment:
    """Stripe has a page. Looked at a minute later, and then ever less often, should no webhook come."""

    def work(connection: Connection) -> BillPayment:
        if _locked(connection, payment_id).state == "wanted":
            values = {"state": "open", "session_id": session_id, "url": url, "tries": 0, "problem": ""}
            _set(connection, payment_id, **values, next_us=now_us + FIRST_LOOK_S * US_PER_S)
        return _locked(connection, payment_id)

    return database.write(work)


def paid(database: Database, ids: Ids, terms: Terms, payment_id: str, seen: Paid, *, now_us: int) -> BillPayment:
    """Book what was paid, once, and let a paused account work again; or, if it is not what was asked for, quarantine it."""

    def work(connection: Connection) -> BillPayment:
        bump_version(connection)
        before = payment(connection, payment_id)
        assert before is not None, "rows of payments are never removed"
        account = lock_account(connection, before.account_id)
        found = _locked(connection, payment_id)
        if found.state in ("paid", "quarantined"):
            return found
        wrong = ""
        if seen.currency != found.currency:
            wrong = f"paid in {seen.currency}, asked for in {found.currency}"
        elif seen.amount_minor != found.amount_minor:
            wrong = f"{seen.amount_minor} cents were paid, {found.amount_minor} asked for"
        elif account.kind != "postpaid":
            wrong = f"the account `{account.id}` is prepaid by now"
        if wrong:
            return _quarantined(database, connection, ids, found, wrong, now_us)
        ledger.book_payment(
            database, connection, ids, account_id=account.id, amount_nano=found.amount_nano, command_id=f"card:{found.id}",
            now_us=now_us,
        )  # fmt: skip
        _set(connection, found.id, state="paid", intent_id=seen.intent_id, problem="", ended_us=now_us)
        return _locked(connection, found.id)

    try:
        found = database.write(work)
    except RowRefused:
        return quarantine(database, ids, payment_id, f"`{seen.intent_id}` has paid another invoice already", now_us=now_us)
    if found.state == "paid":
        dunning.paid_again(database, ids, found.account_id, terms, now_us)
    return found


def quarantine(database: Database, ids: Ids, payment_id: str, problem: str, *, now_us: int) -> BillPayment:
    """Book nothing, and tell somebody. What is booked already stays."""

    def work(connection: Connection) -> BillPayment:
        found = _locked(connection, payment_id)
        if found.state in ("paid", "quarantined"):
            return found
        return _quarantined(database, connection, ids, found, problem, now_us)

    return database.write(work)


def _quarantined(
    database: Database, connection: Connection, ids: Ids, found: BillPayment, problem: str, now_us: int
) -> BillPayment:
    _set(connection, found.id, state="quarantined", problem=problem[:PROBLEM_CHARS_MAX], ended_us=now_us)
    about: dict[str, str | int] = {"about": found.id, "account": found.account_id, "problem": problem[:PROBLEM_CHARS_MAX]}
    put(database, connection, ids, [Message("payment_quarantined", found.id, about)], now_us)
    return _locked(connection, found.id)


def end(database: Database, payment_id: str, state: Literal["expired", "failed"], problem: str, *, now_us: int) -> BillPayment:
    """Nobody can pay it any more. A payment that has ended stays as it is."""

    def work(connection: Connection) -> BillPayment:
        if _locked(connection, payment_id).state not in ENDED:
            _set(connection, payment_id, state=state, problem=problem[:PROBLEM_CHARS_MAX], ended_us=now_us)
        return _locked(connection, payment_id)

    return database.write(work)


def later(database: Database, payment_id: str, problem: str, *, new_attempt: bool = False, now_us: int) -> None:
    """Look at it again later; the pauses double up to an hour. `new_attempt`: with another idempotency key."""

    def work(connection: Connection) -> None:
        found = _locked(connection, payment_id)
        wait_us = pause_us(found.tries, FIRST_LOOK_S if found.state == "open" else 1)
        values = {"tries": found.tries + 1, "attempt": found.attempt + new_attempt, "problem": problem[:PROBLEM_CHARS_MAX]}
        _set(connection, payment_id, **values, next_us=now_us + wait_us)

    database.write(work)


def _set(connection: Connection, payment_id: str, **values: Any) -> None:
    connection.execute(update(bill_payments).where(bill_payments.c.id == payment_id).values(**values))


def _locked(connection: Connection, payment_id: str) -> BillPayment:
    row = connection.execute(select(bill_payments).where(bill_payments.c.id == payment_id).with_for_update()).one()
    return BillPayment(*row)
