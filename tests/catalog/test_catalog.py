"""Names → models: every way to name one, and every way to fail, with what to do next."""

import time
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.catalog import loader
from farebox.catalog.catalog import NAME_CHARS_MAX, AliasError, Catalog, Resolved
from farebox.catalog.missing import ModelNotFound
from farebox.catalog.model import Model, Offer
from farebox.catalog.price import Price, Rates, Schedule
from farebox.errors import Kind
from farebox.providers.registry import PROVIDERS

DAY = "2026-11-25"
SHIPPED = loader.load()


def catalog(aliases: Mapping[str, str] | None = None, enabled: Iterable[str] = PROVIDERS) -> Catalog:
    return Catalog(SHIPPED, aliases or {}, frozenset(enabled))


EVERYTHING = catalog()


def offered(found: Resolved) -> set[str]:
    return {offer.provider for offer in found.offers}


def refused(name: str, using: Catalog = EVERYTHING) -> ModelNotFound:
    with pytest.raises(ModelNotFound) as caught:
        using.resolve(name, DAY)
    error = caught.value
    assert (error.kind, error.param, error.code, error.status) == (Kind.MODEL_NOT_FOUND, "model", "model_not_found", 404)
    return error


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("gpt-4o", "openai/gpt-4o"),
        ("gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("GPT-4o", "openai/gpt-4o"),
        ("OpenAI/GPT-4O", "openai/gpt-4o"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4.5"),
        ("claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"),
        ("claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
        ("anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
        ("anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4.5"),
        ("anthropic/claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"),
        ("gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("openrouter/openai/gpt-4o", "openai/gpt-4o"),
        ("accounts/fireworks/models/kimi-k3", "moonshotai/kimi-k3"),
        ("local/smollm2-135m-instruct", "local/smollm2-135m-instruct"),
        ("smollm2-135m-instruct", "local/smollm2-135m-instruct"),
    ],
)
def test_a_model_has_many_names(name: str, slug: str) -> None:
    assert EVERYTHING.resolve(name, DAY).model.slug == slug


def test_every_slug_and_every_id_resolves_to_its_model() -> None:
    for model in SHIPPED:
        assert EVERYTHING.resolve(model.slug).model is model
        for offer in model.offers:
            pinned = EVERYTHING.resolve(f"{offer.provider}/{offer.id}")
            if f"{offer.provider}/{offer.id}" != pinned.model.slug:
                assert pinned.model is model
                assert {(o.provider, o.id) for o in pinned.offers} == {(offer.provider, offer.id)}


def test_a_model_offers_every_provider_that_is_on_and_no_other() -> None:
    assert offered(EVERYTHING.resolve("gpt-4o")) == {"openai", "openrouter"}
    assert offered(catalog(enabled=["openai", "groq"]).resolve("gpt-4o")) == {"openai"}
    assert offered(catalog(enabled=["openrouter"]).resolve("gpt-4o")) == {"openrouter"}


def test_a_provider_before_an_id_pins_that_offer() -> None:
    assert offered(EVERYTHING.resolve("openrouter/openai/gpt-4o")) == {"openrouter"}
    assert offered(EVERYTHING.resolve("anthropic/claude-sonnet-4-5-20250929")) == {"anthropic"}
    regional = EVERYTHING.resolve("fireworks/accounts/fireworks/models/kimi-k3-us")
    assert [offer.variant for offer in regional.offers] == ["us"]


def test_an_id_of_two_models_means_the_one_of_its_maker() -> None:
    # Alibaba sells DeepSeek's V4 Flash under an id by which DeepSeek itself serves V4.1 Flash.
    assert EVERYTHING.resolve("deepseek-v4-flash").model.slug == "deepseek/deepseek-v4.1-flash"
    assert EVERYTHING.resolve("alibaba/deepseek-v4-flash").model.slug == "deepseek/deepseek-v4-flash"
    without = catalog(enabled=["alibaba"])
    assert "DEEPSEEK_API_KEY" in refused("deepseek-v4-flash", without).message, "a name does not change with what is on"


def test_what_is_not_priced_on_a_day_is_left_out() -> None:
    future = Price("lab/echo@2027", "2027-01-01", Schedule(Rates(input=1, output=1)))
    offers = (
        Offer("lab", "echo", "openai_chat", (future,), 1000, 100),
        Offer("lab2", "echo", "openai_chat", (), 1000, 100),
    )
    made = Catalog([Model("lab/echo", "Echo", 1000, 100, offers)], {}, ["lab", "lab2"])
    assert offered(made.resolve("lab/echo")) == {"lab", "lab2"}
    assert made.resolve("lab/echo", DAY).offers == (), "routing says `model_not_priced`"
    assert offered(made.resolve("lab/echo", "2027-01-01")) == {"lab"}
    assert made.callable_models(DAY) == ()
    assert [model.slug for model in made.callable_models("2027-06-01")] == ["lab/echo"]


def test_aliases_come_first_and_may_follow_each_other() -> None:
    made = catalog(
        {"fast": "gpt-4o-mini", "best": "fast", "gpt-4o": "anthropic/claude-sonnet-4-5", "pin": "openrouter/openai/gpt-4o"}
    )
    assert made.resolve("fast").model.slug == made.resolve("best").model.slug == "openai/gpt-4o-mini"
    assert made.resolve("BEST").model.slug == "openai/gpt-4o-mini"
    assert made.resolve("gpt-4o").model.slug == "anthropic/claude-sonnet-4.5", "the operator's word is the last"
    assert offered(made.resolve("gpt-4o")) == {"anthropic"}
    assert offered(made.resolve("pin")) == {"openrouter"}
    assert made.resolve("openai/gpt-4o").model.slug == "openai/gpt-4o"


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ({"a": "a"}, "`aliases`: a → a goes in a circle"),
        ({"a": "b", "b": "c", "c": "a"}, "goes in a circle; let one of them name a model"),
        ({"x": "a", "a": "b", "b": "a"}, "goes in a circle"),
        ({"fast": "gpt-4oo"}, "`aliases.fast`: there is no model `gpt-4oo`; did you mean `openai/gpt-4o`"),
        ({"auto": "gpt-4o"}, "`aliases.auto`: `auto` is built in"),
        ({"policy/fast": "gpt-4o"}, "`aliases.policy/fast`: `policy/…` means a policy"),
        ({"old": "gemini-1.5-pro"}, "`aliases.old`: `gemini-1.5-pro` was retired"),
    ],
)
def test_an_alias_that_leads_nowhere_is_refused_at_load(aliases: dict[str, str], words: str) -> None:
    with pytest.raises(AliasError, match=words):
        catalog(aliases)


def test_an_alias_of_a_model_that_is_off_says_which_key_to_set() -> None:
    made = catalog({"fast": "gpt-4o"}, enabled=["groq"])
    assert "set `OPENAI_API_KEY` for OpenAI" in refused("fast", made).message
    shadowing = catalog({"openai/gpt-oss-120b": "anthropic/claude-sonnet-5"}, enabled=["groq"])
    assert "ANTHROPIC_API_KEY" in refused("openai/gpt-oss-120b", shadowing).message


def test_a_model_whose_providers_are_all_off_says_which_key_to_set() -> None:
    error = refused("gpt-4o", catalog(enabled=["local"]))
    assert "`gpt-4o` (`openai/gpt-4o`) is known" in error.message
    assert "set `OPENAI_API_KEY` for OpenAI" in error.message
    assert error.details == {
        "suggestions": [], "providers": ["openai", "openrouter"], "environment": ["OPENAI_API_KEY", "OPENROUTER_API_KEY"],
    }  # fmt: skip
    assert "farebox[local]" in refused("local/smollm2-135m-instruct", catalog(enabled=["openai"])).message


def test_a_pinned_provider_that_is_off_is_not_replaced_by_another() -> None:
    error = refused("openrouter/openai/gpt-4o", catalog(enabled=["openai"]))
    assert error.details["environment"] == ["OPENROUTER_API_KEY"]


def echo(slug: str, provider: str) -> Model:
    price = Price(f"{provider}/echo@1", "1970-01-01", Schedule(Rates(input=1, output=1)))
    return Model(slug, slug, 1000, 100, (Offer(provider, "echo", "openai_chat", (price,), 1000, 100),))


def test_an_ambiguous_name_is_refused_with_the_candidates() -> None:
    made = Catalog([echo("a/echo", "one"), echo("b/echo", "two")], {}, ["one", "two"])
    error = refused("echo", made)
    assert error.message == "`echo` could be `a/echo` or `b/echo`; write the full name of the one you mean"
    assert error.details == {"suggestions": ["a/echo", "b/echo"], "ambiguous": True}
    assert made.resolve("one/echo").model.slug == "a/echo"
    assert refused("ECHO", made).details["ambiguous"]
    with pytest.raises(AliasError, match="`aliases.e`: `echo` could be"):
        Catalog([echo("a/echo", "one"), echo("b/echo", "two")], {"e": "echo"}, ["one"])


def test_spellings_that_differ_only_in_case_are_told_apart() -> None:
    made = Catalog([echo("lab/Echo", "one"), echo("lab/echo", "two")], {}, ["one", "two"])
    assert made.resolve("lab/Echo").model.slug == "lab/Echo"
    assert made.resolve("lab/echo").model.slug == "lab/echo"
    assert refused("LAB/ECHO", made).details["suggestions"] == ["lab/Echo", "lab/echo"]


def test_a_provider_of_ones_own_is_switched_on_in_the_configuration() -> None:
    made = Catalog([echo("lab/echo", "lab")], {}, [])
    assert "add `[providers.lab]` to the configuration" in refused("lab/echo", made).message


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("gpt4o", "openai/gpt-4o"),
        ("gtp-4o", "openai/gpt-4o"),
        ("openai/gpt-4o-min", "openai/gpt-4o-mini"),
        ("claude-sonet-4.5", "anthropic/claude-sonnet-4.5"),
        ("claude-4.5-sonnet", "anthropic/claude-sonnet-4.5"),
        ("gemini-2-5-pro", "google/gemini-2.5-pro"),
        ("gemini 2.5 flash", "google/gemini-2.5-flash"),
        ("llama-3.3-70b", "meta/llama-3.3-70b-instruct"),
        ("smollm2", "local/smollm2-135m-instruct"),
        ("deepseek-v3.2-x", "deepseek/deepseek-v3.2"),
    ],
)
def test_suggestions_are_what_was_meant(name: str, first: str) -> None:
    error = refused(name)
    assert error.details["suggestions"][0] == first
    assert f"did you mean `{first}`" in error.message


