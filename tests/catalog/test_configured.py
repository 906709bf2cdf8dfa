"""The operator's own models: configuration sections → models, with errors that name the setting."""

import msgspec
import pytest

from farebox.catalog import loader
from farebox.catalog.loader import CatalogError, PriceError
from farebox.catalog.model import CAPABILITIES, Model, Offer
from farebox.catalog.price import Rates
from farebox.config import ModelSection, OfferSection, TierSection


def offer(**changes: object) -> OfferSection:
    return OfferSection(**{"provider": "lab", "id": "echo", "input": "2.50", "output": "10.00", **changes})  # type: ignore[arg-type]


def section(*offers: OfferSection, **changes: object) -> ModelSection:
    return ModelSection(**{"slug": "lab/echo", "context_window": 1000, "max_output_tokens": 100, "offers": offers, **changes})  # type: ignore[arg-type]


def made(entry: OfferSection, **changes: object) -> Offer:
    return loader.offer_from_config(entry, section(entry, **changes), wire="openai_chat")


def rates(entry: OfferSection) -> Rates:
    return made(entry).prices[0].standard.rates


def test_every_setting_has_its_class() -> None:
    entry = offer(
        cached_input="1.25", cache_write="3", cache_write_1h="5", reasoning="11", audio_input="40", audio_output="80",
        image_input="4", image_output="12", request="0.005", web_search="0.01",
    )  # fmt: skip
    assert rates(entry) == Rates(
        input=2_500_000, cache_read=1_250_000, cache_write_5m=3_000_000, cache_write_1h=5_000_000, audio_input=40_000_000,
        image_input=4_000_000, output=10_000_000, reasoning=11_000_000, audio_output=80_000_000, image_output=12_000_000,
        web_searches=10_000_000_000, request=5_000_000_000,
    )  # fmt: skip


def test_what_is_not_stated_bills_as_input_or_output() -> None:
    found = rates(offer())
    assert found.cache_read == found.cache_write_1h == found.audio_input == found.image_input == 2_500_000
    assert found.reasoning == found.audio_output == found.image_output == 10_000_000
    assert found.request == found.web_searches == 0


def test_a_tier_keeps_what_it_does_not_change() -> None:
    entry = offer(cached_input="1.25", request="0.01", tiers=(TierSection(above=200_000, input="5", output="20"),))
    (tier,) = made(entry).prices[0].standard.tiers
    assert (tier.above, tier.rates.input, tier.rates.output) == (200_000, 5_000_000, 20_000_000)
    assert (tier.rates.cache_read, tier.rates.request) == (1_250_000, 10_000_000_000)
    assert tier.rates.reasoning == 20_000_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": "2,50"}, "`input`: .*plain decimal string"),
        ({"cached_input": "0.18000000000000002"}, "`cached_input`: .*more than 6 decimals"),
        ({"cache_write_1h": "-1"}, "`cache_write_1h`: .*negative"),
        ({"output": "ten"}, "`output`"),
        ({"reasoning": "1e3"}, "`reasoning`"),
        ({"web_search": "0.0000000000001"}, "`web_search`: .*more than 12 decimals"),
        ({"request": "free"}, "`request`"),
        ({"effective_from": "yesterday"}, "`effective_from`: 'yesterday' is not a date"),
        ({"tiers": (TierSection(above=5, cached_input="x"),)}, r"`tiers\[0\]\.cached_input`"),
        ({"tiers": (TierSection(above=5), TierSection(above=5))}, r"`tiers\[1\]\.above`"),
    ],
)
def test_a_price_that_is_not_exact_names_its_setting(changes: dict[str, object], words: str) -> None:
    with pytest.raises(PriceError, match=f"^{words}"):
        made(offer(**changes))


def test_all_wrong_prices_are_told_at_once() -> None:
    with pytest.raises(PriceError) as caught:
        made(offer(input="x", output="y"))
    assert [finding.place for finding in caught.value.findings] == ["`input`", "`output`"]


def test_a_changed_price_is_a_new_version() -> None:
    version = made(offer()).prices[0].version
    assert version.startswith("lab/echo@config-")
    assert made(offer()).prices[0].version == version, "the same words are the same version, also after a restart"
    assert made(offer(output="10")).prices[0].version == version, "and so is the same price in other words"
    assert made(offer(output="10.01")).prices[0].version != version
    dated = made(offer(effective_from="2026-12-01")).prices[0]
    assert dated.version.startswith("lab/echo@2026-12-01-config-")
    assert dated.effective_from == "2026-12-01"


def test_an_offer_may_differ_from_its_model() -> None:
    found = made(offer(context_window=500, max_output_tokens=50))
    assert (found.context_window, found.max_output_tokens, found.wire) == (500, 50, "openai_chat")
    assert (made(offer()).context_window, made(offer()).max_output_tokens) == (1000, 100)


def model(**changes: object) -> Model:
    entry = section(offer(), **changes)
    return loader.model_from_config(entry, (loader.offer_from_config(entry.offers[0], entry, wire="openai_chat"),))


def test_a_model_without_capabilities_is_never_refused_for_one() -> None:
    found = model()
    assert found.capabilities == found.offers[0].capabilities == set(CAPABILITIES)
    assert (found.name, found.input_modalities, found.output_modalities) == ("lab/echo", ("text",), ("text",))


def test_stated_capabilities_are_taken_as_they_are() -> None:
    found = model(name="Echo", capabilities=("tools", "vision", "audio_output"))
    assert found.capabilities == {"tools", "vision", "audio_output"}
    assert (found.name, found.input_modalities, found.output_modalities) == ("Echo", ("text", "image"), ("text", "audio"))


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(CatalogError, match="`lab/echo`: unknown capability telepathy; known: tools"):
        model(capabilities=("telepathy",))


def test_a_configured_model_survives_a_round_trip() -> None:
    from farebox.catalog.writer import dump

    found = model()
    (back,) = loader.loads(dump([found]))
    assert msgspec.structs.asdict(back) == msgspec.structs.asdict(found)
