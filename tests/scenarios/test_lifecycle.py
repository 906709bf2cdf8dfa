"""Starting, stopping, and what changes while a server runs: keys, credit, budgets, caps, reports."""

import asyncio
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import reconcile
from tests.support.callers import Fate, body_for, call
from tests.support.reconcile import is_posted, price, read_bill, read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

PRICES = reconcile.rates()
OUTPUT_MAX = 4096


def configuration(origin: str) -> str:
    text = provider("lab", f"{origin}/v1", extra='output_limit_field = "max_tokens"')
    text += provider("ant", f"{origin}/v1", wire="anthropic_messages")
    text += model("l/plain", offer("lab", "sim+tokens=12"), output=OUTPUT_MAX)
    text += model("l/steady", offer("lab", "sim+tokens=80+delay-chunk=20ms"))
    text += model("l/long", offer("lab", "sim+tokens=3000"))
    text += model("l/messages", offer("ant", "sim+tokens=12"), output=OUTPUT_MAX)
    return text


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("lifecycle") / "bill.jsonl") as running:
        yield running


@pytest.fixture(scope="module")
def box(simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    """Two workers, on one database."""
    folder = tmp_path_factory.mktemp("box") / "box"
    with Farebox(folder, config=configuration(simulator.origin), workers=2) as running:
        yield running


def url_of(box: Farebox) -> str:
    return f"sqlite:///{box.folder / 'farebox.db'}"


def nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)


def sent(simulator: SimulatorProcess, generation: str, box: Farebox) -> dict[str, Any]:
    """What the provider was asked for a call."""
    wait_until(lambda: read_books(url_of(box)).call(generation), "the call is posted")
    id = read_books(url_of(box)).call(generation)[-1].words["upstream_request_id"]
    return next(request for request in simulator.requests() if request["id"] == id)


def wait_posted(box: Farebox) -> None:
    wait_until(lambda: is_posted(url_of(box), box.folder / "journal"), "everything is posted")


# --- stopping -----------------------------------------------------------------------------------------------------------


