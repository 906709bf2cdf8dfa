"""Alerts: hours of spending, channels, deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_scopes_window_name"), "scopes", ["window_name"], unique=False)
    op.create_table(
        "hours",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("charged_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "hour", name=op.f("pk_hours")),
    )
    op.create_index(op.f("ix_hours_hour"), "hours", ["hour"], unique=False)
    op.execute(
        "INSERT INTO hours (account_id, hour, charged_nano) "
        "SELECT account_id, at_us / 3600000000, SUM(amount_nano) FROM transfers "
        "WHERE cause_kind = 'usage' GROUP BY account_id, at_us / 3600000000"
    )
    op.create_table(
        "alert_settings",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("low_balance_nano", sa.BigInteger(), nullable=True),
        sa.Column("runway_days", sa.Integer(), nullable=True),
        sa.Column("spike_factor", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_alert_settings_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_alert_settings")),
    )
    op.create_table(
        "alert_channels",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("previous_until_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("removed_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('webhook', 'slack', 'email')", name=op.f("ck_alert_channels_kind")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_alert_channels_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_channels")),
    )
    op.create_index(op.f("ix_alert_channels_account_id"), "alert_channels", ["account_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'dead')", name=op.f("ck_deliveries_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("message_id", "channel_id", name=op.f("uq_deliveries_message_id_channel_id")),
    )
    op.create_index(
        "ix_deliveries_due", "deliveries", ["next_us"],
        sqlite_where=sa.text("state = 'pending'"), postgresql_where=sa.text("state = 'pending'"),
    )  # fmt: skip
    op.create_index(op.f("ix_deliveries_created_us"), "deliveries", ["created_us"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
