"""Database: an engine, and transactions that either happened, did not happen, or are said to be unknown.

    database = Database.open("sqlite:////var/lib/farebox/farebox.db")
    balance = database.read(lambda connection: queries.balance(connection, "acc-1"))
    database.write(lambda connection: ledger.pay(connection, ...))

`write` runs its function in one transaction. SQLite takes its one write lock at the start (`BEGIN IMMEDIATE`), so a transaction
never fails half-way for being late; PostgreSQL runs READ COMMITTED with row locks, and a serialization failure or deadlock
(40001, 40P01) retries the whole transaction, a bounded number of times. Functions given to `write` therefore have no effects
but their statements. `read` sees one snapshot.

    StoreError
      StoreUnavailable    nothing was changed; may be tried again
      OutcomeUnknown      the commit was sent and its answer lost: look before acting again
      RowRefused          a constraint or trigger refused a row; nothing was changed

Synchronous, for threads and for processes without an event loop.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Row, Table, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from farebox.ports import Random, SystemRandom

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000
"""How long a SQLite transaction waits for the write lock of another process."""
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_MS = 60_000
POOL_SIZE = 4
POOL_OVERFLOW = 4
POOL_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
CACHE_KIB = 32 * 1024
PAGE_BYTES = 8_192
"""Four to five usage rows a page; measured against 4,096: a fifth less space, a tenth less time to post."""
CHECKPOINT_PAGES = 2_000
TRANSACTION_ATTEMPTS_MAX = 6
"""One try and five retries of a transaction that PostgreSQL took back."""
RETRY_PAUSE_MS = 5
"""The first pause; it doubles, and each is cut by chance to between nothing and its whole."""

JOURNAL_PAUSE_MS = 5
"""Between two tries to change the journal of a SQLite file."""

_TAKEN_BACK = ("40001", "40P01")
_WRITE = "farebox_write"


class StoreError(Exception):
    """The root of what a transaction can raise beside its own errors."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, is locked or full. Nothing was changed."""


class OutcomeUnknown(StoreError):
    """The connection was lost while the commit was under way. It may have happened."""


class RowRefused(StoreError):
    """A constraint or a trigger refused a row. Nothing was changed."""


