"""Health as it is shown: the reports of all gateway workers together, by offer and by provider. Pure.

An offer is a model at a provider, over all its keys. It is `healthy` when some key of it may be used at some worker, `probing`
while one call finds out, else `ejected`; an offer that nobody has called is not in it.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from farebox.routing.health_report import KeyReport, PlaceReport, Report
from farebox.routing.measured import State
from farebox.routing.preferences import Percentiles
from farebox.routing.rolling import merged, percentiles

Circuit = Literal["closed", "probing", "open"]
OFFERS_MAX = 2_000
"""Offers that are shown and counted; those with the most attempts of the last half hour."""
PLACES_MAX = 2_000
"""Places that are shown, likewise."""


class Offer(msgspec.Struct, frozen=True):
    """One offer at all workers; counts are `(succeeded, failed)`."""

    provider: str
    model: str
    state: State
    five_minutes: tuple[int, int]
    half_hour: tuple[int, int]
    day: tuple[int, int]
    first_token_ms: Percentiles | None
    tokens_per_s: Percentiles | None
    in_flight: int


class ProviderKey(msgspec.Struct, frozen=True):
    """One key of a provider at all workers, by its public name."""

    provider: str
    key: str
    benched_s: int
    """The longest that some worker leaves it alone; 0: it is used."""
    reason: str
    in_flight: int
    limit: int | None
    """Calls in flight that it allows, as learned from refusals; None: not known."""


class ShownPlace(msgspec.Struct, frozen=True):
    """One model at one key of a provider, at all workers."""

    provider: str
    key: str
    model: str
    circuit: Circuit
    """The worst that some worker has."""
    open_s: int
    """The longest that some worker's circuit stays open; 0 behind it, too, while nobody has tried."""
    paused_s: int
    """The longest that some worker waits after a 429."""
    half_hour: tuple[int, int]
    first_token_ms: Percentiles | None
    tokens_per_s: Percentiles | None
    in_flight: int


class Overview(msgspec.Struct, frozen=True):
    offers: list[Offer]
    keys: list[ProviderKey]
    places: list[ShownPlace]

    def of(self, provider: str, model: str) -> Offer | None:
        """One offer, if anybody has called it."""
        return next((one for one in self.offers if one.provider == provider and one.model == model), None)


def overview(reports: Iterable[Report]) -> Overview:
    """What all workers together know."""
    places: dict[tuple[str, str], list[PlaceReport]] = {}
    keys: dict[tuple[str, str], list[KeyReport]] = {}
    benched: set[tuple[int, str, str]] = set()
    at: dict[int, int] = {}
    for worker, report in enumerate(reports):
        for key in report.keys:
            keys.setdefault((key.provider, key.key), []).append(key)
            if key.benched_s:
                benched.add((worker, key.provider, key.key))
        for place in report.places:
            places.setdefault((place.provider, place.model), []).append(place)
            at[id(place)] = worker

    def usable(place: PlaceReport) -> bool:
        out = (at[id(place)], place.provider, place.key) in benched
        return place.circuit == "closed" and not place.paused_s and not out

    offers = [_offer(provider, model, found, [usable(one) for one in found]) for (provider, model), found in places.items()]
    offers.sort(key=lambda one: -sum(one.half_hour))
    shown = sorted(offers[:OFFERS_MAX], key=lambda one: (one.provider, one.model))
    by_key: dict[tuple[str, str, str], list[PlaceReport]] = {}
    for found in places.values():
        for place in found:
            by_key.setdefault((place.provider, place.key, place.model), []).append(place)
    single = [_place(found) for found in by_key.values()]
    single.sort(key=lambda one: -sum(one.half_hour))
    single = sorted(single[:PLACES_MAX], key=lambda one: (one.provider, one.key, one.model))
    return Overview(shown, [_key(provider, key, found) for (provider, key), found in sorted(keys.items())], single)


_CIRCUITS: tuple[Circuit, ...] = ("open", "probing", "closed")
"""From worst to well."""


def _place(found: list[PlaceReport]) -> ShownPlace:
    first = found[0]
    return ShownPlace(
        first.provider,
        first.key,
        first.model,
        next(name for name in _CIRCUITS if any(one.circuit == name for one in found)),
        max(one.open_s for one in found),
        max(one.paused_s for one in found),
        _sum(one.half_hour for one in found),
        percentiles(merged(one.first_token_ms for one in found)),
        percentiles(merged(one.tokens_per_s for one in found)),
        sum(one.in_flight for one in found),
    )


def _offer(provider: str, model: str, places: list[PlaceReport], usable: list[bool]) -> Offer:
    state: State = "healthy" if any(usable) else "ejected"
    if state == "ejected" and any(place.circuit == "probing" for place in places):
        state = "probing"
    return Offer(
        provider,
        model,
        state,
        _sum(place.five_minutes for place in places),
        _sum(place.half_hour for place in places),
        _sum(place.day for place in places),
        percentiles(merged(place.first_token_ms for place in places)),
        percentiles(merged(place.tokens_per_s for place in places)),
        sum(place.in_flight for place in places),
    )


def _sum(counts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    good = bad = 0
    for succeeded, failed in counts:
        good += succeeded
        bad += failed
    return good, bad


def _key(provider: str, key: str, found: list[KeyReport]) -> ProviderKey:
    worst = max(found, key=lambda one: one.benched_s)
    limits = [one.limit for one in found if one.limit is not None]
    return ProviderKey(
        provider, key, worst.benched_s, worst.reason, sum(one.in_flight for one in found), sum(limits) if limits else None
    )


def percent(counts: tuple[int, int]) -> float | None:
    """The share that succeeded, 0 to 100; None without attempts."""
    good, bad = counts
    return round(100 * good / (good + bad), 2) if good + bad else None


def offers_json(seen: Overview) -> list[dict[str, Any]]:
    """The offers, as the command and the page show them."""
    return [
        {
            "provider": one.provider,
            "model": one.model,
            "state": one.state,
            "uptime_last_5m": percent(one.five_minutes),
            "uptime_last_30m": percent(one.half_hour),
            "uptime_last_1d": percent(one.day),
            "first_token_ms": as_json(one.first_token_ms),
            "tokens_per_s": as_json(one.tokens_per_s),
            "in_flight": one.in_flight,
        }
        for one in seen.offers
    ]


def keys_json(seen: Overview) -> list[dict[str, Any]]:
    """The providers' keys by their public names: what is left alone, and what was learned."""
    return [
        {
            "provider": key.provider,
            "key": key.key or None,
            "benched_s": key.benched_s,
            "reason": key.reason or None,
            "in_flight": key.in_flight,
            "in_flight_max": key.limit,
        }
        for key in seen.keys
    ]


def places_json(seen: Overview) -> list[dict[str, Any]]:
    """Circuits, pauses and measurements of each model at each key, the keys by their public names."""
    return [
        {
            "provider": one.provider,
            "key": one.key or None,
            "model": one.model,
            "circuit": one.circuit,
            "open_s": one.open_s,
            "paused_s": one.paused_s,
            "uptime_last_30m": percent(one.half_hour),
            "first_token_ms": as_json(one.first_token_ms),
            "tokens_per_s": as_json(one.tokens_per_s),
            "in_flight": one.in_flight,
        }
        for one in seen.places
    ]


def as_json(found: Percentiles | None) -> dict[str, Any] | None:
    return None if found is None else {"p50": found.p50, "p75": found.p75, "p90": found.p90, "p99": found.p99}
