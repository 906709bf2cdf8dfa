"""Money that goes back to a card: refunds, and disputes until they are decided.

    begin     clawback:{account} → refunds | disputes     the account owes it, its limit is lower by it at once
    collect   credit:{grant} → clawback:{account}         from bought credit, as far as no call in flight may need it
    done      refunds | disputes → cash                   the money is gone
    returned  refunds | disputes → clawback:{account}, or back into the credit that was withdrawn: a refund that failed, a dispute
              that was won; `cash → refunds | disputes` before it, when it had gone already

What cannot be collected, since it was spent, is owed: the account's limit is below what it has used, so that its calls are
refused (402) until it is topped up, and the next bought credit pays what is owed first. Promotional credit pays nothing of it.

Each step is one transaction and may come twice: rows go forward only. The limit moves by the whole amount when a reversal begins
or is returned; collecting moves none. Grants are locked before scopes (`billing.books.scopes`).
"""

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, func, insert, literal, select, text, update

from farebox.billing.books import transfers as entries
from farebox.billing.books.customers import CommandRefused, NotFound, lock_account
from farebox.billing.books.ledger import NEVER_US
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.scopes import bump_version, lock, shift_account_limit
from farebox.billing.books.transfers import Transfer, insert_transfers
from farebox.billing.payments import card_payments as cards
from farebox.billing.payments.card_payments import AT_ONCE, NANO_PER_CENT, PROBLEM_CHARS_MAX, Payment
from farebox.money import format_amount
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.payment_tables import clawbacks, reversals
from farebox.storage.tables import grants

Kind = Literal["refund", "dispute"]
State = Literal["wanted", "open", "done", "returned"]
ACCOUNTS = {"refund": entries.REFUNDS, "dispute": entries.DISPUTES}
FIRST_LOOK_S = 60


class Reversal(msgspec.Struct, frozen=True):
    """A row of `reversals`."""

    id: str
    kind: Kind
    payment_id: str
    account_id: str
    stripe_id: str | None
    amount_nano: int
    amount_minor: int
    state: State
    command_id: str | None
    problem: str
    attempt: int
    tries: int
    next_us: int
    created_us: int
    ended_us: int | None


class Mismatch(Exception):
    """What Stripe says went back cannot be: somebody has to look at it."""


def of_stripe(connection: Connection, stripe_id: str) -> Reversal | None:
    return _one(connection, reversals.c.stripe_id == stripe_id)


def reversal(connection: Connection, reversal_id: str) -> Reversal | None:
    return _one(connection, reversals.c.id == reversal_id)


def _one(connection: Connection, which: Any) -> Reversal | None:
    row = connection.execute(select(reversals).where(which)).one_or_none()
    return None if row is None else Reversal(*row)


def of_payment(connection: Connection, payment_id: str) -> list[Reversal]:
    query = select(reversals).where(reversals.c.payment_id == payment_id).order_by(reversals.c.created_us, reversals.c.id)
    return [Reversal(*row) for row in connection.execute(query)]


def due(connection: Connection, now_us: int) -> list[Reversal]:
    """Reversals to look at, those that wait longest first."""
    query = select(reversals).where(reversals.c.state.in_(("wanted", "open")), reversals.c.next_us <= now_us)
    return [Reversal(*row) for row in connection.execute(query.order_by(reversals.c.next_us).limit(AT_ONCE))]


def order_refund(
    database: Database,
    ids: Ids,
    *,
    id: str,
    payment_id: str,
    amount_nano: int | None,
    command_id: str,
    below_zero: bool = False,
    now_us: int,
) -> Reversal:
    """Withdraw the credit of a payment, or a part of it, so that it can be given back. Refused where it is spent already, unless
    the account may go `below_zero`. The same command again gives the same refund."""

    def work(connection: Connection) -> Reversal:
        bump_version(connection)
        paid = _credited(connection, payment_id)
        lock_account(connection, paid.account_id)
        _lock_grants(connection, paid.account_id)
        command = f"{paid.account_id}:{command_id}"
        known = _one(connection, reversals.c.command_id == command)
        left_nano = paid.amount_nano - _gone(connection, payment_id)
        wanted_nano = left_nano if amount_nano is None else amount_nano
        if known is not None:
            if known.payment_id != payment_id or amount_nano not in (None, known.amount_nano):
                raise CommandRefused(f"the command `{command_id}` was already carried out with other particulars")
            return known
        cents, part = divmod(wanted_nano, NANO_PER_CENT)
        if part:
            raise CommandRefused(f"a refund is in whole cents, not {format_amount(wanted_nano)}")
        if not 0 < wanted_nano <= left_nano:
            raise CommandRefused(
                f"of the payment `{payment_id}` {format_amount(left_nano)} USD can be refunded, not {format_amount(wanted_nano)}"
            )
        free_nano = _free(connection, paid.account_id)
        if wanted_nano > free_nano and not below_zero:
            raise CommandRefused(
                f"the account has {format_amount(free_nano)} USD of bought credit left that nothing needs; a refund of "
                f"{format_amount(wanted_nano)} would put it below zero, and its calls would be refused until it pays that"
            )
        return _begin(database, connection, ids, paid, id, "refund", wanted_nano, cents, None, command, now_us)

    return database.write(work)


