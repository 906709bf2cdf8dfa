"""Customers' own keys at providers in the database: sealed to their place, in order, bounded, and nobody else's."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from farebox.billing.accounts import provider_keys
from farebox.billing.accounts.provider_keys import PER_PROVIDER_MAX, Change, NewProviderKey
from farebox.billing.books import audit, customers
from farebox.billing.books.audit import Actor
from farebox.billing.books.customers import CommandRefused, NewKey, NotFound
from farebox.edge.library import principal_lookup
from farebox.gate.ladder import Ladder
from farebox.gate.limits import Limits
from farebox.routing.own_keys import OwnKey
from farebox.storage import provider_key_queries as stored
from farebox.storage.database import Database
from farebox.storage.provider_key_queries import Holder
from farebox.vault import envelope, master_file
from farebox.vault.envelope import Master, Place
from farebox.vault.master_file import MasterFileError
from farebox.vault.vault import Vault

NOW_US = 1_767_225_600_000_000
BY = Actor("key:boss", "203.0.113.9")
SECRET = "sk-customer-own-secret-0001"


class Safe:
    """Two accounts; in the first a project, a key in it and a key in none."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.vault = Vault(folder / "byok-master.json")
        self.said: list[str] = []
        self.vault.log = self.said.append
        for id in ("acc-1", "acc-2"):
            customers.create_account(database, id=id, name=id, kind="prepaid", now_us=NOW_US)
        customers.create_project(database, id="prj-1", account_id="acc-1", name="shop", now_us=NOW_US)
        for id, account, project in (("key-1", "acc-1", ""), ("key-p", "acc-1", "prj-1"), ("key-2", "acc-2", "")):
            new = NewKey(id=id, account_id=account, name=id, digest=id.encode().ljust(32), hint=id, project=project)
            customers.create_key(database, new, now_us=NOW_US)

    def add(self, id: str, account: str = "acc-1", provider: str = "openai", secret: str = SECRET, **more: Any) -> None:
        new = NewProviderKey(id=id, account_id=account, provider=provider, secret=secret, hint=f"…{secret[-4:]}", **more)
        provider_keys.create(self.database, self.vault, new, now_us=NOW_US, by=BY)

    def change(self, id: str, **what: Any) -> None:
        provider_keys.change(self.database, self.vault, id, Change(**what), now_us=NOW_US + 1, by=BY)

    def own(self, key: str = "key-1", vault: Vault | None = None) -> tuple[OwnKey, ...]:
        """What calls of an API key may use."""
        found = principal_lookup(self.database, Limits(), Ladder([], ""), vault or self.vault)(key.encode().ljust(32))
        assert found is not None
        return found.own_keys

    def ids(self, key: str = "key-1") -> list[str]:
        return [one.id for one in self.own(key)]

    def sql(self, statement: str) -> Any:
        return self.database.write(lambda connection: connection.execute(text(statement)))


@pytest.fixture
def safe(database_url: str, tmp_path: Path) -> Iterator[Safe]:
    with Database.open(database_url) as database:
        yield Safe(database, tmp_path)


def test_a_key_is_sealed_in_the_database_and_open_for_its_owners_calls_alone(safe: Safe) -> None:
    safe.add("pk-1", name="work", always_use=True)
    assert safe.own() == (OwnKey("pk-1", "openai", SECRET, True, "work"),) and safe.own("key-2") == ()
    row = safe.database.read(lambda c: stored.by_id(c, Holder("acc-1"), "pk-1"))
    assert row is not None and SECRET.encode() not in row.sealed and SECRET not in repr(row)
    assert safe.database.read(lambda c: stored.by_id(c, Holder("acc-2"), "pk-1")) is None
    assert os.stat(safe.vault.path).st_mode & 0o777 == 0o600
    for path in safe.folder.glob("*"):
        assert SECRET.encode() not in path.read_bytes(), path


