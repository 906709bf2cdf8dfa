"""The tables, once for both engines. Migrations create them; a test compares the two.

Three kinds of data live here:

- **facts**, append-only and guarded by triggers: `usage`, `transfers`, `invoices` and `invoice_parts`, `audit`, `seal_runs`;
- **projections** of facts, kept because they are read or guarded all the time: `scopes`, `allotments`, `grants.remaining_nano`;
  `billing.invariants.checks` recomputes every one of them;
- **settings**: `accounts`, `projects`, `keys`, `provider_keys`, `budgets`, and `control_version`, which every change to them
  bumps.

Amounts are nano-dollars (`_nano`), times microseconds since the epoch (`_us`). There is no float and no zone. The facts have
no foreign keys: what the journal says has happened must never become impossible to write down.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from farebox.storage.metadata import METADATA
from farebox.storage.payment_tables import auto_topups, bill_payments, card_payments, clawbacks, reversals, stripe_events
from farebox.storage.provider_key_tables import provider_key_master, provider_keys
from farebox.storage.reconciliation_tables import reconciliation_findings, reconciliations
from farebox.storage.seal_tables import seal_runs, sealing, unsealed

PAYMENT_TABLES = (auto_topups, bill_payments, card_payments, clawbacks, reversals, stripe_events)
PROVIDER_KEY_TABLES = (provider_keys, provider_key_master)
RECONCILIATION_TABLES = (reconciliations, reconciliation_findings)
SEAL_TABLES = (seal_runs, unsealed, sealing)
"""Those have files of their own."""

IMMUTABLE = ("usage", "transfers", "invoices", "invoice_parts", "price_versions", "audit", "seal_runs")
"""Tables whose rows are never changed or removed: triggers refuse UPDATE and DELETE on both engines."""

accounts = Table(
    "accounts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("credit_limit_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    Column("created_us", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("markup", Text, nullable=False, server_default=text("''")),
    Column("tier", Text, nullable=False, server_default=text("''")),
    Column("tier_pinned", Boolean, nullable=False, server_default=false()),
    Column("policy", Text, nullable=False, server_default=text("''")),
    CheckConstraint("kind IN ('prepaid', 'postpaid')", name="kind"),
    CheckConstraint("status IN ('active', 'suspended')", name="status"),
    CheckConstraint("credit_limit_nano >= 0", name="credit_limit"),
    CheckConstraint("kind = 'postpaid' OR credit_limit_nano = 0", name="prepaid_has_no_line"),
)
"""Customers: organisations that pay. `version` is the control version of the last change, here and on what belongs to them.

`tier` names a tier of the configuration; empty is that of new accounts (`limits.tier`). A pinned tier moves only by hand.
`markup` names a plan of the configuration, empty for the usual one; `policy` a routing policy, empty for none of its own.
"""

projects = Table(
    "projects",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("limits", Text, nullable=False, server_default=text("''")),
    Column("disabled_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    UniqueConstraint("account_id", "name"),
)
"""Groups of an account's keys, with rate limits (JSON of `gate.limits.Limits`) and budgets of their own."""

keys = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("project", Text, nullable=False, server_default=text("''")),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("budget_nano", BigInteger),
    Column("budget_window", Text, nullable=False, server_default=text("'none'")),
    Column("version", BigInteger, nullable=False),
    Column("permissions", Text, nullable=False, server_default=text("'inference usage'")),
    Column("restrictions", Text, nullable=False, server_default=text("''")),
    Column("limits", Text, nullable=False, server_default=text("''")),
    Column("tags", Text, nullable=False, server_default=text("''")),
    Column("metadata", Text, nullable=False, server_default=text("''")),
    Column("disabled_us", BigInteger),
    Column("last_used_us", BigInteger),
    Column("previous_digest", LargeBinary),
    Column("previous_hint", Text),
    Column("previous_until_us", BigInteger),
    Column("policy", Text, nullable=False, server_default=text("''")),
    CheckConstraint("budget_nano >= 0", name="budget"),
    CheckConstraint("budget_window IN ('none', 'hour', 'day', 'week', 'month')", name="budget_window"),
    Index(None, "account_id"),
    Index(None, "version"),
    Index("uq_keys_previous_digest", "previous_digest", unique=True),
)
"""API keys: a digest (HMAC-SHA256, made by `gate.keys`), never the key. A budget of NULL is no budget.

`project` is a project's id, or empty. `permissions` are words; `restrictions` and `limits` JSON of `gate.permissions` and
`gate.limits`; `tags` and `metadata` JSON. After a rotation the previous secret works until `previous_until_us`. `last_used_us` is
written now and then, and without a new version: nothing depends on it.
"""