def found_at_stripe(
    database: Database, ids: Ids, *, id: str, payment_id: str, kind: Kind, stripe_id: str, amount_minor: int, currency: str,
    now_us: int,
) -> Reversal:
    """A refund that somebody made at Stripe, or a dispute: withdraw its credit, once. Raises `Mismatch`."""  # fmt: skip

    def work(connection: Connection) -> Reversal:
        bump_version(connection)
        paid = _credited(connection, payment_id)
        lock_account(connection, paid.account_id)
        _lock_grants(connection, paid.account_id)
        known = of_stripe(connection, stripe_id)
        if known is not None:
            if known.amount_minor != amount_minor:
                raise Mismatch(f"`{stripe_id}` is over {amount_minor} cents, and was over {known.amount_minor}")
            return known
        amount_nano = amount_minor * NANO_PER_CENT
        if currency != paid.currency:
            raise Mismatch(f"`{stripe_id}` is in {currency}, the payment `{payment_id}` in {paid.currency}")
        if not 0 < amount_nano <= paid.amount_nano - _gone(connection, payment_id):
            raise Mismatch(f"`{stripe_id}` is over {amount_minor} cents, more than is left of the payment `{payment_id}`")
        return _begin(database, connection, ids, paid, id, kind, amount_nano, amount_minor, stripe_id, None, now_us)

    return database.write(work)


def at_stripe(database: Database, reversal_id: str, stripe_id: str, *, now_us: int) -> Reversal:
    """Stripe has the refund now."""

    def work(connection: Connection) -> Reversal:
        found = _locked(connection, reversal_id)
        if found.state == "wanted":
            values = {"state": "open", "stripe_id": stripe_id, "tries": 0, "next_us": now_us + FIRST_LOOK_S * cards.US_PER_S}
            connection.execute(update(reversals).where(reversals.c.id == reversal_id).values(**values))
        elif found.stripe_id != stripe_id:
            raise Mismatch(f"`{stripe_id}` names the refund `{reversal_id}`, which is `{found.stripe_id}`")
        return _locked(connection, reversal_id)

    return database.write(work)


def done(database: Database, ids: Ids, reversal_id: str, *, now_us: int) -> Reversal:
    """The money is gone: refunded, or the dispute is lost."""

    def work(connection: Connection) -> Reversal:
        found = _locked(connection, reversal_id)
        if found.state in ("done", "returned"):
            return found
        moved = Transfer(
            ids.new("trf"), now_us, ACCOUNTS[found.kind], entries.CASH, found.amount_nano, found.account_id,
            f"{found.kind}_paid", found.id,
        )  # fmt: skip
        insert_transfers(database, connection, [moved])
        _set(connection, found.id, "done", "", now_us)
        if found.kind == "refund":
            about: dict[str, str | int] = {
                "account": found.account_id, "payment": found.payment_id, "amount_nano": found.amount_nano,
            }  # fmt: skip
            put(database, connection, ids, [Message("payment_refunded", found.id, about)], now_us)
        return _locked(connection, found.id)

    return database.write(work)


