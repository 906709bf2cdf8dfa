"""Attempts over real sockets: who is asked, how often, how long it takes, what it costs. A story per rule."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.reconcile import Row, read_books
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

FIRST_TOKEN_S = 0.6
CHEAP = {"input": "0.10", "output": "0.10"}
MODELS = {
    # model → offers in the order of their prices: provider, what it does
    "a/one-500": (("flaky", "sim+tokens=5+status=500+times=1"),),
    "a/lasting-503": (("flaky", "sim+status=503"),),
    "a/slow-first": (("slow", "sim+tokens=5+delay-first=30s"), ("lab", "sim+tokens=5")),
    "a/silent": (("slow", "sim+tokens=5+delay-headers=30s"), ("lab", "sim+tokens=5")),
    "a/all-silent": (("slow", "sim+tokens=5+delay-headers=30s"),),
    "a/silent-then-deaf": (("slow", "sim+tokens=5+delay-headers=30s"), ("claude", "sim+tokens=5")),
    "a/deaf-between": (("flaky", "sim+status=500"), ("claude", "sim+tokens=5"), ("lab", "sim+tokens=5")),
    "a/deaf-first": (("claude", "sim+tokens=5"), ("claude", "sim+tokens=6"), ("claude", "sim+tokens=7"), ("lab", "sim+tokens=5")),
    "a/too-long": (("flaky", "sim+context-length"), ("lab", "sim+context-length+tokens=9")),
    "a/large": (("large", "sim+tokens=5"),),
    "a/limited": (("flaky", "sim+tokens=5+status=429+retry-after-ms=300+times=1"),),
    "a/limited-plain": (("flaky", "sim+tokens=5+status=429+retry-after-ms=700+times=1"),),
    "a/limited-stream": (("flaky", "sim+tokens=6+status=429+retry-after-ms=700+times=1"),),
    "a/limited-elsewhere": (("flaky", "sim+status=429+retry-after=15"), ("lab", "sim+tokens=5")),
    "a/limited-past-the-deadline": (("flaky", "sim+status=429+retry-after=15"),),
    "brief/thinks": (("patient", "sim+tokens=5+delay-headers=30s"), ("lab", "sim+tokens=5")),
    "hasty/thinks": (("patient", "sim+tokens=5+delay-first=30s"), ("lab", "sim+tokens=5")),
    "a/says-nothing": (("flaky", "sim+tokens=0+malformed-event=2"), ("lab", "sim+tokens=5")),
    "a/fine": (("flaky", "sim+tokens=5"), ("lab", "sim+tokens=6")),
}
PRICES = (
    CHEAP, {"input": "1.00", "output": "2.00"}, {"input": "2.50", "output": "10.00"}, {"input": "3.00", "output": "12.00"}
)  # fmt: skip


def configuration(origin: str) -> str:
    base = f"{origin}/v1"
    text = "".join(provider(name, base) for name in ("flaky", "lab", "large"))
    text += provider("claude", origin, wire="anthropic_messages")
    text += provider("patient", base, extra="first_token_s = 60.0\nheaders_s = 60.0")
    text += provider("slow", base, extra=f"first_token_s = {FIRST_TOKEN_S}\nheaders_s = {FIRST_TOKEN_S}")
    text += "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"
    text += "[attempts]\nbackoff_ms = 20\nbackoff_max_ms = 50\n"
    text += f'[[attempts.models]]\nmodels = ["nobody/*", "hasty/*"]\nfirst_token_s = {FIRST_TOKEN_S}\n'
    text += f"headers_s = {FIRST_TOKEN_S}\n"
    text += f'[[attempts.models]]\nmodels = ["brief/*"]\ntotal_s = {FIRST_TOKEN_S}\n'
    text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    text += '[policies.stubborn]\nmodels = ["a/lasting-503"]\nattempts_max = 2\n'
    for slug, offers in MODELS.items():
        made = [offer(name, id, **price) for (name, id), price in zip(offers, PRICES, strict=False)]
        text += model(slug, *made, context=64_000 if slug == "a/large" else 8_000)
    return text


class World:
    def __init__(self, box: Farebox, simulator: SimulatorProcess) -> None:
        self.box = box
        self.simulator = simulator

    def ask(self, slug: str, headers: Mapping[str, str] | None = None, **fields: Any) -> tuple[Reply, float]:
        """The answer, and the seconds that it took."""
        self.simulator.reset()
        began = time.monotonic()
        body = {"model": slug, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, **fields}
        reply = self.box.post("/v1/chat/completions", body, headers=headers or {})
        return reply, time.monotonic() - began

    def stream(self, slug: str) -> tuple[Fate, float]:
        self.simulator.reset()
        began = time.monotonic()
        body = body_for("chat", slug, stream=True, max_tokens=20)
        (fate,) = together(self.box.port, self.box.key, [(Fate("chat", slug, True), body)])
        return fate, time.monotonic() - began

    @property
    def asked(self) -> int:
        """How many requests the provider has seen since the last call began."""
        return len(self.simulator.requests())

    def rows(self, generation: str | None) -> list[Row]:
        """The call's attempts in the books."""
        url = f"sqlite:///{self.box.folder / 'farebox.db'}"
        wait_until(lambda: any(row.hold == generation for row in read_books(url).rows), "the call is posted")
        return sorted((row for row in read_books(url).rows if row.hold == generation), key=lambda row: row.attempt)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("attempts") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.origin)) as box:
        yield World(box, simulator)
        box.wait_posted()
        box.check_books()


