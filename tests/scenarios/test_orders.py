"""Price, latency and throughput orders, against providers that really are cheap, prompt or quick."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess

CALLS = 12
SHARE_MIN = 10
"""Of twelve: now and then one goes to an offer that was not measured yet, or has not been for a while."""


def configuration(base: str) -> str:
    text = "".join(provider(name, base) for name in ("cheap", "prompt", "quick"))
    return text + model(
        "o/m",
        offer("cheap", "sim+tokens=40+delay-first=120ms+delay-chunk=4ms", input="0.10", output="0.10"),
        offer("prompt", "sim+tokens=40+delay-first=5ms+delay-chunk=8ms", input="2.00", output="2.00"),
        offer("quick", "sim+tokens=40+delay-first=60ms", input="3.00", output="3.00"),
    )


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("orders") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url)) as running:
        for name in ("cheap", "prompt", "quick"):
            streamed(running, 6, {"only": [name]})  # each is measured
        yield running


def streamed(box: Farebox, count: int, preferences: dict[str, Any]) -> Counter[str | None]:
    """Who answers so many streams."""
    found: Counter[str | None] = Counter()
    for n in range(count):
        body = body_for("chat", "o/m", stream=True, text=f"call {n}", max_tokens=60, provider=preferences)
        (fate,) = together(box.port, box.key, [(Fate("chat", "o/m", True), body)])
        assert fate.complete, fate
        found[fate.header("x-farebox-provider")] += 1
    return found


@pytest.mark.parametrize(("sort", "best"), [("price", "cheap"), ("latency", "prompt"), ("throughput", "quick")])
def test_calls_go_where_their_sort_wants_them(box: Farebox, sort: str, best: str) -> None:
    found = streamed(box, CALLS, {"sort": sort})
    assert found[best] >= SHARE_MIN, (sort, found)


def test_a_suffix_is_a_sort(box: Farebox) -> None:
    for suffix, best in (("floor", "cheap"), ("nitro", "quick")):
        body = {"model": f"o/m:{suffix}", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 60}
        found = Counter(box.post("/v1/chat/completions", body).headers["x-farebox-provider"] for _ in range(CALLS))
        assert found[best] >= SHARE_MIN, (suffix, found)


def test_a_preferred_latency_puts_the_slow_ones_last(box: Farebox) -> None:
    found = streamed(box, CALLS, {"sort": "price", "preferred_max_latency": 0.04})
    assert found["prompt"] >= SHARE_MIN, found
