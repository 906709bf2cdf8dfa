"""Cached and thinking tokens as columns of usage, for reports. Rows from before have NULL: not known there."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage", sa.Column("cached_tokens", sa.BigInteger(), nullable=True))
    op.add_column("usage", sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
