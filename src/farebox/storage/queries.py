"""Named queries: what the surfaces and the command line ask. Each is one function with a sentence; all of them only read.

They take a connection, so that several answers can come from one snapshot:
`database.read(lambda connection: queries.balance(connection, "acc-1"))`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, RowMapping, func, select

from farebox.storage import provider_key_queries
from farebox.storage.payment_tables import clawbacks
from farebox.storage.provider_key_queries import ProviderKey
from farebox.storage.tables import accounts, budgets, control_version, grants, keys, projects, scopes, usage, volumes

ROWS_MAX = 10_000
"""The most rows that one answer has."""


class Account(msgspec.Struct, frozen=True):
    """A customer."""

    id: str
    name: str
    kind: Literal["prepaid", "postpaid"]
    credit_limit_nano: int
    status: Literal["active", "suspended"]
    created_us: int
    version: int
    markup: str = ""
    """Its own markup plan, by name."""
    tier: str = ""
    tier_pinned: bool = False
    policy: str = ""
    """Its routing policy, by name."""


class Project(msgspec.Struct, frozen=True):
    """A group of an account's keys."""

    id: str
    account_id: str
    name: str
    limits: str
    disabled_us: int | None
    created_us: int
    version: int


class Budget(msgspec.Struct, frozen=True):
    """A budget of an account, or of what belongs to it."""

    id: str
    account_id: str
    kind: Literal["account", "project", "key", "end_user", "tag"]
    subject: str
    name: str
    amount_nano: int
    window: Literal["none", "hour", "day", "week", "month"]
    zone: str
    hard: bool
    models: str
    providers: str
    created_us: int
    removed_us: int | None
    version: int
    revision: int = 0
    revised_us: int = 0


class Key(msgspec.Struct, frozen=True):
    """An API key without its digest."""

    id: str
    account_id: str
    project: str
    name: str
    hint: str
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    budget_nano: int | None
    budget_window: Literal["none", "hour", "day", "week", "month"]
    version: int
    permissions: str = "inference usage"
    restrictions: str = ""
    limits: str = ""
    tags: str = ""
    metadata: str = ""
    disabled_us: int | None = None
    last_used_us: int | None = None
    previous_hint: str | None = None
    previous_until_us: int | None = None
    policy: str = ""


class Principal(msgspec.Struct, frozen=True):
    """Who a credential stands for: what the gate caches."""

    digest: bytes
    key: Key
    account: Account
    month: str = ""
    charged_nano: int = 0
    """The account's volume (`billing.books.volumes`)."""
    own_key_calls: int = 0
    """Of the month, by keys of its own at providers."""
    project: Project | None = None
    budgets: tuple[Budget, ...] = ()
    """Those of the account that can concern the key."""
    previous: bool = False
    """The credential is the one before the last rotation."""
    provider_keys: tuple[ProviderKey, ...] = ()
    """The account's own keys at providers that its calls may use, sealed, in the order of use."""


class Balance(msgspec.Struct, frozen=True):
    """How an account's own scope stands. All amounts in nano-dollars."""

    limit_nano: int
    """All credit ever given and not expired, and the credit line with payments."""
    posted_nano: int
    """All that was ever charged."""
    allotted_nano: int
    """In the hands of gateways: held by calls in flight, about to be, or charged and not yet posted."""

    @property
    def available_nano(self) -> int:
        """What nobody has a hand on."""
        return max(self.limit_nano - self.posted_nano - self.allotted_nano, 0)

    @property
    def remaining_nano(self) -> int:
        """What is left of the limit by the books."""
        return self.limit_nano - self.posted_nano


class Credits(msgspec.Struct, frozen=True):
    """What an account was given and what became of it. All amounts in nano-dollars."""

    granted_nano: int
    used_nano: int
    expired_nano: int
    remaining_nano: int
    reversed_nano: int = 0
    """Withdrawn because money went back, and what is owed for that still."""


class KeyUsage(msgspec.Struct, frozen=True):
    """What a key's calls came to, by their start. Nano-dollars."""

    total_nano: int
    day_nano: int
    week_nano: int
    month_nano: int


class UsageRow(msgspec.Struct, frozen=True):
    """One row of `usage` as stored; `billing.books.evidence` reads its `record`."""

    hold_id: str
    attempt: int
    revision: int
    final: bool
    account_id: str
    key_id: str
    project: str
    end_user: str
    model: str
    provider: str
    state: str
    outcome: str
    basis: str
    charge_nano: int
    loss_nano: int
    cost_nano: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    record: str
    transfer_id: str | None
    cost_transfer_id: str | None
    created_us: int
    posted_us: int
    tags: str = ""


