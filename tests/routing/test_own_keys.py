"""Customers' own keys at providers: tried first, in their order, the house's behind them or not at all; charged the fee alone."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.routing.conftest import Clinic, call, model, names, offer, planned, rates, router

from farebox.billing.markup import MarkupPlan, flat, own_key_terms
from farebox.errors import FareboxError
from farebox.routing import hedging
from farebox.routing.expected import expected_nano
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


@pytest.mark.parametrize("more", [{}, {"max_price": {"completion": "100"}}])
def test_without_fallbacks_every_key_of_the_first_provider_is_tried_and_no_other_provider(more: dict[str, Any]) -> None:
    alone = {"allow_fallbacks": False, **more}
    assert refs(planned(market(), call(provider=alone), own_keys=(A1, A2))) == ["byok:one", "byok:two", "a#1"]
    always = msgspec.structs.replace(A1, always_use=True)
    assert refs(planned(market(), call(provider=alone), own_keys=(always, A2))) == ["byok:one", "byok:two"]
    for keys in ((A1, C1), (C1, A1)):
        found = planned(market(), call(provider=alone), own_keys=keys)
        assert len(found.candidates) == 2 and len(set(names(found))) == 1, "its own key, and the house's"
    assert len(planned(market(), call(provider=alone)).candidates) == 1
    within = {"allow_fallbacks": False, "max_price": {"completion": "8.5"}}
    assert refs(planned(market(), call(provider=within), own_keys=(A1,))) == ["byok:one"], "the house's price is above it"


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


def test_keys_that_are_out_change_nothing_about_the_houses_offers() -> None:
    class Ward(Clinic):
        def view(self, target: Any, now_us: int) -> Unmeasured:
            out = target.key_refs[0] in ("byok:one", "byok:two", "a#1")
            return Unmeasured(state="ejected", success=0.5 if is_own(target) else 0.0) if out else Unmeasured()

    ward = Ward()
    ward.ejected_max_percent = 34
    plan = planned(market(health=ward), call(), own_keys=(A1, A2))
    assert sorted(refs(plan)[:2]) == ["b#1", "c#1"], "one of three may be out, and no key of a customer counts among them"
    assert refs(plan)[2:] == ["byok:one", "byok:two", "a#1"]


def test_a_price_cap_is_on_all_that_the_customer_pays_to_whomever() -> None:
    capped = call(provider={"only": ["a"], "max_price": {"prompt": 2.05}})
    with pytest.raises(FareboxError, match=r"\$2\.10 per million is more than \$2\.05"):
        planned(market(), capped, own_keys=(A1,), own_key_calls=10)
    assert refs(planned(market(), capped, own_keys=(A1,), own_key_calls=9)) == ["byok:one"], "2 without the fee, the house 2.2"


def test_what_a_call_will_cost_is_told_with_the_providers_bill() -> None:
    asked = call(provider={"only": ["a"]})
    plan = planned(market(), asked, own_keys=(A1,))
    own, house = (expected_nano(asked, one, plan.input_estimate) for one in plan.candidates)
    assert plan.candidates[0].hold_nano == 0 and own * 110 == house * 100


def test_offers_that_the_name_does_not_mean_are_not_said_to_be_left_out() -> None:
    made = router(
        model("v/m", offer("a", id="m"), offer("a", id="other")), markup=PLAN, attempts_max=6
    )
    plan = planned(made, call("a/other"), own_keys=(msgspec.structs.replace(A1, always_use=True),))
    assert refs(plan) == ["byok:one"] and [item.id for item in plan.left_out] == ["other"]


def test_a_hundred_keys_of_one_provider_are_all_charged_the_fee() -> None:
    keys = tuple(OwnKey(f"k{n}", "a", f"sk-{n}") for n in range(300))
    plan = planned(market(), call(provider={"only": ["a"]}), own_keys=keys, own_key_calls=10, everything=True)
    assert all(one.quoted.plan == ("std BYOK" if is_own(one.target) else "std") for one in plan.candidates)
    assert len(plan.candidates) == 301


def test_a_call_by_an_own_key_is_not_hedged() -> None:
    plan = planned(market(), call(), own_keys=(A1,))
    found = hedging.outlook(
        hedging.Hedge(1, 0, False), call(), tuple(one.target for one in plan.candidates), escalates=False, attempts_max=3,
        times=lambda _: {1: 10}, usable=lambda _: True,
    )  # fmt: skip
    assert found.why_not == "own_key"


def test_a_provider_for_own_keys_alone_is_called_by_nobody_else() -> None:
    made = market()
    by_wire = {
        wire: {slug: tuple(_for_own_keys(one) for one in targets) for slug, targets in by_slug.items()}
        for wire, by_slug in made.by_wire.items()
    }
    made = made.over(made.catalog, by_wire)
    assert sorted(refs(planned(made, call()))) == ["b#1", "c#1"]
    with pytest.raises(FareboxError, match="`a` is called by customers' own keys alone, and there is none of yours") as refused:
        planned(made, call(provider={"only": ["a"]}))
    assert refused.value.status == 400
    plan = planned(made, call(provider={"only": ["a"]}), own_keys=(A1,))
    assert refs(plan) == ["byok:one"] and plan.hold_nano == plan.candidates[0].hold_nano, "no house stands behind it"
    assert sorted(refs(planned(made, call(), own_keys=(C1,)))) == ["b#1", "byok:three", "c#1"]


def _for_own_keys(target: Any) -> Any:
    return replace(target, house=target.provider.name != "a")


def test_a_secret_is_in_no_representation() -> None:
    assert "sk-first" not in repr(A1) and A1.ref == "byok:one"
