"""Streams that break off: the client's whole answer, what the providers were asked, and the bill (billing.md §4).

Two offers of one model; the first, cheaper one misbehaves in the middle of its answer. The simulated models say the same words
to the same question on either wire and go on with a prefill as they would have gone on by themselves, so a pieced-together
answer must be, byte for byte, the undisturbed one.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tests.support import reconcile
from tests.support.callers import Fate, body_for, call
from tests.support.reconcile import Row, cost, price, read_bill, read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

MARKUP_BP = 550
CHEAP = reconcile.rates(input="0.50", output="2.00")
DEAR = reconcile.rates()
TOKENS = 30
GOOD = f"sim+tokens={TOKENS}"
WIRES = ("chat", "messages")
BREAKS = {
    "reset": "reset-after=9",
    "cut": "cut-at-byte=2600",
    "stall": "stall-after=9",
    "error": "error-in-stream=7",
}
SECOND = ("chat", "messages")


def configuration(origin: str) -> str:
    text = "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"  # every story begins with a well provider
    text += "[attempts]\nbackoff_ms = 20\nbackoff_max_ms = 50\nchunk_s = 0.8\nheaders_s = 5.0\nattempts_max = 4\n"
    text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    for name in ("first", "second", "third"):
        text += provider(f"chat-{name}", f"{origin}/v1", extra='prefill = "prefix"')
        text += provider(f"messages-{name}", origin, wire="anthropic_messages")
    text += provider("deaf", f"{origin}/v1")
    cheap, mid = {"input": "0.50", "output": "2.00"}, {"input": "1.00", "output": "4.00"}
    for one, two in itertools.product(WIRES, WIRES):
        for name, fault in BREAKS.items():
            text += model(
                f"r/{name}-{one}-{two}",
                offer(f"{one}-first", f"{GOOD}+{fault}+times=1", **cheap),
                offer(f"{two}-second", GOOD),
            )
    text += model("r/whole", offer("chat-first", GOOD, **cheap))
    text += model("r/alone", offer("chat-first", f"{GOOD}+reset-after=9+times=1", **cheap))
    text += model("r/twice", *(
        offer(f"chat-{name}", f"{GOOD}+reset-after=9", **rates)
        for name, rates in (("first", cheap), ("second", mid))
    ), offer("messages-third", GOOD))  # fmt: skip
    text += model(
        "r/rejects",
        offer("messages-first", f"{GOOD}+reset-after=9", **cheap),
        offer("messages-second", f"{GOOD}+reject-prefill", **mid),
        offer("chat-third", GOOD),
    )
    text += model(
        "r/all-reject",
        offer("messages-first", f"{GOOD}+reset-after=9+reject-prefill", **cheap),
        offer("messages-second", f"{GOOD}+reject-prefill", **mid),
    )
    repeating = f"{GOOD}+repeat-prefill"
    text += model("r/repeats", offer("chat-first", f"{GOOD}+reset-after=20", **cheap), offer("chat-second", repeating))
    text += model("r/deaf", offer("deaf", f"{GOOD}+reset-after=9", **cheap), offer("deaf", GOOD))
    text += model("r/unheard", offer("deaf", f"{GOOD}+reset-after=9", **cheap), offer("messages-second", GOOD))
    text += model("r/tools", offer("chat-first", "sim+tools=1+reset-after=4", **cheap), offer("chat-second", GOOD))
    text += model("r/schema", offer("chat-first", "sim+reset-after=4", **cheap), offer("chat-second", GOOD))
    text += model("r/malformed", offer("chat-first", f"{GOOD}+malformed-event=6", **cheap))
    text += model("r/no-done", offer("chat-first", f"{GOOD}+no-done", **cheap))
    thinking = f"{GOOD}+thinking=5"
    text += model(
        "r/thought", offer("messages-first", f"{thinking}+reset-after=15", **cheap), offer("messages-second", thinking)
    )
    text += model("r/thinking", offer("messages-first", f"{thinking}+reset-after=4", **cheap), offer("messages-second", GOOD))
    return text


class World:
    """A gateway, a provider, and one call at a time."""

    def __init__(self, box: Farebox, provider: SimulatorProcess) -> None:
        self.box = box
        self.provider = provider
        self.url = f"sqlite:///{box.folder / 'farebox.db'}"

    def ask(self, surface: str, slug: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Fate:
        fields.setdefault("max_tokens", 300)
        fate = Fate(surface, slug, True)
        return asyncio.run(call(self.box.port, self.box.key, fate, body_for(surface, slug, stream=True, **fields), headers))

    def rows(self, fate: Fate) -> list[Row]:
        def posted() -> list[Row]:
            return read_books(self.url).call(str(fate.generation))

        return wait_until(posted, f"{fate.generation} is posted")

    def bodies(self, fate: Fate) -> list[dict[str, Any]]:
        """What the providers were sent for this call, in order."""
        seen = self.provider.requests()
        mine = [one for one in seen if dict(one["headers"]).get("x-farebox-attempt", "").startswith(f"{fate.generation}/")]
        return [json.loads(one["body"]) for one in mine]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("recovery")
    with (
        SimulatorProcess(bill_path=folder / "bill.jsonl", dialect="mistral") as running,
        Farebox(folder / "box", config=configuration(running.origin), billing='markup_percent = "5.5"') as box,
    ):
        yield World(box, running)
        box.wait_posted()
        box.check_books()


def events(fate: Fate) -> list[Any]:
    lines = [line[6:] for line in fate.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def read_chat(fate: Fate) -> tuple[str, list[Any]]:
    """The text, and the chunks; asserts that they are one unbroken answer."""
    chunks = events(fate)
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert sum("role" in choice["delta"] for choice in choices) == 1, "one role"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert fate.body.endswith(b"data: [DONE]\n\n") and fate.body.count(b"[DONE]") == 1
    assert sum(bool(chunk.get("usage")) for chunk in chunks) == 1 and chunks[-1]["usage"]
    return "".join(choice["delta"].get("content") or "" for choice in choices), chunks


def read_messages(fate: Fate) -> tuple[str, list[Any]]:
    found = events(fate)
    kinds = [event["type"] for event in found if event["type"] != "ping"]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_start") == kinds.count("message_delta") == kinds.count("message_stop") == 1
    opened = [event["index"] for event in found if event["type"] == "content_block_start"]
    assert opened == list(range(len(opened)))
    assert [event["index"] for event in found if event["type"] == "content_block_stop"] == opened
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas), found


def read(fate: Fate) -> str:
    assert fate.complete, fate.body[-600:]
    return (read_chat if fate.surface == "chat" else read_messages)(fate)[0]


@pytest.fixture(autouse=True)
def _afresh(world: World) -> None:
    """Faults that last for one request last for one request of each test."""
    world.provider.reset()


@pytest.fixture(scope="module")
def whole(world: World) -> str:
    """What every one of these models says when nothing disturbs it."""
    text = read(world.ask("chat", "r/whole"))
    assert len(text.split(" ")) == TOKENS
    return text


def told_nano(fate: Fate) -> int:
    whole, _, fraction = (fate.cost_usd or "").partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


def assert_two_parts(world: World, fate: Fate, rates: tuple[reconcile.Rates, reconcile.Rates] = (CHEAP, DEAR)) -> None:
    """The input once, each attempt's output at its own rate, our cost as the provider has it."""
    one, two = world.rows(fate)
    first, second = rates
    assert {"upstream_truncated", "seam"} <= set(one.flags) and "continued" in two.flags
    assert one.usage is not None and two.usage is not None
    assert one.charge == price(one.usage, first, MARKUP_BP) and one.cost == cost(one.usage, first)
    assert two.charge == price({"output": two.usage["output"]}, second, MARKUP_BP)
    assert one.loss == two.loss == 0 and one.state == two.state == "settled"
    assert one.charge + two.charge == told_nano(fate)
    bill = read_bill(world.provider.bill_path or world.box.folder)
    assert two.usage == bill[two.name].usage, "the attempt that ended well is exact"
    assert two.cost == cost(bill[two.name].usage, second)
    truth = bill[one.name].usage
    assert truth["output"] - 1 <= one.usage["output"] <= truth["output"], "nobody pays for more than was delivered"
    usage = events(fate)[-1]["usage"] if fate.surface == "chat" else events(fate)[-2]["usage"]
    output = usage["completion_tokens" if fate.surface == "chat" else "output_tokens"]
    assert output == one.usage["output"] + two.usage["output"]


