"""Budgets whose window, zone or filter is changed go on counting what was spent already."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    zero = sa.text("0")
    op.add_column("budgets", sa.Column("revision", sa.Integer(), server_default=zero, nullable=False))
    op.add_column("budgets", sa.Column("revised_us", sa.BigInteger(), server_default=zero, nullable=False))
    revised = sa.text("revision > 0")
    op.create_index("ix_budgets_revised", "budgets", ["account_id"], sqlite_where=revised, postgresql_where=revised)
    op.add_column("scopes", sa.Column("revision", sa.Integer(), server_default=zero, nullable=False))
    op.add_column("scopes", sa.Column("carried_nano", sa.BigInteger(), server_default=zero, nullable=False))


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
