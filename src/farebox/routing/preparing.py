"""How a standing is made: a chain of models is resolved, their offers are filtered, ranked and weighed. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from farebox.billing.markup import MarkupPlan, Terms
from farebox.billing.pricing import outlay_nano
from farebox.billing.quotes import Quote
from farebox.catalog.catalog import Catalog
from farebox.catalog.model import Offer
from farebox.errors import FareboxError
from farebox.money import BASIS_POINTS
from farebox.routing import filters, fitness, hosted, sticky
from farebox.routing.allowance import Allowance
from farebox.routing.filters import Exclusion
from farebox.routing.measured import HEALTHY, Measured, OfferHealth, meets, percentile
from farebox.routing.own_keys import RANK_HOUSE, RANK_NEXT_KEY, OwnKey, OwnTargets, is_own, keys_for
from farebox.routing.preferences import MODELS_MAX, SUFFIXES, Preferences, split_suffix
from farebox.routing.standing import (
    RANK_EJECTED,
    RANK_MISSES,
    RANK_PROBING,
    RANK_UNMEASURED,
    RANK_UNNAMED,
    Entry,
    Group,
    Mode,
    Standing,
)
from farebox.routing.target import DEARER_TIERS, Target

NOMINAL_INPUT_TOKENS = 2048
NOMINAL_OUTPUT_TOKENS = 512
"""The call by which offers are weighed against each other. It is always the same one: weights that followed the prompt's size
would move a growing conversation from offer to offer."""
NOMINAL_CACHED_BP = 5_000
"""Of its input, where the offer has a prompt cache: the share that later turns find there."""
FRESH_US = 2_000_000
"""How long an order made of measurements, or of prices that change by the hour, is kept."""


class Meaning(msgspec.Struct, frozen=True):
    """A model and those of its offers that the name may mean."""

    slug: str
    offers: frozenset[str]


def resolve_chain(catalog: Catalog, names: Sequence[str], lenient: Collection[str] = ()) -> list[tuple[str, str, Meaning]]:
    """Names → (name, suffix, model and offers), without repeats. One of the `lenient` that cannot be called is passed over. There
    may be more of them than one call goes through: see `beyond`."""
    found: list[tuple[str, str, Meaning]] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    refused: FareboxError | None = None
    for index, name in enumerate(names):
        base, suffix = split_suffix(name)
        try:
            resolved = catalog.resolve(base)
        except FareboxError as error:
            if index:
                error.param = "models"
            if name not in lenient:
                raise
            refused = refused or error
            continue
        offers = tuple(offer_key(offer) for offer in resolved.offers)
        if (resolved.model.slug, offers) not in seen:
            seen.add((resolved.model.slug, offers))
            found.append((base, suffix, Meaning(resolved.model.slug, frozenset(offers))))
    if not found:
        assert refused is not None, "a chain has at least one name"
        raise refused
    return found


def beyond(
    left: Sequence[tuple[str, str, Meaning]], targets: Mapping[str, tuple[Target, ...]]
) -> tuple[Exclusion, ...]:
    """The offers of those models that a call has too many of, for whoever asks why they are not tried."""
    reason = f"its model comes after the {MODELS_MAX} models that one call may go through"
    return tuple(
        _excluded(target, ("models_max", reason))
        for _, _, meaning in left
        for target in targets[meaning.slug]
        if offer_key(target.offer) in meaning.offers
    )


def prepare(
    chain: Sequence[tuple[str, str, Meaning]],
    own_ways: Sequence[Preferences],
    targets: Mapping[str, tuple[Target, ...]],
    wanted: Preferences,
    *,
    asked: Preferences,
    markup: MarkupPlan,
    volume_nano: int,
    wire: str,
    service_tier: str | None,
    policy: str,
    health: Measured,
    now_us: int,
    day: str,
    allowance: Allowance | None = None,
    own_keys: Sequence[OwnKey] = (),
    own_key_terms: Terms | None = None,
    own_targets: OwnTargets | None = None,
) -> Standing:
    """Filter and weigh the offers of a chain of models.

    `own_ways` are the preferences for each model: `wanted`, with what the suffix of its name stands for.
    `own_keys` are the caller's own at providers, charged by `own_key_terms`: their offers come first.
    """
    excluded: list[Exclusion] = []
    groups: list[tuple[list[Entry], Preferences]] = []
    fleeting = False
    for (name, _, meaning), local in zip(chain, own_ways, strict=True):
        entries: list[Entry] = []
        fleeting = fleeting or local.sort in ("throughput", "latency")
        offered: Sequence[_Offered] = [
            _Offered(target) for target in targets[meaning.slug] if offer_key(target.offer) in meaning.offers
        ]
        if own_keys and own_targets is not None:
            offered = _with_own_keys(offered, own_keys, own_targets, excluded)
        for target, behind, note in offered:
            offer = target.offer
            if not (target.house or is_own(target)):
                why = f"`{target.provider.name}` is called by customers' own keys alone, and there is none of yours"
                excluded.append(_excluded(target, ("own_key", why)))
                continue
            rule = None if allowance is None else allowance.forbids(target)
            if rule is not None:
                excluded.append(_excluded(target, rule))
                continue
            tier = _tier(target, local, wire, service_tier, day)
            terms = own_key_terms if is_own(target) else None
            if terms is None:
                terms = markup.terms(target.model.slug, offer.provider, volume_nano)
            quoted = target.quote_at(now_us, day, tier, terms)
            if quoted is None:
                dear = f" for the service tier `{tier}`" if tier in DEARER_TIERS else ""
                excluded.append(_excluded(target, ("price", f"no price in force today{dear}")))
                continue
            rule = None if allowance is None else allowance.too_dear((quoted.schedule.rates,), quoted)
            rule = rule or filters.ruled_out(target, local, quoted) or hosted.acts_alone(target, quoted)
            if rule is not None:
                excluded.append(_excluded(target, rule))
                continue
            price = offer.price_on(day)
            timed = price is not None and price.off_peak is not None
            fleeting = fleeting or timed
            seen = health.view(target, now_us)
            entry = _entry(target, not timed, quoted, terms, local, name, tier, service_tier, seen, day)
            if behind or note:
                reason = "; ".join(filter(None, (note, entry.reason)))
                entry = replace(entry, rank=entry.rank + behind, reason=reason)
            entries.append(entry)
        if entries:
            groups.append((_capped(entries, health, now_us), local))
    if wanted.across_models and groups:
        groups = [([entry for entries, _ in groups for entry in entries], groups[0][1])]
    midnight = (now_us // 86_400_000_000 + 1) * 86_400_000_000
    fleeting = fleeting or wanted.throughput_min is not None or wanted.latency_max_ms is not None
    made = tuple(_group(entries, local) for entries, local in groups)
    return Standing(
        made,
        tuple(excluded),
        wanted,
        asked,
        health.epoch + health.own_epoch if own_keys else health.epoch,
        min(now_us + FRESH_US, midnight) if fleeting else midnight,
        policy,
        all(len(group.entries) == 1 for group in made),
        any(group.caching for group in made),
        wanted.price_max is None and not wanted.require_parameters,
        allowance,
        mixed=len({entry.target.wire == wire for group in made for entry in group.entries}) == 2,
    )


class _Offered(NamedTuple):
    """An offer as it is called: with the house's key, or with one of the caller's own."""

    target: Target
    behind: int = 0
    """Its rank beside what else it is ranked by."""
    note: str = ""


def _with_own_keys(
    offered: Sequence[_Offered], keys: Sequence[OwnKey], own: OwnTargets, excluded: list[Exclusion]
) -> Sequence[_Offered]:
    """The offers with each of the caller's keys, and with the house's where those allow it."""
    found: list[_Offered] = []
    for target, _, _ in offered:
        alone = ""
        mine = keys_for(keys, target)
        for number, key in enumerate(mine):
            if key.always_use:
                alone = alone or key.shown
            if key.secret:
                found.append(_Offered(own.of(target, key), number * RANK_NEXT_KEY, f"by your own key `{key.shown}`"))
            else:
                broken = f"your own key `{key.shown}` cannot be opened; store it again"
                excluded.append(_excluded(target, ("own_key", broken)))
        if alone:
            why = f"only your own key `{alone}` is used at `{target.provider.name}`"
            excluded.append(_excluded(target, ("own_key.always_use", why)))
        elif target.house or not mine:
            found.append(_Offered(target, RANK_HOUSE))
    return found


def _capped(entries: list[Entry], health: Measured, now_us: int) -> list[Entry]:
    """The same with no more offers put behind the others than may be: of those that are out, the ones that did worst.

    Only the house's: how customers' keys do says nothing about a provider, and no share of it.
    """
    house = [entry for entry in entries if not is_own(entry.target)]
    out = [entry for entry in house if entry.state == "ejected"]
    most = max(len(house) * health.ejected_max_percent // 100, 1)
    if len(out) <= most:
        return entries
    out.sort(key=lambda entry: health.view(entry.target, now_us).success or 0.0)
    kept = {id(entry) for entry in out[most:]}
    return [
        replace(entry, rank=entry.rank - RANK_EJECTED, reason=f"{entry.reason}, but so are too many")
        if id(entry) in kept
        else entry
        for entry in entries
    ]


def offer_key(offer: Offer) -> str:
    """An offer's name within its model."""
    return f"{offer.provider}/{offer.id}/{offer.variant}"