def returned(database: Database, ids: Ids, reversal_id: str, problem: str, *, now_us: int) -> Reversal:
    """The money stays, or has come back: the account gets its credit again, after what it still owes."""

    def work(connection: Connection) -> Reversal:
        bump_version(connection)
        before = _locked(connection, reversal_id)
        lock_account(connection, before.account_id)
        found = _locked(connection, reversal_id)
        if found.state == "returned":
            return found
        holding, account = ACCOUNTS[found.kind], found.account_id
        made: list[Transfer] = []

        def move(debit: str, credit: str, amount_nano: int, kind: str, cause: str) -> None:
            made.append(Transfer(ids.new("trf"), now_us, debit, credit, amount_nano, account, kind, cause))

        if found.state == "done":
            move(entries.CASH, holding, found.amount_nano, f"{found.kind}_back", found.id)
        rest = found.amount_nano
        owed = min(rest, _owed(connection, account))
        if owed:
            _owe(connection, account, -owed)
            move(holding, entries.clawback(account), owed, f"{found.kind}_returned", found.id)
            rest -= owed
        for row in _withdrawn(connection, account):
            amount = min(rest, row.reversed_nano)
            if not amount:
                continue
            rest -= amount
            _shift_grant(connection, row.id, amount)
            move(holding, entries.credit(row.id), amount, f"{found.kind}_returned", f"{found.id}:{row.id}")
        assert rest == 0, "what was withdrawn is owed or was collected (I2)"
        insert_transfers(database, connection, made)
        shift_account_limit(connection, account, found.amount_nano)
        _set(connection, found.id, "returned", problem, now_us)
        return _locked(connection, found.id)

    return database.write(work)


def later(database: Database, reversal_id: str, problem: str, *, new_attempt: bool = False, now_us: int) -> None:
    """Look at it again later; the pauses double up to an hour."""

    def work(connection: Connection) -> None:
        found = _locked(connection, reversal_id)
        pause_us = cards.pause_us(found.tries, FIRST_LOOK_S if found.state == "open" else 1)
        values = {"tries": found.tries + 1, "attempt": found.attempt + new_attempt, "next_us": now_us + pause_us}
        values |= {"problem": problem[:PROBLEM_CHARS_MAX]} if problem else {}
        connection.execute(update(reversals).where(reversals.c.id == reversal_id).values(**values))

    database.write(work)


def collect_all(database: Database, ids: Ids, *, now_us: int) -> int:
    """Take what accounts owe from bought credit that has come, or come back, since. How many of them owe something still."""
    bought = select(grants.c.id).where(
        grants.c.account_id == clawbacks.c.account_id, grants.c.kind == "paid", grants.c.remaining_nano > 0
    )
    query = select(clawbacks.c.account_id).where(clawbacks.c.owed_nano > 0, bought.exists())
    owing = database.read(lambda connection: list(connection.execute(query).scalars()))

    def work(connection: Connection, account_id: str) -> int:
        lock_account(connection, account_id)
        _lock_grants(connection, account_id)
        insert_transfers(database, connection, _collect(connection, ids, account_id, now_us))
        return _owed(connection, account_id)

    return sum(bool(database.write(lambda connection, account=account_id: work(connection, account))) for account_id in owing)


# --- inside a transaction that has locked the account ---------------------------------------------------------------------------


def _credited(connection: Connection, payment_id: str) -> Payment:
    found = cards.payment(connection, payment_id)
    if found is None:
        raise NotFound(f"there is no payment `{payment_id}`; `farebox cards list` shows them")
    if found.state != "credited" or found.grant_id is None:
        raise CommandRefused(f"the payment `{payment_id}` is {found.state}: nothing was credited that could go back")
    return found


def _gone(connection: Connection, payment_id: str) -> int:
    """What of a payment has gone back or is on its way."""
    return sum(one.amount_nano for one in of_payment(connection, payment_id) if one.state != "returned")


def _begin(
    database: Database, connection: Connection, ids: Ids, paid: Payment, id: str, kind: Kind, amount_nano: int, cents: int,
    stripe_id: str | None, command: str | None, now_us: int,
) -> Reversal:  # fmt: skip
    account = paid.account_id
    state = "wanted" if stripe_id is None else "open"
    row = {"id": id, "kind": kind, "payment_id": paid.id, "account_id": account, "stripe_id": stripe_id, "state": state}
    row |= {"amount_nano": amount_nano, "amount_minor": cents, "command_id": command, "next_us": now_us, "created_us": now_us}
    connection.execute(insert(reversals).values(**row))
    owing = Transfer(ids.new("trf"), now_us, entries.clawback(account), ACCOUNTS[kind], amount_nano, account, kind, id)
    _owe(connection, account, amount_nano)
    shift_account_limit(connection, account, -amount_nano)
    collected = _collect(connection, ids, account, now_us, first=paid.grant_id)
    insert_transfers(database, connection, [owing, *collected])
    owed = _owed(connection, account)
    messages: list[Message] = []
    about: dict[str, str | int] = {"account": account, "payment": paid.id, "amount_nano": amount_nano}
    if kind == "dispute":
        messages.append(Message("payment_disputed", id, {**about, "dispute": stripe_id or ""}))
    if owed:
        messages.append(Message("credit_below_zero", id, {**about, "owed_nano": owed}))
    put(database, connection, ids, messages, now_us)
    return _locked(connection, id)


