"""The tables of customers' own keys at providers (`billing.accounts.provider_keys`)."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, text

from farebox.storage.metadata import METADATA

provider_keys = Table(
    "provider_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("project", Text, nullable=False, server_default=text("''")),
    Column("key_ids", Text, nullable=False, server_default=text("''")),
    Column("provider", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("master", Text, nullable=False),
    Column("always_use", Boolean, nullable=False),
    Column("position", Integer, nullable=False),
    Column("disabled_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("position >= 0", name="position"),
    Index(None, "account_id"),
)
"""Customers' keys at providers. `sealed` is the envelope of the secret (`farebox.vault`) under the master key named `master`.

For calls of the keys of one `project`, of some keys by their ids (`key_ids`, JSON), or, both empty, of all the account's; those
of one provider are tried by `position`. A key that is removed leaves nothing here.
"""

provider_key_master = Table(
    "provider_key_master",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("master", Text, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row: the master key that seals, by its name; empty until the first. So machines with one database agree on it."""
