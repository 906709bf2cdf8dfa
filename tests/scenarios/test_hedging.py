"""Hedged calls over real sockets: who is asked and when, who answers, what becomes of the other one, and the exact bill."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import reconcile
from tests.support.callers import Fate, body_for, call
from tests.support.reconcile import Row, Truth, cost, price, read_bill, read_books
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

MARKUP_BP = 550
FIRST = {"input": "2.50", "output": "10.00"}
SECOND = {"input": "3.00", "output": "15.00"}
PRICES = {"honest": reconcile.rates(**FIRST), "stubborn": reconcile.rates(**FIRST), "lab": reconcile.rates(**SECOND)}
SAMPLES = 3
NAMES = (
    "second", "second-whole", "first", "first-whole", "drained", "drained-whole", "both", "both-fail", "first-fails",
    "second-fails", "leaves", "alone", "unmeasured", "state", "poor", "messages", "cut", "quick", "capped",
)  # fmt: skip


def configuration(origin: str) -> str:
    base = f"{origin}/v1"
    text = provider("honest", base, extra="abort_stops_billing = true")
    text += provider("stubborn", base, extra="abort_stops_billing = false")
    text += provider("lab", base, extra="abort_stops_billing = true")
    text += "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n[attempts]\nbackoff_ms = 5\nbackoff_max_ms = 10\n"
    text += 'headers_s = 20.0\nfirst_token_s = 20.0\n[hedging]\nwaste_per_day = "100"\n'
    for name in NAMES:
        first = "stubborn" if name.startswith("drained") else "honest"
        offers = [offer(first, f"sim-{name}-1+tokens=9", **FIRST), offer("lab", f"sim-{name}-2+tokens=7", **SECOND)]
        text += model(f"h/{name}", *offers[: 1 if name == "alone" else 2])
    text += provider("deaf", origin, wire="anthropic_messages")
    offers = [offer("honest", "sim-heard-1+tokens=9", **FIRST), offer("deaf", "sim-heard-3+tokens=5", **SECOND)]
    text += model("h/heard", *offers, offer("lab", "sim-heard-2+tokens=7", **SECOND))
    text += model("h/unheard", offer("honest", "sim-unheard-1+tokens=9", **FIRST), offer("deaf", "sim-unheard-2", **SECOND))
    order = 'order = ["honest", "stubborn", "deaf", "lab"]\n'
    samples = f"samples_min = {SAMPLES}\ndelay_min_ms = 30\n"
    text += f'[routing]\npolicy = "hedged"\n[policies.hedged]\n{order}[policies.hedged.hedge]\n{samples}'
    text += f'[policies.both]\nmodels = ["h/both"]\n{order}[policies.both.hedge]\n{samples}charge = "both"\n'
    return text


class World:
    def __init__(self, box: Farebox, simulator: SimulatorProcess) -> None:
        self.box = box
        self.simulator = simulator
        self.url = f"sqlite:///{box.folder / 'farebox.db'}"

    def ask(self, name: str, *, stream: bool = True, key: str = "", **fields: Any) -> Reply:
        made = fields.pop("model", f"h/{name}")
        body = {"model": made, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": stream}
        body |= {"stream_options": {"include_usage": True}, **fields} if stream else fields
        return self.box.post("/v1/chat/completions", body, key=key, headers={"x-farebox-metadata": "enabled"})

    def warm(self, name: str, *, stream: bool = True, **fields: Any) -> None:
        """Let the first provider show how quick it is."""
        for _ in range(SAMPLES):
            reply = self.ask(name, stream=stream, **fields)
            assert reply.status == 200 and "x-farebox-hedge" not in reply.headers
        body = {"model": fields.get("model", f"h/{name}"), "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        # Measurements are looked at once a second.
        wait_until(lambda: not self.box.post("/v1/route/explain", body).json()["hedge"]["why_not"], "enough is measured")

    def order(self, name: str, *, first: str = "", second: str = "") -> None:
        """What goes wrong from now on."""
        for number, text in ((1, first), (2, second)):
            if text:
                self.simulator.fault(text, model=f"sim-{name}-{number}")

    def pair(self, generation: str) -> tuple[Row, Row]:
        """The rows of both holds of a hedged call, the first provider's first."""
        assert not generation.endswith("-hedge"), "the caller's id is the call's"
        base = generation

        def posted() -> tuple[Row, Row] | None:
            by_hold = {row.hold: row for row in read_books(self.url).rows}
            found = by_hold.get(base), by_hold.get(f"{base}-hedge")
            return (found[0], found[1]) if found[0] is not None and found[1] is not None else None

        return wait_until(posted, f"both holds of {base} are posted")

    def truth(self, row: Row) -> Truth:
        """What the provider's own book says, once it has finished."""

        def finished() -> Truth | None:
            assert self.simulator.bill_path is not None
            found = read_bill(self.simulator.bill_path).get(row.name)
            return found if found is not None and found.reason != "unfinished" else None

        return wait_until(finished, f"the provider has finished {row.name}")

    def hedges(self) -> dict[str, int]:
        """`/metrics` of hedges by event."""
        text = self.box.get("/metrics", key=None).body.decode()
        return {event: int(float(n)) for event, n in re.findall(r'farebox_hedges_total\{event="(\w+)"\} (\S+)', text)}

    def paid(self, row: Row) -> None:
        """The customer pays exactly what the provider counted, and so do we."""
        usage = self.truth(row).usage
        assert (row.cost, row.charge) == (cost(usage, PRICES[row.provider]), price(usage, PRICES[row.provider], MARKUP_BP))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hedging")
    billing = 'markup_percent = "5.5"\ndrain_s = 8.0'
    with (
        SimulatorProcess(bill_path=folder / "bill.jsonl") as simulator,
        Farebox(folder / "box", config=configuration(simulator.origin), billing=billing) as box,
    ):
        yield World(box, simulator)
        box.wait_posted()
        box.check_books()


