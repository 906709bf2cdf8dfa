"""Keys with scopes and restrictions against a running gateway: what they may not do costs nothing and is said in words."""

from collections.abc import Iterator

import pytest
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("keys") / "bill.jsonl") as running:
        yield running


@pytest.fixture(scope="module")
def box(simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    """Behind a proxy on this machine that says for whom it asks."""
    text = provider("lab", f"{simulator.origin}/v1") + provider("ant", f"{simulator.origin}/v1", wire="anthropic_messages")
    text += model("k/one", offer("lab", "sim+tokens=5"), offer("ant", "sim+tokens=5", output="40.00"))
    text += model("k/two", offer("ant", "sim+tokens=5"))
    server = 'trusted_proxies = ["127.0.0.0/8"]'
    with Farebox(tmp_path_factory.mktemp("keys") / "box", config=text, server=server) as running:
        yield running


def make(box: Farebox, *words: str) -> str:
    """A new key of the first account."""
    return str(box.do("keys", "create", "--account", "default", *words)["key"])


def ask(box: Farebox, key: str, slug: str = "k/one", **headers: str) -> Reply:
    body = {"model": slug, "messages": MESSAGES, "max_tokens": 20}
    return box.post("/v1/chat/completions", body, key=key, headers=headers)


def last_used(box: Farebox, id: str) -> str | None:
    return next(key["last_used_at"] for key in box.do("keys", "list")["keys"] if key["id"] == id)


@pytest.fixture(scope="module", autouse=True)
def used(box: Farebox) -> str:
    """The id of a key that was used once, before all tests: that it was is written every ten seconds."""
    made = box.do("keys", "create", "--account", "default")
    assert last_used(box, made["id"]) is None
    assert ask(box, made["key"]).status == 200
    return str(made["id"])


def error(reply: Reply) -> tuple[int, str, str]:
    told = reply.json()["error"]
    return reply.status, told["code"], told["message"]


def test_a_key_calls_only_its_models(box: Farebox, simulator: SimulatorProcess) -> None:
    key = make(box, "--allow-model", "k/one")
    seen = len(simulator.requests())
    status, code, message = error(ask(box, key, "k/two"))
    assert (status, code) == (403, "model_not_allowed")
    assert f"`{key[:5]}…{key[-4:]}` may not call `k/two`; it may call `k/one`" in message and key not in message
    told = box.post("/v1/messages", {"model": "k/two", "messages": MESSAGES, "max_tokens": 20}, key=key).json()
    assert told["type"] == "error" and told["error"]["type"] == "permission_error"
    assert len(simulator.requests()) == seen, "nobody was asked"
    assert ask(box, key).status == 200
    about = box.get("/v1/key", key=key).json()["data"]
    assert about["allowed_models"] == ["k/one"] and about["scopes"] == ["inference", "read_usage"]
    assert [item["id"] for item in box.get("/v1/models", key=key).json()["data"]] == ["k/one"]
    assert box.get("/v1/models/k/two", key=key).status == 404 and box.get("/v1/models/k/one", key=key).status == 200


def test_a_key_uses_only_its_providers_and_prices(box: Farebox) -> None:
    for words, used in ((("--allow-provider", "ant"), "ant"), (("--max-price", "10"), "lab")):
        key = make(box, *words)
        for _ in range(3):
            assert ask(box, key).headers["x-farebox-provider"] == used
    key = make(box, "--max-price", "completion=5")
    status, code, message = error(ask(box, key))
    assert (status, code) == (403, "offer_not_allowed") and "is more than $5.00" in message


def test_a_key_is_used_only_from_its_networks(box: Farebox) -> None:
    key = make(box, "--allow-ip", "198.51.100.0/24", "--allow-ip", "2001:db8::/32")
    for address in ("198.51.100.7", "6.6.6.6, 198.51.100.7", "2001:db8::5", "[2001:db8::5]:443"):
        assert ask(box, key, **{"x-forwarded-for": address}).status == 200
    for address in ("198.51.101.7", "198.51.100.7, 6.6.6.6", "2001:db9::5", "nonsense"):
        status, code, message = error(ask(box, key, **{"x-forwarded-for": address}))
        assert (status, code) == (403, "address_not_allowed") and "it may be from `198.51.100.0/24`, `2001:db8::/32`" in message
        assert box.get("/v1/key", key=key, headers={"x-forwarded-for": address}).status == 403
        assert box.get("/v1/models", key=key, headers={"x-forwarded-for": address}).status == 403
    assert error(ask(box, key))[0] == 403, "without the header it comes from the proxy itself"


def test_scopes_exclude_each_other(box: Farebox) -> None:
    calls, reads, manages = (make(box, "--scope", scope) for scope in ("inference", "read_usage", "manage"))
    assert ask(box, calls).status == 200
    status, code, message = error(box.get("/v1/usage", key=calls))
    assert (status, code) == (403, "scope_missing") and "`read_usage`" in message and "it has `inference`" in message
    for key in (reads, manages):
        assert error(ask(box, key))[:2] == (403, "scope_missing")
        counted = {"model": "k/two", "messages": MESSAGES}
        assert box.post("/v1/messages/count_tokens", counted, key=key).status == 403
        assert box.get("/v1/usage", key=key).status == 200 and box.get("/v1/credits", key=key).status == 200
    assert box.get("/v1/key", key=calls).json()["data"]["is_management_key"] is False
    assert box.get("/v1/key", key=manages).json()["data"]["is_management_key"] is True


def test_a_change_is_in_force_within_a_second(box: Farebox) -> None:
    made = box.do("keys", "create", "--account", "default")
    assert ask(box, made["key"], "k/two").status == 200
    box.cli("keys", "update", made["id"], "--allow-model", "k/one")
    wait_until(lambda: ask(box, made["key"], "k/two").status == 403, "the list is in force", timeout_s=3)
    box.cli("keys", "update", made["id"], "--allow-any", "model")
    wait_until(lambda: ask(box, made["key"], "k/two").status == 200, "the list is gone", timeout_s=3)


def test_a_projects_key_sees_only_its_project(box: Farebox) -> None:
    inside = box.do("projects", "create", "shop", "--account", "default")["id"]
    within, outside = make(box, "--project", "shop"), make(box)
    mine, theirs = (ask(box, key).headers["x-generation-id"] for key in (within, outside))
    box.wait_posted()
    assert box.get(f"/v1/generation?id={mine}", key=within).status == 200
    assert box.get(f"/v1/generation?id={theirs}", key=within).status == 404
    assert box.get(f"/v1/generation?id={mine}", key=outside).status == 200, "a key of the account sees all of it"
    lines = box.get("/v1/usage?group_by=project", key=within).json()["data"]
    assert [(line["project"], line["requests"]) for line in lines] == [(inside, 1)]
    assert box.get("/v1/usage?project=other", key=within).status == 404
    every = box.get("/v1/usage?group_by=project", key=outside).json()["data"]
    assert sum(line["requests"] for line in every) > 1
    compared = box.get("/v1/compare", key=within).json()
    assert compared["total"]["requests"] == 1
    for path in ("/v1/credits", "/v1/invoices", "/v1/invoices/X-1"):
        assert error(box.get(path, key=within))[:2] == (403, "project_key")


def test_when_a_key_was_used_is_written_now_and_then(box: Farebox, used: str) -> None:
    wait_until(lambda: last_used(box, used), "the use is noted", timeout_s=30)
