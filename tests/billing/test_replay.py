"""Replay of a known world: every figure can be worked out by hand. On both engines."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.shell import Shell

from farebox.billing.books import customers
from farebox.billing.markup import Fees
from farebox.catalog.price import Rates
from farebox.config import ConfigError, load
from farebox.config.overlay import laid_over
from farebox.money import parse_amount
from farebox.replay.history import SAMPLES_MAX, Samples
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DEAR, CHEAP = Rates(input=2_000_000, output=8_000_000), Rates(input=1_000_000, output=2_000_000)
CONFIG = """
[database]
url = "{url}"
[local_model]
enabled = false
[routing]
policy = "dear-first"
[policies.dear-first]
order = ["dear"]
[policies.tiers]
decision = "complexity"
branches = {{ easy = ["m/small"], medium = ["m/x"], hard = ["m/large"] }}
[policies.same]
decision = "complexity"
branches = {{ easy = ["m/x"], medium = ["m/x"], hard = ["m/large"] }}
[providers.dear]
wire = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
[providers.cheap]
wire = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
[[models]]
slug = "m/x"
context_window = 100000
max_output_tokens = 4096
offers = [
  {{ provider = "dear", id = "x-dear", input = "2.00", output = "8.00" }},
  {{ provider = "cheap", id = "x-cheap", input = "1.00", output = "2.00" }},
]
[[models]]
slug = "m/small"
context_window = 100000
max_output_tokens = 4096
offers = [{{ provider = "cheap", id = "small", input = "0.50", output = "1.00" }}]
[[models]]
slug = "m/large"
context_window = 100000
max_output_tokens = 4096
offers = [{{ provider = "dear", id = "large", input = "10.00", output = "40.00" }}]
"""
USED = Usage(input=1_000, output=100)
DEAR_NANO, CHEAP_NANO, SMALL_NANO, LARGE_NANO = 2_800_000, 1_200_000, 600_000, 14_000_000
"""What `USED` costs: 1,000 × $2 + 100 × $8 a million, and so on."""
AT = {
    "x-dear": ("dear", "m/x", DEAR),
    "x-cheap": ("cheap", "m/x", CHEAP),
    "small": ("cheap", "m/small", Rates(input=500_000, output=1_000_000)),
    "large": ("dear", "m/large", Rates(input=10_000_000, output=40_000_000)),
}


class Past:
    """Recorded calls, and the command over them."""

    def __init__(self, world: Any, folder: Path) -> None:
        self.world = world
        self.account = world.account(DOLLAR)
        self.key = world.key(self.account)
        self.worker = world.worker()
        self.folder = folder
        (folder / "farebox.toml").write_text(CONFIG.format(url=world.url))

    def served(self, id: str, *, requested: str = "m/x", usage: Usage = USED, times: int = 1, **more: Any) -> None:
        provider, model, rates = AT[id]
        for _ in range(times):
            self.world.clock.us += 1_000_000
            start = self.world.clock.us
            hold = self.worker.hold(more.get("key", self.key), DOLLAR // 10, rates=rates)
            first = {"first_byte_us": start + more["first_ms"] * 1_000} if "first_ms" in more else {}
            attempt = self.worker.attempt(
                hold, usage, provider=provider, upstream_id=id, started_us=start,
                ended_us=start + more.get("whole_ms", 1_000) * 1_000, **first, **more.get("attempt", {}),
            )  # fmt: skip
            self.worker.settle(hold, attempt, requested=requested, model=model, surface="chat_completions")

    def replay(self, proposal: str, *words: str) -> Any:
        self.world.post()
        (self.folder / "new.toml").write_text(proposal)
        done = Shell(self.folder)("replay", "--policy", str(self.folder / "new.toml"), "--since", "2026-11-22", "--json", *words)
        return done.json()


@pytest.fixture
def past(world: Any, tmp_path: Path) -> Past:
    return Past(world, tmp_path)


def nano(found: Any, *names: str) -> tuple[int, ...]:
    return tuple(parse_amount(found[name]) for name in names or ("cost", "charge", "margin"))


CHEAP_FIRST = '[policies.dear-first]\norder = ["cheap"]\n'


def test_calls_move_with_the_order_and_cost_what_the_other_offer_asks(past: Past) -> None:
    past.served("x-dear", times=3)
    told = past.replay(CHEAP_FIRST)
    assert nano(told["recorded"]) == nano(told["present"]) == (3 * DEAR_NANO, 3 * DEAR_NANO, 0)
    assert nano(told["proposed"]) == (3 * CHEAP_NANO, 3 * CHEAP_NANO, 0)
    (move,) = told["moves"]
    assert (move["from"], move["to"]) == ("m/x at dear", "m/x at cheap")
    assert move["before"]["calls"] == move["after"]["calls"] == told["moved"] == 3 and told["kept"] == 0
    assert told["left_out"] == [] and told["refused"]["reasons"] == []


def test_nothing_changed_moves_nothing(past: Past) -> None:
    past.served("x-dear", times=2)
    told = past.replay("")
    assert told["present"] == told["proposed"] and told["kept"] == 2 and told["moves"] == []


def test_a_markup_changes_the_charge_and_the_margin_alone(past: Past) -> None:
    past.served("x-dear", times=2)
    told = past.replay('[billing]\nmarkup_percent = "10"\n')
    charge = 2 * DEAR_NANO * 11 // 10
    assert nano(told["proposed"]) == (2 * DEAR_NANO, charge, charge - 2 * DEAR_NANO) and told["kept"] == 2
    assert nano(told["present"]) == (2 * DEAR_NANO, 2 * DEAR_NANO, 0)


def test_a_price_list_moves_the_calls_that_go_by_price(past: Past) -> None:
    past.served("x-cheap", times=2)
    by_price = '[policies.dear-first]\nsort = "price"\n'
    offers = '[{ provider = "dear", id = "x-dear", input = "0.10", output = "0.10" }, '
    offers += '{ provider = "cheap", id = "x-cheap", input = "1.00", output = "2.00" }]'
    models = f'[[models]]\nslug = "m/x"\ncontext_window = 100000\nmax_output_tokens = 4096\noffers = {offers}\n'
    told = past.replay(by_price + models)
    assert nano(told["recorded"]) == (2 * CHEAP_NANO, 2 * CHEAP_NANO, 0), "as it was booked"
    assert nano(told["present"]) == (2 * DEAR_NANO, 2 * DEAR_NANO, 0), "today's configuration would send it elsewhere"
    assert nano(told["proposed"], "cost") == (2 * 110_000,)
    assert told["kept"] == 2, "to the same offer, at its new price"


def test_steps_by_volume_count_what_the_calls_themselves_come_to(past: Past) -> None:
    past.served("x-dear", times=3)
    plan = '[billing]\nmarkup = "steps"\n[markup.steps]\npercent = "10"\nvolume = [{ above = "0.003", percent = "0" }]\n'
    told = past.replay(plan)
    # 3,080,000 nano after the first call are above the step of 3,000,000: the others have no markup.
    assert nano(told["proposed"], "margin") == (DEAR_NANO // 10,)


def test_time_is_what_the_offers_took(past: Past) -> None:
    """Dear: 200 ms to the first token, 100 tokens in 1,000 ms. Cheap: 100 ms, and 100 tokens in 4,000 ms."""
    past.served("x-dear", times=3, first_ms=200, whole_ms=1_200)
    past.served("x-cheap", first_ms=100, whole_ms=4_100)
    told = past.replay(CHEAP_FIRST)
    assert told["recorded"]["mean_ms"] == (3 * 1_200 + 4_100) // 4
    assert told["present"]["mean_ms"] == 1_200 and told["proposed"]["mean_ms"] == 4_100
    assert told["moved"] == 4, "the present configuration sends the fourth call to the dear one, too"
    by_latency = past.replay('[policies.dear-first]\nsort = "latency"\n')
    assert by_latency["proposed"]["mean_ms"] == 4_100, "100 ms to the first token come before 200"
    by_speed = past.replay('[policies.dear-first]\nsort = "throughput"\n')
    assert by_speed["proposed"]["mean_ms"] == 1_200
    unknown = past.replay('[[models]]\nslug = "m/x"\ncontext_window = 100000\nmax_output_tokens = 4096\n'
                          'offers = [{ provider = "dear", id = "never-called", input = "1", output = "1" }]\n')  # fmt: skip
    assert unknown["proposed"]["mean_ms"] is None and unknown["proposed"]["timed_calls"] == 0


def test_tiers_are_those_that_the_calls_were_sorted_into(past: Past) -> None:
    past.served("small", requested="policy/tiers", times=2)
    past.served("large", requested="policy/tiers")
    told = past.replay('[policies.tiers]\ndecision = "complexity"\n'
                       'branches = { easy = ["m/large"], medium = ["m/x"], hard = ["m/small"] }\n')  # fmt: skip
    assert nano(told["present"], "cost") == (2 * SMALL_NANO + LARGE_NANO,)
    assert nano(told["proposed"], "cost") == (2 * LARGE_NANO + SMALL_NANO,)
    moves = {(one["from"], one["to"]): one["before"]["calls"] for one in told["moves"]}
    assert moves == {("m/small at cheap", "m/large at dear"): 2, ("m/large at dear", "m/small at cheap"): 1}


def test_what_cannot_be_replayed_is_counted_and_named(past: Past) -> None:
    past.served("x-dear")
    past.served("x-cheap", requested="policy/same")
    past.served("x-dear", usage=Usage(input=10), attempt={"charge_nano": 0, "outcome": "truncated"})
    past.served("x-dear", attempt={"flags": ("seam",)})
    past.served("x-dear", requested="policy/gone")
    past.served("x-dear", attempt={"fees": Fees(own_key=True), "cost_nano": 0})
    told = past.replay(CHEAP_FIRST)
    left = {one["why"]: one["calls"] for one in told["left_out"]}
    assert left == {"unpaid": 1, "in_parts": 1, "own_key": 1, "unsorted": 1, "refused_now": 1}
    assert told["proposed"]["calls"] == 1
    refused = past.replay('[policies.dear-first]\nonly = ["cheap"]\nmax_price = { prompt = "0.01" }\n')["refused"]
    assert refused["present"]["calls"] == 1 and "no offer of `m/x`" in refused["reasons"][0]["reason"]


def test_accounts_keep_their_policy_and_markup_and_can_be_looked_at_alone(past: Past) -> None:
    other = past.world.account(DOLLAR)
    key = past.world.key(other)
    customers.set_policy(past.world.database, other, "cheap-first", now_us=0)
    past.served("x-dear")
    past.served("x-cheap", key=key, times=2)
    proposal = '[policies.cheap-first]\norder = ["dear"]\n'
    text = (past.folder / "farebox.toml").read_text() + '[policies.cheap-first]\norder = ["cheap"]\n'
    (past.folder / "farebox.toml").write_text(text)
    told = past.replay(proposal)
    assert told["kept"] == 1 and told["moved"] == 2
    alone = past.replay(proposal, "--account", other)
    assert alone["kept"] == 0 and alone["moved"] == 2 and nano(alone["recorded"], "cost") == (2 * CHEAP_NANO,)


def test_draws_are_the_same_on_both_sides(past: Past) -> None:
    """By chance, a third of the price is nine times the calls. What is unrelated to the change does not move."""
    text = (past.folder / "farebox.toml").read_text().replace('policy = "dear-first"', "")
    (past.folder / "farebox.toml").write_text(text)
    past.served("x-dear", times=60)
    told = past.replay('[policies.unrelated]\nsort = "price"\n')
    assert told["moved"] == 0 and told["kept"] == 60
    cheap = (60 * DEAR_NANO - nano(told["present"], "cost")[0]) // (DEAR_NANO - CHEAP_NANO)
    assert 30 < cheap < 60
    dear = past.replay('[[models]]\nslug = "m/x"\ncontext_window = 100000\nmax_output_tokens = 4096\n'
                       'offers = [{ provider = "cheap", id = "x-cheap", input = "1.00", output = "2.00" }]\n')  # fmt: skip
    assert dear["moved"] == 60 - cheap


def test_people_read_it_in_a_hundred_columns(past: Past) -> None:
    past.served("x-dear", times=3)
    past.world.post()
    (past.folder / "new.toml").write_text(CHEAP_FIRST)
    done = Shell(past.folder)("replay", "--policy", str(past.folder / "new.toml"), "--since", "2026-11-22")
    assert done.status == 0, done.err
    assert "0 calls stay where they are, 3 move." in done.out and "m/x at dear → m/x at cheap" in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_a_proposal_that_cannot_be_is_one_sentence(past: Past) -> None:
    (past.folder / "new.toml").write_text('[policies.dear-first]\nsorting = "price"\n')
    done = Shell(past.folder)("replay", "--policy", str(past.folder / "new.toml"), "--since", "2026-11-22")
    assert "sorting" in done.refused()
    (past.folder / "new.toml").write_text("[policies")
    with pytest.raises(ConfigError, match="new.toml: not valid TOML"):
        load(past.folder / "farebox.toml", {}, over=past.folder / "new.toml")


def test_what_is_laid_over_replaces_policies_and_models_whole_and_the_rest_by_setting() -> None:
    lower = {"policies": {"a": {"order": ["x"], "zdr": True}, "b": {}}, "models": [{"slug": "1", "k": 1}, {"slug": "2"}]}
    lower |= {"billing": {"markup_percent": "5", "drain_s": 3}}
    upper = {"policies": {"a": {"sort": "price"}}, "models": [{"slug": "1"}], "billing": {"markup_percent": "0"}, "new": 1}
    before = json.dumps(lower)
    assert laid_over(lower, upper) == {
        "policies": {"a": {"sort": "price"}, "b": {}},
        "models": [{"slug": "2"}, {"slug": "1"}],
        "billing": {"markup_percent": "0", "drain_s": 3},
        "new": 1,
    }
    assert json.dumps(lower) == before


def test_a_long_history_is_sampled_evenly() -> None:
    samples = Samples()
    for value in range(100_000):
        samples.add(float(value))
    found = samples.percentiles()
    assert len(samples.kept) <= SAMPLES_MAX and found is not None
    assert found.p50 == pytest.approx(50_000, rel=0.02) and found.p99 == pytest.approx(99_000, rel=0.02)
