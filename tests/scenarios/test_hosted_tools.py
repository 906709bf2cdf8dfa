"""Tools that providers run on their side, from outside: a clear 400 before anything is sent, held or charged, or their price."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CODE = {"type": "code_execution_20250825", "name": "code_execution"}
SAID = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}


def configuration(base: str) -> str:
    text = provider("lab", base) + provider("ant", base, wire="anthropic_messages")
    text += provider("open", base, wire="anthropic_messages", extra='uncounted_tools = ["code_execution_*"]')
    text += model("h/chat", offer("lab", "sim+tokens=5")) + model("h/messages", offer("ant", "sim+tokens=5"))
    text += model("h/priced", offer("lab", "sim+tokens=5", input="0", output="0", request="0.01"))
    return text + model("h/either", offer("ant", "sim+tokens=5", input="0.10"), offer("open", "sim+tokens=7"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Farebox, SimulatorProcess]]:
    folder = tmp_path_factory.mktemp("hosted") / "box"
    with SimulatorProcess() as simulator, Farebox(folder, config=configuration(simulator.base_url)) as running:
        yield running, simulator
        running.wait_posted()
        running.check_books()


def test_a_tool_without_a_price_is_refused_in_the_surfaces_own_words_and_never_sent(
    world: tuple[Farebox, SimulatorProcess],
) -> None:
    box, simulator = world
    before = len(simulator.requests())
    for stream in (False, True):
        chat = box.chat("h/chat", tools=[FUNCTION, {"type": "browser_search"}], stream=stream)
        error = chat.json()["error"]
        assert (chat.status, error["code"], error["param"]) == (400, "no_eligible_offer", "tools[1].type")
        assert "`browser_search`" in error["message"] and "`providers.lab.uncounted_tools`" in error["message"]
        assert [item["rule"] for item in error["farebox"]["excluded"]] == ["tools[1].type"]
        assert "x-farebox-provider" not in chat.headers
    searched = box.chat("h/chat", enable_search=True)
    assert (searched.status, searched.json()["error"]["param"]) == (400, "enable_search")
    told = box.post("/v1/messages", {"model": "h/messages", **SAID, "tools": [CODE]})
    body = told.json()
    assert (told.status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert "`tools[0].type` is `code_execution_20250825`" in body["error"]["message"]
    assert len(simulator.requests()) == before, "nothing has left"


def test_tools_of_the_client_go_as_ever(world: tuple[Farebox, SimulatorProcess]) -> None:
    box, _ = world
    assert box.chat("h/chat", tools=[FUNCTION]).status == 200
    tools = [{"type": "bash_20250124", "name": "bash"}, {"name": "f", "input_schema": {"type": "object"}}]
    assert box.post("/v1/messages", {"model": "h/messages", **SAID, "tools": tools}).status == 200


def test_a_search_is_sent_where_each_request_has_a_price(world: tuple[Farebox, SimulatorProcess]) -> None:
    box, _ = world
    asked: dict[str, Any] = {"web_search_options": {}}
    assert box.chat("h/chat", **asked).json()["error"]["param"] == "web_search_options"
    found = box.chat("h/priced", **asked)
    assert (found.status, found.json()["usage"]["cost_usd"]) == (200, "0.01")


def test_what_the_operator_accepts_is_sent_and_nothing_else(world: tuple[Farebox, SimulatorProcess]) -> None:
    box, simulator = world
    before = len(simulator.requests())
    body = {"model": "h/either", **SAID, "tools": [CODE]}
    found = box.post("/v1/messages", body)
    assert (found.status, found.headers["x-farebox-provider"]) == (200, "open"), "the cheaper one cannot"
    assert len(simulator.requests()) == before + 1
    refused = box.post("/v1/messages", {**body, "tools": [CODE, {"type": "advisor_20260301", "name": "advisor"}]})
    rules = {item["provider"]: item["rule"] for item in refused.json()["error"]["farebox"]["excluded"]}
    assert (refused.status, rules) == (400, {"ant": "tools[0].type", "open": "tools[1].type"})