def _lock_grants(connection: Connection, account_id: str) -> None:
    connection.execute(select(grants.c.id).where(grants.c.account_id == account_id).order_by(grants.c.id).with_for_update())


def _free(connection: Connection, account_id: str) -> int:
    """Bought credit that no call in flight may need."""
    kinds = select(grants.c.kind, func.sum(grants.c.remaining_nano)).where(grants.c.account_id == account_id)
    left = {kind: int(amount) for kind, amount in connection.execute(kinds.group_by(grants.c.kind))}
    scope = lock(connection, f"account:{account_id}")
    assert scope is not None, "an account is created with its scope"
    return max(min(left.get("paid", 0), sum(left.values()) - scope["allotted_nano"]), 0)


def _collect(connection: Connection, ids: Ids, account_id: str, now_us: int, *, first: str | None = None) -> list[Transfer]:
    """Take what the account owes from its bought credit: `first` that of the payment itself, then what is spent last."""
    rest = min(_owed(connection, account_id), _free(connection, account_id))
    order = func.coalesce(grants.c.expires_us, literal(NEVER_US)).desc()
    query = (
        select(grants)
        .where(grants.c.account_id == account_id, grants.c.kind == "paid", grants.c.remaining_nano > 0)
        .order_by(order, grants.c.created_us.desc(), grants.c.id.desc())
    )
    made: list[Transfer] = []
    for row in sorted(connection.execute(query).all(), key=lambda row: row.id != first):
        amount = min(rest, row.remaining_nano)
        if not amount:
            continue
        rest -= amount
        _shift_grant(connection, row.id, -amount)
        _owe(connection, account_id, -amount)
        credit, owing = entries.credit(row.id), entries.clawback(account_id)
        # Of one grant the sum that was ever withdrawn only grows with this transfer, but may fall in between: its id is new.
        made.append(Transfer(ids.new("trf"), now_us, credit, owing, amount, account_id, "clawback", ids.new("clw")))
    return made


def _withdrawn(connection: Connection, account_id: str) -> list[Row[Any]]:
    """Grants that something was withdrawn from, the one that is spent first last: it lasts longest that way."""
    order = func.coalesce(grants.c.expires_us, literal(NEVER_US)).desc()
    query = select(grants).where(grants.c.account_id == account_id, grants.c.reversed_nano > 0)
    return list(connection.execute(query.order_by(order, grants.c.created_us.desc(), grants.c.id.desc()).with_for_update()))


_SHIFT = text(
    "UPDATE grants SET remaining_nano = remaining_nano + :amount, reversed_nano = reversed_nano - :amount "
    "WHERE id = :id AND remaining_nano + :amount >= 0 AND reversed_nano - :amount >= 0"
)


def _shift_grant(connection: Connection, grant_id: str, amount_nano: int) -> None:
    """Give a grant back, or take from it (negative), what went back."""
    changed = connection.execute(_SHIFT, {"amount": amount_nano, "id": grant_id}).rowcount
    assert changed == 1, "a locked grant has what was read from it (I2)"


def _owed(connection: Connection, account_id: str) -> int:
    return connection.execute(select(clawbacks.c.owed_nano).where(clawbacks.c.account_id == account_id)).scalar() or 0


_OWE = text(
    "INSERT INTO clawbacks (account_id, owed_nano) VALUES (:account, :amount) "
    "ON CONFLICT (account_id) DO UPDATE SET owed_nano = clawbacks.owed_nano + :amount"
)


def _owe(connection: Connection, account_id: str, amount_nano: int) -> None:
    if amount_nano > 0:
        connection.execute(_OWE, {"account": account_id, "amount": amount_nano})
        return
    mine = clawbacks.c.account_id == account_id
    connection.execute(update(clawbacks).where(mine).values(owed_nano=clawbacks.c.owed_nano + amount_nano))


def _locked(connection: Connection, reversal_id: str) -> Reversal:
    row = connection.execute(select(reversals).where(reversals.c.id == reversal_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"the reversal `{reversal_id}` does not exist")
    return Reversal(*row)


def _set(connection: Connection, reversal_id: str, state: State, problem: str, now_us: int) -> None:
    values = {"state": state, "problem": problem[:PROBLEM_CHARS_MAX], "ended_us": now_us}
    connection.execute(update(reversals).where(reversals.c.id == reversal_id).values(**values))
