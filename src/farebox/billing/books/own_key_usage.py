"""What was posted of calls by customers' own keys: a row beside each such usage row, written in the same transaction.

Usage rows of other calls cost one look at their record. `ledger check` makes the rows anew from the records (I2).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from itertools import groupby, zip_longest

from sqlalchemy import Connection, select

from farebox.billing import own_keys
from farebox.billing.books import evidence
from farebox.billing.books.problem import Problem
from farebox.billing.own_keys import MARK, provider_nano
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import own_key_usage, usage

ROWS_AT_ONCE = 1_000
COLUMNS = (
    "hold_id", "attempt", "revision", "account_id", "key_id", "provider_nano", "counted", "created_us", "posted_us",
)  # fmt: skip
Row = tuple[str, int, int, str, str, int, bool, int, int]


def record(database: Database, connection: Connection, rows: Iterable[UsageRow]) -> dict[str, int]:
    """Write what belongs beside usage rows just posted, in the order of calls; how many calls count, by account."""
    made = list(rows_beside(rows))
    if not made:
        return {}
    database.insert_rows(connection, own_key_usage, COLUMNS, made)
    calls: dict[str, int] = {}
    for row in made:
        if row[6]:
            calls[row[3]] = calls.get(row[3], 0) + 1
    return calls


def correct(database: Database, connection: Connection, rows: Iterable[UsageRow]) -> None:
    """Write what belongs beside an attempt's newest revision; `rows` are all that it has."""
    revisions = list(rows)
    made = [row for row in rows_beside(revisions) if row[2] == revisions[-1].revision]
    if made:
        database.insert_rows(connection, own_key_usage, COLUMNS, made)


def rows_beside(rows: Iterable[UsageRow]) -> Iterator[Row]:
    """Usage rows in the order of calls, attempts and revisions, none left out → those beside them."""
    for _, of_call in groupby(rows, key=lambda row: row.hold_id):
        counted = False
        before: dict[int, int] = {}
        for row in of_call:
            if MARK not in row.record:
                continue
            attempt = evidence.attempt(row)
            if attempt is None or not attempt.own_key:
                continue
            whole = provider_nano(attempt)
            counts = not counted and not row.revision and own_keys.counts(attempt)
            amount = whole - before.get(row.attempt, 0)
            before[row.attempt] = whole
            counted = counted or counts
            if amount or counts:
                yield (
                    row.hold_id, row.attempt, row.revision, row.account_id, row.key_id, amount, counts, row.created_us,
                    row.posted_us,
                )  # fmt: skip


def own_keys_are_usage(connection: Connection) -> list[Problem]:
    """I2, the part of this projection: its rows are what the records say, and the month's calls are those that count."""
    found: list[Problem] = []
    streamed = {"yield_per": ROWS_AT_ONCE}
    marked = connection.execute(
        select(usage).where(usage.c.record.contains(MARK)).order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision),
        execution_options=streamed,
    )
    beside = [own_key_usage.c[name] for name in COLUMNS]
    stored = connection.execute(select(*beside).order_by(*beside[:3]), execution_options=streamed)
    for fact, row in zip_longest(rows_beside(UsageRow(**row) for row in marked.mappings()), map(tuple, stored)):
        if fact != row:
            subject = "/".join(map(str, (fact or row or ())[:3]))
            found.append(Problem("I2", subject, f"beside the usage row stands {row}, its record says {fact}"))
            break
    marked.close()
    stored.close()
    days = (
        "SELECT account_id, posted_us / 86400000000 AS day, COUNT(*) AS calls FROM own_key_usage WHERE counted "
        "GROUP BY account_id, posted_us / 86400000000"
    )
    calls: Counter[tuple[str, str]] = Counter()
    for row in connection.exec_driver_sql(days):
        calls[row.account_id, (date(1970, 1, 1) + timedelta(days=int(row.day))).strftime("%Y-%m")] += int(row.calls)
    for row in connection.exec_driver_sql("SELECT account_id, month, own_key_calls FROM volumes"):
        facts = calls[row.account_id, row.month]
        if row.own_key_calls != facts:
            sentence = f"the month counts {row.own_key_calls} calls by own keys, there were {facts}"
            found.append(Problem("I2", row.account_id, sentence))
    return found
