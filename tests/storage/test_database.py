"""Transactions: done, not done, or said to be unknown; the same on both engines."""

import sqlite3
import threading

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from farebox.storage.database import TRANSACTION_ATTEMPTS_MAX, Database, OutcomeUnknown, RowRefused, StoreUnavailable

INSERT = text("INSERT INTO journal_positions (slot, segment, byte_offset) VALUES (:slot, 1, 1)")


class NoPause:
    def uniform(self):
        return 0.0


@pytest.fixture
def database(database_url):
    with Database.open(database_url, random=NoPause()) as opened:
        yield opened


def slots(database):
    return database.read(lambda connection: sorted(connection.execute(text("SELECT slot FROM journal_positions")).scalars()))


def test_an_exception_undoes_everything(database):
    def work(connection):
        connection.execute(INSERT, {"slot": "a"})
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        database.write(work)
    assert slots(database) == []


def test_a_read_keeps_nothing(database):
    database.read(lambda connection: connection.execute(INSERT, {"slot": "a"}))
    assert slots(database) == []


def test_a_constraint_is_a_refused_row(database):
    database.write(lambda connection: connection.execute(INSERT, {"slot": "a"}))
    with pytest.raises(RowRefused):
        database.write(lambda connection: connection.execute(INSERT, {"slot": "a"}))


class Deadlock(Exception):
    sqlstate = "40P01"


def test_deadlocks_and_serialization_failures_retry_the_whole_transaction(database):
    """Peers row 19: deadlocks at 60 pods dropped the spend that they carried."""
    runs = []

    def work(connection):
        runs.append(None)
        connection.execute(INSERT, {"slot": f"run-{len(runs)}"})
        if len(runs) < TRANSACTION_ATTEMPTS_MAX:
            raise OperationalError("UPDATE", {}, Deadlock())
        return len(runs)

    assert database.write(work) == TRANSACTION_ATTEMPTS_MAX
    assert slots(database) == [f"run-{TRANSACTION_ATTEMPTS_MAX}"], "only the last try is kept"
    runs.clear()
    with pytest.raises(StoreUnavailable, match="taken back"):
        database.write(lambda connection: (_ for _ in ()).throw(OperationalError("UPDATE", {}, Deadlock())))


def test_a_commit_that_fails_for_another_reason_is_unknown(database, monkeypatch):
    """Peers row 27: "unknown" reported as refused."""
    from sqlalchemy.engine import RootTransaction

    commit = RootTransaction.commit

    def lose(self):
        commit(self)
        raise OperationalError("COMMIT", {}, Exception("the connection was reset"))

    monkeypatch.setattr(RootTransaction, "commit", lose)
    with pytest.raises(OutcomeUnknown):
        database.write(lambda connection: connection.execute(INSERT, {"slot": "a"}))
    monkeypatch.undo()
    assert slots(database) == ["a"]


