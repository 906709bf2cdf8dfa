"""Customers' own keys at providers, sealed."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    nothing = sa.text("''")
    op.create_table(
        "provider_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), server_default=nothing, nullable=False),
        sa.Column("key_ids", sa.Text(), server_default=nothing, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("master", sa.Text(), nullable=False),
        sa.Column("always_use", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("disabled_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_provider_keys_position")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_provider_keys_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_keys")),
    )
    op.create_index(op.f("ix_provider_keys_account_id"), "provider_keys", ["account_id"], unique=False)
    op.create_table(
        "provider_key_master",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("master", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_provider_key_master_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_key_master")),
    )
    op.execute("INSERT INTO provider_key_master (id, master) VALUES (1, '')")


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