def billed(world: World, generation: str | None) -> list[tuple[str, str, bool]]:
    return [(row.provider, row.outcome, row.charge > 0) for row in world.rows(generation)]


def test_one_500_is_tried_again(world: World) -> None:
    reply, seconds = world.ask("a/one-500")
    assert (reply.status, world.asked) == (200, 2) and seconds < 2
    assert billed(world, reply.headers["x-generation-id"]) == [("flaky", "http_error", False), ("flaky", "ok", True)]


def test_a_lasting_503_is_asked_three_times_and_then_told(world: World) -> None:
    reply, seconds = world.ask("a/lasting-503")
    assert (reply.status, world.asked) == (503, 3) and seconds < 2
    error = reply.json()["error"]
    assert [one["status"] for one in error["farebox"]["attempts"]] == [503] * 3
    assert reply.headers["x-should-retry"] == "false"


def test_a_stream_whose_first_token_does_not_come_goes_elsewhere(world: World) -> None:
    fate, seconds = world.stream("a/slow-first")
    assert fate.complete and world.asked == 2
    assert FIRST_TOKEN_S <= seconds < FIRST_TOKEN_S + 2
    assert [(name, outcome) for name, outcome, _ in billed(world, fate.generation)] == [("slow", "timeout"), ("lab", "ok")]


def test_a_stream_that_ends_before_it_says_anything_goes_elsewhere(world: World) -> None:
    """Its end mark comes, but neither content nor a reason to finish: what could not be read is counted, and is no answer."""
    fate, _ = world.stream("a/says-nothing")
    assert fate.complete and world.asked == 2
    first, second = world.rows(fate.generation)
    assert (first.provider, first.outcome, first.charge, first.flags) == ("flaky", "garbage", 0, ("malformed_events",))
    assert (second.provider, second.outcome) == ("lab", "ok") and second.charge and not second.flags
    seen = 'farebox_malformed_streams_total{provider="flaky"}'
    wait_until(lambda: seen in world.box.get("/metrics", key=None).body.decode(), "it is counted")


def test_a_class_of_models_has_its_own_patience(world: World) -> None:
    """Shorter here than its provider's, which counts for the provider's other models."""
    fate, seconds = world.stream("hasty/thinks")
    assert fate.complete and FIRST_TOKEN_S <= seconds < FIRST_TOKEN_S + 2
    assert [(name, outcome) for name, outcome, _ in billed(world, fate.generation)] == [("patient", "timeout"), ("lab", "ok")]


def test_a_class_of_models_has_its_own_deadline_and_a_caller_another(world: World) -> None:
    reply, seconds = world.ask("brief/thinks")
    assert (reply.status, world.asked) == (504, 1) and FIRST_TOKEN_S <= seconds < FIRST_TOKEN_S + 2
    reply, seconds = world.ask("brief/thinks", {"x-farebox-timeout": "0.2"})
    assert (reply.status, world.asked) == (504, 1) and 0.2 <= seconds < FIRST_TOKEN_S


def test_a_provider_that_says_nothing_is_left_for_another(world: World) -> None:
    reply, seconds = world.ask("a/silent")
    assert (reply.status, world.asked) == (200, 2) and seconds < FIRST_TOKEN_S + 2
    assert billed(world, reply.headers["x-generation-id"]) == [("slow", "timeout", False), ("lab", "ok", True)]


def test_a_silent_provider_is_not_asked_twice(world: World) -> None:
    reply, seconds = world.ask("a/all-silent")
    assert (reply.status, world.asked) == (504, 1) and seconds < FIRST_TOKEN_S + 2
    assert reply.json()["error"]["code"] == "timeout"


