"""The plan: nothing that preferences or the call's needs exclude is in it, orders are kept, the hold covers every candidate."""

from collections import Counter
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.routing.conftest import (
    ALL,
    DAY,
    NOW_US,
    Clinic,
    call,
    dollars,
    latency,
    model,
    names,
    offer,
    planned,
    provider,
    rates,
    router,
)

from farebox.billing.bound import Bound
from farebox.billing.bounds import bound
from farebox.billing.markup import Band, Fees, MarkupPlan, Rule, Terms, flat
from farebox.billing.pricing import worst_case_nano
from farebox.catalog.price import OffPeak, Schedule, Tier
from farebox.errors import FareboxError, Kind
from farebox.ports import SystemRandom
from farebox.routing import preparing, sticky
from farebox.routing.expected import expected_nano
from farebox.routing.measured import State, Unmeasured
from farebox.routing.policy import Policy
from farebox.routing.preferences import Preferences, ProviderRef
from farebox.routing.standing import RANK_EJECTED, Entry
from farebox.verdict import Failure, barred
from farebox.wires.dialect import Dialect

NAMES = ("p0", "p1", "p2", "p3", "p4")
FEES = st.sampled_from([None, Fees(per_call_nano=1000), Fees(min_nano=500), Fees(per_call_nano=7, max_nano=10)])
prices = st.integers(0, 60).map(lambda tenths: f"{tenths // 10}.{tenths % 10}")


@st.composite
def markets(draw: st.DrawFn) -> list[Any]:
    found: list[Any] = []
    for name in NAMES[: draw(st.integers(1, 5))]:
        capabilities = ALL - draw(st.sets(st.sampled_from(["tools", "vision", "json_schema", "reasoning"])))
        tiers = (Tier(draw(st.integers(0, 500)), rates(draw(prices), draw(prices))),) if draw(st.booleans()) else ()
        found.append(
            offer(
                name,
                price=rates(draw(prices), draw(prices)),
                tiers=tiers,
                capabilities=capabilities,
                context_window=draw(st.sampled_from([64, 1000, 128_000])),
                max_output_tokens=draw(st.sampled_from([100, 4096])),
                quantization=draw(st.sampled_from(["", "fp8", "bf16"])),
            )
        )
    return found


def tokens_of(one: Bound) -> tuple[int, int, int, bool]:
    return one.input_tokens, one.output_tokens, one.cap, one.capped


