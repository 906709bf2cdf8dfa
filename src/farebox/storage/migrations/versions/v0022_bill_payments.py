"""Invoices that are paid by card."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bill_payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("intent_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("problem", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('wanted', 'open', 'paid', 'expired', 'failed', 'quarantined')", name=op.f("ck_bill_payments_state")
        ),
        sa.CheckConstraint("amount_nano > 0 AND amount_minor > 0", name=op.f("ck_bill_payments_amount")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_bill_payments_account_id")),
        sa.ForeignKeyConstraint(["number"], ["invoices.number"], name=op.f("fk_bill_payments_number")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bill_payments")),
        sa.UniqueConstraint("command_id", name=op.f("uq_bill_payments_command_id")),
        sa.UniqueConstraint("session_id", name=op.f("uq_bill_payments_session_id")),
        sa.UniqueConstraint("intent_id", name=op.f("uq_bill_payments_intent_id")),
    )
    op.create_index(op.f("ix_bill_payments_account_id_created_us"), "bill_payments", ["account_id", "created_us"])
    waiting = sa.text("state IN ('wanted', 'open')")
    op.create_index(
        "uq_bill_payments_number", "bill_payments", ["number"], unique=True, sqlite_where=waiting, postgresql_where=waiting
    )
    op.create_index("ix_bill_payments_due", "bill_payments", ["next_us"], sqlite_where=waiting, postgresql_where=waiting)


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