def text_of(reply: Reply) -> str:
    choices = [choice for event in reply.events() for choice in event.get("choices") or ()]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)


def metadata(reply: Reply) -> Any:
    import json

    if reply.headers["content-type"] == "application/json":
        return reply.json()["farebox"]
    line = next(line for line in reply.body.decode().splitlines() if line.startswith(": farebox "))
    return json.loads(line.removeprefix(": farebox "))


@pytest.mark.parametrize("stream", [True, False])
def test_the_second_answers_where_the_first_is_late(world: World, stream: bool) -> None:
    name = "second" if stream else "second-whole"
    world.warm(name, stream=stream)
    before = world.hedges()
    world.order(name, first="delay-first=15s")
    reply = world.ask(name, stream=stream)
    assert reply.status == 200 and reply.headers["x-farebox-provider"] == "lab"
    assert reply.headers["x-farebox-hedge"] == "second" and reply.headers["x-farebox-attempts"] == "2"
    generation = reply.headers["x-generation-id"]
    first, second = world.pair(generation)
    assert first.hold == generation and (second.outcome, second.state, second.basis) == ("ok", "settled", "reported")
    world.paid(second)
    assert first.charge == 0 and first.outcome == "outrun" and world.truth(first).reason == "client_gone"
    told = reply.events()[-1]["usage"] if stream else reply.json()["usage"]
    assert nano(told["cost_usd"]) == second.charge and told["completion_tokens"] == 7
    if stream:
        assert len(text_of(reply).split()) == 7
    hedge = metadata(reply)["hedge"]
    assert hedge["answered"] == "second" and hedge["generations"] == [first.hold, second.hold]
    assert hedge["provider"] == "lab" and hedge["after_ms"] >= 30
    if stream:
        assert all(event["id"] == generation for event in reply.events() if event.get("choices"))
    else:
        assert reply.json()["id"] == generation
    shown = world.box.get(f"/v1/generation?id={generation}").json()["data"]
    assert (shown["id"], shown["provider_name"], shown["tokens_completion"], shown["state"]) == (generation, "lab", 7, "settled")
    assert nano(shown["total_cost_usd"]) == second.charge
    tried = {one["record"]: (one["provider_name"], one["outcome"]) for one in shown["provider_responses"]}
    assert tried == {first.hold: ("honest", "outrun"), second.hold: ("lab", "ok")}
    alone = world.box.get(f"/v1/generation?id={first.hold}-hedge").json()["data"]
    assert (alone["id"], alone["provider_name"], len(alone["provider_responses"])) == (second.hold, "lab", 1)
    after = wait_until(
        lambda: (found := world.hedges()).get("won", 0) > before.get("won", 0) and found, "the metrics tell of it"
    )
    assert after["started"] == before.get("started", 0) + 1 and after.get("wasted", 0) == before.get("wasted", 0)


