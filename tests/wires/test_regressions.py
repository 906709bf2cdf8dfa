"""Bugs that users of other gateways reported, each as a case of our own. The threads are listed in the names' comments."""

import json
from typing import Any

import msgspec

from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.dialect import Dialect, UsageRules
from farebox.wires.neutral import Done, Finish, UsageSeen
from farebox.wires.usage import Usage

OPENAI = UsageRules()


def fields(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])


# Cached tokens priced wrong: litellm #9812, #11364, PR #40016, PR #31282; new-api #3110, #3503 (negative tokens)


def test_cached_tokens_are_never_counted_twice_nor_below_zero() -> None:
    chat = openai_chat.usage.read(
        b'{"prompt_tokens":1000,"completion_tokens":10,"total_tokens":1010,"prompt_tokens_details":{"cached_tokens":900}}', OPENAI
    )
    messages = anthropic_messages.usage.read(b'{"input_tokens":100,"cache_read_input_tokens":900,"output_tokens":10}', OPENAI)
    assert chat.usage == messages.usage == Usage(input=100, cache_read=900, output=10)
    assert (
        json.loads(json.dumps(openai_chat.usage.write(Usage(input=100, cache_read=900, output=10), {})))["prompt_tokens"] == 1000
    )
    assert anthropic_messages.usage.write(Usage(input=100, cache_read=900, output=10), {})["input_tokens"] == 100
    for cached in (1001, 5000):
        body = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": cached}}
        assert openai_chat.usage.read(json.dumps(body).encode(), OPENAI).usage is None


def test_one_hour_writes_are_a_lane_of_their_own() -> None:
    body = {
        "input_tokens": 1,
        "output_tokens": 1,
        "cache_creation_input_tokens": 7,
        "cache_creation": {"ephemeral_1h_input_tokens": 7},
    }
    usage = anthropic_messages.usage.read(json.dumps(body).encode(), OPENAI).usage
    assert usage == Usage(input=1, cache_write_1h=7, output=1)


# Zero or absent usage: litellm #37923 (streams at $0), #37992 (zero replaced by a guess), CLIProxyAPI PR #2762, OmniRoute #9750


def test_a_stream_without_usage_reports_none_rather_than_zero() -> None:
    body = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    reader = openai_chat.stream.Reader(Dialect())
    events = reader.feed(body)
    assert not any(isinstance(event, UsageSeen) for event in events) and isinstance(events[-1], Done)


def test_a_reported_zero_is_believed() -> None:
    report = openai_chat.usage.read(b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}', OPENAI)
    assert (report.usage, report.anomalies) == (Usage(), ())


def test_an_answer_without_usage_is_written_without_usage() -> None:
    body = b'{"id":"x","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    completion = openai_chat.response.read(body, Dialect())
    assert completion.usage.usage is None
    for wire in (openai_chat, anthropic_messages):
        assert "usage" not in json.loads(wire.response.write(completion, id="1", model="m", provider="p", extra_usage={}))


def test_usage_is_always_asked_for_in_streams() -> None:
    conversation = openai_chat.request.to_neutral(fields({"messages": [{"role": "user", "content": "x"}]}))
    kwargs: dict[str, Any] = {"model": "m", "stream": True, "output_cap": 1, "unsupported": []}
    assert json.loads(openai_chat.request.from_neutral(conversation, dialect=Dialect(), **kwargs))["stream_options"] == {
        "include_usage": True
    }
    assert "stream_options" not in json.loads(
        openai_chat.request.from_neutral(conversation, dialect=Dialect(stream_usage_option=False), **kwargs)
    )


# Tool calls lost or mangled between wires: litellm #25836, #25561, #25390, #25605, #25869, #18238


def test_parallel_calls_and_their_results_survive_both_translations() -> None:
    chat_talk = [
        {"role": "user", "content": "weather in A and B"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "w", "arguments": '{"c":"A","n":9007199254740993}'}},
            {"id": "call_b", "type": "function", "function": {"name": "w", "arguments": '{"c":"B"}'}},
        ]},
        {"role": "tool", "tool_call_id": "call_b", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_a", "content": "sun"},
    ]  # fmt: skip
    conversation = openai_chat.request.to_neutral(fields({"messages": chat_talk}))
    refused: list[str] = []
    as_messages = anthropic_messages.request.from_neutral(
        conversation, model="m", stream=False, output_cap=5, dialect=Dialect(), unsupported=refused
    )
    back = openai_chat.request.from_neutral(
        anthropic_messages.request.to_neutral(msgspec.json.decode(as_messages, type=dict[str, msgspec.Raw])),
        model="m", stream=False, output_cap=5, dialect=Dialect(), unsupported=refused,
    )  # fmt: skip
    assert refused == []
    assert json.loads(back)["messages"] == chat_talk


def test_a_call_without_arguments_is_an_empty_object_not_an_empty_string() -> None:
    body = {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}], "stop_reason": "tool_use", "usage": {}}
    completion = anthropic_messages.response.read(json.dumps(body).encode(), Dialect())
    message = json.loads(openai_chat.response.write(completion, id="1", model="m", provider="p", extra_usage={}))["choices"][0]
    assert message["message"]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert message["finish_reason"] == "tool_calls"


def test_arguments_that_are_no_object_still_reach_a_messages_client() -> None:
    for arguments, given in (("", {}), ("oops", {"input": "oops"}), ("[1]", {"input": "[1]"}), ('{"a":1e2}', {"a": 100.0})):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        body = {"choices": [{"index": 0, "message": {"tool_calls": [call]}, "finish_reason": "stop"}]}
        completion = openai_chat.response.read(json.dumps(body).encode(), Dialect())
        message = json.loads(anthropic_messages.response.write(completion, id="1", model="m", provider="p", extra_usage={}))
        assert message["content"] == [{"type": "tool_use", "id": "c", "name": "f", "input": given}]
        assert message["stop_reason"] == "tool_use"


def test_calls_without_ids_get_stable_ones() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}, "id": ""}
    body = json.dumps({"id": "r1", "choices": [{"index": 0, "message": {"tool_calls": [call, call]}}]}).encode()
    ids = [part.id for part in openai_chat.response.read(body, Dialect()).choices[0].parts]  # type: ignore[union-attr]
    assert ids == ["call_r1_0_0", "call_r1_0_1"]


# A cut stream shown as a complete answer: Portkey #1797


def test_a_cut_stream_never_gives_the_terminal_marker() -> None:
    chat = openai_chat.stream.Reader(Dialect())
    events = chat.feed(b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: {"id":"x","cho') + chat.end()
    assert not chat.finished and not any(isinstance(event, (Done, Finish)) for event in events)
    assert chat.malformed == 1
