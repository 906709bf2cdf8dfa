"""Named queries about customers' own keys at providers; none of them opens one."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, select

from farebox.storage.provider_key_tables import provider_key_master, provider_keys

PAGE_MAX = 100
"""The most keys of one page, and the most of one account."""


class ProviderKey(msgspec.Struct, frozen=True):
    """A customer's key at a provider, sealed."""

    id: str
    account_id: str
    project: str
    key_ids: str
    provider: str
    name: str
    hint: str
    sealed: bytes
    master: str
    always_use: bool
    position: int
    disabled_us: int | None
    created_us: int
    changed_us: int

    @property
    def key_list(self) -> list[str]:
        """The API keys whose calls may use it; empty for all."""
        return msgspec.json.decode(self.key_ids, type=list[str]) if self.key_ids else []


_COLUMNS = [provider_keys.c[name] for name in ProviderKey.__struct_fields__]
_ORDER = (provider_keys.c.provider, provider_keys.c.position, provider_keys.c.id)


class Holder(msgspec.Struct, frozen=True):
    """Whose provider keys: an account's, or only those of one of its projects."""

    account_id: str
    project: str = ""

    def owns(self) -> ColumnElement[bool]:
        whole = provider_keys.c.account_id == self.account_id
        return and_(whole, provider_keys.c.project == self.project) if self.project else whole


def for_key(connection: Connection, account_id: str, project: str, key_id: str) -> tuple[ProviderKey, ...]:
    """Those that calls of an API key may use, in the order of use."""
    wanted = and_(
        provider_keys.c.account_id == account_id,
        provider_keys.c.disabled_us.is_(None),
        provider_keys.c.project.in_(("", project)),
    )
    rows = connection.execute(select(*_COLUMNS).where(wanted).order_by(*_ORDER).limit(PAGE_MAX)).mappings()
    found = [ProviderKey(**row) for row in rows]
    return tuple(one for one in found if not one.key_ids or key_id in one.key_list)


def page(
    connection: Connection, holder: Holder, *, provider: str | None = None, offset: int = 0, limit: int = PAGE_MAX
) -> tuple[list[ProviderKey], int]:
    """Provider keys by provider and order of use, and how many there are in all."""
    wanted = holder.owns()
    if provider is not None:
        wanted = and_(wanted, provider_keys.c.provider == provider)
    query = select(*_COLUMNS).where(wanted).order_by(*_ORDER).offset(offset).limit(min(limit, PAGE_MAX))
    count = connection.execute(select(func.count()).select_from(provider_keys).where(wanted)).scalar_one()
    return [ProviderKey(**row) for row in connection.execute(query).mappings()], count


def by_id(connection: Connection, holder: Holder, id: str) -> ProviderKey | None:
    """A provider key of this owner."""
    row = connection.execute(select(*_COLUMNS).where(holder.owns(), provider_keys.c.id == id)).mappings().one_or_none()
    return None if row is None else ProviderKey(**row)


def by_id_alone(connection: Connection, id: str) -> ProviderKey | None:
    """A provider key, whoever owns it: for the command line."""
    row = connection.execute(select(*_COLUMNS).where(provider_keys.c.id == id)).mappings().one_or_none()
    return None if row is None else ProviderKey(**row)


def after(connection: Connection, id: str, limit: int) -> Sequence[ProviderKey]:
    """Those of all accounts whose ids come after this one, by id."""
    query = select(*_COLUMNS).where(provider_keys.c.id > id).order_by(provider_keys.c.id).limit(limit)
    return [ProviderKey(**row) for row in connection.execute(query).mappings()]


def masters_in_use(connection: Connection) -> frozenset[str]:
    """The names of the master keys that something is sealed under."""
    return frozenset(connection.execute(select(provider_keys.c.master).distinct()).scalars())


def sealing_master(connection: Connection) -> str:
    """The name of the master key that seals; empty before the first."""
    return connection.execute(select(provider_key_master.c.master)).scalar_one()