def test_a_second_that_cannot_be_told_the_call_is_passed_over(world: World) -> None:
    told = {"logit_bias": {"5": 1}}
    for name in ("heard", "unheard"):
        world.warm(name, **told)
    world.order("heard", first="delay-first=15s")
    reply = world.ask("heard", **told)
    assert reply.headers["x-farebox-provider"] == "lab" and reply.headers["x-farebox-hedge"] == "second"
    seen = metadata(reply)
    assert [one["provider"] for one in seen["plan"]["offers"]] == ["lab", "honest"] and seen["hedge"]["provider"] == "lab"
    assert [(one["provider"], one["rule"]) for one in seen["plan"]["excluded"]] == [("deaf", "translation")]
    first, second = world.pair(reply.headers["x-generation-id"])
    assert first.charge == 0 and (second.provider, second.outcome) == ("lab", "ok")
    before = world.hedges()
    world.order("unheard", first="delay-first=1200ms")
    reply = world.ask("unheard", **told)
    assert reply.headers["x-farebox-provider"] == "honest" and "x-farebox-hedge" not in reply.headers
    assert world.hedges()["no_second_offer"] == before.get("no_second_offer", 0) + 1
    assert metadata(reply)["plan"]["hedge"]["why_not"] == "no_second_offer"


@pytest.mark.parametrize("stream", [True, False])
def test_the_first_may_win_all_the_same(world: World, stream: bool) -> None:
    name = "first" if stream else "first-whole"
    world.warm(name, stream=stream)
    world.order(name, first="delay-first=600ms", second="delay-first=15s")
    reply = world.ask(name, stream=stream)
    assert reply.headers["x-farebox-provider"] == "honest" and reply.headers["x-farebox-hedge"] == "first"
    first, second = world.pair(reply.headers["x-generation-id"])
    assert first.outcome == "ok" and second.outcome == "outrun" and second.charge == 0
    world.paid(first)
    assert world.truth(second).reason == "client_gone"


@pytest.mark.parametrize("stream", [True, False])
def test_a_provider_that_bills_on_is_read_to_its_usage_while_nobody_waits(world: World, stream: bool) -> None:
    name = "drained" if stream else "drained-whole"
    world.warm(name, stream=stream)
    world.order(name, first="delay-first=1500ms+ignore-hangup")
    reply = world.ask(name, stream=stream)
    assert reply.headers["x-farebox-provider"] == "lab"
    by_hold = {row.hold for row in read_books(world.url).rows}
    assert reply.headers["x-generation-id"] not in by_hold, "the answer did not wait for it"
    first, second = world.pair(reply.headers["x-generation-id"])
    world.paid(second)
    truth = world.truth(first)
    assert truth.reason == "complete" and truth.usage["output"] == 9
    assert first.charge == 0 and first.cost == cost(truth.usage, PRICES["stubborn"]) and first.basis == "reported"
    assert first.outcome == "outrun" and {"drained", "outrun"} <= set(first.flags)


def test_what_is_cut_off_in_the_middle_of_nothing_costs_an_estimate(world: World) -> None:
    """Its head has come, so its prompt has been read: that is what it cost, as far as anybody knows."""
    world.warm("cut")
    world.order("cut", first="delay-first=15s+big-header=10")
    first, _ = world.pair(world.ask("cut").headers["x-generation-id"])
    assert first.charge == 0 and first.outcome == "outrun"
    if first.cost is None:
        assert first.basis == "none", "unknown, not zero"
    else:
        assert first.basis == "observed" and "estimated" in first.flags and first.cost > 0


