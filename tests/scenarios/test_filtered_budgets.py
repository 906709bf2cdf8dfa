"""Budgets for some providers or models hold every call that one of them may answer, and are charged when one of them did."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

USD = "1.00"
FILTERS = {
    "everything": (),
    "broken": ("--provider", "broken"),
    "spare": ("--provider", "spare"),
    "either": ("--provider", "spare", "--provider", "broken"),
    "bad model": ("--model", "f/bad"),
    "good model": ("--model", "f/go*"),
    "both filters": ("--model", "f/good", "--provider", "spare"),
    "filters that miss": ("--model", "f/bad", "--provider", "spare"),
}


class Case:
    def __init__(self, box: Farebox) -> None:
        self.box = box
        self.key = box.customer("shop", credit_nano=10**10).secret
        self.names = {
            box.do("budgets", "create", USD, "--account", "shop", "--window", "none", "--tag", "t", *more)["id"]: name
            for name, more in FILTERS.items()
        }

    def spent(self) -> dict[str, Decimal]:
        self.box.wait_posted()
        listed = self.box.do("budgets", "list", "--account", "shop")["budgets"]
        return {self.names[one["id"]]: Decimal(one["spent"]) for one in listed}

    def call(self, **fields: Any) -> tuple[str, dict[str, Decimal]]:
        """Who answered, and what it added to each budget, in calls' prices."""
        before = self.spent()
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20, **fields}
        reply = self.box.post("/v1/chat/completions", body, key=self.key, headers={"x-farebox-tags": "t"})
        assert reply.status == 200, reply.body
        price = Decimal(reply.json()["usage"]["cost_usd"])
        assert price > 0
        return reply.headers["x-farebox-provider"], {
            name: (amount - before[name]) / price for name, amount in self.spent().items()
        }


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with SimulatorProcess() as simulator:
        config = "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"
        for name in ("broken", "spare"):
            config += provider(name, f"{simulator.origin}/v1")
        fails, answers = offer("broken", "sim+status=503", input="0.10", output="0.10"), offer("spare", "sim+tokens=5")
        config += model("f/both", fails, answers) + model("f/bad", fails) + model("f/good", answers)
        with Farebox(tmp_path_factory.mktemp("filtered") / "box", config=config) as running:
            yield Case(running)
            assert running.stop() == 0
            running.check_books()


def test_a_provider_that_answered_is_charged_and_one_that_failed_is_not(case: Case) -> None:
    answered, added = case.call(model="f/both")
    assert answered == "spare"
    assert added == {name: name in ("everything", "spare", "either") for name in FILTERS}


def test_a_model_that_was_fallen_back_to_is_charged_and_the_first_is_not(case: Case) -> None:
    answered, added = case.call(model="f/bad", models=["f/bad", "f/good"])
    assert answered == "spare"
    assert added == {name: name in ("everything", "spare", "either", "good model", "both filters") for name in FILTERS}


def test_all_of_them_hold_a_call_that_they_may_have_to_pay(case: Case) -> None:
    (bad,) = [id for id, name in case.names.items() if name == "bad model"]
    case.box.do("budgets", "update", bad, "0.000000001")
    body = {"model": "f/bad", "models": ["f/bad", "f/good"], "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}

    def refused_by() -> str | None:
        """Asked again and again: a worker that is never idle gives its slice back, too."""
        reply = case.box.post("/v1/chat/completions", body, key=case.key, headers={"x-farebox-tags": "t"})
        return reply.json()["error"]["farebox"]["budget"] if reply.status == 402 else None

    wait_until(lambda: refused_by() == bad, "a lowered budget refuses", timeout_s=2)
    # With another filter the same amount counts other calls: these are refused then, and those of before are not.
    told = case.box.cli("budgets", "update", bad, "--model", "f/both", "--window", "day", "--zone", "Asia/Tokyo", "--name", "b")
    assert (told["models"], told["window"], told["zone"], told["name"]) == (["f/both"], "day", "Asia/Tokyo", "b")
    wait_until(lambda: refused_by() is None, "a budget that counts other models lets these pass", timeout_s=2)
    body = {**body, "model": "f/both", "models": []}
    assert refused_by() == bad
    case.box.cli("budgets", "update", bad, USD, "--every-model", "--soft")
    wait_until(lambda: refused_by() is None, "a soft budget refuses nothing", timeout_s=2)
    spent = case.spent()
    assert spent["bad model"] == spent["everything"] > 0, "it counts what was charged before the change, too"
    case.box.cli("budgets", "update", bad, "--hard", "--model", "f/bad")
    answered, _ = case.call(model="f/good")
    assert answered == "spare"
