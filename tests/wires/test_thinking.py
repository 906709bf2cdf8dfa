"""Thinking: how it is asked for on each side, and how its signatures survive a conversation through the other wire."""

import json
from typing import Any

import msgspec
import pytest
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import Conversation, ModelTraits

CLAUDE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "tool_use", "stop_sequence": None,
    "content": [
        {"type": "thinking", "thinking": "Let me look.", "signature": "c2ln+/=="},
        {"type": "redacted_thinking", "data": "opaque=="},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "it"}},
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2},
}  # fmt: skip
WRITER: dict[str, Any] = {"id": "gen-1", "model": "claude", "provider": "anthropic"}


def fields(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])


def echoed_to_claude(assistant: dict[str, Any], traits: ModelTraits | None = None) -> list[dict[str, Any]]:
    """The assistant turn that Claude gets when a chat client sends `assistant` back."""
    conversation = openai_chat.request.to_neutral(fields({"messages": [
        {"role": "user", "content": "go"},
        assistant,
        {"role": "tool", "tool_call_id": "toolu_1", "content": "seen"},
    ]}))  # fmt: skip
    refused: list[str] = []
    body = json.loads(
        anthropic_messages.request.from_neutral(
            conversation, model="c", stream=False, output_cap=9, dialect=Dialect(), unsupported=refused, traits=traits
        )
    )
    assert refused == []
    return body["messages"][1]["content"]


def test_signed_thinking_survives_a_chat_client() -> None:
    completion = anthropic_messages.response.read(json.dumps(CLAUDE).encode(), Dialect())
    message = json.loads(openai_chat.response.write(completion, **WRITER, extra_usage={}))["choices"][0]["message"]
    assert message["reasoning_content"] == "Let me look."
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Let me look.", "signature": "c2ln+/==", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "opaque==", "format": "anthropic-claude-v1", "index": 1},
    ]
    assert echoed_to_claude(message) == CLAUDE["content"]


def claude_stream() -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1, "output_tokens": 1}}}
    ]
    content: Any = CLAUDE["content"]
    starts = [
        {"type": "thinking", "thinking": "", "signature": ""},
        content[1],
        {"type": "text", "text": ""},
        content[3] | {"input": {}},
    ]
    deltas: list[list[dict[str, Any]]] = [
        [{"type": "thinking_delta", "thinking": "Let me "}, {"type": "thinking_delta", "thinking": "look."},
         {"type": "signature_delta", "signature": "c2ln+/=="}],
        [],
        [{"type": "text_delta", "text": "Looking."}],
        [{"type": "input_json_delta", "partial_json": ""}, {"type": "input_json_delta", "partial_json": '{"at": "it"}'}],
    ]  # fmt: skip
    for i, (start, pieces) in enumerate(zip(starts, deltas, strict=True)):
        events.append({"type": "content_block_start", "index": i, "content_block": start})
        events.extend({"type": "content_block_delta", "index": i, "delta": delta} for delta in pieces)
        events.append({"type": "content_block_stop", "index": i})
    events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}})
    events.append({"type": "message_stop"})
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def chat_chunks() -> list[dict[str, Any]]:
    reader = anthropic_messages.stream.Reader(Dialect())
    writer = openai_chat.stream.Writer(**WRITER, created=1, include_usage=False)
    body = b"".join(writer.write(event) for event in reader.feed(claude_stream()) + reader.end())
    return [json.loads(line[6:]) for line in body.decode().split("\n\n") if line]


def test_signed_thinking_survives_a_streaming_chat_client_that_joins_by_index() -> None:
    state = ChatCompletionStreamState()
    for chunk in chat_chunks():
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    message = state.current_completion_snapshot.choices[0].message.model_dump(exclude_none=True)
    for call in message["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    assert echoed_to_claude(message) == CLAUDE["content"]


def test_signed_thinking_survives_a_streaming_chat_client_that_only_collects() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in chat_chunks()]
    message = {
        "role": "assistant",
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "reasoning_details": [detail for delta in deltas for detail in delta.get("reasoning_details", [])],
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}],
    }
    assert echoed_to_claude(message) == CLAUDE["content"]


