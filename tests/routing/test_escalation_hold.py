"""What is held where a strong model may answer after a cheap one: both, whatever else shortens the plan."""

from types import SimpleNamespace
from typing import Any, cast

from tests.routing.conftest import call, model, offer, planned, rates, router

from farebox import metering
from farebox.quality.rules import Rules
from farebox.routing.plan import TRANSLATION, lowered, passed_over, without
from farebox.routing.policy import Policy

MODELS = (
    model("v/cheap", offer("a", price=rates("1", "1"))),
    model("v/other", offer("b", price=rates("2", "2"))),
    model("v/strong", offer("c", price=rates("10", "10"))),
)
POLICY = Policy("p", models=("v/cheap", "v/other"), escalation=Rules(("v/strong",)))


def test_a_plan_that_is_shortened_still_holds_for_both() -> None:
    asked = call("policy/p", max_tokens=100)
    found = planned(router(*MODELS, policies=(POLICY,)), asked)
    cheap, other, strong = (one.hold_nano for one in found.candidates)
    assert found.hold_nano == other + strong and found.escalates(asked)
    tier = SimpleNamespace(name="t", models=("x",), allows=lambda slug: slug != "v/other")
    principal = cast("Any", SimpleNamespace(tier=tier, account_name="acme"))
    assert metering.within_tier(principal, found, streamed=False).hold_nano == cheap + strong
    assert metering.within_tier(principal, found, streamed=True).hold_nano == strong
    made = router(*MODELS, policies=(POLICY,))
    deaf = planned(made, asked, sayable=True, expresses=lambda _, one: "no" if one.target.model.slug == "v/cheap" else None)
    assert deaf.hold_nano == other + strong and [one.rule for one in deaf.excluded] == [TRANSLATION]
    told = without(found, {1: passed_over(found.candidates[1], TRANSLATION, "no")})
    assert told.hold_nano == found.hold_nano and len(told.candidates) == 2, "what is held stays held"
    smaller = lowered(asked, found, 50)
    assert smaller.hold_nano == smaller.candidates[1].hold_nano + smaller.candidates[2].hold_nano
