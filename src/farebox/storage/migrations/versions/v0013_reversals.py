"""Money that goes back: refunds and disputes of payments by card."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("grants", sa.Column("reversed_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "reversals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=True),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('refund', 'dispute')", name=op.f("ck_reversals_kind")),
        sa.CheckConstraint("state IN ('wanted', 'open', 'done', 'returned')", name=op.f("ck_reversals_state")),
        sa.CheckConstraint("amount_nano > 0 AND amount_minor > 0", name=op.f("ck_reversals_amount")),
        sa.ForeignKeyConstraint(["payment_id"], ["card_payments.id"], name=op.f("fk_reversals_payment_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_reversals_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reversals")),
        sa.UniqueConstraint("stripe_id", name=op.f("uq_reversals_stripe_id")),
        sa.UniqueConstraint("command_id", name=op.f("uq_reversals_command_id")),
    )
    op.create_index(op.f("ix_reversals_payment_id"), "reversals", ["payment_id"])
    due = sa.text("state IN ('wanted', 'open')")
    op.create_index("ix_reversals_due", "reversals", ["next_us"], sqlite_where=due, postgresql_where=due)
    op.create_table(
        "clawbacks",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("owed_nano", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("owed_nano >= 0", name=op.f("ck_clawbacks_owed")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_clawbacks_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_clawbacks")),
    )


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