budgets = Table(
    "budgets",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, server_default=text("''")),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("amount_nano", BigInteger, nullable=False),
    Column("window", Text, nullable=False),
    Column("zone", Text, nullable=False, server_default=text("'UTC'")),
    Column("hard", Boolean, nullable=False),
    Column("models", Text, nullable=False, server_default=text("''")),
    Column("providers", Text, nullable=False, server_default=text("''")),
    Column("created_us", BigInteger, nullable=False),
    Column("removed_us", BigInteger),
    Column("version", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False, server_default=text("0")),
    Column("revised_us", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("kind IN ('account', 'project', 'key', 'end_user', 'tag')", name="kind"),
    CheckConstraint('"window" IN (\'none\', \'hour\', \'day\', \'week\', \'month\')', name="window"),
    CheckConstraint("amount_nano >= 0", name="amount"),
    Index(None, "account_id"),
    Index("ix_budgets_revised", "account_id", sqlite_where=text("revision > 0"), postgresql_where=text("revision > 0")),
)
"""Budgets beside balances and the keys' own: whom they limit (`kind`, and `subject`: a project's or key's id, an end user, `*`
for each end user without a budget of its own, a tag), how much per window of a time zone, and for which models and providers
(JSON lists; empty is all). A soft one only alerts. Removed ones stay, since scopes name them. `revision` counts changes of what
is counted, the last of them at `revised_us`: see `billing.books.carrying`."""

