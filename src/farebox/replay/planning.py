"""Planning: one configuration, asked where recorded calls would go and what they would cost. Pure; money is integers."""

from collections.abc import Callable, Mapping

import msgspec

from farebox.billing import pricing
from farebox.billing.markup import MarkupPlan
from farebox.catalog.missing import ModelNotFound
from farebox.errors import FareboxError, Kind
from farebox.routing.allowance import Allowance
from farebox.routing.policy import Decisions
from farebox.routing.preferences import split_suffix
from farebox.routing.router import Router
from farebox.routing.target import Target
from farebox.wires.call import Call, Media
from farebox.wires.usage import Usage

BYTES_PER_TOKEN = 4
"""What the router's estimates assume of a prompt."""
_NO_MESSAGES = msgspec.Raw(b"[]")


class Caller(msgspec.Struct, frozen=True):
    """Who calls, as far as routing and price need it."""

    account: str
    policy: str = ""
    markup: str = ""
    allowance: Allowance | None = None


class Recorded(msgspec.Struct, frozen=True):
    """What is known of a call that was answered by one attempt."""

    id: str
    requested: str
    """The model's name as the client wrote it."""
    model: str
    """The slug of the model that was tried first."""
    wire: str
    streamed: bool
    created_us: int
    provider: str
    upstream_id: str
    usage: Usage
    cost_nano: int
    charge_nano: int


class Outcome(msgspec.Struct, frozen=True):
    """Where a call goes, and what comes of it. Nano-dollars."""

    target: Target
    cost_nano: int
    charge_nano: int


class Unsorted(Exception):
    """The call's policy sorts calls by what they say, and how it sorted this one is not recorded."""


class _Even:
    """No chance: draws are made by the call's own name, the same in every configuration."""

    def uniform(self) -> float:
        return 0.5


class Forced:
    """Stands in for the decisions: a call that was sorted once is of the same tier again."""

    def __init__(self, decisions: Mapping[str, Decisions]) -> None:
        self.tier = ""
        self.decisions = {name: Decisions(self._decide, one.answers) for name, one in decisions.items()}

    def _decide(self, call: Call) -> str:
        return self.tier


class Planner:
    """A router, its markup plans, and the volumes that its charges have made."""

    def __init__(self, router: Router, markups: Mapping[str, MarkupPlan], forced: Forced, *, day: str) -> None:
        self._router = router
        self._markups = markups
        self._forced = forced
        self._day = day
        self._volumes: dict[str, tuple[str, int]] = {}
        """By account: the month, and what it was charged in it so far."""

    def tiers(self, requested: str, model: str) -> tuple[str, ...]:
        """The tiers of the policy called `requested` whose models have `model` first, or else at all."""
        called = self._router.policies.named.get(requested)
        if called is None or not called.policy.decision:
            return ()
        first: list[str] = []
        any_place: list[str] = []
        for tier, names in called.policy.branches.items():
            slugs = [self._slug(name) for name in names]
            if model in slugs:
                (first if next((slug for slug in slugs if slug), "") == model else any_place).append(tier)
        return tuple(first or any_place)

    def _slug(self, name: str) -> str:
        """The slug of a model that can be called; else empty."""
        try:
            return self._router.catalog.resolve(split_suffix(name)[0]).model.slug
        except ModelNotFound:
            return ""

    def replay(self, call: Recorded, caller: Caller, tier: str) -> Outcome:
        """Where the call goes and what it comes to. Raises the `FareboxError` that its caller would be told, or `Unsorted`."""
        if self._router.policies.decision(call.requested) and not tier:
            raise Unsorted
        markup = self._markups.get(caller.markup)
        if markup is None:
            raise FareboxError(Kind.UNAVAILABLE, f"the markup plan `{caller.markup}` is not configured")
        self._forced.tier = tier
        month = _month(call.created_us)
        known, volume = self._volumes.get(caller.account, ("", 0))
        volume = volume if known == month else 0
        found = self._router.plan(
            _call(call),
            now_us=call.created_us,
            day=self._day,
            random=_Even(),
            policy=caller.policy,
            allowance=caller.allowance,
            markup=markup if caller.markup else None,
            volume_nano=volume,
            session=call.id,
        )
        first = found.candidates[0]
        billed = pricing.bill(call.usage, first.quoted)
        self._volumes[caller.account] = (month, volume + billed.charge_nano)
        return Outcome(first.target, billed.cost_nano, billed.charge_nano)


def _month(us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m")


def _call(call: Recorded) -> Call:
    """A request of the same size to the same model; what else it asked for is not recorded."""
    return Call(
        wire=call.wire,
        body=b"{}",
        model=call.requested or call.model,
        stream=call.streamed,
        include_usage=False,
        output_cap=None,
        choices=1,
        media=Media(text_bytes=call.usage.prompt_tokens * BYTES_PER_TOKEN),
        needs=frozenset(),
        messages=_NO_MESSAGES,
        plain=True,
    )


CallerOf = Callable[[str], Caller | None]
"""A key's id → who calls with it; None for a key that is not known any more."""