def test_a_name_like_nothing_has_no_suggestions() -> None:
    error = refused("zzzzqqqq")
    assert error.details["suggestions"] == []
    assert error.message == "there is no model `zzzzqqqq`; `GET /v1/models` lists what can be called"


def test_of_two_names_as_near_the_one_that_can_be_called_comes_first() -> None:
    made = Catalog([echo("a/echo-1", "one"), echo("b/echo-1", "two")], {}, ["two"])
    assert refused("echo_11", made).details["suggestions"] == ["b/echo-1", "a/echo-1"]


def test_a_very_long_name_costs_nothing() -> None:
    error = refused("gpt-4o" * NAME_CHARS_MAX)
    assert error.details["suggestions"] == [] and len(error.message) < 300


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_no_name_breaks_it(name: str) -> None:
    try:
        assert EVERYTHING.resolve(name).model.slug in {model.slug for model in SHIPPED}
    except ModelNotFound as error:
        assert set(error.details["suggestions"]) <= {model.slug for model in SHIPPED}


def test_a_known_name_is_one_look_up_and_an_unknown_one_is_bounded() -> None:
    assert _us_per_call(lambda: EVERYTHING.resolve("gpt-4o", DAY), 20_000) < 20
    wrong = "meta-llama/llama-4-behemoth-instruct-128e-turbo-fp8-latest-preview"
    assert _us_per_call(lambda: pytest.raises(ModelNotFound, EVERYTHING.resolve, wrong), 20) < 50_000


def _us_per_call(call: object, times: int) -> float:
    assert callable(call)
    started = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started) / times * 1_000_000


def test_lists() -> None:
    assert [model.slug for model in EVERYTHING.list_models()] == sorted(model.slug for model in SHIPPED)
    assert EVERYTHING.callable_models(DAY) == EVERYTHING.list_models()
    some = catalog(enabled=["anthropic"])
    assert len(some.list_models()) == len(SHIPPED)
    assert {model.slug.partition("/")[0] for model in some.callable_models(DAY)} == {"anthropic"}
    assert some.get("openai/gpt-4o") is not None and some.get("gpt-4o") is None


def test_a_catalog_of_nothing() -> None:
    empty = Catalog([], {}, [])
    assert empty.list_models() == () == empty.callable_models(DAY)
    assert refused("gpt-4o", empty).details["suggestions"] == []
    assert "GET /v1/models" in refused("gemini-1.5-pro", empty).message, "a successor that is unknown here is not advice"
