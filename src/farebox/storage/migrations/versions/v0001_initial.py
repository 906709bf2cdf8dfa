"""The first tables: accounts, keys, scopes, allotments, usage, the ledger, and the triggers that keep the facts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("credit_limit_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind = 'postpaid' OR credit_limit_nano = 0", name=op.f("ck_accounts_prepaid_has_no_line")),
        sa.CheckConstraint("kind IN ('prepaid', 'postpaid')", name=op.f("ck_accounts_kind")),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_accounts_status")),
        sa.CheckConstraint("credit_limit_nano >= 0", name=op.f("ck_accounts_credit_limit")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_table(
        "control_version",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_control_version_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_control_version")),
    )
    op.create_table(
        "journal_positions",
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("byte_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_journal_positions")),
    )
    op.create_table(
        "lives",
        sa.Column("life", sa.Text(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("life", name=op.f("pk_lives")),
    )
    op.create_index(op.f("ix_lives_slot"), "lives", ["slot"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("window_name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("threshold", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("sent_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint(
            "kind",
            "subject",
            "window_name",
            "threshold",
            "epoch",
            name=op.f("uq_outbox_kind_subject_window_name_threshold_epoch"),
        ),
    )
    op.create_index(
        "ix_outbox_unsent",
        "outbox",
        ["created_us"],
        unique=False,
        sqlite_where=sa.text("sent_us IS NULL"),
        postgresql_where=sa.text("sent_us IS NULL"),
    )
    op.create_table(
        "transfers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("debit", sa.Text(), nullable=False),
        sa.Column("credit", sa.Text(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("cause_kind", sa.Text(), nullable=False),
        sa.Column("cause_id", sa.Text(), nullable=False),
        sa.CheckConstraint("amount_nano > 0", name=op.f("ck_transfers_amount")),
        sa.CheckConstraint("debit <> credit", name=op.f("ck_transfers_two_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
        sa.UniqueConstraint("cause_kind", "cause_id", name=op.f("uq_transfers_cause_kind_cause_id")),
    )
    op.create_index(op.f("ix_transfers_account_id_at_us"), "transfers", ["account_id", "at_us"], unique=False)
    op.create_index(op.f("ix_transfers_credit"), "transfers", ["credit"], unique=False)
    op.create_index(op.f("ix_transfers_debit"), "transfers", ["debit"], unique=False)
    op.create_table(
        "usage",
        sa.Column("hold_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("charge_nano", sa.BigInteger(), nullable=False),
        sa.Column("loss_nano", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=True),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=True),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("transfer_id", sa.Text(), nullable=True),
        sa.Column("cost_transfer_id", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", "attempt", "revision", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_account_id_created_us"), "usage", ["account_id", "created_us"], unique=False)
    op.create_index("ix_usage_key_id_created_us", "usage", ["key_id", "created_us", "charge_nano"], unique=False)
    op.create_index(
        "uq_usage_final", "usage", ["hold_id"], unique=True, sqlite_where=sa.text("final"), postgresql_where=sa.text("final")
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("remaining_nano", sa.BigInteger(), nullable=False),
        sa.Column("expired_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('paid', 'promo')", name=op.f("ck_grants_kind")),
        sa.CheckConstraint("amount_nano > 0", name=op.f("ck_grants_amount")),
        sa.CheckConstraint(
            "remaining_nano >= 0 AND expired_nano >= 0 AND remaining_nano + expired_nano <= amount_nano",
            name=op.f("ck_grants_parts"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_grants_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("command_id", name=op.f("uq_grants_command_id")),
    )
    op.create_index(op.f("ix_grants_account_id_expires_us"), "grants", ["account_id", "expires_us"], unique=False)
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.Column("budget_nano", sa.BigInteger(), nullable=True),
        sa.Column("budget_window", sa.Text(), server_default=sa.text("'none'"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("budget_window IN ('none', 'hour', 'day', 'week', 'month')", name=op.f("ck_keys_budget_window")),
        sa.CheckConstraint("budget_nano >= 0", name=op.f("ck_keys_budget")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_keys_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_keys_digest")),
    )
    op.create_index(op.f("ix_keys_account_id"), "keys", ["account_id"], unique=False)
    op.create_index(op.f("ix_keys_version"), "keys", ["version"], unique=False)
    op.create_table(
        "scopes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("window_name", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.Column("wanted_limit_nano", sa.BigInteger(), nullable=True),
        sa.Column("posted_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("allotted_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("wanted_until_us", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("alerted_percent", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("posted_nano + allotted_nano <= limit_nano", name=op.f("ck_scopes_within_limit")),
        sa.CheckConstraint("posted_nano >= 0 AND allotted_nano >= 0", name=op.f("ck_scopes_not_negative")),
        sa.CheckConstraint("wanted_limit_nano IS NULL OR wanted_limit_nano < limit_nano", name=op.f("ck_scopes_wanted_is_lower")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_scopes_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scopes")),
    )
    op.create_index(op.f("ix_scopes_account_id"), "scopes", ["account_id"], unique=False)
    op.create_index(op.f("ix_scopes_key_id"), "scopes", ["key_id"], unique=False)
    op.create_table(
        "allotments",
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("life", sa.Text(), nullable=False),
        sa.Column("granted_nano", sa.BigInteger(), nullable=False),
        sa.Column("posted_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("released", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint("posted_nano >= 0 AND posted_nano <= granted_nano", name=op.f("ck_allotments_posted_within_granted")),
        sa.ForeignKeyConstraint(["scope_id"], ["scopes.id"], name=op.f("fk_allotments_scope_id")),
        sa.PrimaryKeyConstraint("scope_id", "life", name=op.f("pk_allotments")),
    )
    op.create_index(op.f("ix_allotments_life"), "allotments", ["life"], unique=False)
    op.execute("INSERT INTO control_version (id, version) VALUES (1, 0)")
    for table in ("usage", "transfers"):
        if op.get_context().dialect.name == "sqlite":
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION farebox_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in ("usage", "transfers"):
            for verb in ("UPDATE", "DELETE", "TRUNCATE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    "FOR EACH STATEMENT EXECUTE FUNCTION farebox_append_only()"
                )


def downgrade() -> None:
    raise NotImplementedError("the first version has nothing before it")
