"""Policies as they are called: by OpenRouter's name of `auto`, and with a suffix that sorts what they choose among."""

from pathlib import Path

import pytest
from tests.routing.conftest import DAY, NOW_US, Chance, call, model, names, offer, planned, rates, router

from farebox.catalog.missing import ModelNotFound
from farebox.config import load
from farebox.configured_routing import make_router
from farebox.errors import FareboxError
from farebox.market import make_market
from farebox.routing.market import Market
from farebox.routing.measured import NothingMeasured
from farebox.routing.policy import Decisions, Policies, Policy
from farebox.routing.preferences import Preferences, ProviderRef
from farebox.routing.router import Router

DECISIONS = {"size": Decisions(lambda call: "long" if call.media.text_bytes > 1000 else "short", ("short", "long"))}
BRANCHES = {"short": ("v/m",), "long": ("v/n:nitro", "v/m")}
OFFERS = (offer("dear", price=rates("3", "12")), offer("cheap", price=rates("1", "4")), offer("middle", price=rates("2", "8")))


def of(*policies: Policy) -> Router:
    return router(model("v/m", *OFFERS), model("v/n", *OFFERS), policies=policies, decisions=DECISIONS)


def test_openrouters_name_of_auto_means_auto() -> None:
    made = of(Policy("auto", decision="size", branches=BRANCHES))
    for text, first in (("hello", "v/m"), ("hello" * 1000, "v/n")):
        found = [planned(made, call(name, text)) for name in ("auto", "openrouter/auto", "policy/auto")]
        assert [one.candidates[0].target.model.slug for one in found] == [first] * 3
        assert len({one.standing.policy for one in found}) == 1
    assert [made.policies.decision(name) for name in ("openrouter/auto", "openrouter/auto:floor", "v/m")] == ["size", "size", ""]
    with pytest.raises(FareboxError, match="the policy `auto` does not exist") as caught:
        planned(of(Policy("desk", models=("v/m",))), call("openrouter/auto"))
    assert caught.value.status == 404 and caught.value.param == "model"


@pytest.mark.parametrize("name", ["auto", "openrouter/auto", "policy/auto", "policy/desk"])
def test_a_suffix_sorts_what_a_policy_chooses_among(name: str) -> None:
    made = of(
        Policy("auto", decision="size", branches=BRANCHES),
        Policy("desk", models=("v/m",), preferences=Preferences(sort="latency")),
    )
    for _ in range(3):  # by chance it would be another order now and then
        assert names(planned(made, call(f"{name}:floor"), chance=(0.9, 0.1, 0.5))) == ["cheap", "middle", "dear"]
    assert planned(made, call(f"{name}:nitro")).standing.groups[0].mode == "measured"
    asked = planned(made, call(f"{name}:nitro", provider={"sort": "price"}))
    assert names(asked) == ["cheap", "middle", "dear"], "the request's own sort wins"
    asked = planned(made, call(f"{name}:floor", provider={"order": ["dear"]}))
    assert names(asked) == ["dear", "cheap", "middle"], "and so does its order"


def test_a_suffix_comes_before_a_policys_own_wishes_and_never_before_its_filters() -> None:
    listed = Preferences(order=(ProviderRef("dear"), ProviderRef("middle")), allow_fallbacks=False)
    made = of(Policy("listed", models=("v/m:nitro",), preferences=listed), Policy("key", preferences=Preferences(sort="latency")))
    assert names(planned(made, call("policy/listed"))) == ["dear", "middle"]
    assert names(planned(made, call("policy/listed:floor"), policy="key")) == ["middle", "dear"]


def test_the_suffix_of_a_model_that_is_called_comes_before_its_keys_policy_too() -> None:
    listed = Preferences(order=(ProviderRef("dear"), ProviderRef("middle")), allow_fallbacks=False)
    made = of(
        Policy("quick", preferences=Preferences(sort="latency")),
        Policy("listed", preferences=listed),
        Policy("desk", models=("v/m:floor",), preferences=Preferences(sort="latency")),
    )
    for _ in range(3):
        assert names(planned(made, call("v/m:floor"), policy="quick", chance=(0.9, 0.1, 0.5))) == ["cheap", "middle", "dear"]
    assert planned(made, call("v/m"), policy="quick").standing.groups[0].mode == "measured"
    assert planned(made, call("v/n", models=["v/m:floor"]), policy="quick").standing.groups[1].mode == "price"
    assert names(planned(made, call("v/m:floor"), policy="listed")) == ["middle", "dear"], "never past its filters"
    asked = planned(made, call("v/m:floor", provider={"order": ["dear"]}), policy="quick")
    assert names(asked)[0] == "dear", "an order in the request is more than a suffix"
    assert planned(made, call("policy/desk")).standing.groups[0].mode == "measured", "what a policy names is no caller's wish"


def test_other_suffixes_are_errors_that_say_which_there_are() -> None:
    made = of(Policy("auto", models=("v/m",)), Policy("desk", models=("v/m",)))
    for name in ("auto:online", "openrouter/auto:free", "policy/desk:floor:nitro", "policy/desk:"):
        with pytest.raises(FareboxError, match=r"has no suffix .* there are `.*:floor` and `.*:nitro`") as caught:
            planned(made, call(name))
        assert caught.value.status == 404 and caught.value.param == "model"
    with pytest.raises(FareboxError, match=r"the policy `gone` does not exist; can be called: `policy/auto`, `policy/desk`"):
        planned(made, call("policy/gone:floor"))
    for name in ("automatic", "autos:floor", "openrouter/automatic"):
        with pytest.raises(ModelNotFound):
            planned(made, call(name))


LAB = '[providers.lab]\nwire = "openai_chat"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "k"\n'


def one_of_ones_own(slug: str) -> str:
    made = f'[[models]]\nslug = "{slug}"\ncontext_window = 1000\nmax_output_tokens = 100\n'
    return made + f'offers = [{{ provider = "lab", id = "{slug}", input = "1", output = "1" }}]\n'


def configured(tmp_path: Path, text: str) -> tuple[Router, Market]:
    path = tmp_path / "farebox.toml"
    path.write_text(LAB + text)
    loaded = load(path, {})
    market, _ = make_market(loaded, local_url=None)
    return make_router(loaded, market, NothingMeasured()), market


def test_a_model_or_an_alias_of_that_name_comes_first(tmp_path: Path) -> None:
    for name, text in (
        ("x/a", one_of_ones_own("x/a") + one_of_ones_own("x/b") + '[aliases]\n"openrouter/auto" = "x/a"\n'),
        ("openrouter/auto", one_of_ones_own("openrouter/auto") + one_of_ones_own("x/b")),
    ):
        made, _ = configured(tmp_path, '[policies.auto]\nmodels = ["x/b"]\n' + text)
        for suffix in ("", ":floor"):
            asked = call(f"openrouter/auto{suffix}", max_tokens=9)
            found = made.plan(asked, now_us=NOW_US, day=DAY, random=Chance())
            assert [one.target.model.slug for one in found.candidates] == [name]
            found = made.plan(call(f"auto{suffix}", max_tokens=9), now_us=NOW_US, day=DAY, random=Chance())
            assert [one.target.model.slug for one in found.candidates] == ["x/b"]
    assert "openrouter/auto" in Policies((Policy("auto", models=("x/b",)),)).named
