"""The request dialect: every field is read, and everything that is not understood is a 400 that names it."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.routing.conftest import call

from farebox.errors import FareboxError
from farebox.routing import preferences
from farebox.routing.preferences import NONE, Percentiles, PriceCap, ProviderRef, Providers, request_preferences
from farebox.wires.openai_chat.call import read_call

PROVIDERS = Providers.of({"openai": "OpenAI", "anthropic": "Anthropic", "google": "Google", "azure": "Azure OpenAI"})


def read(**fields: Any) -> preferences.Preferences:
    return request_preferences(fields, PROVIDERS)


def test_the_whole_dialect() -> None:
    found = read(
        models=["a/b", "c/d"],
        route="fallback",
        num_retries=2,
        timeout=1.5,
        provider={
            "order": ["OpenAI", "azure/eu"],
            "only": ["openai", "azure", "google-ai-studio"],
            "ignore": ["anthropic"],
            "allow_fallbacks": False,
            "require_parameters": True,
            "data_collection": "deny",
            "zdr": True,
            "enforce_distillable_text": True,
            "quantizations": ["fp8", "bf16"],
            "sort": {"by": "latency", "partition": "none"},
            "preferred_min_throughput": {"p50": 100, "p90": 50.5},
            "preferred_max_latency": 0.8,
            "max_price": {"prompt": 1, "completion": "2.5", "request": 0.001, "image": 3, "audio": 4},
        },
    )
    assert found.fallbacks == ("a/b", "c/d") and found.attempts_max == 3
    assert found.patience is not None and found.patience.total_s == 1.5
    assert found.order == (ProviderRef("openai"), ProviderRef("azure", "eu"))
    assert found.only == (ProviderRef("openai"), ProviderRef("azure"), ProviderRef("google"))
    assert found.ignore == (ProviderRef("anthropic"),)
    assert not found.allow_fallbacks and found.require_parameters and found.no_training and found.zdr and found.distillable
    assert found.quantizations == ("fp8", "bf16") and found.sort == "latency" and found.across_models
    assert found.throughput_min == Percentiles(p50=100, p90=50.5) and found.latency_max_ms == Percentiles(p50=800)
    assert found.price_max == PriceCap(1_000_000, 2_500_000, 10**9, 3_000_000, 4_000_000)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"models": "a/b"}, "models"),
    ({"models": ["a", 1]}, "models[1]"),
    ({"models": [""]}, "models[0]"),
    ({"models": ["m"] * 7}, "models"),
    ({"provider": {"preferred_min_throughput": 10**400}}, "provider.preferred_min_throughput"),
    ({"provider": {"preferred_max_latency": {"p90": 10**400}}}, "provider.preferred_max_latency.p90"),
    ({"models": ["a"], "fallbacks": ["b"]}, "fallbacks"),
    ({"fallbacks": [{"model": "x"}]}, "fallbacks[0]"),
    ({"route": "cheapest"}, "route"),
    ({"num_retries": -1}, "num_retries"),
    ({"num_retries": 6}, "num_retries"),
    ({"num_retries": "two"}, "num_retries"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": "10s"}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"provider": "openai"}, "provider"),
    ({"provider": {"ordre": ["openai"]}}, "provider.ordre"),
    ({"provider": {"order": "openai"}}, "provider.order"),
    ({"provider": {"order": ["opnai"]}}, "provider.order[0]"),
    ({"provider": {"only": ["nobody-at-all"]}}, "provider.only[0]"),
    ({"provider": {"ignore": [7]}}, "provider.ignore[0]"),
    ({"provider": {"allow_fallbacks": "no"}}, "provider.allow_fallbacks"),
    ({"provider": {"require_parameters": 1}}, "provider.require_parameters"),
    ({"provider": {"data_collection": "maybe"}}, "provider.data_collection"),
    ({"provider": {"zdr": "yes"}}, "provider.zdr"),
    ({"provider": {"enforce_distillable_text": 0}}, "provider.enforce_distillable_text"),
    ({"provider": {"quantizations": ["fp9"]}}, "provider.quantizations[0]"),
    ({"provider": {"sort": "cheap"}}, "provider.sort"),
    ({"provider": {"sort": {"by": "speed"}}}, "provider.sort.by"),
    ({"provider": {"sort": {"partition": "none"}}}, "provider.sort.by"),
    ({"provider": {"sort": {"by": "price", "partition": "all"}}}, "provider.sort.partition"),
    ({"provider": {"sort": {"key": "price"}}}, "provider.sort.key"),
    ({"provider": {"preferred_min_throughput": -5}}, "provider.preferred_min_throughput"),
    ({"provider": {"preferred_max_latency": {"p95": 1}}}, "provider.preferred_max_latency.p95"),
    ({"provider": {"preferred_max_latency": {"p99": "1s"}}}, "provider.preferred_max_latency.p99"),
    ({"provider": {"max_price": 5}}, "provider.max_price"),
    ({"provider": {"max_price": {"input": 5}}}, "provider.max_price.input"),
    ({"provider": {"max_price": {"prompt": "cheap"}}}, "provider.max_price.prompt"),
    ({"provider": {"max_price": {"completion": -1}}}, "provider.max_price.completion"),
    ({"provider": {"max_price": {"request": "NaN"}}}, "provider.max_price.request"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[f"{param}-{n}" for n, (_, param) in enumerate(WRONG)])
def test_what_is_not_understood_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(FareboxError) as caught:
        read(**fields)
    assert caught.value.status == 400 and caught.value.param == param and f"`{param}`" in caught.value.message


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(FareboxError, match="did you mean `order`"):
        read(provider={"ordr": []})
    with pytest.raises(FareboxError, match="did you mean `openai`"):
        read(provider={"only": ["opnai"]})


def test_null_and_empty_are_the_same_as_absent() -> None:
    absent = dict.fromkeys(preferences.PROVIDER_FIELDS)
    assert read(models=None, route=None, provider=absent, fallbacks=[], num_retries=None, timeout=None) == NONE
    assert read(provider={"order": [], "only": [], "quantizations": [], "max_price": {}}) == NONE


@given(st.decimals(min_value=0, max_value=10_000, places=9))
def test_a_price_cap_is_exact_and_rounds_down(price: Decimal) -> None:
    cap = read(provider={"max_price": {"prompt": str(price)}}).price_max
    assert cap is not None and cap.prompt is not None
    # A whole rate fits the cap as written exactly when it fits the cap as read.
    for rate in (cap.prompt, cap.prompt + 1):
        assert (rate <= cap.prompt) == (Decimal(rate) <= price * 10**6)


def test_what_was_read_once_is_the_same_object_again() -> None:
    reader = preferences.Reader(PROVIDERS)
    one = reader.read(call(provider={"order": ["openai"]}))
    assert reader.read(call(text="another", provider={"order": ["openai"]})) is one
    assert reader.read(call(provider={"order": ["azure"]})) is not one
    assert reader.read(call()) is NONE and reader.read(call(tools=[{"type": "function"}])) is NONE


def test_a_session_has_a_name() -> None:
    assert preferences.session_of(call(session_id="s-1")) == "s-1"
    assert preferences.session_of(call(prompt_cache_key="k")) == "k"
    assert preferences.session_of(call(session_id="s-1", prompt_cache_key="k")) == "s-1"
    with pytest.raises(FareboxError) as caught:
        preferences.session_of(call(session_id="x" * 257))
    assert caught.value.param == "session_id"


def test_models_stand_in_for_model() -> None:
    assert read_call(b'{"models":["a/b","c"],"messages":[{"role":"user","content":"x"}]}').model == "a/b"
    with pytest.raises(FareboxError, match="`models` must be a list"):
        read_call(b'{"models":7,"messages":[{"role":"user","content":"x"}]}')