def test_calls_use_the_keys_of_their_project_and_those_that_name_their_own_key(safe: Safe) -> None:
    safe.add("pk-all")
    safe.add("pk-project", project="prj-1")
    safe.add("pk-named", key_ids=("key-1", "key-1"))
    assert safe.ids("key-1") == ["pk-all", "pk-named"] and safe.ids("key-p") == ["pk-all", "pk-project"]
    safe.change("pk-all", disabled=True)
    assert safe.ids("key-1") == ["pk-named"]
    safe.change("pk-named", key_ids=())
    assert safe.ids("key-p") == ["pk-project", "pk-named"]
    with pytest.raises(NotFound, match="API key `key-2`"):
        safe.change("pk-named", key_ids=("key-2",))
    with pytest.raises(NotFound, match="project `prj-2`"):
        safe.change("pk-named", project="prj-2")


def test_the_order_of_use_is_the_owners(safe: Safe) -> None:
    for id in ("a", "b", "c"):
        safe.add(id)
    safe.add("first", position=0)
    safe.add("other", provider="anthropic")
    assert safe.ids() == ["other", "first", "a", "b", "c"]
    safe.change("c", position=1)
    assert safe.ids() == ["other", "first", "c", "a", "b"]
    provider_keys.remove(safe.database, "first", now_us=NOW_US, within="acc-1")
    assert safe.ids() == ["other", "c", "a", "b"]
    rows, count = safe.database.read(lambda c: stored.page(c, Holder("acc-1"), provider="openai"))
    assert count == 3 and [row.position for row in rows] == [0, 1, 2]
    with pytest.raises(CommandRefused, match="from 0 to 2 here, not 3"):
        safe.change("c", position=3)


def test_the_number_of_keys_is_bounded_and_no_stranger_changes_one(safe: Safe) -> None:
    for number in range(PER_PROVIDER_MAX):
        safe.add(f"pk-{number}")
    with pytest.raises(CommandRefused, match="at most 10 keys of one provider"):
        safe.add("pk-more")
    for number in range(provider_keys.PER_ACCOUNT_MAX - PER_PROVIDER_MAX):
        safe.add(f"pq-{number}", provider=f"p{number}")
    with pytest.raises(CommandRefused, match="at most 100 provider keys"):
        safe.add("pk-more", provider="one more")
    with pytest.raises(NotFound):
        provider_keys.remove(safe.database, "pk-1", now_us=NOW_US, within="acc-2")
    with pytest.raises(NotFound):
        provider_keys.change(safe.database, safe.vault, "pk-1", Change(name="x"), now_us=NOW_US, within="acc-2")


def test_every_change_is_in_the_audit_log_and_no_secret(safe: Safe) -> None:
    safe.add("pk-1")
    safe.change("pk-1", secret=("sk-another-customer-secret", "…cret"), always_use=True)
    safe.change("pk-1", secret=("sk-yet-another-customer-secret", "…cret"))
    safe.change("pk-1", always_use=True)
    provider_keys.remove(safe.database, "pk-1", now_us=NOW_US, by=BY)
    found = [one for one in safe.database.read(audit.entries) if one.subject == "pk-1"]
    assert [(one.action, one.account_id, one.actor, one.address) for one in found[::-1]] == [
        (f"provider_key.{verb}", "acc-1", BY.name, BY.address) for verb in ("create", "rotate", "rotate", "remove")
    ], "a repetition changes nothing"
    assert not any("customer-" in one.before + one.after for one in found)
    assert safe.database.read(audit.verify) is None
    assert safe.sql("SELECT count(*) FROM provider_keys").scalar_one() == 0


