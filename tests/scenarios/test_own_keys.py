"""Customers' own keys at providers through a running gateway: whose key is used, what the customer pays and to whom."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.reconcile import Books, cost, half_even, rates, read_books
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until
from tests.support.shell import Shell

from farebox.billing.accounts import provider_keys
from farebox.billing.accounts.provider_keys import NewProviderKey
from farebox.billing.books import customers
from farebox.config import load
from farebox.ports import SystemClock
from farebox.simulator.faults import credential_hash
from farebox.simulator.testing import SimulatorProcess
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.vault.vault import Vault

PRICES = rates()
HOUSE, GOOD, BAD, BUSY, BROKE = "test-key", "sk-cust-good-1", "sk-cust-bad-1", "sk-cust-busy-1", "sk-cust-broke-1"
LISTED = cost({"input": 100, "output": 20}, PRICES)
FEE = half_even(LISTED * 5, 100)
PLANS = """
[markup.metered]
percent = "10"
[markup.metered.byok]
free_calls = 0
percent = "5"
[markup.two-free]
percent = "10"
[markup.two-free.byok]
free_calls = 2
percent = "5"
"""
MODEL, SLOW, LONG, OTHER, MINE = "o/m", "o/slow", "o/long", "o/other", "o/mine"
OUTPUT = 6000


@dataclass
class World:
    box: Farebox
    simulator: SimulatorProcess
    bill: Path

    def customer(
        self, name: str, *keys: str, plan: str = "metered", credit_nano: int = 10**9, always: bool = False, at: str = "lab"
    ) -> str:
        """A customer with keys of its own at the provider, in this order; its key here."""
        made = self.box.customer(name, credit_nano=credit_nano)
        loaded = load(self.box.config_path, self.box.environment)
        with Database.open(loaded.database_url) as database:
            now_us = SystemClock().now_us()
            owner = database.read(lambda c: queries.account(c, name))
            assert owner is not None
            customers.set_markup(database, owner.id, plan, now_us=now_us)
            for number, secret in enumerate(keys):
                new = NewProviderKey(
                    id=f"{name}-{number}", account_id=owner.id, provider=at, secret=secret, hint="…", always_use=always
                )
                provider_keys.create(database, Vault(loaded.byok_master_file), new, now_us=now_us)
        return made.secret

    def ask(self, key: str, name: str = MODEL, **fields: Any) -> Reply:
        body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, **fields}
        return self.box.post("/v1/chat/completions", body, key=key)

    def seen(self) -> Counter[str]:
        """How often the provider saw each key."""
        names = {credential_hash(key): key for key in (HOUSE, GOOD, BAD, BUSY, BROKE)}
        return Counter(names.get(one["credential"], "other") for one in self.simulator.requests())

    @property
    def books(self) -> Books:
        return read_books(f"sqlite:///{self.box.folder / 'farebox.db'}")

    def generation(self, key: str, id: str) -> Any:
        path = f"/v1/generation?id={id}"
        return wait_until(lambda: self.box.get(path, key=key).json().get("data"), "it is posted")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("own")
    with SimulatorProcess(bill_path=folder / "bill.jsonl") as simulator:
        for secret, fault in ((BAD, "status=401"), (BUSY, "status=429+retry-after=600"), (BROKE, "status=402")):
            simulator.fault(fault, credential=secret)
        config = provider("lab", simulator.base_url, extra="output_limit_field = 'max_tokens'")
        config += provider("other", simulator.base_url, wire="anthropic_messages")
        config += provider("mine", simulator.base_url, extra="own_keys_only = true")
        config += model(MINE, offer("mine", "sim+tokens=20+prompt=100"))
        config += model(OTHER, offer("other", "sim+tokens=20+prompt=100"))
        config += model(MODEL, offer("lab", "sim+tokens=20+prompt=100"))
        config += model(SLOW, offer("lab", f"sim+tokens={OUTPUT}+delay-first=1s"), output=OUTPUT)
        config += model(LONG, offer("lab", "sim+tokens=400+prompt=100+delay-chunk=20ms"))
        config += PLANS + "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"
        config += "[attempts]\nbackoff_ms = 1\nbackoff_max_ms = 2\n[limits]\nrequests_per_minute = 1000000\n"
        with Farebox(folder / "box", config=config) as box:
            yield World(box, simulator, folder / "bill.jsonl")


def usd(nano: int) -> str:
    return f"{nano // 10**9}.{nano % 10**9:09d}".rstrip("0").rstrip(".")


def told(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    return reply.json()["usage"]


def test_the_fee_is_charged_and_the_provider_bills_the_customer(world: World) -> None:
    key = world.customer("fee", GOOD)
    before = world.seen()
    reply = world.ask(key)
    usage = told(reply)
    assert (usage["cost_usd"], usage["is_byok"]) == (usd(FEE), True)
    assert round(usage["cost_details"]["upstream_inference_cost"] * 1e9) == LISTED
    assert world.seen() - before == Counter({GOOD: 1}), "the house's key was not used"
    shown = world.generation(key, reply.json()["id"])
    assert (shown["is_byok"], round(shown["upstream_inference_cost"] * 1e9)) == (True, LISTED)
    assert round(shown["total_cost"] * 1e9) == FEE
    about = world.box.get("/v1/key", key=key).json()["data"]
    assert (round(about["usage"] * 1e9), round(about["byok_usage"] * 1e9)) == (FEE, LISTED)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    (day,) = world.box.get(f"/v1/activity?date={today}", key=key).json()["data"]
    assert (round(day["usage"] * 1e9), round(day["byok_usage_inference"] * 1e9)) == (FEE, LISTED)


@pytest.mark.parametrize(("name", "secret"), [("refused", BAD), ("unpaid", BROKE), ("limited", BUSY)])
def test_where_the_own_key_fails_the_house_answers_and_the_key_alone_is_left_alone(world: World, name: str, secret: str) -> None:
    key = world.customer(name, secret)
    before = world.seen()
    first = world.ask(key)
    usage = told(first)
    assert (usage["cost_usd"], usage["is_byok"]) == (usd(LISTED * 11 // 10), False)
    assert first.headers["x-farebox-attempts"] == "2"
    assert world.ask(key).headers["x-farebox-attempts"] == "1", "it is not asked again at once"
    assert world.seen() - before == Counter({secret: 1, HOUSE: 2})
    other = world.customer(f"{name}-beside")
    assert world.ask(other).headers["x-farebox-attempts"] == "1", "the house's key is as well as it was"


def test_a_key_that_is_always_used_leaves_the_providers_reason_to_the_customer(world: World) -> None:
    key = world.customer("always", BAD, always=True)
    before = world.seen()
    reply = world.ask(key)
    error = reply.json()["error"]
    assert (reply.status, error["code"], reply.headers["x-should-retry"]) == (403, "own_key_refused", "false")
    assert "refused your own key (`byok:always-0`)" in error["message"] and BAD not in reply.body.decode()
    assert world.seen() - before == Counter({BAD: 1})
    plan = world.ask(key, provider={"only": ["lab"]}).json()["error"]
    assert plan["code"] == "own_key_refused", "it is asked again, since there is nobody else"


def test_the_second_key_is_asked_where_the_first_is_refused(world: World) -> None:
    key = world.customer("two", BAD, GOOD)
    before = world.seen()
    first, second = world.ask(key), world.ask(key)
    assert told(first)["cost_usd"] == told(second)["cost_usd"] == usd(FEE)
    assert [one.headers["x-farebox-attempts"] for one in (first, second)] == ["2", "1"]
    assert world.seen() - before == Counter({BAD: 1, GOOD: 2})


def test_free_calls_end_within_a_second(world: World) -> None:
    key = world.customer("free", GOOD, plan="two-free", credit_nano=0)
    for _ in range(2):
        usage = told(world.ask(key))
        assert (usage["cost_usd"], usage["is_byok"]) == ("0.00", True), "a customer without any credit may use its own key"
    refused = wait_until(lambda: (reply := world.ask(key)).status == 402 and reply, "the free ones are used up", timeout_s=5)
    details = refused.json()["error"]["farebox"]
    assert float(details["needed_usd"]) > 0
    rich = world.customer("free-rich", GOOD, plan="two-free")
    costs = [told(world.ask(rich))["cost_usd"] for _ in range(2)]
    assert costs == ["0.00", "0.00"]
    wait_until(lambda: told(world.ask(rich))["cost_usd"] == usd(FEE), "the fee is due", timeout_s=5)


def test_streams_and_the_other_surface_tell_the_same(world: World) -> None:
    key = world.customer("stream", GOOD)
    chunks = world.ask(key, stream=True, stream_options={"include_usage": True}).events()
    usage = chunks[-1]["usage"]
    assert (usage["cost_usd"], usage["is_byok"]) == (usd(FEE), True)
    assert round(usage["cost_details"]["upstream_inference_cost"] * 1e9) == LISTED
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    reply = world.box.post("/v1/messages", body, key=key)
    assert (told(reply)["cost_usd"], told(reply)["is_byok"]) == (usd(FEE), True)


def test_tokens_are_counted_with_the_own_key_and_where_that_is_refused_with_the_houses(world: World) -> None:
    body = {"model": OTHER, "messages": [{"role": "user", "content": "hi"}]}
    for name, secret, always, seen, status in (
        ("count-good", GOOD, False, {GOOD: 1}, 200),
        ("count-bad", BAD, False, {BAD: 1, HOUSE: 1}, 200),
        ("count-always", BAD, True, {BAD: 1}, 403),
    ):
        key = world.customer(name, secret, always=always, at="other")
        before = world.seen()
        reply = world.box.post("/v1/messages/count_tokens", body, key=key)
        assert (reply.status, world.seen() - before) == (status, Counter(seen)), reply.body
        assert status != 200 or (reply.json()["input_tokens"] > 0 and "x-farebox-estimated" not in reply.headers)
    reply = world.box.post("/v1/messages", {**body, "max_tokens": 50}, key=world.customer("other", GOOD, at="other"))
    assert (told(reply)["cost_usd"], told(reply)["is_byok"]) == (usd(FEE), True)


def test_a_provider_for_own_keys_alone_serves_those_who_have_one(world: World) -> None:
    before = world.seen()
    usage = told(world.ask(world.customer("mine", GOOD, at="mine"), MINE))
    assert (usage["cost_usd"], usage["is_byok"]) == (usd(FEE), True)
    refused = world.ask(world.customer("mine-bad", BAD, at="mine"), MINE)
    assert (refused.status, refused.json()["error"]["code"]) == (403, "own_key_refused")
    none = world.ask(world.customer("mine-none", GOOD), MINE)
    assert (none.status, none.json()["error"]["code"]) == (400, "no_eligible_offer")
    assert "`mine` is called by customers' own keys alone" in none.json()["error"]["message"]
    assert world.seen() - before == Counter({GOOD: 1, BAD: 1}), "nobody was asked without a key"


def test_the_plan_and_what_became_of_it_say_whose_keys_were_tried(world: World) -> None:
    key = world.customer("plan", BAD, GOOD)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    reply = world.box.post("/v1/chat/completions", body, key=key, headers={"x-farebox-metadata": "enabled"})
    found = reply.json()["farebox"]
    assert [one["own_key"] for one in found["plan"]["offers"]] == ["byok:plan-0", "byok:plan-1", None]
    tried = [(one["own_key"], one["outcome"]) for one in found["attempts"]]
    assert tried == [("byok:plan-0", "http_error"), ("byok:plan-1", "ok")]
    explained = world.box.post("/v1/route/explain", body, key=key).json()
    assert [one["own_key"] for one in explained["offers"]] == ["byok:plan-1", None, "byok:plan-0"], "the refused one is last"


def test_the_command_explains_and_counts_as_the_account_is_routed_and_billed(world: World) -> None:
    key = world.customer("told", GOOD, plan="two-free")
    shell = Shell(world.box.folder)

    def offers(*words: str) -> list[tuple[str | None, str]]:
        found = shell.json("route", "explain", MODEL, *words)["offers"]
        return [(one["own_key"], one["worst_case_usd"]) for one in found]

    ((nobody, usual),) = offers()
    (own, free), (house, marked_up) = offers("--account", "told")
    assert (nobody, own, house, free) == (None, "byok:told-0", None, "0.00") and Decimal(marked_up) > Decimal(usual)
    for _ in range(2):
        assert told(world.ask(key))["cost_usd"] == "0.00"
    world.box.wait_posted()
    assert Decimal(offers("--account", "told")[0][1]) > 0, "the free calls of this month are used up"
    assert shell("usage", "--account", "told").out.count("byok USD") == 2
    assert max(map(len, shell("usage", "--account", "told", "--by", "provider,model").out.splitlines())) <= 100
    for by in ("provider", "tag"):
        said = shell.json("usage", "--account", "told", "--by", by)
        (row,) = (row for row in said["rows"] if row["calls"])
        assert (row["byok_cost"], row["charge"], row["cost"]) == (usd(2 * LISTED), "0.00", "0.00")
        assert said["total"]["byok_cost"] == usd(2 * LISTED)
    assert shell("usage", "--account", "told", "--csv").out.splitlines()[1].endswith("," + usd(2 * LISTED))
    limited = shell.json("keys", "create", "--account", "told", "--name", "limited", "--allow-model", OTHER)["id"]
    shell.json("byok", "update", "told-0", "--key", limited)
    assert [one for one, _ in offers("--account", "told")] == [None], "it is for one key alone"
    refused = shell("route", "explain", MODEL, "--account", "told", "--key", "limited").refused()
    assert f"may not call `{MODEL}`; it may call `{OTHER}`" in refused
    shell.json("keys", "update", limited, "--allow-model", MODEL)
    assert [one for one, _ in offers("--account", "told", "--key", limited)] == ["byok:told-0", None]
    shell.json("keys", "disable", limited)
    assert "is disabled" in shell("route", "explain", MODEL, "--account", "told", "--key", limited).refused()


def test_where_the_money_does_not_reach_for_the_house_own_keys_are_used_alone(world: World) -> None:
    body = body_for("chat", SLOW, stream=False, max_tokens=OUTPUT)
    probe = world.box.post("/v1/chat/completions", body, key=world.customer("probe", GOOD, always=True, credit_nano=0))
    assert probe.status == 402
    needed = round(float(probe.json()["error"]["farebox"]["needed_usd"]) * 1e9)
    admitted = 7
    for name, always in (("over-always", True), ("over", False)):
        # With the house behind them the first ones hold its price; what is left is enough for own keys alone.
        credit = needed * admitted + needed - 1
        key = world.customer(name, GOOD, always=always, credit_nano=credit)
        fates = together(world.box.port, key, [(Fate("chat", SLOW, False), body) for _ in range(40)])
        answered = [fate for fate in fates if fate.status == 200]
        assert {fate.status for fate in fates} == {200, 402} and len(answered) == admitted
        charged = [row for row in _posted(world, answered) if row.charge]
        assert sum(row.charge for row in charged) <= credit and {row.cost for row in charged} == {0}


def _posted(world: World, fates: list[Fate]) -> list[Any]:
    generations = {fate.generation for fate in fates}
    wait_until(lambda: generations <= {row.hold for row in world.books.rows}, "they are posted")
    return [row for row in world.books.rows if row.hold in generations]


def test_after_a_kill_the_call_is_finished_by_its_own_terms(world: World) -> None:
    key = world.customer("killed", GOOD)
    fate = Fate("chat", LONG, True)
    body = body_for("chat", LONG, stream=True, max_tokens=400)

    def kill() -> None:
        journals = world.box.folder / "journal"
        wait_until(
            lambda: any(b'"type":"progress"' in path.read_bytes() for path in journals.rglob("*") if path.is_file()),
            "a stream has a checkpoint",
        )
        world.box.kill()

    together(world.box.port, key, [(fate, body)], beside=kill)
    world.box.start()
    (row,) = _posted(world, [fate])
    assert (row.state, row.cost, row.words["fees"]) == ("recovered", 0, {"own_key": True})
    listed = cost(row.usage or {}, PRICES)
    assert row.charge == half_even(listed * 5, 100) and listed > 0
    assert round(world.generation(key, fate.generation or "")["upstream_inference_cost"] * 1e9) == listed


def test_the_books_owe_the_provider_what_the_houses_key_was_used_for(world: World) -> None:
    world.box.wait_posted()
    books = world.books
    bills = {row.name: row for row in books.rows}
    assert all(row.cost == 0 for row in books.rows if row.words.get("fees", {}).get("own_key"))
    house = [row for row in books.rows if row.cost]
    assert {row.words["provider_key"] for row in house} == {"lab#1"} and len(bills) == len(books.rows)
    assert -books.moved("provider_payable:lab") == sum(row.cost or 0 for row in house)
    for secret in (GOOD, BAD, BUSY, BROKE):
        text = "".join(json.dumps(row.words) for row in books.rows)
        assert secret not in text and secret not in world.box.log_text()
    world.box.check_books()
