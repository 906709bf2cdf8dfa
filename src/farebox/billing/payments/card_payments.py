"""Payments by card: what is asked of Stripe, what Stripe says became of it, and the credit that follows, exactly once.

    order      → a row, `wanted`, before anything is asked     the row's id makes the idempotency key
    opened     → `open`: there is a page where it can be paid
    paid       → `credited`: the paid grant, whose command is the row's     what was read from Stripe, never what a webhook says
    end        → `expired`, `failed`: nobody can pay it any more
    quarantine → money that is not what was asked for: nothing is credited, a message is in the outbox

Each step is one transaction that may come twice: a row moves forward once, and the grant's command id is the payment's. So the
process may die between any two of them. Webhooks go through `stripe_events`, once each. Here are only the books; who asks Stripe
is `control.till`.
"""

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from farebox.billing.books.customers import CommandRefused, NotFound, lock_account
from farebox.billing.books.ledger import give_credit
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.scopes import bump_version
from farebox.money import format_amount
from farebox.ports import Ids
from farebox.storage.database import Database, RowRefused
from farebox.storage.payment_tables import auto_topups, bill_payments, card_payments, stripe_events

NANO_PER_CENT = 10_000_000
US_PER_S = 1_000_000
AT_ONCE = 50
"""Events, and payments, of one round."""
LISTED_MAX = 1_000
COMMAND_CHARS_MAX = 200
OPEN_PER_ACCOUNT_MAX = 100
"""Payments of one account that nobody has paid yet."""
PROBLEM_CHARS_MAX = 500
PAUSE_S_MAX = 3_600
TRIES_MAX = 100
"""Of an event or a payment that Stripe does not answer for: about four days."""
KEPT_US = 90 * 86_400_000_000
"""How long webhooks are kept after they were looked into."""
OWN = "farebox-"
CONFIRM = f"{OWN}confirm:"
"""Commands that are given here: a page for what a bank wants to have confirmed."""
CLOSING = ("credited", "expired", "declined", "failed", "quarantined")

Kind = Literal["checkout", "setup", "auto"]
EventEnd = Literal["done", "ignored", "quarantined"]
State = Literal["wanted", "open", "credited", "expired", "declined", "failed", "quarantined"]


class CardTerms(msgspec.Struct, frozen=True):
    """What the operator takes by card."""

    min_nano: int
    max_nano: int
    currency: str
    webhook_secret: bytes
    tolerance_s: int


class Payment(msgspec.Struct, frozen=True):
    """A row of `card_payments`."""

    id: str
    account_id: str
    kind: Kind
    amount_nano: int
    amount_minor: int
    currency: str
    state: State
    command_id: str
    session_id: str | None
    intent_id: str | None
    url: str
    grant_id: str | None
    problem: str
    attempt: int
    tries: int
    next_us: int
    created_us: int
    ended_us: int | None


class Paid(msgspec.Struct, frozen=True):
    """What Stripe says was paid."""

    amount_minor: int
    currency: str
    intent_id: str


class Event(msgspec.Struct, frozen=True):
    """A webhook to look into."""

    id: str
    type: str
    object_id: str
    tries: int


def payment(connection: Connection, payment_id: str) -> Payment | None:
    return _one(connection, card_payments.c.id == payment_id)


def payment_of_intent(connection: Connection, intent_id: str) -> Payment | None:
    return _one(connection, card_payments.c.intent_id == intent_id)


def _one(connection: Connection, which: Any) -> Payment | None:
    row = connection.execute(select(card_payments).where(which)).one_or_none()
    return None if row is None else _payment(row)


def _payment(row: Row[Any]) -> Payment:
    return Payment(*row)


def listed(connection: Connection, *, account_id: str | None = None, state: str | None = None) -> list[Payment]:
    """The newest first."""
    query = select(card_payments).order_by(card_payments.c.created_us.desc(), card_payments.c.id.desc()).limit(LISTED_MAX)
    if account_id is not None:
        query = query.where(card_payments.c.account_id == account_id)
    if state is not None:
        query = query.where(card_payments.c.state == state)
    return [_payment(row) for row in connection.execute(query)]


