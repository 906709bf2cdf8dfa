"""SDKs with keys that may not do everything: their own exception types, at the first try; and a script against `/key/*`."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("restricted") / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1")
        text += model("r/one", offer("lab", "sim+tokens=5")) + model("r/two", offer("lab", "sim+tokens=5"))
        with Farebox(tmp_path_factory.mktemp("restricted") / "box", config=text) as running:
            yield running


def make(box: Farebox, *words: str) -> dict[str, Any]:
    return box.do("keys", "create", "--account", "default", *words)


def counted(client: Any) -> list[int]:
    """The statuses of all that a client is answered."""
    sent: list[int] = []

    def note(response: Any) -> None:
        sent.append(response.status_code)

    client._client.event_hooks = {"response": [note]}
    return sent


CASES = [
    (("--allow-model", "r/one"), "model_not_allowed"),
    (("--allow-ip", "203.0.113.0/24"), "address_not_allowed"),
    (("--max-price", "0.01"), "offer_not_allowed"),
    (("--scope", "manage"), "scope_missing"),
]


@pytest.mark.parametrize(("words", "code"), CASES, ids=[code for _, code in CASES])
def test_both_sdks_raise_permission_denied_and_do_not_retry(box: Farebox, words: tuple[str, ...], code: str) -> None:
    made = make(box, *words)
    with openai.OpenAI(base_url=f"{box.base}/v1", api_key=made["key"], max_retries=3) as client:
        sent = counted(client)
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client.chat.completions.create(model="r/two", messages=HELLO, max_tokens=20)
        assert sent == [403] and denied.value.code == code and made["hint"] in denied.value.message
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="r/two", messages=HELLO, max_tokens=20, stream=True)
    with anthropic.Anthropic(base_url=box.base, api_key=made["key"], max_retries=3) as other:
        sent = counted(other)
        with pytest.raises(anthropic.PermissionDeniedError) as refused:
            other.messages.create(model="r/two", messages=HELLO, max_tokens=20)
        body: Any = refused.value.body
        assert sent == [403] and body["error"]["farebox"]["code"] == code and made["hint"] in body["error"]["message"]
        with pytest.raises(anthropic.PermissionDeniedError):
            other.messages.count_tokens(model="r/two", messages=HELLO)


def test_what_a_key_may_call_is_what_its_client_lists_and_calls(box: Farebox) -> None:
    made = make(box, "--allow-model", "r/o*")
    with openai.OpenAI(base_url=f"{box.base}/v1", api_key=made["key"]) as client:
        assert [item.id for item in client.models.list()] == ["r/one"]
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("r/two")
        assert client.chat.completions.create(model="r/one", messages=HELLO, max_tokens=20).choices
    with anthropic.Anthropic(base_url=box.base, api_key=made["key"]) as other:
        assert [item.id for item in other.models.list()] == ["r/one"]
        assert other.messages.create(model="r/one", messages=HELLO, max_tokens=20).content


def test_keys_that_are_over_are_authentication_errors(box: Farebox) -> None:
    made = make(box)
    box.cli("keys", "revoke", made["id"])
    with openai.OpenAI(base_url=f"{box.base}/v1", api_key=made["key"], max_retries=3) as client:
        sent = counted(client)
        with pytest.raises(openai.AuthenticationError) as raised:
            client.chat.completions.create(model="r/one", messages=HELLO, max_tokens=20)
        assert sent == [401] and raised.value.code == "revoked_key"
    with anthropic.Anthropic(base_url=box.base, api_key=made["key"]) as other, pytest.raises(anthropic.AuthenticationError):
        other.messages.create(model="r/one", messages=HELLO, max_tokens=20)


def test_a_script_for_litellms_proxy_runs_unchanged(box: Farebox) -> None:
    """What its users' scripts do: a key per user with a budget and models, look, change, block, rotate, delete."""
    boss = make(box, "--scope", "manage", "--name", "proxy admin")
    with httpx2.Client(base_url=box.base, headers={"Authorization": f"Bearer {boss['key']}"}) as admin:
        made = admin.post(
            "/key/generate",
            json={
                "models": ["r/one"], "duration": "30d", "max_budget": 0.5, "budget_duration": "30d", "key_alias": "alice",
                "user_id": "alice", "metadata": {"cost-center": "7"}, "aliases": {}, "config": {}, "permissions": {},
            },
        )  # fmt: skip
        made.raise_for_status()
        key = made.json()["key"]
        with openai.OpenAI(base_url=box.base, api_key=key) as client:
            assert client.chat.completions.create(model="r/one", messages=HELLO, max_tokens=20).choices
            with pytest.raises(openai.PermissionDeniedError):
                client.chat.completions.create(model="r/two", messages=HELLO, max_tokens=20)
        box.wait_posted()
        info = admin.get("/key/info", params={"key": key}).raise_for_status().json()["info"]
        assert 0 < info["spend"] < info["max_budget"] == 0.5 and info["user_id"] == "alice"
        admin.post("/key/update", json={"key": key, "models": [], "max_budget": 1}).raise_for_status()
        assert admin.get("/key/info", params={"key": key}).json()["info"]["models"] == []
        admin.post("/key/block", json={"key": key}).raise_for_status()
        with openai.OpenAI(base_url=box.base, api_key=key) as client, pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="r/one", messages=HELLO, max_tokens=20)
        admin.post("/key/unblock", json={"key": key}).raise_for_status()
        fresh = admin.post(f"/key/{key}/regenerate", json={}).raise_for_status().json()["key"]
        assert fresh != key and info["token"] in admin.get("/key/list", params={"size": 100}).json()["keys"]
        admin.post("/key/delete", json={"keys": [fresh]}).raise_for_status()
        assert admin.get("/key/info", params={"key": fresh}).status_code == 404
        problem = admin.post("/key/generate", json={"max_budget": "much"})
        assert problem.status_code == 400 and problem.json()["error"]["param"] == "max_budget"
