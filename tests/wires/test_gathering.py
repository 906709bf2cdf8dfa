"""A stream put together to the answer that it is: the same words, refusals, tools and probabilities, however it was cut."""

import json
from typing import Any

import pytest

from farebox.quality.check import confidence_percent
from farebox.wires.anthropic_messages import stream as messages
from farebox.wires.dialect import Dialect
from farebox.wires.gathering import Gathering
from farebox.wires.neutral import Completion, Refusal, Text, ToolUse
from farebox.wires.openai_chat import stream as chat


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def gathered(module: Any, data: bytes, size: int) -> Completion | None:
    reader = module.Reader(Dialect())
    gathering = Gathering(reader.feed, reader.end)
    for at in range(0, len(data), size):
        gathering.feed(data[at : at + size])
    return gathering.completion()


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_chat_is_gathered_with_its_probabilities(size: int) -> None:
    half = {"content": [{"token": "a", "logprob": -0.6931471805599453}]}
    data = chunk({"role": "assistant", "content": "Grüß "}, logprobs=half) + chunk({"content": "dich"}, logprobs=half)
    found = gathered(chat, data + chunk({}, "stop") + b"data: [DONE]\n\n", size)
    assert found is not None
    (choice,) = found.choices
    assert choice.parts == (Text("Grüß dich"),) and choice.finish == "stop"
    assert choice.logprobs is not None and confidence_percent(choice.logprobs) == pytest.approx(50)


def test_refusals_tools_and_further_choices() -> None:
    call = {"index": 0, "id": "t", "function": {"name": "look", "arguments": "{}"}}
    data = chunk({"refusal": "I "}) + chunk({"refusal": "cannot"}) + chunk({}, "stop")
    data += chunk({"tool_calls": [call]}, index=1) + chunk({}, "tool_calls", index=1) + b"data: [DONE]\n\n"
    found = gathered(chat, data, 10_000)
    assert found is not None
    first, second = found.choices
    assert first.parts == (Refusal("I cannot"),) and second.parts == (ToolUse("t", "look", ""),)
    assert second.finish == "tool_calls"


def test_messages_are_gathered() -> None:
    events = [
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "no"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    data = b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)
    found = gathered(messages, data, 5)
    assert found is not None and found.choices[0].parts == (Text("no"),) and found.choices[0].finish == "length"
