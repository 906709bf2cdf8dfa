"""Prices that change while a server runs: calls that begin a second later pay them, calls in flight keep theirs."""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with SimulatorProcess() as simulator:
        config = provider("lab", f"{simulator.origin}/v1") + model("l/m", offer("lab", "sim+tokens=20"))
        config += model("l/slow", offer("lab", "sim+tokens=60+delay-chunk=50ms"))
        with Farebox(tmp_path_factory.mktemp("prices") / "box", config=config) as running:
            yield running


def cost(box: Farebox, slug: str = "l/m") -> Decimal:
    usage = box.chat(slug).json()["usage"]
    return Decimal(usage["cost_usd"])


def test_a_price_changes_under_a_running_stream(box: Farebox) -> None:
    before = cost(box)
    streamed: list[Any] = []

    def stream() -> None:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed.append(box.chat("l/slow", **options).events()[-1]["usage"])

    running = threading.Thread(target=stream)
    running.start()
    wait_until(lambda: box.get("/metrics", key=None).body.find(b"farebox_holds_open 1") >= 0 or streamed, "the stream runs")
    for slug in ("l/m", "l/slow"):
        made = box.cli("prices", "set", slug, "--provider", "lab", "--input", "5.00", "--output", "20.00")
        assert made["state"] == "approved" and made["version"].startswith("lab/sim+tokens=")
    wait_until(lambda: cost(box) == 2 * before, "the new price holds", timeout_s=5)
    running.join()
    (usage,) = streamed
    old = usage["prompt_tokens"] * Decimal("0.0000025") + usage["completion_tokens"] * Decimal("0.00001")
    assert Decimal(usage["cost_usd"]) == old, "the price of its hold"
    shown = box.cli("prices", "show", "l/m")["offers"][0]["price"]
    assert (shown["input"], shown["output"], shown["source"]) == ("5.00", "20.00", ["prices set"])
    listed = box.get("/v1/models/l/m").json()["pricing"]
    assert Decimal(listed["prompt"]) == Decimal("0.000005")
    box.check_books()


def test_a_list_is_a_proposal(box: Farebox) -> None:
    file = box.folder / "list.json"
    entry = {"litellm_provider": "lab", "mode": "chat"}
    file.write_text(
        json.dumps(
            {
                "sim+tokens=20": {**entry, "input_cost_per_token": 5.5e-06, "output_cost_per_token": 2.2e-05},
                "sim+tokens=60+delay-chunk=50ms": {**entry, "input_cost_per_token": 0, "output_cost_per_token": 2e-05},
                "unheard-of": {**entry, "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06},
            }
        )
    )
    told = box.cli("prices", "diff", str(file))
    assert len(told["proposals"]) == 2 and told["other_entries"] == 1
    assert box.cli("prices", "diff")["proposals"] == [], "a diff proposes nothing"
    before = cost(box)
    made = {one["model"]: one for one in box.cli("prices", "sync", str(file))["proposals"]}
    assert made["l/m"]["needs_confirmation"] == [] and made["l/m"]["above_our_price"][:2] == ["input", "cache_read"]
    assert "input: becomes free" in made["l/slow"]["needs_confirmation"]
    assert cost(box) == before, "nothing is in force yet"
    refused = box.cli("prices", "approve", made["l/slow"]["id"], check=False)
    assert "becomes free" in refused["error"] and "--yes" in refused["error"]
    done = box.cli("prices", "approve", "--all")
    assert [one["model"] for one in done["approved"]] == ["l/m"] and [one["model"] for one in done["left"]] == ["l/slow"]
    wait_until(lambda: cost(box) == before * 11 / 10, "the approved price holds", timeout_s=5)
    assert box.cli("prices", "reject", made["l/slow"]["id"])["rejected"][0]["state"] == "rejected"
    assert "more than doubles" in box.cli("prices", "set", "l/m", "--provider", "lab", "--input", "50", check=False)["error"]
    assert "its offers: lab" in box.cli("prices", "set", "l/m", "--provider", "nobody", "--input", "5", check=False)["error"]
    assert "decimals" in box.cli("prices", "set", "l/m", "--provider", "lab", "--input", "5.1234567", check=False)["error"]
    box.kill()
    box.start()
    assert cost(box) == before * 11 / 10, "also after a restart"
    box.check_books()
