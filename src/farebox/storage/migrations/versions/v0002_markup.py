"""Markup plans: an account's own plan, and its charges of the month."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("markup", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.create_table(
        "volumes",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("charged_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_volumes")),
    )


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
