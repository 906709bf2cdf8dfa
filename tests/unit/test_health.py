"""Health: circuits, keys, limits and measurements, against simple models where there is one."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from farebox.billing.markup import flat
from farebox.catalog.model import Model, Offer
from farebox.providers.base import Provider, Speaks
from farebox.routing import health as healths
from farebox.routing.circuit import CLAIM_US, Circuit
from farebox.routing.concurrency import FORGET_US, Concurrency
from farebox.routing.health import Health, Outcome
from farebox.routing.health_rules import Rules
from farebox.routing.measured import Measured, Unmeasured
from farebox.routing.rolling import Counts, Histogram, bin_of, percentiles, value_of
from farebox.routing.target import Place, Target, target

S = 1_000_000
RULES = Rules()


def offer(provider: str = "lab", keys: tuple[str, ...] = ("a",), weights: tuple[int, ...] = ()) -> Target:
    row = Provider(provider, provider.title(), "http://127.0.0.1:9/v1", {"openai_chat": Speaks("/chat/completions")})
    found = Offer(provider, "m", "openai_chat", (), 1000, 100)
    model = Model("lab/m", "M", 1000, 100, (found,))
    return target(
        model, found, row, wire="openai_chat", base_url=row.base_url, keys=keys, key_weights=weights, markup=flat(0)
    )


def place(name: str = "lab", key: int = 1) -> Place:
    return Place(name, f"{name}#{key}", "lab/m")


def attempt(health: Health, at: Place, outcome: Outcome, start_us: int, end_us: int, **more: Any) -> None:
    health.started(at, start_us)
    health.finished(at, outcome, start_us, end_us, **more)


# --- circuits ---------------------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_take_an_offer_out_and_one_probe_brings_it_back() -> None:
    health, lab = Health(), offer()
    for second in range(5):
        assert health.view(lab, second * S).state == "healthy"
        attempt(health, place(), "failed", second * S, second * S + 1)
    now = 4 * S + 1
    assert health.view(lab, now).state == "ejected"
    assert health.view(lab, now + 30 * S - 1).state == "ejected"
    due = now + 30 * S
    health.tick(due)
    assert health.view(lab, due).state == "healthy", "the next call is the probe"
    health.started(place(), due)
    assert health.view(lab, due).state == "probing" and not health.choose(lab, due).free, "one probe at a time"
    health.finished(place(), "ok", due, due + S)
    assert health.view(lab, due + S).state == "healthy" and health.choose(lab, due + S).free


def test_a_claimed_probe_that_says_nothing_leaves_the_next_call_no_wait() -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.failed(0, 0, RULES)
    due = circuit.open_until_us
    assert circuit.claim(due) and not circuit.passes(due + 1)
    assert circuit.started(due + 1) and not circuit.passes(due + 2)
    circuit.forget_probe(due + 1)
    assert circuit.passes(due + 2), "the claim was for the call to leave"


def test_a_stream_that_has_begun_is_proof_enough() -> None:
    """A probe may be a stream of minutes: nobody waits for its end."""
    circuit = Circuit()
    for _ in range(5):
        circuit.failed(0, 0, RULES)
    due = circuit.open_until_us
    assert not circuit.answers(0, due), "it left before"
    assert circuit.started(due) and not circuit.passes(due + S)
    assert circuit.answers(due, due + S) and circuit.closed and circuit.passes(due + S)
    assert not circuit.failed(due, due + 2 * S, RULES), "broken off afterwards, it is one failure"
    for number in range(3, 6):
        assert not circuit.failed(due + S, due + number * S, RULES)
    assert circuit.failed(due + S, due + 6 * S, RULES)
    assert circuit.open_until_us == due + 66 * S, "the second time out, not the first"
    health, lab = Health(), offer()
    for second in range(5):
        attempt(health, place(), "failed", second * S, second * S + 1)
    due = 4 * S + 1 + 30 * S
    health.started(place(), due)
    epoch = health.epoch
    assert health.broken and health.view(lab, due + S).state == "probing"
    health.answers(place(), due, due + S)
    assert not health.broken and health.epoch != epoch and health.view(lab, due + S).state == "healthy"
    health.answers(Place("lab", "", "of which nothing is known"), due, due + S)


def test_a_failed_probe_keeps_it_out_for_longer_up_to_a_bound() -> None:
    circuit, now, lengths = Circuit(), 0, []
    for _ in range(5):
        circuit.failed(now, now, RULES)
    for _ in range(15):
        lengths.append((circuit.open_until_us - circuit.opened_us) // S)
        now = circuit.open_until_us
        assert circuit.started(now)
        assert circuit.failed(now, now + 1, RULES)
    assert lengths[:4] == [30, 60, 90, 120] and lengths[-1] == 300


def test_healthy_time_is_forgiven() -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.failed(0, 0, RULES)
    circuit.started(30 * S)
    circuit.succeeded(30 * S, 31 * S, RULES)
    for _ in range(5):
        circuit.failed(40 * S, 40 * S, RULES)
    assert circuit.open_until_us == 100 * S, "soon again: twice as long"
    circuit.started(100 * S)
    circuit.succeeded(100 * S, 100 * S, RULES)
    for _ in range(5):
        circuit.failed(1_000 * S, 1_000 * S, RULES)
    assert circuit.open_until_us == 1_030 * S, "long after: as the first time"


def test_half_of_twenty_in_the_window_is_too_much_and_what_is_older_does_not_count() -> None:
    circuit = Circuit()
    for second in range(10):
        circuit.succeeded(second * S, second * S, RULES)
    for second in range(9):
        assert circuit.failed(second * S, second * S, RULES) == (second == 4)
        if not circuit.closed:
            break
    assert not circuit.closed, "five in a row"
    circuit = Circuit()
    for number in range(19):
        (circuit.failed if number % 2 else circuit.succeeded)(number, number, RULES)
    assert circuit.closed
    assert circuit.failed(19, 19, RULES), "ten of twenty"
    circuit = Circuit()
    for number in range(19):
        (circuit.failed if number % 2 else circuit.succeeded)(number, number, RULES)
    assert not circuit.failed(40 * S, 40 * S, RULES), "the nineteen are forgotten"


def test_what_comes_back_late_decides_nothing() -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.failed(0, S, RULES)
    assert not circuit.succeeded(0, 2 * S, RULES) and not circuit.closed
    circuit.started(31 * S)
    assert not circuit.failed(0, 32 * S, RULES), "left before the circuit opened"
    assert circuit.succeeded(31 * S, 33 * S, RULES) and circuit.closed


def test_a_probe_whose_caller_left_is_no_answer() -> None:
    health, lab = Health(), offer()
    for _ in range(5):
        attempt(health, place(), "failed", 0, 0)
    attempt(health, place(), "unknown", 30 * S, 31 * S)
    assert health.choose(lab, 31 * S).free, "the next call asks again"


@pytest.mark.parametrize("outcome", ["caller", "unknown"])
def test_a_callers_mistakes_never_count(outcome: Outcome) -> None:
    health, lab = Health(), offer()
    for second in range(100):
        attempt(health, place(), outcome, second * S, second * S)
    assert health.view(lab, 100 * S) == msgspec.structs.replace(healths.OfferHealth())


class CircuitMachine(RuleBasedStateMachine):
    """The circuit against its definition, told over the whole history."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = S
        self.row = 0
        self.flying: list[int] = []

    @rule(seconds=st.integers(0, 200))
    def wait(self, seconds: int) -> None:
        self.now += seconds * S

    @rule()
    def send(self) -> None:
        if self.circuit.passes(self.now):
            probe = self.circuit.started(self.now)
            assert probe == (not self.circuit.closed)
            self.flying.append(self.now)

    @rule(ok=st.booleans(), which=st.integers(0, 5))
    def end(self, ok: bool, which: int) -> None:
        if not self.flying:
            return
        started = self.flying.pop(which % len(self.flying))
        was_open, probe = not self.circuit.closed, self.circuit.probe_us
        decides = not was_open or (probe and started >= probe)
        changed = (self.circuit.succeeded if ok else self.circuit.failed)(started, self.now, RULES)
        if was_open and not decides:
            assert not changed
        elif was_open:
            assert changed and self.circuit.closed == ok
            self.row = 0
        else:
            self.row = 0 if ok else self.row + 1
            assert changed == (not self.circuit.closed)
            if self.row >= RULES.failures_in_a_row:
                assert not self.circuit.closed
            if not self.circuit.closed:
                self.row = 0

    @invariant()
    def bounds(self) -> None:
        circuit = self.circuit
        if not circuit.closed:
            assert RULES.ejection_us <= circuit.open_until_us - circuit.opened_us <= RULES.ejection_max_us
            assert not circuit.probe_us or circuit.probe_us >= circuit.open_until_us


CircuitMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None, database=None)
TestCircuit = CircuitMachine.TestCase


# --- keys -------------------------------------------------------------------------------------------------------------------


def test_the_key_with_the_least_to_do_is_used() -> None:
    health, lab = Health(), offer(keys=("a", "b"))
    used = [0, 0]
    for _ in range(40):
        chosen = health.choose(lab, 0)
        health.started(chosen.place, 0)
        used[chosen.number] += 1
    assert used == [20, 20]


def test_keys_with_nothing_to_do_take_turns() -> None:
    health, lab = Health(), offer(keys=("a", "b", "c"))
    used: list[int] = []
    for _ in range(6):
        chosen = health.choose(lab, 0)
        attempt(health, chosen.place, "ok", 0, 0)
        used.append(chosen.number)
    assert used == [0, 1, 2, 0, 1, 2]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.booleans())
def test_keys_get_their_shares_of_the_calls(weights: list[int], at_once: bool) -> None:
    """Whether the calls come one after the other or all at the same time."""
    lab = offer(keys=tuple("abcde"[: len(weights)]), weights=tuple(weights))
    health, used, calls = Health(), [0] * len(weights), 60
    for _ in range(calls):
        chosen = health.choose(lab, 0)
        health.started(chosen.place, 0, lab.key_weight(chosen.number))
        if not at_once:
            health.finished(chosen.place, "ok", 0, 0)
        used[chosen.number] += 1
    for share, weight in zip(used, weights, strict=True):
        assert abs(share - calls * weight / sum(weights)) <= len(weights)


