"""Customers' own keys at providers: the commands that keep them, each in one transaction that bumps the control version.

A secret is sealed inside the transaction, after the version's row is locked: so it is under the master key that seals at that
time, and a rotation, which takes the same lock, never misses one. The audit log has the hint, never more.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, delete, func, insert, select, update

from farebox.billing.books import audit
from farebox.billing.books.audit import OPERATOR, Actor
from farebox.billing.books.customers import NAME_MAX, CommandRefused, NotFound, lock_account
from farebox.billing.books.scopes import bump_version
from farebox.storage import provider_key_queries as stored
from farebox.storage.database import Database, RowRefused
from farebox.storage.provider_key_queries import ProviderKey
from farebox.storage.provider_key_tables import provider_key_master, provider_keys
from farebox.storage.tables import keys, projects
from farebox.vault import envelope, master_file
from farebox.vault.envelope import CannotOpen, Master, Place
from farebox.vault.master_file import MasterFileError
from farebox.vault.vault import Vault

PER_ACCOUNT_MAX = stored.PAGE_MAX
PER_PROVIDER_MAX = 10
"""Of one account: each of them is an attempt more that a call may make."""
KEY_IDS_MAX = 100
"""API keys that one provider key may be limited to."""
ID_CHARS_MAX = 128
"""How much of an unknown id a message repeats."""
REWRAPPED_AT_ONCE_MAX = 200


class NewProviderKey(msgspec.Struct, frozen=True, kw_only=True):
    """A provider key to keep. Its secret was looked at by `gate.provider_secret`."""

    id: str
    account_id: str
    provider: str
    secret: str
    hint: str
    name: str = ""
    project: str = ""
    key_ids: tuple[str, ...] = ()
    always_use: bool = False
    disabled: bool = False
    position: int | None = None
    """In the order of use; None: the last."""

    def __repr__(self) -> str:
        return f"NewProviderKey({self.id}, {self.provider})"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What to change about a provider key; what is unset stays."""

    secret: tuple[str, str] | UnsetType = UNSET
    """Another one, and its hint."""
    name: str | UnsetType = UNSET
    project: str | UnsetType = UNSET
    key_ids: tuple[str, ...] | UnsetType = UNSET
    always_use: bool | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    position: int | UnsetType = UNSET

    def __repr__(self) -> str:
        return "Change(…)"


class Rotated(msgspec.Struct, frozen=True):
    """What a rotation of the master key did."""

    master: str
    rewrapped: int
    broken: tuple[str, ...]
    """Provider keys that could not be opened, and stay as they are."""
    dropped: int
    """Master keys that nothing is sealed under any more."""


def place(key: ProviderKey) -> Place:
    """What a provider key's envelope is bound to."""
    return Place(key.id, key.account_id, key.provider)


def create(database: Database, vault: Vault, new: NewProviderKey, *, now_us: int, by: Actor = OPERATOR) -> None:
    """Keep a key, sealed."""
    _check_name(new.name)

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        lock_account(connection, new.account_id)
        beside = _beside(connection, new.account_id, new.provider)
        count = select(func.count()).select_from(provider_keys).where(provider_keys.c.account_id == new.account_id)
        if connection.execute(count).scalar_one() >= PER_ACCOUNT_MAX:
            raise CommandRefused(f"an account has at most {PER_ACCOUNT_MAX} provider keys; remove those that are not used")
        if len(beside) >= PER_PROVIDER_MAX:
            raise CommandRefused(f"an account has at most {PER_PROVIDER_MAX} keys of one provider; remove one first")
        _check_project(connection, new.account_id, new.project)
        master = _sealing(connection, vault, now_us)
        row = {
            "id": new.id,
            "account_id": new.account_id,
            "project": new.project,
            "key_ids": _key_ids(connection, new.account_id, new.project, new.key_ids),
            "provider": new.provider,
            "name": new.name,
            "hint": new.hint,
            "sealed": envelope.seal(new.secret, Place(new.id, new.account_id, new.provider), master),
            "master": master.id,
            "always_use": new.always_use,
            "position": len(beside),
            "disabled_us": now_us if new.disabled else None,
            "created_us": now_us,
            "changed_us": now_us,
        }
        connection.execute(insert(provider_keys).values(**row, version=version))
        if new.position is not None:
            row["position"] = new.position
            _move(connection, new.id, beside, new.position)
        _note(connection, by, "provider_key.create", new.account_id, new.id, None, row, now_us)

    try:
        database.write(work)
    except RowRefused as error:
        raise CommandRefused(f"the provider key `{new.id}` exists already") from error