class Database:
    """One database, of either engine; shared by the threads of a process, never across a fork."""

    def __init__(self, engine: Engine, *, random: Random, refusals: tuple[type[Exception], ...] = ()) -> None:
        """`refusals` are what the driver itself raises for a row, where it is asked past SQLAlchemy."""
        self.engine = engine
        self._refusals = refusals
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._random = random
        # Between threads a lock is fairer and cheaper than SQLite's busy loop, which remains for other processes.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else nullcontext()
        self._writer = engine.execution_options(**{_WRITE: True})
        self._reader = engine if self.is_sqlite else engine.execution_options(isolation_level="REPEATABLE READ")

    @classmethod
    def open(
        cls,
        url: str,
        *,
        pool_size: int = POOL_SIZE,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
        statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
        random: Random | None = None,
    ) -> Self:
        """`sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://…`. Does not create tables (`storage.migrate`)."""
        parsed = make_url(url)
        refusals: tuple[type[Exception], ...] = ()
        if parsed.drivername == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("a SQLite database is a file: several processes share it")
            engine = create_engine(parsed, pool_size=pool_size, max_overflow=POOL_OVERFLOW, pool_timeout=POOL_TIMEOUT_S)
            _prepare_sqlite(engine, busy_timeout_ms)
        elif parsed.drivername in ("postgresql", "postgresql+psycopg"):
            # Here, because a command on SQLite starts without.
            from psycopg import IntegrityError as DriverIntegrityError

            refusals = (DriverIntegrityError,)
            options = (
                f"-c statement_timeout={statement_timeout_ms} -c lock_timeout={LOCK_TIMEOUT_MS}"
                f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c timezone=UTC"
            )
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=pool_size,
                max_overflow=POOL_OVERFLOW,
                pool_timeout=POOL_TIMEOUT_S,
                pool_pre_ping=True,
                paramstyle="format",
                isolation_level="READ COMMITTED",
                connect_args={"options": options, "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "farebox"},
            )
        else:
            raise ValueError(f"`{parsed.drivername}` is not supported: use a `sqlite:///` or a `postgresql://` address")
        return cls(engine, random=random or SystemRandom(), refusals=refusals)

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent snapshot; nothing it does is kept."""
        try:
            with self._reader.connect() as connection, connection.begin() as transaction:
                try:
                    return work(connection)
                finally:
                    transaction.rollback()
        except (OperationalError, InterfaceError) as error:
            raise StoreUnavailable(str(error.orig)) from error

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and commit it. An exception of its own undoes everything and comes through."""
        for attempt in range(TRANSACTION_ATTEMPTS_MAX):
            try:
                with self._turn:
                    return self._once(work)
            except DBAPIError as error:
                if _sqlstate(error) not in _TAKEN_BACK:
                    raise _translated(error) from error
                if attempt + 1 == TRANSACTION_ATTEMPTS_MAX:
                    raise StoreUnavailable(f"the transaction was taken back {TRANSACTION_ATTEMPTS_MAX} times") from error
            except self._refusals as error:
                raise RowRefused(str(error)) from error
            threading.Event().wait(RETRY_PAUSE_MS * 2**attempt * self._random.uniform() / 1000)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, work: Callable[[Connection], T]) -> T:
        with self._writer.connect() as connection:
            transaction = connection.begin()
            try:
                result = work(connection)
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if _sqlstate(error) in _TAKEN_BACK:
                    raise
                if isinstance(error, IntegrityError):
                    raise
                raise OutcomeUnknown(str(error.orig)) from error
            return result

    def insert_rows(
        self, connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert many rows as tuples in the order of `columns`, the cheapest way the driver has; all or `RowRefused`."""
        if not rows:
            return
        if self.is_sqlite:
            sql = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
            connection.exec_driver_sql(sql, list(rows))
            return
        raw: psycopg.Connection[Any] = connection.connection.driver_connection  # pyright: ignore[reportAssignmentType]
        with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def rows(self, connection: Connection, sql: str, values: Sequence[int | str]) -> Sequence[Row[Any]]:
        """Rows of a plain statement with `?` marks: for the few statements that run in every batch and must cost nothing."""
        if not self.is_sqlite:
            assert "%" not in sql
            sql = sql.replace("?", "%s")
        return connection.exec_driver_sql(sql, tuple(values)).all()

    @property
    def for_update(self) -> str:
        """What a plain `SELECT` ends with to lock its rows; SQLite has locked everything already."""
        return "" if self.is_sqlite else " FOR UPDATE"

    def execute_many(self, connection: Connection, sql: str, rows: Sequence[tuple[int | str | None, ...]]) -> int:
        """Run a statement with `?` marks once per tuple; the number of rows changed in all."""
        if not rows:
            return 0
        if not self.is_sqlite:
            assert "%" not in sql
            sql = sql.replace("?", "%s")
        return connection.exec_driver_sql(sql, list(rows)).rowcount


def _prepare_sqlite(engine: Engine, busy_timeout_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(raw: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        # Transactions are begun below, by us: the driver would begin them late and DEFERRED.
        raw.isolation_level = None
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA page_size={PAGE_BYTES}")
        _use_wal(cursor, busy_timeout_ms)
        for pragma in (
            f"busy_timeout={busy_timeout_ms}",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{CACHE_KIB}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _use_wal(cursor: Any, wait_ms: int) -> None:
    """Change a new file's journal, which needs the file for itself. SQLite does not wait for that, whatever its busy timeout is
    (two who ask at once would wait for each other), so the one who comes second does it here, for `wait_ms` at most."""
    cursor.execute("PRAGMA busy_timeout=0")
    tries = max(1, wait_ms // JOURNAL_PAUSE_MS)
    for left in reversed(range(tries)):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or not left:
                raise
        threading.Event().wait(JOURNAL_PAUSE_MS / 1000)


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _translated(error: DBAPIError) -> Exception:
    """The driver's error as ours; mistakes in a statement stay what they are."""
    if isinstance(error, IntegrityError):
        return RowRefused(str(error.orig))
    if _sqlstate(error) == "P0001" or "is append-only" in str(error.orig):
        return RowRefused(str(error.orig))
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return StoreUnavailable(str(error.orig))
    return error
