"""Customers: accounts (organisations), projects and keys, and the commands that change them, each in one transaction that bumps
the control version.

A command either creates something under an id of the caller's, or sets something to a value: repeating it is harmless.
Commands on what belongs to an account can be given the account that asks (`within`): what is another's does not exist for it.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, func, insert, select, update

from farebox.billing.books import audit, scopes
from farebox.billing.books.audit import OPERATOR, Actor
from farebox.billing.books.scopes import bump_version, retarget, shift_account_limit
from farebox.billing.budgets import Window
from farebox.storage.database import Database, RowRefused
from farebox.storage.tables import accounts, keys, projects
from farebox.storage.tables import scopes as scopes_table

AccountKind = Literal["prepaid", "postpaid"]
NAME_MAX = 200
KEYS_PER_ACCOUNT_MAX = 10_000
PROJECTS_PER_ACCOUNT_MAX = 1_000
OVERLAP_US_MAX = 90 * 86_400_000_000
"""How long the secret before a rotation may go on working."""
DEFAULT_PERMISSIONS = "inference read_usage"


class CommandRefused(Exception):
    """A command that cannot be: an unknown account, a name that is taken, an amount that does not fit."""


class NotFound(CommandRefused):
    """What the command is about does not exist, or not for whoever asks."""


class NewKey(msgspec.Struct, frozen=True):
    """A key as it is stored. Digest and hint come from `gate.keys`, the JSON texts from `gate.permissions` and `gate.limits`."""

    id: str
    account_id: str
    name: str
    digest: bytes
    hint: str
    project: str = ""
    expires_us: int | None = None
    budget_nano: int | None = None
    budget_window: Window = "none"
    permissions: str = DEFAULT_PERMISSIONS
    restrictions: str = ""
    limits: str = ""
    tags: str = ""
    metadata: str = ""
    disabled_us: int | None = None
    policy: str = ""


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to change about a key; what is unset stays."""

    name: str | UnsetType = UNSET
    project: str | UnsetType = UNSET
    expires_us: int | UnsetType | None = UNSET
    permissions: str | UnsetType = UNSET
    restrictions: str | UnsetType = UNSET
    limits: str | UnsetType = UNSET
    tags: str | UnsetType = UNSET
    metadata: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    policy: str | UnsetType = UNSET
    budget: tuple[int | None, Window] | UnsetType = UNSET
    """The amount in nano-dollars, None for no budget, and its window."""


def create_account(
    database: Database, *, id: str, name: str, kind: AccountKind, credit_limit_nano: int = 0, tier: str = "", now_us: int,
    by: Actor = OPERATOR,
) -> None:
    """A new customer with its scope. A prepaid account starts with nothing, a postpaid one with its credit line.

    A named tier is pinned; none is that of new accounts, which moves by itself.
    """
    _check_name(name, "an account's")
    if credit_limit_nano < 0 or (kind == "prepaid" and credit_limit_nano):
        raise CommandRefused("only a postpaid account has a credit line, and it is not negative")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        row = {"id": id, "name": name, "kind": kind, "credit_limit_nano": credit_limit_nano, "tier": tier}
        connection.execute(insert(accounts).values(**row, tier_pinned=bool(tier), created_us=now_us, version=version))
        scope = {"id": f"account:{id}", "kind": "account", "account_id": id, "limit_nano": credit_limit_nano}
        connection.execute(insert(scopes_table).values(**scope))
        audit.note(connection, by, "account.create", account_id=id, subject=id, after=row, now_us=now_us)

    try:
        database.write(work)
    except RowRefused as error:
        raise CommandRefused(f"an account named `{name}` (or with the id `{id}`) exists already") from error


def set_credit_limit(
    database: Database, account_id: str, credit_limit_nano: int, *, now_us: int, by: Actor = OPERATOR
) -> None:
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
        _note_account(connection, by, account, values, now_us)

    database.write(work)


def set_account_status(
    database: Database,
    account_id: str,
    status: Literal["active", "suspended"],
    *,
    now_us: int,
    by: Actor = OPERATOR,
) -> None:
    """Suspend an account, or let it work again. Calls in flight end as usual."""
    _set_account(database, account_id, {"status": status}, now_us, by)


def set_tier(
    database: Database, account_id: str, tier: str, *, pinned: bool, now_us: int, by: Actor = OPERATOR
) -> None:
    """Move an account to a tier. A pinned one stays there until the next command."""
    _set_account(database, account_id, {"tier": tier, "tier_pinned": pinned}, now_us, by)


def set_policy(database: Database, account_id: str, policy: str, *, now_us: int, by: Actor = OPERATOR) -> None:
    """Give an account a routing policy by name, or none of its own (empty)."""
    _set_account(database, account_id, {"policy": policy}, now_us, by)