def _excluded(target: Target, rule: tuple[str, str]) -> Exclusion:
    return Exclusion(target.model.slug, target.provider.name, target.offer.id, *rule)


def suffixed(wanted: Preferences, suffix: str) -> Preferences:
    """A suffix stands for a sort, unless the request states one, and for a service tier."""
    if not suffix or wanted.sort is not None or wanted.order:
        return wanted
    sort, tier = SUFFIXES[suffix]
    return msgspec.structs.replace(wanted, sort=sort, tier=tier, weights=())


def _tier(target: Target, wanted: Preferences, wire: str, asked: str | None, day: str) -> str | None:
    """The call's own service tier, or the one that a suffix stands for where the offer has a price for it."""
    wish = wanted.tier
    if asked is not None or not wish or not target.wire == wire == "openai_chat":
        return asked
    price = target.offer.price_on(day)
    return wish if price is not None and wish in price.service_tiers else None


def nominal_nano(quoted: Quote, caching: bool) -> int:
    """What the nominal call costs the caller, cache hits included."""
    rates = quoted.schedule.rates
    cached = NOMINAL_INPUT_TOKENS * NOMINAL_CACHED_BP // BASIS_POINTS if caching else 0
    cost = (NOMINAL_INPUT_TOKENS - cached) * rates.input + cached * rates.cache_read
    cost += NOMINAL_OUTPUT_TOKENS * rates.output + rates.request
    return outlay_nano(cost, quoted.markup_bp, quoted.fees)


