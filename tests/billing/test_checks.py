"""Each invariant's check sees its own break, and says so in a sentence. Rows are forged past the triggers and constraints."""

import pytest
from sqlalchemy import text

from farebox.billing.records import Hold, Settle
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000


@pytest.fixture
def books(world):
    """A prepaid and a postpaid account with a posted call each, and a hold in flight."""
    world.accounts = [world.account(DOLLAR), world.account(kind="postpaid", line_nano=DOLLAR)]
    world.keys = [world.key(account, DOLLAR, "day") for account in world.accounts]
    worker = world.worker()
    world.calls = [worker.call(key, Usage(input=1_000, output=10)) for key in world.keys]
    world.flight = worker.hold(world.keys[0], 1_000_000)
    world.post()
    assert world.check() == []
    return world


def forge(world, *statements):
    """Change facts as only a broken program or an intruder could: without triggers, and without the table's checks."""

    def work(connection):
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = replica"))
            for table, name in (("scopes", "ck_scopes_within_limit"), ("allotments", "ck_allotments_posted_within_granted")):
                connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
            for name in ("ck_grants_parts", "ck_scopes_wanted_is_lower"):
                connection.execute(text(f"ALTER TABLE {name.split('_')[1]} DROP CONSTRAINT {name}"))
            connection.execute(text("DROP INDEX uq_usage_final"))
        else:
            connection.execute(text("PRAGMA ignore_check_constraints = ON"))
            connection.execute(text("DROP INDEX uq_usage_final"))
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
            for name, _ in rows:
                connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            changed = connection.exec_driver_sql(statement).rowcount
            assert changed, statement
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = origin"))
        else:
            for _, sql in rows:
                connection.execute(text(sql))
            connection.execute(text("PRAGMA ignore_check_constraints = OFF"))

    world.database.write(work)


@pytest.mark.parametrize(
    ("invariant", "statement", "words"),
    [
        ("I1", "UPDATE transfers SET credit = 'nowhere' WHERE cause_kind = 'cost'", "does not exist"),
        ("I1", "UPDATE transfers SET debit = 'credit:grant-none' WHERE cause_kind = 'spend'", "does not exist"),
        ("I2", "UPDATE grants SET remaining_nano = remaining_nano - 1", "its transfers"),
        ("I2", "UPDATE scopes SET posted_nano = posted_nano + 1 WHERE kind = 'key'", "is posted"),
        ("I2", "UPDATE scopes SET allotted_nano = allotted_nano + 1", "is allotted"),
        ("I2", "UPDATE allotments SET granted_nano = granted_nano + 1", "its allotments hold"),
        ("I2", "UPDATE allotments SET posted_nano = posted_nano + 1, granted_nano = granted_nano + 1", "more is posted"),
        ("I2", "UPDATE scopes SET limit_nano = limit_nano + 1 WHERE kind = 'account'", "credit and payments make"),
        ("I2", "UPDATE accounts SET credit_limit_nano = 5 WHERE kind = 'postpaid'", "credit and payments make"),
        ("I2", "UPDATE scopes SET wanted_limit_nano = limit_nano - 1 WHERE kind = 'key'", "as low as it can be"),
        ("I2", "UPDATE usage SET record = replace(record, 'account:acc-', 'account:nobody-')", "does not exist"),
        ("I3", "UPDATE usage SET final = false", "0 ends"),
        ("I4", "UPDATE lives SET ended_us = 5", "not released"),
        ("I4", "UPDATE allotments SET granted_nano = granted_nano - 1 WHERE life <> ''", "calls need"),
        ("I5", "UPDATE usage SET transfer_id = NULL", "belongs to no transfer"),
        ("I5", "UPDATE usage SET cost_transfer_id = NULL", "belongs to no transfer"),
        ("I5", "UPDATE usage SET cost_transfer_id = 'trf-none'", "does not exist"),
        ("I5", "UPDATE transfers SET amount_nano = amount_nano + 1 WHERE cause_kind = 'usage'", "sum of its rows' charges"),
        ("I5", "UPDATE transfers SET amount_nano = amount_nano + 1 WHERE cause_kind = 'cost'", "sum of its rows' costs"),
        ("I5", "UPDATE usage SET loss_nano = 3", "rows lost"),
        ("I6", "UPDATE transfers SET amount_nano = amount_nano - 1 WHERE cause_kind = 'spend'", "owes 1"),
        ("I6", "UPDATE scopes SET limit_nano = posted_nano - 1 WHERE kind = 'account'", "beyond its credit"),
        ("I6", "UPDATE grants SET remaining_nano = -1", "overspent"),
        ("I7", "UPDATE scopes SET limit_nano = posted_nano + allotted_nano - 1", "above the limit"),
        ("I8", "UPDATE usage SET charge_nano = charge_nano + 1", "the ledger accrued"),
        ("I9", "UPDATE usage SET charge_nano = charge_nano + 1", "not the price of its usage"),
        ("I9", "UPDATE usage SET cost_nano = cost_nano + 1", "its usage costs"),
        ("I9", "UPDATE usage SET cost_nano = NULL", "its usage costs"),
        ("I9", "UPDATE usage SET attempt = 2", "is about attempt 1"),
        ("I9", "UPDATE usage SET record = replace(record, '\"output\":10}', '\"output\":11}')", "its usage costs"),
        ("I9", "UPDATE usage SET record = replace(record, '\"hold_nano\":', '\"hold_nano\":1,\"x\":')", "more than its hold"),
        ("I9", "UPDATE usage SET record = replace(record, '\"rates\"', '\"r\"')", "without usage and rates"),
        ("I10", "UPDATE usage SET revision = 1", "a correction ends a hold"),
    ],
)  # fmt: skip
def test_a_break_is_seen(books, invariant, statement, words):
    forge(books, statement)
    found = [violation for violation in books.check() if violation.invariant == invariant]
    assert any(words in violation.sentence for violation in found), books.check()