def test_thinking_that_the_target_did_not_sign_is_left_out_without_a_complaint() -> None:
    assistant = {
        "role": "assistant",
        "content": "ok",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "format": "google-gemini-v1", "index": 0}],
        "tool_calls": [{"id": "toolu_1", "function": {"name": "look", "arguments": "{}"}}],
    }
    assert [block["type"] for block in echoed_to_claude(assistant)] == ["text", "tool_use"]
    signed = {"type": "reasoning.text", "text": "t", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    other_signer = ModelTraits(reasoning_format="minimax-v1")
    assert [b["type"] for b in echoed_to_claude(assistant | {"reasoning_details": [signed]}, other_signer)] == [
        "text",
        "tool_use",
    ]
    unsigned = {"reasoning_details": [], "reasoning_content": "mine"}
    assert [block["type"] for block in echoed_to_claude(assistant | unsigned)] == ["text", "tool_use"]


def chat_of(conversation: Conversation, dialect: Dialect, **traits: Any) -> tuple[dict[str, Any], list[str]]:
    refused: list[str] = []
    known = ModelTraits(**traits)
    body = openai_chat.request.from_neutral(
        conversation, model="m", stream=False, output_cap=10_000, dialect=dialect, unsupported=refused, traits=known
    )
    return json.loads(body), refused


def claude_of(conversation: Conversation, **traits: Any) -> tuple[dict[str, Any], list[str]]:
    refused: list[str] = []
    known = ModelTraits(**traits)
    body = anthropic_messages.request.from_neutral(
        conversation, model="m", stream=False, output_cap=10_000, dialect=Dialect(), unsupported=refused, traits=known
    )
    return json.loads(body), refused


def asked_on_chat(**body: Any) -> Conversation:
    return openai_chat.request.to_neutral(fields({"messages": [{"role": "user", "content": "hi"}]} | body))


def asked_on_messages(**body: Any) -> Conversation:
    return anthropic_messages.request.to_neutral(
        fields({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10_000} | body)
    )


def test_claude_thinking_sent_to_a_vendor_of_details_goes_unmodified_and_in_order() -> None:
    conversation = asked_on_messages(
        messages=[{"role": "user", "content": "go"}, {"role": "assistant", "content": CLAUDE["content"]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"}]}]
    )  # fmt: skip
    body, _ = chat_of(conversation, Dialect(reasoning_reply="reasoning_details"))
    assert body["messages"][1]["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Let me look.", "signature": "c2ln+/==", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "opaque==", "format": "anthropic-claude-v1", "index": 1},
    ]
    body, _ = chat_of(conversation, Dialect(reasoning_echo_required=True))
    assert body["messages"][1]["reasoning_content"] == " "  # DeepSeek wants the field, and cannot read Claude's


def test_plain_thinking_goes_back_where_the_vendor_looks_for_it() -> None:
    talk = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "ok", "reasoning_content": "hm"}]
    conversation = asked_on_chat(messages=talk)
    assert chat_of(conversation, Dialect())[0]["messages"][1] == talk[1]
    assert chat_of(conversation, Dialect(reasoning_reply="reasoning"))[0]["messages"][1]["reasoning"] == "hm"
    assert "hm" not in json.dumps(chat_of(conversation, Dialect(reasoning_reply="none"))[0])
    assert chat_of(conversation, Dialect(reasoning_reply="content_list"))[0]["messages"][1]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "ok"},
    ]


@pytest.mark.parametrize(
    ("body", "traits", "thinking", "effort"),
    [
        ({"reasoning_effort": "high"}, {}, {"type": "adaptive"}, "high"),
        ({"reasoning_effort": "minimal"}, {}, {"type": "adaptive"}, "low"),
        ({"reasoning_effort": "none"}, {}, {"type": "disabled"}, None),
        ({"reasoning": {"enabled": True}}, {}, {"type": "adaptive"}, None),
        ({"reasoning": {"max_tokens": 2000}}, {}, {"type": "adaptive"}, "low"),
        ({"reasoning_effort": "high"}, {"thinking": "budget"}, {"type": "enabled", "budget_tokens": 8000}, None),
        ({"reasoning": {"max_tokens": 2000}}, {"thinking": "budget"}, {"type": "enabled", "budget_tokens": 2000}, None),
        ({"reasoning_effort": "xhigh"}, {"efforts": ("low", "max")}, {"type": "adaptive"}, "max"),
        ({"reasoning_effort": "none"}, {"thinking": "none"}, None, None),
    ],
)
def test_asking_claude_to_think(body: Any, traits: Any, thinking: Any, effort: str | None) -> None:
    found, refused = claude_of(asked_on_chat(**body), **traits)
    assert refused == []
    assert found.get("thinking") == thinking
    assert found.get("output_config", {}).get("effort") == effort


@pytest.mark.parametrize(
    ("body", "traits", "names"),
    [
        ({"reasoning_effort": "high"}, {"thinking": "none"}, ["reasoning_effort"]),
        ({"reasoning_effort": "xhigh"}, {"efforts": ("low", "high")}, ["reasoning_effort"]),
        ({"reasoning": {"max_tokens": 500}}, {"thinking": "budget"}, ["reasoning"]),
        ({"reasoning": {"max_tokens": 10_000}}, {"thinking": "budget"}, ["reasoning"]),
        ({"include_reasoning": False}, {}, ["include_reasoning"]),
        ({"temperature": 0.5}, {"sampling": False}, ["temperature"]),
    ],
)
def test_thinking_that_claude_cannot_do_is_refused_by_name(body: Any, traits: Any, names: list[str]) -> None:
    assert claude_of(asked_on_chat(**body), **traits)[1] == names


