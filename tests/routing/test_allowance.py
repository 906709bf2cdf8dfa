"""What a key may use: models, providers and prices outside its lists are never planned, and the refusal says why."""

from typing import Any

import pytest
from tests.routing.conftest import call, model, names, offer, planned, rates, router

from farebox.billing.markup import flat
from farebox.catalog.price import Tier
from farebox.routing.allowance import Allowance, NotAllowed
from farebox.routing.policy import Policy
from farebox.routing.preferences import PriceCap, price_cap
from farebox.routing.router import Router


def market(**more: Any) -> Router:
    return router(
        model("v/m", offer("a", price=rates("2", "8")), offer("b", price=rates("4", "16"))),
        model("w/m", offer("a", id="n"), offer("c", id="n")),
        **more,
    )


def left_out(plan: Any) -> set[tuple[str, str]]:
    return {(item.provider, item.rule) for item in plan.left_out}


def cap(**usd: str) -> PriceCap | None:
    return price_cap(usd, "max_price")


def test_a_model_outside_the_list_is_a_403_that_names_the_list() -> None:
    with pytest.raises(NotAllowed, match=r"may not call `v/m`; it may call `w/\*`") as refused:
        planned(market(), call("v/m"), allowance=Allowance(models=("w/*",)))
    assert (refused.value.status, refused.value.code, refused.value.param) == (403, "model_not_allowed", "model")
    assert refused.value.details == {"allowed_models": ["w/*"]}
    assert "`fb-Ab…9xYz` may not call" in refused.value.for_key("fb-Ab…9xYz").message


def test_models_are_matched_by_slug_whatever_the_call_writes() -> None:
    allowance = Allowance(models=("w/m",))
    assert names(planned(market(), call("a/n"), allowance=allowance)) == ["a"], "the provider's id of an allowed model"
    with pytest.raises(NotAllowed):
        planned(market(), call("V/M"), allowance=allowance)


def test_fallbacks_outside_the_list_are_left_out_and_said_so() -> None:
    plan = planned(market(), call("w/m", models=["v/m"]), allowance=Allowance(models=("w/m",)))
    assert {item.target.model.slug for item in plan.candidates} == {"w/m"}
    assert ("b", "key.models") in left_out(plan)


def test_a_policy_keeps_to_the_list() -> None:
    made = market(policies=[Policy("p", models=("v/m", "w/m"))])
    plan = planned(made, call("policy/p"), allowance=Allowance(models=("w/*",)))
    assert {item.target.model.slug for item in plan.candidates} == {"w/m"}
    with pytest.raises(NotAllowed, match="may not use any offer of `policy/p`"):
        planned(made, call("policy/p"), allowance=Allowance(models=("x/*",)))


def test_providers_outside_the_list_are_left_out_and_said_so() -> None:
    plan = planned(market(), call("v/m"), allowance=Allowance(providers=("b*",)))
    assert names(plan) == ["b"] and left_out(plan) == {("a", "key.providers")}
    with pytest.raises(NotAllowed, match="it may only use `c`|may only use `c`") as refused:
        planned(market(), call("v/m"), allowance=Allowance(providers=("c",)))
    assert refused.value.code == "offer_not_allowed" and len(refused.value.details["excluded"]) == 2  # type: ignore[arg-type]


def test_a_request_cannot_widen_what_its_key_may_use() -> None:
    with pytest.raises(Exception, match="key.providers"):
        planned(market(), call("v/m", provider={"only": ["a"]}), allowance=Allowance(providers=("b",)))


def test_offers_that_are_too_dear_are_left_out_markup_included() -> None:
    assert names(planned(market(), call("v/m"), allowance=Allowance(price_max=cap(completion="8")))) == ["a"]
    plan = planned(market(), call("v/m"), allowance=Allowance(price_max=cap(completion="8")))
    assert left_out(plan) == {("b", "key.max_price.completion")}
    with pytest.raises(NotAllowed, match=r"\$8\.80 per million is more than \$8\.00"):
        planned(market(markup=flat(1000)), call("v/m"), allowance=Allowance(price_max=cap(completion="8")))


def test_a_dearer_tier_that_the_prompt_can_reach_counts() -> None:
    tiered = offer("a", price=rates("2", "8"), tiers=(Tier(1000, rates("9", "9")),))
    made = router(model("v/m", tiered))
    allowance = Allowance(price_max=cap(prompt="5"))
    assert names(planned(made, call("v/m", "short"), allowance=allowance)) == ["a"]
    with pytest.raises(NotAllowed, match="more than"):
        planned(made, call("v/m", "long " * 2000), allowance=allowance)


def test_the_lower_of_the_keys_and_the_requests_cap_holds() -> None:
    asked = call("v/m", provider={"max_price": {"completion": 20}})
    assert names(planned(market(), asked, allowance=Allowance(price_max=cap(completion="8")))) == ["a"]
    asked = call("v/m", provider={"max_price": {"completion": 8}})
    assert names(planned(market(), asked, allowance=Allowance(price_max=cap(completion="20")))) == ["a"]


def test_keys_do_not_share_what_was_remembered_for_another() -> None:
    made = market()
    assert names(planned(made, call("v/m"), allowance=Allowance(providers=("a",)))) == ["a"]
    assert names(planned(made, call("v/m"), allowance=Allowance(providers=("b",)))) == ["b"]
    assert sorted(names(planned(made, call("v/m")))) == ["a", "b"]


def test_what_the_call_itself_lacks_stays_a_400() -> None:
    with pytest.raises(Exception, match="no offer of `v/m` can take this call") as refused:
        planned(market(), call("v/m", provider={"only": ["a"]}, max_tokens=9999), allowance=Allowance(providers=("a",)))
    assert refused.value.status == 400  # type: ignore[attr-defined]
