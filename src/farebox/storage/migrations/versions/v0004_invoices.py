"""Invoices: documents, which usage they have, their numbers, months that are closed, and accounts paused for not paying."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "invoices",
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("corrects", sa.Text(), nullable=True),
        sa.Column("issued_us", sa.BigInteger(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("usage_nano", sa.BigInteger(), nullable=False),
        sa.Column("net_nano", sa.BigInteger(), nullable=False),
        sa.Column("tax_nano", sa.BigInteger(), nullable=False),
        sa.Column("credit_nano", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('invoice', 'credit_note')", name=op.f("ck_invoices_kind")),
        sa.CheckConstraint("(kind = 'credit_note') = (corrects IS NOT NULL)", name=op.f("ck_invoices_corrects")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_invoices")),
    )
    op.create_index(
        "uq_invoices_month",
        "invoices",
        ["account_id", "month"],
        unique=True,
        sqlite_where=sa.text("kind = 'invoice'"),
        postgresql_where=sa.text("kind = 'invoice'"),
    )
    op.create_index(op.f("ix_invoices_account_id_issued_us"), "invoices", ["account_id", "issued_us"], unique=False)
    op.create_table(
        "invoice_parts",
        sa.Column("transfer_id", sa.Text(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("charge_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("transfer_id", "from_us", name=op.f("pk_invoice_parts")),
    )
    op.create_index(op.f("ix_invoice_parts_number"), "invoice_parts", ["number"], unique=False)
    op.create_table(
        "document_numbers",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", name=op.f("pk_document_numbers")),
    )
    op.create_table(
        "closed_months",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", name=op.f("pk_closed_months")),
    )
    op.create_table(
        "dunning",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("paused_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_dunning")),
    )
    for table in ("invoices", "invoice_parts"):
        if op.get_context().dialect.name == "sqlite":
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
        else:
            for verb in ("UPDATE", "DELETE", "TRUNCATE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    "FOR EACH STATEMENT EXECUTE FUNCTION farebox_append_only()"
                )


def downgrade() -> None:
    raise NotImplementedError("the ledger goes forward only")
