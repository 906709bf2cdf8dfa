"""Bring a database up to date. The migrations travel inside the package; no file of Alembic's own is needed.

Several processes may call `upgrade` at once: SQLite's write lock or a PostgreSQL advisory lock lets one do the work, and the
others find it done.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from farebox.storage.database import Database

UPGRADE_LOCK = 7_223_406_001
"""The PostgreSQL advisory lock of an upgrade: any number that nobody else uses."""

UPGRADE_WAIT_MS = 600_000
"""How long an upgrade waits for another's, and how long one of its statements may take: both rewrite whole tables."""


class SchemaOutdated(Exception):
    """The database is not at the version that this program needs."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def head() -> str:
    """The version that this program was written for."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None, "the package ships migrations"
    return found


def current(database: Database) -> str | None:
    """The database's version; None when it is empty."""
    return database.read(lambda connection: MigrationContext.configure(connection).get_current_revision())


def upgrade(url: str) -> None:
    """Create or update every table, in one transaction."""
    with Database.open(url, busy_timeout_ms=UPGRADE_WAIT_MS, statement_timeout_ms=UPGRADE_WAIT_MS) as database:
        database.write(_upgrade)


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {UPGRADE_WAIT_MS}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
    command.upgrade(_config(connection), "head")


def check(database: Database) -> None:
    """Raise `SchemaOutdated` unless the database is exactly at `head`."""
    found = current(database)
    if found != head():
        raise SchemaOutdated(f"the database is at version `{found}`, not at `{head()}`: run `farebox init` to update it")