def test_an_envelope_in_anothers_place_does_not_open(safe: Safe) -> None:
    safe.add("pk-1")
    safe.add("pk-2", account="acc-2", secret="sk-anothers-own-secret-0002")
    safe.add("pk-3", provider="anthropic")
    safe.sql("UPDATE provider_keys SET sealed = (SELECT sealed FROM provider_keys WHERE id = 'pk-2') WHERE id = 'pk-1'")
    safe.sql("UPDATE provider_keys SET provider = 'evil' WHERE id = 'pk-3'")
    assert {one.id: one.secret for one in safe.own()} == {"pk-1": "", "pk-3": ""}
    safe.sql("UPDATE provider_keys SET account_id = 'acc-1' WHERE id = 'pk-2'")
    assert [one.secret for one in safe.own()] == ["", "", ""]
    assert len(safe.said) == 3 and all("cannot be opened: it was changed, or put into another" in line for line in safe.said)
    safe.own()
    assert len(safe.said) == 3, "once each"


def test_without_its_master_key_nothing_opens_and_nothing_is_sealed_under_another(safe: Safe) -> None:
    safe.add("pk-1")
    elsewhere = Vault(safe.folder / "elsewhere" / "byok-master.json")
    elsewhere.path.parent.mkdir()
    elsewhere.log = safe.said.append
    assert safe.own(vault=elsewhere)[0].secret == "" and "is not in" in safe.said[-1]
    new = NewProviderKey(id="pk-2", account_id="acc-1", provider="openai", secret=SECRET, hint="…")
    with pytest.raises(MasterFileError, match="copy the file from the machine that made it"):
        provider_keys.create(safe.database, elsewhere, new, now_us=NOW_US)
    elsewhere.path.write_bytes(safe.vault.path.read_bytes())
    assert safe.own(vault=elsewhere)[0].secret == "" and "chmod 600" in safe.said[-1]
    elsewhere.path.chmod(0o600)
    assert safe.own(vault=elsewhere)[0].secret == SECRET
    provider_keys.create(safe.database, elsewhere, new, now_us=NOW_US)
    assert [one.secret for one in safe.own()] == [SECRET, SECRET]


def test_a_rotation_of_the_master_key_wraps_everything_anew_and_leaves_the_secrets(
    safe: Safe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_keys, "REWRAPPED_AT_ONCE_MAX", 2)
    for number in range(5):
        safe.add(f"pk-{number}", secret=f"{SECRET}-{number}")
    safe.sql("UPDATE provider_keys SET provider = 'evil' WHERE id = 'pk-3'")
    before = safe.sql("SELECT sealed FROM provider_keys WHERE id = 'pk-1'").scalar_one()
    (old,) = safe.vault.masters()
    done = provider_keys.rotate_master(safe.database, safe.vault, now_us=NOW_US)
    assert (done.rewrapped, done.broken, done.dropped) == (4, ("pk-3",), 0), "its key may yet be needed"
    assert [one.id for one in safe.vault.masters()] == [done.master, old.id]
    after = safe.sql("SELECT sealed FROM provider_keys WHERE id = 'pk-1'").scalar_one()
    assert before[-30:] == after[-30:] and before[:40] != after[:40], "the secret itself is not touched"
    assert sorted(one.secret for one in safe.own()) == ["", *(f"{SECRET}-{number}" for number in (0, 1, 2, 4))]
    provider_keys.remove(safe.database, "pk-3", now_us=NOW_US)
    again = provider_keys.rotate_master(safe.database, safe.vault, now_us=NOW_US)
    assert (again.rewrapped, again.broken, again.dropped) == (4, (), 2)
    assert [one.id for one in safe.vault.masters()] == [again.master] and len({old.id, done.master, again.master}) == 3
    safe.add("pk-9", secret=f"{SECRET}-9")
    assert len([one for one in safe.own() if one.secret]) == 5


