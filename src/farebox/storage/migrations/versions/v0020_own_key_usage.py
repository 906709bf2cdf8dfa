"""Calls by customers' own keys at providers: what the provider bills the customer, and how many there were in the month."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("volumes", sa.Column("own_key_calls", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "own_key_usage",
        sa.Column("hold_id", sa.Text(), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("revision", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("provider_nano", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_own_key_usage_account_id_posted_us", "own_key_usage", ["account_id", "posted_us"])
    op.create_index("ix_own_key_usage_key_id_created_us", "own_key_usage", ["key_id", "created_us"])


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