def _entry(
    target: Target,
    steady: bool,
    quoted: Quote,
    terms: Terms,
    wanted: Preferences,
    name: str,
    tier: str | None,
    asked_tier: str | None,
    seen: OfferHealth,
    day: str,
) -> Entry:
    offer = target.offer
    upstream_id, encoded = offer.id, target.upstream_id_json
    if offer.aliases:
        asked = name.rpartition("/")[2]
        if asked in offer.aliases:
            upstream_id, encoded = asked, msgspec.json.encode(asked)
    rank = {HEALTHY: 0, "probing": RANK_PROBING}.get(seen.state, RANK_EJECTED)
    unmeasured = False
    caching = "prompt_caching" in offer.capabilities and quoted.schedule.rates.cache_read < quoted.schedule.rates.input
    named = filters.matches(target, wanted.order)
    position = float(wanted.order.index(named) if named is not None else len(wanted.order))
    notes = [] if seen.state == HEALTHY else [seen.state]
    distance = float(nominal_nano(quoted, caching) + 1)
    distance *= distance
    if wanted.order:
        notes.append(f"`order` names it {int(position) + 1}." if named is not None else "not in `order`")
    elif wanted.weights:
        weight = next((weight for ref, weight in wanted.weights if filters.matches(target, (ref,)) is not None), 0)
        distance = 1.0 / weight if weight else 1.0
        rank += 0 if weight else RANK_UNNAMED
        notes.append(f"weight {weight}" if weight else "not among the policy's weights")
    if wanted.throughput_min is not None:
        rank += _preferred(meets(seen.tokens_per_s, wanted.throughput_min, at_least=True), "throughput", notes)
    if wanted.latency_max_ms is not None:
        rank += _preferred(meets(seen.first_token_ms, wanted.latency_max_ms, at_least=False), "latency", notes)
    if wanted.sort in ("throughput", "latency") and named is None and not wanted.weights:
        value = percentile(seen.tokens_per_s if wanted.sort == "throughput" else seen.first_token_ms, "p50")
        unmeasured = value is None
        # Behind the listed ones; unmeasured ones behind all.
        position = float("inf") if value is None else -value if wanted.sort == "throughput" else value
        position = position if not wanted.order else len(wanted.order) + _squeezed(position)
        unit = "tokens/s" if wanted.sort == "throughput" else "ms to the first token"
        notes.append("not measured yet" if value is None else f"{value:.0f} {unit}")
    fields: list[tuple[str, bytes]] = []
    if tier is not None and tier != asked_tier:
        fields.append(("service_tier", msgspec.json.encode(tier)))
    if filters.delegates(target):
        told = filters.forwarded(target, wanted, quoted.markup_bp)
        if told is not None:
            fields.append(("provider", told))
    return Entry(
        target=target,
        quoted=quoted if steady else None,
        terms=terms,
        tier=tier,
        upstream_id=upstream_id,
        upstream_id_json=encoded,
        context_window=offer.context_window,
        output_max=offer.max_output_tokens,
        rank=rank,
        position=position,
        distance=distance,
        salt=sticky.salt(offer_key(offer)),
        share_bp=0,
        caching=caching,
        fields=tuple(fields),
        state=seen.state,
        unmeasured=unmeasured,
        day=day,
        reason="; ".join(notes),
    )