def set_markup(database: Database, account_id: str, plan: str, *, now_us: int, by: Actor = OPERATOR) -> None:
    """Give an account a markup plan by name, or the usual one (empty). Calls in flight keep theirs."""
    _set_account(database, account_id, {"markup": plan}, now_us, by)


def _set_account(database: Database, account_id: str, values: dict[str, Any], now_us: int, by: Actor) -> None:
    def work(connection: Connection) -> None:
        version = bump_version(connection)
        account = lock_account(connection, account_id)
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(**values, version=version))
        _note_account(connection, by, account, values, now_us)

    database.write(work)


def _note_account(connection: Connection, by: Actor, before: Row[Any], values: dict[str, Any], now_us: int) -> None:
    was = {name: getattr(before, name) for name in values}
    audit.note(
        connection, by, "account.change", account_id=before.id, subject=before.id, before=was, after=values, now_us=now_us
    )


def create_project(
    database: Database, *, id: str, account_id: str, name: str, limits: str = "", now_us: int, by: Actor = OPERATOR
) -> None:
    """A new project of an account."""
    _check_name(name, "a project's")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        lock_account(connection, account_id)
        count = select(func.count()).select_from(projects).where(projects.c.account_id == account_id)
        if connection.execute(count).scalar_one() >= PROJECTS_PER_ACCOUNT_MAX:
            raise CommandRefused(f"an account has at most {PROJECTS_PER_ACCOUNT_MAX} projects")
        row = {"id": id, "account_id": account_id, "name": name, "limits": limits}
        connection.execute(insert(projects).values(**row, created_us=now_us, version=version))
        audit.note(connection, by, "project.create", account_id=account_id, subject=id, after=row, now_us=now_us)

    try:
        database.write(work)
    except RowRefused as error:
        raise CommandRefused(f"the account has a project named `{name}` already") from error


def change_project(
    database: Database,
    project_id: str,
    *,
    limits: str | UnsetType = UNSET,
    disabled: bool | UnsetType = UNSET,
    now_us: int,
    by: Actor = OPERATOR,
) -> None:
    """Set a project's limits, or switch its keys off and on."""
    values: dict[str, Any] = {} if limits is UNSET else {"limits": limits}
    if disabled is not UNSET:
        values["disabled_us"] = now_us if disabled else None

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        found = select(projects).where(projects.c.id == project_id).with_for_update()
        before = connection.execute(found).mappings().one_or_none()
        if before is None:
            raise NotFound(f"the project `{project_id}` does not exist")
        connection.execute(update(projects).where(projects.c.id == project_id).values(**values, version=version))
        audit.note(
            connection,
            by,
            "project.change",
            account_id=before["account_id"],
            subject=project_id,
            before=before,
            after={**before, **values},
            now_us=now_us,
        )

    database.write(work)


def create_key(database: Database, key: NewKey, *, now_us: int, by: Actor = OPERATOR) -> None:
    """Store a new key."""
    if key.budget_nano is not None and key.budget_nano < 0:
        raise CommandRefused("a budget is not negative")
    if key.name:
        _check_name(key.name, "a key's")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        if connection.execute(select(accounts.c.id).where(accounts.c.id == key.account_id)).one_or_none() is None:
            raise NotFound(f"the account `{key.account_id}` does not exist")
        alive = select(func.count()).select_from(keys).where(keys.c.account_id == key.account_id, keys.c.revoked_us.is_(None))
        if connection.execute(alive).scalar_one() >= KEYS_PER_ACCOUNT_MAX:
            raise CommandRefused(f"an account has at most {KEYS_PER_ACCOUNT_MAX} keys; revoke those that are not used")
        _check_project(connection, key.account_id, key.project)
        row = msgspec.structs.asdict(key)
        connection.execute(insert(keys).values(**row, created_us=now_us, version=version))
        audit.note(connection, by, "key.create", account_id=key.account_id, subject=key.id, after=row, now_us=now_us)

    try:
        database.write(work)
    except RowRefused as error:
        raise CommandRefused(f"the key `{key.id}` exists already") from error


def change_key(
    database: Database, key_id: str, change: KeyChange, *, now_us: int, within: str | None = None, by: Actor = OPERATOR
) -> None:
    """Change a key that is not revoked."""
    if isinstance(change.name, str) and change.name:
        _check_name(change.name, "a key's")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        row = _lock_key(connection, key_id, within)
        if row.revoked_us is not None:
            raise CommandRefused(f"the key `{key_id}` is revoked, and stays so; make another")
        values: dict[str, Any] = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if value is not UNSET and name not in ("disabled", "budget")
        }
        if change.disabled is not UNSET:
            values["disabled_us"] = (row.disabled_us or now_us) if change.disabled else None
        if isinstance(change.project, str):
            _check_project(connection, row.account_id, change.project)
        connection.execute(update(keys).where(keys.c.id == key_id).values(**values, version=version))
        if change.budget is not UNSET:
            _set_budget(connection, key_id, *change.budget)
        _note_key(connection, by, "key.change", row, now_us)

    database.write(work)


