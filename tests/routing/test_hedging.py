"""When a second provider is asked beside a slow first one: the decision alone."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.routing.conftest import NOW_US, call, model, offer, planned, router

from farebox.billing.quotes import Quote
from farebox.billing.records import Attempt
from farebox.billing.settlement import AttemptStart
from farebox.catalog.price import Rates, Schedule
from farebox.config.routing import HedgeSection, PolicySection
from farebox.processes import hedge_file
from farebox.routing.health import Health
from farebox.routing.hedging import Hedge, Waste, compiled, delay_us, partner, stateful, tail_us
from farebox.routing.lessons import lesson
from farebox.routing.policy import Policies, Policy, PolicyError
from farebox.routing.policy import compiled as compiled_policy
from farebox.routing.preferences import Providers
from farebox.routing.rolling import Histogram
from farebox.routing.target import Place

RULES = Hedge(samples_min=20, delay_min_us=100_000, charges_both=False)
DAY_US = 86_400_000_000


def bins(*milliseconds: float) -> dict[int, int]:
    made = Histogram()
    for value in milliseconds:
        made.add(NOW_US, value)
    return made.bins(NOW_US)


def test_nobody_is_hedged_before_enough_was_measured() -> None:
    assert delay_us(RULES, bins(*[200] * 19)) is None
    assert delay_us(RULES, {}) is None
    assert delay_us(RULES, bins(*[200] * 20)) == pytest.approx(200_000, rel=0.1)


def test_the_delay_is_the_95th_percentile_and_never_below_the_least() -> None:
    slow = bins(*[200] * 90, *[1_000] * 4, *[5_000] * 6)
    assert tail_us(slow, 1) == pytest.approx(5_000_000, rel=0.1)
    assert tail_us(bins(*[200] * 96, *[5_000] * 4), 1) == pytest.approx(200_000, rel=0.1)
    assert delay_us(RULES, bins(*[3] * 50)) == 100_000


def test_settings_out_of_range_are_named() -> None:
    providers = Providers.of({})
    for setting, value in (("samples_min", 0), ("delay_min_ms", 600_001)):
        section = PolicySection(hedge=HedgeSection(**{setting: value}))  # type: ignore[arg-type]
        with pytest.raises(PolicyError, match=f"policies.p.hedge.{setting}"):
            compiled_policy("p", section, providers, {})
    found = compiled_policy("p", PolicySection(hedge=HedgeSection(charge="both")), providers, {}).hedge
    assert found == Hedge(50, 100_000, True) == compiled(HedgeSection(charge="both"))
    assert compiled_policy("p", PolicySection(), providers, {}).hedge is None


def test_a_called_policys_rules_come_before_the_default_ones() -> None:
    other = msgspec.structs.replace(RULES, samples_min=7)
    made = router(
        model("v/m", offer("a"), offer("b")),
        policies=(Policy("own", hedge=RULES), Policy("called", models=("v/m",), hedge=other), Policy("bare", models=("v/m",))),
    )
    assert planned(made, call()).standing.hedge is None
    assert planned(made, call(), policy="own").standing.hedge == RULES
    assert planned(made, call("policy/called"), policy="own").standing.hedge == other
    assert planned(made, call("policy/bare"), policy="own").standing.hedge == RULES
    assert list(Policies((Policy("own", hedge=RULES),)))[0].hedge is RULES


def test_the_partner_is_well_of_the_same_model_and_of_another_provider_if_there_is_one() -> None:
    made = router(
        model("v/m", offer("a", variant="eu"), offer("a", id="m2", variant="us"), offer("b"), offer("c")),
        model("v/other", offer("d")),
        policies=(Policy("p", models=("v/m", "v/other")),),
        attempts_max=6,
    )
    by_name = {target.offer.id + target.provider.name: target for target in made.by_wire["openai_chat"]["v/m"]}
    ours = (by_name["ma"], by_name["m2a"], by_name["mb"], by_name["mc"], made.by_wire["openai_chat"]["v/other"][0])
    assert partner(ours, lambda _: True) == 2
    assert partner(ours, lambda target: target.provider.name != "b") == 3
    assert partner(ours, lambda target: target.provider.name == "a") == 1, "another offer of the provider is better than nobody"
    assert partner(ours, lambda target: target.provider.name == "d") is None, "another model gives another answer"
    assert partner(ours[:1], lambda _: True) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"tools": [{"name": "f", "input_schema": {}}]}, False),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, True),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "code_interpreter"}]}, True),
        ({"store": True}, True),
        ({"store": False}, False),
        ({"mcp_servers": [{"url": "https://x"}]}, True),
        ({"mcp_servers": []}, False),
        ({"web_search_options": {}}, True),
    ],
)
def test_what_a_provider_would_do_twice_is_not_hedged(fields: dict[str, Any], expected: bool) -> None:
    assert stateful(call(**fields)) is expected


def test_the_days_cap_holds_whatever_comes_at_once() -> None:
    waste = Waste(1_000)
    midnight = NOW_US // DAY_US * DAY_US + DAY_US
    assert waste.reserve(600, NOW_US) and not waste.reserve(500, NOW_US) and waste.reserve(400, NOW_US)
    waste.end(600, 100, NOW_US)
    assert waste.spent_nano == 100 and waste.until_us == midnight
    assert waste.reserve(500, NOW_US) and not waste.reserve(1, NOW_US)
    waste.end(500, 500, midnight)
    assert waste.spent_nano == 500, "what is known of tomorrow counts tomorrow"
    assert waste.reserve(100, midnight) and not waste.reserve(1, midnight), "a hedge under way is still set aside"


def test_a_restart_forgets_nothing_of_the_day() -> None:
    waste = Waste(1_000)
    waste.restore(NOW_US + 5, 900)
    assert not waste.reserve(101, NOW_US) and waste.reserve(100, NOW_US)
    waste.end(100, 0, NOW_US)
    assert waste.reserve(1_000, NOW_US + 5), "another day"


def test_what_was_wasted_is_written_down_and_read_again(tmp_path: Path) -> None:
    path, waste = tmp_path / "w0.hedges", Waste(1_000)
    hedge_file.save(waste, path)
    assert not path.exists(), "nothing is new"
    assert waste.reserve(400, NOW_US)
    waste.end(400, 300, NOW_US)
    hedge_file.save(waste, path)
    again = Waste(1_000)
    hedge_file.restore(again, path)
    assert (again.spent_nano, again.until_us) == (300, waste.until_us) and not again.reserve(701, NOW_US)
    path.write_bytes(b"{")
    hedge_file.restore(again, path)
    assert again.spent_nano == 300, "half a file is none"


def test_days_are_those_of_the_zone() -> None:
    waste = Waste(10, "Asia/Tokyo")
    assert waste.reserve(10, 1_790_000_000_000_000)
    assert (waste.until_us // 3_600_000_000) % 24 == 15, "midnight in Tokyo is 15:00 UTC"


def start(**more: Any) -> AttemptStart:
    quoted = Quote("v", Schedule(Rates(input=1, output=1)), 0, {})
    return AttemptStart(1, "a", "m", "", quoted, 0, **more)


def test_what_was_outrun_stays_in_the_tail() -> None:
    """A slow answer that is cut off must not leave the measurements: the 95th percentile would sink with every hedge."""
    target = router(model("v/m", offer("a"))).by_wire["openai_chat"]["v/m"][0]
    place = target.places[0]
    health = Health()
    for _ in range(95):
        health.started(place, NOW_US)
        health.finished(place, "ok", NOW_US, NOW_US, first_token_us=200_000)
    for _ in range(10):
        health.started(place, NOW_US)
        health.finished(place, "outrun", NOW_US, NOW_US, first_token_us=900_000)
    assert tail_us(health.times(target, NOW_US, streamed=True), 1) == pytest.approx(900_000, rel=0.1)
    view = health.view(target, NOW_US)
    assert view.success == 1.0 and view.in_flight == 0, "it is no failure"
    assert health.times(target, NOW_US, streamed=False) == {}


def test_whole_answers_are_measured_where_somebody_asks() -> None:
    target = router(model("v/m", offer("a"))).by_wire["openai_chat"]["v/m"][0]
    place: Place = target.places[0]
    health = Health()
    health.started(place, NOW_US)
    health.finished(place, "ok", NOW_US, NOW_US, answer_us=2_000_000)
    health.started(place, NOW_US)
    health.finished(place, "failed", NOW_US, NOW_US, answer_us=9_000_000)
    assert tail_us(health.times(target, NOW_US, streamed=False), 1) == pytest.approx(2_000_000, rel=0.1)
    assert health.times(target, NOW_US, streamed=True) == {}


def test_an_outrun_attempt_says_nothing_against_its_provider() -> None:
    assert lesson("outrun", None) == "outrun"
    assert Attempt(1, "a", "m", 0, 0, "outrun").charge_nano == 0
