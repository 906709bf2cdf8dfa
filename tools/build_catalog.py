"""Facts about models and prices → `src/farebox/catalog/models.jsonl`, the catalog that ships.

    python tools/build_catalog.py FACTS             write the file
    python tools/build_catalog.py FACTS --check     exit 1 when the file differs from what FACTS give

FACTS is a file of one model per line, with every offer that any source lists. Only what this gateway can call is taken over:
chat models, at providers with a row, on a wire that the row speaks. Google's native offers are taken on its OpenAI-compatible
endpoint, without what that endpoint cannot carry or does not count. Prices are copied as the decimal strings that they are; one
that is no exact number of pico-dollars stops the build, except where it only sizes a hold (see `exact`).
"""

# ruff: noqa: T201 - a command line tool prints

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from farebox.catalog.errors import CatalogError
from farebox.catalog.loader import loads
from farebox.catalog.model import CAPABILITIES
from farebox.catalog.record import (
    ModelRecord,
    OfferRecord,
    OffPeakRecord,
    PriceRecord,
    RatesRecord,
    ScheduleRecord,
    TierRecord,
    encode,
    shared,
)
from farebox.money import RATE_DECIMALS_MAX
from farebox.providers.registry import PROVIDERS

SHIPPED = Path(__file__).parents[1] / "src" / "farebox" / "catalog" / "models.jsonl"
CHECKED = "2026-11-23"
"""The day on which the facts were read."""

WIRES = {"chat_completions": "openai_chat", "messages": "anthropic_messages"}

COMPATIBLE_LACKS = frozenset({"audio_input", "audio_output", "pdf", "video_input", "web_search"})
"""What an offer loses on Google's compatible endpoint: no field carries it, or its dearer tokens (audio) are not told apart."""

ASSUMED = {"streaming": "", "temperature": "", "tool_choice": "tools", "parallel_tools": "tools"}
"""Capabilities taken for given where no source denies them, if the model has the named one: refusing a call that would have
worked is worse than forwarding the provider's own refusal. Anything else that is not stated counts as absent."""
NO_SAMPLING = frozenset({"anthropic", "openai"})
"""Vendors whose newer reasoning models refuse `temperature`: there, unstated means absent."""

CLASSES = {
    "input": "input", "output": "output", "cache_read": "cache_read", "cache_write": "cache_write",
    "cache_write_1h": "cache_write_1h", "reasoning": "reasoning", "audio_input": "audio_input", "audio_output": "audio_output",
    "image_input": "image_input", "image_output": "image_output",
}  # fmt: skip
"""Price names in the facts → ours. Others (twelve-hour cache writes, cached audio…) have no usage class on these wires."""
FEES = {"web_search": "web_search", "request": "request"}
SEARCH_MODEL = "-search-"
"""In the name of OpenAI's models of chat completions that search for every answer, whether `web_search_options` are given or not
(https://platform.openai.com/docs/guides/tools-web-search?api-mode=chat)."""

Facts = dict[str, Any]


def rates(prices: Facts, fees: Facts) -> RatesRecord:
    values = {ours: prices[theirs] for theirs, ours in CLASSES.items() if theirs in prices}
    values |= {ours: fees[theirs] for theirs, ours in FEES.items() if theirs in fees}
    return RatesRecord(**values)


def tiers(entries: list[Facts]) -> tuple[TierRecord, ...]:
    ordered = sorted(entries, key=lambda entry: entry["above"])
    return tuple(TierRecord(entry["above"], rates(entry["usd_per_mtok"], {})) for entry in ordered)


def exact(prices: Facts, reported: bool, findings: list[str], place: str) -> Facts:
    """The prices without those that would need rounding, at a provider whose own report is the charge.

    There the list price only sizes the hold, and a class without a price is held at `input`, which is more. Elsewhere the
    price stays, and reading the file refuses it.
    """
    kept: Facts = {}
    for name, text in prices.items():
        decimals = len(text.partition(".")[2].rstrip("0"))
        if reported and decimals > RATE_DECIMALS_MAX and name not in ("input", "output"):
            findings.append(f"{place}: `{name}` {text} has more than {RATE_DECIMALS_MAX} decimals, left out")
        else:
            kept[name] = text
    return kept


def price(offer: Facts, checked: str, findings: list[str]) -> PriceRecord:
    off_peak = offer.get("off_peak")
    source = offer["source"]
    reported = PROVIDERS[offer["provider"]].charges_by_reported_cost
    place = f"{offer['provider']}/{offer['upstream_id']}"

    def clean(prices: Facts) -> Facts:
        return exact(prices, reported, findings, place)

    return PriceRecord(
        rates=rates(clean(offer["usd_per_mtok"]), offer.get("usd_per_unit", {})),
        tiers=tiers([{**tier, "usd_per_mtok": clean(tier["usd_per_mtok"])} for tier in offer.get("tiers", [])]),
        service_tiers={
            name: ScheduleRecord(rates(tier["usd_per_mtok"], {}), tiers(tier.get("tiers", [])))
            for name, tier in sorted(offer.get("service_tiers", {}).items())
        },
        off_peak=OffPeakRecord(tuple(off_peak["peak_windows_utc"]), rates(off_peak["usd_per_mtok"], {})) if off_peak else None,
        multipliers=dict(sorted(offer.get("multipliers", {}).items())),
        checked=checked,
        source=tuple(source["price"]),
        confidence=source["confidence"],
    )


