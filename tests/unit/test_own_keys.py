"""What a customer is told, and who else learns what, when the customer's own key at a provider was used."""

from typing import Any

import pytest
from tests.routing.conftest import call, model, offer, planned, rates, router

from farebox import bridge
from farebox.billing.markup import flat
from farebox.errors import Kind
from farebox.routing.health import Health
from farebox.routing.own_keys import OwnKey
from farebox.routing.plan import own_keys_only
from farebox.routing.target import Place
from farebox.verdict import told, upstream_failure
from farebox.wires.neutral import UpstreamError

KEY = OwnKey("one", "a", "sk-mine-1234567890")


def plan(**more: Any) -> Any:
    made = router(
        model("v/m", offer("a", price=rates("2", "8")), offer("b", price=rates("1", "4"))), markup=flat(1_000), attempts_max=6,
        **more,
    )  # fmt: skip
    return planned(made, call(), own_keys=(KEY,))


def test_the_provider_says_why_it_refused_the_customers_own_key_and_the_house_never_why_it_refused_ours() -> None:
    own, *_, house = plan().candidates
    refused = UpstreamError("credentials", 401, "Incorrect API key provided", "invalid_api_key")
    error = told(refused, own)
    assert (error.kind, error.status, error.code, error.should_retry) == (Kind.PERMISSION, 403, "own_key_refused", False)
    assert error.message == "A refused your own key (`byok:one`): Incorrect API key provided"
    assert error.details == {"provider": "a", "provider_status": 401, "provider_code": "invalid_api_key"}
    ours = told(refused, house)
    assert ours.kind is Kind.UPSTREAM_BAD and "Incorrect" not in ours.message


@pytest.mark.parametrize("kind", ["credentials", "provider_balance", "not_found"])
def test_a_refused_own_key_bars_itself_alone(kind: Any) -> None:
    own = plan().candidates[0]
    assert upstream_failure(UpstreamError(kind, 403, ""), own).bars == "offer"
    assert told(UpstreamError(kind, 403, ""), own).message.endswith("status 403")


def test_a_key_that_a_provider_repeats_is_in_no_message() -> None:
    own = plan().candidates[0]
    found = bridge.failure(
        own, b'{"error":{"message":"Incorrect API key provided: sk-mine-1234567890."}}', lambda _: None, status=401
    )
    assert found.message == "Incorrect API key provided: [the key]." and found.kind == "credentials"
    again = bridge.failure(own, UpstreamError("credentials", 401, "no sk-mine-1234567890"), lambda _: None)
    assert again.message == "no [the key]"
    masked = UpstreamError("caller", 400, "bad key sk-mi*****7890", "no:sk-mine-1234567890", param="sk-mine-1234567890")
    said = bridge.failure(own, masked, lambda _: None)
    assert (said.message, said.provider_code, said.param) == ("bad key [the key]", "no:[the key]", "[the key]")
    plain = UpstreamError("server", 500, "ouch")
    assert bridge.failure(own, plain, lambda _: None) is plain


def test_where_the_money_does_not_reach_for_the_house_the_own_keys_are_left() -> None:
    found = plan()
    alone = own_keys_only(found, streamed=False)
    assert alone is not None and [one.target.key_refs for one in alone.candidates] == [("byok:one",)]
    assert alone.hold_nano == alone.candidates[0].hold_nano < found.hold_nano
    assert [(item.provider, item.rule) for item in alone.excluded] == [
        (one.target.provider.name, "balance") for one in found.candidates[1:]
    ]
    assert own_keys_only(alone, streamed=False) is None, "there is no other plan"
    none = planned(router(model("v/m", offer("a"))), call())
    assert own_keys_only(none, streamed=False) is None


def test_how_a_customers_key_does_is_reported_to_nobody_and_hurts_no_house_key() -> None:
    health = Health()
    made = plan()
    own, *_, house = made.candidates
    for place in (own.target.places[0], house.target.places[0]):
        health.started(place, 1)
        health.finished(place, "key_refused", 1, 2, reason="credentials")
    report = health.report(3)
    assert {one.key for one in report.places} == {one.key for one in report.keys} == {house.target.key_refs[0]}
    other = Health()
    other.started(own.target.places[0], 1)
    other.finished(own.target.places[0], "key_refused", 1, 2, reason="credentials")
    assert other.view(own.target, 3).state == "ejected"
    assert other.view(house.target, 3).state == "healthy"
    assert own.target.places == (Place("a", "byok:one", "v/m"),)
