"""Markup plans through a running gateway: the account's own plan, a step by volume, and that no plan is no price."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

PLANS = """
[markup.reseller]
percent = "50"
per_call = "0.0001"
volume = [{ above = "1", percent = "10" }]

[markup.gone]
percent = "1"
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with SimulatorProcess() as simulator:
        small, large = offer("lab", "sim+tokens=20+prompt=100"), offer("lab", "sim+tokens=20+prompt=100", output="100000")
        config = provider("lab", f"{simulator.origin}/v1") + model("l/m", small) + model("l/large", large) + PLANS
        with Farebox(tmp_path_factory.mktemp("markup") / "box", config=config, billing='markup_percent = "10"') as running:
            yield running


def cost(box: Farebox, key: str, slug: str = "l/m") -> str:
    reply = box.post("/v1/chat/completions", {"model": slug, "messages": [{"role": "user", "content": "hi"}]}, key=key)
    assert reply.status == 200, reply.body
    return reply.json()["usage"]["cost_usd"]


def test_an_account_pays_by_its_own_plan_and_its_volume(box: Farebox) -> None:
    made = box.customer("shop", credit_nano=10**12)
    usage = box.post("/v1/chat/completions", {"model": "l/m", "messages": [{"role": "user", "content": "hi"}]}, key=made.secret)
    counts = usage.json()["usage"]
    listed = counts["prompt_tokens"] * 2_500 + counts["completion_tokens"] * 10_000

    def usd(nano: int) -> str:
        return f"0.{nano:09d}".rstrip("0")

    assert counts["cost_usd"] == usd(listed * 11 // 10)
    assert box.cli("accounts", "markup", "shop", "reseller")["markup"] == "reseller"
    wait_until(lambda: cost(box, made.secret) == usd(listed * 3 // 2 + 100_000), "the plan holds", timeout_s=5)
    # However many small calls were needed to see the plan, they stay far below its step: only this one passes it.
    assert cost(box, made.secret, "l/large") == "3.000475"
    wait_until(lambda: cost(box, made.secret) == usd(listed * 11 // 10 + 100_000), "the step is passed", timeout_s=5)
    generation: Any = wait_until(
        lambda: box.get(f"/v1/generation?id={usage.json()['id']}", key=made.secret).json().get("data"), "it is posted"
    )
    assert generation["upstream_inference_cost"] * 1e9 == pytest.approx(listed)
    box.check_books()


def test_a_plan_that_is_not_configured_is_no_price(box: Farebox) -> None:
    refused = box.cli("accounts", "markup", "default", "nowhere", check=False)
    assert "plans: gone, reseller" in refused["error"]
    assert "one of them" in box.cli("accounts", "markup", "default", check=False)["error"]
    made = box.customer("left", credit_nano=10**9)
    box.cli("accounts", "markup", "left", "gone")
    box.kill()
    box.config_path.write_text(box.config_path.read_text().replace('[markup.gone]\npercent = "1"', ""))
    box.start()
    ask = {"model": "l/m", "messages": [{"role": "user", "content": "hi"}]}
    reply = box.post("/v1/chat/completions", ask, key=made.secret)
    assert reply.status == 503 and "`gone`, which is not configured" in reply.json()["error"]["message"]
    assert "--usual" in box.cli("accounts", "markup", "left", check=False)["error"]
    box.cli("accounts", "markup", "left", "--usual")
    wait_until(lambda: box.post("/v1/chat/completions", ask, key=made.secret).status == 200, "the usual plan", timeout_s=5)
    box.check_books()
