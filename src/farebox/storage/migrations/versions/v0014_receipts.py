"""The chains of receipts. Rows that are there already are sealed on the day of this migration."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seals",
        sa.Column("hold_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", "attempt", "revision", name=op.f("pk_seals")),
        sa.UniqueConstraint("account_id", "day", "number", name=op.f("uq_seals_account_id_day_number")),
    )
    op.create_table(
        "unsealed",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("posted_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_unsealed")),
    )
    op.create_table(
        "sealing",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_sealing_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sealing")),
    )
    op.execute("INSERT INTO sealing (id, day) VALUES (1, '')")
    op.create_index(op.f("ix_usage_posted_us"), "usage", ["posted_us"], unique=False)
    op.execute(
        "INSERT INTO unsealed (batch_id, posted_us) "
        "SELECT 'posted-' || CAST(posted_us AS TEXT), posted_us FROM (SELECT DISTINCT posted_us FROM usage) AS batches"
    )
    if op.get_context().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER seals_no_{verb.lower()} BEFORE {verb} ON seals "
                "BEGIN SELECT RAISE(ABORT, 'seals is append-only'); END"
            )
    else:
        for verb in ("UPDATE", "DELETE", "TRUNCATE"):
            op.execute(
                f"CREATE TRIGGER seals_no_{verb.lower()} BEFORE {verb} ON seals "
                "FOR EACH STATEMENT EXECUTE FUNCTION farebox_append_only()"
            )


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