def test_whoever_cannot_be_told_the_call_does_not_hide_why_the_others_failed(world: World) -> None:
    """It would be a 400, and the caller's mistake, that is none."""
    reply, _ = world.ask("a/silent-then-deaf", logit_bias={"5": 1})
    assert (reply.status, reply.json()["error"]["code"], world.asked) == (504, "timeout", 1)
    told = reply.json()["error"]["farebox"]
    assert [one["outcome"] for one in told["attempts"]] == ["timeout"]
    assert [(one["provider"], one["rule"]) for one in told["excluded"]] == [("claude", "translation")]
    assert "`logit_bias`" in told["excluded"][0]["reason"]


def test_whoever_cannot_be_told_the_call_takes_none_of_its_attempts(world: World) -> None:
    """Two attempts are asked for, and two providers can be told the call: both are asked, though another stands between."""
    tells = {"x-farebox-metadata": "enabled"}
    reply, _ = world.ask("a/deaf-between", tells, logit_bias={"5": 1}, num_retries=1)
    assert (reply.status, world.asked, reply.headers["x-farebox-attempts"]) == (200, 2, "2"), reply.body
    assert billed(world, reply.headers["x-generation-id"]) == [("flaky", "http_error", False), ("lab", "ok", True)]
    told = reply.json()["farebox"]
    assert [one["provider"] for one in told["plan"]["offers"]] == ["flaky", "lab"]
    assert [(one["provider"], one["rule"]) for one in told["plan"]["excluded"]] == [("claude", "translation")]
    assert "`logit_bias`" in told["plan"]["excluded"][0]["reason"]
    assert [one["provider"] for one in told["attempts"]] == ["flaky", "lab"]
    reply, _ = world.ask("a/deaf-between", num_retries=1)
    assert billed(world, reply.headers["x-generation-id"]) == [("flaky", "http_error", False), ("claude", "ok", True)]


def test_as_many_as_there_are_attempts_may_be_deaf_to_the_call(world: World) -> None:
    reply, _ = world.ask("a/deaf-first", logit_bias={"5": 1})
    assert (reply.status, world.asked) == (200, 1), reply.body
    assert billed(world, reply.headers["x-generation-id"]) == [("lab", "ok", True)]
    body = {"model": "a/deaf-first", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "logit_bias": {"5": 1}}
    file = world.box.folder / "deaf.json"
    file.write_text(json.dumps(body))
    for told in (world.box.post("/v1/route/explain", body).json(), world.box.cli("route", "explain", "--file", str(file))):
        assert [one["provider"] for one in told["offers"]] == ["lab"]
        assert [(one["id"], one["rule"]) for one in told["excluded"]] == [(f"sim+tokens={n}", "translation") for n in (5, 6, 7)]
    reply, _ = world.ask("a/deaf-first", logit_bias={"5": 1}, provider={"only": ["claude"]})
    assert (reply.status, world.asked) == (400, 0)
    assert reply.json()["error"]["code"] == "unsupported_parameter" and "`logit_bias`" in reply.json()["error"]["message"]


def test_too_long_for_one_goes_to_the_larger_window_at_once(world: World) -> None:
    """Not to the second one of the model, whose window is as small."""
    reply, _ = world.ask("a/too-long", models=["a/too-long", "a/fine", "a/large"])
    assert (reply.status, world.asked) == (200, 2)
    assert billed(world, reply.headers["x-generation-id"]) == [("flaky", "http_error", False), ("large", "ok", True)]
    rows = {row["model"]: row for row in world.box.cli("usage", "--by", "model")["rows"]}
    assert rows["a/large"]["charge"] != "0.00", f"it is filed under the model that answered: {rows}"


def test_too_long_for_all_is_told_after_one_try(world: World) -> None:
    reply, _ = world.ask("a/too-long")
    assert (reply.status, world.asked) == (400, 1)
    assert reply.json()["error"]["code"] == "context_length_exceeded"


def test_retry_after_in_milliseconds_is_waited_for(world: World) -> None:
    reply, seconds = world.ask("a/limited")
    assert (reply.status, world.asked) == (200, 2)
    assert 0.3 <= seconds < 2.5


def test_nobody_waits_for_a_limited_one_while_another_is_free(world: World) -> None:
    reply, seconds = world.ask("a/limited-elsewhere")
    assert (reply.status, world.asked) == (200, 2) and seconds < 2


