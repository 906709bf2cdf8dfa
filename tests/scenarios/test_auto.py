"""`model: "auto"` over real sockets: easy calls to the cheap model, hard ones to the strong one, on both surfaces."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess

EASY = "What time does your shop open?"
HARD = (
    "Prove that every bounded monotone sequence of real numbers converges, derive an explicit rate for a contraction, and give a "
    "counterexample when completeness is dropped. Then compare both proofs, argue which assumptions are necessary, and analyse "
    "how the argument changes for a concurrent distributed computation of the limit under partial failures."
)


def configuration(base: str) -> str:
    text = provider("lab", base)
    for slug, price in (("x/small", "0.10"), ("x/middle", "1.00"), ("x/large", "10.00")):
        small = slug == "x/small"
        made = offer("lab", f"sim+tokens={5 if small else 6}", input=price, output=price)
        text += model(slug, made, output=300 if small else 4096)
    text += '[policies.like]\ndecision = "examples"\n[policies.like.branches]\n'
    text += 'easy = ["x/small"]\nmedium = ["x/middle"]\nhard = ["x/large"]\n'
    text += '[policies.like.examples]\neasy = ["Where is my parcel?", "Hello"]\nhard = ["I was charged twice"]\n'
    text += '[policies.support]\ndecision = "complexity"\n[policies.support.branches]\n'
    return text + 'easy = ["x/middle"]\nmedium = ["x/middle"]\nhard = ["x/large"]\n'


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("auto") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url)) as running:
        yield running
        running.wait_posted()
        running.check_books()


def asked(text: str, name: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": 200, **more}


@pytest.mark.parametrize(("path", "surface"), [("/v1/chat/completions", "chat"), ("/v1/messages", "messages")])
def test_what_is_easy_goes_to_the_cheap_one_and_what_is_hard_to_the_strong_one(box: Farebox, path: str, surface: str) -> None:
    easy, hard = box.post(path, asked(EASY)), box.post(path, asked(HARD))
    assert (easy.status, hard.status) == (200, 200), (easy.body, hard.body)
    assert easy.headers["x-farebox-model"] == "x/small" and hard.headers["x-farebox-model"] == "x/large"
    for text, wanted in ((EASY, "x/small"), (HARD, "x/large")):
        body = body_for(surface, "auto", stream=True, text=text, max_tokens=200)
        (fate,) = together(box.port, box.key, [(Fate(surface, "auto", True), body)])
        assert fate.complete and fate.header("x-farebox-model") == wanted


def test_the_plan_says_how_hard_it_is_and_why(box: Farebox) -> None:
    told = box.post("/v1/route/explain", asked(HARD)).json()
    assert told["complexity"]["tier"] == "hard" and told["policy"].endswith("auto, hard")
    assert {"proof", "maths"} & {one["feature"] for one in told["complexity"]["reasons"]}
    assert box.post("/v1/route/explain", asked(EASY, "x/small")).json()["complexity"] is None
    assert box.cli("route", "explain", "auto")["complexity"]["tier"] == "easy"


def test_openrouters_name_and_suffixes_mean_the_same(box: Farebox) -> None:
    for name in ("openrouter/auto", "auto:floor", "openrouter/auto:nitro", "policy/auto:floor"):
        reply = box.post("/v1/chat/completions", asked(HARD, name))
        assert reply.status == 200 and reply.headers["x-farebox-model"] == "x/large", reply.body
        told = box.post("/v1/route/explain", asked(HARD, name)).json()
        assert told["policy"].endswith("auto, hard") and told["complexity"]["tier"] == "hard" and told["model"] == name
        assert box.cli("route", "explain", name)["complexity"]["tier"] == "easy"
    refused = box.post("/v1/chat/completions", asked(HARD, "auto:online"))
    assert refused.status == 404 and "`auto:floor`" in refused.json()["error"]["message"]


def test_a_policy_of_ones_own_decides_by_it_too(box: Farebox) -> None:
    assert box.post("/v1/chat/completions", asked(EASY, "policy/support")).headers["x-farebox-model"] == "x/middle"
    assert box.post("/v1/chat/completions", asked(HARD, "policy/support")).headers["x-farebox-model"] == "x/large"


def test_needs_come_before_the_price(box: Farebox) -> None:
    """The cheap model has no room for so many tokens of output: `auto` goes on with the next that has."""
    reply = box.post("/v1/chat/completions", asked(EASY, max_tokens=301))
    assert reply.status == 200 and reply.headers["x-farebox-model"] == "x/middle"
    refused = box.post("/v1/chat/completions", asked(EASY, max_tokens=4097))
    assert refused.status == 400 and refused.json()["error"]["code"] == "no_eligible_offer"


def test_examples_sort_where_the_words_do_not_tell(box: Farebox) -> None:
    """Nothing in this sentence is in the classifier's lexicon; its meaning is near one of the examples."""
    text = "You took the money from my card two times!"
    for path in ("/v1/chat/completions", "/v1/messages"):
        reply = box.post(path, asked(text, "policy/like"))
        assert reply.status == 200 and reply.headers["x-farebox-model"] == "x/large"
        assert box.post(path, asked("where's my package", "policy/like")).headers["x-farebox-model"] == "x/small"
    told = box.post("/v1/route/explain", asked(text, "policy/like")).json()["complexity"]
    assert told["tier"] == "hard" and told["reasons"][0]["feature"] == "example"
    assert told["reasons"][0]["words"] == ["I was charged twice"]
    asked_file = box.folder / "asked.json"
    asked_file.write_text(json.dumps(asked(text, "policy/like")))
    assert box.cli("route", "explain", "--file", str(asked_file))["complexity"] == told
