"""Why a call goes where it goes: the explained plan, the metadata of a served call, policies of keys and accounts."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}


def configuration(base: str) -> str:
    text = "".join(provider(name, base) for name in ("cheap", "dear", "small"))
    text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    text += '[policies.dear-first]\norder = ["dear"]\n[policies.never-cheap]\nignore = ["cheap"]\n'
    text += model(
        "e/two",
        offer("dear", "sim+tokens=5", input="2.00", output="4.00"),
        offer("cheap", "sim+tokens=5", input="1.00", output="2.00"),
    )
    text += model("e/fails-first", offer("cheap", "sim+status=503", input="0.10"), offer("dear", "sim+tokens=5", input="5.00"))
    return text


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("explain") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url)) as running:
        yield running
        assert len(simulator.requests()) > 0
        running.wait_posted()
        running.check_books()


def explained(box: Farebox, slug: str, **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", {})
    key = more.pop("key", box.key)
    reply = box.post("/v1/route/explain", {"model": slug, **ASK, **more}, headers=headers, key=key)
    assert reply.status == 200, reply.body
    return reply.json()


def order(told: dict[str, Any]) -> list[str]:
    return [one["provider"] for one in told["offers"]]


def test_a_plan_says_who_and_why_and_what_it_costs(box: Farebox) -> None:
    told = explained(box, "e/two")
    assert order(told) == ["cheap", "dear"] and told["policy"] == "cheapest" and told["excluded"] == []
    cheap, dear = told["offers"]
    bytes_in = len(json.dumps({"model": "e/two", **ASK}))
    assert told["input_tokens_estimate"] == -(-bytes_in // 4)
    # 20 tokens of output at most, and the estimated input: at $1 and $2 per million.
    assert cheap["expected_cost_usd"] == f"0.{told['input_tokens_estimate'] * 1000 + 20 * 2000:09d}".rstrip("0")
    assert told["hold_usd"] == dear["worst_case_usd"] > cheap["worst_case_usd"], "the dearest that may answer is held for"
    assert cheap["health"]["state"] == "healthy" and cheap["reason"]
    assert told["attempts_max"] == 6


def test_nothing_is_sent_and_nothing_is_held(box: Farebox) -> None:
    box.wait_posted()
    before, rows = box.get("/v1/credits").json(), box.do("usage")["rows"]
    for _ in range(3):
        explained(box, "e/two")
    assert box.get("/v1/credits").json() == before and box.do("usage")["rows"] == rows


def test_who_is_left_out_is_told_by_which_rule(box: Farebox) -> None:
    told = explained(box, "e/two", provider={"ignore": ["cheap"]})
    assert order(told) == ["dear"]
    assert [(one["provider"], one["rule"]) for one in told["excluded"]] == [("cheap", "provider.ignore")]


def test_what_cannot_be_answered_is_the_error_of_the_call(box: Farebox) -> None:
    reply = box.post("/v1/route/explain", {"model": "e/two", **ASK, "provider": {"only": ["small"]}})
    call = box.post("/v1/chat/completions", {"model": "e/two", **ASK, "provider": {"only": ["small"]}})
    assert reply.status == call.status == 400
    assert reply.json()["error"]["code"] == call.json()["error"]["code"] == "no_eligible_offer"
    assert box.get("/v1/route/explain").status == 405
    assert box.post("/v1/route/explain", {"model": "e/two", **ASK}, key="fb-nobody").status == 401


def test_messages_are_explained_too(box: Farebox) -> None:
    told = explained(box, "e/two", headers={"anthropic-version": "2023-06-01"})
    assert order(told) == ["cheap", "dear"] and told["output_tokens_max"] == 20


def test_a_served_call_tells_its_plan_and_attempts_to_whom_wants_it(box: Farebox) -> None:
    wanted = {"x-farebox-metadata": "enabled"}
    reply = box.post("/v1/chat/completions", {"model": "e/fails-first", **ASK}, headers=wanted)
    told = reply.json()["farebox"]
    assert [(one["provider"], one["outcome"], one["status"]) for one in told["attempts"]] == [
        ("cheap", "http_error", 503), ("dear", "ok", 200),
    ]  # fmt: skip
    assert order(told["plan"]) == ["cheap", "dear"]
    assert told["attempts"][1]["charge_usd"] == reply.headers["x-farebox-cost-usd"]
    assert "farebox" not in box.post("/v1/chat/completions", {"model": "e/two", **ASK}).json()


@pytest.mark.parametrize("surface", ["chat", "messages"])
def test_a_stream_tells_it_in_a_comment(box: Farebox, surface: str) -> None:
    body = body_for(surface, "e/fails-first", stream=True, max_tokens=20)
    (fate,) = together(box.port, box.key, [(Fate(surface, "e/fails-first", True), body)], {"x-farebox-metadata": "enabled"})
    assert fate.complete
    (line,) = [line for line in fate.body.split(b"\n") if line.startswith(b": farebox ")]
    told = json.loads(line.removeprefix(b": farebox "))
    assert [one["provider"] for one in told["attempts"]] == ["cheap", "dear"]


def test_the_sdks_read_such_answers(box: Farebox) -> None:
    headers = {"x-farebox-metadata": "enabled"}
    url = f"http://127.0.0.1:{box.port}"
    chat = openai.OpenAI(base_url=f"{url}/v1", api_key=box.key, default_headers=headers, max_retries=0)
    whole = chat.chat.completions.create(model="e/two", **ASK)  # type: ignore[arg-type]
    assert whole.choices[0].message.content and whole.model_extra is not None and "farebox" in whole.model_extra
    parts = [part for part in chat.chat.completions.create(model="e/two", stream=True, **ASK)]  # type: ignore[call-overload]
    assert any(part.choices and part.choices[0].finish_reason for part in parts)
    messages = anthropic.Anthropic(base_url=url, api_key=box.key, default_headers=headers, max_retries=0)
    assert messages.messages.create(model="e/two", **ASK).content  # type: ignore[arg-type]
    with messages.messages.stream(model="e/two", **ASK) as stream:  # type: ignore[arg-type]
        assert stream.get_final_message().content


def test_keys_and_accounts_have_policies(box: Farebox) -> None:
    box.customer("routed", credit_nano=10**9)
    made = box.do("keys", "create", "--account", "routed", "--policy", "dear-first")
    assert made["policy"] == "dear-first"
    assert order(explained(box, "e/two", key=made["key"]))[0] == "dear"
    plain = box.do("keys", "create", "--account", "routed")
    assert order(explained(box, "e/two", key=plain["key"]))[0] == "cheap"
    box.cli("accounts", "policy", "routed", "never-cheap")
    wait_until(lambda: order(explained(box, "e/two", key=plain["key"])) == ["dear"], "the account's policy holds", timeout_s=3)
    assert explained(box, "e/two", key=made["key"])["policy"] == "dear-first", "the key's own comes first"
    box.cli("keys", "policy", made["id"], "--none")
    wait_until(
        lambda: explained(box, "e/two", key=made["key"])["policy"] == "never-cheap", "back to the account's", timeout_s=3
    )
    reply = box.post("/v1/chat/completions", {"model": "e/two", **ASK}, key=made["key"])
    assert reply.headers["x-farebox-provider"] == "dear"
    assert "no `[policies.nobody]`" in box.cli("accounts", "policy", "routed", "nobody", check=False)["error"]


def test_the_command_explains_without_a_server(box: Farebox) -> None:
    told = box.cli("route", "explain", "e/two")
    assert order(told) == ["cheap", "dear"]
    assert order(box.cli("route", "explain", "e/two", "--policy", "dear-first"))[0] == "dear"
    file = box.folder / "request.json"
    file.write_text(json.dumps({"model": "e/two", **ASK, "provider": {"order": ["dear"]}}))
    assert order(box.cli("route", "explain", "--file", str(file)))[0] == "dear"
    assert "e/two" in box.cli("route", "explain", "e/too", check=False)["error"], "the nearest name is told"
