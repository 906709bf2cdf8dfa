"""Keys managed over HTTP with management keys, in three dialects: OpenRouter's, LiteLLM's, and new-api's balance endpoints."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.running import Farebox, Reply, model, offer, provider

from farebox.gate import keys as secrets
from farebox.simulator.testing import SimulatorProcess

MESSAGES = [{"role": "user", "content": "hi"}]


class Site:
    """A gateway, and a management key of its first account."""

    def __init__(self, box: Farebox) -> None:
        self.box = box
        self.boss = box.do("keys", "create", "--account", "default", "--name", "boss", "--scope", "manage")

    def send(self, method: str, path: str, body: Any = None, *, key: str = "", status: int = 200) -> Any:
        reply = self.raw(method, path, body, key=key)
        assert reply.status == status, reply.body
        return reply.json()

    def raw(self, method: str, path: str, body: Any = None, *, key: str = "") -> Reply:
        import json

        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.box.request(method, path, data, key=key or self.boss["key"])

    def chat(self, key: str, slug: str = "k/one") -> Reply:
        return self.box.post("/v1/chat/completions", {"model": slug, "messages": MESSAGES, "max_tokens": 20}, key=key)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("keyapi") / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1")
        text += model("k/one", offer("lab", "sim+tokens=5")) + model("k/two", offer("lab", "sim+tokens=5"))
        with Farebox(tmp_path_factory.mktemp("keyapi") / "box", config=text) as box:
            yield Site(box)


# --- OpenRouter's dialect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
def test_openrouters_life_of_a_key(site: Site, base: str) -> None:
    asked = {"name": "ci", "limit": 5.25, "limit_reset": "daily", "allowed_models": ["k/one"], "tags": ["x"]}
    made = site.send("POST", f"{base}/keys", asked, status=201)
    key, about = made["key"], made["data"]
    assert secrets.looks_valid(key) and about["label"] == secrets.hint(key)
    assert (about["name"], about["limit"], about["limit_reset"], about["limit_remaining"]) == ("ci", 5.25, "daily", 5.25)
    assert about["scopes"] == ["inference", "read_usage"] and about["allowed_models"] == ["k/one"]
    assert site.chat(key).status == 200 and site.chat(key, "k/two").status == 403, "in force at once, where it was made"
    site.box.wait_posted()
    path = f"{base}/keys/{about['hash']}"
    seen = site.send("GET", path)["data"]
    assert seen["usage"] > 0 and seen["usage"] == seen["usage_daily"] == seen["usage_monthly"]
    assert round((seen["limit"] - seen["limit_remaining"] - seen["usage"]) * 10**9) == 0
    assert key not in site.raw("GET", path).body.decode() and key not in site.raw("GET", f"{base}/keys").body.decode()
    changed = site.send("PATCH", path, {"name": "ci 2", "limit": None, "allowed_models": []})["data"]
    assert (changed["name"], changed["limit"], changed["limit_reset"], changed["allowed_models"]) == ("ci 2", None, None, [])
    assert changed["tags"] == ["x"], "what is not named stays"
    assert site.chat(key, "k/two").status == 200
    assert site.send("PATCH", path, {"disabled": True})["data"]["disabled"] is True
    assert site.chat(key).json()["error"]["code"] == "disabled_key"
    assert about["hash"] not in [row["hash"] for row in site.send("GET", f"{base}/keys")["data"]]
    listed = site.send("GET", f"{base}/keys?include_disabled=true")["data"]
    assert about["hash"] in [row["hash"] for row in listed]
    assert site.send("PATCH", path, {"disabled": False})["data"]["disabled"] is False
    assert site.send("DELETE", path) == {"deleted": True}
    assert site.chat(key).json()["error"]["code"] == "revoked_key"
    for method in ("GET", "DELETE"):
        site.send(method, path, status=404)
    site.send("PATCH", path, {"name": "x"}, status=404)


def test_pages_follow_by_offset(site: Site) -> None:
    before = site.send("GET", "/v1/keys")["total_count"]
    names = [f"page-{index}" for index in range(3)]
    for name in names:
        site.send("POST", "/v1/keys", {"name": name}, status=201)
    rest = site.send("GET", f"/v1/keys?offset={before}")
    assert [row["name"] for row in rest["data"]] == names and rest["total_count"] == before + 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x", "limits": 5}, "limits"),
        ({"name": "x", "limit": -1}, "limit"),
        ({"name": "x", "limit": "a lot"}, "limit"),
        ({"name": "x", "limit": True}, "limit"),
        (b'{"name": "x", "limit": 1e400}', "limit"),
        (b'{"name": "x", "limit": 1e-999999999}', "limit"),
        ({"name": "x", "limit": 0.0000000001}, "limit"),
        ({"name": "x", "limit_reset": "daily"}, "limit_reset"),
        ({"name": "x", "limit": 1, "limit_reset": "yearly"}, "limit_reset"),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "scopes": ["manage"]}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes"),
        ({"name": "x", "allowed_models": ["k/onr"]}, "allowed_models[0]"),
        ({"name": "x", "allowed_models": "k/one"}, "allowed_models"),
        ({"name": "x", "allowed_providers": ["nobody"]}, "allowed_providers[0]"),
        ({"name": "x", "allowed_ips": ["10.0.0.1/8"]}, "allowed_ips[0]"),
        ({"name": "x", "max_price": {"prompts": 1}}, "max_price.prompts"),
        (b'{"name": "x", "max_price": 1e999999999}', "max_price.prompt"),
        ({"name": "x", "tags": [""]}, "tags[0]"),
        ({"name": "x", "metadata": {"a": "b" * 5000}}, "metadata"),
        ({"name": "x" * 201}, "name"),
        (b"[]", None),
        (b"{", None),
        (b"[" * 50_000, None),
        (b'{"name": "' + b"x" * 70_000 + b'"}', None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_understood_names_its_field(site: Site, body: Any, param: str | None) -> None:
    before = site.send("GET", "/v1/keys")["total_count"]
    error = site.send("POST", "/v1/keys", body, status=400)["error"]
    assert error["param"] == param and error["message"]
    assert site.send("GET", "/v1/keys")["total_count"] == before


def test_a_price_so_small_that_it_is_none_allows_nothing(site: Site) -> None:
    """`1e-999999999` must neither fill the memory nor be taken for no cap."""
    made = site.send("POST", "/v1/keys", b'{"name": "x", "max_price": 1e-999999999}', status=201)
    assert made["data"]["max_price"] == {"prompt": "0.00", "completion": "0.00"}
    assert site.chat(made["key"]).status == 403


def test_a_management_key_makes_and_changes_no_management_key(site: Site) -> None:
    other = site.box.do("keys", "create", "--account", "default", "--scope", "manage")
    for method, path, body in (
        ("PATCH", f"/v1/keys/{other['id']}", {"name": "mine"}),
        ("DELETE", f"/v1/keys/{other['id']}", None),
        ("DELETE", f"/v1/keys/{site.boss['id']}", None),
        ("POST", "/key/regenerate", {"key": site.boss["id"]}),
        ("POST", "/key/block", {"key": other["key"]}),
    ):
        assert "command line only" in site.send(method, path, body, status=403)["error"]["message"]
    assert site.send("GET", f"/v1/keys/{other['id']}", key=other["key"])["data"]["scopes"] == ["manage"]


def test_a_keys_tags_are_on_its_calls(site: Site) -> None:
    made = site.send("POST", "/v1/keys", {"name": "tagged", "tags": ["team-a", "x"]}, status=201)
    body = {"model": "k/one", "messages": MESSAGES, "max_tokens": 20}
    reply = site.box.post("/v1/chat/completions", body, key=made["key"], headers={"x-farebox-tags": "x, y"})
    assert reply.status == 200
    site.box.wait_posted()
    lines = site.send("GET", f"/v1/usage?group_by=tag&key={made['data']['hash']}", key=made["key"])["data"]
    assert {line["tag"]: line["requests"] for line in lines} == {"team-a": 1, "x": 1, "y": 1}
    many = ",".join(f"t{index}" for index in range(15))
    refused = site.box.post("/v1/chat/completions", body, key=made["key"], headers={"x-farebox-tags": many})
    assert refused.status == 400 and "17 tags with the 2 of its API key" in refused.json()["error"]["message"]


def test_every_change_is_in_the_audit_log(site: Site) -> None:
    made = site.send("POST", "/v1/keys", {"name": "watched"}, status=201)
    id = made["data"]["hash"]
    site.send("PATCH", f"/v1/keys/{id}", {"limit": 3})
    rotated = site.send("POST", "/key/regenerate", {"key": id})
    site.send("DELETE", f"/v1/keys/{id}")
    log = site.box.cli("audit", "--subject", id)
    assert log["whole"] is True
    assert [entry["action"] for entry in log["entries"]] == ["key.revoke", "key.rotate", "key.change", "key.create"]
    assert {(entry["actor"], entry["address"]) for entry in log["entries"]} == {(f"key:{site.boss['id']}", "127.0.0.1")}
    assert log["entries"][2]["after"] == {"budget_nano": 3 * 10**9} and log["entries"][2]["before"] == {"budget_nano": None}
    text = str(site.box.cli("audit", "--limit", "10000"))
    for secret in (made["key"], rotated["key"], site.boss["key"]):
        assert secret not in text and secret[3:20] not in text


# --- LiteLLM's dialect --------------------------------------------------------------------------------------------------


def test_litellms_life_of_a_key(site: Site) -> None:
    asked = {
        "key_alias": "team bot", "duration": "30d", "models": ["k/one"], "max_budget": 2, "budget_duration": "30d",
        "metadata": {"team": "a"}, "user_id": "u-1", "tags": ["t"], "tpm_limit": None, "aliases": {},
    }  # fmt: skip
    made = site.send("POST", "/key/generate", asked)
    key = made["key"]
    assert (made["key_alias"], made["max_budget"], made["budget_duration"]) == ("team bot", 2, "1mo")
    limited = site.send("POST", "/key/update", {"key": key, "rpm_limit": 50, "max_parallel_requests": 2})
    assert (limited["rpm_limit"], limited["max_parallel_requests"], limited["tpm_limit"]) == (50, 2, None)
    assert site.chat(key).headers["x-ratelimit-limit-requests"] == "50"
    lifted = site.send("POST", "/key/update", {"key": key, "rpm_limit": None})
    assert (lifted["rpm_limit"], lifted["max_parallel_requests"]) == (None, 2)
    assert made["models"] == ["k/one"] and made["expires"] and made["key_name"] == secrets.hint(key)
    assert made["user_id"] == "u-1" and made["metadata"] == {"team": "a", "user_id": "u-1"} and made["blocked"] is False
    for name in (made["token"], key):
        told = site.send("GET", f"/key/info?key={name}")
        assert told["key"] == made["token"] and told["info"]["key_alias"] == "team bot" and "key" not in told["info"]
    for query in ("", f"?key={key}", f"?key={made['token']}"):
        assert site.send("GET", f"/key/info{query}", key=key)["key"] == made["token"], "a key may ask about itself"
    assert site.send("GET", f"/key/info?key={site.boss['id']}", key=key, status=403)["error"]["code"] == "scope_missing"
    updated = site.send("POST", "/key/update", {"key": key, "max_budget": 3, "models": ["all-proxy-models"], "user_id": "u-2"})
    assert (updated["key"], updated["max_budget"], updated["budget_duration"]) == (made["token"], 3, "1mo")
    assert updated["models"] == [] and updated["metadata"] == {"team": "a", "user_id": "u-2"}
    for _ in range(2):
        assert site.send("POST", "/key/block", {"key": key})["blocked"] is True
        assert site.chat(key).status == 403
    assert site.send("POST", "/key/unblock", {"key": key})["blocked"] is False
    assert site.chat(key).status == 200
    renewed = site.send("POST", f"/key/{made['token']}/regenerate", {"grace_period": "1h"})
    assert renewed["key"] != key and renewed["token"] == made["token"]
    assert site.chat(renewed["key"]).status == 200 and site.chat(key).status == 200, "both, for an hour"
    again = site.send("POST", "/v1/key/regenerate", {"key": renewed["key"], "max_budget": 4})
    assert again["max_budget"] == 4 and site.chat(again["key"]).status == 200 and site.chat(renewed["key"]).status == 401
    page = site.send("GET", "/key/list?page=1&size=2")
    assert len(page["keys"]) == 2 and page["total_pages"] == -(-page["total_count"] // 2) and page["current_page"] == 1
    (full,) = site.send("GET", "/key/list?return_full_object=true&key_alias=team%20bot")["keys"]
    assert full["token"] == made["token"]
    assert site.send("POST", "/key/delete", {"keys": [again["key"]]}) == {"deleted_keys": [made["token"]]}
    assert site.chat(again["key"]).status == 401
    site.send("GET", f"/key/info?key={made['token']}", status=404)


def test_litellm_fields_that_promise_something_else_are_refused_by_name(site: Site) -> None:
    for body, param in (
        ({"model_rpm_limit": {"a": 5}}, "model_rpm_limit"),
        ({"rpm_limit": 0}, "rpm_limit"),
        ({"tpm_limit": "many"}, "tpm_limit"),
        ({"guardrails": ["x"]}, "guardrails"),
        ({"key": "sk-chosen"}, "key"),
        ({"permissions": {"a": True}}, "permissions"),
        ({"key_type": "management"}, "key_type"),
        ({"duration": "soon"}, "duration"),
        ({"max_budget": 1, "budget_duration": "3d"}, "budget_duration"),
        ({"team_id": "a", "project_id": "b"}, "project_id"),
        ({"max_budgets": 1}, "max_budgets"),
    ):
        assert site.send("POST", "/key/generate", body, status=400)["error"]["param"] == param
    for body in ({"team_id": "prj-other"}, {"organization_id": "acc-other"}):
        site.send("POST", "/key/generate", body, status=404)
    assert site.send("POST", "/key/generate")["key"].startswith("fb-"), "all of them are optional"


def test_litellm_deletes_all_or_none(site: Site) -> None:
    first = site.send("POST", "/key/generate", {"key_alias": "del-1"})
    site.send("POST", "/key/delete", {"keys": [first["token"], "key-none"]}, status=404)
    assert site.chat(first["key"]).status == 200
    site.send("POST", "/key/delete", {"keys": [first["token"], site.boss["id"]]}, status=403)
    assert site.chat(first["key"]).status == 200
    site.send("POST", "/key/delete", {"key_aliases": ["del-1", "del-2"]}, status=404)
    assert site.send("POST", "/key/delete", {"key_aliases": ["del-1"]}) == {"deleted_keys": [first["token"]]}
    assert site.send("POST", "/key/delete", {}, status=400)["error"]["param"] == "keys"
    site.send("POST", "/key/bulk", {}, status=404)


# --- new-api's dialect --------------------------------------------------------------------------------------------------


def test_newapis_balance_of_a_key_with_a_budget(site: Site) -> None:
    made = site.send("POST", "/v1/keys", {"name": "desk", "limit": 2, "allowed_models": ["k/one"]}, status=201)
    key = made["key"]
    assert site.chat(key).status == 200
    site.box.wait_posted()
    spent = site.send("GET", f"/v1/keys/{made['data']['hash']}")["data"]["usage"]
    told = site.send("GET", "/v1/dashboard/billing/subscription", key=key)
    assert (told["object"], told["hard_limit_usd"], told["access_until"]) == ("billing_subscription", 2, 0)
    used = site.send("GET", "/v1/dashboard/billing/usage?start_date=2026-01-01&end_date=2026-12-31", key=key)
    assert used["object"] == "list" and round(used["total_usage"] * 10**7) == round(spent * 10**9) > 0
    data = site.send("GET", "/api/usage/token", key=key)["data"]
    assert data["total_granted"] == 1_000_000 and data["total_used"] == round(spent * 500_000)
    assert data["total_available"] == data["total_granted"] - data["total_used"] and data["unlimited_quota"] is False
    assert data["model_limits"] == {"k/one": True} and data["model_limits_enabled"] is True


def test_newapis_balance_of_an_account(site: Site) -> None:
    made = site.box.customer("rich", credit_nano=7 * 10**9)
    assert site.send("GET", "/dashboard/billing/subscription", key=made.secret)["hard_limit_usd"] == 7
    assert site.send("GET", "/api/usage/token", key=made.secret)["data"]["total_available"] == 3_500_000
    narrow = site.send("POST", "/v1/keys", {"name": "n", "scopes": ["inference"]}, status=201)["key"]
    told = site.send("GET", "/api/usage/token", key=narrow)["data"]
    assert told["unlimited_quota"] is True and told["total_granted"] == 0, "the account's balance is none of its business"
