"""Questions about many keys at once, on both engines: an owner's pages, names, usage and balances, and nobody else's."""

from collections.abc import Iterator

import pytest
from msgspec import structs
from sqlalchemy import insert

from farebox.billing.books import customers
from farebox.billing.books.customers import KeyChange, NewKey
from farebox.storage import key_queries
from farebox.storage.database import Database
from farebox.storage.key_queries import Owner
from farebox.storage.queries import Balance, KeyUsage
from farebox.storage.tables import scopes, usage

NOW_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
MINE, WITHIN, THEIRS = Owner("acc-1"), Owner("acc-1", "prj-1"), Owner("acc-2")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database.open(database_url) as opened:
        for account in ("acc-1", "acc-2"):
            customers.create_account(opened, id=account, name=account, kind="prepaid", now_us=NOW_US)
        customers.create_project(opened, id="prj-1", account_id="acc-1", name="shop", now_us=NOW_US)
        for number, (account, project) in enumerate((("acc-1", ""), ("acc-1", "prj-1"), ("acc-2", ""), ("acc-1", ""))):
            digest = bytes([number]) * 32
            key = NewKey(id=f"key-{number}", account_id=account, name=f"n{number % 3}", digest=digest, hint="fb-…")
            customers.create_key(opened, structs.replace(key, project=project), now_us=NOW_US + number)
        yield opened


def ids(database: Database, owner: Owner, *, offset: int = 0, limit: int = 100) -> list[str]:
    found, _ = database.read(lambda c: key_queries.page(c, owner, offset=offset, limit=limit))
    return [key.id for key in found]


def test_pages_are_an_owners_and_follow_each_other(database: Database) -> None:
    assert ids(database, MINE) == ["key-0", "key-1", "key-3"] and ids(database, WITHIN) == ["key-1"]
    assert ids(database, MINE, offset=1, limit=1) == ["key-1"] and ids(database, THEIRS) == ["key-2"]
    assert database.read(lambda c: key_queries.page(c, MINE, offset=2, limit=1))[1] == 3, "of how many"
    customers.change_key(database, "key-0", KeyChange(disabled=True), now_us=NOW_US)
    found, count = database.read(lambda c: key_queries.page(c, MINE, offset=0, limit=9, disabled=False))
    assert [key.id for key in found] == ["key-1", "key-3"] and count == 2
    customers.revoke_key(database, "key-3", now_us=NOW_US)
    assert ids(database, MINE) == ["key-0", "key-1"], "a revoked key is nobody's"


def test_what_is_anothers_is_not_found(database: Database) -> None:
    def by_digest(owner: Owner, number: int) -> bool:
        return database.read(lambda c: key_queries.by_digest(c, owner, bytes([number]) * 32)) is not None

    def by_id(owner: Owner, id: str) -> bool:
        return database.read(lambda c: key_queries.by_id(c, owner, id)) is not None

    assert by_digest(MINE, 0) and by_id(MINE, "key-0") and by_id(WITHIN, "key-1")
    for owner, number in ((THEIRS, 0), (MINE, 2), (WITHIN, 0)):
        assert not by_digest(owner, number) and not by_id(owner, f"key-{number}")
    named = database.read(lambda c: key_queries.by_names(c, MINE, ["n0", "n2"]))
    assert [key.id for key in named] == ["key-0", "key-3"], "n2 is another account's"


def test_usage_and_balances_of_many_keys(database: Database) -> None:
    def row(number: int, key: str, days_ago: int, charge: int) -> dict[str, object]:
        values: dict[str, object] = {column.name: "" for column in usage.c if not column.nullable}
        values |= {
            "hold_id": f"gen-{number}", "attempt": 1, "revision": 0, "final": True, "key_id": key, "account_id": "acc-1",
            "charge_nano": charge, "loss_nano": 0, "created_us": NOW_US - days_ago * DAY_US, "posted_us": NOW_US,
        }  # fmt: skip
        return values

    charged = [("key-0", 0, 5), ("key-0", 3, 7), ("key-0", 20, 11), ("key-1", 90, 13), ("key-3", 0, 17)]
    rows = [row(number, *one) for number, one in enumerate(charged)]

    def work(connection: object) -> None:
        for values in rows:
            connection.execute(insert(usage).values(**values))  # type: ignore[attr-defined]
        values = {"kind": "key", "account_id": "acc-1", "key_id": "key-0", "limit_nano": 100, "posted_nano": 23}
        connection.execute(insert(scopes).values(id="key:key-0:2026-01-01", **values))  # type: ignore[attr-defined]

    database.write(work)
    found = database.read(
        lambda c: key_queries.spent(
            c, ["key-0", "key-1", "key-2"], day_us=NOW_US, week_us=NOW_US - 6 * DAY_US, month_us=NOW_US - 30 * DAY_US
        )
    )
    assert found == {"key-0": KeyUsage(23, 5, 12, 23), "key-1": KeyUsage(13, 0, 0, 0)}
    known = database.read(lambda c: key_queries.balances(c, ["key:key-0:2026-01-01", "key:key-9"]))
    assert known == {"key:key-0:2026-01-01": Balance(100, 23, 0)}
    assert database.read(lambda c: key_queries.spent(c, [], day_us=0, week_us=0, month_us=0)) == {}