def order(
    database: Database, terms: CardTerms, *, id: str, account_id: str, amount_nano: int, command_id: str, now_us: int
) -> Payment:
    """Ask for a top-up on Stripe's page, under a new id. The same command again gives the same payment, whatever the id."""
    if not terms.min_nano <= amount_nano <= terms.max_nano:
        raise CommandRefused(
            f"a top-up by card is from {format_amount(terms.min_nano)} to {format_amount(terms.max_nano)} USD, "
            f"not {format_amount(amount_nano)}"
        )
    if amount_nano % NANO_PER_CENT:
        raise CommandRefused(f"a top-up by card is in whole cents, not {format_amount(amount_nano)}")
    if not 0 < len(command_id) <= COMMAND_CHARS_MAX or command_id.startswith(OWN):
        raise CommandRefused(f"a command's id has between 1 and {COMMAND_CHARS_MAX} characters and does not begin with `{OWN}`")
    command = f"{account_id}:{command_id}"

    def work(connection: Connection) -> Payment:
        account = lock_account(connection, account_id)
        known = _one(connection, card_payments.c.command_id == command)
        if known is not None:
            if (known.amount_nano, known.currency) != (amount_nano, terms.currency):
                raise CommandRefused(f"the command `{command_id}` was already carried out with another amount")
            return known
        if account.kind != "prepaid":
            raise CommandRefused(f"the account `{account_id}` is postpaid: book money that comes in as a payment")
        check_open(connection, account_id)
        return write_wanted(
            connection,
            id,
            account_id,
            "checkout",
            amount_nano=amount_nano,
            currency=terms.currency,
            command=command,
            now_us=now_us,
        )

    return database.write(work)


def check_open(connection: Connection, account_id: str) -> None:
    """Refuse another page where nobody came to so many."""
    waiting = select(card_payments.c.id).where(
        card_payments.c.account_id == account_id, card_payments.c.state.in_(("wanted", "open"))
    )
    if len(connection.execute(waiting.limit(OPEN_PER_ACCOUNT_MAX)).all()) >= OPEN_PER_ACCOUNT_MAX:
        raise CommandRefused(f"the account has {OPEN_PER_ACCOUNT_MAX} pages that wait for somebody; use one, or wait a day")


def write_wanted(
    connection: Connection, id: str, account_id: str, kind: Kind, *, amount_nano: int, currency: str, command: str, now_us: int
) -> Payment:
    """The row of a new payment, in a transaction that has locked the account."""
    row = {"id": id, "account_id": account_id, "kind": kind, "amount_nano": amount_nano}
    row["amount_minor"] = amount_nano // NANO_PER_CENT
    row |= {"currency": currency, "state": "wanted", "command_id": command, "next_us": now_us, "created_us": now_us}
    connection.execute(insert(card_payments).values(**row))
    return _locked(connection, id)


def opened(
    database: Database,
    ids: Ids,
    payment_id: str,
    *,
    session_id: str | None = None,
    intent_id: str | None = None,
    url: str = "",
    now_us: int,
) -> Payment:
    """Stripe has it: a page to pay on, or a charge on its way. Looked at again a minute later, and then ever less often, should
    no webhook come. Where a bank wants its customer to confirm, who is told gets the page's address."""

    def work(connection: Connection) -> Payment:
        found = _locked(connection, payment_id)
        if found.state == "wanted":
            values = {"state": "open", "session_id": session_id, "intent_id": intent_id, "url": url, "tries": 0}
            values |= {"next_us": now_us + 60 * US_PER_S, "problem": ""}
            connection.execute(update(card_payments).where(card_payments.c.id == payment_id).values(**values))
            if found.command_id.startswith(f"{found.account_id}:{CONFIRM}"):
                about: dict[str, str | int] = {"account": found.account_id, "amount_nano": found.amount_nano, "url": url}
                put(database, connection, ids, [Message("payment_authentication", found.id, about)], now_us)
        return _locked(connection, payment_id)

    return database.write(work)


def paid(database: Database, ids: Ids, payment_id: str, seen: Paid, *, now_us: int) -> Payment:
    """Give the credit for what was paid, once; or, if it is not what was asked for, quarantine it."""

    def work(connection: Connection) -> Payment:
        bump_version(connection)
        before = payment(connection, payment_id)
        if before is None:
            raise NotFound(f"the payment `{payment_id}` does not exist")
        account = lock_account(connection, before.account_id)
        found = _locked(connection, payment_id)
        if found.state in ("credited", "quarantined"):
            return found
        wrong = _mismatch(found, seen)
        if wrong:
            return _quarantined(database, connection, ids, found, wrong, now_us)
        given = give_credit(
            database,
            connection,
            ids,
            account=account,
            command_id=f"card:{payment_id}",
            kind="paid",
            amount_nano=found.amount_nano,
            expires_us=None,
            now_us=now_us,
        )
        values = {"state": "credited", "grant_id": given.id, "intent_id": seen.intent_id, "ended_us": now_us, "problem": ""}
        connection.execute(update(card_payments).where(card_payments.c.id == payment_id).values(**values))
        if found.kind == "auto":
            fine = {"declines": 0, "problem": "", "next_us": now_us}
            connection.execute(update(auto_topups).where(auto_topups.c.account_id == found.account_id).values(**fine))
        return _locked(connection, payment_id)

    try:
        return database.write(work)
    except CommandRefused as error:
        # The account is another kind of account by now.
        return quarantine(database, ids, payment_id, str(error), now_us=now_us)
    except RowRefused:
        # One intent for two payments: what was paid once is not credited twice.
        return quarantine(database, ids, payment_id, f"`{seen.intent_id}` has paid another top-up already", now_us=now_us)