@pytest.mark.parametrize("command", ["create", "change"])
def test_a_rotation_waits_for_whoever_is_storing_a_key(
    safe: Safe, database_url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that did not would drop the master key that the secret is just being sealed with."""
    safe.add("pk-1")

    def rotate() -> provider_keys.Rotated:
        with Database.open(database_url) as other:
            return provider_keys.rotate_master(other, Vault(safe.vault.path), now_us=NOW_US)

    real = envelope.seal
    with ThreadPoolExecutor(1) as pool:
        rotating: list[Future[provider_keys.Rotated]] = []

        def seal(secret: str, place: Place, master: Master) -> bytes:
            rotating.append(pool.submit(rotate))
            wait(rotating, timeout=0.3)
            return real(secret, place, master)

        monkeypatch.setattr(envelope, "seal", seal)
        if command == "create":
            safe.add("pk-2", secret=f"{SECRET}-new")
        else:
            safe.change("pk-1", secret=(f"{SECRET}-new", "…"))
        (done,) = (one.result() for one in rotating)
    assert done.broken == () and [one.id for one in safe.vault.masters()] == [done.master]
    assert safe.own()[-1].secret == f"{SECRET}-new" and safe.said == []


def test_a_prepared_master_key_seals_on_no_machine_before_the_rotation_and_on_all_after_it(safe: Safe) -> None:
    safe.add("pk-1")
    prepared = provider_keys.prepare_master(safe.database, safe.vault, now_us=NOW_US)
    assert provider_keys.prepare_master(safe.database, safe.vault, now_us=NOW_US) == prepared, "it waits"
    (safe.folder / "b").mkdir()
    other = Vault(safe.folder / "b" / "byok-master.json")
    other.path.touch(0o600)
    other.path.write_bytes(safe.vault.path.read_bytes())

    def add_there(id: str) -> str:
        new = NewProviderKey(id=id, account_id="acc-1", provider="openai", secret=SECRET, hint="…")
        provider_keys.create(safe.database, other, new, now_us=NOW_US)
        row = safe.database.read(lambda c: stored.by_id(c, Holder("acc-1"), id))
        assert row is not None
        return row.master

    assert add_there("pk-2") != prepared.id
    done = provider_keys.rotate_master(safe.database, safe.vault, now_us=NOW_US)
    assert done.master == prepared.id and done.rewrapped == 2 and add_there("pk-3") == prepared.id
    assert [one.secret for one in safe.own()] == [one.secret for one in safe.own(vault=other)] == [SECRET] * 3


def test_of_two_machines_that_begin_at_once_one_is_told_to_take_the_others_file(safe: Safe) -> None:
    (safe.folder / "b").mkdir()
    other = Vault(safe.folder / "b" / "byok-master.json")
    master_file.read_or_make(other.path, NOW_US)
    safe.add("pk-1")
    new = NewProviderKey(id="pk-2", account_id="acc-1", provider="openai", secret=SECRET, hint="…")
    with pytest.raises(MasterFileError, match="does not have the master key"):
        provider_keys.create(safe.database, other, new, now_us=NOW_US)


def test_a_lost_master_key_is_replaced_once_nothing_needs_it(safe: Safe) -> None:
    safe.add("pk-1")
    (lost,) = safe.vault.masters()
    safe.vault.path.unlink()
    with pytest.raises(MasterFileError, match="remove the provider keys"):
        safe.add("pk-2")
    with pytest.raises(MasterFileError):
        provider_keys.rotate_master(safe.database, safe.vault, now_us=NOW_US)
    assert not safe.vault.path.exists(), "nothing is made in its place"
    provider_keys.remove(safe.database, "pk-1", now_us=NOW_US)
    safe.add("pk-2")
    assert [one.secret for one in safe.own()] == [SECRET] and safe.vault.masters() != (lost,)


def test_a_secret_is_in_no_representation(safe: Safe) -> None:
    new = NewProviderKey(id="pk-1", account_id="acc-1", provider="openai", secret=SECRET, hint="…")
    change = Change(secret=(SECRET, "…"))
    safe.add("pk-1")
    shown = repr((new, change, safe.own(), safe.vault.masters()))
    assert SECRET not in shown and repr(safe.vault.masters()[0].key)[2:-1] not in shown