scopes = Table(
    "scopes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("key_id", Text),
    Column("window_name", Text, nullable=False, server_default=text("''")),
    Column("limit_nano", BigInteger, nullable=False),
    Column("wanted_limit_nano", BigInteger),
    Column("posted_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("allotted_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("wanted_until_us", BigInteger, nullable=False, server_default=text("0")),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("alerted_percent", Integer, nullable=False, server_default=text("0")),
    Column("budget_id", Text),
    Column("subject", Text, nullable=False, server_default=text("''")),
    Column("soft_limit_nano", BigInteger),
    Column("revision", Integer, nullable=False, server_default=text("0")),
    Column("carried_nano", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("posted_nano >= 0 AND allotted_nano >= 0", name="not_negative"),
    CheckConstraint("posted_nano + allotted_nano <= limit_nano", name="within_limit"),
    CheckConstraint("wanted_limit_nano IS NULL OR wanted_limit_nano < limit_nano", name="wanted_is_lower"),
    Index(None, "account_id"),
    Index(None, "key_id"),
    Index(None, "budget_id"),
    Index(None, "window_name"),
)
"""One limit each: posted + allotted ≤ limit, refused by the database itself otherwise (I7); see `billing.books.scopes`.

A scope of a budget names it, and its subject (for a budget of each end user: which one). A soft budget has no limit to refuse
by, and its amount in `soft_limit_nano`, which alerts are reckoned on. `revision` is the budget's when the scope was made, and
`carried_nano` the part of `posted_nano` that calls were charged which were held in scopes of earlier revisions.

`epoch` counts changes of the limit and re-arms alerts; `alerted_percent` is the highest threshold already told in it.
"""

lives = Table(
    "lives",
    METADATA,
    Column("life", Text, primary_key=True),
    Column("slot", Text),
    Column("ended_us", BigInteger),
    Index(None, "slot"),
)
"""Lives of gateway workers. The slot is known once the poster has read the life's `Opened`; an ended life takes nothing."""

allotments = Table(
    "allotments",
    METADATA,
    Column("scope_id", Text, ForeignKey("scopes.id"), primary_key=True),
    Column("life", Text, primary_key=True),
    Column("granted_nano", BigInteger, nullable=False),
    Column("posted_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("released", Boolean, nullable=False, server_default=false()),
    CheckConstraint("posted_nano >= 0 AND posted_nano <= granted_nano", name="posted_within_granted"),
    Index(None, "life"),
)
"""A slice of a scope held by one life. While not released it takes `granted - posted` of the scope's `allotted_nano`."""

volumes = Table(
    "volumes",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("month", Text, nullable=False),
    Column("charged_nano", BigInteger, nullable=False),
    Column("own_key_calls", BigInteger, nullable=False, server_default=text("0")),
)
"""What an account was charged in the UTC month named, by the usage transfers of that month, and how many calls were answered by
its own keys at providers: see `billing.books.volumes`."""

own_key_usage = Table(
    "own_key_usage",
    METADATA,
    Column("hold_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("provider_nano", BigInteger, nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("posted_us", BigInteger, nullable=False),
    Index(None, "account_id", "posted_us"),
    Index(None, "key_id", "created_us"),
)
"""Beside the usage rows of attempts by customers' own keys: what the provider bills the customer itself. A correction's amount is
a difference, as its row's. `counted`: the call is one of those that a month has some free of."""

usage = Table(
    "usage",
    METADATA,
    Column("hold_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("final", Boolean, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("end_user", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("charge_nano", BigInteger, nullable=False),
    Column("loss_nano", BigInteger, nullable=False),
    Column("cost_nano", BigInteger),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("record", Text, nullable=False),
    Column("transfer_id", Text),
    Column("cost_transfer_id", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("posted_us", BigInteger, nullable=False),
    Column("tags", Text, nullable=False, server_default=text("''")),
    Index("uq_usage_final", "hold_id", unique=True, sqlite_where=text("final"), postgresql_where=text("final")),
    Index(None, "account_id", "created_us"),
    Index("ix_usage_key_id_created_us", "key_id", "created_us", "charge_nano"),
    Index(None, "posted_us"),
)
"""One row per attempt, whatever came of it (attempt 0: a hold that ended before anything was sent).

The columns are what queries, sums and constraints need. `record` has every other fact in the journal's own words: on the
final row of a call the whole `Settle`, on the others their `Attempt` (`billing.books.evidence` reads both). Copying 25 more
values into columns would cost more than everything else the poster does.

A correction is a row with a higher `revision`: its amounts and token counts are **differences**, so that a sum over rows is
always right; its record restates the attempt. Unknown is NULL, never zero. `tags` is a JSON list, or empty.
"""

transfers = Table(
    "transfers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("debit", Text, nullable=False),
    Column("credit", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("account_id", Text),
    Column("cause_kind", Text, nullable=False),
    Column("cause_id", Text, nullable=False),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("debit <> credit", name="two_accounts"),
    UniqueConstraint("cause_kind", "cause_id"),
    Index(None, "account_id", "at_us"),
    Index(None, "debit"),
    Index(None, "credit"),
)
"""The ledger: every movement once, with its two accounts (`billing.books.transfers` names them) and the one cause it has."""

grants = Table(
    "grants",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("remaining_nano", BigInteger, nullable=False),
    Column("expired_nano", BigInteger, nullable=False, server_default=text("0")),
    Column("expires_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    Column("command_id", Text, nullable=False, unique=True),
    Column("reversed_nano", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("kind IN ('paid', 'promo')", name="kind"),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("remaining_nano >= 0 AND expired_nano >= 0 AND remaining_nano + expired_nano <= amount_nano", name="parts"),
    Index(None, "account_id", "expires_us"),
)
"""Credit given to an account: bought or promotional. Spent soonest-expiring first, then oldest first. `reversed_nano` was
withdrawn because money went back (`billing.payments.reversals`)."""

invoices = Table(
    "invoices",
    METADATA,
    Column("number", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("corrects", Text),
    Column("issued_us", BigInteger, nullable=False),
    Column("due_us", BigInteger),
    Column("usage_nano", BigInteger, nullable=False),
    Column("net_nano", BigInteger, nullable=False),
    Column("tax_nano", BigInteger, nullable=False),
    Column("credit_nano", BigInteger, nullable=False),
    Column("document", Text, nullable=False),
    CheckConstraint("kind IN ('invoice', 'credit_note')", name="kind"),
    CheckConstraint("(kind = 'credit_note') = (corrects IS NOT NULL)", name="corrects"),
    Index(
        "uq_invoices_month", "account_id", "month", unique=True,
        sqlite_where=text("kind = 'invoice'"), postgresql_where=text("kind = 'invoice'"),
    ),
    Index(None, "account_id", "issued_us"),
)  # fmt: skip
"""Invoices and credit notes as issued: `document` is what was sent, byte for byte; the amounts beside it are its totals."""

invoice_parts = Table(
    "invoice_parts",
    METADATA,
    Column("transfer_id", Text, primary_key=True),
    Column("from_us", BigInteger, primary_key=True, autoincrement=False),
    Column("until_us", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("charge_nano", BigInteger, nullable=False),
    Index(None, "number"),
)
"""Which usage is on which document: the rows of a transfer that were created in [from, until), a UTC month. The key keeps
usage from being invoiced twice; usage that has no part is accrued and not invoiced yet."""

document_numbers = Table(
    "document_numbers",
    METADATA,
    Column("series", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""The last number given in each series, moved in the transaction that uses it: no gaps."""

closed_months = Table(
    "closed_months",
    METADATA,
    Column("month", Text, primary_key=True),
    Column("closed_us", BigInteger, nullable=False),
)
"""Months whose invoices are all made."""

dunning = Table(
    "dunning",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("paused_us", BigInteger, nullable=False),
)
"""Accounts that were suspended because an invoice is overdue, and that a payment lets work again."""

price_versions = Table(
    "price_versions",
    METADATA,
    Column("version", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("effective_from", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("approved_us", BigInteger, nullable=False),
)
"""Prices of the operator's own, over the catalog's: dated, immutable. `record` is a `catalog.record.PriceRecord`."""

price_proposals = Table(
    "price_proposals",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("offer_id", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("changes", Text, nullable=False),
    Column("passed", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("decided_us", BigInteger),
    CheckConstraint("state IN ('proposed', 'approved', 'rejected')", name="state"),
    Index(None, "state"),
)
"""Prices that somebody proposes, with what they would change."""

journal_positions = Table(
    "journal_positions",
    METADATA,
    Column("slot", Text, primary_key=True),
    Column("segment", Integer, nullable=False),
    Column("byte_offset", BigInteger, nullable=False),
)
"""How far each worker slot's journal has been posted. Slot names are unique over all machines that share a database."""

control_version = Table(
    "control_version",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row: grows with every change to accounts, keys and limits, so that gateways notice within a second."""

outbox = Table(
    "outbox",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("window_name", Text, nullable=False, server_default=text("''")),
    Column("threshold", Integer, nullable=False, server_default=text("0")),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("payload", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("sent_us", BigInteger),
    UniqueConstraint("kind", "subject", "window_name", "threshold", "epoch"),
    Index("ix_outbox_unsent", "created_us", sqlite_where=text("sent_us IS NULL"), postgresql_where=text("sent_us IS NULL")),
)
"""Messages written in the transaction that causes them, sent afterwards: each condition once per window and limit."""

hours = Table(
    "hours",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("charged_nano", BigInteger, nullable=False),
    Index(None, "hour"),
)
"""What an account was charged in an hour (UTC, counted from the epoch) by that hour's usage transfers: see
`billing.books.hours`."""

alert_settings = Table(
    "alert_settings",
    METADATA,
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("low_balance_nano", BigInteger),
    Column("runway_days", Integer),
    Column("spike_factor", Integer),
)
"""What an account wants to be told of, where it differs from the configuration: NULL is as configured, 0 never."""

alert_channels = Table(
    "alert_channels",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id")),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("events", Text, nullable=False, server_default=text("''")),
    Column("generation", Integer, nullable=False, server_default=text("1")),
    Column("previous_until_us", BigInteger, nullable=False, server_default=text("0")),
    Column("created_us", BigInteger, nullable=False),
    Column("removed_us", BigInteger),
    CheckConstraint("kind IN ('webhook', 'slack', 'email')", name="kind"),
    Index(None, "account_id"),
)
"""Where alerts go, beside the configuration's channels: an account's own, or, without one, the operator's.

A webhook's signing secret is derived from the pepper, the id and the `generation`, so it is in no table; after a rotation the one
before signs, too, until `previous_until_us`. `events` are words, empty for all.
"""

deliveries = Table(
    "deliveries",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_us", BigInteger, nullable=False),
    Column("status", Integer),
    Column("error", Text, nullable=False, server_default=text("''")),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    UniqueConstraint("message_id", "channel_id"),
    Index("ix_deliveries_due", "next_us", sqlite_where=text("state = 'pending'"), postgresql_where=text("state = 'pending'")),
    Index(None, "created_us"),
)
"""A message of the outbox on its way to one channel: pending until `delivered` or, after the last try, `dead`."""

code_batches = Table(
    "code_batches",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("amount_nano", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("uses_max", Integer, nullable=False),
    Column("credit_days", Integer),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("created_us", BigInteger, nullable=False),
    CheckConstraint("kind IN ('paid', 'promo')", name="kind"),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("uses_max > 0", name="uses"),
)
"""Redemption codes that were made together, and what each of them gives."""

codes = Table(
    "codes",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("batch_id", Text, ForeignKey("code_batches.id"), nullable=False),
    Column("used", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("used >= 0", name="used"),
    Index(None, "batch_id"),
)
"""A redemption code's digest (HMAC-SHA256, made by `billing.accounts.codes`), never the code; how many accounts took it."""

redemptions = Table(
    "redemptions",
    METADATA,
    Column("digest", LargeBinary, ForeignKey("codes.digest"), primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), primary_key=True),
    Column("grant_id", Text, ForeignKey("grants.id"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""Who took which code, once each, and the credit that it gave."""

signups = Table(
    "signups",
    METADATA,
    Column("mark", LargeBinary, primary_key=True),
    Column("account_id", Text, ForeignKey("accounts.id"), nullable=False),
    Column("domain", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("keyed", Boolean, nullable=False, server_default=false()),
    Index(None, "at_us"),
    Index("ix_signups_unkeyed", "mark", sqlite_where=text("NOT keyed"), postgresql_where=text("NOT keyed")),
)
"""Who has signed up: a mark of the mail address under the server's pepper (`billing.accounts.signups`), and what the limits of a
day are counted by. A mark that is not `keyed` is from before, and is made so."""

audit = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Index(None, "account_id", "seq"),
    Index(None, "subject", "seq"),
)
"""Who changed what about customers, projects and keys (`billing.books.audit`): append-only and chained by digests."""
