"""What a provider can do wrong, one story each, over real sockets: the caller's whole answer, who was asked how often and what
came of it, how long it took, and the bill.

The simulated models say the same words to the same question whoever serves them, so an answer that was saved must be, word for
word, the undisturbed one.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, call
from tests.support.reconcile import Row, cost, price, rates, read_bill, read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.faults import credential_hash
from farebox.simulator.testing import SimulatorProcess

MARKUP_BP = 550
TOKENS = 30
GOOD = f"sim+tokens={TOKENS}"
SILENT_S = 0.5
"""After so long `slow` counts as silent, or as stalled."""
IMPATIENT = f"headers_s = {SILENT_S}\nfirst_token_s = {SILENT_S}\nchunk_s = {SILENT_S}\n"
WEIGHTS = {"one": 1, "two": 2, "three": 3}
KEYED = ("keys", "keys-402", "keys-empty")
"""Providers with three keys of these weights."""
CONNECT_S = 0.3
DEFAULT_CONNECT_S = 3.0
SOON_S = 3.0
"""Nobody waited for anything, on a busy machine."""
PRICES = (("0.50", "2.00"), ("1.00", "4.00"), ("2.50", "10.00"))
"""Of a model's first, second and third offer: they are tried in this order."""


@dataclass(frozen=True)
class Story:
    """What the offers of a model do, and what must come of it."""

    offers: tuple[str, ...]
    """`provider: order+order`, first, second, third."""
    attempts: tuple[str, ...]
    """`provider outcome`, in order."""
    status: int = 200
    code: str = ""
    """Of the error."""
    at_least_s: float = 0.0
    only: str = ""
    """`stream` or `whole`, where the other has no such fault."""
    lost: int = 0
    """Words that are missing."""
    finish: str = "stop"


