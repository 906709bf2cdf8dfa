"""Projects, budgets in every scope, keys with permissions, limits and rotation, tiers of accounts, tags of calls."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=sa.text(f"'{default}'"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        _text("limits"),
        sa.Column("disabled_us", sa.BigInteger(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_projects_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("account_id", "name", name=op.f("uq_projects_account_id_name")),
    )
    op.create_table(
        "budgets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _text("subject"),
        _text("name"),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        _text("zone", "UTC"),
        sa.Column("hard", sa.Boolean(), nullable=False),
        _text("models"),
        _text("providers"),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("removed_us", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('account', 'project', 'key', 'end_user', 'tag')", name=op.f("ck_budgets_kind")),
        sa.CheckConstraint("\"window\" IN ('none', 'hour', 'day', 'week', 'month')", name=op.f("ck_budgets_window")),
        sa.CheckConstraint("amount_nano >= 0", name=op.f("ck_budgets_amount")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_budgets_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    op.create_index(op.f("ix_budgets_account_id"), "budgets", ["account_id"], unique=False)
    op.add_column("accounts", _text("tier"))
    op.add_column("accounts", sa.Column("tier_pinned", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("keys", _text("permissions", "inference usage"))
    for name in ("restrictions", "limits", "tags", "metadata"):
        op.add_column("keys", _text(name))
    op.add_column("keys", sa.Column("disabled_us", sa.BigInteger(), nullable=True))
    op.add_column("keys", sa.Column("last_used_us", sa.BigInteger(), nullable=True))
    op.add_column("keys", sa.Column("previous_digest", sa.LargeBinary(), nullable=True))
    op.add_column("keys", sa.Column("previous_hint", sa.Text(), nullable=True))
    op.add_column("keys", sa.Column("previous_until_us", sa.BigInteger(), nullable=True))
    op.create_index("uq_keys_previous_digest", "keys", ["previous_digest"], unique=True)
    op.add_column("scopes", sa.Column("budget_id", sa.Text(), nullable=True))
    op.add_column("scopes", _text("subject"))
    op.add_column("scopes", sa.Column("soft_limit_nano", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_scopes_budget_id"), "scopes", ["budget_id"], unique=False)
    op.add_column("usage", _text("tags"))


def downgrade() -> None:
    raise NotImplementedError("keys and budgets of this version mean nothing to the one before")
