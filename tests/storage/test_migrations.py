"""Migrations: from nothing they make exactly the tables that the program knows."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect, text

from farebox.storage import migrate
from farebox.storage.database import Database
from farebox.storage.tables import IMMUTABLE, METADATA


def test_migrations_make_the_tables(database_url):
    with Database.open(database_url) as database:
        migrate.check(database)
        assert database.read(lambda c: compare_metadata(MigrationContext.configure(c), METADATA)) == []


def test_migrations_make_the_checks_that_autogenerate_does_not_see(database_url):
    with Database.open(database_url) as database:
        inspector = inspect(database.engine)
        for table in METADATA.sorted_tables:
            wanted = {str(item.name) for item in table.constraints if isinstance(item, CheckConstraint)}
            assert {str(item["name"]) for item in inspector.get_check_constraints(table.name)} == wanted, table.name


def parts(sql):
    """The columns and constraints of a statement: what its commas divide, outside of parentheses within it."""
    head, _, body = sql.partition("(")
    depth, part, found = 0, "", [" ".join(head.split())]
    for character in body:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            found.append(part)
            part = ""
        else:
            part += character
    return [" ".join(one.split()) for one in (*found, part.strip().removesuffix(")"))]


def test_the_migrated_tables_equal_the_metadata_word_for_word(tmp_path, sqlite_template):
    """SQLite keeps the statements themselves, so defaults, checks and partial indexes are compared as well."""
    with Database.open(f"sqlite:///{tmp_path}/fresh.db") as fresh, Database.open(f"sqlite:///{sqlite_template}") as migrated:
        fresh.write(METADATA.create_all)

        def statements(database):
            rows = database.read(
                lambda c: c.execute(text("SELECT name, sql FROM sqlite_master WHERE type <> 'trigger' AND sql <> ''")).all()
            )
            return {
                row.name: sorted(parts(row.sql))
                for row in rows
                if row.name != "alembic_version"
            }

        assert statements(migrated) == statements(fresh)


def at_version(version):
    """Migrate an empty database no further than this."""
    return lambda connection: command.upgrade(migrate._config(connection), version)


def test_volumes_begin_with_what_the_ledger_says(database_url, tmp_path):
    """A projection that begins at zero in mid-month would break I2 until the month ends."""
    is_file = database_url.startswith("sqlite")
    with Database.open(f"sqlite:///{tmp_path}/old.db" if is_file else database_url) as database:
        if not is_file:
            database.write(lambda connection: connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        database.write(at_version("0001"))
        charges = [("a", 31, 5), ("a", 32, 7), ("a", 32, 8), ("b", 3, 9)]  # days since the epoch: January and February 1970
        insert = text(
            "INSERT INTO transfers (id, at_us, debit, credit, amount_nano, account_id, cause_kind, cause_id) "
            "VALUES (:id, :at, 'x', 'y', :amount, :account, :kind, :id)"
        )

        def work(connection):
            for number, (account, day, amount) in enumerate(charges):
                values = {"id": f"t{number}", "at": (day - 1) * 86_400_000_000, "amount": amount, "account": account}
                connection.execute(insert, values | {"kind": "usage"})
            connection.execute(insert, {"id": "p", "at": 0, "amount": 99, "account": "b", "kind": "payment"})

        database.write(work)
        database.write(at_version("0002"))
        rows = database.read(lambda c: c.execute(text("SELECT * FROM volumes ORDER BY account_id")).all())
    assert [tuple(row) for row in rows] == [("a", "1970-02", 15), ("b", "1970-01", 9)]


def test_rows_from_before_there_were_receipts_are_marked_for_sealing(tmp_path):
    scripts = ScriptDirectory.from_config(migrate._config(None)).walk_revisions()
    receipts = next(script for script in scripts if script.path.endswith("_receipts.py"))
    with Database.open(f"sqlite:///{tmp_path}/old.db") as database:
        database.write(at_version(receipts.down_revision))
        insert = text(
            "INSERT INTO usage (hold_id, attempt, revision, final, account_id, key_id, project, end_user, model, provider, "
            "state, outcome, basis, charge_nano, loss_nano, record, created_us, posted_us) "
            "VALUES (:id, 0, 0, 1, 'a', 'k', '', '', 'm', 'p', 'voided', '', 'none', 0, 0, '{}', 1, :posted)"
        )
        for name, posted in (("x", 5), ("y", 5), ("z", 7)):
            database.write(lambda c, name=name, posted=posted: c.execute(insert, {"id": name, "posted": posted}))
        database.write(at_version(receipts.revision))
        rows = database.read(lambda c: c.execute(text("SELECT posted_us FROM unsealed ORDER BY posted_us")).all())
    assert [row.posted_us for row in rows] == [5, 7]


def test_seals_are_carried_over_into_runs(database_url, tmp_path, monkeypatch):
    """Every place and digest is what it was, in runs of one posting, however the pages of the carrying fall."""
    from farebox.billing.sealing import seal_runs

    scripts = ScriptDirectory.from_config(migrate._config(None))
    script = next(script for script in scripts.walk_revisions() if script.path.endswith("_seal_runs.py"))
    monkeypatch.setattr(script.module, "SEALS_AT_ONCE", 7)
    is_file = database_url.startswith("sqlite")
    with Database.open(f"sqlite:///{tmp_path}/old.db" if is_file else database_url) as database:
        if not is_file:
            database.write(lambda connection: connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        database.write(at_version(script.down_revision))
        row = text(
            "INSERT INTO usage (hold_id, attempt, revision, final, account_id, key_id, project, end_user, model, provider, "
            "state, outcome, basis, charge_nano, loss_nano, record, created_us, posted_us) "
            "VALUES (:hold, :attempt, 0, true, :account, 'k', '', '', 'm', 'p', 'voided', '', 'none', 0, 0, '{}', 1, :posted)"
        )
        seal = text(
            "INSERT INTO seals (hold_id, attempt, revision, account_id, day, number, format, digest) "
            "VALUES (:hold, :attempt, 0, :account, :day, :number, 1, :digest)"
        )
        wanted = []

        def work(connection):
            for account, day, posted, count in (("a", "1", 5, 6), ("a", "1", 6, 5), ("a", "2", 6, 4), ("b", "1", 6, 1)):
                first = sum(one[0] == account and one[1] == day for one in wanted)
                for number in range(first + 1, first + count + 1):
                    hold = f"gen-é-{account}{day}{number}"
                    values = {"hold": hold, "attempt": 1, "account": account, "day": day, "number": number, "posted": posted}
                    if number != 3:
                        connection.execute(row, values)
                    digest = bytes([len(wanted)] * 32)
                    connection.execute(seal, values | {"digest": digest})
                    wanted.append((account, day, number, (hold, 1, 0), digest.hex()))

        database.write(work)
        database.write(at_version(script.revision))
        runs = database.read(lambda c: list(seal_runs.in_order(c)))
        found = [
            (run.account_id, run.day, number, key, run.digest(number))
            for run in runs
            for number, key in enumerate(run.row_keys(), run.number)
        ]
        assert found == wanted
        assert {(run.account_id, run.day, run.posted_us) for run in runs} == {
            ("a", "1", 5), ("a", "1", 6), ("a", "1", 0), ("a", "2", 6), ("a", "2", 0), ("b", "1", 6)
        }  # fmt: skip


def test_upgrading_again_changes_nothing(database_url):
    migrate.upgrade(database_url)
    migrate.upgrade(database_url)
    with Database.open(database_url) as database:
        assert migrate.current(database) == migrate.head()
        assert database.read(lambda c: c.execute(text("SELECT count(*) FROM control_version")).scalar_one()) == 1


def test_versions_are_what_alembic_says(tmp_path):
    assert migrate.head() == ScriptDirectory(str(migrate.MIGRATIONS)).get_current_head()
    with Database.open(f"sqlite:///{tmp_path}/new.db") as database:

        def said():
            return database.read(lambda connection: MigrationContext.configure(connection).get_current_revision())

        assert migrate.current(database) is None is said()
        for revision in ("0001", "0013"):
            database.write(lambda c, to=revision: command.upgrade(migrate._config(c), to))
            assert migrate.current(database) == revision == said()


def test_an_empty_database_is_outdated(tmp_path):
    with Database.open(f"sqlite:///{tmp_path}/empty.db") as database, pytest.raises(migrate.SchemaOutdated, match="farebox init"):
        migrate.check(database)


def test_many_processes_may_upgrade_at_once(tmp_path):
    import threading

    url, failed = f"sqlite:///{tmp_path}/new.db", []

    def run():
        try:
            migrate.upgrade(url)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with Database.open(url) as database:
        migrate.check(database)


def test_an_upgrade_waits_for_another_longer_than_a_call_would(fresh_database, monkeypatch):
    """A large table may take minutes, and a machine that is busy may take seconds for an empty one."""
    waits = []

    def ask(connection):
        if connection.dialect.name == "sqlite":
            waits.append(connection.exec_driver_sql("PRAGMA busy_timeout").scalar())
        else:
            upgrade(connection)
            waits.append(int(connection.exec_driver_sql("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'").scalar()))
            statement = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"
            assert int(connection.exec_driver_sql(statement).scalar()) == migrate.UPGRADE_WAIT_MS

    upgrade = migrate._upgrade
    monkeypatch.setattr(migrate, "_upgrade", ask)
    migrate.upgrade(fresh_database())
    assert waits == [migrate.UPGRADE_WAIT_MS]


def test_every_amount_and_time_is_an_integer():
    from sqlalchemy import BigInteger

    for table in METADATA.sorted_tables:
        for column in table.columns:
            assert "FLOAT" not in str(column.type).upper() and "NUMERIC" not in str(column.type).upper()
            if column.name.endswith(("_nano", "_us")):
                assert isinstance(column.type, BigInteger), f"{table.name}.{column.name}"
    assert set(IMMUTABLE) <= METADATA.tables.keys()