def test_a_policy_may_charge_both(world: World) -> None:
    world.warm("both", model="policy/both", stream=False)
    world.order("both", second="delay-first=800ms", first="delay-first=600ms")
    reply = world.ask("both", model="policy/both", stream=False)
    first, second = world.pair(reply.headers["x-generation-id"])
    assert reply.headers["x-farebox-provider"] == "honest" and first.charge > 0
    assert second.outcome == "outrun" and second.charge in (0, price(second.usage or {}, PRICES["lab"], MARKUP_BP))
    assert nano(reply.headers["x-farebox-cost-usd"]) == first.charge, "the answer's own"


def test_when_both_fail_the_call_goes_on_as_any_other(world: World) -> None:
    world.warm("both-fail")
    world.order("both-fail", first="delay-headers=500ms+status=503", second="status=500")
    reply = world.ask("both-fail")
    assert reply.status in (502, 503)
    base = "gen" + reply.headers["x-request-id"][3:]
    first, second = world.pair(base)
    assert second.outcome == "http_error" and first.charge == second.charge == 0
    rows = [row for row in read_books(world.url).rows if row.hold == base]
    assert len(rows) > 1 and {row.provider for row in rows} == {"honest", "lab"}


def test_while_the_second_runs_a_failure_of_the_first_asks_nobody_else(world: World) -> None:
    world.warm("first-fails")
    world.order("first-fails", first="delay-headers=500ms+status=503", second="delay-first=900ms")
    reply = world.ask("first-fails")
    assert reply.status == 200 and reply.headers["x-farebox-hedge"] == "second"
    first, second = world.pair(reply.headers["x-generation-id"])
    assert (first.outcome, first.state, first.charge) == ("http_error", "voided", 0)
    world.paid(second)
    assert len([row for row in read_books(world.url).rows if row.hold in (first.hold, second.hold)]) == 2


def test_a_second_that_fails_leaves_the_first_alone(world: World) -> None:
    world.warm("second-fails")
    world.order("second-fails", first="delay-first=700ms", second="status=500")
    reply = world.ask("second-fails")
    assert reply.status == 200 and reply.headers["x-farebox-provider"] == "honest"
    first, second = world.pair(reply.headers["x-generation-id"])
    assert (second.outcome, second.charge, second.cost) == ("http_error", 0, 0)
    world.paid(first)


def test_a_client_that_leaves_ends_both_and_pays_for_one_at_most(world: World) -> None:
    world.warm("leaves")
    world.order("leaves", first="delay-first=15s", second="delay-first=15s")
    fate = Fate("chat", "h/leaves", stream=True)
    started = world.hedges().get("started", 0)

    async def leave() -> None:
        task = asyncio.create_task(
            call(world.box.port, world.box.key, fate, body_for("chat", "h/leaves", stream=True, max_tokens=50))
        )
        while world.hedges().get("started", 0) == started:
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(leave())

    def mine() -> list[str]:
        rows = [row for row in read_books(world.url).rows if row.words["upstream_id"].startswith("sim-leaves-")]
        return [row.hold for row in rows if row.outcome != "ok"]

    first, second = world.pair(wait_until(mine, "one of both is posted")[0])
    assert second.charge == 0 and second.outcome == "outrun"
    assert world.truth(first).reason == world.truth(second).reason == "client_gone"