@pytest.mark.parametrize("surface", WIRES)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(WIRES, WIRES)))
@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_stream_is_continued(
    world: World, whole: str, broken: str, first: str, second: str, surface: str
) -> None:
    slug = f"r/{broken}-{first}-{second}"
    fate = world.ask(surface, slug)
    assert read(fate) == whole
    one, two = world.bodies(fate)
    assert two["messages"][:-1] == (one["messages"] if first == second else two["messages"][:-1])
    last = two["messages"][-1]
    assert last["role"] == "assistant" and whole.startswith(last["content"]) and last["content"] == last["content"].rstrip()
    assert last.get("prefix") is (True if second == "chat" else None)
    delivered = world.rows(fate)[0].usage or {}
    assert (two.get("max_tokens") or two.get("max_completion_tokens")) == 300 - delivered["output"]
    assert_two_parts(world, fate)


@pytest.mark.parametrize("first", WIRES)
def test_the_vendors_own_clients_read_one_answer(world: World, whole: str, first: str) -> None:
    chat = openai.OpenAI(base_url=f"{world.box.base}/v1", api_key=world.box.key, max_retries=0)
    messages: Any = [{"role": "user", "content": "hello"}]
    with chat.chat.completions.stream(model=f"r/reset-{first}-messages", messages=messages, max_tokens=300) as stream:
        assert stream.get_final_completion().choices[0].message.content == whole
    world.provider.reset()
    claude = anthropic.Anthropic(base_url=world.box.base, api_key=world.box.key, max_retries=0)
    with claude.messages.stream(model=f"r/reset-{first}-chat", messages=messages, max_tokens=300) as events:
        final = events.get_final_message()
    assert [block.text for block in final.content if block.type == "text"] == [whole]
    assert final.stop_reason == "end_turn"


