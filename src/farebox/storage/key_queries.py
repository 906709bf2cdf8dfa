"""Named queries about an account's keys, for those who manage them: pages, usage and balances of many keys at once."""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, and_, func, select

from farebox.storage.queries import Balance, Key, KeyUsage
from farebox.storage.tables import keys, own_key_usage, scopes, usage

PAGE_MAX = 100
"""The most keys of one page."""
_COLUMNS = [keys.c[name] for name in Key.__struct_fields__]


class Owner(msgspec.Struct, frozen=True):
    """Whose keys: an account's, or only those of one of its projects. A revoked key is nobody's any more."""

    account_id: str
    project: str = ""

    def owns(self) -> ColumnElement[bool]:
        alive = and_(keys.c.account_id == self.account_id, keys.c.revoked_us.is_(None))
        return and_(alive, keys.c.project == self.project) if self.project else alive


def page(
    connection: Connection, owner: Owner, *, offset: int, limit: int, disabled: bool = True, name: str | None = None
) -> tuple[list[Key], int]:
    """Keys by the time of their making, and how many there are in all. `disabled`: those that are disabled, too."""
    wanted = owner.owns()
    if not disabled:
        wanted = and_(wanted, keys.c.disabled_us.is_(None))
    if name is not None:
        wanted = and_(wanted, keys.c.name == name)
    query = select(*_COLUMNS).where(wanted).order_by(keys.c.created_us, keys.c.id).offset(offset).limit(min(limit, PAGE_MAX))
    count = connection.execute(select(func.count()).select_from(keys).where(wanted)).scalar_one()
    return [Key(**row) for row in connection.execute(query).mappings()], count


def by_id(connection: Connection, owner: Owner, key_id: str) -> Key | None:
    """A key of this owner."""
    row = connection.execute(select(*_COLUMNS).where(owner.owns(), keys.c.id == key_id)).mappings().one_or_none()
    return None if row is None else Key(**row)


def by_digest(connection: Connection, owner: Owner, digest: bytes) -> Key | None:
    """A key of this owner by the digest of its secret."""
    row = connection.execute(select(*_COLUMNS).where(owner.owns(), keys.c.digest == digest)).mappings().one_or_none()
    return None if row is None else Key(**row)


def by_names(connection: Connection, owner: Owner, names: Collection[str]) -> list[Key]:
    """Keys of this owner that have one of these names."""
    query = select(*_COLUMNS).where(owner.owns(), keys.c.name.in_(names)).order_by(keys.c.created_us, keys.c.id)
    return [Key(**row) for row in connection.execute(query.limit(PAGE_MAX + 1)).mappings()]


def spent(
    connection: Connection, key_ids: Collection[str], *, day_us: int, week_us: int, month_us: int
) -> dict[str, KeyUsage]:
    """What each key was charged in all, and since the starts of the day, the week and the month; absent = nothing."""
    return _sums(connection, usage, usage.c.charge_nano, key_ids, (0, day_us, week_us, month_us))


def own_key_costs(
    connection: Connection, key_ids: Collection[str], *, day_us: int, week_us: int, month_us: int
) -> dict[str, KeyUsage]:
    """What providers billed the customer itself for each key's calls by own keys at them, of the same times."""
    return _sums(connection, own_key_usage, own_key_usage.c.provider_nano, key_ids, (0, day_us, week_us, month_us))


def _sums(
    connection: Connection, table: Table, amount: ColumnElement[int], key_ids: Collection[str], starts_us: Sequence[int]
) -> dict[str, KeyUsage]:
    since = [func.coalesce(func.sum(amount).filter(table.c.created_us >= start_us), 0) for start_us in starts_us]
    query = select(table.c.key_id, *since).where(table.c.key_id.in_(key_ids)).group_by(table.c.key_id)
    return {row[0]: KeyUsage(*(int(value) for value in row[1:])) for row in connection.execute(query)}


def balances(connection: Connection, scope_ids: Collection[str]) -> dict[str, Balance]:
    """How scopes stand against the limits asked for; absent when no call has used them yet."""
    limit = func.coalesce(scopes.c.wanted_limit_nano, scopes.c.limit_nano)
    rows = connection.execute(
        select(scopes.c.id, limit, scopes.c.posted_nano, scopes.c.allotted_nano).where(scopes.c.id.in_(scope_ids))
    )
    return {row[0]: Balance(*row[1:]) for row in rows}
