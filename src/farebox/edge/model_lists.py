"""Model lists in three dialects: OpenAI's with OpenRouter's fields, Anthropic's, Codex's."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from farebox.billing.markup import Terms
from farebox.catalog.model import Model
from farebox.catalog.price import Rates
from farebox.errors import invalid
from farebox.money import PICO_PER_NANO
from farebox.routing.target import Target

PAGE_MAX = 1000
_PRICE_DECIMALS = 16
"""Picos per token times basis points: every marked-up price is exact."""

PARAMETERS = (
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "n", "logprobs", "top_logprobs",
    "frequency_penalty", "presence_penalty", "logit_bias", "user", "stream",
)  # fmt: skip
"""Parameters that are forwarded to every model; those that depend on the model are added by capability."""
_BY_CAPABILITY: dict[str, tuple[str, ...]] = {
    "tools": ("tools", "tool_choice"),
    "parallel_tools": ("parallel_tool_calls",),
    "json_mode": ("response_format",),
    "json_schema": ("structured_outputs", "response_format"),
    "reasoning": ("reasoning_effort", "reasoning"),
    "web_search": ("web_search_options",),
}


def per_token(rate: int, markup_bp: int, fixed: int = 0) -> str:
    """What a customer pays per unit: pico-dollars, basis points and fixed pico-dollars → an exact decimal string of dollars."""
    whole, fraction = divmod(rate * (10_000 + markup_bp) + fixed * 10_000, 10**_PRICE_DECIMALS)
    digits = f"{fraction:0{_PRICE_DECIMALS}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _created(model: Model) -> int:
    if model.released is None:
        return 0
    try:
        parts = [int(part) for part in model.released.split("-")]
    except ValueError:
        return 0
    year, month, day = (*parts, 1, 1)[:3]
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def pricing(rates: Rates, terms: Terms) -> dict[str, str]:
    markup_bp = terms.bp
    per_call_pico = terms.fees.per_call_nano * PICO_PER_NANO if terms.fees is not None else 0
    return {
        "prompt": per_token(rates.input, markup_bp),
        "completion": per_token(rates.output, markup_bp),
        "request": per_token(rates.request, markup_bp, per_call_pico),
        "image": per_token(rates.image_input, markup_bp),
        "image_output": per_token(rates.image_output, markup_bp),
        "audio": per_token(rates.audio_input, markup_bp),
        "web_search": per_token(rates.web_searches, markup_bp),
        "internal_reasoning": per_token(rates.reasoning, markup_bp),
        "input_cache_read": per_token(rates.cache_read, markup_bp),
        "input_cache_write": per_token(rates.cache_write_5m, markup_bp),
        "input_cache_write_1h": per_token(rates.cache_write_1h, markup_bp),
    }


def _cheapest(targets: Sequence[Target], day: str) -> tuple[Target, Rates, list[dict[str, Any]]] | None:
    """The offer whose price is shown, and the tiers that override it."""
    best: tuple[int, Target, Rates, list[dict[str, Any]]] | None = None
    for target in targets:
        price = target.offer.price_on(day)
        if price is None:
            continue
        rates = price.standard.rates
        overrides = [
            {"min_prompt_tokens": tier.above + 1, **pricing(tier.rates, target.listed)} for tier in price.standard.tiers
        ]
        if best is None or rates.input + rates.output < best[0]:
            best = (rates.input + rates.output, target, rates, overrides)
    return None if best is None else best[1:]


def openai_model(model: Model, targets: Sequence[Target], day: str) -> dict[str, Any]:
    """One model as OpenAI's clients need it, with OpenRouter's fields."""
    shown = _cheapest(targets, day)
    parameters: set[str] = set(PARAMETERS)
    for capability in model.capabilities:
        parameters.update(_BY_CAPABILITY.get(capability, ()))
    item: dict[str, Any] = {
        "id": model.slug,
        "object": "model",
        "created": _created(model),
        "owned_by": model.slug.partition("/")[0],
        "canonical_slug": model.slug,
        "name": model.name,
        "description": "",
        "context_length": model.context_window,
        "knowledge_cutoff": model.knowledge_cutoff,
        "architecture": {
            "modality": f"{'+'.join(model.input_modalities)}->{'+'.join(model.output_modalities)}",
            "input_modalities": list(model.input_modalities),
            "output_modalities": list(model.output_modalities),
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "per_request_limits": None,
        "supported_parameters": sorted(parameters),
        "providers": sorted({target.provider.name for target in targets}),
    }
    if shown is not None:
        target, rates, overrides = shown
        item["pricing"] = {**pricing(rates, target.listed), **({"overrides": overrides} if overrides else {})}
        item["top_provider"] = {
            "context_length": target.offer.context_window,
            "max_completion_tokens": target.offer.max_output_tokens,
            "is_moderated": False,
        }
    return item


def _callable(targets: Mapping[str, tuple[Target, ...]], day: str) -> list[Model]:
    """Models with an enabled offer that has a price, by slug."""
    found: list[Model] = []
    for slug, offers in targets.items():
        if any(target.offer.price_on(day) is not None for target in offers):
            found.append(offers[0].model)
            assert offers[0].model.slug == slug, "targets are filed under their model"
    return sorted(found, key=lambda model: model.slug)


def openai_list(targets: Mapping[str, tuple[Target, ...]], day: str) -> dict[str, Any]:
    data = [openai_model(model, targets[model.slug], day) for model in _callable(targets, day)]
    return {"object": "list", "data": data, "total_count": len(data), "links": {"next": None}}


def anthropic_model(model: Model, _targets: Sequence[Target], _day: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.slug,
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(_created(model), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
    }


def anthropic_list(targets: Mapping[str, tuple[Target, ...]], day: str, query: Mapping[str, str]) -> dict[str, Any]:
    """A page of Anthropic's list: `limit`, `after_id`, `before_id`."""
    models = _callable(targets, day)
    limit_text = query.get("limit", "20")
    if not limit_text.isdigit() or not 1 <= int(limit_text) <= PAGE_MAX:
        raise invalid(f"`limit` must be from 1 to {PAGE_MAX}, not {limit_text[:32]!r}", param="limit")
    limit = int(limit_text)
    after, before = query.get("after_id"), query.get("before_id")
    if after is not None:
        models = [model for model in models if model.slug > after]
    if before is not None:
        models = [model for model in models if model.slug < before][-limit:]
    page = models[:limit]
    return {
        "data": [anthropic_model(model, (), day) for model in page],
        "has_more": len(models) > len(page),
        "first_id": page[0].slug if page else None,
        "last_id": page[-1].slug if page else None,
    }


def codex_list(targets: Mapping[str, tuple[Target, ...]], day: str) -> dict[str, Any]:
    return {
        "models": [
            {"slug": model.slug, "display_name": model.name, "context_window": model.context_window}
            for model in _callable(targets, day)
        ]
    }