def test_a_wait_that_does_not_fit_the_deadline_is_not_begun(world: World) -> None:
    reply, seconds = world.ask("a/limited-past-the-deadline", {"x-farebox-timeout": "5"})
    assert (reply.status, world.asked) == (429, 1) and seconds < 2
    assert reply.headers["retry-after"] == "15"


def test_the_callers_deadline_is_one_for_all_attempts(world: World) -> None:
    reply, seconds = world.ask("a/silent", {"x-farebox-timeout": "0.3"})
    assert (reply.status, world.asked) == (504, 1), "nothing is left for the second one"
    assert 0.3 <= seconds < 1.5


def test_the_caller_says_how_often_it_wants_to_be_tried_for(world: World) -> None:
    for header in ("x-farebox-max-retries", "x-litellm-num-retries"):
        reply, _ = world.ask("a/lasting-503", {header: "1"})
        assert (reply.status, world.asked) == (503, 2)


def test_the_callers_number_of_tries_is_within_its_policys_and_leaves_each_model_one(world: World) -> None:
    """By header as by body; what another model answers is no retry."""
    for header, field in (({"x-farebox-max-retries": "0"}, {}), ({}, {"num_retries": 0})):
        reply, _ = world.ask("policy/stubborn", header, **field)
        assert (reply.status, world.asked) == (503, 1)
        reply, _ = world.ask("a/lasting-503", header, models=["a/lasting-503", "a/fine"], **field)
        assert (reply.status, world.asked) == (200, 2)
    for header, field in (({"x-farebox-max-retries": "5"}, {}), ({}, {"num_retries": 5})):
        reply, _ = world.ask("policy/stubborn", header, **field)
        assert (reply.status, world.asked) == (503, 2)
        asked = {**body_for("chat", "policy/stubborn", stream=False), **field}
        assert world.box.post("/v1/route/explain", asked, headers=header).json()["attempts_max"] == 2


@pytest.mark.parametrize("kind", ["plain", "stream"])
def test_nobody_is_asked_for_a_caller_who_left_while_the_next_try_was_waited_for(world: World, kind: str) -> None:
    """It was asked, and read to its end, and the caller was charged for an answer that nobody was there for."""
    world.simulator.reset()
    url = f"sqlite:///{world.box.folder / 'farebox.db'}"
    slug = f"a/limited-{kind}"
    ((_, id),) = MODELS[slug]
    body = json.dumps(body_for("chat", slug, stream=kind == "stream", max_tokens=20)).encode()
    with socket.create_connection(("127.0.0.1", world.box.port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer "
            b"%b\r\ncontent-length: %d\r\n\r\n%b" % (world.box.key.encode(), len(body), body)
        )
        wait_until(lambda: world.asked, "the provider was asked")
    mine = wait_until(lambda: [row for row in read_books(url).rows if row.words["upstream_id"] == id], "the call is posted")
    assert [(row.outcome, row.charge) for row in mine] == [("http_error", 0)] and world.asked == 1


def test_the_callers_own_mistake_is_told_in_the_providers_words(world: World) -> None:
    reply, _ = world.ask("a/fine", temperature="hot")
    error = reply.json()["error"]
    assert (reply.status, world.asked, error["code"]) == (400, 1, "invalid_request")
    assert error["farebox"]["provider"] == "flaky" and error["param"] == "temperature"


def test_retries_of_all_calls_are_bounded_by_the_calls(tmp_path: Path) -> None:
    """When everything fails, the gateway does not ask three times as much of it."""
    with SimulatorProcess() as simulator:
        config = configuration(simulator.origin).replace("[attempts]\n", "[attempts]\nretries_percent = 50\nretries_per_s = 0\n")
        with Farebox(tmp_path / "box", config=config) as box:
            for _ in range(8):
                assert box.chat("a/lasting-503", max_tokens=20).status == 503
            assert len(simulator.requests()) == 8 + 4


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-farebox-timeout", "soon"), ("x-farebox-timeout", "0"), ("x-farebox-timeout", "-1"), ("x-farebox-timeout", "1e3"),
        ("x-litellm-timeout", "86401"), ("x-farebox-first-token-timeout", "."), ("x-farebox-chunk-timeout", "1.x"),
        ("x-litellm-stream-timeout", ""), ("x-farebox-max-retries", "6"), ("x-litellm-num-retries", "-1"),
    ],
)  # fmt: skip
def test_a_time_out_that_is_none_is_refused_by_name(world: World, header: str, value: str) -> None:
    reply, _ = world.ask("a/one-500", {header: value})
    assert (reply.status, world.asked) == (400, 0)
    assert reply.json()["error"]["param"] == header
