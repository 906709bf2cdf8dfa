"""Tiers over real sockets: what they allow, what answers say is left, who moves up, and that nothing leaks."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

TIERS = """
[tiers.free]
requests_per_minute = 4
tokens_per_minute = 3000
concurrent_calls = 2
daily_spend = "0.30"
models = ["t/small", "t/slow", "t/endless"]
[tiers.paid]
requests_per_minute = 1000
tokens_per_minute = 1000000
concurrent_calls = 100
paid = "5.00"
[tiers.paid.classes."t/slow"]
requests_per_minute = 1
"""


def configuration(base: str) -> str:
    text = "[limits]\ntier = \"free\"\n" + TIERS + provider("lab", base, extra="abort_stops_billing = true")
    text += model("t/small", offer("lab", "sim+tokens=20"))
    text += model("t/slow", offer("lab", "sim+tokens=20+delay-first=1s"))
    text += model("t/endless", offer("lab", "sim+tokens=4000+delay-chunk=50ms"))
    return text + model("t/large", offer("lab", "sim+tokens=21", input="5.00"))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("tiers") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url)) as running:
        yield running
        running.wait_posted()
        running.check_books()


def ask(box: Farebox, key: str, name: str = "t/small", path: str = "/v1/chat/completions", **more: Any) -> Any:
    body = {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100, **more}
    return box.post(path, body, key=key)


def test_requests_count_down_and_the_refusal_says_whose_limit_it_is(box: Farebox) -> None:
    made = box.customer("counted", credit_nano=10**9)
    left = [int(ask(box, made.secret).headers["x-ratelimit-remaining-requests"]) for _ in range(4)]
    assert left[0] == 3 and left == sorted(left, reverse=True) and left[-1] <= 1
    refused = ask(box, made.secret)
    assert refused.status == 429 and 1 <= int(refused.headers["retry-after"]) <= 15
    error = refused.json()["error"]
    assert error["code"] == "rate_limit_exceeded" and "the account `counted` (tier `free`)" in error["message"]
    assert error["farebox"]["limit"] == "requests_per_minute" and error["farebox"]["maximum"] == 4


def test_each_surface_says_it_in_its_own_headers(box: Farebox) -> None:
    made = box.customer("spoken", credit_nano=10**9)
    chat = ask(box, made.secret).headers
    assert (chat["x-ratelimit-limit-requests"], chat["x-ratelimit-limit-tokens"]) == ("4", "3000")
    assert re.fullmatch(r"\d+ms|\d+\.\ds", chat["x-ratelimit-reset-tokens"])
    messages = ask(box, made.secret, path="/v1/messages").headers
    assert messages["anthropic-ratelimit-requests-limit"] == "4"
    assert int(messages["anthropic-ratelimit-tokens-remaining"]) <= 3000
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", messages["anthropic-ratelimit-tokens-reset"])


def test_tokens_are_reserved_and_what_was_not_used_comes_back(box: Farebox) -> None:
    made = box.customer("metered", credit_nano=10**9)
    first = ask(box, made.secret, max_tokens=2900)
    assert first.status == 200 and int(first.headers["x-ratelimit-remaining-tokens"]) < 100
    second = ask(box, made.secret, max_tokens=2800)
    assert second.status == 200, "it answered with twenty tokens: the rest is free again"
    assert int(second.headers["x-ratelimit-remaining-tokens"]) < 200


def test_calls_in_flight_are_bounded_and_slots_return_when_clients_vanish(box: Farebox) -> None:
    made = box.customer("vanishing", credit_nano=10**9)
    body = body_for("chat", "t/endless", stream=True, max_tokens=1000)
    fates = together(box.port, made.secret, [(Fate("chat", "t/endless", True, leave_after=300), body) for _ in range(2)])
    assert all(fate.left for fate in fates)

    def status() -> int:
        return ask(box, made.secret).status

    wait_until(lambda: status() == 200, "the slots of the two that hung up are back")
    slow = body_for("chat", "t/slow", stream=False, max_tokens=50)
    other = box.customer("crowded", credit_nano=10**9)
    found = together(box.port, other.secret, [(Fate("chat", "t/slow", False), slow) for _ in range(3)])
    refused = [fate for fate in found if fate.status == 429]
    assert sorted(fate.status or 0 for fate in found) == [200, 200, 429]
    assert refused[0].json()["error"]["farebox"]["limit"] == "concurrent_calls"
    assert ask(box, other.secret).status == 200, "both slots are back"


def test_models_of_another_tier_are_refused_by_name(box: Farebox) -> None:
    made = box.customer("curious", credit_nano=10**9)
    refused = ask(box, made.secret, "t/large")
    assert refused.status == 403 and "the tier `free`" in refused.json()["error"]["message"]


def test_what_a_tier_lets_an_account_spend_in_a_day_is_exact(box: Farebox) -> None:
    made = box.customer("thrifty", credit_nano=100 * 10**9)
    dear = ask(box, made.secret, messages=[{"role": "user", "content": "x" * 300_000}])
    assert dear.status == 402, dear.body
    error = dear.json()["error"]
    assert error["farebox"]["scope"].startswith("tier:") and error["farebox"]["limit_usd"] == "0.30"
    assert "the tier of the account `thrifty`" in error["message"] and ask(box, made.secret).status == 200


def test_an_account_that_pays_moves_up_by_itself_and_a_pinned_one_does_not(box: Farebox) -> None:
    made, pinned = box.customer("climber"), box.customer("pinned")
    box.cli("accounts", "tier", "pinned", "free", "--pin")
    for name in ("climber", "pinned"):
        box.do("topup", name, "5.00")
    wait_until(lambda: ask(box, made.secret, "t/large").status == 200, "it has moved up", timeout_s=90)
    tiers = {one["name"]: one["tier"] for one in box.cli("accounts", "list")["accounts"]}
    assert (tiers["climber"], tiers["pinned"]) == ("paid", "free")
    assert ask(box, pinned.secret, "t/large").status == 403
    box.cli("accounts", "tier", "pinned", "paid")
    wait_until(lambda: ask(box, pinned.secret, "t/large").status == 200, "the operator raised it", timeout_s=3)


def test_a_class_of_models_has_its_own_limit(box: Farebox) -> None:
    made = box.customer("classed", credit_nano=10**9)
    box.do("accounts", "tier", "classed", "paid")
    wait_until(lambda: ask(box, made.secret, "t/large").status == 200, "the tier holds", timeout_s=3)
    assert ask(box, made.secret, "t/slow").status == 200
    refused = ask(box, made.secret, "t/slow")
    assert refused.status == 429 and "requests_per_minute for t/slow" in refused.json()["error"]["message"]
    assert ask(box, made.secret, "t/large").status == 200


def test_the_ladder_can_be_listed(box: Farebox) -> None:
    found = box.cli("tiers")
    assert found["first"] == "free" and [tier["name"] for tier in found["tiers"]] == ["free", "paid"]
    assert "no tier `gold`" in box.cli("accounts", "tier", "counted", "gold", check=False)["error"]