def test_a_key_that_was_out_does_not_make_up_for_it() -> None:
    health, lab = Health(), offer(keys=("a", "b"))
    health.started(place(key=2), 0)
    health.finished(place(key=2), "key_refused", 0, 0)
    for _ in range(50):
        chosen = health.choose(lab, 0)
        attempt(health, chosen.place, "ok", 0, 0)
        assert chosen.number == 0
    used = [0, 0]
    for _ in range(10):
        chosen = health.choose(lab, 61 * S)
        attempt(health, chosen.place, "ok", 61 * S, 61 * S)
        used[chosen.number] += 1
    assert used == [5, 5]


def test_a_refused_key_is_benched_for_all_its_models_and_tried_again_later() -> None:
    health, lab = Health(), offer(keys=("a", "b", "c"))
    attempt(health, place(key=2), "key_refused", 0, 0, reason="credentials")
    chosen = [health.choose(lab, 0, [f"lab#{n}"]).place.key for n in (1, 3)]
    assert chosen == ["lab#3", "lab#1"]
    assert not health._free_us(Place("lab", "lab#2", "lab/other"), 0) <= 0
    assert health.view(lab, 0).state == "healthy"
    assert health.choose(offer(keys=("a",)), 0).free
    for number in (1, 3):
        attempt(health, place(key=number), "key_refused", 0, 0)
    found = health.choose(lab, S)
    assert not found.free and health.view(lab, S).state == "ejected"
    assert health.choose(lab, healths.BENCH_US).free
    attempt(health, place(key=1), "key_refused", healths.BENCH_US, healths.BENCH_US)
    assert health._free_us(place(key=1), healths.BENCH_US) == 3 * healths.BENCH_US, "twice as long"
    attempt(health, place(key=1), "ok", 3 * healths.BENCH_US, 3 * healths.BENCH_US)
    assert health.choose(offer(), 3 * healths.BENCH_US).free