def rotate_key(
    database: Database,
    key_id: str,
    *,
    digest: bytes,
    hint: str,
    overlap_us: int,
    now_us: int,
    within: str | None = None,
    by: Actor = OPERATOR,
) -> None:
    """Give a key a new secret; the one before works on for the overlap. Budgets, limits and usage go on."""
    if not 0 <= overlap_us <= OVERLAP_US_MAX:
        raise CommandRefused("the overlap of a rotation is from 0 to 90 days")

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        row = _lock_key(connection, key_id, within)
        if row.revoked_us is not None:
            raise CommandRefused(f"the key `{key_id}` is revoked, and stays so; make another")
        before = {"previous_digest": None, "previous_hint": None, "previous_until_us": None}
        if overlap_us:
            before = {"previous_digest": row.digest, "previous_hint": row.hint, "previous_until_us": now_us + overlap_us}
        connection.execute(
            update(keys).where(keys.c.id == key_id).values(digest=digest, hint=hint, version=version, **before)
        )
        _note_key(connection, by, "key.rotate", row, now_us)

    database.write(work)


def revoke_key(
    database: Database, key_id: str, *, now_us: int, within: str | None = None, by: Actor = OPERATOR
) -> None:
    """A revoked key admits no new call, for ever. The first revocation's time stays."""

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        row = _lock_key(connection, key_id, within)
        if row.revoked_us is None:
            connection.execute(update(keys).where(keys.c.id == key_id).values(revoked_us=now_us, version=version))
            _note_key(connection, by, "key.revoke", row, now_us)

    database.write(work)


def set_key_budget(database: Database, key_id: str, budget_nano: int | None, window: Window = "none") -> None:
    """Give a key a budget, change it, or take it away (None). Windows already begun follow, as far as they can."""

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        _lock_key(connection, key_id, None)
        connection.execute(update(keys).where(keys.c.id == key_id).values(version=version))
        _set_budget(connection, key_id, budget_nano, window)

    database.write(work)


def note_use(database: Database, used: dict[str, int]) -> None:
    """When keys were last used, by id, in microseconds; written beside the calls, now and then."""
    sql = "UPDATE keys SET last_used_us = ? WHERE id = ? AND (last_used_us IS NULL OR last_used_us < ?)"
    rows = [(at_us, key, at_us) for key, at_us in sorted(used.items())]
    database.write(lambda connection: database.execute_many(connection, sql, rows))


def _set_budget(connection: Connection, key_id: str, budget_nano: int | None, window: Window) -> None:
    if budget_nano is not None and budget_nano < 0:
        raise CommandRefused("a budget is not negative")
    connection.execute(update(keys).where(keys.c.id == key_id).values(budget_nano=budget_nano, budget_window=window))
    target = scopes.UNLIMITED_NANO if budget_nano is None else budget_nano
    begun = select(scopes_table).where(scopes_table.c.key_id == key_id).order_by(scopes_table.c.id).with_for_update()
    for scope in connection.execute(begun).mappings().all():
        if scopes.target_nano(scope) != target:
            retarget(connection, scope, target)


def lock_account(connection: Connection, account_id: str) -> Row[Any]:
    """The account's row, locked: commands on one account come one after another."""
    found = connection.execute(select(accounts).where(accounts.c.id == account_id).with_for_update()).one_or_none()
    if found is None:
        raise NotFound(f"the account `{account_id}` does not exist")
    return found


def _lock_key(connection: Connection, key_id: str, within: str | None) -> Row[Any]:
    found = connection.execute(select(keys).where(keys.c.id == key_id).with_for_update()).one_or_none()
    if found is None or (within is not None and found.account_id != within):
        raise NotFound(f"the key `{key_id}` does not exist")
    return found


def _note_key(connection: Connection, by: Actor, action: str, before: Row[Any], now_us: int) -> None:
    """What a command has changed about a key that was locked before."""
    after = connection.execute(select(keys).where(keys.c.id == before.id)).mappings().one()
    was = dict(zip(after.keys(), before, strict=True))
    audit.note(
        connection, by, action, account_id=before.account_id, subject=before.id, before=was, after=after, now_us=now_us
    )


def _check_project(connection: Connection, account_id: str, project_id: str) -> None:
    if not project_id:
        return
    found = select(projects.c.id).where(projects.c.id == project_id, projects.c.account_id == account_id)
    if connection.execute(found).one_or_none() is None:
        raise NotFound(f"the project `{project_id}` does not exist")


def _check_name(name: str, whose: str) -> None:
    if not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise CommandRefused(f"{whose} name has between 1 and {NAME_MAX} printable characters")
