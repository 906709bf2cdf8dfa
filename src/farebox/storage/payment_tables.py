"""The tables of money that comes in by card (`billing.payments.card_payments`)."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text

from farebox.storage.metadata import METADATA

card_payments = Table(
    "card_payments",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("command_id", Text, nullable=False, unique=True),
    Column("session_id", Text, unique=True),
    Column("intent_id", Text, unique=True),
    Column("url", Text, nullable=False, server_default=text("''")),
    Column("grant_id", Text, ForeignKey("grants.id")),
    Column("problem", Text, nullable=False, server_default=text("''")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    CheckConstraint("kind IN ('checkout', 'setup', 'auto')", name="kind"),
    CheckConstraint(
        "state IN ('wanted', 'open', 'credited', 'expired', 'declined', 'failed', 'quarantined')", name="state"
    ),
    CheckConstraint("(kind = 'setup') = (amount_nano = 0) AND amount_nano >= 0 AND amount_minor >= 0", name="amount"),
    CheckConstraint("state <> 'credited' OR kind = 'setup' OR grant_id IS NOT NULL", name="credited_has_grant"),
    Index(None, "account_id", "created_us"),
    Index(
        "uq_card_payments_auto", "account_id", unique=True,
        sqlite_where=text("kind = 'auto' AND state IN ('wanted', 'open')"),
        postgresql_where=text("kind = 'auto' AND state IN ('wanted', 'open')"),
    ),
    Index(
        "ix_card_payments_due", "next_us",
        sqlite_where=text("state IN ('wanted', 'open')"), postgresql_where=text("state IN ('wanted', 'open')"),
    ),
)  # fmt: skip
"""What is asked of Stripe, written before it is asked: id and `attempt` make the idempotency key, `amount_minor` is cents.

`wanted` (not at Stripe yet, or not known to be) → `open` (somebody may pay) → `credited`, or one of the other ends. A
`quarantined` one is money that does not fit what was asked for: nothing is credited, somebody is told.
"""

bill_payments = Table(
    "bill_payments",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("number", Text, ForeignKey("invoices.number"), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("command_id", Text, nullable=False, unique=True),
    Column("session_id", Text, unique=True),
    Column("intent_id", Text, unique=True),
    Column("url", Text, nullable=False, server_default=text("''")),
    Column("problem", Text, nullable=False, server_default=text("''")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    CheckConstraint("state IN ('wanted', 'open', 'paid', 'expired', 'failed', 'quarantined')", name="state"),
    CheckConstraint("amount_nano > 0 AND amount_minor > 0", name="amount"),
    Index(None, "account_id", "created_us"),
    Index(
        "uq_bill_payments_number", "number", unique=True,
        sqlite_where=text("state IN ('wanted', 'open')"), postgresql_where=text("state IN ('wanted', 'open')"),
    ),
    Index(
        "ix_bill_payments_due", "next_us",
        sqlite_where=text("state IN ('wanted', 'open')"), postgresql_where=text("state IN ('wanted', 'open')"),
    ),
)  # fmt: skip
"""Invoices that are paid by card, asked for as above (`billing.payments.bill_payments`); one page for an invoice at a time."""

stripe_events = Table(
    "stripe_events",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'new'")),
    Column("problem", Text, nullable=False, server_default=text("''")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    CheckConstraint("state IN ('new', 'done', 'ignored', 'quarantined')", name="state"),
    Index("ix_stripe_events_due", "next_us", sqlite_where=text("state = 'new'"), postgresql_where=text("state = 'new'")),
)
"""Webhooks that were received, once each: only which object changed. What it is now is asked of Stripe."""

reversals = Table(
    "reversals",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("payment_id", Text, ForeignKey("card_payments.id"), nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("stripe_id", Text, unique=True),
    Column("amount_nano", BigInteger, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("command_id", Text, unique=True),
    Column("problem", Text, nullable=False, server_default=text("''")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    CheckConstraint("kind IN ('refund', 'dispute')", name="kind"),
    CheckConstraint("state IN ('wanted', 'open', 'done', 'returned')", name="state"),
    CheckConstraint("amount_nano > 0 AND amount_minor > 0", name="amount"),
    Index(None, "payment_id"),
    Index(
        "ix_reversals_due", "next_us",
        sqlite_where=text("state IN ('wanted', 'open')"), postgresql_where=text("state IN ('wanted', 'open')"),
    ),
)  # fmt: skip
"""Money that goes back to a card: `wanted` (not known to be at Stripe) → `open` → `done` (it is gone) or `returned` (it stayed,
or came back). The credit is withdrawn when the row is written."""

clawbacks = Table(
    "clawbacks",
    METADATA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("owed_nano", BigInteger, nullable=False),
    CheckConstraint("owed_nano >= 0", name="owed"),
)
"""What an account owes because money went back whose credit was spent: the balance of `clawback:{account}`."""

auto_topups = Table(
    "auto_topups",
    METADATA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("below_nano", BigInteger, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("month_cap_nano", BigInteger, nullable=False),
    Column("customer_id", Text, unique=True),
    Column("payment_method", Text, nullable=False, server_default=text("''")),
    Column("enabled", Boolean, nullable=False),
    Column("declines", Integer, nullable=False, server_default=text("0")),
    Column("problem", Text, nullable=False, server_default=text("''")),
    Column("next_us", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("below_nano >= 0 AND amount_nano > 0 AND month_cap_nano >= amount_nano", name="amounts"),
)
"""Accounts that top themselves up by a saved card: below what, by how much, at most how much in a UTC month. `declines` counts
those in a row; nothing is tried before `next_us`."""