@pytest.mark.parametrize("table", ["usage", "transfers"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = 1", "DELETE FROM {}"])
def test_facts_cannot_be_changed_or_removed(database, table, statement):
    column = {"usage": "charge_nano", "transfers": "amount_nano"}[table]
    rows = {
        "usage": "INSERT INTO usage (hold_id, attempt, revision, final, account_id, key_id, project, end_user, model, provider, "
        "state, outcome, basis, charge_nano, loss_nano, record, created_us, posted_us) "
        "VALUES ('gen-1', 1, 0, true, 'a', 'k', '', '', 'm', 'p', 'settled', 'ok', 'none', 5, 0, '{}', 1, 1)",
        "transfers": "INSERT INTO transfers (id, at_us, debit, credit, amount_nano, cause_kind, cause_id) "
        "VALUES ('t', 1, 'cash', 'revenue', 5, 'x', 'y')",
    }
    database.write(lambda connection: connection.execute(text(rows[table].replace("'{}'", "'x'"))))
    with pytest.raises(RowRefused, match="append-only"):
        database.write(lambda connection: connection.execute(text(statement.format(table, column))))
    amount = database.read(lambda connection: connection.execute(text(f"SELECT {column} FROM {table}")).scalar_one())
    assert amount == 5


def test_one_final_row_per_hold_is_refused_by_the_database(database):
    """I3, peers row 22: one terminal event per hold."""
    row = (
        "INSERT INTO usage (hold_id, attempt, revision, final, account_id, key_id, project, end_user, model, provider, "
        "state, outcome, basis, charge_nano, loss_nano, record, created_us, posted_us) "
        "VALUES ('gen-1', {}, 0, true, 'a', 'k', '', '', 'm', 'p', 'settled', 'ok', 'none', 5, 0, 'x', 1, 1)"
    )
    database.write(lambda connection: connection.execute(text(row.format(1))))
    with pytest.raises(RowRefused):
        database.write(lambda connection: connection.execute(text(row.format(2))))


def test_the_limit_is_refused_by_the_database_itself(database):
    """I7, peers row 1: whatever statement a programmer writes."""

    def work(connection):
        connection.execute(text("INSERT INTO accounts (id, name, kind, created_us, version) VALUES ('a', 'a', 'prepaid', 1, 1)"))
        connection.execute(text("INSERT INTO scopes (id, kind, account_id, limit_nano) VALUES ('s', 'account', 'a', 10)"))

    database.write(work)
    with pytest.raises(RowRefused):
        database.write(lambda connection: connection.execute(text("UPDATE scopes SET posted_nano = 6, allotted_nano = 5")))


def test_an_unreachable_database_is_unavailable(tmp_path):
    with Database.open(f"sqlite:///{tmp_path}/no/such/folder.db") as database, pytest.raises(StoreUnavailable):
        database.write(lambda connection: connection.execute(INSERT, {"slot": "a"}))
    with Database.open(f"postgresql://nobody@/nothing?host={tmp_path}") as database, pytest.raises(StoreUnavailable):
        database.read(lambda connection: connection.execute(text("SELECT 1")))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y"])
def test_addresses_that_cannot_serve(url):
    with pytest.raises(ValueError, match=r"file|not supported"):
        Database.open(url)


def test_a_locked_sqlite_is_unavailable_after_its_time(tmp_path, sqlite_template):
    import shutil

    path = tmp_path / "locked.db"
    shutil.copyfile(sqlite_template, path)
    with (
        Database.open(f"sqlite:///{path}", busy_timeout_ms=50) as one,
        Database.open(f"sqlite:///{path}", busy_timeout_ms=50) as two,
    ):
        inside, leave = threading.Event(), threading.Event()

        def hold(_connection):
            inside.set()
            leave.wait(10)

        thread = threading.Thread(target=one.write, args=(hold,))
        thread.start()
        inside.wait(10)
        try:
            with pytest.raises(StoreUnavailable, match="locked"):
                two.write(lambda connection: connection.execute(INSERT, {"slot": "a"}))
            assert slots(two) == [], "readers never wait"
        finally:
            leave.set()
            thread.join()


def test_a_new_sqlite_file_waits_for_another_that_makes_it(tmp_path, monkeypatch):
    """The change to a write-ahead log needs the file alone, and SQLite's busy timeout does not wait for that."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    url = f"sqlite:///{tmp_path}/new.db"
    with (
        Database.open(url, busy_timeout_ms=20) as late,
        pytest.raises(StoreUnavailable, match="locked"),
    ):
        late.read(lambda _: None)

    class Ends:
        def wait(self, _seconds):
            other.execute("COMMIT")

    with Database.open(url, busy_timeout_ms=20) as patient:
        monkeypatch.setattr(threading, "Event", Ends)
        assert patient.read(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"
    other.close()


def test_sqlite_is_durable(tmp_path, sqlite_template):
    import shutil

    path = tmp_path / "durable.db"
    shutil.copyfile(sqlite_template, path)
    with Database.open(f"sqlite:///{path}") as database:
        pragma = lambda name: database.read(lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar_one())  # noqa: E731
        assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)


def test_real_deadlocks_are_survived(postgres_server, fresh_database, engine):
    """Peers row 19, with two transactions that lock in opposite order."""
    if engine == "sqlite":
        return
    with Database.open(fresh_database()) as database:
        database.write(lambda connection: [connection.execute(INSERT, {"slot": slot}) for slot in "ab"])
        meeting = threading.Barrier(2, timeout=10)
        failed = []

        def run(first, second):
            met = []

            def work(connection):
                add = text("UPDATE journal_positions SET byte_offset = byte_offset + 1 WHERE slot = :slot")
                connection.execute(add, {"slot": first})
                if not met:
                    met.append(None)
                    meeting.wait()
                connection.execute(add, {"slot": second})

            try:
                database.write(work)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=run, args=order) for order in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        total = database.read(lambda c: c.execute(text("SELECT sum(byte_offset) FROM journal_positions")).scalar_one())
        assert total == 2 + 4


def test_a_lost_connection_heals(postgres_server, fresh_database, engine):
    if engine == "sqlite":
        return
    url = fresh_database()
    with Database.open(url) as database:
        assert slots(database) == []
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'farebox'")
        assert slots(database) == []