_KEY_COLUMNS = [keys.c[name] for name in Key.__struct_fields__]
_PRINCIPAL = (
    select(
        keys,
        *(column.label(f"account_{column.name}") for column in accounts.c if column.name != "id"),
        volumes.c.month,
        volumes.c.charged_nano,
        volumes.c.own_key_calls,
    )
    .join(accounts, accounts.c.id == keys.c.account_id)
    .outerjoin(volumes, volumes.c.account_id == accounts.c.id)
)


def _principal(row: RowMapping) -> Principal:
    key = Key(**{name: row[name] for name in Key.__struct_fields__})
    account = {name: row[f"account_{name}"] for name in Account.__struct_fields__ if name != "id"}
    return Principal(
        row["digest"],
        key,
        Account(id=row["account_id"], **account),
        row["month"] or "",
        row["charged_nano"] or 0,
        row["own_key_calls"] or 0,
    )


def principal_by_digest(connection: Connection, digest: bytes) -> Principal | None:
    """The key that has, or had before its rotation, this digest, and all that limits it, whatever their state."""
    row = connection.execute(_PRINCIPAL.where(keys.c.digest == digest)).mappings().one_or_none()
    previous = row is None
    if row is None:
        row = connection.execute(_PRINCIPAL.where(keys.c.previous_digest == digest)).mappings().one_or_none()
    if row is None:
        return None
    found = _principal(row)
    key = found.key
    own = budgets.c.kind.in_(("account", "end_user", "tag"))
    for kind, id in (("key", key.id), ("project", key.project)):
        own |= (budgets.c.kind == kind) & (budgets.c.subject == id)
    in_force = select(budgets).where(budgets.c.account_id == key.account_id, budgets.c.removed_us.is_(None), own)
    return msgspec.structs.replace(
        found,
        project=project(connection, key.project) if key.project else None,
        budgets=tuple(Budget(**row) for row in connection.execute(in_force.order_by(budgets.c.id)).mappings()),
        previous=previous,
        provider_keys=provider_key_queries.for_key(connection, key.account_id, key.project, key.id),
    )


def project(connection: Connection, project_id: str) -> Project | None:
    """A project by its id."""
    row = connection.execute(select(projects).where(projects.c.id == project_id)).mappings().one_or_none()
    return None if row is None else Project(**row)


def list_projects(connection: Connection, account_id: str | None = None) -> list[Project]:
    """Projects of one account or of all, by name."""
    query = select(projects).order_by(projects.c.name, projects.c.id).limit(ROWS_MAX)
    if account_id is not None:
        query = query.where(projects.c.account_id == account_id)
    return [Project(**row) for row in connection.execute(query).mappings()]


def list_budgets(connection: Connection, account_id: str | None = None) -> list[Budget]:
    """Budgets in force, of one account or of all, oldest first."""
    query = select(budgets).where(budgets.c.removed_us.is_(None)).order_by(budgets.c.created_us, budgets.c.id).limit(ROWS_MAX)
    if account_id is not None:
        query = query.where(budgets.c.account_id == account_id)
    return [Budget(**row) for row in connection.execute(query).mappings()]


def budget_scopes(connection: Connection, budget_id: str, window: str, revision: int = 0) -> list[tuple[str, int, int]]:
    """How a budget's window stands: subject, posted and allotted nano-dollars of each of its scopes that a call has used."""
    query = select(scopes.c.subject, scopes.c.posted_nano, scopes.c.allotted_nano).where(
        scopes.c.budget_id == budget_id, scopes.c.window_name == window, scopes.c.revision == revision
    )
    return [(row.subject, row.posted_nano, row.allotted_nano) for row in connection.execute(query.limit(ROWS_MAX))]


def principals_changed_since(connection: Connection, version: int) -> list[Principal]:
    """Keys that changed, or whose account did, after a control version."""
    changed = _PRINCIPAL.where((keys.c.version > version) | (accounts.c.version > version)).order_by(keys.c.id)
    return [_principal(row) for row in connection.execute(changed).mappings()]


def current_version(connection: Connection) -> int:
    """The control version: unchanged means no account, key or limit has changed."""
    return connection.execute(select(control_version.c.version)).scalar_one()