@pytest.mark.full
def test_the_days_cap_is_kept_over_a_restart(world: World, tmp_path: Path) -> None:
    """One hedge may be wasted; the next one has no room today, in this life of the worker or in another."""
    body = {"model": "h/capped", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    worst = max(nano(one["worst_case_usd"]) for one in world.box.post("/v1/route/explain", body).json()["offers"])
    cap = f'waste_per_day = "0.{worst * 3 // 2:09d}"'
    text = configuration(world.simulator.origin).replace('waste_per_day = "100"', cap)
    with Farebox(tmp_path / "box", config=text) as box:
        capped = World(box, world.simulator)
        capped.warm("capped")
        capped.order("capped", first="delay-headers=700ms")
        assert capped.ask("capped").headers["x-farebox-hedge"] == "second"
        wait_until(lambda: (box.folder / "run" / "w0.hedges").exists(), "what was wasted is written down")
        assert "x-farebox-hedge" not in capped.ask("capped").headers
        assert wait_until(lambda: capped.hedges().get("daily_cap"), "it is counted")
        box.stop()
        box.start()
        world.simulator.reset()
        capped.warm("capped")
        capped.order("capped", first="delay-headers=700ms")
        assert "x-farebox-hedge" not in capped.ask("capped").headers
    world.simulator.reset()


def test_what_is_left_of_the_call_bounds_the_second_too(world: World, tmp_path: Path) -> None:
    """Both stay silent; nobody set a time of their own for this call."""
    text = configuration(world.simulator.origin)
    text = text.replace("headers_s = 20.0", "headers_s = 20.0\ntotal_s = 3.0").replace("delay_min_ms = 30", "delay_min_ms = 2000")
    with Farebox(tmp_path / "box", config=text) as box:
        bounded = World(box, world.simulator)
        world.simulator.reset()
        bounded.warm("both-fail")
        bounded.order("both-fail", first="delay-headers=9s", second="delay-headers=9s")
        begun_s = time.monotonic()
        refused = bounded.ask("both-fail")
        took_s = time.monotonic() - begun_s
        assert refused.status == 504 and 2.9 < took_s < 4.5, (refused.status, took_s)
        assert wait_until(lambda: bounded.hedges().get("started"), "there was a second")
    world.simulator.reset()


def test_on_messages_too(world: World) -> None:
    def ask() -> Reply:
        body = {"model": "h/messages", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
        return world.box.post("/v1/messages", body)

    world.warm("messages", stream=False)
    world.order("messages", first="delay-first=15s")
    reply = ask()
    assert reply.headers["x-farebox-hedge"] == "second" and reply.json()["usage"]["output_tokens"] == 7
    world.paid(world.pair(reply.headers["x-generation-id"])[1])


@pytest.mark.parametrize(
    ("name", "fields", "why_not"),
    [
        ("unmeasured", {}, "not_measured"),
        ("alone", {}, "no_second_offer"),
        ("state", {"store": True}, "stateful"),
        ("state", {"num_retries": 0}, "one_attempt"),
    ],
)
def test_why_there_is_no_second(world: World, name: str, fields: dict[str, Any], why_not: str) -> None:
    world.order(name, first="delay-first=400ms")
    reply = world.ask(name, **fields)
    assert reply.status == 200 and "x-farebox-hedge" not in reply.headers and reply.headers["x-farebox-attempts"] == "1"
    plan = metadata(reply)["plan"]
    assert plan["hedge"]["why_not"] == why_not and plan["hedge"]["after_ms"] is None
    assert wait_until(lambda: world.hedges().get(why_not), "it is counted")


def test_explain_says_when_and_who(world: World) -> None:
    world.warm("quick")
    body = {"model": "h/quick", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    told = world.box.post("/v1/route/explain", body).json()["hedge"]
    assert told["provider"] == "lab" and told["after_ms"] >= 30 and told["why_not"] is None


def test_a_purse_for_one_answer_is_enough_for_a_call(world: World) -> None:
    """There is no second hold at hand, so nobody else is asked; the call itself is not refused."""
    world.warm("poor", stream=False)
    body = {"model": "h/poor", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 400}
    worst = max(nano(one["worst_case_usd"]) for one in world.box.post("/v1/route/explain", body).json()["offers"])
    made = world.box.customer("poor", credit_nano=worst * 3 // 2)
    world.order("poor", first="delay-first=500ms")
    reply = world.ask("poor", stream=False, key=made.secret, max_tokens=400)
    assert reply.status == 200 and reply.headers["x-farebox-provider"] == "honest" and "x-farebox-hedge" not in reply.headers
    assert wait_until(lambda: world.hedges().get("no_money"), "it is counted")
