"""Standing: everything about a plan that does not depend on the call, worked out once and used by every call like it.

A `Standing` belongs to a chain of models on one wire under certain preferences. It holds for a UTC day (prices), for an epoch
of the offers' health, and, where the order comes from measurements or from prices that change by the hour, for a few seconds.
`farebox.routing.preparing` makes it. Data classes, not structs: compiled code reads their fields directly.
"""

from dataclasses import dataclass
from typing import Final, Literal

from farebox.billing.markup import Terms
from farebox.billing.quotes import Quote
from farebox.quality.rules import Rules
from farebox.routing.allowance import Allowance
from farebox.routing.filters import Exclusion
from farebox.routing.hedging import Hedge
from farebox.routing.preferences import Preferences
from farebox.routing.target import Target

Mode = Literal["chance", "price", "measured"]

RANK_EJECTED: Final = 1_000
"""Ranks add up; lower goes first. An offer that health has ejected is only there so that nobody is left without any."""
RANK_PROBING: Final = 1
RANK_UNNAMED: Final = 100
"""Not among a policy's weights: for when all that are named have failed."""
RANK_MISSES: Final = 20
RANK_UNMEASURED: Final = 10
"""A preferred latency or throughput that is missed, or not known to be met."""
RANK_TIGHT: Final = 200
"""The prompt probably does not fit."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One offer that preferences allow."""

    target: Target
    quoted: Quote | None
    """The day's quote; None when the price changes by the hour and is asked for call by call."""
    terms: Terms
    tier: str | None
    """The service tier that is asked for."""
    upstream_id: str
    """The id to send: the offer's own, or the dated one of the same offer that the client asked for."""
    upstream_id_json: bytes
    context_window: int
    output_max: int
    """The offer's limits, in tokens."""
    rank: int
    position: float
    """Before chance or price: the place in `order`, or what was measured."""
    distance: float
    """1 ÷ weight."""
    salt: int
    share_bp: int
    """Its share of first tries among its equals."""
    caching: bool
    fields: tuple[tuple[str, bytes], ...]
    """Top-level fields put into the upstream request, as JSON: a service tier, preferences of a gateway behind us."""
    state: str
    unmeasured: bool
    """It is sorted by a measurement that it does not have."""
    day: str
    reason: str


@dataclass(frozen=True, eq=False)
class Group:
    """Offers that are ordered as one list: those of one model, or of all models."""

    entries: tuple[Entry, ...]
    """By rank and position."""
    mode: Mode
    level: bool
    """All have the same rank and position: only chance, or the price, tells them apart."""
    caching: bool
    common: frozenset[str]
    """Capabilities that every entry has."""
    output_min: int
    input_min: int
    """The smallest limits among the entries, so that most calls need no closer look."""
    explore: bool
    """It is sorted by a measurement that some of its entries do not have; but those of an `order` are the first in any case."""
    first_offer_only: bool
    """Without fallbacks: with whichever keys, but nowhere else."""


@dataclass(frozen=True, eq=False)
class Standing:
    """A plan without a call."""

    groups: tuple[Group, ...]
    excluded: tuple[Exclusion, ...]
    wanted: Preferences
    """The request's and the policies' preferences together."""
    asked: Preferences
    """The request's alone."""
    epoch: int
    until_us: int
    policy: str
    alone: bool
    """No group has more than one entry: there is nothing to choose."""
    caching: bool
    simple: bool
    """Nothing in it has to be checked against a call's own price or parameters."""
    allowance: Allowance | None = None
    """What the caller's key may use; None: anything."""
    escalation: Rules | None = None
    """What is looked at in an answer of a model that is not strong."""
    strong: frozenset[str] = frozenset()
    """Slugs of the models that answer where another's answer will not do."""
    hedge: Hedge | None = None
    """When a second provider is asked beside a slow first one."""
    mixed: bool = False
    """Some offers speak the caller's wire, others another: those may turn out not to be able to be told a call."""

    def looks(self, *, streamed: bool) -> bool:
        """Whether an answer is looked at before the client gets it."""
        return self.escalation is not None and (not streamed or self.escalation.withholds)
