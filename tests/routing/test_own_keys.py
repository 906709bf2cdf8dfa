"""Customers' own keys at providers: tried first, in their order, the house's behind them or not at all; charged the fee alone."""

from typing import Any

import msgspec
import pytest
from tests.routing.conftest import Clinic, call, model, names, offer, planned, rates, router

from farebox.billing.markup import MarkupPlan, flat, own_key_terms
from farebox.errors import FareboxError
from farebox.routing.measured import Unmeasured
from farebox.routing.own_keys import OwnKey, is_own
from farebox.routing.router import Router

A1 = OwnKey("one", "a", "sk-first")
A2 = OwnKey("two", "a", "sk-second")
C1 = OwnKey("three", "c", "sk-third")
PLAN: MarkupPlan = msgspec.structs.replace(flat(1_000, "std"), own_key=own_key_terms("std", free_calls=10, bp=500))


def market(**more: Any) -> Router:
    return router(
        model("v/m", offer("a", price=rates("2", "8")), offer("b", price=rates("1", "4")), offer("c", price=rates("4", "16"))),
        markup=PLAN,
        attempts_max=6,
        **more,
    )


def refs(plan: Any) -> list[str]:
    return [candidate.target.key_refs[0] for candidate in plan.candidates]


def test_own_keys_come_first_in_their_order_whatever_the_house_costs() -> None:
    plan = planned(market(), call(), own_keys=(A1, A2))
    assert refs(plan)[:2] == ["byok:one", "byok:two"] and sorted(refs(plan)[2:]) == ["a#1", "b#1", "c#1"]
    first = plan.candidates[0]
    assert first.target.keys == ("sk-first",) and is_own(first.target) and not is_own(plan.candidates[2].target)
    assert refs(planned(market(), call(), own_keys=(A2, A1)))[:2] == ["byok:two", "byok:one"]


def test_own_keys_come_before_an_order_and_the_house_keeps_to_it() -> None:
    plan = planned(market(), call(provider={"order": ["c", "b"]}), own_keys=(A1,))
    assert refs(plan) == ["byok:one", "c#1", "b#1", "a#1"]


def test_among_several_providers_with_own_keys_the_order_decides() -> None:
    plan = planned(market(), call(provider={"order": ["c"]}), own_keys=(A1, C1))
    assert refs(plan)[:2] == ["byok:three", "byok:one"]


def test_what_a_preference_rules_out_no_own_key_brings_back() -> None:
    assert names(planned(market(), call(provider={"ignore": ["a"]}), own_keys=(A1,))) == ["b", "c"]
    assert refs(planned(market(), call(provider={"only": ["a"]}), own_keys=(A1,))) == ["byok:one", "a#1"]
    assert refs(planned(market(), call(provider={"allow_fallbacks": False}), own_keys=(A1,))) == ["byok:one"]


def test_a_key_that_is_always_used_leaves_the_house_out_at_its_provider() -> None:
    plan = planned(market(), call(), own_keys=(msgspec.structs.replace(A1, always_use=True), A2))
    assert refs(plan)[:2] == ["byok:one", "byok:two"] and sorted(refs(plan)[2:]) == ["b#1", "c#1"]
    assert [(item.provider, item.rule) for item in plan.left_out] == [("a", "own_key.always_use")]


def test_a_key_that_cannot_be_opened_is_passed_over_and_named() -> None:
    broken = OwnKey("one", "a", "", name="work")
    plan = planned(market(), call(), own_keys=(broken,))
    assert "a#1" in refs(plan)
    assert ["`work` cannot be opened" in item.reason for item in plan.left_out] == [True]
    alone = msgspec.structs.replace(broken, always_use=True)
    with pytest.raises(FareboxError, match="your own key `work` cannot be opened; store it again") as refused:
        planned(market(), call(provider={"only": ["a"]}), own_keys=(alone,))
    assert refused.value.status == 400


def test_an_own_key_is_charged_the_fee_alone_and_the_house_its_price() -> None:
    plan = planned(market(), call(max_tokens=100, provider={"only": ["a"]}), own_keys=(A1,), own_key_calls=10)
    own, house = plan.candidates
    assert own.quoted.fees is not None and own.quoted.fees.own_key and own.quoted.plan == "std BYOK"
    assert 0 < own.hold_nano < house.hold_nano // 20, "5 % of the list price against 110 %"
    assert plan.hold_nano == house.hold_nano, "the house may have to answer"
    free = planned(market(), call(max_tokens=100), own_keys=(A1,), own_key_calls=9).candidates[0]
    assert free.hold_nano == 0 and free.quoted.plan == "std BYOK free"


def test_one_callers_keys_are_nobody_elses() -> None:
    made = market()
    planned(made, call(), own_keys=(A1,))
    assert not any(map(is_own, (one.target for one in planned(made, call()).candidates)))
    assert refs(planned(made, call(), own_keys=(A2,)))[0] == "byok:two"
    again = planned(made, call(), own_keys=(A1,)).candidates[0].target
    assert again is planned(made, call(), own_keys=(A1,)).candidates[0].target, "what is remembered by target stays"


def test_a_key_that_is_out_is_tried_behind_the_house() -> None:
    class Ward(Clinic):
        def view(self, target: Any, now_us: int) -> Unmeasured:
            return Unmeasured(state="ejected") if target.key_refs == ("byok:one",) else Unmeasured()

    plan = planned(market(health=Ward()), call(provider={"only": ["a"]}), own_keys=(A1,))
    assert refs(plan) == ["a#1", "byok:one"]


def test_a_secret_is_in_no_representation() -> None:
    assert "sk-first" not in repr(A1) and A1.ref == "byok:one"
