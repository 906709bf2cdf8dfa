"""Customers: accounts and keys, and the commands that change them. Each bumps the control version in its transaction.

A command either creates something under an id of the caller's, or sets something to a value: repeating it is harmless.
"""

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from farebox.billing import scopes
from farebox.billing.budgets import Window
from farebox.billing.scopes import bump_version, retarget, shift_account_limit
from farebox.storage.database import Database, RowRefused
from farebox.storage.tables import accounts, keys
from farebox.storage.tables import scopes as scopes_table

AccountKind = Literal["prepaid", "postpaid"]
NAME_MAX = 200


class CommandRefused(Exception):
    """A command that cannot be: an unknown account, a name that is taken, an amount that does not fit."""


class NewKey(msgspec.Struct, frozen=True):
    """A key as it is stored. The digest and hint come from `gate.keys`."""

    id: str
    account_id: str
    name: str
    digest: bytes
    hint: str
    project: str = ""
    expires_us: int | None = None
    budget_nano: int | None = None
    budget_window: Window = "none"


def create_account(database: Database, *, id: str, name: str, kind: AccountKind, credit_limit_nano: int = 0, now_us: int) -> None:
    """A new customer with its scope. A prepaid account starts with nothing, a postpaid one with its credit line."""
    if not 0 < len(name) <= NAME_MAX:
        raise CommandRefused(f"an account's name has between 1 and {NAME_MAX} characters")
    if credit_limit_nano < 0 or (kind == "prepaid" and credit_limit_nano):
        raise CommandRefused("only a postpaid account has a credit line, and it is not negative")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        row = {"id": id, "name": name, "kind": kind, "credit_limit_nano": credit_limit_nano}
        connection.execute(insert(accounts).values(**row, created_us=now_us, version=version))
        scope = {"id": f"account:{id}", "kind": "account", "account_id": id, "limit_nano": credit_limit_nano}
        connection.execute(insert(scopes_table).values(**scope))

    try:
        database.write(work)
    except RowRefused as error:
        raise CommandRefused(f"an account named `{name}` (or with the id `{id}`) exists already") from error


def set_credit_limit(database: Database, account_id: str, credit_limit_nano: int) -> None:
    """Change a postpaid account's credit line; a lower one takes hold as far as charges and calls in flight allow."""
    if credit_limit_nano < 0:
        raise CommandRefused("a credit line is not negative")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        account = lock_account(connection, account_id)
        if account.kind != "postpaid":
            raise CommandRefused(f"the account `{account_id}` is prepaid: it has credit, not a credit line")
        values = {"credit_limit_nano": credit_limit_nano, "version": version}
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(**values))
        shift_account_limit(connection, account_id, credit_limit_nano - account.credit_limit_nano)

    database.write(work)


def set_account_status(database: Database, account_id: str, status: Literal["active", "suspended"]) -> None:
    """Suspend an account, or let it work again. Calls in flight end as usual."""

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        lock_account(connection, account_id)
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(status=status, version=version))

    database.write(work)


def set_markup(database: Database, account_id: str, plan: str) -> None:
    """Give an account a markup plan by name, or the usual one (empty). Calls in flight keep theirs."""

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        lock_account(connection, account_id)
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(markup=plan, version=version))

    database.write(work)


def create_key(database: Database, key: NewKey, *, now_us: int) -> None:
    """Store a new key."""
    if key.budget_nano is not None and key.budget_nano < 0:
        raise CommandRefused("a budget is not negative")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        if connection.execute(select(accounts.c.id).where(accounts.c.id == key.account_id)).one_or_none() is None:
            raise CommandRefused(f"the account `{key.account_id}` does not exist")
        connection.execute(insert(keys).values(**msgspec.structs.asdict(key), created_us=now_us, version=version))

    try:
        database.write(work)
    except RowRefused as error:
        raise CommandRefused(f"the key `{key.id}` exists already") from error


def revoke_key(database: Database, key_id: str, *, now_us: int) -> None:
    """A revoked key admits no new call, for ever. The first revocation's time stays."""

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        revoked = _lock_key(connection, key_id).revoked_us
        if revoked is None:
            connection.execute(update(keys).where(keys.c.id == key_id).values(revoked_us=now_us, version=version))

    database.write(work)


def set_key_budget(database: Database, key_id: str, budget_nano: int | None, window: Window = "none") -> None:
    """Give a key a budget, change it, or take it away (None). Windows already begun follow, as far as they can."""
    if budget_nano is not None and budget_nano < 0:
        raise CommandRefused("a budget is not negative")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        _lock_key(connection, key_id)
        values = {"budget_nano": budget_nano, "budget_window": window, "version": version}
        connection.execute(update(keys).where(keys.c.id == key_id).values(**values))
        target = scopes.UNLIMITED_NANO if budget_nano is None else budget_nano
        begun = select(scopes_table).where(scopes_table.c.key_id == key_id).order_by(scopes_table.c.id).with_for_update()
        for scope in connection.execute(begun).mappings().all():
            if scopes.target_nano(scope) != target:
                retarget(connection, scope, target)

    database.write(work)


def lock_account(connection: Connection, account_id: str) -> Row[Any]:
    """The account's row, locked: commands on one account come one after another."""
    found = connection.execute(select(accounts).where(accounts.c.id == account_id).with_for_update()).one_or_none()
    if found is None:
        raise CommandRefused(f"the account `{account_id}` does not exist")
    return found


def _lock_key(connection: Connection, key_id: str) -> Row[Any]:
    found = connection.execute(select(keys).where(keys.c.id == key_id).with_for_update()).one_or_none()
    if found is None:
        raise CommandRefused(f"the key `{key_id}` does not exist")
    return found
