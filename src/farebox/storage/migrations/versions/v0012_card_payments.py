"""Payments by card."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "card_payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("intent_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('checkout', 'setup', 'auto')", name=op.f("ck_card_payments_kind")),
        sa.CheckConstraint(
            "state IN ('wanted', 'open', 'credited', 'expired', 'declined', 'failed', 'quarantined')",
            name=op.f("ck_card_payments_state"),
        ),
        sa.CheckConstraint(
            "(kind = 'setup') = (amount_nano = 0) AND amount_nano >= 0 AND amount_minor >= 0",
            name=op.f("ck_card_payments_amount"),
        ),
        sa.CheckConstraint(
            "state <> 'credited' OR kind = 'setup' OR grant_id IS NOT NULL", name=op.f("ck_card_payments_credited_has_grant")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_card_payments_account_id")),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_card_payments_grant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_payments")),
        sa.UniqueConstraint("command_id", name=op.f("uq_card_payments_command_id")),
        sa.UniqueConstraint("session_id", name=op.f("uq_card_payments_session_id")),
        sa.UniqueConstraint("intent_id", name=op.f("uq_card_payments_intent_id")),
    )
    op.create_index(op.f("ix_card_payments_account_id_created_us"), "card_payments", ["account_id", "created_us"])
    due = sa.text("state IN ('wanted', 'open')")
    op.create_index("ix_card_payments_due", "card_payments", ["next_us"], sqlite_where=due, postgresql_where=due)
    op.create_table(
        "stripe_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'new'"), nullable=False),
        sa.Column("problem", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('new', 'done', 'ignored', 'quarantined')", name=op.f("ck_stripe_events_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_events")),
    )
    new = sa.text("state = 'new'")
    op.create_index("ix_stripe_events_due", "stripe_events", ["next_us"], sqlite_where=new, postgresql_where=new)


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
