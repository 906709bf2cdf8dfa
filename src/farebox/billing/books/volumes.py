"""Volumes: what each account was charged in the current UTC month, and how many of its calls were answered by keys of its own at
providers, for the markup plans that go by them.
A projection of the ledger's usage transfers, moved in the transaction that posts them (`ledger check` recomputes it, I2). A new
month begins at zero by its name; nothing is reset. When an account passes a step of its plan, the control version grows, so
that gateways ask for its volume anew within a second.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from farebox.billing.books.periods import month_of
from farebox.billing.books.scopes import bump_version
from farebox.billing.markup import MarkupPlan, changed_level, ended_free_calls
from farebox.storage.database import Database

_COUNT = (
    "INSERT INTO volumes (account_id, month, charged_nano, own_key_calls) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (account_id) DO UPDATE SET "
    "charged_nano = CASE WHEN volumes.month = excluded.month THEN volumes.charged_nano ELSE 0 END + excluded.charged_nano, "
    "own_key_calls = CASE WHEN volumes.month = excluded.month THEN volumes.own_key_calls ELSE 0 END + excluded.own_key_calls, "
    "month = excluded.month"
)


def count(
    database: Database,
    connection: Connection,
    charges: Mapping[str, int],
    now_us: int,
    plans: Mapping[str, MarkupPlan],
    own_key_calls: Mapping[str, int] | None = None,
) -> None:
    """Add a batch's charges (nano-dollars by account) and calls by own keys to this month's volumes, and tell gateways of steps
    that were passed."""
    calls = own_key_calls or {}
    if not charges and not calls:
        return
    month = month_of(now_us)
    owners = sorted({*charges, *calls})
    added = [(account, month, charges.get(account, 0), calls.get(account, 0)) for account in owners]
    database.execute_many(connection, _COUNT, added)
    if not calls and not any(plan.thresholds_nano for plan in plans.values()):
        return
    marks = ", ".join("?" * len(owners))
    columns = "id, markup, charged_nano, own_key_calls"
    sql = f"SELECT {columns} FROM accounts JOIN volumes ON account_id = id WHERE id IN ({marks})"  # noqa: S608
    for row in database.rows(connection, sql, owners):
        charged, called = charges.get(row.id, 0), calls.get(row.id, 0)
        if changed_level(plans, row.markup, row.charged_nano - charged, row.charged_nano) or ended_free_calls(
            plans, row.markup, row.own_key_calls - called, row.own_key_calls
        ):
            bump_version(connection)
            return
