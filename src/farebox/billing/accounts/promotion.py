"""Promotion: accounts move up the ladder of tiers by themselves, by what they have paid and how old they are.

What was paid is bought credit and payments, whatever was spent of it, less what went back to cards. A pinned account moves only
by hand, and nobody moves down.
"""

from collections.abc import Callable

from sqlalchemy import Connection, func, select, update

from farebox.billing.books.scopes import bump_version
from farebox.storage.database import Database
from farebox.storage.payment_tables import clawbacks
from farebox.storage.tables import accounts, grants, transfers

ACCOUNTS_PER_LOOK = 500
"""Looked at in one transaction; the next look goes on behind them."""

Reached = Callable[[str, int, int], str]
"""`(tier, paid nano-dollars, age in µs) -> the tier that it has come to`."""


def promote(database: Database, reached: Reached, *, now_us: int, after: str = "") -> str:
    """Move up who has come so far, among the accounts behind an id; the last id that was looked at, empty at the end."""

    def work(connection: Connection) -> str:
        looked = connection.execute(
            select(accounts.c.id, accounts.c.tier, accounts.c.created_us)
            .where(accounts.c.id > after, accounts.c.tier_pinned.is_(False), accounts.c.status == "active")
            .order_by(accounts.c.id)
            .limit(ACCOUNTS_PER_LOOK)
        ).all()
        if not looked:
            return ""
        paid = _paid(connection, [row.id for row in looked])
        moved = {
            row.id: tier
            for row in looked
            if (tier := reached(row.tier, paid.get(row.id, 0), now_us - row.created_us)) != row.tier
        }
        if moved:
            version = bump_version(connection)
            for id, tier in moved.items():
                still = (accounts.c.id == id) & accounts.c.tier_pinned.is_(False)
                connection.execute(update(accounts).where(still).values(tier=tier, version=version))
        return looked[-1].id if len(looked) == ACCOUNTS_PER_LOOK else ""

    return database.write(work)


def _paid(connection: Connection, ids: list[str]) -> dict[str, int]:
    """Nano-dollars that each account has paid."""
    bought = select(grants.c.account_id, func.sum(grants.c.amount_nano - grants.c.reversed_nano)).where(
        grants.c.kind == "paid", grants.c.account_id.in_(ids)
    )
    paid = select(transfers.c.account_id, func.sum(transfers.c.amount_nano)).where(
        transfers.c.cause_kind == "payment", transfers.c.account_id.in_(ids)
    )
    owed = select(clawbacks.c.account_id, clawbacks.c.owed_nano).where(clawbacks.c.account_id.in_(ids))
    found: dict[str, int] = {row.account_id: -row.owed_nano for row in connection.execute(owed)}
    for query, column in ((bought, grants.c.account_id), (paid, transfers.c.account_id)):
        for account_id, amount in connection.execute(query.group_by(column)):
            found[account_id] = found.get(account_id, 0) + int(amount)
    return found
