"""Hours: what each account was charged per hour, for alerts about pace and spikes.

A projection of the ledger's usage transfers, moved in the transaction that posts them (`ledger check` recomputes it, I2). An hour
is counted from the epoch, UTC; hours older than `KEPT_HOURS` are removed.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from farebox.billing.books.problem import Problem
from farebox.storage.database import Database

US_PER_HOUR = 3_600_000_000
KEPT_HOURS = 24 * 35

_COUNT = (
    "INSERT INTO hours (account_id, hour, charged_nano) VALUES (?, ?, ?) ON CONFLICT (account_id, hour) DO UPDATE SET "
    "charged_nano = hours.charged_nano + excluded.charged_nano"
)


def count(database: Database, connection: Connection, charges: Mapping[str, int], now_us: int) -> None:
    """Add a batch's charges (nano-dollars by account) to this hour."""
    hour = now_us // US_PER_HOUR
    database.execute_many(connection, _COUNT, [(account, hour, charges[account]) for account in sorted(charges)])


def forget(database: Database, now_us: int) -> None:
    """Remove hours that nothing looks at any more."""
    oldest = now_us // US_PER_HOUR - KEPT_HOURS
    database.write(lambda connection: connection.execute(text("DELETE FROM hours WHERE hour < :oldest"), {"oldest": oldest}))


def hours_are_transfers(connection: Connection) -> list[Problem]:
    """I2, the part of this projection: every hour since the oldest one kept equals its usage transfers, and none is missing."""
    oldest = connection.exec_driver_sql("SELECT MIN(hour) FROM hours").scalar()
    if oldest is None:
        return []
    stored = {(row.account_id, row.hour): row.charged_nano for row in connection.exec_driver_sql("SELECT * FROM hours")}
    sums = text(
        "SELECT account_id, at_us / 3600000000 AS hour, SUM(amount_nano) AS amount FROM transfers "
        "WHERE cause_kind = 'usage' AND at_us >= :since GROUP BY account_id, at_us / 3600000000"
    )
    rows = connection.execute(sums, {"since": int(oldest) * US_PER_HOUR})
    facts = {(row.account_id, int(row.hour)): int(row.amount) for row in rows}
    found: list[Problem] = []
    for key in sorted(stored.keys() | facts.keys()):
        if stored.get(key) != facts.get(key):
            sentence = f"the hour says {stored.get(key, 0)}, its usage transfers {facts.get(key, 0)}"
            found.append(Problem("I2", f"{key[0]} hour {key[1]}", sentence))
    return found
