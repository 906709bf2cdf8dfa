"""Anthropic's and OpenAI's SDKs in a loop of tools with a stand-in for Gemini, which wants its calls back as it signed them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess

SIGNED = {"google": {"thought_signature": "EjQKMgEMOdbHJChLX75QUCJjyYlm+q/bGa=="}}
SCHEMA: Any = {"type": "object", "properties": {"at": {"type": "string"}}}
MESSAGES_TOOL: Any = {"name": "look", "description": "Look at it", "input_schema": SCHEMA}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}


def call(id: str) -> dict[str, Any]:
    return {"function": {"arguments": '{"at":"it"}', "name": "look"}, "id": id, "type": "function"}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Two calls, of which the first is signed; then, once they come back, whether they came back as they were."""
    turns = [message["tool_calls"] for message in asked["messages"] if message.get("tool_calls")]
    if not turns:
        return {"role": "assistant", "tool_calls": [call("c1") | {"extra_content": SIGNED}, call("c2")]}
    kept = [[one.get("extra_content") for one in calls] == [SIGNED, None] for calls in turns]
    return {"role": "assistant", "content": "kept" if all(kept) else f"lost: {turns}"}


class Gemini(BaseHTTPRequestHandler):
    """Streams as Google does: whole calls without an index, the role in every chunk, `stop` at the end."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message, head = answer(asked), {"id": "g1", "created": 1, "model": asked["model"]}
        counts = {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 9}}
        if asked.get("stream"):
            deltas: list[Any] = [(message, None), ({"role": "assistant"}, "stop")]
            chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
            chunks[-1] |= counts
            body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
        else:
            end = "tool_calls" if "tool_calls" in message else "stop"
            body = json.dumps(head | counts | {"choices": [{"index": 0, "message": message, "finish_reason": end}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if asked.get("stream") else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def gemini() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gemini) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.full
def test_signatures_survive_the_loops_of_both_sdks_and_claude_goes_on_with_them(tmp_path: Path) -> None:
    with gemini() as url, SimulatorProcess() as simulator:
        config = f'[providers.google]\nbase_url = "{url}"\napi_key = "k"\n'
        config += provider("ant", f"{simulator.origin}/v1", wire="anthropic_messages")
        config += model("s/gemini", offer("google", "gemini-3-flash-preview")) + model("s/claude", offer("ant", "sim+tokens=12"))
        with (
            Farebox(tmp_path / "box", config=config) as box,
            anthropic.Anthropic(base_url=box.base, api_key=box.key, max_retries=0) as messages,
            openai.OpenAI(base_url=f"{box.base}/v1", api_key=box.key, max_retries=0) as chat,
        ):
            for stream in (False, True):
                messages_loop(messages, stream)
                chat_loop(chat, stream)
            box.wait_posted()
            box.check_books()


def messages_loop(client: anthropic.Anthropic, stream: bool) -> None:
    asked: dict[str, Any] = {"max_tokens": 100, "tools": [MESSAGES_TOOL], "messages": [{"role": "user", "content": "go"}]}
    if stream:
        with client.messages.stream(model="s/gemini", **asked) as events:
            first = events.get_final_message()
    else:
        first = client.messages.create(model="s/gemini", **asked)
    assert ([block.type for block in first.content], first.stop_reason) == (["thinking", "tool_use", "tool_use"], "tool_use")
    results = [{"type": "tool_result", "tool_use_id": one.id, "content": "x"} for one in first.content if one.type == "tool_use"]
    asked["messages"] += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    (said,) = client.messages.create(model="s/gemini", **asked).content
    assert said.type == "text" and said.text == "kept"
    assert client.messages.create(model="s/claude", **asked).stop_reason == "end_turn"
    asked |= {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    with pytest.raises(anthropic.BadRequestError, match="another model began it"):
        client.messages.create(model="s/claude", **asked)
    allowed = {"x-farebox-drop-unsupported": "true"}
    dropped = client.messages.with_raw_response.create(model="s/claude", extra_headers=allowed, **asked)
    assert dropped.headers["x-farebox-dropped"] == "thinking"


def chat_loop(client: openai.OpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {"max_tokens": 100, "tools": [CHAT_TOOL], "messages": [{"role": "user", "content": "go"}]}
    if stream:
        with client.chat.completions.stream(model="s/gemini", **asked) as events:
            first: Any = events.get_final_completion()
    else:
        first = client.chat.completions.create(model="s/gemini", **asked)
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message.model_dump(exclude_none=True)
    for one in message["tool_calls"]:
        one["function"].pop("parsed_arguments", None)
    results = [{"role": "tool", "tool_call_id": one["id"], "content": "x"} for one in message["tool_calls"]]
    asked["messages"] += [message, *results]
    assert client.chat.completions.create(model="s/gemini", **asked).choices[0].message.content == "kept"
    assert client.chat.completions.create(model="s/claude", **asked).choices[0].finish_reason == "stop"