def capabilities(vendor: str, stated: Facts) -> set[str]:
    found = {name for name in CAPABILITIES if stated.get(name)}
    assumed = {name for name, needs in ASSUMED.items() if stated.get(name) is None and (not needs or needs in found)}
    if vendor in NO_SAMPLING and "reasoning" in found:
        assumed.discard("temperature")
    return found | assumed


def once_per_request(offer: Facts) -> Facts:
    """The offer of a model that searches for every answer, once: the fee per search is one per request."""
    fees = dict(offer["usd_per_unit"])
    fees["request"] = fees.pop("web_search")
    return {**offer, "usd_per_unit": fees}


def make_offer(offer: Facts, model: Facts, context: int, max_output: int, findings: list[str]) -> OfferRecord | None:
    """An offer that can be called, or None."""
    row = PROVIDERS.get(offer["provider"])
    if row is None:
        return None
    compatible = offer["provider"] == "google" and offer["api"] == "generate_content"
    wire = "openai_chat" if compatible else WIRES.get(offer["api"], "")
    if wire not in row.speaks:
        return None
    whole = capabilities(model["vendor"], model.get("capabilities", {}))
    own = capabilities(model["vendor"], {**model.get("capabilities", {}), **offer.get("capabilities_differ", {})})
    if compatible:
        own -= COMPATIBLE_LACKS
    if "second_input" in offer.get("usd_per_unit", {}):
        own.discard("audio_input")  # billed by the second, for which there is no usage class
    if wire == "openai_chat" and not row.charges_by_reported_cost:
        # Nobody reports on this wire how often it searched.
        if SEARCH_MODEL in offer["upstream_id"]:
            offer = once_per_request(offer)
        else:
            own.discard("web_search")
    elif "web_search" not in offer.get("usd_per_unit", {}) and not row.charges_by_reported_cost:
        own.discard("web_search")  # a search without a price would be free
    return OfferRecord(
        provider=offer["provider"],
        id=offer["upstream_id"],
        prices=(price(offer, CHECKED, findings),),
        wire=wire,
        aliases=tuple(sorted(offer.get("aliases", []))),
        variant="-".join(offer.get("scopes", [])),
        context=offer.get("context_window") if offer.get("context_window") != context else None,
        max_input=offer.get("max_input_tokens"),
        max_output=offer.get("max_output_tokens") if offer.get("max_output_tokens") != max_output else None,
        lacks=tuple(sorted(whole - own)),
        adds=tuple(sorted(own - whole)),
        efforts=tuple(offer.get("reasoning_efforts", [])),
        retires=offer.get("deprecation_date"),
    )


def text_first(modalities: list[str]) -> tuple[str, ...]:
    return shared(tuple(sorted(modalities, key=lambda name: (name != "text", name))))


def make_model(model: Facts, findings: list[str]) -> ModelRecord | str:
    """A line of the catalog, or why the model is left out."""
    if model["mode"] != "chat":
        return f"mode {model['mode']}"
    modalities = model.get("modalities") or {}
    if "text" not in modalities.get("output", ["text"]):
        return "no text output"
    context, max_output = model.get("context_window"), model.get("max_output_tokens")
    if not context or not max_output:
        return "no context window or output cap in any source"
    made = (make_offer(offer, model, context, max_output, findings) for offer in model["offers"])
    offers = [offer for offer in made if offer is not None]
    if not offers:
        return "no offer on a wire and at a provider that we call"
    return ModelRecord(
        slug=model["slug"],
        name=model["name"],
        context=context,
        max_output=max_output,
        offers=tuple(sorted(offers, key=lambda offer: (offer.provider, offer.id, offer.variant))),
        capabilities=tuple(sorted(capabilities(model["vendor"], model.get("capabilities", {})))),
        input=text_first(modalities.get("input", ["text"])),
        output=text_first(modalities.get("output", ["text"])),
        released=model.get("release_date"),
        cutoff=model.get("knowledge_cutoff"),
        open_weights=model.get("open_weights"),
    )


def build(facts: bytes) -> tuple[bytes, Counter[str], list[str]]:
    """The file's bytes, checked by reading them back; how many models were left out and why; prices not taken over."""
    findings: list[str] = []
    records: list[ModelRecord] = []
    left_out: Counter[str] = Counter()
    for line in facts.splitlines():
        made = make_model(msgspec.json.decode(line), findings)
        if isinstance(made, str):
            left_out[made] += 1
        else:
            records.append(made)
    data = encode(records)
    loads(data, SHIPPED.name)
    return data, left_out, findings


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the catalog that ships from a file of facts.")
    parser.add_argument("facts", type=Path, help="one model per line, with every offer of every source")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the shipped file differs")
    options = parser.parse_args()
    try:
        data, left_out, findings = build(options.facts.read_bytes())
    except CatalogError as error:
        print(f"the facts cannot be used as they are:\n{error}", file=sys.stderr)
        return 1
    models = loads(data)
    providers = Counter(offer.provider for model in models for offer in model.offers)
    print(f"{len(models)} models, {sum(providers.values())} offers, {len(providers)} providers")
    print(", ".join(f"{name} {count}" for name, count in providers.most_common()))
    for reason, count in left_out.most_common():
        print(f"left out: {count} × {reason}")
    for finding in findings:
        print(f"finding: {finding}")
    if not options.check:
        SHIPPED.write_bytes(data)
        return 0
    if not SHIPPED.is_file() or SHIPPED.read_bytes() != data:
        print(f"{SHIPPED.name} differs from what these facts give; run this tool without --check", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
