"""Runs of seals: how they are stored, a row for those that an account's chain got from one posting, and how they are found again.

A seal by itself is 32 bytes; a row and its indexes for each would cost the bookkeeper three times what making it does. Who makes
seals, and what they prove, is `billing.sealing.seals`.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, func, select

from farebox.billing.sealing.receipts import START
from farebox.storage.queries import UsageRow
from farebox.storage.seal_tables import seal_runs
from farebox.storage.tables import usage

RUN_MAX = 250
"""Seals of a run: one receipt is found by reading the whole run, of about 70 bytes each."""
RUNS_AT_ONCE = 32
LOOKUP_MAX = 500
"""Values in one `IN` list."""
DIGEST_BYTES = 32

Key = tuple[str, int, int]
"""A usage row: its hold, attempt and revision."""

_decode_keys = msgspec.json.Decoder(list[Key]).decode
_encode = msgspec.json.Encoder().encode


def keys_of(words: str) -> list[Key]:
    """The usage rows of a run's `receipts`, in the order of the chain. `msgspec.MsgspecError` for other words."""
    return _decode_keys(words)


class Run(msgspec.Struct, frozen=True):
    """Consecutive receipts of an account's day, of rows that were posted together."""

    account_id: str
    day: str
    number: int
    """Of the first."""
    posted_us: int
    format: int
    receipts: str
    digests: bytes

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def row_keys(self) -> list[Key]:
        return keys_of(self.receipts)

    def digest(self, number: int) -> str:
        """Of the receipt with this number; empty when it is not there."""
        start = (number - self.number) * DIGEST_BYTES
        return self.digests[start : start + DIGEST_BYTES].hex() if start >= 0 else ""


class End(msgspec.Struct):
    """The end of an account's chain, as it is or was."""

    day: str = ""
    number: int = 0
    digest: str = START


class Growing(msgspec.Struct):
    """A run that is being made."""

    account_id: str
    day: str
    number: int
    posted_us: int
    format: int
    keys: list[Key]
    digests: list[bytes]

    def row(self) -> tuple[str | int | bytes, ...]:
        """In the order of `COLUMNS`."""
        words, digests = _encode(self.keys).decode(), b"".join(self.digests)
        return self.account_id, self.day, self.number, self.posted_us, self.format, words, digests


TABLE = seal_runs
COLUMNS = Run.__struct_fields__
LAST_SQL = "SELECT day, number, digests FROM seal_runs WHERE account_id = ? ORDER BY day DESC, number DESC LIMIT 1"
_RUN = [seal_runs.c[name] for name in COLUMNS]
_ROW = [usage.c[name] for name in UsageRow.__struct_fields__]


def end_of(row: Row[Any] | None) -> End:
    """What a run's day, number and digests say of its end; of none, where a chain begins."""
    if row is None:
        return End()
    return End(row.day, row.number + len(row.digests) // DIGEST_BYTES - 1, row.digests[-DIGEST_BYTES:].hex())


def last(connection: Connection, account_id: str, *, before_day: str | None = None, day: str | None = None) -> End:
    """The end of an account's chain: before a day, or of a day, whose number is 0 when it has no receipts."""
    query = select(*_RUN).where(seal_runs.c.account_id == account_id)
    if before_day is not None:
        query = query.where(seal_runs.c.day < before_day)
    if day is not None:
        query = query.where(seal_runs.c.day == day)
    return end_of(connection.execute(query.order_by(seal_runs.c.day.desc(), seal_runs.c.number.desc()).limit(1)).one_or_none())


def posted(connection: Connection, posted_us: int) -> set[Key]:
    """The rows of a moment of posting that have their seals."""
    found = connection.execute(select(seal_runs.c.receipts).where(seal_runs.c.posted_us == posted_us)).scalars()
    return {key for words in found for key in keys_of(words)}


def of_postings(connection: Connection, account_id: str, moments: Iterable[int]) -> list[Run]:
    """An account's runs from some moments of posting."""
    query = select(*_RUN).where(seal_runs.c.account_id == account_id, seal_runs.c.posted_us.in_(sorted(set(moments))))
    return _runs(connection, query)


def of_day(connection: Connection, account_id: str, day: str, number: int) -> Iterator[Run]:
    """The runs of a day from the one on that has a number, read as they are asked for."""
    mine = (seal_runs.c.account_id == account_id, seal_runs.c.day == day)
    query = select(func.max(seal_runs.c.number)).where(*mine, seal_runs.c.number <= number)
    start = connection.execute(query).scalar_one() or 1
    while True:
        page = select(*_RUN).where(*mine, seal_runs.c.number >= start).order_by(seal_runs.c.number).limit(RUNS_AT_ONCE)
        found = _runs(connection, page)
        yield from found
        if len(found) < RUNS_AT_ONCE:
            return
        start = found[-1].number + 1


def in_order(connection: Connection) -> Generator[Run]:
    """All of them, chain by chain, a few at a time."""
    query = select(*_RUN).order_by(seal_runs.c.account_id, seal_runs.c.day, seal_runs.c.number)
    with connection.execute(query, execution_options={"yield_per": RUNS_AT_ONCE}) as found:
        for row in found:
            yield Run(*row)


def by_posting(connection: Connection) -> Generator[tuple[int, str]]:
    """The moment of posting and the receipts of each, in the order of posting."""
    query = select(seal_runs.c.posted_us, seal_runs.c.receipts).order_by(seal_runs.c.posted_us)
    with connection.execute(query, execution_options={"yield_per": RUNS_AT_ONCE}) as found:
        for row in found:
            yield row.posted_us, row.receipts


def _runs(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[Run]:
    return [Run(*row) for row in connection.execute(query).all()]


def rows(connection: Connection, keys: Sequence[Key]) -> dict[Key, UsageRow]:
    """The usage rows with these keys, those that there are."""
    wanted = set(keys)
    holds = sorted({key[0] for key in wanted})
    found: dict[Key, UsageRow] = {}
    for start in range(0, len(holds), LOOKUP_MAX):
        part = holds[start : start + LOOKUP_MAX]
        for row in connection.execute(select(*_ROW).where(usage.c.hold_id.in_(part))):
            key = (row.hold_id, row.attempt, row.revision)
            if key in wanted:
                found[key] = UsageRow(*row)
    return found