def test_the_only_provider_is_asked_to_go_on_itself(world: World, whole: str) -> None:
    fate = world.ask("chat", "r/alone")
    assert read(fate) == whole
    assert_two_parts(world, fate, (CHEAP, CHEAP))


def test_a_continuation_that_breaks_off_is_continued_again(world: World, whole: str) -> None:
    fate = world.ask("messages", "r/twice")
    assert read(fate) == whole
    rows = world.rows(fate)
    assert [row.provider for row in rows] == ["chat-first", "chat-second", "messages-third"]
    assert ["seam" in row.flags for row in rows] == [True, True, False]
    assert ["continued" in row.flags for row in rows] == [False, True, True]
    assert sum(row.charge for row in rows) == told_nano(fate)
    middle = rows[1].usage or {}
    assert rows[1].charge == price({"output": middle["output"]}, reconcile.rates(input="1.00", output="4.00"), MARKUP_BP)


@pytest.mark.parametrize("surface", WIRES)
def test_a_refused_prefill_is_not_the_clients_error(world: World, whole: str, surface: str) -> None:
    fate = world.ask(surface, "r/rejects")
    assert read(fate) == whole
    rows = world.rows(fate)
    assert [(row.provider, row.outcome, row.charge > 0) for row in rows] == [
        ("messages-first", "truncated", True),
        ("messages-second", "http_error", False),
        ("chat-third", "ok", True),
    ]


def test_whoever_cannot_be_told_the_rest_is_passed_over(world: World, whole: str) -> None:
    fate = world.ask("chat", "r/reset-chat-messages", logit_bias={"5": 1}, headers={"x-farebox-metadata": "enabled"})
    assert read(fate) == whole
    assert_two_parts(world, fate, (CHEAP, CHEAP))
    told = next(json.loads(line[10:]) for line in fate.body.decode().splitlines() if line.startswith(": farebox "))
    assert [(one["provider"], one["rule"]) for one in told["plan"]["excluded"]] == [("messages-second", "continuation")]
    assert len(told["attempts"]) == 2 and len(told["seams"]) == 1
    fate = world.ask("chat", "r/unheard", logit_bias={"5": 1})
    said = events(fate)[-1]["error"]["farebox"]
    assert said["stream_recovery"] == "no_capable_provider"
    assert [one["provider"] for one in said["excluded"]] == ["messages-second"]
    (row,) = world.rows(fate)
    assert row.charge == 0 and row.outcome == "truncated"


