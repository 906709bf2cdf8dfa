"""Shared price lists → price records: LiteLLM's JSON map, genai-prices, and files in the catalog's own format. Pure.

Numbers are read as the text that they are, so float noise in a list (`1.8000000000000002e-07`) is told of, never rounded.
What a format does not speak of (fees per search, cheaper hours) is carried over from the price in force.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast

import msgspec

from farebox.catalog.errors import CatalogError
from farebox.catalog.loader import loads
from farebox.catalog.rates import write_price
from farebox.catalog.record import PriceRecord, RatesRecord, ScheduleRecord, TierRecord

Format = Literal["litellm", "genai-prices", "farebox"]
BYTES_MAX = 64 * 2**20
_LITELLM_PROVIDERS = {
    "gemini": "google", "together_ai": "together", "fireworks_ai": "fireworks", "dashscope": "alibaba", "text-completion-openai":
    "openai",
}  # fmt: skip
_GENAI_PROVIDERS = {"x-ai": "xai", "moonshotai": "moonshot", "alibaba-cloud": "alibaba"}
_LITELLM_RATES = {
    "input": "input_cost_per_token", "output": "output_cost_per_token", "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost", "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token", "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token", "image_input": "input_cost_per_image_token",
    "image_output": "output_cost_per_image_token",
}  # fmt: skip
_LITELLM_MODES = frozenset({"chat", "completion", "responses", None})
_GENAI_RATES = {
    "input": "input_mtok", "output": "output_mtok", "cache_read": "cache_read_mtok", "cache_write": "cache_write_mtok",
    "audio_input": "input_audio_mtok", "audio_output": "output_audio_mtok",
}  # fmt: skip
_ABOVE = re.compile(r"_above_(\d+)k_tokens$")


class Listed(msgspec.Struct, frozen=True):
    """A price as a list has it."""

    provider: str
    id: str
    record: PriceRecord
    variant: str = ""
    complete: bool = False
    """The format says everything that a price has: nothing is carried over."""


class Skipped(msgspec.Struct, frozen=True):
    """An entry that cannot be taken, and why."""

    place: str
    problem: str


def guess(data: bytes) -> Format:
    """Which format a file has."""
    head = data.lstrip()[:1]
    if head == b"[":
        return "genai-prices"
    return "farebox" if b'"offers"' in data.split(b"\n", 1)[0] else "litellm"


def read(data: bytes, form: Format, *, day: str) -> tuple[list[Listed], list[Skipped]]:
    """The prices of a list, in force from `day` on unless the list says otherwise. Raises `CatalogError` when it is not one."""
    if form == "farebox":
        return _own(data), []
    try:
        parsed: object = json.loads(data, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise CatalogError(f"not valid JSON: {error}") from None
    wanted = dict if form == "litellm" else list
    if not isinstance(parsed, wanted):
        raise CatalogError(f"not a list of the format {form}: its JSON is not {'an object' if wanted is dict else 'an array'}")
    found: list[Listed] = []
    skipped: list[Skipped] = []
    entries = _litellm(cast("dict[str, Any]", parsed), day) if form == "litellm" else _genai(cast("list[Any]", parsed), day)
    for entry in entries:
        (found if isinstance(entry, Listed) else skipped).append(entry)  # pyright: ignore[reportArgumentType]
    return found, skipped


def _own(data: bytes) -> list[Listed]:
    return [
        Listed(offer.provider, offer.id, write_price(price, offer.provider, offer.id, offer.variant), offer.variant, True)
        for model in loads(data, "the file")
        for offer in model.offers
        for price in offer.prices[-1:]
    ]


def _decimal(value: object) -> str | None:
    """A number of the list as plain decimal text; None for what is not there."""
    if value is None or isinstance(value, bool):
        return None
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if not number.is_finite():
        raise InvalidOperation
    return f"{number:f}"


def _per_million(value: object) -> str | None:
    text = _decimal(value)
    return None if text is None else _decimal(Decimal(text).scaleb(6))


def _litellm(parsed: Mapping[str, Any], day: str) -> Iterator[Listed | Skipped]:
    for name, entry in parsed.items():
        if not isinstance(entry, dict) or name == "sample_spec":
            continue
        fields = cast("dict[str, Any]", entry)
        provider = str(fields.get("litellm_provider", ""))
        if fields.get("mode") not in _LITELLM_MODES or fields.get("input_cost_per_token") is None:
            continue
        provider = _LITELLM_PROVIDERS.get(provider, provider)
        model = name.removeprefix(f"{fields.get('litellm_provider')}/")
        try:
            rates = _litellm_rates(fields, "")
            if rates is None:
                continue
            matches = [match for match in map(_ABOVE.search, fields) if match is not None]
            tiers = [
                TierRecord(above, _merged(rates, found))
                for above in sorted({int(match[1]) * 1_000 for match in matches})
                if (found := _litellm_fields(fields, f"_above_{above // 1_000}k_tokens"))
            ]
            service = {
                tier: ScheduleRecord(_merged(rates, found))
                for tier in ("flex", "priority")
                if (found := _litellm_fields(fields, f"_{tier}"))
            }
        except InvalidOperation:
            yield Skipped(name, "a price is not a number")
            continue
        yield Listed(
            provider, model, PriceRecord(rates, tuple(tiers), service, effective_from=day, checked=day, confidence="single")
        )


def _litellm_fields(fields: Mapping[str, Any], suffix: str) -> dict[str, str]:
    """The prices whose names end so; a one-hour write above a size has its own order of words."""
    found: dict[str, str] = {}
    for ours, theirs in _LITELLM_RATES.items():
        text = _per_million(fields.get(theirs + suffix))
        if text is not None:
            found[ours] = text
    return found


def _litellm_rates(fields: Mapping[str, Any], suffix: str) -> RatesRecord | None:
    found = _litellm_fields(fields, suffix)
    return RatesRecord(**found) if {"input", "output"} <= found.keys() else None


def _merged(base: RatesRecord, found: Mapping[str, str]) -> RatesRecord:
    """Rates of a tier; what it does not state costs as in the base."""
    return msgspec.structs.replace(base, **found)


def _genai(parsed: list[Any], day: str) -> Iterator[Listed | Skipped]:
    for listed in parsed:
        if not isinstance(listed, dict):
            continue
        provider = cast("dict[str, Any]", listed)
        name = str(provider.get("id", ""))
        models: list[dict[str, Any]] = provider.get("models") or []
        for model in models:
            place = f"{name}/{model.get('id')}"
            try:
                yield from _genai_model(_GENAI_PROVIDERS.get(name, name), model, place, day)
            except (InvalidOperation, AttributeError, TypeError, KeyError):
                yield Skipped(place, "its prices are not in the form that is known")


def _genai_model(provider: str, model: Mapping[str, Any], place: str, day: str) -> Iterator[Listed | Skipped]:
    prices: Any = model["prices"]
    chosen: Any = prices
    if isinstance(prices, list):
        chosen = None
        for conditional in cast("list[dict[str, Any]]", prices):
            constraint: dict[str, Any] = conditional.get("constraint") or {}
            start = constraint.get("start_date", constraint.get("start"))
            if constraint and start is None:
                yield Skipped(place, "its price depends on the hour; write it into a file of the catalog's own format")
                return
            if start is None or str(start)[:10] <= day:
                chosen = conditional["prices"]
    if chosen is None or not {"input_mtok", "output_mtok"} <= chosen.keys():
        return
    base: dict[str, str] = {}
    steps: dict[int, dict[str, str]] = {}
    for ours, theirs in _GENAI_RATES.items():
        value: Any = chosen.get(theirs)
        if isinstance(value, dict):
            tiered = cast("dict[str, Any]", value)
            for tier in tiered["tiers"]:
                text = _decimal(tier["price"])
                if text is not None:
                    steps.setdefault(int(tier["start"]), {})[ours] = text
            value = tiered["base"]
        text = _decimal(value)
        if text is not None:
            base[ours] = text
    rates = RatesRecord(**base)
    tiers = tuple(TierRecord(above, _merged(rates, found)) for above, found in sorted(steps.items()))
    yield Listed(
        provider, str(model["id"]), PriceRecord(rates, tiers, effective_from=day, checked=day, confidence="single")
    )


def carried_over(listed: Listed, current: PriceRecord) -> PriceRecord:
    """The listed price with what its format does not speak of taken from the price in force."""
    if listed.complete:
        return listed.record
    fees = {name: getattr(current.rates, name) for name in ("web_search", "request")}
    return msgspec.structs.replace(
        listed.record,
        rates=msgspec.structs.replace(listed.record.rates, **fees),
        off_peak=current.off_peak,
        multipliers=current.multipliers,
    )
