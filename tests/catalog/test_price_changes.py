"""What differs between two prices, what of it asks for a second look, and what shared lists say."""

import json

import msgspec
import pytest

from farebox.catalog import imports
from farebox.catalog.book import Version, overlay, price_of, version_name
from farebox.catalog.changes import changes, passed
from farebox.catalog.errors import CatalogError, PriceError
from farebox.catalog.loader import load
from farebox.catalog.price import OffPeak, Price, Rates, Schedule, Tier
from farebox.catalog.record import PriceRecord, RatesRecord, TierRecord
from farebox.catalog.writer import dump

BASE = RatesRecord("2.50", "10.00", cache_read="1.25", request="0.001")


def price(rates: RatesRecord = BASE, **more: object) -> Price:
    return price_of(PriceRecord(rates, effective_from="2026-11-01", **more), "openai", "m", "")  # type: ignore[arg-type]


def finding(new: Price, old: Price | None = None) -> dict[str, str]:
    return {change.place: change.finding for change in changes(old or price(), new)}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (BASE, {}),
        (msgspec.structs.replace(BASE, input="2.60"), {"input": ""}),
        (msgspec.structs.replace(BASE, input="5.00"), {"input": ""}),
        (msgspec.structs.replace(BASE, input="5.000001"), {"input": "more than doubles"}),
        (msgspec.structs.replace(BASE, output="4.99"), {"output": "is less than half"}),
        (msgspec.structs.replace(BASE, input="0"), {"input": "becomes free"}),
        (msgspec.structs.replace(BASE, web_search="0.01"), {"web_searches": "was free"}),
        (msgspec.structs.replace(BASE, input="2500"), {"input": "changes by a factor of 1000: is it the same unit?"}),
        (msgspec.structs.replace(BASE, input="0.0025"), {"input": "changes by a factor of 1000: is it the same unit?"}),
        (msgspec.structs.replace(BASE, cache_read=None), {"cache_read": "its own price is lost: it would bill as `input`"}),
        (msgspec.structs.replace(BASE, reasoning="12.00"), {"reasoning": ""}),
    ],
)
def test_a_change_says_why_it_asks(rates: RatesRecord, expected: dict[str, str]) -> None:
    assert finding(price(rates)) == expected


def test_classes_without_a_price_of_their_own_follow_silently() -> None:
    found = changes(price(), price(msgspec.structs.replace(BASE, output="11.00")))
    assert [(change.place, change.old, change.new) for change in found] == [("output", "10.00", "11.00")]


def test_lost_tiers_services_and_hours_ask() -> None:
    tiered = price(tiers=(TierRecord(200_000, msgspec.structs.replace(BASE, input="5.00")),))
    assert list(finding(price(), tiered)) == ["above 200000"] and "lost" in finding(price(), tiered)["above 200000"]
    assert finding(tiered, price()) == {"above 200000": ""}
    flex = msgspec.structs.replace(price(), service_tiers={"flex": Schedule(Rates(input=1))})
    assert finding(price(), flex) == {"service tier flex": "the service tier `flex` is lost"}
    hours = msgspec.structs.replace(price(), off_peak=OffPeak(Schedule(Rates()), ((0, 60),)))
    assert finding(price(), hours) == {"off peak": "the cheaper hours are lost"}
    deep = msgspec.structs.replace(flex, service_tiers={"flex": Schedule(Rates(input=3), (Tier(5, Rates()),))})
    assert finding(deep, flex) == {"flex: input": "more than doubles", "flex: above 5": ""}


def test_a_provider_above_our_price_is_seen() -> None:
    dearer = price(msgspec.structs.replace(BASE, input="2.76"))
    assert passed(price(), dearer, 1_000) == ["input", "cache_write_5m", "cache_write_1h", "audio_input", "image_input"]
    assert passed(price(), dearer, 1_100) == [] and passed(price(), price(), 0) == []
    assert "output" in passed(price(), price(), -1)


LITELLM = {
    "sample_spec": {"input_cost_per_token": 0, "output_cost_per_token": 0},
    "gemini/gemini-2.5-pro": {
        "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-07, "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05, "input_cost_per_token_flex": 6.25e-07,
    },
    "text-embedding-3-small": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08},
    "odd": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": "x", "output_cost_per_token": 1},
    "noisy": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-07, "output_cost_per_token": 1e-07},
}  # fmt: skip


