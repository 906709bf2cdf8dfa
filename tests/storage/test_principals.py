"""What the gate learns of a key, its rotation and its project from the database, on both engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from farebox.billing.books import customers
from farebox.billing.books.customers import KeyChange, NewKey
from farebox.edge.library import principal_lookup
from farebox.errors import FareboxError
from farebox.gate.keyring import Lookup, check
from farebox.gate.ladder import Ladder
from farebox.gate.limits import Limits
from farebox.storage.database import Database
from farebox.vault.vault import Vault

NOW_US = 1_767_225_600_000_000
HOUR_US = 3_600_000_000
OLD, NEW = b"o" * 32, b"n" * 32


class Shop:
    """One account with one key in one project."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        customers.create_account(self.database, id="acc-1", name="A", kind="prepaid", now_us=NOW_US)
        customers.create_project(self.database, id="prj-1", account_id="acc-1", name="shop", now_us=NOW_US)
        key = NewKey(id="key-1", account_id="acc-1", name="k", digest=OLD, hint="fb-old", project="prj-1")
        customers.create_key(self.database, key, now_us=NOW_US)
        self.find: Lookup = principal_lookup(self.database, Limits(), Ladder([], ""), vault)

    def rotate(self, overlap_us: int) -> None:
        customers.rotate_key(self.database, "key-1", digest=NEW, hint="fb-new", overlap_us=overlap_us, now_us=NOW_US)

    def admits(self, digest: bytes, now_us: int) -> bool:
        found = self.find(digest)
        if found is None:
            return False
        try:
            check(found, now_us)
        except FareboxError:
            return False
        return True


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> Iterator[Shop]:
    with Database.open(database_url) as database:
        yield Shop(database, Vault(tmp_path / "byok-master.json"))


def test_both_secrets_work_during_the_overlap_and_only_the_new_one_after_it(shop: Shop) -> None:
    shop.rotate(HOUR_US)
    assert shop.admits(OLD, NOW_US) and shop.admits(OLD, NOW_US + HOUR_US - 1)
    assert not shop.admits(OLD, NOW_US + HOUR_US)
    assert shop.admits(NEW, NOW_US) and shop.admits(NEW, NOW_US + 1000 * HOUR_US)
    old, new = shop.find(OLD), shop.find(NEW)
    assert old is not None and new is not None and (old.key, old.key_hint, new.key_hint) == ("key-1", "fb-old", "fb-new")


def test_without_an_overlap_the_old_secret_is_unknown_at_once(shop: Shop) -> None:
    shop.rotate(0)
    assert shop.find(OLD) is None and shop.admits(NEW, NOW_US)


def test_a_key_that_expires_sooner_than_its_overlap_does_not_outlive_itself(shop: Shop) -> None:
    customers.change_key(shop.database, "key-1", KeyChange(expires_us=NOW_US + 10), now_us=NOW_US)
    shop.rotate(HOUR_US)
    assert shop.admits(OLD, NOW_US + 9) and not shop.admits(OLD, NOW_US + 10)


def test_a_disabled_key_and_a_key_of_a_disabled_project_are_refused(shop: Shop) -> None:
    customers.change_key(shop.database, "key-1", KeyChange(disabled=True), now_us=NOW_US)
    with pytest.raises(FareboxError, match="the API key of `fb-old` is disabled") as refused:
        found = shop.find(OLD)
        assert found is not None
        check(found, NOW_US)
    assert refused.value.status == 403
    customers.change_key(shop.database, "key-1", KeyChange(disabled=False), now_us=NOW_US)
    assert shop.admits(OLD, NOW_US)
    customers.change_project(shop.database, "prj-1", disabled=True, now_us=NOW_US)
    with pytest.raises(FareboxError, match="the project `shop`"):
        found = shop.find(OLD)
        assert found is not None
        check(found, NOW_US)
