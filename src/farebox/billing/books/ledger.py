"""The ledger's commands: money comes in, credit is given, credit expires; and how charges are paid from credit.

    charge (poster)     receivable:{account} → revenue          one transfer per account and batch
    spend (poster)      credit:{grant} → receivable:{account}   soonest-expiring grant first, then the oldest
    top up              cash → credit:{grant}
    promotional grant   promo_expense → credit:{grant}
    payment             cash → receivable:{account}             postpaid accounts only
    expiry              credit:{grant} → breakage

(`debit → credit`.) Every charge goes through the receivable, for prepaid accounts too: theirs is settled from credit in the
same transaction and is therefore always zero. A postpaid account with promotional credit spends that first.

Each command has an id of the caller's choosing; the same id again changes nothing and gives the same answer, the same id
with other particulars is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import Connection, Row, func, insert, literal, select, text

from farebox.billing.books import transfers as entries
from farebox.billing.books.customers import CommandRefused, lock_account
from farebox.billing.books.scopes import bump_version, lock, shift_account_limit
from farebox.billing.books.transfers import Transfer, insert_transfers
from farebox.ports import Ids
from farebox.storage.database import Database, RowRefused
from farebox.storage.tables import grants, transfers

T = TypeVar("T")
GrantKind = Literal["paid", "promo"]
NEVER_US = 2**63 - 1
"""Where a grant without an end stands in the order of expiry."""
COMMAND_AMOUNT_NANO_MAX = 2**60
"""The largest amount of one command, about a billion dollars: sums of a few stay far inside 64 bits."""


class Grant(msgspec.Struct, frozen=True):
    """Credit as given."""

    id: str
    account_id: str
    kind: GrantKind
    amount_nano: int
    expires_us: int | None


def top_up(
    database: Database,
    ids: Ids,
    *,
    command_id: str,
    account_id: str,
    amount_nano: int,
    expires_us: int | None = None,
    now_us: int,
) -> Grant:
    """Credit that was paid for."""
    return _grant(database, ids, command_id, account_id, "paid", amount_nano, expires_us, now_us)


def grant(
    database: Database,
    ids: Ids,
    *,
    command_id: str,
    account_id: str,
    amount_nano: int,
    expires_us: int | None = None,
    now_us: int,
) -> Grant:
    """Promotional credit."""
    return _grant(database, ids, command_id, account_id, "promo", amount_nano, expires_us, now_us)


def _grant(
    database: Database,
    ids: Ids,
    command_id: str,
    account_id: str,
    kind: GrantKind,
    amount_nano: int,
    expires_us: int | None,
    now_us: int,
) -> Grant:
    _check_amount(amount_nano)

    def work(connection: Connection) -> Grant:
        bump_version(connection)
        account = lock_account(connection, account_id)
        return give_credit(
            database,
            connection,
            ids,
            account=account,
            command_id=command_id,
            kind=kind,
            amount_nano=amount_nano,
            expires_us=expires_us,
            now_us=now_us,
        )

    return _once(database, command_id, work)


def give_credit(
    database: Database,
    connection: Connection,
    ids: Ids,
    *,
    account: Row[Any],
    command_id: str,
    kind: GrantKind,
    amount_nano: int,
    expires_us: int | None,
    now_us: int,
) -> Grant:
    """Give a locked account credit, as a part of a transaction that has bumped the control version."""
    if expires_us is not None and expires_us <= now_us:
        raise CommandRefused("credit that has expired already cannot be given")
    known = connection.execute(select(grants).where(grants.c.command_id == command_id)).one_or_none()
    if known is not None:
        made = Grant(known.id, known.account_id, known.kind, known.amount_nano, known.expires_us)
        if made != Grant(known.id, account.id, kind, amount_nano, expires_us):
            raise CommandRefused(f"the command `{command_id}` was already carried out with other particulars")
        return made
    if account.kind == "postpaid" and kind == "paid":
        raise CommandRefused(f"the account `{account.id}` is postpaid: book money that comes in as a payment")
    made = Grant(ids.new("grant"), account.id, kind, amount_nano, expires_us)
    row = {**msgspec.structs.asdict(made), "remaining_nano": amount_nano, "created_us": now_us, "command_id": command_id}
    connection.execute(insert(grants).values(**row))
    source, cause = (entries.CASH, "top_up") if kind == "paid" else (entries.PROMO_EXPENSE, "promo")
    moved = Transfer(ids.new("trf"), now_us, source, entries.credit(made.id), amount_nano, account.id, cause, command_id)
    insert_transfers(database, connection, [moved])
    shift_account_limit(connection, account.id, amount_nano)
    return made


def pay(database: Database, ids: Ids, *, command_id: str, account_id: str, amount_nano: int, now_us: int) -> str:
    """A payment of a postpaid account, which frees as much of its credit line. The transfer's id."""
    _check_amount(amount_nano)

    def work(connection: Connection) -> str:
        bump_version(connection)
        account = lock_account(connection, account_id)
        known = connection.execute(
            select(transfers).where(transfers.c.cause_kind == "payment", transfers.c.cause_id == command_id)
        ).one_or_none()
        if known is not None:
            if (known.account_id, known.amount_nano) != (account_id, amount_nano):
                raise CommandRefused(f"the command `{command_id}` was already carried out with other particulars")
            return known.id
        if account.kind != "postpaid":
            raise CommandRefused(f"the account `{account_id}` is prepaid: top it up")
        return book_payment(
            database, connection, ids, account_id=account_id, amount_nano=amount_nano, command_id=command_id, now_us=now_us
        )

    return _once(database, command_id, work)