some = st.lists(st.sampled_from(NAMES), max_size=3)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "order": some,
        "only": some,
        "ignore": some,
        "allow_fallbacks": st.booleans(),
        "quantizations": st.lists(st.sampled_from(["fp8", "bf16", "unknown"]), max_size=2),
        "sort": st.sampled_from(["price", "throughput", "latency"]),
        "max_price": st.fixed_dictionaries({}, optional={"prompt": prices, "completion": prices}),
    },
)
needs = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "response_format": st.just({"type": "json_schema", "json_schema": {}}),
        "reasoning_effort": st.sampled_from(["low", "none"]),
        "max_tokens": st.integers(1, 5000),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    offers=markets(), wish=wishes, need=needs, size=st.integers(1, 3000), markup=st.integers(0, 3000), fees=FEES,
    seed=st.floats(0, 0.999),
)  # fmt: skip
def test_a_plan_keeps_every_promise(
    offers: list[Any], wish: dict[str, Any], need: dict[str, Any], size: int, markup: int, fees: Fees | None, seed: float
) -> None:
    plan = MarkupPlan("", (Rule("*", "*", (Band(0, Terms("", markup, fees)),)),))
    everyone = {name: provider(name) for name in NAMES}
    made = router(model("v/m", *offers), providers=everyone, markup=plan)
    asked = call(text="x" * size, provider=wish, **need)
    try:
        found = planned(made, asked, chance=(seed, 0.3, 0.9))
    except FareboxError as refusal:
        assert refusal.kind in (Kind.NO_OFFER, Kind.CONTEXT_LENGTH)
        assert {item["provider"] for item in refusal.details["excluded"]} == {item.provider for item in offers}
        return
    listed = [name for name in dict.fromkeys(wish.get("order", []))]
    for candidate in found.candidates:
        one = candidate.target.offer
        assert not wish.get("only") or one.provider in wish["only"]
        assert one.provider not in wish.get("ignore", [])
        assert asked.needs <= one.capabilities
        assert need.get("max_tokens", 0) <= one.max_output_tokens
        assert not wish.get("quantizations") or (one.quantization or "unknown") in wish["quantizations"]
        limits = bound(asked, model="v/m", context_window=one.context_window, max_output_tokens=one.max_output_tokens)
        assert tokens_of(candidate.bound) == tokens_of(limits)
        for rate in candidate.quoted.schedule.reachable(limits.input_tokens):
            for name, paid in (("prompt", rate.input), ("completion", rate.output)):
                most = wish.get("max_price", {}).get(name)
                assert most is None or paid * (10_000 + markup) <= dollars(most) * 10_000
        worst = worst_case_nano(candidate.quoted, input_tokens=limits.input_tokens, output_tokens=limits.output_tokens)
        assert found.hold_nano >= worst == candidate.hold_nano >= expected_nano(asked, candidate, found.input_estimate)
    served = names(found)
    assert len(served) == len(set(served)) and len(served) <= 3
    inside = [name for name in served if name in listed]
    if not any(item.context_window < 2000 for item in offers):
        assert inside == sorted(inside, key=listed.index) and served[: len(inside)] == inside
    if wish.get("allow_fallbacks") is False:
        assert len(served) == 1 or served == inside
    if wish.get("sort") == "price" and not listed and not any(item.context_window < 2000 for item in offers):
        expected = [expected_nano(asked, candidate, found.input_estimate) for candidate in found.candidates]
        assert expected == sorted(expected)


def test_chance_is_weighted_by_the_inverse_square_of_the_price() -> None:
    made = router(model("v/m", offer("dear", price=rates("2", "8")), offer("cheap", price=rates("1", "4"))))
    random = SystemRandom()
    first = Counter(names(made.plan(call(), now_us=NOW_US, day=DAY, random=random))[0] for _ in range(4000))
    assert 0.75 < first["cheap"] / 4000 < 0.85, "half the price: four times the calls"
    shares = {entry.target.provider.name: entry.share_bp for entry in planned(made, call()).standing.groups[0].entries}
    assert shares == {"cheap": 8000, "dear": 2000}


def test_equal_prices_share_equally_and_free_offers_do_not_break_the_scale() -> None:
    made = router(model("v/m", *(offer(name, price=rates("0", "0")) for name in NAMES[:4])))
    first = Counter(names(made.plan(call(), now_us=NOW_US, day=DAY, random=SystemRandom()))[0] for _ in range(2000))
    assert all(380 < count < 620 for count in first.values()) and len(first) == 4


def test_ejected_offers_are_the_last_resort_and_nobody_is_left_without_any() -> None:
    clinic = Clinic(cheap=Unmeasured(state="ejected"))
    made = router(model("v/m", offer("cheap", price=rates("0.1", "0.1")), offer("dear")), health=clinic)
    assert names(planned(made, call())) == ["dear", "cheap"]
    assert names(planned(made, call(provider={"order": ["cheap"]}))) == ["dear", "cheap"]
    clinic.views["dear"] = Unmeasured(state="ejected")
    clinic.epoch += 1
    assert sorted(names(planned(made, call()))) == ["cheap", "dear"]


def test_offers_that_are_full_are_behind_those_that_are_not() -> None:
    """From call to call, whatever they are sorted by, and without a new epoch."""
    clinic = Clinic(out=Unmeasured(state="ejected"))
    made = router(model("v/m", *(offer(name) for name in ("a", "b", "c", "out"))), health=clinic, attempts_max=4)
    asked = call(provider={"order": ["a", "b", "c", "out"]})
    assert names(planned(made, asked)) == ["a", "b", "c", "out"]
    clinic.limited, clinic.busy = True, {"a", "b", "out"}
    assert names(planned(made, asked)) == ["c", "a", "b", "out"]
    assert {names(planned(made, call(), chance=(n / 10,)))[0] for n in range(10)} == {"c"}
    clinic.busy = {"b"}
    assert names(planned(made, asked)) == ["a", "c", "b", "out"]
    assert names(planned(made, call(provider={"order": ["b"], "allow_fallbacks": False}))) == ["b"], "nobody is left out"