def _mismatch(found: Payment, seen: Paid) -> str:
    if seen.currency != found.currency:
        return f"paid in {seen.currency}, asked for in {found.currency}"
    if seen.amount_minor != found.amount_minor:
        return f"{seen.amount_minor} cents were paid, {found.amount_minor} asked for"
    return ""


def quarantine(database: Database, ids: Ids, payment_id: str, problem: str, *, now_us: int) -> Payment:
    """Credit nothing, and tell somebody. What is credited already stays."""

    def work(connection: Connection) -> Payment:
        found = _locked(connection, payment_id)
        if found.state in ("credited", "quarantined"):
            return found
        return _quarantined(database, connection, ids, found, problem, now_us)

    return database.write(work)


def _quarantined(
    database: Database, connection: Connection, ids: Ids, found: Payment, problem: str, now_us: int
) -> Payment:
    values = {"state": "quarantined", "problem": problem[:PROBLEM_CHARS_MAX], "ended_us": now_us}
    connection.execute(update(card_payments).where(card_payments.c.id == found.id).values(**values))
    about: dict[str, str | int] = {"about": found.id, "account": found.account_id, "problem": problem[:PROBLEM_CHARS_MAX]}
    put(database, connection, ids, [Message("payment_quarantined", found.id, about)], now_us)
    if found.kind == "auto":
        # What went wrong once by itself does not go wrong again by itself.
        off = {"enabled": False, "declines": 1, "problem": problem[:PROBLEM_CHARS_MAX]}
        connection.execute(update(auto_topups).where(auto_topups.c.account_id == found.account_id).values(**off))
    return _locked(connection, found.id)


def end(
    database: Database, payment_id: str, state: Literal["expired", "declined", "failed"], problem: str, *, now_us: int
) -> Payment:
    """Nobody can pay it any more. A payment that has ended stays as it is."""

    def work(connection: Connection) -> Payment:
        found = _locked(connection, payment_id)
        if found.state in CLOSING:
            return found
        values = {"state": state, "problem": problem[:PROBLEM_CHARS_MAX], "ended_us": now_us}
        connection.execute(update(card_payments).where(card_payments.c.id == payment_id).values(**values))
        return _locked(connection, payment_id)

    return database.write(work)


def later(database: Database, payment_id: str, problem: str, *, new_attempt: bool = False, now_us: int) -> None:
    """Look at it again later: nothing has changed, or Stripe did not answer. The pauses double up to an hour. `new_attempt`: with
    another idempotency key."""

    def work(connection: Connection) -> None:
        found = _locked(connection, payment_id)
        values = {"tries": found.tries + 1, "attempt": found.attempt + new_attempt, "problem": problem[:PROBLEM_CHARS_MAX]}
        first_s = 60 if found.state == "open" else 1
        connection.execute(
            update(card_payments)
            .where(card_payments.c.id == payment_id)
            .values(**values, next_us=now_us + pause_us(found.tries, first_s))
        )

    database.write(work)


def pause_us(tries: int, first_s: int = 1) -> int:
    """How long to wait before the next look: `first_s`, then twice as long each time, up to an hour."""
    return min(first_s * 2 ** min(tries, 12), PAUSE_S_MAX) * US_PER_S


def due(connection: Connection, now_us: int) -> list[Payment]:
    """Payments to look at, those that wait longest first."""
    query = select(card_payments).where(card_payments.c.state.in_(("wanted", "open")), card_payments.c.next_us <= now_us)
    return [_payment(row) for row in connection.execute(query.order_by(card_payments.c.next_us).limit(AT_ONCE))]


