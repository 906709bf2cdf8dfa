"""What is written in the journal: one struct per line, in the order in which things happened.

    Opened      a worker's life begins: allotments of earlier lives of this slot end here
    Hold        money is reserved; nothing was sent before this line
    Dispatch    a further attempt leaves (the first one stands in the hold)
    Progress    a stream's estimate so far, what recovery falls back on
    Settle      the terminal record of a hold, self-contained: the poster needs no other line
    Closed      a clean end of a worker's life

A hold has exactly one `Settle` (states of billing.md §3: SETTLED, VOIDED, RECOVERED); the poster refuses a second one.
Fields are only ever added, with defaults: an old journal stays readable.

The three that every call makes are made without names, in the order of their fields (`tests/billing/test_records_in_order.py`
holds them to it): Python packs more than 15 named arguments into a dict first, which for these three was 4 % of a call.
"""

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from farebox.billing.covering import matches
from farebox.billing.markup import Fees, Terms
from farebox.catalog.price import Rates
from farebox.wires.usage import Usage

State = Literal["settled", "voided", "recovered"]
Basis = Literal["reported", "observed", "estimated", "none"]
"""Where the counts came from: the provider's usage, what we saw of the stream, an estimate, or nothing was used."""


class Attempt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One try at one provider: a usage row of its own, whatever came of it."""

    n: int
    """1 for the first."""
    provider: str
    upstream_id: str
    started_us: int
    ended_us: int
    outcome: str
    """`ok`, `http_error`, `connect_error`, `timeout`, `truncated`, `error_event`, `garbage`, `client_gone`, `recovered`…"""
    provider_key: str = ""
    """Which of the provider's keys: a short public reference, never the secret."""
    first_byte_us: int | None = None
    """When the first content byte came."""
    status: int | None = None
    usage: Usage | None = None
    """None: unknown, and then the cost is unknown too (None), never zero."""
    basis: Basis = "none"
    flags: tuple[str, ...] = ()
    """`usage_anomaly`, `drained`, `upstream_truncated`, `estimated_input`, `recovered`, `hold_exceeded`…"""
    price_version: str = ""
    rates: Rates | None = None
    """The rate vector that this row bills at, tier already chosen: the row recomputes from itself (I9)."""
    markup_bp: int = 0
    fees: Fees | None = None
    """What the markup had beside its percentage."""
    plan: str = ""
    """The markup plan, with the rule and volume that applied."""
    cost_nano: int | None = 0
    """What we owe the provider; None = unknown. 0 by a customer's own key, whatever came of it."""
    charge_nano: int = 0
    """What the customer pays for this attempt."""
    loss_nano: int = 0
    """Part of the price above the hold: borne by us (`provider_loss`)."""
    raw_usage: str = ""
    upstream_request_id: str = ""
    finish_reason: str = ""
    native_finish_reason: str = ""
    provider_cost_usd: str = ""
    error: str = ""
    """Bounded text of the provider's or transport's error: no prompt, no key."""
    model: str = ""
    """The slug, where it is not the hold's: a call may fall back to another model."""

    @property
    def own_key(self) -> bool:
        """Whether it was made with the customer's own key: the provider bills the customer, and the charge is the fee alone."""
        return self.fees is not None and self.fees.own_key


class Opened(msgspec.Struct, frozen=True, tag="opened", omit_defaults=True):
    life: str
    """Id of this life of the worker slot; allotments belong to a life."""
    at_us: int
    pid: int = 0


class Closed(msgspec.Struct, frozen=True, tag="closed", omit_defaults=True):
    life: str
    at_us: int


class Hold(msgspec.Struct, frozen=True, gc=False, tag="hold", omit_defaults=True):
    """Everything that a settlement after a crash needs."""

    id: str
    """The generation id that the client sees."""
    at_us: int
    account: str
    key: str
    scopes: tuple[str, ...]
    """Scope ids, windows frozen: `account:acc-…`, `key:key-…:2026-11-23`."""
    amount_nano: int
    surface: str
    model: str
    provider: str
    upstream_id: str
    price_version: str
    rates: Rates
    markup_bp: int = 0
    fees: Fees | None = None
    plan: str = ""
    provider_key: str = ""
    project: str = ""
    end_user: str = ""
    requested: str = ""
    """The model name as the client wrote it."""
    streamed: bool = False
    input_bound: int = 0
    """Tokens; an estimate of the input never exceeds it."""
    input_estimate: int = 0
    tags: tuple[str, ...] = ()
    only: dict[str, tuple[str, ...]] = {}
    """Scopes that count calls to certain providers alone, with these: settled in them only when one of them is charged for."""

    only_models: dict[str, tuple[str, ...]] = {}
    """The same of models, by patterns of their slugs."""

    def scopes_charged(self, attempts: Sequence[Attempt]) -> tuple[str, ...]:
        """The scopes that a settlement with these attempts counts in."""
        if not self.only and not self.only_models:
            return self.scopes
        paid = {(attempt.provider, attempt.model or self.model) for attempt in attempts if attempt.charge_nano}
        return tuple(scope for scope in self.scopes if self._concerns(scope, paid))

    def _concerns(self, scope: str, paid: Collection[tuple[str, str]]) -> bool:
        providers, models = self.only.get(scope), self.only_models.get(scope)
        if providers is None and models is None:
            return True
        return any((not providers or provider in providers) and matches(model, models or ()) for provider, model in paid)


class Dispatch(msgspec.Struct, frozen=True, tag="dispatch", omit_defaults=True):
    """A further attempt, written before its first byte, with what the one before came to."""

    id: str
    n: int
    at_us: int
    provider: str
    upstream_id: str
    price_version: str
    rates: Rates
    provider_key: str = ""
    terms: Terms | None = None
    """Its markup; None in journals from before there were plans: the hold's."""
    before: tuple[Attempt, ...] = ()
    """The finished attempts before this one."""
    continues: bool = False
    """It goes on with what they delivered, and bills its output only."""
    model: str = ""
    """The slug, where it is not the hold's."""


class Progress(msgspec.Struct, frozen=True, tag="progress", omit_defaults=True):
    """Every 2 s or 256 output tokens of a stream (billing.md §3)."""

    id: str
    n: int
    at_us: int
    usage: Usage
    """Estimate so far; input classes exact once the provider has reported them."""
    exact_input: bool = False


class Settle(msgspec.Struct, frozen=True, gc=False, tag="settle", omit_defaults=True):
    """The one terminal record of a hold."""

    id: str
    state: State
    at_us: int
    account: str
    key: str
    scopes: tuple[str, ...]
    hold_nano: int
    charge_nano: int
    """Σ of the attempts' charges, never above the hold."""
    surface: str
    model: str
    attempts: tuple[Attempt, ...]
    created_us: int
    life: str
    """The worker life whose allotments the hold was taken from."""
    project: str = ""
    end_user: str = ""
    requested: str = ""
    streamed: bool = False
    cancelled: bool = False
    """The client went away before the end."""
    tags: tuple[str, ...] = ()


Record = Opened | Closed | Hold | Dispatch | Progress | Settle