def test_sigterm_drains(simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The stream under way finishes, nobody else is let in, all is posted, status 0, and the next start is clean."""
    folder = tmp_path_factory.mktemp("drain") / "box"
    with Farebox(folder, config=configuration(simulator.origin)) as box:

        async def story() -> tuple[Fate, Fate]:
            streaming = asyncio.create_task(
                call(box.port, box.key, Fate("chat", "l/steady", True), body_for("chat", "l/steady", stream=True, max_tokens=100))
            )
            seen = len(simulator.requests())
            while len(simulator.requests()) == seen:
                await asyncio.sleep(0.02)
            assert box.process is not None
            box.process.send_signal(signal.SIGTERM)
            late = Fate("chat", "l/plain", False)
            async with asyncio.timeout(10):
                while True:
                    late = await call(
                        box.port,
                        box.key,
                        Fate("chat", "l/plain", False),
                        body_for("chat", "l/plain", stream=False, max_tokens=20),
                    )
                    if late.status != 200:
                        break
            return await streaming, late

        fate, late = asyncio.run(story())
        assert late.status in (None, 503), "new calls are refused or the door is closed"
        assert box.stop() == 0, box.log()
        assert fate.complete, "the stream under way was finished"
        books = read_books(url_of(box))
        (row,) = books.call(str(fate.generation))
        truth = read_bill(simulator.bill_path)[row.name]
        assert (row.state, row.outcome, row.basis) == ("settled", "ok", "reported")
        assert row.charge == price(truth.usage, PRICES) and truth.usage["output"] == 80
        assert is_posted(url_of(box), folder / "journal") and books.allotted == 0
        box.check_books()
        box.start()
        assert box.chat("l/plain", max_tokens=20).status == 200
        assert box.stop() == 0
        assert not any(row.state == "recovered" for row in read_books(url_of(box)).rows), "nothing had to be recovered"


# --- keys and credit ----------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_within_a_second(box: Farebox) -> None:
    made = box.customer("revoked", credit_nano=10**9)
    assert box.chat("l/plain", max_tokens=20).status == 200
    ask = {"model": "l/plain", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
    for _ in range(8):
        assert box.post("/v1/chat/completions", ask, key=made.secret).status == 200, "both workers know the key"
    box.cli("keys", "revoke", made.id)
    revoked = time.monotonic()
    wait_until(lambda: box.post("/v1/chat/completions", ask, key=made.secret).status == 401, "the key is refused", timeout_s=5)
    first_s = time.monotonic() - revoked
    # Every worker's clockwork looks twice a second; on a busy machine it comes late, hence not 1.0.
    assert first_s < 2.0, f"refused only after {first_s:.2f} s"
    wait_until(
        lambda: all(box.post("/v1/chat/completions", ask, key=made.secret).status == 401 for _ in range(8)),
        "by every worker",
        timeout_s=3,
    )


def test_a_top_up_takes_effect(box: Farebox) -> None:
    made = box.customer("topped-up")
    ask = {"model": "l/plain", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
    refused = box.post("/v1/chat/completions", ask, key=made.secret)
    assert refused.status == 402 and refused.json()["error"]["code"] == "insufficient_quota"
    box.cli("topup", "topped-up", "1.00")
    wait_until(lambda: box.post("/v1/chat/completions", ask, key=made.secret).status == 200, "the credit is there", timeout_s=3)
    credits = box.get("/v1/credits", key=made.secret).json()["data"]
    assert credits["total_credits_usd"] == "1.00"


def test_workers_share_a_budget(box: Farebox) -> None:
    """Call after call over both workers until it is used up: never above it."""
    one = price({"input": 8, "output": 12}, PRICES)
    made = box.customer("sharing", credit_nano=10**9, budget_nano=40 * one)
    ask = {"model": "l/plain", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}
    costs = []
    for _ in range(60):
        reply = box.post("/v1/chat/completions", ask, key=made.secret)
        if reply.status != 200:
            assert (reply.status, reply.json()["error"]["code"]) == (402, "budget_exceeded")
            break
        costs.append(nano(reply.headers["x-farebox-cost-usd"]))
    else:
        raise AssertionError("the budget never ended")
    assert costs and sum(costs) <= 40 * one
    wait_posted(box)
    limit, posted, allotted = next(
        scope for id, scope in read_books(url_of(box)).scopes.items() if id.startswith(f"key:{made.id}")
    )
    assert (limit, posted) == (40 * one, sum(costs)) and posted + allotted <= limit


def test_a_budget_for_each_day(box: Farebox) -> None:
    made = box.customer("daily", credit_nano=10**9, budget_nano=10**8, window="day")
    ask = {"model": "l/plain", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
    spent = nano(box.post("/v1/chat/completions", ask, key=made.secret).headers["x-farebox-cost-usd"])
    wait_posted(box)
    (name,) = [id for id in read_books(url_of(box)).scopes if id.startswith(f"key:{made.id}")]
    assert name == f"key:{made.id}:{time.strftime('%Y-%m-%d', time.gmtime())}"
    shown = box.get("/v1/key", key=made.secret).json()["data"]
    assert (shown["limit"], shown["limit_reset"]) == (0.1, "daily")
    assert round(shown["usage_daily"] * 10**9) == round(shown["usage"] * 10**9) == spent


# --- caps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["chat", "messages"])
def test_without_a_cap_the_held_one_is_written_upstream(box: Farebox, simulator: SimulatorProcess, surface: str) -> None:
    """What is held is what the provider is told."""
    if surface == "messages":
        body = {"model": "l/messages", "messages": [{"role": "user", "content": "hi"}]}
        reply = box.post("/v1/messages", body)
        assert reply.status == 400, "the Messages API wants a cap from its caller"
        reply = box.post("/v1/chat/completions", body)
    else:
        reply = box.chat("l/plain")
    assert reply.status == 200
    request = sent(simulator, reply.headers["x-generation-id"], box)
    assert cap_of(request) == OUTPUT_MAX


def cap_of(request: dict[str, Any]) -> int | None:
    body = request["body"]
    if isinstance(body, str):
        import json

        body = json.loads(body)
    return body.get("max_tokens") or body.get("max_completion_tokens")


@pytest.mark.parametrize("how", ["field", "header"])
def test_a_call_may_be_cut_to_what_the_balance_covers(box: Farebox, simulator: SimulatorProcess, how: str) -> None:
    """Without the option it is a 402; with it the cap is lowered, the provider sees the lower one, and it is enough."""
    made = box.customer(f"short-{how}", credit_nano=12_000_000)
    ask = {"model": "l/long", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3000}
    refused = box.post("/v1/chat/completions", ask, key=made.secret)
    assert refused.status == 402
    fits = refused.json()["error"]["farebox"]["affordable_output_tokens"]
    assert 0 < fits < 3000 and f"`max_tokens` up to {fits}" in refused.json()["error"]["message"]
    if how == "field":
        reply = box.post("/v1/chat/completions", {**ask, "max_output_to_balance": True}, key=made.secret)
    else:
        reply = box.post("/v1/chat/completions", ask, key=made.secret, headers={"x-farebox-max-output-to-balance": "true"})
    assert reply.status == 200
    told = reply.json()
    assert told["choices"][0]["finish_reason"] == "length"
    cap = told["usage"]["completion_tokens"]
    # The option is itself a few bytes of the request that is bounded.
    assert fits - 30 <= cap <= fits
    request = sent(simulator, reply.headers["x-generation-id"], box)
    assert cap_of(request) == cap
    assert "max_output_to_balance" not in str(request["body"])
    assert nano(told["usage"]["cost_usd"]) <= 12_000_000


# --- reports ------------------------------------------------------------------------------------------------------------


def test_a_generation_can_be_looked_up_within_a_second(box: Farebox) -> None:
    reply = box.chat("l/plain", max_tokens=20)
    id = reply.headers["x-generation-id"]
    asked = time.monotonic()
    found = wait_until(
        lambda: (page := box.get(f"/v1/generation?id={id}")).status == 200 and page.json()["data"], "it can be looked up"
    )
    assert time.monotonic() - asked < 2.0, "a second, and another for a busy machine"
    assert (found["id"], found["model"], found["provider_name"], found["state"]) == (id, "l/plain", "lab", "settled")
    assert found["total_cost_usd"] == reply.headers["x-farebox-cost-usd"]
    assert (found["tokens_completion"], found["streamed"], found["cancelled"]) == (12, False, False)
    stranger = box.customer("stranger")
    assert box.get(f"/v1/generation?id={id}", key=stranger.secret).status == 404, "other accounts do not see it"


def test_key_and_credits_agree_with_the_ledger(box: Farebox) -> None:
    made = box.customer("reported", credit_nano=2 * 10**9, budget_nano=10**9)
    total = 0
    for text in ("one", "two", "three"):
        body = {"model": "l/plain", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
        total += nano(box.post("/v1/chat/completions", body, key=made.secret).headers["x-farebox-cost-usd"])
    wait_posted(box)
    key = box.get("/v1/key", key=made.secret).json()["data"]
    credits = box.get("/v1/credits", key=made.secret).json()["data"]
    assert round(key["usage"] * 10**9) == total
    assert (nano(credits["total_credits_usd"]), nano(credits["total_usage_usd"])) == (2 * 10**9, total)
    assert round(key["limit_remaining"] * 10**9) <= 10**9 - total


def test_usage_reports_agree_with_the_ledger(box: Farebox) -> None:
    """The last test of this server: stopped, so that nothing moves."""
    assert box.stop() == 0, box.log()
    books = read_books(url_of(box))
    for group in ("model", "key", "provider"):
        report = box.cli("usage", "--by", group)
        assert nano(report["total"]["charge"]) == books.charged == sum(nano(row["charge"]) for row in report["rows"])
        assert nano(report["total"]["cost"]) == books.costs
        assert report["total"]["calls"] == sum(row.final for row in books.rows)
    assert books.allotted == 0 and books.moved("provider_cost") == books.costs
    box.check_books()
