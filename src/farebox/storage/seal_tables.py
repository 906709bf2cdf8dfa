"""The tables of receipts' chains (`billing.sealing.seals`)."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text

from farebox.storage.metadata import METADATA

seal_runs = Table(
    "seal_runs",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("posted_us", BigInteger, nullable=False),
    Column("format", Integer, nullable=False),
    Column("receipts", Text, nullable=False),
    Column("digests", LargeBinary, nullable=False),
    Index(None, "posted_us", "account_id"),
)
"""Usage rows' places in their account's chain of receipts: append-only. A run has those of one account and one `posted_us` that
were sealed together. `receipts` is a JSON list of `[hold, attempt, revision]`, of which the first has the `number` (from 1 in its
`day`, the UTC day of the sealing) and each other one more than the one before it; `digests` has 32 bytes for each: the SHA-256
of the receipt in the form that `format` names, which covers the one before it."""

unsealed = Table(
    "unsealed",
    METADATA,
    Column("batch_id", Text, primary_key=True),
    Column("posted_us", BigInteger, nullable=False),
)
"""Marks of transactions whose usage rows, those with this `posted_us`, wait for their place in the chain."""

sealing = Table(
    "sealing",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("day", Text, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row, locked by whoever seals: the day that is being sealed. It never goes back, so the days before it are final."""
