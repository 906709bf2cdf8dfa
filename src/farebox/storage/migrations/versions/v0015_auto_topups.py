"""Top-ups by a saved card."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "auto_topups",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("below_nano", sa.BigInteger(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("month_cap_nano", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("payment_method", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("declines", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("problem", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "below_nano >= 0 AND amount_nano > 0 AND month_cap_nano >= amount_nano", name=op.f("ck_auto_topups_amounts")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_auto_topups_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_auto_topups")),
        sa.UniqueConstraint("customer_id", name=op.f("uq_auto_topups_customer_id")),
    )
    running = sa.text("kind = 'auto' AND state IN ('wanted', 'open')")
    op.create_index(
        "uq_card_payments_auto", "card_payments", ["account_id"], unique=True, sqlite_where=running, postgresql_where=running
    )


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
