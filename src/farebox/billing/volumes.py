"""Volumes: what each account was charged in the current UTC month, for the markup plans that go by it.

A projection of the ledger's usage transfers, moved in the transaction that posts them (`ledger check` recomputes it, I2). A new
month begins at zero by its name; nothing is reset. When an account passes a step of its plan, the control version grows, so
that gateways ask for its volume anew within a second.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from farebox.billing.markup import MarkupPlan, changed_level
from farebox.billing.periods import month_of
from farebox.billing.scopes import bump_version
from farebox.storage.database import Database

_COUNT = (
    "INSERT INTO volumes (account_id, month, charged_nano) VALUES (?, ?, ?) ON CONFLICT (account_id) DO UPDATE SET "
    "charged_nano = CASE WHEN volumes.month = excluded.month THEN volumes.charged_nano ELSE 0 END + excluded.charged_nano, "
    "month = excluded.month"
)


def count(
    database: Database, connection: Connection, charges: Mapping[str, int], now_us: int, plans: Mapping[str, MarkupPlan]
) -> None:
    """Add a batch's charges (nano-dollars by account) to this month's volumes, and tell gateways of steps that were passed."""
    if not charges:
        return
    month = month_of(now_us)
    owners = sorted(charges)
    database.execute_many(connection, _COUNT, [(account, month, charges[account]) for account in owners])
    if not any(plan.thresholds_nano for plan in plans.values()):
        return
    marks = ", ".join("?" * len(owners))
    sql = f"SELECT id, markup, charged_nano FROM accounts JOIN volumes ON account_id = id WHERE id IN ({marks})"  # noqa: S608
    for row in database.rows(connection, sql, owners):
        if changed_level(plans, row.markup, row.charged_nano - charges[row.id], row.charged_nano):
            bump_version(connection)
            return
