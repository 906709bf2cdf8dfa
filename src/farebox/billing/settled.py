"""What the poster decodes of a settle record: as much as the ledger's columns need."""

import msgspec
from msgspec import Raw

from farebox.billing.position import Position
from farebox.billing.records import Closed, Opened
from farebox.wires.usage import Usage


class SettledAttempt(msgspec.Struct, frozen=True, gc=False):
    """The part of `records.Attempt` that becomes columns, and what an ordinary receipt says."""

    n: int
    provider: str
    outcome: str
    usage: Usage | None = None
    basis: str = "none"
    cost_nano: int | None = 0
    charge_nano: int = 0
    loss_nano: int = 0
    model: str = ""
    """Empty: the call's own."""
    upstream_id: str = ""
    price_version: str = ""
    rates: Raw = Raw(b"")
    markup_bp: int = 0
    fees: Raw = Raw(b"")
    plan: str = ""
    flags: tuple[str, ...] = ()
    """From `upstream_id` on: for the receipt, and to know calls by a customer's own key."""


class Settled(msgspec.Struct, frozen=True, gc=False, tag="settle"):
    """The part of `records.Settle` that becomes columns."""

    id: str
    state: str
    account: str
    key: str
    scopes: tuple[str, ...]
    hold_nano: int
    charge_nano: int
    model: str
    attempts: tuple[SettledAttempt, ...]
    created_us: int
    life: str
    project: str = ""
    end_user: str = ""
    requested: str = ""
    tags: Raw = Raw(b"")
    """The list as it stands in the record: the column has the same text."""


class AttemptTexts(msgspec.Struct, tag="settle"):
    attempts: tuple[Raw, ...]


class Reading(msgspec.Struct):
    """What one slot had beyond a position."""

    slot: str
    start: Position
    end: Position
    records: int
    settled: list[tuple[Settled, str]]
    """Each with its own words: the line's JSON."""
    lives: list[Opened | Closed]