STORIES = {
    "429": Story(("a: status=429+times=1",), ("a http_error", "a ok")),
    "429-that-says-when": Story(
        ("a: status=429+retry-after-ms=400+times=1",), ("a http_error", "a ok"), at_least_s=0.4
    ),
    "429-elsewhere": Story(("a: status=429+retry-after=9", "b: "), ("a http_error", "b ok")),
    "429-for-too-long": Story(("a: status=429+retry-after=600",), ("a http_error",), 429, "provider_rate_limited"),
    "one-500": Story(("a: status=500+times=1",), ("a http_error", "a ok")),
    "lasting-503": Story(("a: status=503",), ("a http_error",) * 3, 503, "provider_overloaded"),
    "lasting-503-everywhere": Story(("a: status=503", "b: status=503"), ("a http_error",) * 3 + ("b http_error",) * 3, 503,
                                    "provider_overloaded"),
    "503-elsewhere": Story(("a: status=503", "b: "), ("a http_error", "b ok")),
    "reset-before-headers": Story(("a: reset-before-headers", "b: "), ("a broken", "b ok")),
    "silence": Story(("slow: delay-headers=30s", "b: "), ("slow timeout", "b ok"), at_least_s=SILENT_S),
    "silence-everywhere": Story(("slow: delay-headers=30s",), ("slow timeout",), 504, "timeout", SILENT_S),
    "slow-first-token": Story(("slow: delay-first=30s", "b: "), ("slow timeout", "b ok"), at_least_s=SILENT_S),
    "cut": Story(("a: cut-at-byte=2600", "b: "), ("a truncated", "b ok"), only="stream"),
    "cut-whole": Story(("a: cut-at-byte=200", "b: "), ("a broken", "b ok"), only="whole"),
    "reset": Story(("a: reset-after=9", "b: "), ("a truncated", "b ok"), only="stream"),
    "stall": Story(("slow: stall-after=9", "b: "), ("slow timeout", "b ok"), at_least_s=SILENT_S, only="stream"),
    "stall-whole": Story(("slow: stall-after=60", "b: "), ("slow timeout", "b ok"), at_least_s=SILENT_S, only="whole"),
    "error-in-stream": Story(("a: error-in-stream=9", "b: "), ("a error_event", "b ok"), only="stream"),
    "error-in-200": Story(("a: error-in-200", "b: "), ("a error_in_body", "b ok")),
    "malformed-event": Story(("a: malformed-event=6", "b: "), ("a ok",), only="stream", lost=1),
    "no-done": Story(("a: no-done", "b: "), ("a ok",), only="stream"),
    "html": Story(("a: html", "b: "), ("a garbage", "b ok")),
    "context-length": Story(
        ("a: context-length", "b: context-length", "large: "), ("a http_error", "large ok")
    ),
    "context-length-everywhere": Story(("a: context-length", "b: "), ("a http_error",), 400, "context_length_exceeded"),
    "content-filter": Story(("a: content-filter", "b: "), ("a ok",), finish="content_filter", lost=TOKENS // 2),
    "content-policy": Story(
        ("a: status=400+code=content_policy_violation", "b: "), ("a http_error",), 400, "content_policy_violation"
    ),
    "bad-request": Story(("a: status=422", "b: "), ("a http_error",), 400, "invalid_request"),
    "refused-prefill": Story(
        ("a: reset-after=9", "b: reject-prefill", "c: "), ("a truncated", "b http_error", "c ok"), only="stream"
    ),
    # A key that is refused is left alone from then on: each of these providers is asked once.
    "bad-key": Story(("stranger: status=401", "b: "), ("stranger http_error", "b ok"), only="stream"),
    "empty-account": Story(("broke: empty-account", "b: "), ("broke http_error", "b ok"), only="stream"),
    "empty-account-anthropic": Story(("messages-1: empty-account", "b: "), ("messages-1 http_error", "b ok"), only="whole"),
    "empty-account-everywhere": Story(
        ("messages-2: empty-account",), ("messages-2 http_error",), 502, "provider_unavailable", only="stream"
    ),
}  # fmt: skip


MODES = [(name, stream) for name, story in STORIES.items() for stream in (True, False)
         if story.only != ("whole" if stream else "stream")]  # fmt: skip


def slug_of(name: str, stream: bool) -> str:
    return f"f/{name}-{'stream' if stream else 'whole'}"


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """An address whose queue of connections is full: the kernel drops whoever comes next."""
    with contextlib.ExitStack() as open_sockets:
        listening = open_sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def configuration(origin: str, nowhere: str) -> str:
    text = "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"  # every story begins with a well provider
    text += "[attempts]\nbackoff_ms = 20\nbackoff_max_ms = 50\nretries_per_s = 1000\n"
    text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    for at in sorted({one.partition(": ")[0] for story in STORIES.values() for one in story.offers}):
        if at.startswith("messages"):
            text += provider(at, origin, wire="anthropic_messages")
        else:
            text += provider(at, f"{origin}/v1", extra='prefill = "prefix"\n' + (IMPATIENT if at == "slow" else ""))
    for name, stream in MODES:
        offers: list[str] = []
        for one, (input, output) in zip(STORIES[name].offers, PRICES, strict=False):
            at, _, orders = one.partition(": ")
            made = offer(at, "+".join(filter(None, (GOOD, orders))), input=input, output=output)
            offers.append(made.replace(" }", ", context_window = 64000 }") if at == "large" else made)
        text += model(slug_of(name, stream), *offers, context=8_000)
    for name in KEYED:
        keys = ", ".join(f'{{ key = "{name}-{key}", weight = {weight} }}' for key, weight in WEIGHTS.items())
        text += provider(name, f"{origin}/v1", extra=f"api_keys = [{keys}]").replace('api_key = "', "# ")
        text += model(f"f/{name}", offer(name, GOOD, input="0.50", output="2.00"))
    text += provider("unreachable", nowhere, extra=f"connect_s = {CONNECT_S}")
    text += model("f/unreachable", offer("unreachable", GOOD, input="0.50", output="2.00"), offer("b", GOOD))
    text += model("f/stalls", offer("slow", f"{GOOD}+stall-after=9"))
    return text + model("f/undisturbed", offer("a", GOOD, input="0.50", output="2.00"))


class World:
    def __init__(self, box: Farebox, simulator: SimulatorProcess) -> None:
        self.box = box
        self.simulator = simulator
        self.url = f"sqlite:///{box.folder / 'farebox.db'}"
        self.words = ""

    def ask(self, slug: str, *, stream: bool, **fields: Any) -> tuple[Fate, float]:
        """The answer, and the seconds that it took."""
        fields.setdefault("max_tokens", 100)
        began = time.monotonic()
        fate = Fate("chat", slug, stream)
        asyncio.run(call(self.box.port, self.box.key, fate, body_for("chat", slug, stream=stream, **fields)))
        return fate, time.monotonic() - began

    def rows(self, fate: Fate) -> list[Row]:
        """The call's attempts in the books, once they are there."""
        hold = fate.generation or "gen" + str(fate.header("x-request-id"))[3:]
        found = wait_until(lambda: read_books(self.url).call(hold), f"{hold} is posted")
        return sorted(found, key=lambda row: row.attempt)

    def asked(self, hold: str) -> int:
        """How many requests the provider has seen of a call."""
        marks = [dict(one["headers"]).get("x-farebox-attempt", "") for one in self.simulator.requests()]
        return sum(mark.startswith(f"{hold}/") for mark in marks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    with (
        unreachable() as nowhere,
        SimulatorProcess(bill_path=folder / "bill.jsonl", dialect="mistral") as simulator,
        Farebox(folder / "box", config=configuration(simulator.origin, nowhere), billing='markup_percent = "5.5"') as box,
    ):
        world = World(box, simulator)
        world.words = text_of(world.ask("f/undisturbed", stream=False)[0])
        assert len(world.words.split(" ")) == TOKENS
        yield world
        box.wait_posted()
        box.check_books()


def events(fate: Fate) -> list[Any]:
    lines = [line[6:] for line in fate.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def choices(fate: Fate) -> list[Any]:
    return [choice for event in events(fate) for choice in event.get("choices") or ()]


def text_of(fate: Fate) -> str:
    if not fate.stream:
        return fate.json()["choices"][0]["message"]["content"]
    return "".join(choice["delta"].get("content") or "" for choice in choices(fate))


def finish_of(fate: Fate) -> str:
    found = choices(fate) if fate.stream else fate.json()["choices"]
    return next(choice["finish_reason"] for choice in found if choice.get("finish_reason"))


def told_nano(fate: Fate) -> int:
    whole, _, fraction = (fate.cost_usd or "").partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


def assert_answer(world: World, story: Story, fate: Fate) -> None:
    """The whole answer with its end, or an error with none."""
    if story.status != 200:
        assert (fate.status, fate.json()["error"]["code"]) == (story.status, story.code), fate.body
        # Whether the caller's SDK should try once more: we have, and only a limit passes by itself.
        limited = story.status == 429
        assert (fate.header("x-should-retry"), fate.header("retry-after")) == ((None, "600") if limited else ("false", None))
        return
    assert fate.complete, fate.body[-600:]
    words, expected = text_of(fate).split(" "), world.words.split(" ")
    if story.lost == 0:
        assert words == expected
    else:
        assert len(words) >= len(expected) - story.lost - 1 and set(words) <= set(expected)
    assert finish_of(fate) == story.finish


def assert_bill(world: World, story: Story, rows: list[Row], fate: Fate) -> None:
    """The customer pays the answer once, at the price of who gave it; each attempt has its cost to us."""
    bill = read_bill(world.simulator.bill_path or Path())
    offers = [one.partition(": ")[0] for one in story.offers]
    paid = 0
    for row in rows:
        input, output = PRICES[offers.index(row.provider)]
        truth = bill[row.name].usage if row.name in bill else {}
        # Where nothing is known of what an attempt cost, that is what its record says.
        assert row.cost in (None, cost(truth, rates(input=input, output=output))) or "seam" in row.flags
        if "continued" in row.flags:
            truth = {"output": truth.get("output", 0)}
        if row.outcome == "ok":
            assert row.charge == price(truth, rates(input=input, output=output), MARKUP_BP)
        elif "seam" in row.flags:
            assert row.charge > 0
        else:
            assert row.charge == 0
        assert row.loss == 0
        paid += row.charge
    assert paid == (told_nano(fate) if story.status == 200 else 0)
    assert {row.state for row in rows} == {"settled" if story.status == 200 else "voided"}




@pytest.mark.parametrize(("name", "stream"), MODES, ids=[slug_of(*mode)[2:] for mode in MODES])
def test_what_a_provider_does_wrong(world: World, name: str, stream: bool) -> None:
    story = STORIES[name]
    world.simulator.reset()  # faults that last for one request last for one of each story
    fate, seconds = world.ask(slug_of(name, stream), stream=stream)
    assert_answer(world, story, fate)
    rows = world.rows(fate)
    expected, found = list(story.attempts), [f"{row.provider} {row.outcome}" for row in rows]
    if name == "lasting-503-everywhere":  # whose turn comes sooner is chance
        expected, found = sorted(expected), sorted(found)
    assert found == expected
    assert world.asked(rows[0].hold) == len(rows)
    assert story.at_least_s <= seconds < story.at_least_s + SOON_S
    assert_bill(world, story, rows, fate)


def test_a_fallback_is_billed_at_its_own_price_and_says_who_it_is(world: World) -> None:
    world.simulator.reset()
    fate, seconds = world.ask("f/lasting-503-stream", stream=True, models=["f/lasting-503-stream", "f/undisturbed"])
    assert fate.complete and text_of(fate) == world.words and seconds < SOON_S
    assert fate.header("x-farebox-model") == "f/undisturbed"
    first, second = world.rows(fate)
    assert (first.outcome, first.charge, first.cost) == ("http_error", 0, 0)
    truth = read_bill(world.simulator.bill_path or Path())[second.name].usage
    assert second.charge == price(truth, rates(input="0.50", output="2.00"), MARKUP_BP) == told_nano(fate)
    assert world.asked(first.hold) == 2


def test_a_provider_that_cannot_be_reached_costs_its_own_connect_time_out(world: World) -> None:
    world.simulator.reset()
    fate, seconds = world.ask("f/unreachable", stream=True)
    assert fate.complete and text_of(fate) == world.words
    first, second = world.rows(fate)
    assert (first.provider, first.outcome, first.charge, first.cost) == ("unreachable", "timeout", 0, 0)
    assert (second.provider, second.outcome, world.asked(first.hold)) == ("b", "ok", 1)
    assert CONNECT_S <= seconds < DEFAULT_CONNECT_S


def test_who_stalled_is_not_asked_for_the_rest(world: World) -> None:
    """It was silent until the time-out once; nobody else is there, so the caller is told, and pays nothing."""
    world.simulator.reset()
    fate, seconds = world.ask("f/stalls", stream=True)
    assert fate.status == 200 and not fate.complete and b"[DONE]" not in fate.body
    assert events(fate)[-1]["error"]["code"] == "upstream_truncated" and world.words.startswith(text_of(fate))
    (row,) = world.rows(fate)
    assert (row.outcome, row.charge, row.loss) == ("timeout", 0, 0)
    assert world.asked(row.hold) == 1
    assert SILENT_S <= seconds < SILENT_S + SOON_S


# --- stories of several calls: what the first ones met is remembered ---------------------------------------------------------

CALLS = 12


@pytest.fixture
def flapping(tmp_path: Path) -> Iterator[World]:
    """With health on: a provider that flaps before a steady, dearer one."""
    with SimulatorProcess(bill_path=tmp_path / "bill.jsonl") as simulator:
        text = "[attempts]\nbackoff_ms = 10\nbackoff_max_ms = 20\nretries_per_s = 1000\n[health]\nejection_s = 1\n"
        text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
        text += provider("a", simulator.base_url) + provider("b", simulator.base_url)
        text += model("f/flaps", offer("a", GOOD, input="0.50", output="2.00"), offer("b", f"{GOOD}+prompt=9"))
        with Farebox(tmp_path / "box", config=text, billing='markup_percent = "5.5"') as box:
            world = World(box, simulator)
            world.words = text_of(world.ask("f/flaps", stream=False)[0])
            yield world
            box.wait_posted()
            box.check_books()


def used(world: World, name: str) -> dict[str, int]:
    """How often the provider saw each key."""
    seen = [one["credential"] for one in world.simulator.requests()]
    return {key: seen.count(credential_hash(f"{name}-{key}")) for key in WEIGHTS}


def ask_all(world: World, slug: str, price_of: dict[str, tuple[str, str]]) -> list[str]:
    """So many calls, every one of them answered in full, at once, and billed to the nano-dollar; who answered each."""
    answered: list[str] = []
    for number in range(CALLS):
        fate, seconds = world.ask(slug, stream=number % 2 == 0)
        assert fate.complete and text_of(fate) == world.words and seconds < SOON_S
        *failed, last = world.rows(fate)
        input, output = price_of[last.provider]
        truth = read_bill(world.simulator.bill_path or Path())[last.name].usage
        assert last.charge == price(truth, rates(input=input, output=output), MARKUP_BP) == told_nano(fate)
        assert [(row.charge, row.loss) for row in failed] == [(0, 0)] * len(failed)
        answered.append(last.provider)
    return answered


def test_three_keys_are_used_by_their_weights(world: World) -> None:
    world.simulator.reset()
    ask_all(world, "f/keys", {"keys": ("0.50", "2.00")})
    assert used(world, "keys") == {"one": 2, "two": 4, "three": 6}


@pytest.mark.parametrize(("name", "refusal"), [("keys-402", "status=402"), ("keys-empty", "empty-account")])
def test_one_dead_key_of_three_costs_one_attempt(world: World, name: str, refusal: str) -> None:
    world.simulator.reset()
    world.simulator.fault(refusal, credential=f"{name}-three")
    ask_all(world, f"f/{name}", {name: ("0.50", "2.00")})
    assert used(world, name) == {"one": 4, "two": 8, "three": 1}


def test_a_flapping_provider_is_used_while_it_is_well_and_never_noticed(flapping: World) -> None:
    prices = {"a": ("0.50", "2.00"), "b": ("2.50", "10.00")}
    for _ in range(2):
        flapping.simulator.reset()
        flapping.simulator.fault("status=503", model=GOOD)
        assert set(ask_all(flapping, "f/flaps", prices)) == {"b"}
        assert len(flapping.simulator.requests()) <= CALLS + 5 + 1, "five in a row, and perhaps a probe"
        flapping.simulator.reset()
        wait_until(lambda: flapping.ask("f/flaps", stream=False)[0].header("x-farebox-provider") == "a", "it is tried again")
        assert set(ask_all(flapping, "f/flaps", prices)) == {"a"}
