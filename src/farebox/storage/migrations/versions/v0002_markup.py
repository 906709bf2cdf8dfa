"""Markup plans: an account's own plan, and its charges of the month."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    op.add_column("accounts", sa.Column("markup", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.create_table(
        "volumes",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("charged_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_volumes")),
    )
    _fill()


def _fill() -> None:
    """What each account was charged in the month of its last charge, so that the projection equals the ledger from the start."""
    connection = op.get_bind()
    days = connection.exec_driver_sql(
        "SELECT account_id, at_us / 86400000000 AS day, SUM(amount_nano) AS amount FROM transfers WHERE cause_kind = 'usage' "
        "GROUP BY account_id, at_us / 86400000000"
    ).all()
    volumes: dict[str, tuple[str, int]] = {}
    for row in sorted(days, key=lambda row: int(row.day)):
        month = (EPOCH + timedelta(days=int(row.day))).strftime("%Y-%m")
        before, charged_nano = volumes.get(row.account_id, (month, 0))
        volumes[row.account_id] = (month, (charged_nano if before == month else 0) + int(row.amount))
    insert = sa.text("INSERT INTO volumes (account_id, month, charged_nano) VALUES (:account, :month, :charged)")
    for account, (month, charged_nano) in volumes.items():
        connection.execute(insert, {"account": account, "month": month, "charged": charged_nano})


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
