"""Marks of sign-ups under the server's pepper. Those from before are made such by the bookkeeper, which knows it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("signups", sa.Column("keyed", sa.Boolean(), server_default=sa.false(), nullable=False))
    unkeyed = sa.text("NOT keyed")
    op.create_index("ix_signups_unkeyed", "signups", ["mark"], sqlite_where=unkeyed, postgresql_where=unkeyed)


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