def test_no_more_offers_are_put_last_than_the_cap_says_and_they_are_the_worst() -> None:
    out = {name: Unmeasured(state="ejected", success=share) for name, share in (("a", 0.1), ("b", 0.4), ("c", 0.0))}
    clinic = Clinic(**out)
    made = router(model("v/m", *(offer(name) for name in ("a", "b", "c", "d"))), health=clinic)
    asked = call(provider={"order": ["a", "b", "c", "d"]})
    assert names(planned(made, asked)) == ["d", "a", "b"], "all of them; and no more than three are tried"
    for percent, expected in ((50, ["b", "d", "a"]), (25, ["a", "b", "d"]), (0, ["a", "b", "d"])):
        clinic.ejected_max_percent = percent
        clinic.epoch += 1
        assert names(planned(made, asked)) == expected, percent
    clinic.views["d"] = Unmeasured(state="ejected", success=0.2)
    clinic.ejected_max_percent = 100
    clinic.epoch += 1
    assert names(planned(made, asked)) == ["a", "b", "c"], "all are out: as if none were"


OFFERS_AND_CAP = given(
    st.lists(st.tuples(st.sampled_from(("healthy", "probing", "ejected")), st.integers(0, 4)), min_size=1, max_size=8),
    st.integers(0, 100),
)


