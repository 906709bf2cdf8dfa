"""Makers of small markets, calls and measured health for the routing tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from farebox.billing.markup import MarkupPlan, flat
from farebox.catalog.catalog import Catalog
from farebox.catalog.model import CAPABILITIES, Model, Offer
from farebox.catalog.price import OffPeak, Price, Rates, Schedule, Tier
from farebox.providers.base import DataPolicy, Provider, Speaks
from farebox.routing.measured import Measured, NothingMeasured, Unmeasured
from farebox.routing.policy import Decisions, Policies, Policy
from farebox.routing.preferences import Percentiles, Providers, Reader
from farebox.routing.router import Router
from farebox.routing.target import Target, target
from farebox.wires.call import Call
from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat.call import read_call

NOW_US = 1_790_000_000_000_000
DAY = "2026-09-21"
ALL = frozenset(CAPABILITIES)


class Chance:
    """Chance that goes through a list of numbers, over and over."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = numbers or (0.5,)
        self._next = 0

    def uniform(self) -> float:
        number = self._numbers[self._next % len(self._numbers)]
        self._next += 1
        return number


class Clinic(NothingMeasured):
    """Health as a test says it is, by provider."""

    def __init__(self, **views: Unmeasured) -> None:
        self.views = views
        self.epoch = 0
        self.ejected_max_percent = 100
        self.limited = False
        self.busy: set[str] = set()

    def full(self, target: Target) -> bool:
        return target.provider.name in self.busy

    def view(self, target: Target, now_us: int) -> Unmeasured:
        return self.views.get(target.provider.name, Unmeasured())


def latency(p50: float, tokens_per_s: float | None = None) -> Unmeasured:
    """Measured medians: milliseconds to the first token, tokens per second."""
    speed = None if tokens_per_s is None else Percentiles(p50=tokens_per_s)
    return Unmeasured(first_token_ms=Percentiles(p50=p50), tokens_per_s=speed, samples=100)


def dollars(text: str) -> int:
    """USD per million tokens → pico-dollars per token."""
    whole, _, fraction = text.partition(".")
    return int(whole) * 10**6 + int(fraction.ljust(6, "0") or 0)


def rates(input: str = "2", output: str = "8", cached: str | None = None, **more: int) -> Rates:
    cost, out = dollars(input), dollars(output)
    read = cost if cached is None else dollars(cached)
    return Rates(input=cost, cache_read=read, cache_write_5m=cost, cache_write_1h=cost, output=out, reasoning=out, **more)


def offer(
    provider: str,
    *,
    id: str = "m",
    price: Rates | None = None,
    tiers: tuple[Tier, ...] = (),
    off_peak: OffPeak | None = None,
    service_tiers: dict[str, Schedule] | None = None,
    wire: str = "openai_chat",
    **more: Any,
) -> Offer:
    schedule = Schedule(price or rates(), tiers)
    made = Price(f"{provider}/{id}@1", "1970-01-01", schedule, service_tiers=service_tiers or {}, off_peak=off_peak)
    settings: dict[str, Any] = {"context_window": 128_000, "max_output_tokens": 4096, "capabilities": ALL}
    return Offer(provider=provider, id=id, wire=wire, prices=(made,), **(settings | more))


def model(slug: str, *offers: Offer, **more: Any) -> Model:
    return Model(slug, slug, 128_000, 4096, offers, ALL, **more)


def provider(name: str, *, wires: Sequence[str] = ("openai_chat",), dialect: Dialect | None = None, **data: Any) -> Provider:
    speaks = {wire: Speaks(path="/x", dialect=dialect or Dialect()) for wire in wires}
    return Provider(name=name, title=name.title(), base_url="http://x", speaks=speaks, data=DataPolicy(**data))


def router(
    *models: Model,
    providers: Mapping[str, Provider] | None = None,
    policies: Sequence[Policy] = (),
    decisions: Mapping[str, Decisions] | None = None,
    health: Measured | None = None,
    markup: MarkupPlan | None = None,
    attempts_max: int = 3,
    **settings: Any,
) -> Router:
    given = dict(providers or {})
    for item in models:
        for one in item.offers:
            given.setdefault(one.provider, provider(one.provider, wires=(one.wire,)))
    by_wire: dict[str, dict[str, tuple[Target, ...]]] = {"openai_chat": {}, "anthropic_messages": {}}
    for wire, by_slug in by_wire.items():
        for item in models:
            by_slug[item.slug] = tuple(
                target(
                    item,
                    one,
                    given[one.provider],
                    wire=wire if wire in given[one.provider].speaks else one.wire,
                    base_url="http://x",
                    keys=("k",),
                    markup=markup or flat(0),
                )
                for one in item.offers
            )
    return Router(
        Catalog(models, {}, frozenset(given)),
        by_wire,
        policies=Policies(policies, decisions),
        reader=Reader(Providers.of({name: row.title for name, row in given.items()})),
        health=health or NothingMeasured(),
        attempts_max=attempts_max,
        **settings,
    )


def call(name: str = "v/m", text: str = "hello", **fields: Any) -> Call:
    body = {"model": name, "messages": [{"role": "user", "content": text}], **fields}
    return read_call(msgspec.json.encode(body))


def planned(made: Router, asked: Call, *, chance: Sequence[float] = (0.5,), **more: Any) -> Any:
    return made.plan(asked, now_us=NOW_US, day=DAY, random=Chance(*chance), **more)


def names(plan: Any) -> list[str]:
    """The providers of a plan, in order."""
    return [candidate.target.provider.name for candidate in plan.candidates]