def change(
    database: Database,
    vault: Vault,
    id: str,
    wanted: Change,
    *,
    now_us: int,
    within: str | None = None,
    by: Actor = OPERATOR,
) -> None:
    """Change a provider key; another secret takes the place of the one before."""
    if wanted.name is not UNSET:
        _check_name(wanted.name)

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        before = _locked(connection, id, within)
        values: dict[str, Any] = {"changed_us": now_us, "version": version}
        if wanted.name is not UNSET:
            values["name"] = wanted.name
        if wanted.always_use is not UNSET:
            values["always_use"] = wanted.always_use
        if wanted.disabled is not UNSET:
            values["disabled_us"] = (before.disabled_us or now_us) if wanted.disabled else None
        project = before.project if wanted.project is UNSET else wanted.project
        if project != before.project:
            _check_project(connection, before.account_id, project)
        if project != before.project or wanted.key_ids is not UNSET:
            ids = before.key_list if wanted.key_ids is UNSET else wanted.key_ids
            values |= {"project": project, "key_ids": _key_ids(connection, before.account_id, project, ids)}
        if wanted.secret is not UNSET:
            secret, hint = wanted.secret
            master = _sealing(connection, vault, now_us)
            values |= {"sealed": envelope.seal(secret, place(before), master), "master": master.id, "hint": hint}
        connection.execute(update(provider_keys).where(provider_keys.c.id == id).values(**values))
        if wanted.position is not UNSET:
            values["position"] = wanted.position
            beside = [one for one in _beside(connection, before.account_id, before.provider) if one != id]
            _move(connection, id, beside, wanted.position)
        was = msgspec.structs.asdict(before)
        action = "provider_key.change"
        # A repetition changes nothing and is not told; but another secret is, whatever its hint.
        values.pop("changed_us")
        if wanted.secret is not UNSET:
            action = "provider_key.rotate"
            values["rotated_us"] = now_us
        _note(connection, by, action, before.account_id, id, was, {**was, **values}, now_us)

    database.write(work)


def remove(database: Database, id: str, *, now_us: int, within: str | None = None, by: Actor = OPERATOR) -> None:
    """Forget a provider key for good: of its secret nothing is left."""

    def work(connection: Connection) -> None:
        bump_version(connection)
        before = _locked(connection, id, within)
        connection.execute(delete(provider_keys).where(provider_keys.c.id == id))
        _renumber(connection, _beside(connection, before.account_id, before.provider))
        was = msgspec.structs.asdict(before)
        after = {"removed_us": now_us}
        _note(connection, by, "provider_key.remove", before.account_id, id, was, after, now_us)

    database.write(work)


def prepare_master(database: Database, vault: Vault, *, now_us: int) -> Master:
    """Put the next master key into the file, for the other machines to have it before it seals. Raises `MasterFileError`.

    One that was prepared and not taken yet stays.
    """

    def work(connection: Connection) -> Master:
        bump_version(connection)
        current = _sealing(connection, vault, now_us)
        newest = vault.newest_or_made(now_us)
        return newest if newest.id != current.id else master_file.add(vault.path, now_us)

    return database.write(work)


def rotate_master(database: Database, vault: Vault, *, now_us: int, by: Actor = OPERATOR) -> Rotated:
    """Seal with the next master key from now on, wrap anew what is sealed under others, and drop those. Raises
    `MasterFileError`. What was interrupted is finished by the next one.
    """
    new = prepare_master(database, vault, now_us=now_us)

    def take(connection: Connection) -> None:
        bump_version(connection)
        connection.execute(update(provider_key_master).values(master=new.id))

    database.write(take)
    rewrapped, broken, last = 0, list[str](), ""
    while True:
        done, failed, last = database.write(lambda connection, since=last: _rewrap(connection, vault, new, since))
        rewrapped += done
        broken += failed
        if not last:
            break

    def drop(connection: Connection) -> int:
        bump_version(connection)
        newer = {one.id for one in itertools.takewhile(lambda one: one.id != new.id, vault.masters())}
        return master_file.keep(vault.path, stored.masters_in_use(connection) | newer | {new.id})

    return Rotated(new.id, rewrapped, tuple(broken), database.write(drop))


