"""`GET /v1/providers` and `GET /v1/models/{slug}/endpoints`: who can be called, and how they have done, in OpenRouter's shape."""

from collections.abc import Mapping, Sequence
from typing import Any

from farebox.catalog.model import Model
from farebox.edge.model_lists import openai_model, pricing
from farebox.routing.shown import Overview, as_json, percent
from farebox.routing.target import Target

_STATUS = {"healthy": 0, "probing": -1, "ejected": -2}
"""OpenRouter's numbers: 0 is well, below is worse."""


def providers_page(targets: Mapping[str, Sequence[Target]], seen: Overview) -> dict[str, Any]:
    """Every provider with a model that can be called."""
    rows: dict[str, Target] = {}
    models: dict[str, int] = {}
    for offers in targets.values():
        for target in offers:
            rows.setdefault(target.provider.name, target)
            models[target.provider.name] = models.get(target.provider.name, 0) + 1
    return {"data": [_provider(rows[name], models[name], seen) for name in sorted(rows)]}


def _provider(target: Target, models: int, seen: Overview) -> dict[str, Any]:
    name = target.provider.name
    own = [one for one in seen.offers if one.provider == name]
    good = sum(one.half_hour[0] for one in own)
    bad = sum(one.half_hour[1] for one in own)
    states = {one.state for one in own}
    status = "unknown" if not own else "healthy" if states == {"healthy"} else "degraded" if "healthy" in states else "down"
    return {
        "name": target.provider.title,
        "slug": name,
        "privacy_policy_url": None,
        "terms_of_service_url": None,
        "status_page_url": None,
        "models": models,
        "status": status,
        "uptime_last_30m": percent((good, bad)),
    }


def endpoints_page(model: Model, targets: Sequence[Target], day: str, seen: Overview) -> dict[str, Any]:
    """A model's offers, one by one."""
    shown = openai_model(model, targets, day)
    kept = ("id", "name", "created", "description", "architecture")
    return {"data": {**{name: shown[name] for name in kept}, "endpoints": [_endpoint(one, shown, day, seen) for one in targets]}}


def _endpoint(target: Target, shown: Mapping[str, Any], day: str, seen: Overview) -> dict[str, Any]:
    offer, provider = target.offer, target.provider
    price = offer.price_on(day)
    health = seen.of(provider.name, target.model.slug)
    return {
        "name": f"{provider.title} | {target.model.slug}",
        "tag": f"{provider.name}/{offer.variant}" if offer.variant else provider.name,
        "provider_name": provider.title,
        "quantization": offer.quantization or None,
        "pricing": None if price is None else pricing(price.standard.rates, target.listed),
        "context_length": offer.context_window,
        "max_completion_tokens": offer.max_output_tokens,
        "max_prompt_tokens": None,
        "supported_parameters": shown["supported_parameters"],
        "supports_implicit_caching": price is not None and price.standard.rates.cache_read < price.standard.rates.input,
        "status": None if health is None else _STATUS[health.state],
        "uptime_last_5m": None if health is None else percent(health.five_minutes),
        "uptime_last_30m": None if health is None else percent(health.half_hour),
        "uptime_last_1d": None if health is None else percent(health.day),
        "latency_last_30m": None if health is None else as_json(health.first_token_ms),
        "throughput_last_30m": None if health is None else as_json(health.tokens_per_s),
    }
