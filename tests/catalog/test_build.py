"""The build tool on small facts: what it takes over, leaves out and refuses."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from farebox.catalog import loader
from farebox.catalog.model import Model, Offer

TOOL = Path(__file__).parents[2] / "tools" / "build_catalog.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_catalog", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(offer: dict[str, Any] | None = None, **model: Any) -> bytes:
    one = {
        "provider": "openai", "upstream_id": "x-1", "api": "chat_completions", "usd_per_mtok": {"input": "2", "output": "8"},
        "source": {"price": ["genai-prices"], "confidence": "single"}, **(offer or {}),
    }  # fmt: skip
    whole = {"slug": "openai/x-1", "vendor": "openai", "name": "X", "mode": "chat", "context_window": 1000,
             "max_output_tokens": 100, "capabilities": {}, "offers": [one], **model}  # fmt: skip
    return json.dumps(whole).encode()


def built(tool: ModuleType, data: bytes) -> tuple[Model, ...]:
    return loader.loads(tool.build(data)[0])


def only(tool: ModuleType, data: bytes) -> Offer:
    ((offer,),) = (model.offers for model in built(tool, data))
    return offer


def test_an_offer_is_taken_over(tool: ModuleType) -> None:
    offer = only(tool, facts({"aliases": ["b", "a"], "scopes": ["us"], "deprecation_date": "2027-01-01"}))
    assert (offer.id, offer.aliases, offer.variant, offer.retires) == ("x-1", ("a", "b"), "us", "2027-01-01")
    assert offer.prices[0].version == "openai/x-1#us@2026-11-23"
    assert (offer.prices[0].source, offer.prices[0].confidence) == (("genai-prices",), "single")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (facts(mode="embedding"), "mode embedding"),
        (facts({"api": "responses"}), "no offer on a wire"),
        (facts({"provider": "bedrock", "api": "converse"}), "no offer on a wire"),
        (facts(context_window=None), "no context window"),
        (facts(modalities={"input": ["text"], "output": ["image"]}), "no text output"),
    ],
)
def test_what_cannot_be_called_is_left_out_with_a_reason(tool: ModuleType, data: bytes, reason: str) -> None:
    models, left_out, _ = tool.build(data)
    assert models == b""
    assert [key for key in left_out if reason in key]


def test_an_inexact_price_stops_the_build(tool: ModuleType) -> None:
    with pytest.raises(loader.PriceError, match="more than 6 decimals"):
        tool.build(facts({"usd_per_mtok": {"input": "0.18000000000000002", "output": "1"}}))


def test_where_the_vendors_report_is_the_charge_an_inexact_class_is_held_at_input(tool: ModuleType) -> None:
    prices = {"input": "2", "output": "8", "cache_write": "0.083333333"}
    data, _, findings = tool.build(facts({"provider": "openrouter", "usd_per_mtok": prices}))
    (model,) = loader.loads(data)
    assert model.offers[0].prices[0].standard.rates.cache_write_5m == 2_000_000
    assert findings == ["openrouter/x-1: `cache_write` 0.083333333 has more than 6 decimals, left out"]
    with pytest.raises(loader.PriceError):
        tool.build(facts({"usd_per_mtok": prices}))


def test_capabilities(tool: ModuleType) -> None:
    stated = {"tools": True, "vision": True, "json_schema": False, "computer_use": True}
    offer = only(tool, facts({"capabilities_differ": {"vision": False, "pdf": True}}, capabilities=stated))
    assert offer.capabilities == {"tools", "tool_choice", "parallel_tools", "streaming", "temperature", "pdf"}
    thinking = only(tool, facts(capabilities={"reasoning": True}))
    assert "temperature" not in thinking.capabilities


def test_a_search_without_a_price_is_not_offered(tool: ModuleType) -> None:
    stated = {"web_search": True}
    claude = {"provider": "anthropic", "api": "messages"}
    assert "web_search" not in only(tool, facts(claude, capabilities=stated)).capabilities
    priced = only(tool, facts({**claude, "usd_per_unit": {"web_search": "0.01"}}, capabilities=stated))
    assert "web_search" in priced.capabilities
    assert priced.prices[0].standard.rates.web_searches == 10_000_000_000


def test_a_search_that_nobody_counts_is_not_offered(tool: ModuleType) -> None:
    stated = {"web_search": True}
    priced = {"usd_per_unit": {"web_search": "0.01"}}
    assert "web_search" not in only(tool, facts(priced, capabilities=stated)).capabilities
    told = only(tool, facts({**priced, "provider": "openrouter"}, capabilities=stated))
    assert "web_search" in told.capabilities, "what it cost is reported there"


def test_a_model_that_always_searches_has_the_fee_on_every_request(tool: ModuleType) -> None:
    offer = {"upstream_id": "x-1-search-api", "usd_per_unit": {"web_search": "0.01"}}
    found = only(tool, facts(offer, capabilities={"web_search": True}))
    rates = found.prices[0].standard.rates
    assert "web_search" in found.capabilities
    assert (rates.request, rates.web_searches) == (10_000_000_000, 0)


def test_audio_by_the_second_is_not_offered(tool: ModuleType) -> None:
    offer = only(tool, facts({"usd_per_unit": {"second_input": "0.000066667"}}, capabilities={"audio_input": True}))
    assert "audio_input" not in offer.capabilities


def test_the_same_facts_give_the_same_bytes_in_any_order(tool: ModuleType) -> None:
    one, two = facts(), facts({"upstream_id": "y"}, slug="openai/a")
    assert tool.build(one + b"\n" + two)[0] == tool.build(two + b"\n" + one)[0]
