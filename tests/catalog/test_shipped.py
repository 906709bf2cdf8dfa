"""The catalog that ships: how much of it there is, that every price is exact, and that it can be built again."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from farebox.catalog import loader
from farebox.catalog.model import CAPABILITIES, Model, Offer
from farebox.catalog.record import ModelRecord, PriceRecord, RatesRecord
from farebox.money import format_rate, format_unit_rate, parse_rate, parse_unit_rate
from farebox.providers.registry import PROVIDERS

ROOT = Path(__file__).parents[2]
FACTS = Path(os.environ.get("FAREBOX_FACTS") or ROOT.parent / "shared" / "catalog" / "models.jsonl")
if FACTS.is_dir():
    FACTS /= "models.jsonl"

MODELS_MIN = 171
PROVIDERS_MIN = 14
LOAD_CPU_S_MAX = 0.15
DAY = "2026-11-25"


@pytest.fixture(scope="module")
def models() -> tuple[Model, ...]:
    return loader.load()


def every_offer(models: tuple[Model, ...]) -> list[tuple[Model, Offer]]:
    return [(model, offer) for model in models for offer in model.offers]


def test_there_is_enough_to_choose_from(models: tuple[Model, ...]) -> None:
    providers = Counter(offer.provider for _, offer in every_offer(models))
    print(f"{len(models)} models, {sum(providers.values())} offers, {len(providers)} providers: {providers.most_common()}")
    assert len(models) >= MODELS_MIN
    assert len(providers) >= PROVIDERS_MIN
    several = [model for model in models if len({offer.provider for offer in model.offers}) > 1]
    assert len(several) >= 100, "failover needs models with more than one provider"


def test_every_offer_can_be_called_and_priced(models: tuple[Model, ...]) -> None:
    for model, offer in every_offer(models):
        place = f"{model.slug} at {offer.provider}/{offer.id}"
        assert offer.provider in PROVIDERS, place
        assert offer.wire in PROVIDERS[offer.provider].speaks, place
        assert offer.price_on(DAY) is not None, place
        assert offer.price_on("1999-12-31") is not None, f"{place}: a clock set back finds a price"
        assert offer.max_output_tokens > 0 and offer.context_window > 0, place
        assert offer.capabilities <= set(CAPABILITIES), place


def test_every_price_says_where_it_is_from(models: tuple[Model, ...]) -> None:
    versions: Counter[str] = Counter()
    for model, offer in every_offer(models):
        for price in offer.prices:
            versions[price.version] += 1
            assert price.source and price.checked, f"{model.slug} at {offer.provider}"
            assert price.version.startswith(f"{offer.provider}/{offer.id}"), price.version
    assert max(versions.values()) == 1, "a version names one price"


def test_nothing_is_free_by_omission(models: tuple[Model, ...]) -> None:
    for model, offer in every_offer(models):
        for price in offer.prices:
            schedules = [price.standard, *price.service_tiers.values(), *([price.off_peak.schedule] if price.off_peak else [])]
            for rates in (rates for schedule in schedules for rates in schedule.reachable(2**31)):
                if rates.input:
                    assert min(rates.cache_write_5m, rates.cache_write_1h, rates.audio_input, rates.image_input) > 0, model.slug
                if rates.output:
                    assert min(rates.reasoning, rates.audio_output, rates.image_output) > 0, model.slug
            reported = PROVIDERS[offer.provider].charges_by_reported_cost
            if "web_search" in offer.capabilities and not reported:
                rates = price.standard.rates
                fee = rates.web_searches if offer.wire == "anthropic_messages" else rates.request
                assert fee > 0, f"{model.slug} at {offer.provider}"


def test_the_file_is_sorted_and_one_line_is_one_model() -> None:
    for path in loader.SHIPPED:
        lines = path.read_bytes().splitlines()
        slugs = [msgspec.json.decode(line)["slug"] for line in lines]
        assert slugs == sorted(set(slugs))


def _prices(record: PriceRecord) -> list[RatesRecord]:
    found = [record.rates, *(tier.rates for tier in record.tiers)]
    for tier in record.service_tiers.values():
        found += [tier.rates, *(step.rates for step in tier.tiers)]
    if record.off_peak:
        found += [record.off_peak.rates, *(tier.rates for tier in record.off_peak.tiers)]
    return found


def _significant(text: str) -> str:
    """`2.50` and `2.5` are one price."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def test_every_published_price_survives_the_integers() -> None:
    checked = 0
    for path in loader.SHIPPED:
        for line in path.read_bytes().splitlines():
            for offer in msgspec.json.decode(line, type=ModelRecord).offers:
                for rates in (rates for price in offer.prices for rates in _prices(price)):
                    for field in rates.__struct_fields__:
                        text = getattr(rates, field)
                        if text is None:
                            continue
                        unit = field in ("web_search", "request")
                        back = format_unit_rate(parse_unit_rate(text)) if unit else format_rate(parse_rate(text))
                        assert _significant(back) == _significant(text), f"{offer.provider}/{offer.id} {field}"
                        checked += 1
    assert checked > 3_000


