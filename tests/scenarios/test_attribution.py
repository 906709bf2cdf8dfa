"""For whom calls were made and what they were filed under: said in each client's own words, found again in every report."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
BODY = {"model": "l/a", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
CALLS: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
    (CHAT, {"user": "ann"}, {}),
    (CHAT, {}, {"x-farebox-end-user": "ann", "x-farebox-tags": "night, batch"}),
    (CHAT, {"user": "ann"}, {"x-openwebui-user-email": "zoe@example.com"}),
    (CHAT, {}, {"x-openwebui-user-email": "bob@example.com", "x-openwebui-user-id": "u-1"}),
    (CHAT, {"metadata": {"tags": ["night"]}}, {"x-litellm-end-user-id": "ann"}),
    (CHAT, {"stream": True, "metadata": {"tags": ["batch", "night"], "run": "7"}}, {"x-litellm-tags": "night"}),
    (MESSAGES, {"metadata": {"user_id": "ann"}}, {"x-farebox-tags": "batch"}),
)
USERS = {"ann": 5, "bob@example.com": 1, "": 1}
TAGS = {"night": 3, "batch": 3, "": 3}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with SimulatorProcess() as simulator:
        config = provider("lab", f"{simulator.origin}/v1") + model("l/a", offer("lab", "sim+tokens=20"))
        folder = tmp_path_factory.mktemp("attribution") / "box"
        with Farebox(folder, config=config) as running:
            running.do("topup", "default", "5")
            running.do("projects", "create", "web", "--account", "default")
            key = running.do("keys", "create", "--account", "default", "--project", "web")["key"]
            for path, fields, headers in CALLS:
                reply = running.post(path, {**BODY, **fields}, key=key, headers=headers)
                assert reply.status == 200, reply.body
            assert running.post(CHAT, BODY).status == 200, "the first key is in no project"
            running.wait_posted()
            yield running


def test_the_command_line_sums_by_project_user_and_tag(box: Farebox) -> None:
    assert {row["name"]: row["calls"] for row in box.cli("usage", "--by", "project")["rows"]} == {"web": len(CALLS), "": 1}
    only = ("--account", "default", "--project", "web")
    assert {row["user"]: row["calls"] for row in box.cli("usage", "--by", "user", *only)["rows"]} == USERS
    by_tag = box.cli("usage", "--by", "tag", *only)["rows"]
    assert {row["tag"]: row["calls"] for row in by_tag} == TAGS, "a call with two tags counts in both"
    (ann,) = [row for row in box.cli("usage", "--by", "user,tag")["rows"] if (row["user"], row["tag"]) == ("ann", "batch")]
    assert ann["calls"] == 2


def test_the_usage_api_sums_the_same(box: Farebox) -> None:
    def asked(by: str, more: str = "") -> dict[str, int]:
        return {row[by]: row["requests"] for row in box.get(f"/v1/usage?group_by={by}{more}").json()["data"]}

    (project,) = [name for name in asked("project") if name]
    assert asked("project") == {project: len(CALLS), "": 1}
    assert asked("user", f"&project={project}") == USERS and asked("tag", f"&project={project}") == TAGS
    spent = [Decimal(row["usage_usd"]) for row in box.get("/v1/usage?group_by=user").json()["data"]]
    assert sum(spent) == Decimal(box.cli("usage")["total"]["charge"])


@pytest.mark.parametrize(
    ("path", "fields", "headers", "param"),
    [
        (CHAT, {"user": 7}, {}, "user"),
        (CHAT, {"user": "u" * 513}, {}, "user"),
        (CHAT, {"metadata": {"tags": ["t" * 65]}}, {}, "metadata.tags"),
        (CHAT, {"metadata": {"tags": ["a", 7]}}, {}, "metadata.tags"),
        (CHAT, {"metadata": {"tags": ["a"]}}, {"x-farebox-tags": ",".join(f"t{n}" for n in range(16))}, "metadata.tags"),
        (CHAT, {}, {"x-farebox-tags": ",".join(f"t{n}" for n in range(17))}, "x-farebox-tags"),
        (CHAT, {}, {"x-openwebui-user-id": "u" * 513}, "x-openwebui-user-id"),
    ],
)
def test_bad_words_are_a_400_that_names_them(
    box: Farebox, path: str, fields: dict[str, Any], headers: dict[str, str], param: str
) -> None:
    reply = box.post(path, {**BODY, **fields}, headers=headers)
    error = reply.json()["error"]
    assert (reply.status, error["param"]) == (400, param), error
    assert f"`{param}`" in error["message"]


def test_the_anthropic_surface_says_it_in_its_own_shape(box: Farebox) -> None:
    reply = box.post(MESSAGES, {**BODY, "metadata": {"user_id": "u" * 513}})
    assert reply.status == 400 and reply.json()["error"]["type"] == "invalid_request_error"
    assert "`metadata.user_id` is longer than 512 characters" in reply.json()["error"]["message"]