THINKS: dict[str, Any] = {"reasoning_effort": "high", "tools": [{"type": "function", "function": {"name": "look"}}]}
LOOP: list[dict[str, Any]] = [
    {"role": "user", "content": "go"},
    {"role": "assistant", "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "toolu_1", "content": "seen"},
]


@pytest.mark.parametrize(
    ("body", "traits", "names"),
    [
        ({"temperature": 0.5}, {}, ["temperature"]),
        ({"temperature": 1, "top_p": 0.95}, {}, []),
        ({"top_k": 4, "top_p": 0.9}, {"thinking": "budget"}, ["top_p", "top_k"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, {"thinking": "budget"}, ["tool_choice"]),
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, {"thinking": "budget"}, ["tool_choice"]),
        ({"tool_choice": "none"}, {"thinking": "budget"}, []),
        ({"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": "It"}]}, {},
         ["messages[1] (assistant message last)"]),
        ({"messages": LOOP}, {}, []),
        ({"messages": LOOP}, {"thinking": "budget"}, ["reasoning_effort"]),
        ({"messages": [*LOOP, {"role": "assistant", "content": "done"}, {"role": "user", "content": "more"}]},
         {"thinking": "budget"}, []),
    ],
)  # fmt: skip
def test_what_claude_does_not_take_while_it_thinks_is_refused_by_name_and_left_out(
    body: Any, traits: Any, names: list[str]
) -> None:
    found, refused = claude_of(asked_on_chat(**THINKS | body), **traits)
    assert refused == names
    for name in names:
        match name:
            case "tool_choice":
                parallel = {"disable_parallel_tool_use": True} if "parallel_tool_calls" in body else {}
                assert found["tool_choice"] == {"type": "auto"} | parallel
            case "reasoning_effort":
                assert "thinking" not in found
            case "messages[1] (assistant message last)":
                assert [turn["role"] for turn in found["messages"]] == ["user"]
            case _:
                assert name not in found
    off, refused = claude_of(asked_on_chat(**THINKS | body | {"reasoning_effort": "none"}), **traits)
    assert refused == []
    assert off["thinking"] == {"type": "disabled"}


def test_a_messages_client_says_itself_what_goes_with_its_thinking() -> None:
    asked = asked_on_messages(thinking={"type": "enabled", "budget_tokens": 2000}, temperature=0.5)
    assert claude_of(asked, thinking="budget")[1] == []


BUDGET = {"thinking": {"type": "enabled", "budget_tokens": 8000}}


@pytest.mark.parametrize(
    ("body", "way", "expected"),
    [
        (BUDGET, "reasoning_effort", {"reasoning_effort": "high"}),
        (BUDGET, "thinking_type", {"thinking": {"type": "enabled"}}),
        (BUDGET, "enable_thinking", {"enable_thinking": True, "thinking_budget": 8000}),
        (BUDGET, "openrouter", {"reasoning": {"max_tokens": 8000}}),
        ({"thinking": {"type": "disabled"}}, "reasoning_effort", {"reasoning_effort": "none"}),
        ({"thinking": {"type": "disabled"}}, "thinking_type", {"thinking": {"type": "disabled"}}),
        ({"thinking": {"type": "disabled"}}, "enable_thinking", {"enable_thinking": False}),
        ({"thinking": {"type": "disabled"}}, "none", {}),
        ({"thinking": {"type": "adaptive"}}, "reasoning_effort", {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "reasoning_effort", {"reasoning_effort": "low"}),
        ({"output_config": {"effort": "medium"}}, "reasoning_effort", {"reasoning_effort": "medium"}),
    ],
)  # fmt: skip
def test_asking_a_chat_vendor_to_think(body: Any, way: Any, expected: dict[str, Any]) -> None:
    found, refused = chat_of(asked_on_messages(**body), Dialect(reasoning_request=way))
    assert refused == []
    names = ("reasoning_effort", "thinking", "enable_thinking", "thinking_budget", "reasoning")
    assert {name: found[name] for name in names if name in found} == expected


def test_a_vendors_words_for_thinking_on_the_same_wire() -> None:
    assert chat_of(
        asked_on_chat(thinking={"type": "enabled", "clear_thinking": False}), Dialect(reasoning_request="thinking_type")
    )[0]["thinking"] == {"type": "enabled", "clear_thinking": False}
    both = asked_on_chat(enable_thinking=True, reasoning_effort="high")
    assert chat_of(both, Dialect(reasoning_request="enable_thinking"))[0]["thinking_budget"] == 8000