def cap_holds(states: list[tuple[State, int]], percent: int) -> None:
    """That no more are put last than may be, and the worst."""
    clinic = Clinic(**{f"p{at}": Unmeasured(state=state, success=share / 4) for at, (state, share) in enumerate(states)})
    clinic.ejected_max_percent = percent
    made = router(model("v/m", *(offer(f"p{at}") for at in range(len(states)))), health=clinic)
    (group,) = planned(made, call()).standing.groups
    assert len(group.entries) == len(states), "nobody is left out"
    last = [one for one in group.entries if one.rank >= RANK_EJECTED]
    out = [one for one in group.entries if one.state == "ejected"]
    assert all(one.state == "ejected" for one in last)
    assert len(last) == min(len(out), max(len(states) * percent // 100, 1))
    success = {name: view.success or 0.0 for name, view in clinic.views.items()}
    kept = [success[one.target.provider.name] for one in out if one not in last]
    assert not kept or min(kept) >= max(success[one.target.provider.name] for one in last), "the worst are put last"


@settings(max_examples=60, deadline=None)
@OFFERS_AND_CAP
def test_the_cap_on_ejections_holds_for_any_health(states: list[tuple[State, int]], percent: int) -> None:
    cap_holds(states, percent)


def the_best_are_put_last(honest: Any, entries: list[Entry], health: Any, now_us: int) -> list[Entry]:
    """Of those that are out, the ones that did best."""

    class Reversed:
        ejected_max_percent = health.ejected_max_percent

        def view(self, target: Any, now_us: int) -> Any:
            return Unmeasured(success=-(health.view(target, now_us).success or 0.0))

    return honest(entries, Reversed(), now_us)


def of_those_that_are_out(honest: Any, entries: list[Entry], health: Any, now_us: int) -> list[Entry]:
    """The cap is a share of those that are out, not of all."""
    out = [entry for entry in entries if entry.state == "ejected"]
    capped = honest(out, health, now_us) if out else []
    return [entry for entry in entries if entry.state != "ejected"] + capped


CAP_BUGS: dict[str, Any] = {
    "no cap": lambda honest, entries, health, now_us: entries,
    "left out": lambda honest, entries, health, now_us: (
        [entry for entry in honest(entries, health, now_us) if entry.rank < RANK_EJECTED] or entries
    ),
    "the best are put last": the_best_are_put_last,
    "a share of those that are out": of_those_that_are_out,
}


@pytest.mark.parametrize("bug", CAP_BUGS)
def test_a_planted_bug_in_the_cap_is_seen(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_capped", partial(CAP_BUGS[bug], preparing._capped))
    search = settings(
        max_examples=300, deadline=None, derandomize=True, database=None, phases=(Phase.generate,), report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        search(OFFERS_AND_CAP(cap_holds))()


def test_a_new_epoch_is_seen_at_once() -> None:
    clinic = Clinic()
    made = router(model("v/m", offer("a"), offer("b")), health=clinic)
    planned(made, call(provider={"order": ["a"]}))
    clinic.views["a"] = Unmeasured(state="ejected")
    clinic.epoch += 1
    assert names(planned(made, call(provider={"order": ["a"]}))) == ["b", "a"]


def test_sorts_by_what_was_measured() -> None:
    clinic = Clinic(slow=latency(900, 20), quick=latency(100, 50), middling=latency(500, 90))
    made = router(model("v/m", *(offer(name) for name in ("slow", "quick", "middling"))), health=clinic)
    assert names(planned(made, call(provider={"sort": "latency"}))) == ["quick", "middling", "slow"]
    assert names(planned(made, call(provider={"sort": "throughput"}))) == ["middling", "quick", "slow"]
    assert names(planned(made, call("v/m:nitro"))) == ["middling", "quick", "slow"]


def test_what_was_not_measured_comes_last_but_now_and_then_first() -> None:
    clinic = Clinic(known=latency(900))
    made = router(model("v/m", offer("new"), offer("known")), health=clinic)
    asked = call(provider={"sort": "latency"})
    assert names(planned(made, asked, chance=(0.9,))) == ["known", "new"]
    assert names(planned(made, asked, chance=(0.01,))) == ["new", "known"]


def test_nobody_is_tried_before_those_of_an_order_to_be_measured() -> None:
    clinic = Clinic(known=latency(100))
    made = router(model("v/m", offer("listed"), offer("known"), offer("new")), health=clinic)
    for sort in ("latency", "throughput"):
        asked = call(provider={"order": ["listed"], "sort": sort})
        assert names(planned(made, asked, chance=(0.0,)))[0] == "listed"


def test_missed_preferences_only_move_an_offer_back() -> None:
    clinic = Clinic(slow=latency(2000, 10), quick=latency(100, 90))
    made = router(model("v/m", offer("slow"), offer("new"), offer("quick")), health=clinic)
    assert names(planned(made, call(provider={"preferred_max_latency": 0.5}))) == ["quick", "new", "slow"]
    assert names(planned(made, call(provider={"preferred_min_throughput": {"p50": 50}}))) == ["quick", "new", "slow"]


def test_other_models_follow_and_each_keeps_a_try() -> None:
    made = router(
        model("v/m", *(offer(name) for name in NAMES)), model("w/n", offer("q", id="n", price=rates("40", "90"))), attempts_max=3
    )
    found = planned(made, call(models=["w/n"]))
    assert [candidate.target.model.slug for candidate in found.candidates] == ["v/m", "v/m", "w/n"]
    assert found.hold_nano == found.candidates[-1].hold_nano, "the dearest of the chain is held"
    assert planned(made, call(fallbacks=["w/n"], num_retries=0)).attempts_max == 2, "a try for each model"
    assert planned(made, call(num_retries=1)).attempts_max == 2
    with pytest.raises(FareboxError) as caught:
        planned(made, call(models=["no/such"]))
    assert caught.value.status == 404 and caught.value.param == "models"


def test_a_chain_starts_where_it_can() -> None:
    made = router(model("v/m", offer("a", capabilities=ALL - {"tools"})), model("w/n", offer("b", id="n")))
    found = planned(made, call(models=["w/n"], tools=[{"type": "function"}]))
    assert names(found) == ["b"] and [item.rule for item in found.left_out] == ["tools"]


def test_models_can_be_sorted_as_one_list() -> None:
    made = router(model("v/m", offer("a", price=rates("3", "3"))), model("w/n", offer("b", id="n", price=rates("1", "1"))))
    assert names(planned(made, call(models=["w/n"], provider={"sort": "price"}))) == ["a", "b"]
    assert names(planned(made, call(models=["w/n"], provider={"sort": {"by": "price", "partition": "none"}}))) == ["b", "a"]


def test_data_policies_are_promises() -> None:
    rows = {
        "says-no": provider("says-no", trains=False, retention_days=0),
        "trains": provider("trains", trains=True, retention_days=30),
        "silent": provider("silent"),
        "gateway": provider("gateway", dialect=Dialect(extensions=True)),
    }
    made = router(model("v/m", *(offer(name) for name in rows)), providers=rows, attempts_max=4)
    for wish in ({"data_collection": "deny"}, {"zdr": True}):
        found = planned(made, call(provider=wish))
        assert sorted(names(found)) == ["gateway", "says-no"]
        behind = next(item for item in found.candidates if item.target.provider.name == "gateway")
        assert dict(behind.entry.fields)["provider"] == msgspec.json.encode(wish)
    assert sorted(names(planned(made, call(provider={"data_collection": "allow"})))) == sorted(rows)


def test_a_gateway_behind_us_is_told_what_is_its_to_keep() -> None:
    rows = {"gateway": provider("gateway", dialect=Dialect(extensions=True)), "other": provider("other")}
    made = router(model("v/m", offer("gateway"), offer("other")), providers=rows, markup=flat(1000))
    wish = {"only": ["gateway/deep", "other"], "sort": "price", "max_price": {"prompt": 3, "completion": 11}}
    found = planned(made, call(provider=wish))
    told = {item.target.provider.name: dict(item.entry.fields).get("provider") for item in found.candidates}
    assert told["other"] is None
    assert told["gateway"] == b'{"only":["deep"],"sort":"price","max_price":{"prompt":2.727272,"completion":10.00}}'


def test_suffixes_ask_for_the_service_tier_where_it_has_a_price() -> None:
    flex = {"flex": Schedule(rates("1", "4"))}
    made = router(model("v/m", offer("plain", price=rates("1.5", "6")), offer("tiered", service_tiers=flex)))
    found = planned(made, call("v/m:floor"))
    assert names(found) == ["tiered", "plain"]
    assert dict(found.candidates[0].entry.fields) == {"service_tier": b'"flex"'} and not found.candidates[1].entry.fields
    assert found.candidates[0].quoted.schedule.rates.input == dollars("1")
    assert not planned(made, call("v/m")).candidates[0].entry.fields
    assert names(planned(made, call("v/m:floor", provider={"sort": "latency"}))) == ["plain", "tiered"], "the request's own sort"


def test_prices_by_the_hour_are_asked_for_at_the_hour() -> None:
    night = OffPeak(Schedule(rates("0.1", "0.1")), ((0, 1440),), weekends_off_peak=True)
    made = router(model("v/m", offer("a", price=rates("9", "9"), off_peak=night)))
    asked = call()
    saturday = NOW_US + (5 - (NOW_US // 86_400_000_000 + 3) % 7) % 7 * 86_400_000_000
    weekday = made.plan(asked, now_us=NOW_US, day=DAY, random=SystemRandom())
    weekend = made.plan(asked, now_us=saturday, day="2026-09-26", random=SystemRandom())
    assert weekend.hold_nano < weekday.hold_nano


def test_a_refusal_says_which_requirement_excluded_which_offer() -> None:
    made = router(model("v/m", offer("a", capabilities=ALL - {"vision"}), offer("b", max_output_tokens=10)))
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]}
    with pytest.raises(FareboxError) as caught:
        planned(made, call(messages=[picture], max_tokens=50))
    error = caught.value
    assert error.kind is Kind.NO_OFFER and "`a/m`: it takes no images (`vision`)" in error.message
    assert [(item["provider"], item["rule"]) for item in error.details["excluded"]] == [("a", "vision"), ("b", "max_tokens")]
    with pytest.raises(FareboxError) as caught:
        planned(router(model("v/m", offer("a", context_window=10))), call(text="x" * 10_000))
    assert caught.value.kind is Kind.CONTEXT_LENGTH


def test_a_prompt_that_probably_does_not_fit_goes_to_the_larger_window_first() -> None:
    made = router(model("v/m", offer("small", price=rates("0.1", "0.1"), context_window=1000), offer("large")))
    assert names(planned(made, call(text="x" * 8000))) == ["large", "small"]


def test_too_long_for_one_may_fit_where_more_input_or_more_in_all_is_taken() -> None:
    sizes = {"a": (200_000, 100_000), "b": (150_000, 150_000), "c": (150_000, 90_000), "d": (1_000_000, 100_000)}
    offers = (offer(name, context_window=window, max_input_tokens=most) for name, (window, most) in sizes.items())
    made = router(model("v/m", *offers), attempts_max=4)
    found = planned(made, call(provider={"order": list(sizes)}))
    failure = Failure(FareboxError(Kind.CONTEXT_LENGTH, "too long"), "no_larger_window")
    assert [sorted(sizes)[n] for n in barred(failure, 0, found.candidates)] == ["a", "c"]


def test_parameters_can_be_required() -> None:
    rows = {"simple": provider("simple", dialect=Dialect(logprobs=False)), "full": provider("full")}
    made = router(model("v/m", offer("simple", price=rates("0.1", "0.1")), offer("full")), providers=rows)
    asked = {"logprobs": True, "provider": {"sort": "price"}}
    assert names(planned(made, call(**asked))) == ["simple", "full"]
    asked = {"logprobs": True, "provider": {"sort": "price", "require_parameters": True}}
    found = planned(made, call(**asked))
    assert names(found) == ["full"] and found.left_out[0].rule == "provider.require_parameters"


def test_a_parameter_that_is_null_is_not_required() -> None:
    made = router(model("v/m", offer("a")), providers={"a": provider("a", dialect=Dialect(stop=False, seed_field="unsupported"))})
    asked = {"stop": None, "seed": None, "logprobs": None, "tool_choice": None, "reasoning_effort": None}
    assert names(planned(made, call(provider={"require_parameters": True}, **asked))) == ["a"]
    with pytest.raises(FareboxError, match="`stop`"):
        planned(made, call(provider={"require_parameters": True}, **asked | {"stop": "."}))


def test_required_parameters_look_through_a_translation() -> None:
    rows = {"far": provider("far", wires=("anthropic_messages",)), "near": provider("near")}
    made = router(model("v/m", offer("far", wire="anthropic_messages"), offer("near")), providers=rows)
    asked = call(seed=7, provider={"require_parameters": True})
    assert names(planned(made, asked, expresses=lambda _call, _candidate: "no seed")) == ["near"]


def test_turns_of_a_conversation_go_to_one_offer_in_every_process() -> None:
    offers = [offer(name, price=rates("2", "8", cached="0.2")) for name in NAMES]
    first, second = router(model("v/m", *offers)), router(model("v/m", *reversed(offers)))
    homes: Counter[str] = Counter()
    for number in range(300):
        opening = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"question {number}"}]
        later = [*opening, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and?" * number}]
        plans = [
            planned(one, call(messages=messages), chance=(chance,))
            for one, messages, chance in ((first, opening, 0.1), (first, later, 0.9), (second, later, 0.4))
        ]
        assert len({names(plan)[0] for plan in plans}) == 1
        assert [plan.later_turn for plan in plans] == [False, True, True] and plans[1].candidates[0].cached_bp == 5000
        assert plans[1].candidates[1].cached_bp == 0, "only where the conversation was, something can be cached"
        tokens, asked = plans[1].input_estimate, call(messages=later)
        cheap, dear = (expected_nano(asked, one, tokens) for one in plans[1].candidates[:2])
        # Half of the prompt at a tenth of the price: $1.80 per million less.
        assert dear - cheap == tokens * 5_000 // 10_000 * 1_800_000 // 1_000
        homes[names(plans[0])[0]] += 1
    assert min(homes[name] for name in NAMES) > 30, f"conversations spread over equals: {homes}"


def test_only_the_conversations_of_a_lost_offer_move() -> None:
    clinic = Clinic()
    made = router(model("v/m", *(offer(name, price=rates("2", "8", cached="0.2")) for name in NAMES)), health=clinic)
    before = [names(planned(made, call(text=f"q{n}"))) for n in range(200)]
    clinic.views["p2"] = Unmeasured(state="ejected")
    clinic.epoch += 1
    after = [names(planned(made, call(text=f"q{n}"))) for n in range(200)]
    for was, now in zip(before, after, strict=True):
        assert now[0] == (was[0] if was[0] != "p2" else was[1])


def test_a_session_keeps_its_offer_whatever_is_said() -> None:
    made = router(model("v/m", *(offer(name) for name in NAMES)))
    homes = {names(planned(made, call(text=f"t{n}", session_id="s"), chance=(n / 50,)))[0] for n in range(50)}
    assert len(homes) == 1
    assert {names(planned(made, call(text=f"t{n}"), session="s", chance=(n / 50,)))[0] for n in range(50)} == homes
    assert planned(made, call(), session="s").sticky == "session"


def test_without_a_prompt_cache_there_is_nothing_to_come_back_to() -> None:
    made = router(model("v/m", *(offer(name) for name in NAMES)))
    assert planned(made, call()).sticky == ""


def test_marks_of_the_prompt_cache_do_not_move_a_conversation() -> None:
    """Clients mark the newest message: the first one is marked in the first turn only."""
    first = {"type": "text", "text": "hello"}
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    plain = sticky.opening(call(messages=[{"role": "user", "content": [first]}]))[0]
    assert sticky.opening(call(messages=[{"role": "user", "content": [{**first, **mark}]}]))[0] == plain
    assert sticky.opening(call(messages=[{"role": "user", "content": [{**mark, **first}]}]))[0] == plain
    long = [{"role": "user", "content": [first]}, {"role": "assistant", "content": "y" * 20_000}]
    marked = [{"role": "user", "content": [{**first, **mark}]}, long[1]]
    assert sticky.opening(call(messages=marked))[0] == sticky.opening(call(messages=long))[0]


def test_the_opening_is_the_same_however_long_the_conversation_grows() -> None:
    for first in ("short", "x" * 20_000, "x" * 100_000, 'quotes " and } brackets', "é" * 3000):
        opening: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": first}]
        seen = {
            sticky.opening(call(messages=[*opening, *([{"role": "assistant", "content": "y" * 500}] * turns)]))[0]
            for turns in (0, 1, 30, 300)
        }
        assert len(seen) == 1
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b" * 9000}]}
    later = call(messages=[parts, {"role": "assistant", "content": "z"}])
    assert sticky.opening(call(messages=[parts]))[0] == sticky.opening(later)[0]
    assert sticky.opening(call(text="one"))[0] != sticky.opening(call(text="two"))[0]


def test_draws_are_even() -> None:
    own = sticky.salt("lab/m/")
    drawn = sorted(sticky.draw(sticky.session_hash(str(n)), own) for n in range(2000))
    assert max(abs(value - (index + 0.5) / 2000) for index, value in enumerate(drawn)) < 0.04, "Kolmogorov and Smirnov agree"


def test_a_policy_of_the_key_holds_whatever_the_request_wants() -> None:
    strict = Policy("strict", preferences=Preferences(only=(ProviderRef("a"), ProviderRef("b")), order=(ProviderRef("b"),)))
    made = router(model("v/m", offer("a"), offer("b"), offer("c")), policies=(strict,))
    assert names(planned(made, call(), policy="strict")) == ["b", "a"]
    assert names(planned(made, call(provider={"order": ["a"]}), policy="strict")) == ["a", "b"]
    assert names(planned(made, call(provider={"only": ["a", "c"]}), policy="strict")) == ["a"]
    with pytest.raises(FareboxError) as caught:
        planned(made, call(provider={"only": ["c"]}), policy="strict")
    assert caught.value.param == "provider.only" and "strict" in caught.value.message
    with pytest.raises(FareboxError) as caught:
        planned(made, call(), policy="gone")
    assert caught.value.status == 403, "a policy that is gone may have been a promise"


def test_a_policy_that_names_who_may_answer_is_not_widened_by_a_requests_order() -> None:
    """`order` with `allow_fallbacks = false` leaves everybody else out: it is no mere wish."""
    listed = Preferences(order=(ProviderRef("a"), ProviderRef("b")), allow_fallbacks=False)
    strict = Policy("strict", models=("v/m",), preferences=listed)
    made = router(model("v/m", offer("a"), offer("b"), offer("c")), policies=(strict,))
    for asked, more in ((call, {"policy": "strict"}), (lambda **fields: call("policy/strict", **fields), {})):
        assert names(planned(made, asked(), **more)) == ["a", "b"]
        assert names(planned(made, asked(provider={"order": ["c", "b", "a"]}), **more)) == ["b", "a"]
        assert names(planned(made, asked(provider={"sort": "price"}), **more)) == ["a", "b"]
        assert names(planned(made, asked(provider={"order": ["b"], "allow_fallbacks": False}), **more)) == ["b"]
        with pytest.raises(FareboxError) as caught:
            planned(made, asked(provider={"order": ["c"], "allow_fallbacks": False}), **more)
        assert caught.value.status == 400


def test_no_model_that_a_caller_names_is_passed_over_in_silence() -> None:
    pair = Policy("pair", models=("v/m", "v/gone", "v/n"))
    made = router(*(model(f"v/{name}", offer("a")) for name in "mnopqrs"), policies=(pair,))
    found = planned(made, call("policy/pair", models=["v/o"]))
    assert [one.target.model.slug for one in found.candidates] == ["v/m", "v/n", "v/o"]
    for asked in (
        call("policy/pair", models=["v/gone"]),
        call("policy/pair", fallbacks=["v/o", "v/absent"]),
        call("policy/pair", models=["v/o", "v/p", "v/q", "v/r"]),
        call("v/m", models=["v/n", "v/o", "v/p", "v/q", "v/r", "v/s"]),
    ):
        with pytest.raises(FareboxError) as caught:
            planned(made, asked)
        assert caught.value.param == "models", caught.value
    assert len(planned(made, call("v/m", models=["v/m", "v/n", "v/o", "v/p", "v/q", "v/r"])).candidates) == 6


def test_whoever_may_turn_out_deaf_to_a_call_has_a_stand_in() -> None:
    """Who cannot be told the call is seen at its turn, and takes no try: so there is another that can."""
    far = {"wires": ("anthropic_messages",)}
    everyone = ("far1", "near1", "far2", "near2", "near3")
    rows = {name: provider(name, **(far if name.startswith("far") else {})) for name in everyone}
    prices_of = {name: rates(str(n), str(n)) for n, name in enumerate(rows, 1)}
    offers = [
        offer(name, price=price, wire="anthropic_messages" if name.startswith("far") else "openai_chat")
        for name, price in prices_of.items()
    ]
    made = router(model("v/m", *offers), providers=rows)

    def kept(**fields: Any) -> list[str]:
        return names(planned(made, call(provider={"sort": "price"}, **fields)))

    assert kept(seed=7) == ["far1", "near1", "far2", "near2"], "the first is looked at before; far2 has a stand-in"
    assert kept(seed=7, num_retries=1) == ["far1", "near1"]
    assert kept(seed=7, num_retries=4) == ["far1", "near1", "far2", "near2", "near3"]
    found = planned(made, call(provider={"sort": "price"}, seed=7))
    assert found.attempts_max is None and found.hold_nano == max(one.hold_nano for one in found.candidates)
    only_far = router(model("v/m", *(one for one in offers if one.provider.startswith("far"))), providers=rows, attempts_max=1)
    assert names(planned(only_far, call(provider={"sort": "price"}, seed=7))) == ["far1"]
    capped = call(provider={"sort": "price", "max_price": {"prompt": 3}}, seed=7)
    assert names(planned(made, capped)) == ["far1", "near1", "far2"]
    asked = call(provider={"sort": "price"}, seed=7)
    deaf = planned(made, asked, sayable=True, expresses=lambda _, one: "no seed" if one.target.wire != asked.wire else None)
    assert names(deaf) == ["near1", "near2", "near3"]
    assert [(one.provider, one.rule) for one in deaf.excluded] == [("far1", "translation"), ("far2", "translation")]