def _squeezed(value: float) -> float:
    """Any number → (0, 1), in the same order."""
    return 1.0 if value == float("inf") else 0.5 + value / (2.0 * (1.0 + abs(value)))


def _preferred(met: bool | None, what: str, notes: list[str]) -> int:
    if met:
        return 0
    notes.append(f"misses the preferred {what}" if met is False else f"its {what} is not measured yet")
    return RANK_MISSES if met is False else RANK_UNMEASURED


def _group(entries: list[Entry], wanted: Preferences) -> Group:
    entries = sorted(entries, key=lambda entry: (entry.rank, entry.position))
    mode: Mode = "chance"
    if wanted.sort == "price" and not wanted.weights:
        mode = "price"
    elif wanted.sort is not None and not wanted.weights:
        mode = "measured"
    nearest = min(entry.distance for entry in entries)
    entries = [replace(entry, distance=entry.distance / nearest) for entry in entries]
    if mode == "chance":
        first = (entries[0].rank, entries[0].position)
        equals = [entry for entry in entries if (entry.rank, entry.position) == first]
        total = sum(1 / entry.distance for entry in equals)
        entries = [
            replace(entry, share_bp=round(BASIS_POINTS / entry.distance / total)) if entry in equals else entry
            for entry in entries
        ]
    offers = [entry.target.offer for entry in entries]
    first = entries[0]
    return Group(
        entries=tuple(entries),
        mode=mode,
        level=all((entry.rank, entry.position) == (first.rank, first.position) for entry in entries),
        caching=any(entry.caching for entry in entries),
        common=frozenset[str].intersection(*(offer.capabilities for offer in offers)),
        output_min=min(offer.max_output_tokens for offer in offers),
        input_min=min(fitness.input_limit(offer) for offer in offers),
        explore=not wanted.order and any(entry.unmeasured for entry in entries),
        first_offer_only=not wanted.allow_fallbacks and not wanted.order,
    )
