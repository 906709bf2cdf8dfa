"""Bring a database up to date. The migrations travel inside the package; no file of Alembic's own is needed.

Several processes may call `upgrade` at once: SQLite's write lock or a PostgreSQL advisory lock lets one do the work, and the
others find it done. Only an upgrade needs Alembic; whether one is due, every command asks as it starts.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from farebox.storage.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 7_223_406_001
"""The PostgreSQL advisory lock of an upgrade: any number that nobody else uses."""

UPGRADE_WAIT_MS = 600_000
"""How long an upgrade waits for another's, and how long one of its statements may take: both rewrite whole tables."""


class SchemaOutdated(Exception):
    """The database is not at the version that this program needs."""


def _config(connection: Connection | None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@cache
def head() -> str:
    """The version that this program was written for: migrations are numbered, and their files are named by the number."""
    return max(path.name[1:5] for path in (MIGRATIONS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))


def current(database: Database) -> str | None:
    """The database's version; None when it is empty."""
    return database.read(_current)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()


def upgrade(url: str) -> None:
    """Create or update every table, in one transaction."""
    with Database.open(url, busy_timeout_ms=UPGRADE_WAIT_MS, statement_timeout_ms=UPGRADE_WAIT_MS) as database:
        database.write(_upgrade)


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {UPGRADE_WAIT_MS}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
    if _current(connection) == head():
        return
    from alembic import command

    command.upgrade(_config(connection), "head")


def check(database: Database) -> None:
    """Raise `SchemaOutdated` unless the database is exactly at `head`."""
    found = current(database)
    if found != head():
        raise SchemaOutdated(f"the database is at version `{found}`, not at `{head()}`: run `farebox init` to update it")
