"""The tables of receipts' chains (`billing.seals`)."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, Table, Text, UniqueConstraint

from farebox.storage.metadata import METADATA

seals = Table(
    "seals",
    METADATA,
    Column("hold_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("account_id", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("format", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    UniqueConstraint("account_id", "day", "number"),
)
"""A usage row's place in its account's chain of receipts: append-only. `day` is the UTC day of the sealing, `number` counts from
1 in it, `digest` is the SHA-256 of the receipt in the form that `format` names, and so covers the one before it."""

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