def test_a_second_end_is_seen(books):
    from farebox.billing.posting.batch import USAGE_COLUMNS

    names = ", ".join(USAGE_COLUMNS)
    forge(books, f"INSERT INTO usage ({names}) SELECT {names.replace('attempt', 'attempt + 1', 1)} FROM usage")
    assert "I3" in {violation.invariant for violation in books.check()}


def test_a_missing_trigger_is_seen(books):
    statement = "DROP TRIGGER usage_no_update" + ("" if books.database.is_sqlite else " ON usage")
    books.database.write(lambda connection: connection.execute(text(statement)))
    assert [(violation.invariant, violation.subject) for violation in books.check()] == [("I10", "usage_no_update")]


def test_a_reopened_hold_is_seen(books):
    worker, call = books.workers[0], books.calls[0]
    hold = Hold(
        call.id, 1, call.account, call.key, (), 0, call.surface, call.model, "p", "m", "v", books.flight.rates
    )  # fmt: skip
    worker.journal.write(hold)
    assert [violation.invariant for violation in books.check()] == ["I10"]


def test_a_hold_beyond_its_allotment_is_seen(books):
    """I4: a gateway that spends what it never took."""
    worker = books.workers[0]
    worker.journal.write(
        Hold("gen-x", 1, books.accounts[0], "k", (f"account:{books.accounts[0]}",), 7, "", "", "", "", "", books.flight.rates)
    )
    (violation,) = books.check()
    assert violation.invariant == "I4" and "calls need 1000007" in violation.sentence


def test_a_damaged_journal_is_seen(books):
    (books.journals / "w9").mkdir()
    (books.journals / "w9" / "00000001.journal").write_bytes(b"00000000 {}\n00000000 {}\n")
    assert {violation.invariant for violation in books.check()} == {"I4", "I10"}


def test_an_unbilled_failure_is_no_violation(world):
    """Billing.md §4: an error before or amid the answer may be free; one that ended well may not."""
    key = world.key(world.account(DOLLAR))
    worker = world.worker()
    hold = worker.hold(key, 10_000_000)
    worker.settle(hold, worker.attempt(hold, Usage(input=9), room_nano=0, loss_nano=0, outcome="truncated"))
    world.post()
    assert world.check() == []
    hold = worker.hold(key, 10_000_000)
    worker.settle(hold, worker.attempt(hold, Usage(input=9), room_nano=0, loss_nano=0))
    world.post()
    assert [violation.invariant for violation in world.check()] == ["I9"]
    assert isinstance(worker.void(worker.hold(key, 5)), Settle)
