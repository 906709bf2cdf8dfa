"""The audit log: every change of a key leaves one entry without secrets, and no entry can be altered unseen."""

from collections.abc import Iterator

import msgspec
import pytest
from sqlalchemy import Connection, text

from farebox.billing.accounts import budget_commands
from farebox.billing.accounts.budget_commands import Change
from farebox.billing.books import audit, customers
from farebox.billing.books.audit import Actor, Entry
from farebox.billing.books.customers import CommandRefused, KeyChange, NewKey
from farebox.billing.budgets import Budget
from farebox.storage.database import Database, StoreError

NOW_US = 1_767_225_600_000_000
BY = Actor("key:key-boss", "203.0.113.9")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with Database.open(database_url) as opened:
        customers.create_account(opened, id="acc-1", name="A", kind="prepaid", now_us=NOW_US)
        customers.create_project(opened, id="prj-1", account_id="acc-1", name="shop", now_us=NOW_US)
        key = NewKey(id="key-1", account_id="acc-1", name="k", digest=b"d" * 32, hint="fb-old…", project="prj-1")
        customers.create_key(opened, key, now_us=NOW_US, by=BY)
        yield opened


def entries(database: Database) -> list[Entry]:
    """Oldest first."""
    return database.read(audit.entries)[::-1]


def test_every_change_leaves_one_entry(database: Database) -> None:
    change = KeyChange(name="new", disabled=True, budget=(5, "day"))
    customers.change_key(database, "key-1", change, now_us=NOW_US + 1, by=BY)
    customers.change_key(database, "key-1", KeyChange(name="new"), now_us=NOW_US + 2)
    customers.rotate_key(database, "key-1", digest=b"e" * 32, hint="fb-new…", overlap_us=60, now_us=NOW_US + 3)
    customers.revoke_key(database, "key-1", now_us=NOW_US + 4, by=BY)
    customers.revoke_key(database, "key-1", now_us=NOW_US + 5)
    with pytest.raises(CommandRefused):
        customers.change_key(database, "key-1", KeyChange(name="late"), now_us=NOW_US + 6)
    found = entries(database)
    assert [(entry.seq, entry.action, entry.actor) for entry in found] == [
        (1, "account.create", "operator"),
        (2, "project.create", "operator"),
        (3, "key.create", BY.name),
        (4, "key.change", BY.name),
        (5, "key.rotate", "operator"),
        (6, "key.revoke", BY.name),
    ], "a repetition changes nothing, and a refused command neither"
    assert msgspec.json.decode(found[3].before) == {
        "budget_nano": None, "budget_window": "none", "disabled_us": None, "name": "k",
    }  # fmt: skip
    assert msgspec.json.decode(found[3].after)["budget_nano"] == 5 and found[3].address == BY.address
    assert database.read(audit.verify) is None


def test_settings_of_accounts_and_budgets_are_logged_too(database: Database) -> None:
    customers.set_tier(database, "acc-1", "gold", pinned=True, now_us=NOW_US, by=BY)
    customers.set_policy(database, "acc-1", "cheap", now_us=NOW_US)
    customers.set_markup(database, "acc-1", "steps", now_us=NOW_US)
    customers.set_account_status(database, "acc-1", "suspended", now_us=NOW_US)
    budget = Budget(id="bud-1", kind="project", amount_nano=5, window="day", subject="prj-1")
    budget_commands.create_budget(database, "acc-1", budget, now_us=NOW_US)
    budget_commands.change_budget(database, "bud-1", Change(amount_nano=7), now_us=NOW_US, by=BY)
    budget_commands.remove_budget(database, "bud-1", now_us=NOW_US)
    decode = msgspec.json.decode
    changes = [(one.action, decode(one.before or "null"), decode(one.after)) for one in entries(database)]
    assert changes[3:7] == [
        ("account.change", {"tier": None, "tier_pinned": False}, {"tier": "gold", "tier_pinned": True}),
        ("account.change", {"policy": None}, {"policy": "cheap"}),
        ("account.change", {"markup": None}, {"markup": "steps"}),
        ("account.change", {"status": "active"}, {"status": "suspended"}),
    ]
    assert [action for action, _, _ in changes[7:]] == ["budget.create", "budget.change", "budget.remove"]
    assert changes[8][1:] == ({"amount_nano": 5}, {"amount_nano": 7})
    assert {one.account_id for one in entries(database)} == {"acc-1"} and database.read(audit.verify) is None


def test_entries_have_no_digest(database: Database) -> None:
    customers.rotate_key(database, "key-1", digest=b"e" * 32, hint="fb-new…", overlap_us=60, now_us=NOW_US)
    for entry in entries(database):
        assert "digest" not in entry.before + entry.after


def test_entries_are_never_changed_or_removed(database: Database) -> None:
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with pytest.raises(StoreError, match="append-only"):
            database.write(lambda connection, sql=statement: connection.execute(text(sql)))


@pytest.mark.parametrize("damage", ["UPDATE audit SET actor = 'x' WHERE seq = 2", "DELETE FROM audit WHERE seq = 2"])
def test_damage_done_behind_our_back_shows(database: Database, damage: str) -> None:
    def work(connection: Connection) -> None:
        if database.is_sqlite:
            for verb in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER audit_no_{verb}"))
        else:
            connection.execute(text("ALTER TABLE audit DISABLE TRIGGER ALL"))
        connection.execute(text(damage))

    database.write(work)
    assert database.read(audit.verify) == 2