def test_it_loads_quickly() -> None:
    loader.load()
    best = min(_cpu_s() for _ in range(3))
    assert best < LOAD_CPU_S_MAX, f"{best * 1000:.0f} ms"


def _cpu_s() -> float:
    before = time.process_time()
    loader.load()
    return time.process_time() - before


@pytest.mark.parametrize(
    ("slug", "provider", "expected"),
    [
        ("openai/gpt-4o", "openai", {"input": "2.50", "cache_read": "1.25", "output": "10.00"}),
        ("anthropic/claude-sonnet-4.5", "anthropic",
         {"input": "3.00", "cache_read": "0.30", "cache_write_5m": "3.75", "cache_write_1h": "6.00", "output": "15.00"}),
        ("google/gemini-2.5-pro", "google", {"input": "1.25", "cache_read": "0.125", "output": "10.00", "reasoning": "10.00"}),
        ("local/smollm2-135m-instruct", "local", {"input": "0.01", "cache_read": "0.005", "output": "0.02"}),
    ],
)  # fmt: skip
def test_prices_that_everybody_knows(models: tuple[Model, ...], slug: str, provider: str, expected: dict[str, str]) -> None:
    model = next(model for model in models if model.slug == slug)
    offer = next(offer for offer in model.offers if offer.provider == provider)
    rates = offer.prices[0].standard.rates
    assert {field: format_rate(getattr(rates, field)) for field in expected} == expected


def test_tiers_and_cheap_hours_are_there(models: tuple[Model, ...]) -> None:
    by_slug = {model.slug: model for model in models}
    gemini = next(o for o in by_slug["google/gemini-2.5-pro"].offers if o.provider == "google").prices[0]
    assert [(tier.above, format_rate(tier.rates.input)) for tier in gemini.standard.tiers] == [(200_000, "2.50")]
    assert set(gemini.service_tiers) == {"flex", "priority"}, "batch is no tier of a call"
    deepseek = next(o for o in by_slug["deepseek/deepseek-v4-pro"].offers if o.provider == "deepseek").prices[0]
    assert deepseek.off_peak is not None
    assert deepseek.off_peak.peak_minutes_utc == ((60, 240), (360, 600))
    assert format_rate(deepseek.off_peak.schedule.rates.input) == "0.66"


def test_googles_compatible_endpoint_claims_only_what_it_counts(models: tuple[Model, ...]) -> None:
    offers = [offer for _, offer in every_offer(models) if offer.provider == "google"]
    assert offers and all(offer.wire == "openai_chat" for offer in offers)
    assert not any(offer.capabilities & {"audio_input", "pdf", "video_input", "web_search"} for offer in offers)


def test_the_local_model_fits_its_server(models: tuple[Model, ...]) -> None:
    model = next(model for model in models if model.slug == "local/smollm2-135m-instruct")
    assert (model.context_window, model.max_output_tokens) == (8192, 4096)
    assert [(o.provider, o.id, o.wire) for o in model.offers] == [("local", "smollm2-135m-instruct", "openai_chat")]
    assert model.offers[0].prices[0].confidence == "operator"


@pytest.mark.skipif(not FACTS.is_file(), reason="no facts here; FAREBOX_FACTS says where they are")
def test_the_shipped_file_is_what_the_facts_give() -> None:
    tool = ROOT / "tools" / "build_catalog.py"
    done = subprocess.run([sys.executable, str(tool), str(FACTS), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout


@pytest.mark.skipif(not FACTS.is_file(), reason="no facts here; FAREBOX_FACTS says where they are")
def test_prices_are_those_of_the_facts(models: tuple[Model, ...]) -> None:
    facts = {model["slug"]: model for model in (msgspec.json.decode(line) for line in FACTS.read_bytes().splitlines())}
    compared = 0
    for model, offer in every_offer(models):
        if offer.provider == "local":
            continue
        fact = next(
            item
            for item in facts[model.slug]["offers"]
            if (item["provider"], item["upstream_id"]) == (offer.provider, offer.id)
        )
        rates = offer.prices[0].standard.rates
        for name in ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input"):
            field = "cache_write_5m" if name == "cache_write" else name
            stated = fact["usd_per_mtok"].get(name)
            if stated is not None and len(stated.partition(".")[2]) <= 6:
                assert getattr(rates, field) == parse_rate(stated), f"{model.slug} at {offer.provider}: {name}"
                compared += 1
    assert compared > 2_000
