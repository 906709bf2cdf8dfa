"""Sign-ups."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signups",
        sa.Column("mark", sa.LargeBinary(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_signups_account_id")),
        sa.PrimaryKeyConstraint("mark", name=op.f("pk_signups")),
    )
    op.create_index(op.f("ix_signups_at_us"), "signups", ["at_us"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