def _rewrap(connection: Connection, vault: Vault, new: Master, since: str) -> tuple[int, Sequence[str], str]:
    """Wrap some keys anew; how many, which could not be, and the last one looked at (empty: there are no more)."""
    version = bump_version(connection)
    found = stored.after(connection, since, REWRAPPED_AT_ONCE_MAX)
    done, broken = 0, list[str]()
    for key in found:
        if key.master == new.id:
            continue
        old = vault.master(key.master)
        try:
            if old is None:
                raise CannotOpen("its master key is not in the file")
            sealed = envelope.rewrapped(key.sealed, place(key), old, new)
        except CannotOpen:
            broken.append(key.id)
            continue
        values = {"sealed": sealed, "master": new.id, "version": version}
        connection.execute(update(provider_keys).where(provider_keys.c.id == key.id).values(**values))
        done += 1
    return done, broken, found[-1].id if found else ""


def _sealing(connection: Connection, vault: Vault, now_us: int) -> Master:
    """The master key that seals; the first is made here, and another where nothing needs the one before any more. The version's
    row is locked already. Raises `MasterFileError`."""
    named = stored.sealing_master(connection)
    found = vault.master(named) if named else None
    if found is not None:
        return found
    if named and stored.masters_in_use(connection):
        raise MasterFileError(
            f"{vault.path}: does not have the master key {named} that this database's provider keys are sealed with; "
            "copy the file from the machine that made it, or from a backup; if it is lost, remove the provider keys first"
        )
    made = vault.newest_or_made(now_us)
    connection.execute(update(provider_key_master).values(master=made.id))
    return made


def _beside(connection: Connection, account_id: str, provider: str) -> list[str]:
    """An account's keys of a provider, by id, in the order of use."""
    mine = (provider_keys.c.account_id == account_id) & (provider_keys.c.provider == provider)
    query = select(provider_keys.c.id).where(mine).order_by(provider_keys.c.position, provider_keys.c.id)
    return list(connection.execute(query).scalars())


def _move(connection: Connection, id: str, beside: list[str], position: int) -> None:
    if not 0 <= position <= len(beside):
        raise CommandRefused(f"the place in the order of use is from 0 to {len(beside)} here, not {position}")
    _renumber(connection, [*beside[:position], id, *beside[position:]])


def _renumber(connection: Connection, ids: Sequence[str]) -> None:
    for number, id in enumerate(ids):
        connection.execute(update(provider_keys).where(provider_keys.c.id == id).values(position=number))


def _locked(connection: Connection, id: str, within: str | None) -> ProviderKey:
    query = select(*(provider_keys.c[name] for name in ProviderKey.__struct_fields__))
    row = connection.execute(query.where(provider_keys.c.id == id).with_for_update()).mappings().one_or_none()
    if row is None or (within is not None and row["account_id"] != within):
        raise NotFound(f"the provider key `{id}` does not exist")
    return ProviderKey(**row)


def _key_ids(connection: Connection, account_id: str, project: str, ids: Sequence[str]) -> str:
    """The column's JSON: ids of keys of this account, or, if there is one, of the project, each once."""
    wanted = list(dict.fromkeys(ids))
    if len(wanted) > KEY_IDS_MAX:
        raise CommandRefused(f"a provider key is limited to at most {KEY_IDS_MAX} API keys; give those a project instead")
    alive = select(keys.c.id).where(keys.c.account_id == account_id, keys.c.revoked_us.is_(None), keys.c.id.in_(wanted))
    if project:
        alive = alive.where(keys.c.project == project)
    known = set(connection.execute(alive).scalars())
    for id in wanted:
        if id not in known:
            raise NotFound(f"the API key `{id[:ID_CHARS_MAX]}` does not exist" + (" in the project" if project else ""))
    return msgspec.json.encode(wanted).decode() if wanted else ""


def _check_project(connection: Connection, account_id: str, project: str) -> None:
    if not project:
        return
    found = select(projects.c.id).where(projects.c.id == project, projects.c.account_id == account_id)
    if connection.execute(found).one_or_none() is None:
        raise NotFound(f"the project `{project}` does not exist")


def _check_name(name: str) -> None:
    if len(name) > NAME_MAX or not name.isprintable():
        raise CommandRefused(f"a provider key's name has at most {NAME_MAX} printable characters")


def _note(
    connection: Connection,
    by: Actor,
    action: str,
    account_id: str,
    subject: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
    now_us: int,
) -> None:
    audit.note(
        connection, by, action, account_id=account_id, subject=subject, before=before, after=after, now_us=now_us
    )
