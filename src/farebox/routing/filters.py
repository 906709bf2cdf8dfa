"""Filters: which offers preferences rule out, whatever the call is. Pure; the reason is a sentence for whoever asks.

What a provider does not say about itself is no promise: an unknown retention is not zero, an unknown precision not `fp8`. A
provider that is itself a gateway of the same dialect (OpenRouter) is asked to keep such promises call by call instead:
`forwarded` writes the object that goes with the request.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from farebox.billing.quotes import Quote
from farebox.catalog.price import Rates
from farebox.money import BASIS_POINTS, PICO_PER_NANO, format_rate, format_unit_rate
from farebox.routing.preferences import Percentiles, Preferences, PriceCap, ProviderRef
from farebox.routing.target import Target


class Exclusion(msgspec.Struct, frozen=True):
    """An offer that was left out: by which rule, and why in words."""

    model: str
    provider: str
    id: str
    rule: str
    """The preference or requirement: `provider.only`, `max_tokens`, `vision`…"""
    reason: str


def matches(target: Target, refs: Iterable[ProviderRef]) -> ProviderRef | None:
    """The first reference that means this offer. Behind a gateway, a variant is a vendor of the gateway's."""
    for ref in refs:
        if ref.name == target.provider.name and (not ref.variant or delegates(target) or ref.variant == target.offer.variant):
            return ref
    return None


def delegates(target: Target) -> bool:
    """Whether the provider understands this dialect itself."""
    return target.speaks.dialect.extensions


def ruled_out(target: Target, wanted: Preferences, quoted: Quote) -> tuple[str, str] | None:
    """The rule that excludes the offer and why, or None."""
    name = target.provider.name
    if wanted.only and matches(target, wanted.only) is None:
        return "provider.only", f"`{name}` is not among {_list(wanted.only)}"
    ignored = matches(target, wanted.ignore)
    if ignored is not None and not (ignored.variant and delegates(target)):
        return "provider.ignore", f"`{ignored}` is to be ignored"
    if not wanted.allow_fallbacks and wanted.order and matches(target, wanted.order) is None:
        return "provider.allow_fallbacks", f"`{name}` is not in `order`, and others are not allowed"
    data = target.provider.data
    if not delegates(target):
        if wanted.no_training and data.trains is not False:
            said = "trains on prompts" if data.trains else "does not say whether it trains on prompts"
            return "provider.data_collection", f"`{name}` {said}"
        if wanted.zdr and data.retention_days != 0:
            days = data.retention_days
            said = "does not say how long it keeps prompts" if days is None else f"keeps prompts for {days} days"
            return "provider.zdr", f"`{name}` {said}"
        if wanted.quantizations and (target.offer.quantization or "unknown") not in wanted.quantizations:
            return "provider.quantizations", f"its precision is {target.offer.quantization or 'not known'}"
        if wanted.distillable and target.model.distillable is not True:
            return "provider.enforce_distillable_text", "the model is not known to allow training on its text"
    if wanted.regions and not any(region in wanted.regions for region in data.regions):
        said = ", ".join(data.regions) or "does not say where it is"
        return "regions", f"`{name}`: {said}"
    missing = wanted.require - target.offer.capabilities
    if missing:
        return "require", f"it lacks {', '.join(sorted(missing))}"
    if wanted.price_max is not None:
        return too_dear(wanted.price_max, (quoted.schedule.rates,), quoted)
    return None


def _list(refs: Iterable[ProviderRef]) -> str:
    return ", ".join(f"`{ref}`" for ref in refs)


def too_dear(cap: PriceCap, reachable: Iterable[Rates], quoted: Quote) -> tuple[str, str] | None:
    """The class of a price cap that one of these rate vectors exceeds, with the markup: all that the caller pays, to
    us and, by its own key, to the provider."""
    fees = quoted.fees
    points = quoted.markup_bp + BASIS_POINTS
    fee = 0 if fees is None else max(fees.per_call_nano, fees.min_nano or 0) * PICO_PER_NANO
    for rates in reachable:
        for name, rate, most in (
            ("prompt", rates.input, cap.prompt),
            ("completion", max(rates.output, rates.reasoning), cap.completion),
            ("request", rates.request, cap.request),
            ("image", rates.image_input, cap.image),
            ("audio", rates.audio_input, cap.audio),
        ):
            if most is None:
                continue
            paid = rate * points + (fee * BASIS_POINTS if name == "request" else 0)
            if paid > most * BASIS_POINTS:
                shown = format_unit_rate if name == "request" else format_rate
                marked = -(-paid // BASIS_POINTS)
                unit = "per request" if name == "request" else "per million"
                return f"provider.max_price.{name}", f"${shown(marked)} {unit} is more than ${shown(most)}"
    return None


def forwarded(target: Target, wanted: Preferences, markup_bp: int) -> bytes | None:
    """The `provider` object for a gateway behind us, as JSON, or None.

    It says only what is the gateway's to keep: our own `order`, `only` and `ignore` name our providers, so of them just the
    vendors behind this one go on (`openrouter/deepinfra`). `models` and `route` never do: another model than the held one
    would be charged at a price that nobody has agreed to. A price cap goes on without our markup.
    """
    given: dict[str, Any] = {}
    for field, refs in (("order", wanted.order), ("only", wanted.only), ("ignore", wanted.ignore)):
        vendors = [ref.variant for ref in refs if ref.name == target.provider.name and ref.variant]
        if vendors:
            given[field] = vendors
    if not wanted.allow_fallbacks:
        given["allow_fallbacks"] = False
    if wanted.require_parameters:
        given["require_parameters"] = True
    if wanted.no_training:
        given["data_collection"] = "deny"
    if wanted.zdr:
        given["zdr"] = True
    if wanted.distillable:
        given["enforce_distillable_text"] = True
    if wanted.quantizations:
        given["quantizations"] = wanted.quantizations
    if wanted.sort is not None:
        given["sort"] = wanted.sort
    if wanted.throughput_min is not None:
        given["preferred_min_throughput"] = _stated(wanted.throughput_min, 1)
    if wanted.latency_max_ms is not None:
        given["preferred_max_latency"] = _stated(wanted.latency_max_ms, 1000)
    if wanted.price_max is not None and markup_bp > -BASIS_POINTS:
        given["max_price"] = _unmarked(wanted.price_max, markup_bp)
    return msgspec.json.encode(given) if given else None


def _stated(bounds: Percentiles, divisor: int) -> dict[str, float]:
    return {
        name: value / divisor for name in Percentiles.__struct_fields__ if (value := getattr(bounds, name)) is not None
    }


def _unmarked(cap: PriceCap, markup_bp: int) -> dict[str, msgspec.Raw]:
    """Rounded down: what the provider may ask so that the caller, who pays the markup, stays within the cap."""
    found: dict[str, msgspec.Raw] = {}
    for name in PriceCap.__struct_fields__:
        most = getattr(cap, name)
        if most is not None:
            ours = most * BASIS_POINTS // (BASIS_POINTS + markup_bp)
            shown = format_unit_rate(ours) if name == "request" else format_rate(ours)
            found[name] = msgspec.Raw(shown.encode())
    return found
