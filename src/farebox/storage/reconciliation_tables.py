"""The tables of reconciliation (`farebox.reconciliation.runs`): statements that were compared, and what came of it."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text

from farebox.storage.metadata import METADATA

reconciliations = Table(
    "reconciliations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("reading", Integer, nullable=False),
    Column("first_day", Text, nullable=False),
    Column("last_day", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("from_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("statement_nano", BigInteger),
    Column("taken_us", BigInteger, nullable=False),
    UniqueConstraint("provider", "digest", "reading"),
    Index(None, "provider", "taken_us"),
)
"""A statement that was compared with our records as they were at `taken_us`; the same (`digest`) again is another `reading`."""

reconciliation_findings = Table(
    "reconciliation_findings",
    METADATA,
    Column("run_id", Text, ForeignKey("reconciliations.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider_key", Text, nullable=False),
    Column("difference_nano", BigInteger),
    Column("adjusted_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("record", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("decided_us", BigInteger),
    CheckConstraint("state IN ('open', 'approved', 'rejected')", name="state"),
    CheckConstraint("(state = 'open') = (decided_us IS NULL)", name="decided"),
    CheckConstraint("state = 'approved' OR adjusted_nano = 0", name="adjusted"),
    Index("ix_reconciliation_findings_approved", "run_id", sqlite_where=text("adjusted_nano <> 0"),
          postgresql_where=text("adjusted_nano <> 0")),
)  # fmt: skip
"""A difference: `record` is the whole `reconciliation.statement.Finding`, `adjusted_nano` what a transfer of its own has moved
between `provider_cost` and `provider_payable` (an estimate's attempt may have been corrected beside it)."""
