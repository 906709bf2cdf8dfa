"""What a customer is told, and who else learns what, when the customer's own key at a provider was used."""

from typing import Any

import msgspec
import pytest
from tests.routing.conftest import call, model, offer, planned, rates, router

from farebox import bridge
from farebox.billing.markup import flat
from farebox.config.providers import KeySection, ProviderSection
from farebox.errors import Kind
from farebox.market import Enabled
from farebox.routing.health import Health
from farebox.routing.measured import NothingMeasured, Unmeasured
from farebox.routing.own_keys import OwnKey
from farebox.routing.plan import own_keys_only
from farebox.routing.target import Place, Target
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


@pytest.mark.parametrize(("wait_s", "told_s"), [(0.2, 1), (1.4, 2), (7.0, 7)])
def test_a_client_is_not_told_to_come_back_before_the_provider_allows_it(wait_s: float, told_s: int) -> None:
    house = plan().candidates[-1]
    assert told(UpstreamError("rate_limit", 429, "", retry_after_s=wait_s), house).retry_after_s == told_s


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


def test_what_is_printed_of_targets_and_settings_has_no_key() -> None:
    section = ProviderSection(api_key="sk-house-1234567890", base_url="http://x")
    several = ProviderSection(api_keys=("sk-house-1234567890", KeySection(key="sk-house-1234567890")))
    target = planned(router(model("v/m", offer("a"))), call(), own_keys=(KEY,)).candidates[0].target
    enabled = Enabled(target.provider, "http://x", ("sk-house-1234567890",))
    shown = repr((section, several, several.keys, target, enabled, plan()))
    assert "byok:one" in shown and "1234567890" not in shown


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


def failing(health: Health, place: Place, now_us: int = 2) -> None:
    health.started(place, now_us - 1)
    health.finished(place, "key_refused", now_us - 1, now_us, reason="credentials")


def test_a_bad_own_key_has_no_plan_of_anybody_else_made_anew() -> None:
    health = Health()
    own, *_, house = plan().candidates
    failing(health, own.target.places[0])
    assert (health.epoch, health.own_epoch) == (0, 1)
    assert health.view(own.target, 3).state == "ejected", "and its owner's plans see it at once"
    failing(health, house.target.places[0])
    assert (health.epoch, health.own_epoch) == (1, 1)

    class Ward(NothingMeasured):
        def __init__(self) -> None:
            self.epoch = self.own_epoch = self.views = 0

        def view(self, target: Target, now_us: int) -> Unmeasured:
            self.views += 1
            return Unmeasured()

    ward = Ward()
    made = router(model("v/m", offer("a")), health=ward)
    planned(made, call(), own_keys=(KEY,))
    planned(made, call())
    ward.own_epoch, ward.views = 1, 0
    planned(made, call())
    assert ward.views == 0, "remembered"
    planned(made, call(), own_keys=(KEY,))
    assert ward.views == 2, "made anew"
    ward.epoch, ward.views = 1, 0
    planned(made, call(), own_keys=(KEY,))
    assert ward.views == 2, "the house's offers are in its plan, too"


def test_another_secret_begins_without_the_past_of_the_one_before() -> None:
    health = Health()
    told: list[tuple[str, str]] = []

    class Ward(NothingMeasured):
        def forget_key(self, provider: str, ref: str) -> None:
            told.append((provider, ref))
            health.forget_key(provider, ref)

    made = router(model("v/m", offer("a")), health=Ward())
    own = planned(made, call(), own_keys=(KEY,)).candidates[0]
    failing(health, own.target.places[0])
    health.started(own.target.places[0], 1)
    health.finished(own.target.places[0], "rate_limited", 1, 2, retry_after_us=10**12)
    assert health.view(own.target, 3).state == "ejected"
    planned(made, call(), own_keys=(KEY,))
    planned(made, call(), own_keys=(msgspec.structs.replace(KEY, always_use=True),))
    assert not told, "the secret is the same"
    made = made.over(made.catalog, made.by_wire)
    fresh = planned(made, call(), own_keys=(msgspec.structs.replace(KEY, secret="sk-other"),)).candidates[0]
    assert told == [("a", "byok:one")] and fresh.target.keys == ("sk-other",)
    assert health.view(fresh.target, 3).state == "healthy"


def test_what_is_remembered_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.routing.health.PLACES_MAX", 20)
    monkeypatch.setattr("farebox.routing.health.FORGOTTEN_AT_ONCE", 5)
    health = Health()
    house = Place("a", "a#1", "v/m")
    failing(health, house, 2)
    for n in range(100):
        failing(health, Place("a", f"byok:{n}", "v/m"), 10 + n)
    keys, places = vars(health)["_keys"], vars(health)["_places"]
    assert 15 <= len(places) <= 20 and len(keys) <= 21
    assert ("a", "byok:99") in keys and ("a", "byok:1") not in keys and ("a", "a#1") in keys, "the house's are few, and stay"
