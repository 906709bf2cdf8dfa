"""Escalation over real sockets: the cheap model answers first, the strong one where that will not do; both are billed."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.scenarios.test_attempts import World
from tests.support.reconcile import Row
from tests.support.running import Farebox, Reply, model, offer, provider

from farebox.quality import rating
from farebox.simulator.testing import SimulatorProcess

KEEPALIVE = "keepalive_comment_s = 0.3"
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
HELLO = [{"role": "user", "content": "hello"}]
CHEAP, DEAR = {"input": "1.00", "output": "2.00"}, {"input": "10.00", "output": "20.00"}
WEAK = {
    "good": "sim+tokens=5",
    "refuses": "sim+refusal",
    "filtered": "sim+tokens=9+content-filter",
    "broken": "sim+status=503",
    "sure": "sim+tokens=5+rating=90",
    "unsure": "sim+tokens=5+rating=40",
    "vague": "sim+tokens=5+usage=missing",
    "slow": "sim+refusal+delay-chunk=250ms",
    "breaks": "sim+tokens=9+reset-after=4",
    "fails": "sim+tokens=9+error-in-stream=4",
    "long": "sim+tokens=9+big-event=2200000+delay-chunk=20ms",
}
STRONG = {"strong": "sim+tokens=7", "strong-fails": "sim+status=503", "strong-refuses": "sim+refusal"}


def configuration(base: str) -> str:
    text = provider("lab", base) + provider("other", base, wire="anthropic_messages")
    text += "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"
    text += "[attempts]\nbackoff_ms = 5\nbackoff_max_ms = 10\n"
    for name, id in WEAK.items():
        text += model(f"w/{name}", offer("lab", id, **CHEAP), output=400)
    for name, id in STRONG.items():
        text += model(f"s/{name}", offer("lab", id, **DEAR), output=1000)
    text += model("s/elsewhere", offer("other", "sim+tokens=7", **DEAR), output=1000)
    text += model("w/short", offer("lab", "sim+tokens=500", **CHEAP), output=40)
    for weak in (*WEAK, "short"):
        for strong in (*STRONG, "elsewhere"):
            text += f'[policies.{weak}_{strong}]\nmodels = ["w/{weak}"]\nescalation = {{ to = ["s/{strong}"] }}\n'
    for weak in (*WEAK, "short"):
        for strong in (*STRONG, "elsewhere"):
            held = f'escalation = {{ to = ["s/{strong}"], streams = "withhold", must_not_match = "\\\\A\\\\S{{1000}}" }}'
            text += f'[policies.held_{weak}_{strong}]\nmodels = ["w/{weak}"]\nattempts_max = 2\n{held}\n'
    for weak in ("sure", "unsure", "vague", "refuses", "elsewhere-unsure"):
        rated = 'escalation = { to = ["s/strong"], streams = "withhold", self_rating_percent = 60 }'
        text += f'[policies.rated_{weak}]\nmodels = ["w/{weak}"]\n{rated}\n'
    text += model("w/elsewhere-unsure", offer("other", "sim+tokens=5+rating=40", **CHEAP), output=400)
    text += '[policies.picky]\nmodels = ["w/good"]\nescalation = { to = ["s/strong"], must_match = "never in it" }\n'
    text += '[policies.tiers]\ndecision = "complexity"\nescalation = { to = ["s/strong"] }\n'
    text += '[policies.tiers.branches]\neasy = ["w/refuses"]\nmedium = ["w/good"]\nhard = ["s/strong"]\n'
    return text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("escalation") / "box"
    with (
        SimulatorProcess() as simulator,
        Farebox(folder, config=configuration(f"{simulator.origin}/v1"), server=KEEPALIVE) as box,
    ):
        yield World(box, simulator)
        box.wait_posted()
        box.check_books()


def ask(world: World, policy: str, **fields: Any) -> Reply:
    reply, _ = world.ask(f"policy/{policy}", {"x-farebox-metadata": "enabled"}, **{"max_tokens": 30, **fields})
    return reply


def rows(world: World, reply: Reply) -> list[Row]:
    return world.rows(reply.headers["x-generation-id"])


def nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)


def test_a_good_answer_stays(world: World) -> None:
    reply = ask(world, "good_strong")
    assert reply.status == 200 and world.asked == 1
    assert reply.headers["x-farebox-model"] == "w/good" and "x-farebox-escalated" not in reply.headers
    assert reply.json()["farebox"]["plan"]["escalates_to"] == ["s/strong"]


@pytest.mark.parametrize(("weak", "why"), [("refuses", "refusal"), ("filtered", "refusal")])
@pytest.mark.parametrize("strong", ["strong", "elsewhere"])
def test_a_refusal_goes_on_to_the_strong_model_and_both_are_billed(world: World, weak: str, why: str, strong: str) -> None:
    reply = ask(world, f"{weak}_{strong}")
    assert (reply.status, world.asked) == (200, 2), reply.body
    assert reply.headers["x-farebox-model"] == f"s/{strong}" and reply.headers["x-farebox-escalated"] == why
    first, second = rows(world, reply)
    assert first.outcome == second.outcome == "ok" and first.charge > 0 and second.charge > 0
    told = reply.json()
    assert nano(reply.headers["x-farebox-cost-usd"]) == first.charge + second.charge == nano(told["usage"]["cost_usd"])
    assert told["usage"]["completion_tokens"] == 7, "the usage is that of the answer"
    assert [one["escalated"] for one in told["farebox"]["attempts"]] == [why, None]
    details = told["usage"]["cost_details"]
    assert round(details["upstream_inference_cost"] * 1e9) == first.charge + second.charge, "without markup: list price of both"
    assert nano(told["farebox"]["hold_usd"]) >= first.charge + second.charge


def test_the_hold_covers_both(world: World) -> None:
    def worst(policy: str) -> tuple[int, list[int]]:
        plan = ask(world, policy).json()["farebox"]["plan"]
        return nano(plan["hold_usd"]), [nano(one["worst_case_usd"]) for one in plan["offers"]]

    hold, each = worst("good_strong")
    assert len(each) == 2 and hold == sum(each)


def test_a_stream_is_never_taken_back_and_holds_for_one(world: World) -> None:
    reply = ask(world, "refuses_strong", stream=True)
    assert reply.status == 200 and world.asked == 1 and reply.headers["x-farebox-model"] == "w/refuses"
    explained = world.box.post("/v1/route/explain", {"model": "policy/refuses_strong", "messages": HELLO, "stream": True}).json()
    assert explained["escalates_to"] == []
    assert nano(explained["hold_usd"]) == max(nano(one["worst_case_usd"]) for one in explained["offers"])


def test_without_a_better_one_the_client_gets_the_answer_that_there_is(world: World) -> None:
    reply = ask(world, "refuses_strong-fails")
    assert reply.status == 200 and reply.headers["x-farebox-model"] == "w/refuses"
    assert reply.headers["x-farebox-escalated"] == "refusal; kept"
    found = rows(world, reply)
    assert [row.outcome for row in found] == ["ok", "http_error", "http_error", "http_error"]
    assert [row.charge > 0 for row in found] == [True, False, False, False]
    assert nano(reply.headers["x-farebox-cost-usd"]) == found[0].charge


def test_what_the_strong_model_says_stands(world: World) -> None:
    reply = ask(world, "refuses_strong-refuses")
    assert (reply.status, world.asked) == (200, 2) and reply.headers["x-farebox-model"] == "s/strong-refuses"


def test_a_cheap_model_that_fails_is_ordinary_failover(world: World) -> None:
    reply = ask(world, "broken_strong")
    assert reply.status == 200 and reply.headers["x-farebox-model"] == "s/strong"
    assert "x-farebox-escalated" not in reply.headers
    assert [row.charge > 0 for row in rows(world, reply)] == [False, True]


def test_cut_off_by_the_callers_own_cap_is_what_the_caller_wanted(world: World) -> None:
    reply = ask(world, "short_strong", max_tokens=30)
    assert world.asked == 1 and reply.json()["choices"][0]["finish_reason"] == "length"
    longer, _ = world.ask("policy/short_strong", max_tokens=None)
    assert longer.headers["x-farebox-escalated"] == "truncation" and world.asked == 2


def test_a_rule_of_ones_own(world: World) -> None:
    reply = ask(world, "picky")
    assert reply.headers["x-farebox-escalated"] == "rule" and reply.headers["x-farebox-model"] == "s/strong"


def test_both_surfaces(world: World) -> None:
    world.simulator.reset()
    body = {"model": "policy/refuses_strong", "max_tokens": 30, "messages": [{"role": "user", "content": "hello"}]}
    reply = world.box.post("/v1/messages", body)
    assert reply.status == 200 and reply.headers["x-farebox-escalated"] == "refusal" and world.asked == 2
    assert reply.json()["usage"]["output_tokens"] == 7


def test_tiers_and_escalation_together(world: World) -> None:
    easy = ask(world, "tiers")
    assert easy.headers["x-farebox-model"] == "s/strong" and easy.headers["x-farebox-escalated"] == "refusal"
    prove = "Prove rigorously that this lock-free queue is linearizable, derive the invariant, give a counterexample."
    hard = ask(world, "tiers", messages=[{"role": "user", "content": prove}])
    assert hard.headers["x-farebox-model"] == "s/strong" and world.asked == 1 and "x-farebox-escalated" not in hard.headers


def test_a_purse_for_one_answer_says_what_would_fit_for_both(world: World) -> None:
    made = world.box.customer("poor", credit_nano=4_000_000)
    body = {"model": "policy/refuses_strong", "max_tokens": 300, "messages": [{"role": "user", "content": "hi"}]}
    refused = world.box.post("/v1/chat/completions", body, key=made.secret)
    assert refused.status == 402
    fits = refused.json()["error"]["farebox"]["affordable_output_tokens"]
    assert 0 < fits < 300
    again = world.box.post("/v1/chat/completions", {**body, "max_tokens": fits}, key=made.secret)
    assert again.status == 200 and again.headers["x-farebox-escalated"] == "refusal"


# --- streams that are withheld ------------------------------------------------------------------------------------------


def test_a_withheld_stream_that_will_do_comes_whole(world: World) -> None:
    whole = ask(world, "held_good_strong")
    reply = ask(world, "held_good_strong", **STREAM)
    assert reply.status == 200 and world.asked == 1 and reply.headers["x-farebox-model"] == "w/good"
    assert "x-farebox-escalated" not in reply.headers
    assert said(reply) == (whole.json()["choices"][0]["message"]["content"], ["stop"])
    assert usage(reply)["completion_tokens"] == 5 and reply.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("strong", ["strong", "elsewhere"])
def test_a_withheld_refusal_is_replaced_by_the_strong_models_stream(world: World, strong: str) -> None:
    reply = ask(world, f"held_refuses_{strong}", **STREAM)
    assert (reply.status, world.asked) == (200, 2), reply.body
    assert reply.headers["x-farebox-model"] == f"s/{strong}" and reply.headers["x-farebox-escalated"] == "refusal"
    words, ends = said(reply)
    assert "cannot" not in words and len(words.split()) == 7 and ends == ["stop"], "nothing of the first answer is in it"
    first, second = rows(world, reply)
    assert first.outcome == second.outcome == "ok" and first.charge > 0 and second.charge > 0
    assert nano(usage(reply)["cost_usd"]) == first.charge + second.charge and usage(reply)["completion_tokens"] == 7
    assert reply.body.count(b"[DONE]") == 1 and b'"escalated":"refusal"' in reply.body


def test_withheld_on_the_other_surface(world: World) -> None:
    world.simulator.reset()
    body = {"model": "policy/held_refuses_elsewhere", "max_tokens": 30, "messages": HELLO, "stream": True}
    reply = world.box.post("/v1/messages", body)
    assert reply.headers["x-farebox-escalated"] == "refusal" and world.asked == 2
    kinds = [event["type"] for event in reply.events()]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and kinds.count("message_start") == 1


@pytest.mark.parametrize("weak", ["breaks", "fails"])
def test_a_withheld_stream_that_breaks_off_is_ordinary_failover(world: World, weak: str) -> None:
    reply = ask(world, f"held_{weak}_strong", **STREAM)
    assert reply.status == 200 and reply.headers["x-farebox-model"] == "s/strong" and "x-farebox-escalated" not in reply.headers
    assert len(said(reply)[0].split()) == 7
    assert [row.charge > 0 for row in rows(world, reply)] == [False, True]


def test_a_withheld_stream_is_released_when_nobody_has_a_better_one(world: World) -> None:
    reply = ask(world, "held_refuses_strong-fails", **STREAM)
    assert reply.status == 200 and reply.headers["x-farebox-escalated"] == "refusal; kept"
    assert reply.headers["x-farebox-model"] == "w/refuses" and reply.body.count(b"[DONE]") == 1
    first, second = rows(world, reply)
    assert (first.outcome, second.outcome) == ("ok", "http_error") and nano(usage(reply)["cost_usd"]) == first.charge > 0


def test_keepalives_go_out_while_a_stream_is_withheld(world: World) -> None:
    reply = ask(world, "held_slow_strong", **STREAM)
    before, _, after = reply.body.partition(b"data: ")
    assert before.startswith(b": FAREBOX PROCESSING\n\n") and b"PROCESSING" not in after
    assert len(said(reply)[0].split()) == 7 and len(rows(world, reply)) == 2


def test_a_stream_that_is_too_long_to_be_withheld_is_released_and_stays(world: World) -> None:
    assert ask(world, "held_long_strong").headers["x-farebox-escalated"] == "rule", "the pattern would replace it"
    reply = ask(world, "held_long_strong", **STREAM)
    assert world.asked == 1 and reply.headers["x-farebox-model"] == "w/long" and len(said(reply)[0]) > 2_200_000
    assert usage(reply)["completion_tokens"] == 9


def test_a_withheld_stream_holds_for_both(world: World) -> None:
    explained = world.box.post("/v1/route/explain", {"model": "policy/held_refuses_strong", "messages": HELLO, "stream": True})
    told = explained.json()
    assert told["escalates_to"] == ["s/strong"]
    assert nano(told["hold_usd"]) == sum(nano(one["worst_case_usd"]) for one in told["offers"])


def said(reply: Reply) -> tuple[str, list[str]]:
    """The text of a stream, and how it ended."""
    choices = [choice for event in reply.events() for choice in event.get("choices", ())]
    text = "".join(choice["delta"].get("content") or choice["delta"].get("refusal") or "" for choice in choices)
    return text, [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]


def usage(reply: Reply) -> Any:
    return next(event["usage"] for event in reversed(reply.events()) if event.get("usage"))


# --- an answer's own rating ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, STREAM], ids=["whole", "stream"])
def test_an_answer_that_its_model_is_sure_of_stays_and_its_rating_is_billed(world: World, fields: dict[str, Any]) -> None:
    reply = ask(world, "rated_sure", **fields)
    assert (reply.status, world.asked) == (200, 2), reply.body
    assert reply.headers["x-farebox-model"] == "w/sure" and reply.headers["x-farebox-rating"] == "90"
    assert "x-farebox-escalated" not in reply.headers
    answer, rating = rows(world, reply)
    assert answer.outcome == rating.outcome == "ok" and answer.charge > 0 and rating.charge > 0 and rating.flags == ("rating",)
    told = usage(reply) if fields else reply.json()["usage"]
    assert nano(told["cost_usd"]) == answer.charge + rating.charge and told["completion_tokens"] == 5
    assert round(told["cost_details"]["upstream_inference_cost"] * 1e9) == answer.charge + rating.charge
    generation = world.box.get(f"/v1/generation?id={reply.headers['x-generation-id']}").json()["data"]
    assert generation["tokens_completion"] == 5, "of the answer, not of the rating"
    assert generation["total_cost_usd"] == told["cost_usd"]


@pytest.mark.parametrize("weak", ["unsure", "elsewhere-unsure"])
@pytest.mark.parametrize("fields", [{}, STREAM], ids=["whole", "stream"])
def test_an_answer_that_its_model_doubts_is_replaced_and_all_three_are_billed(
    world: World, fields: dict[str, Any], weak: str
) -> None:
    reply = ask(world, f"rated_{weak}", **fields)
    assert (reply.status, world.asked) == (200, 3), reply.body
    assert reply.headers["x-farebox-model"] == "s/strong" and reply.headers["x-farebox-rating"] == "40"
    assert reply.headers["x-farebox-escalated"] == "rating"
    found = rows(world, reply)
    assert [row.outcome for row in found] == ["ok"] * 3 and all(row.charge > 0 for row in found)
    assert [row.flags for row in found] == [("escalated",), ("rating",), ()]
    told = usage(reply) if fields else reply.json()["usage"]
    assert nano(told["cost_usd"]) == sum(row.charge for row in found) and told["completion_tokens"] == 7


def test_no_rating_is_no_reason(world: World) -> None:
    reply = ask(world, "rated_vague")
    assert reply.headers["x-farebox-model"] == "w/vague" and "x-farebox-rating" not in reply.headers and world.asked == 2
    assert all("estimated" in row.flags and row.charge > 0 for row in rows(world, reply))


def test_what_will_not_do_anyway_is_not_rated(world: World) -> None:
    reply = ask(world, "rated_refuses")
    assert reply.headers["x-farebox-escalated"] == "refusal" and world.asked == 2


def test_the_hold_covers_the_rating(world: World) -> None:
    explained = world.box.post("/v1/route/explain", {"model": "policy/rated_sure", "messages": HELLO, "max_tokens": 30}).json()
    both = sum(nano(one["worst_case_usd"]) for one in explained["offers"])
    assert nano(explained["hold_usd"]) == both + rating.INPUT_TOKENS_MAX * 1_000 + rating.OUTPUT_TOKENS_MAX * 2_000