def list_accounts(connection: Connection) -> list[Account]:
    """Every customer, by name."""
    rows = connection.execute(select(accounts).order_by(accounts.c.name).limit(ROWS_MAX)).mappings()
    return [Account(**row) for row in rows]


def account(connection: Connection, id_or_name: str) -> Account | None:
    """A customer by id, or else by name."""
    found = select(accounts).where((accounts.c.id == id_or_name) | (accounts.c.name == id_or_name))
    rows = [Account(**row) for row in connection.execute(found).mappings()]
    return next((row for row in rows if row.id == id_or_name), rows[0] if rows else None)


def list_keys(connection: Connection, account_id: str | None = None) -> list[Key]:
    """Keys of one account or of all, oldest first; revoked ones too."""
    query = select(*_KEY_COLUMNS).order_by(keys.c.created_us, keys.c.id).limit(ROWS_MAX)
    if account_id is not None:
        query = query.where(keys.c.account_id == account_id)
    return [Key(**row) for row in connection.execute(query).mappings()]


def key(connection: Connection, key_id: str) -> Key | None:
    """A key by its public id."""
    row = connection.execute(select(*_KEY_COLUMNS).where(keys.c.id == key_id)).mappings().one_or_none()
    return None if row is None else Key(**row)


def volume(connection: Connection, account_id: str, month: str) -> tuple[int, int]:
    """What an account was charged in a UTC month, the newest with any, and its calls by its own keys at providers in it."""
    query = select(volumes.c.charged_nano, volumes.c.own_key_calls)
    row = connection.execute(query.where(volumes.c.account_id == account_id, volumes.c.month == month)).one_or_none()
    return (0, 0) if row is None else (row.charged_nano, row.own_key_calls)


def balance(connection: Connection, account_id: str) -> Balance | None:
    """How an account stands; None when there is no such account."""
    return scope_balance(connection, f"account:{account_id}")


def scope_balance(connection: Connection, scope_id: str) -> Balance | None:
    """How a scope stands against the limit asked for; None when no call has used it yet (or there is no such scope)."""
    limit = func.coalesce(scopes.c.wanted_limit_nano, scopes.c.limit_nano)
    row = connection.execute(
        select(limit, scopes.c.posted_nano, scopes.c.allotted_nano).where(scopes.c.id == scope_id)
    ).one_or_none()
    return None if row is None else Balance(*row)


def account_credits(connection: Connection, account_id: str) -> Credits:
    """What an account was given, has used, and has left; zeros for one that never had credit."""
    row = connection.execute(
        select(
            func.sum(grants.c.amount_nano),
            func.sum(grants.c.remaining_nano),
            func.sum(grants.c.expired_nano),
            func.sum(grants.c.reversed_nano),
        ).where(grants.c.account_id == account_id)
    ).one()
    granted, remaining, expired, reversed_ = (int(value or 0) for value in row)
    owed = connection.execute(select(clawbacks.c.owed_nano).where(clawbacks.c.account_id == account_id)).scalar() or 0
    return Credits(granted, granted - remaining - expired - reversed_, expired, remaining, reversed_ + owed)


def generation(connection: Connection, hold_ids: Sequence[str], *, account_id: str) -> list[UsageRow]:
    """Every attempt of a call's holds and its corrections, in order. Empty when it is not posted yet, or another account's."""
    found = (
        select(usage)
        .where(usage.c.hold_id.in_(hold_ids), usage.c.account_id == account_id)
        .order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision)
        .limit(ROWS_MAX)
    )
    return [UsageRow(**row) for row in connection.execute(found).mappings()]


def account_of_call(connection: Connection, hold_ids: Sequence[str]) -> str | None:
    """Whose call it was; None while none of its holds is posted."""
    return connection.execute(select(usage.c.account_id).where(usage.c.hold_id.in_(hold_ids)).limit(1)).scalar_one_or_none()


def key_usage(connection: Connection, key_id: str, *, day_us: int, week_us: int, month_us: int) -> KeyUsage:
    """What a key was charged in all, and since the starts of the day, the week and the month."""

    def since(start_us: int) -> Any:
        return func.coalesce(func.sum(usage.c.charge_nano).filter(usage.c.created_us >= start_us), 0)

    row = connection.execute(
        select(since(0), since(day_us), since(week_us), since(month_us)).where(usage.c.key_id == key_id)
    ).one()
    return KeyUsage(*(int(value) for value in row))