def test_a_429_pauses_that_key_and_model_for_what_it_says_else_for_longer_each_time() -> None:
    health, lab = Health(), offer(keys=("a", "b"))
    attempt(health, place(), "rate_limited", 0, 0, retry_after_us=7 * S)
    assert health.choose(lab, S).place.key == "lab#2"
    assert health._free_us(place(), S) == 7 * S
    assert health._free_us(Place("lab", "lab#1", "lab/other"), S) == 0
    pauses = []
    for number in range(10):
        attempt(health, place("x"), "rate_limited", number * 100 * S, number * 100 * S)
        pauses.append(health._free_us(place("x"), 0) // S - number * 100)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_an_offer_comes_back_when_its_pause_is_over_without_being_asked() -> None:
    health, lab = Health(), offer()
    attempt(health, place(), "rate_limited", 0, 0, retry_after_us=2 * S)
    before = health.epoch
    health.tick(S)
    assert health.epoch == before and health.view(lab, S).state == "ejected"
    health.tick(2 * S)
    assert health.epoch > before and health.view(lab, 2 * S).state == "healthy"


def test_a_limit_is_learned_from_refusals_and_grows_back() -> None:
    key = Concurrency()
    for _ in range(100):
        key.started()
    assert key.limit is None and not key.full
    key.refused(0)
    assert key.limit == 70 and key.full
    for _ in range(50):
        key.refused(S // 2)
    assert key.limit == 70, "refusals of one moment count once"
    for _ in range(40):
        key.ended()
    assert not key.full
    for _ in range(70):
        key.answered(2 * S)
    assert key.limit == 71
    key.refused(3 * S)
    assert key.limit == 42, "from what is in flight"
    key.answered(3 * S + FORGET_US)
    assert key.limit is None


def test_of_calls_that_are_planned_before_the_probe_has_left_one_is_the_probe() -> None:
    health, lab = Health(), offer()
    health.claim(lab, 0)
    for second in range(5):
        attempt(health, place(), "failed", second * S, second * S)
    assert health.broken
    due = 34 * S
    health.tick(due)
    assert health.view(lab, due).state == "healthy"
    health.claim(lab, due)
    assert health.view(lab, due).state == "ejected", "the next one goes elsewhere"
    lapsed = due + CLAIM_US
    health.tick(lapsed)
    assert health.view(lab, lapsed).state == "healthy", "the first one never left"
    health.claim(lab, lapsed)
    health.started(place(), lapsed + 1)
    assert health.view(lab, lapsed + 1).state == "probing"
    health.finished(place(), "ok", lapsed + 1, lapsed + 2)
    assert health.view(lab, lapsed + 2).state == "healthy" and not health.broken


def test_a_key_that_is_well_needs_no_probe() -> None:
    health, lab = Health(), offer(keys=("a", "b"))
    for key in (1, 2):
        for second in range(5):
            attempt(health, place(key=key), "failed", second * S, second * S)
    due = 34 * S
    health.claim(lab, due)
    assert health.view(lab, due).state == "ejected", "both were due"
    first = health.choose(lab, due).place
    attempt(health, first, "ok", due, due + 1)
    other = place(key=1 if first.key == "lab#2" else 2)
    later = due + CLAIM_US
    health.claim(lab, later)
    assert health.broken and health._free_us(other, later) <= later, "the other one is nobody's"


def test_an_offer_is_full_while_each_of_its_keys_has_as_many_calls_as_it_takes() -> None:
    """That comes and goes with every call: it is no state that plans are made by, or one moment's would last."""
    health, lab = Health(), offer(keys=("a", "b"))
    assert not health.limited and not health.full(lab)
    health.started(place(key=1), 0)
    attempt(health, place(key=1), "rate_limited", 0, 1, retry_after_us=S)
    assert health.limited and not health.full(lab), "the other key has no limit"
    health.started(place(key=2), 0)
    attempt(health, place(key=2), "rate_limited", 0, 1, retry_after_us=S)
    assert health.full(lab) and not health.choose(lab, 2 * S).free
    assert health.view(lab, 2 * S).state == "healthy"
    health.finished(place(key=2), "ok", 0, 3 * S)
    assert not health.full(lab) and health.choose(lab, 3 * S).number == 1
    for key in (1, 2):
        health.started(place(key=key), FORGET_US + S)
        health.finished(place(key=key), "ok", FORGET_US + S, FORGET_US + 2 * S)
    assert not health.limited, "both limits are unknown again"


# --- measurements -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1, 2**30), min_size=1, max_size=300))
def test_percentiles_are_off_by_at_most_a_bin(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(0, value)
    found = percentiles(histogram.bins(0))
    assert found is not None
    ordered = sorted(values)
    told_before = 0.0
    for share, told in zip((50, 75, 90, 99), (found.p50, found.p75, found.p90, found.p99), strict=True):
        assert told is not None and told >= told_before
        told_before = told
        exact = ordered[min(len(ordered) * share // 100, len(ordered) - 1)]
        assert exact / 1.1 <= told <= exact * 1.1


def test_measurements_are_forgotten_in_time_and_bounded() -> None:
    histogram, counts = Histogram(), Counts()
    for minute in range(3_000):
        histogram.add(minute * 60 * S, 100.0)
        counts.add(minute * 60 * S, succeeded=minute % 2 == 0)
    assert sum(histogram.bins(3_000 * 60 * S).values()) <= 30
    assert histogram.bins(9_000 * 60 * S) == {}
    assert sum(counts.since(0)) <= 24 * 60 + 5
    assert value_of(bin_of(100.0)) == pytest.approx(100.0, rel=0.1)


def test_what_was_measured_is_seen() -> None:
    health, lab = Health(), offer()
    told: Measured = health
    at_first = msgspec.structs.asdict(told.view(lab, 0))
    assert at_first == msgspec.structs.asdict(Unmeasured()), "nothing is known at first, in the planner's own words"
    for number in range(100):
        attempt(health, place(), "ok", number * S, number * S + S, first_token_us=200_000, tokens=80)
    attempt(health, place(), "failed", 100 * S, 100 * S)
    seen = health.view(lab, 101 * S)
    assert seen.success == pytest.approx(100 / 101) and seen.samples == 101 and seen.in_flight == 0
    assert seen.first_token_ms is not None and seen.first_token_ms.p50 == pytest.approx(200, rel=0.1)
    assert seen.tokens_per_s is not None and seen.tokens_per_s.p99 == pytest.approx(100, rel=0.1)
    assert msgspec.json.decode(msgspec.json.encode(health.report(101 * S)), type=healths.Report) == health.report(101 * S)


def test_nothing_is_left_in_flight_whatever_the_order() -> None:
    chance, health = random.Random(7), Health()
    targets = [offer(name, keys=("a", "b")) for name in ("x", "y")]
    flying: list[tuple[Place, int]] = []
    outcomes: list[Outcome] = ["ok", "failed", "rate_limited", "key_refused", "caller", "unknown"]
    now = 0
    for _ in range(5_000):
        now += chance.randrange(0, 3 * S)
        health.tick(now)
        if chance.random() < 0.5 or not flying:
            chosen = health.choose(chance.choice(targets), now)
            health.started(chosen.place, now)
            flying.append((chosen.place, now))
        else:
            at, began = flying.pop(chance.randrange(len(flying)))
            health.finished(at, chance.choice(outcomes), began, now)
    for at, began in flying:
        health.finished(at, "unknown", began, now)
    report = health.report(now)
    assert all(one.in_flight == 0 for one in [*report.places, *report.keys])


def test_places_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healths, "PLACES_MAX", 10)
    health = Health()
    for number in range(50):
        attempt(health, Place("p", "p#1", f"m{number}"), "ok", number, number)
    assert {one.model for one in health.report(50).places} == {f"m{number}" for number in range(40, 50)}


def test_probes_take_out_and_bring_back() -> None:
    health = Health(Rules(failures_in_a_row=2))
    lab = offer()
    places = lab.places
    health.probed(places, "down", S)
    assert health.view(lab, S).state == "healthy"
    health.probed(places, "down", 2 * S)
    assert health.view(lab, 3 * S).state == "ejected", "as two failed calls in a row"
    health.probed(places, "unknown", 4 * S)
    assert health.view(lab, 4 * S).state == "ejected"
    health.probed(places, "up", 5 * S)
    assert health.choose(lab, 5 * S).free, "the next call tries it"
    health.started(places[0], 5 * S)
    health.finished(places[0], "failed", 5 * S, 6 * S)
    assert health.view(lab, 7 * S).state == "ejected"
    health.probed(places, "up", 8 * S)
    assert health.view(lab, 8 * S).state == "ejected", "what the probe does not see, it does not end"


def test_while_probes_fail_no_time_out_ends_and_no_call_tries_it() -> None:
    health = Health(Rules(failures_in_a_row=1))
    lab = offer()
    for second in range(1, 300, 10):
        health.probed(lab.places, "down", second * S)
        health.tick(second * S)
        assert not health.choose(lab, (second + 9) * S).free, second
    assert health.choose(lab, (291 + 30) * S).free, "nobody asks any more: no longer than a first time out"
    health.probed(lab.places, "down", 330 * S)
    before = health.epoch
    health.probed(lab.places, "up", 340 * S)
    assert health.choose(lab, 340 * S).free and health.epoch > before, "one that succeeds ends it, however long it was to be"


def test_a_call_that_tries_a_probed_offer_decides_by_itself() -> None:
    health = Health(Rules(failures_in_a_row=1))
    lab = offer()
    health.started(lab.places[0], 0)
    health.finished(lab.places[0], "failed", 0, S)
    health.started(lab.places[0], 40 * S)
    health.probed(lab.places, "up", 41 * S)
    health.finished(lab.places[0], "ok", 40 * S, 42 * S)
    assert health.choose(lab, 42 * S).free and health.view(lab, 42 * S).state == "healthy"


def test_a_probe_that_is_refused_benches_the_key_once() -> None:
    health = Health()
    lab = offer()
    health.probed(lab.places, "key_refused", S)
    health.probed(lab.places, "key_refused", 11 * S)
    assert not health.choose(lab, 60 * S).free and health.choose(lab, 61 * S).free
