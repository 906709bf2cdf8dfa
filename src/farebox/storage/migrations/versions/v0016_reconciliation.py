"""Statements that were compared with the books."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("reading", sa.Integer(), nullable=False),
        sa.Column("first_day", sa.Text(), nullable=False),
        sa.Column("last_day", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("statement_nano", sa.BigInteger(), nullable=True),
        sa.Column("taken_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
        sa.UniqueConstraint("provider", "digest", "reading", name=op.f("uq_reconciliations_provider_digest_reading")),
    )
    op.create_index(op.f("ix_reconciliations_provider_taken_us"), "reconciliations", ["provider", "taken_us"])
    op.create_table(
        "reconciliation_findings",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider_key", sa.Text(), nullable=False),
        sa.Column("difference_nano", sa.BigInteger(), nullable=True),
        sa.Column("adjusted_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("decided_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'approved', 'rejected')", name=op.f("ck_reconciliation_findings_state")),
        sa.CheckConstraint("(state = 'open') = (decided_us IS NULL)", name=op.f("ck_reconciliation_findings_decided")),
        sa.CheckConstraint("state = 'approved' OR adjusted_nano = 0", name=op.f("ck_reconciliation_findings_adjusted")),
        sa.ForeignKeyConstraint(["run_id"], ["reconciliations.id"], name=op.f("fk_reconciliation_findings_run_id")),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_reconciliation_findings")),
    )
    adjusted = sa.text("adjusted_nano <> 0")
    op.create_index(
        "ix_reconciliation_findings_approved", "reconciliation_findings", ["run_id"],
        sqlite_where=adjusted, postgresql_where=adjusted,
    )  # fmt: skip


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