@pytest.mark.parametrize("surface", WIRES)
def test_when_nobody_goes_on_the_client_is_told_of_the_break_and_pays_nothing(world: World, whole: str, surface: str) -> None:
    fate = world.ask(surface, "r/all-reject")
    assert not fate.complete
    error = events(fate)[-1]["error"]
    assert "broke off" in error["message"] and "prefill" not in error["message"]
    assert error["farebox"]["stream_recovery"] == "nobody_continued"
    rows = world.rows(fate)
    assert sum(row.charge for row in rows) == 0 and rows[0].cost
    delivered = "".join(
        choice["delta"].get("content") or "" for event in events(fate) for choice in event.get("choices", ())
    )
    assert surface == "messages" or whole.startswith(delivered)


def test_a_repeated_prefill_is_dropped(world: World, whole: str) -> None:
    fate = world.ask("chat", "r/repeats")
    assert read(fate) == whole
    two = world.rows(fate)[1]
    assert (two.usage or {})["output"] == TOKENS, "all that it made costs us"


@pytest.mark.parametrize("how", ["header", "body"])
@pytest.mark.parametrize("surface", WIRES)
def test_recovery_can_be_switched_off(world: World, surface: str, how: str) -> None:
    if how == "header":
        fate = world.ask(surface, "r/reset-chat-chat", headers={"x-farebox-stream-recovery": "off"})
    else:
        fate = world.ask(surface, "r/reset-chat-chat", stream_recovery="off")
    assert_not_continued(world, fate, "switched_off")
    assert "stream_recovery" not in world.bodies(fate)[0]


def assert_not_continued(world: World, fate: Fate, reason: str) -> None:
    """One attempt, an error event with the reason, no mark of success, nothing to pay."""
    assert fate.status == 200 and not fate.complete
    error = events(fate)[-1]["error"]
    assert error["farebox"]["stream_recovery"] == reason, error
    (row,) = world.rows(fate)
    assert row.charge == 0 and row.cost and "seam" not in row.flags


THINK = {"type": "enabled", "budget_tokens": 1024}
OBJECT = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": OBJECT}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": OBJECT}}


@pytest.mark.parametrize(
    ("slug", "fields", "reason"),
    [
        ("r/deaf", {}, "no_capable_provider"),
        ("r/tools", {"tools": [TOOL]}, "tool_call"),
        ("r/schema", {"response_format": SCHEMA}, "json_schema"),
        ("r/reset-chat-chat", {"n": 2}, "several_choices"),
        ("r/reset-chat-chat", {"max_tokens": 8}, "output_cap_reached"),
    ],
)
def test_what_is_not_sound_is_not_continued(world: World, slug: str, fields: dict[str, Any], reason: str) -> None:
    assert_not_continued(world, world.ask("chat", slug, **fields), reason)


def test_words_other_than_on_and_off_are_refused(world: World) -> None:
    fate = world.ask("chat", "r/whole", headers={"x-farebox-stream-recovery": "maybe"})
    assert fate.status == 400 and "x-farebox-stream-recovery" in fate.json()["error"]["message"]
    fate = world.ask("messages", "r/whole", stream_recovery="maybe")
    assert fate.status == 400 and "stream_recovery" in fate.json()["error"]["message"]


def test_a_malformed_event_is_skipped_and_a_missing_end_mark_is_no_break(world: World, whole: str) -> None:
    for slug in ("r/malformed", "r/no-done"):
        fate = world.ask("chat", slug)
        assert fate.complete
        (row,) = world.rows(fate)
        assert row.outcome == "ok" and "seam" not in row.flags


def test_an_answer_is_continued_behind_its_thinking(world: World) -> None:
    fate = world.ask("messages", "r/thought", thinking=THINK, max_tokens=2000)
    text, found = read_messages(fate)
    starts = [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"]
    assert starts == ["thinking", "text"] and len(text.split(" ")) == TOKENS
    one, two = world.bodies(fate)
    assert "thinking" in one and "thinking" not in two


def test_thinking_that_breaks_off_is_not_continued(world: World) -> None:
    fate = world.ask("messages", "r/thinking", thinking=THINK, max_tokens=2000)
    assert_not_continued(world, fate, "thinking")