def book_payment(
    database: Database, connection: Connection, ids: Ids, *, account_id: str, amount_nano: int, command_id: str, now_us: int
) -> str:
    """The same within a transaction that has locked the postpaid account. The transfer's id."""
    owed = entries.receivable(account_id)
    moved = Transfer(ids.new("trf"), now_us, entries.CASH, owed, amount_nano, account_id, "payment", command_id)
    insert_transfers(database, connection, [moved])
    shift_account_limit(connection, account_id, amount_nano)
    return moved.id


def _once(database: Database, command_id: str, work: Callable[[Connection], T]) -> T:
    try:
        return database.write(work)
    except RowRefused as error:
        # Two accounts used one command id at the same moment: each waits for its own row, the unique cause decides.
        raise CommandRefused(f"the command `{command_id}` was already carried out with other particulars") from error


def _check_amount(amount_nano: int) -> None:
    if not 0 < amount_nano <= COMMAND_AMOUNT_NANO_MAX:
        raise CommandRefused(f"an amount is between 1 and {COMMAND_AMOUNT_NANO_MAX} nano-dollars")


def open_grants(database: Database, connection: Connection, account_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Grants with something left, locked, in the order in which they are spent: `id, account_id, remaining_nano`."""
    marks = ", ".join("?" * len(account_ids))
    sql = (
        f"SELECT id, account_id, remaining_nano FROM grants WHERE account_id IN ({marks}) AND remaining_nano > 0 "  # noqa: S608
        f"ORDER BY account_id, COALESCE(expires_us, {NEVER_US}), created_us, id"
    )
    return database.rows(connection, sql + database.for_update, account_ids)


SPEND_SQL = "UPDATE grants SET remaining_nano = remaining_nano - ? WHERE id = ? AND remaining_nano >= ?"


def spend(
    database: Database, connection: Connection, ids: Ids, charges: dict[str, int], *, cause_id: str, now_us: int
) -> list[Transfer]:
    """Pay charges (nano-dollars by account) from the accounts' grants; the transfers to write.

    What no grant covers stays on the receivable: right for a postpaid account, impossible for a prepaid one whose calls were
    held under its scope (I6).
    """
    owed = dict(charges)
    spent: list[tuple[int, str, int]] = []
    made: list[Transfer] = []
    for row in open_grants(database, connection, sorted(charges)):
        amount = min(owed[row.account_id], row.remaining_nano)
        if not amount:
            continue
        owed[row.account_id] -= amount
        spent.append((amount, row.id, amount))
        credit, receivable = entries.credit(row.id), entries.receivable(row.account_id)
        made.append(Transfer(ids.new("trf"), now_us, credit, receivable, amount, row.account_id, "spend", f"{cause_id}:{row.id}"))
    changed = database.execute_many(connection, SPEND_SQL, spent)
    assert changed == len(spent), "a locked grant has what was read from it (I2)"
    return made


def restore(
    database: Database, connection: Connection, ids: Ids, account_id: str, amount_nano: int, *, cause_id: str, now_us: int
) -> list[Transfer]:
    """Put a refunded charge back into the grants it can have come from, the last one spent first; the transfers to write."""
    rest = amount_nano
    made: list[Transfer] = []
    order = func.coalesce(grants.c.expires_us, literal(NEVER_US)).desc()
    rows = connection.execute(
        select(grants)
        .where(grants.c.account_id == account_id)
        .order_by(order, grants.c.created_us.desc(), grants.c.id.desc())
        .with_for_update()
    ).all()
    for row in rows:
        amount = min(rest, row.amount_nano - row.remaining_nano - row.expired_nano - row.reversed_nano)
        if amount <= 0:
            continue
        rest -= amount
        connection.execute(
            text("UPDATE grants SET remaining_nano = remaining_nano + :amount WHERE id = :id"), {"amount": amount, "id": row.id}
        )
        receivable, credit = entries.receivable(account_id), entries.credit(row.id)
        made.append(Transfer(ids.new("trf"), now_us, receivable, credit, amount, account_id, "restore", f"{cause_id}:{row.id}"))
    assert rest == 0, "what was paid from grants fits back into them (I2)"
    return made


def expire(database: Database, ids: Ids, *, now_us: int) -> int:
    """Take expired credit out of use; the nano-dollars that lapsed.

    What calls in flight may still need stays: a grant that expires first is also spent first, so the allotted part of the account
    is counted against it. It lapses in a later run, when the allotments have come back.
    """
    due = select(grants.c.account_id).where(grants.c.expires_us <= now_us, grants.c.remaining_nano > 0).distinct()
    accounts = database.read(lambda connection: sorted(connection.execute(due).scalars()))
    return sum(
        database.write(lambda connection, account=account: _expire(database, connection, ids, account, now_us))
        for account in accounts
    )


def _expire(database: Database, connection: Connection, ids: Ids, account_id: str, now_us: int) -> int:
    bump_version(connection)
    lock_account(connection, account_id)
    order = func.coalesce(grants.c.expires_us, literal(NEVER_US))
    rows = connection.execute(
        select(grants)
        .where(grants.c.account_id == account_id, grants.c.expires_us <= now_us, grants.c.remaining_nano > 0)
        .order_by(order, grants.c.created_us, grants.c.id)
        .with_for_update()
    ).all()
    scope = lock(connection, f"account:{account_id}")
    assert scope is not None, "an account is created with its scope"
    in_flight = scope["allotted_nano"]
    lapsed = 0
    made: list[Transfer] = []
    for row in rows:
        kept = min(row.remaining_nano, in_flight)
        in_flight -= kept
        amount = row.remaining_nano - kept
        if not amount:
            continue
        lapsed += amount
        connection.execute(
            text(
                "UPDATE grants SET remaining_nano = remaining_nano - :amount, expired_nano = expired_nano + :amount "
                "WHERE id = :id"
            ),
            {"amount": amount, "id": row.id},
        )
        credit, cause = entries.credit(row.id), f"{row.id}:{row.expired_nano + amount}"
        made.append(Transfer(ids.new("trf"), now_us, credit, entries.BREAKAGE, amount, account_id, "expiry", cause))
    insert_transfers(database, connection, made)
    if lapsed:
        shift_account_limit(connection, account_id, -lapsed)
    return lapsed