def test_litellms_map_is_read_exactly() -> None:
    text = json.dumps(LITELLM).replace('"output_cost_per_token": 1e-07}', '"output_cost_per_token": 1.8000000000000002e-07}')
    assert imports.guess(text.encode()) == "litellm"
    found, skipped = imports.read(text.encode(), "litellm", day="2026-11-25")
    (gemini, noisy) = found
    assert (gemini.provider, gemini.id) == ("google", "gemini-2.5-pro")
    read = price_of(gemini.record, "google", "gemini-2.5-pro", "")
    assert (read.standard.rates.input, read.standard.rates.cache_read) == (1_250_000, 125_000)
    assert [(tier.above, tier.rates.input, tier.rates.output, tier.rates.cache_read) for tier in read.standard.tiers] == [
        (200_000, 2_500_000, 15_000_000, 125_000)
    ]
    assert read.service_tiers["flex"].rates.input == 625_000 and read.service_tiers["flex"].rates.output == 10_000_000
    assert [one.place for one in skipped] == ["odd"]
    with pytest.raises(PriceError, match="more than 6 decimals"):
        price_of(noisy.record, "openai", "noisy", "")


GENAI = [
    {
        "id": "x-ai",
        "models": [
            {
                "id": "grok-9",
                "prices": {"input_mtok": 3, "output_mtok": {"base": 15, "tiers": [{"start": 128000, "price": 30.5}]}},
            },
            {
                "id": "grok-dated",
                "prices": [
                    {"prices": {"input_mtok": 1, "output_mtok": 2}},
                    {"constraint": {"start_date": "2026-11-01"}, "prices": {"input_mtok": 0.5, "output_mtok": 1}},
                    {"constraint": {"start_date": "2027-01-01"}, "prices": {"input_mtok": 9, "output_mtok": 9}},
                ],
            },
            {
                "id": "grok-night",
                "prices": [{"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 1}}],
            },
            {"id": "grok-odd", "prices": {"input_mtok": "?", "output_mtok": 1}},
        ],
    }
]


def test_genai_prices_are_read_with_tiers_and_dates() -> None:
    data = json.dumps(GENAI).encode()
    assert imports.guess(data) == "genai-prices"
    found, skipped = imports.read(data, "genai-prices", day="2026-11-25")
    assert [(one.provider, one.id, one.record.rates.input, one.record.rates.output) for one in found] == [
        ("xai", "grok-9", "3", "15"), ("xai", "grok-dated", "0.5", "1"),
    ]  # fmt: skip
    (tier,) = found[0].record.tiers
    assert (tier.above, tier.rates.input, tier.rates.output) == (128_000, "3", "30.5")
    assert [(one.place, one.problem[:26]) for one in skipped] == [
        ("x-ai/grok-night", "its price depends on the h"), ("x-ai/grok-odd", "its prices are not in the "),
    ]  # fmt: skip


def test_the_catalogs_own_format_says_everything() -> None:
    models = load()[:20]
    data = dump(models)
    assert imports.guess(data) == "farebox"
    found, skipped = imports.read(data, "farebox", day="2026-11-25")
    assert len(found) == sum(len(model.offers) for model in models) and not skipped
    for one in found:
        offer = next(o for m in models for o in m.offers if (o.provider, o.id, o.variant) == (one.provider, one.id, one.variant))
        again = price_of(one.record, one.provider, one.id, one.variant)
        assert changes(offer.prices[-1], again) == []


@pytest.mark.parametrize(
    ("data", "form"), [(b"[", "genai-prices"), (b"{}", "genai-prices"), (b"[]", "litellm"), (b"\xff", "litellm")]
)
def test_what_is_no_list_is_refused(data: bytes, form: imports.Format) -> None:
    with pytest.raises(CatalogError):
        imports.read(data, form, day="2026-11-25")


def test_fees_and_hours_are_carried_over_where_a_format_does_not_know_them() -> None:
    listed = imports.Listed("openai", "m", PriceRecord(RatesRecord("3", "9")))
    current = PriceRecord(msgspec.structs.replace(BASE, web_search="0.01"), multipliers={"geo": "1.1"})
    over = imports.carried_over(listed, current)
    assert (over.rates.input, over.rates.request, over.rates.web_search) == ("3", "0.001", "0.01")
    assert over.multipliers == {"geo": "1.1"}


def test_of_one_days_versions_the_last_approved_counts() -> None:
    model = load()[0]
    offer = model.offers[0]
    key = (offer.provider, offer.id, offer.variant)

    def version(rate: str, day: str) -> Version:
        record = PriceRecord(RatesRecord(rate, rate), effective_from=day)
        return Version(version_name(record, *key), *key, record)

    made = [version("7", "2099-01-01"), version("8", "2099-02-01"), version("9", "2099-01-01")]
    (laid,) = overlay([model], made)
    prices = laid.offers[0]
    assert [prices.price_on(day).standard.rates.input for day in ("2099-01-31", "2099-02-01")] == [9_000_000, 8_000_000]  # type: ignore[union-attr]
    assert prices.price_on("2098-12-31") == offer.price_on("2098-12-31")
    assert len({one.version for one in made}) == 3
    assert overlay([model], []) == [model]