def _locked(connection: Connection, payment_id: str) -> Payment:
    row = connection.execute(select(card_payments).where(card_payments.c.id == payment_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"the payment `{payment_id}` does not exist")
    return _payment(row)


# --- webhooks ---------------------------------------------------------------------------------------------------------------


def keep_event(database: Database, *, id: str, type: str, object_id: str, now_us: int) -> bool:
    """Keep a webhook whose signature is good; False for one that came before."""

    def work(connection: Connection) -> bool:
        new = sqlite.insert(stripe_events) if database.is_sqlite else postgresql.insert(stripe_events)
        row = {"id": id, "type": type, "object_id": object_id, "next_us": now_us, "received_us": now_us}
        kept = connection.execute(new.values(**row).on_conflict_do_nothing().returning(stripe_events.c.id))
        return kept.one_or_none() is not None

    return database.write(work)


def due_events(connection: Connection, now_us: int) -> list[Event]:
    """Webhooks to look into, in the order of their coming."""
    query = select(stripe_events.c.id, stripe_events.c.type, stripe_events.c.object_id, stripe_events.c.tries).where(
        stripe_events.c.state == "new", stripe_events.c.next_us <= now_us
    )
    return [Event(*row) for row in connection.execute(query.order_by(stripe_events.c.received_us).limit(AT_ONCE))]


def end_event(
    database: Database, ids: Ids, event: Event, state: EventEnd, problem: str = "", *, now_us: int
) -> None:
    """Say what came of a webhook; somebody is told of one that fits nothing here."""

    def work(connection: Connection) -> None:
        values = {"state": state, "problem": problem[:PROBLEM_CHARS_MAX], "ended_us": now_us}
        mine = (stripe_events.c.id == event.id) & (stripe_events.c.state == "new")
        connection.execute(update(stripe_events).where(mine).values(**values))
        if state == "quarantined":
            about: dict[str, str | int] = {"about": f"{event.type} {event.object_id}", "problem": problem[:PROBLEM_CHARS_MAX]}
            put(database, connection, ids, [Message("payment_quarantined", event.id, about)], now_us)

    database.write(work)


def event_later(database: Database, ids: Ids, event: Event, problem: str, *, now_us: int) -> None:
    """Stripe did not answer: look into the webhook again later, and after days tell somebody."""
    if event.tries + 1 >= TRIES_MAX:
        end_event(database, ids, event, "quarantined", problem, now_us=now_us)
        return
    values = {"tries": event.tries + 1, "problem": problem[:PROBLEM_CHARS_MAX], "next_us": now_us + pause_us(event.tries)}
    mine = (stripe_events.c.id == event.id) & (stripe_events.c.state == "new")
    database.write(lambda connection: connection.execute(update(stripe_events).where(mine).values(**values)))


def forget_events(database: Database, *, now_us: int) -> None:
    """Remove webhooks that were looked into long ago. Stripe repeats them for days; one that came again would change nothing."""
    old = stripe_events.c.state.in_(("done", "ignored")) & (stripe_events.c.ended_us < now_us - KEPT_US)
    if database.read(lambda connection: connection.execute(select(stripe_events.c.id).where(old).limit(1)).first()) is not None:
        database.write(lambda connection: connection.execute(delete(stripe_events).where(old)))


def retry_event(database: Database, event_id: str, *, now_us: int) -> None:
    """Look into a quarantined webhook again."""

    def work(connection: Connection) -> None:
        mine = (stripe_events.c.id == event_id) & (stripe_events.c.state == "quarantined")
        values = {"state": "new", "tries": 0, "next_us": now_us, "ended_us": None}
        if not connection.execute(update(stripe_events).where(mine).values(**values)).rowcount:
            raise NotFound(f"there is no quarantined event `{event_id}`")

    database.write(work)


class Standing(msgspec.Struct, frozen=True):
    """What `farebox doctor` says of payments by card."""

    quarantined: int
    waiting: int
    """Webhooks that Stripe did not answer for at the first try."""
    switched_off: int
    """Accounts that are not topped up by themselves any more."""


def standing(connection: Connection) -> Standing:
    events = [
        len(connection.execute(select(stripe_events.c.id).where(which).limit(LISTED_MAX)).all())
        for which in (stripe_events.c.state == "quarantined", (stripe_events.c.state == "new") & (stripe_events.c.tries > 0))
    ]
    tables = (card_payments, bill_payments)
    wrong = union_all(*(select(table.c.id).where(table.c.state == "quarantined") for table in tables)).limit(LISTED_MAX)
    off = select(auto_topups.c.account_id).where(auto_topups.c.enabled.is_(False), auto_topups.c.declines > 0).limit(LISTED_MAX)
    return Standing(events[0] + len(connection.execute(wrong).all()), events[1], len(connection.execute(off).all()))
