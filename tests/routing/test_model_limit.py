"""How many models one call may go through: what a policy alone makes too many of is no configuration, what policies make together
is told in the plan."""

from pathlib import Path

import pytest
from tests.routing.conftest import call, model, offer, planned, router

from farebox.config import ConfigError, load
from farebox.configured_routing import make_router
from farebox.errors import FareboxError
from farebox.market import make_market
from farebox.routing.measured import NothingMeasured
from farebox.routing.policy import Decisions, Policy
from farebox.routing.preferences import MODELS_MAX, Preferences

LAB = '[providers.lab]\nwire = "openai_chat"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "k"\n'


def models(*numbers: int) -> str:
    return str([f"x/{n}" for n in numbers])


def made(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "farebox.toml"
    path.write_text(LAB + "".join(
        f'[[models]]\nslug = "x/{n}"\ncontext_window = 1000\nmax_output_tokens = 100\n'
        f'offers = [{{ provider = "lab", id = "{n}", input = "1", output = "1" }}]\n'
        for n in range(10)
    ) + policy)  # fmt: skip
    loaded = load(path, {})
    make_router(loaded, make_market(loaded, local_url=None)[0], NothingMeasured())


@pytest.mark.parametrize(
    ("policy", "place", "said"),
    [
        (f"models = {models(*range(7))}", "models", "has 7 models"),
        (f"models = {models(*range(4))}\nfallbacks = {models(4, 5, 6)}", "fallbacks", "`models` and `fallbacks` make 7 models"),
        (
            f"models = {models(0, 1, 2, 3)}\nescalation = {{ to = {models(4, 5)} }}\nfallbacks = {models(6)}",
            "fallbacks",
            "`models`, `escalation.to` and `fallbacks` make 7 models",
        ),
        (
            f"models = {models(0, 1, 2, 3)}\nescalation = {{ to = {models(4, 5, 6)} }}",
            "escalation.to",
            "`models` and `escalation.to` make 7 models",
        ),
        (
            f'models = {models(0)}\nfallbacks = {models(5, 6)}\ndecision = "complexity"\n'
            f"branches = {{ easy = {models(1)}, hard = {models(0, 1, 2, 3, 4)} }}",
            "fallbacks",
            "`branches.hard` and `fallbacks` make 7 models",
        ),
        (
            f'models = {models(*range(6))}\nfallbacks = {models(7)}\ndecision = "complexity"\n'
            f"branches = {{ easy = {models(1)}, hard = {models(2)} }}",
            "fallbacks",
            "`models` and `fallbacks` make 7 models",
        ),
    ],
)
def test_a_policy_with_more_models_than_are_tried_is_an_error(tmp_path: Path, policy: str, place: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, f"[policies.desk]\n{policy}\n")
    assert f"`policies.desk.{place}`" in str(caught.value) and said in str(caught.value), str(caught.value)
    assert f"at most {MODELS_MAX} are tried" in str(caught.value)


def test_a_model_counts_once_and_what_no_call_has_does_not_count(tmp_path: Path) -> None:
    every = f"easy = {models(1)}, medium = {models(2)}, hard = {models(3)}"
    for policy in (
        f"models = {models(*range(6))}\nfallbacks = {models(5, 0, 3)}",
        f"fallbacks = {models(*range(6))}",
        f'models = {models(*range(6))}\nfallbacks = {models(7, 8)}\ndecision = "complexity"\nbranches = {{ {every} }}',
    ):
        made(tmp_path, f"[policies.desk]\n{policy}\n")


SLUGS = tuple(f"v/{n}" for n in range(9))
MARKET = tuple(model(slug, offer("a", id=slug[2:])) for slug in SLUGS)
DECISIONS = {"always": Decisions(lambda call: "yes", ("yes",))}


def test_what_policies_make_too_many_together_is_told_in_the_plan() -> None:
    key = Policy("key", preferences=Preferences(fallbacks=SLUGS[3:9]))
    desk = Policy("desk", models=SLUGS[:4])
    everyone = router(*MARKET, policies=(key, desk))
    for name, kept, lost in (("policy/desk", SLUGS[:6], SLUGS[6:]), ("v/0", (SLUGS[0], *SLUGS[3:8]), SLUGS[8:])):
        found = planned(everyone, call(name), policy="key")
        assert tuple(one.target.model.slug for one in found.candidates) == kept
        assert tuple((one.rule, one.model, one.provider, one.id) for one in found.left_out) == tuple(
            ("models_max", slug, "a", slug[2:]) for slug in lost
        )
        assert f"after the {MODELS_MAX} models" in found.left_out[0].reason
    assert not planned(everyone, call("v/3"), policy="key").left_out, "it is one of its fallbacks"


def test_only_models_that_can_be_called_take_a_place() -> None:
    key = Policy("key", preferences=Preferences(fallbacks=("v/gone", *SLUGS[4:8])))
    everyone = router(*MARKET, policies=(key, Policy("desk", models=(SLUGS[0], "v/lost", "v/away"))))
    found = planned(everyone, call("policy/desk"), policy="key")
    assert [one.target.model.slug for one in found.candidates] == [SLUGS[0], *SLUGS[4:8]] and not found.left_out


def test_a_keys_policy_may_name_what_cannot_be_called_beside_a_model_that_can() -> None:
    key = Policy("key", preferences=Preferences(fallbacks=("v/gone", "v/1")))
    everyone = router(*MARKET, policies=(key,))
    found = planned(everyone, call("v/0"), policy="key")
    assert [one.target.model.slug for one in found.candidates] == ["v/0", "v/1"]
    for asked in (call("v/gone"), call("v/0", models=["v/gone"])):
        with pytest.raises(FareboxError, match="v/gone") as caught:
            planned(everyone, asked, policy="key")
        assert caught.value.status == 404


def test_an_empty_branch_takes_the_policys_models() -> None:
    desk = Policy("desk", models=("v/2",), decision="always", branches={"yes": ()})
    found = planned(router(*MARKET, policies=(desk,), decisions=DECISIONS), call("policy/desk"))
    assert [one.target.model.slug for one in found.candidates] == ["v/2"]
