# ruff: noqa: E501  (tables read best with one case per line)
"""Requests across wires: what maps to what, what is refused by name, and which wrong values are told apart."""

import json
from typing import Any

import msgspec
import pytest

from farebox.errors import FareboxError
from farebox.wires.anthropic_messages import request as messages
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import Conversation, ModelTraits
from farebox.wires.openai_chat import request as chat


def fields(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(json.dumps(body).encode(), type=dict[str, msgspec.Raw])


def from_chat(**body: Any) -> Conversation:
    return chat.to_neutral(fields({"model": "m", "messages": [{"role": "user", "content": "hi"}]} | body))


def from_messages(**body: Any) -> Conversation:
    return messages.to_neutral(fields({"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]} | body))


def written(
    wire: Any, conversation: Conversation, dialect: Dialect | None = None, traits: ModelTraits | None = None, stream: bool = False
) -> tuple[dict[str, Any], list[str]]:
    refused: list[str] = []
    cap = 1000 if conversation.params.output_cap is None and wire is messages else None
    body = wire.from_neutral(
        conversation, model="up", stream=stream, output_cap=cap, dialect=dialect or Dialect(), unsupported=refused, traits=traits
    )
    return json.loads(body), refused


# Wrong values


WRONG_CHAT: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
    ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].file.file_data"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0].function"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages[0].tool_calls[0].id"),
    ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content[0]"),
    ({"max_tokens": "10"}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"stop": [1]}, "stop[0]"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "{}"}}]}, "tools[0].function.parameters"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"reasoning": {"max_tokens": -1}}, "reasoning.max_tokens"),
    ({"n": 1.5}, "n"),
    ({"logprobs": "yes"}, "logprobs"),
    ({"user": 7}, "user"),
]
WRONG_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "x"}}]}]},
     "messages[0].content[0].source.media_type"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2d"}}]}]},
     "messages[0].content[0].cache_control.ttl"),
    ({"system": [{"type": "image"}]}, "system[0].type"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
    ({"thinking": {"type": "often"}}, "thinking.type"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"max_tokens": 2.5}, "max_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "path"), WRONG_CHAT)
def test_a_wrong_value_on_chat_is_named_by_its_path(body: dict[str, Any], path: str) -> None:
    with pytest.raises(FareboxError) as caught:
        from_chat(**body)
    assert caught.value.param == path
    assert f"`{path}`" in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(("body", "path"), WRONG_MESSAGES)
def test_a_wrong_value_on_messages_is_named_by_its_path(body: dict[str, Any], path: str) -> None:
    with pytest.raises(FareboxError) as caught:
        from_messages(**body)
    assert caught.value.param == path
    assert caught.value.status == 400


def test_a_wrong_value_is_shown_short() -> None:
    with pytest.raises(FareboxError) as caught:
        from_chat(temperature="x" * 1000)
    assert len(caught.value.message) < 150


def test_null_is_absent() -> None:
    nulls = dict.fromkeys(
        [
            "tools",
            "tool_choice",
            "temperature",
            "stop",
            "n",
            "seed",
            "response_format",
            "reasoning_effort",
            "user",
            "echo",
            "max_tokens",
        ]
    )
    assert from_chat(**nulls) == from_chat()
    assert (
        from_messages(system=None, tools=None, thinking=None, metadata=None, stop_sequences=None, container=None)
        == from_messages()
    )


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(FareboxError) as caught:
        chat.to_neutral({"messages": msgspec.Raw(b"[" * 20_000 + b"]" * 20_000)})
    assert caught.value.param == "messages"


# Chat → messages


def test_instructions_go_to_the_top_and_turns_alternate() -> None:
    body, refused = written(messages, from_chat(messages=[
        {"role": "system", "content": "One."},
        {"role": "developer", "content": "Two."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "system", "content": "Three."},
        {"role": "user", "content": "d"},
    ]))  # fmt: skip
    assert refused == []
    assert [block["text"] for block in body["system"]] == ["One.", "Two.", "Three."]
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in body["messages"]] == [
        ("user", ["a", "b"]),
        ("assistant", ["c"]),
        ("user", ["d"]),
    ]


def test_tool_results_of_one_turn_come_first_in_one_user_turn() -> None:
    body, refused = written(messages, from_chat(messages=[
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "functions.a:0", "type": "function", "function": {"name": "a", "arguments": '{"x": 1.0}'}},
            {"id": "call_2", "type": "function", "function": {"name": "b", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "functions.a:0", "content": "A"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "B"}]},
        {"role": "user", "content": "and?"},
    ]))  # fmt: skip
    assert refused == []
    calls = body["messages"][1]["content"]
    assert [(c["type"], c["name"], c["input"]) for c in calls] == [("tool_use", "a", {"x": 1.0}), ("tool_use", "b", {})]
    turn = body["messages"][2]
    assert [block["type"] for block in turn["content"]] == ["tool_result", "tool_result", "text"]
    assert [block["tool_use_id"] for block in turn["content"][:2]] == [call["id"] for call in calls]
    assert calls[1]["id"] == "call_2"


def test_tools_choice_and_parallel_calls() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"properties": {}}, "strict": True}}
    body, refused = written(messages, from_chat(tools=[tool], tool_choice="required", parallel_tool_calls=False))
    assert refused == []
    assert body["tools"] == [
        {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}, "strict": True}
    ]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    body, _ = written(messages, from_chat(tools=[tool], tool_choice={"type": "function", "function": {"name": "f"}}))
    assert body["tool_choice"] == {"type": "tool", "name": "f"}
    body, _ = written(messages, from_chat(tools=[tool], parallel_tool_calls=False))
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    body, _ = written(messages, from_chat(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="none"))
    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert body["tool_choice"] == {"type": "none"}


def test_images_files_and_cache_marks() -> None:
    body, refused = written(messages, from_chat(messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]}]))  # fmt: skip
    assert refused == []
    assert body["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]


def test_settings_with_a_counterpart() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body, refused = written(messages, from_chat(
        max_completion_tokens=50, temperature=0.5, top_p=0.9, stop="END", user="u1", service_tier="default",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        n=1, presence_penalty=0, logprobs=False, store=False, prompt_cache_key="k", modalities=["text"],
    ), stream=True)  # fmt: skip
    assert refused == []
    assert body["max_tokens"] == 50
    assert (body["temperature"], body["top_p"], body["stop_sequences"], body["stream"]) == (0.5, 0.9, ["END"], True)
    assert body["metadata"] == {"user_id": "u1"}
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert body["service_tier"] == "standard_only"


REFUSED_BY_MESSAGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"n": 2, "seed": 1, "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1}, "presence_penalty": 0.1,
      "frequency_penalty": 0.1}, ["n", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"]),
    ({"temperature": 1.5}, ["temperature"]),
    ({"stop": ["\n"]}, ["stop"]),
    ({"response_format": {"type": "json_object"}}, ["response_format"]),
    ({"service_tier": "flex"}, ["service_tier"]),
    ({"metadata": {"a": "b"}}, ["metadata"]),
    ({"web_search_options": {}}, ["web_search_options"]),
    ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, ["tools[0] (custom)"]),
    ({"tools": [{"type": "mcp", "server_url": "x"}]}, ["tools[0] (mcp)"]),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "input_audio", "input_audio": {
        "data": "A", "format": "wav"}}]}]}, ["messages[0].content[1] (input_audio)"]),
    ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": "x"}]}]},
     ["messages[0].content[0] (file_id)"]),
    ({"messages": [{"role": "user", "name": "bob", "content": "x"}]}, ["messages[0].name"]),
    ({"messages": [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "x"}]},
     ["messages[0] (assistant message first)"]),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [
        {"id": "1", "function": {"name": "f", "arguments": "{oops"}}]}]},
     ["messages[1].tool_calls[0] (arguments that are not a JSON object)"]),
    ({"messages": [{"role": "system", "content": "only"}]}, ["messages (no user message)"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "names"), REFUSED_BY_MESSAGES)
def test_what_messages_cannot_say_is_named_in_the_clients_terms(body: dict[str, Any], names: list[str]) -> None:
    assert written(messages, from_chat(**body))[1] == names


def test_the_gateways_own_fields_are_neither_forwarded_nor_refused() -> None:
    routing = {"models": ["a"], "provider": {"order": ["x"]}, "fallbacks": ["b"], "num_retries": 1, "timeout": 5}
    known = {"usage": {"include": True}, "session_id": "s"}
    for wire in (messages, chat):
        body, refused = written(wire, from_chat(**routing, **known))
        assert refused == [] and not set(body) & set(routing | known)
    body, _ = written(chat, from_chat(**routing, **known), Dialect(extensions=True))
    assert set(body) >= set(known) and not set(body) & set(routing), "a gateway behind us must not go on to another model"


def test_a_prefill_is_refused_where_the_model_refuses_it() -> None:
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]
    assert written(messages, from_chat(messages=talk))[1] == []
    body, refused = written(messages, from_chat(messages=talk), traits=ModelTraits(prefill=False))
    assert refused == ["messages[1] (assistant message last)"]
    assert [turn["role"] for turn in body["messages"]] == ["user"]  # left out, for who lets the unsupported be dropped


def test_a_first_turn_of_the_assistant_is_refused_and_left_out() -> None:
    talk = [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "x"}]
    body, refused = written(messages, from_chat(messages=talk))
    assert refused == ["messages[0] (assistant message first)"]
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_the_held_cap_replaces_the_clients() -> None:
    refused: list[str] = []
    for wire, field in ((messages, "max_tokens"), (chat, "max_tokens")):
        body = wire.from_neutral(
            from_chat(max_tokens=99), model="up", stream=False, output_cap=7, dialect=Dialect(), unsupported=refused
        )
        assert json.loads(body)[field] == 7
    with pytest.raises(FareboxError):
        messages.from_neutral(from_chat(), model="up", stream=False, output_cap=None, dialect=Dialect(), unsupported=refused)


# Messages → chat


def test_a_conversation_of_claude_code_on_a_chat_vendor() -> None:
    body, refused = written(chat, from_messages(
        system=[{"type": "text", "text": "S1", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "S2"}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "go"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "ok"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"p": 1}},
                {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "exit 1", "is_error": True},
                {"type": "text", "text": "next"},
            ]},
        ],
        tools=[{"name": "Read", "input_schema": {"type": "object"}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        metadata={"user_id": "u"}, stop_sequences=["X"], temperature=1.0,
    ), stream=True)  # fmt: skip
    assert refused == []
    assert body["messages"] == [
        {"role": "system", "content": "S1\n\nS2"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "ok", "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "Read", "arguments": '{"p":1}'}},
            {"id": "toolu_2", "type": "function", "function": {"name": "Bash", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "see"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: exit 1"},
        {"role": "user", "content": [
            {"type": "text", "text": "Attached to the result of tool call toolu_1:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "text", "text": "next"},
        ]},
    ]  # fmt: skip
    assert body["tools"] == [{"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}}]
    assert (body["tool_choice"], body["parallel_tool_calls"], body["user"], body["stop"]) == ("required", False, "u", ["X"])
    assert body["max_completion_tokens"] == 1000
    assert body["stream_options"] == {"include_usage": True}


def test_cache_marks_reach_a_vendor_that_understands_them() -> None:
    conversation = from_messages(
        system=[{"type": "text", "text": "S", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        tools=[{"name": "f", "input_schema": {}, "cache_control": {"type": "ephemeral"}}],
    )
    body, _ = written(chat, conversation, Dialect(cache_control=True))
    assert body["messages"][0]["content"] == [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral"}
    body, refused = written(chat, conversation)
    assert "cache_control" not in json.dumps(body) and refused == []


REFUSED_BY_CHAT: list[tuple[dict[str, Any], list[str]]] = [
    ({"top_k": 5}, ["top_k"]),
    ({"container": "c"}, ["container"]),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, ["tools[0] (web_search_20250305)"]),
    ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}, ["tools[0].defer_loading"]),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://x"},
      "citations": {"enabled": True}}]}]}, ["messages[0].content[0].citations", "messages[0].content[0] (document)"]),
    ({"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
     ["messages[0].content[0] (container_upload)"]),
]  # fmt: skip


def test_parallel_calls_are_forbidden_only_where_there_are_tools() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert "parallel_tool_calls" not in written(chat, from_messages(tool_choice=choice))[0]
    tools = [{"name": "f", "input_schema": {}}]
    assert written(chat, from_messages(tool_choice=choice, tools=tools))[0]["parallel_tool_calls"] is False


@pytest.mark.parametrize(("body", "names"), REFUSED_BY_CHAT)
def test_what_chat_cannot_say_is_named_in_the_clients_terms(body: dict[str, Any], names: list[str]) -> None:
    assert written(chat, from_messages(**body))[1] == names


DIALECTS: list[tuple[Dialect, dict[str, Any], list[str]]] = [
    (Dialect(n_choices=False), {"n": 2}, ["n"]),
    (Dialect(n_choices=False), {"n": 1}, []),
    (Dialect(penalties=False), {"presence_penalty": 0.5}, ["presence_penalty"]),
    (Dialect(logprobs=False), {"logprobs": True}, ["logprobs"]),
    (Dialect(logit_bias=False), {"logit_bias": {"1": 2}}, ["logit_bias"]),
    (Dialect(seed_field="unsupported"), {"seed": 3}, ["seed"]),
    (Dialect(stop=False), {"stop": "x"}, ["stop"]),
    (Dialect(stop_max=1), {"stop": ["x", "y"]}, ["stop"]),
    (Dialect(json_schema=False), {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, ["response_format"]),
    (Dialect(tool_choice_required="unsupported"), {"tool_choice": "required"}, ["tool_choice"]),
    (Dialect(temperature_max=1), {"temperature": 1.2}, ["temperature"]),
    (Dialect(message_name=False), {"messages": [{"role": "user", "name": "n", "content": "x"}]}, ["messages[0].name"]),
    (Dialect(pdf=False), {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "x"}}]}]},
     ["messages[0].content[0] (file)"]),
    (Dialect(tool_strict=False), {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
     ["tools[0].function.strict"]),
    (Dialect(reasoning_request="none"), {"reasoning_effort": "high"}, ["reasoning_effort"]),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "body", "names"), DIALECTS)
def test_what_a_vendor_cannot_take_is_named(dialect: Dialect, body: dict[str, Any], names: list[str]) -> None:
    assert written(chat, from_chat(**body), dialect)[1] == names


def test_a_vendors_spellings() -> None:
    mistral = Dialect(seed_field="random_seed", tool_choice_required="any", output_limit_field="max_tokens", developer_role=False,
                      stream_usage_option=False, tool_call_id_pattern="[a-zA-Z0-9]{9}")  # fmt: skip
    talk = [
        {"role": "developer", "content": "D"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call_abc", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_abc", "content": "r"},
    ]
    body, refused = written(
        chat, from_chat(messages=talk, seed=1, tool_choice="required", max_completion_tokens=5), mistral, stream=True
    )
    assert refused == []
    assert (body["random_seed"], body["tool_choice"], body["max_tokens"], body["messages"][0]["role"]) == (1, "any", 5, "system")
    assert "stream_options" not in body
    assert body["messages"][2]["content"] is None
    id = body["messages"][2]["tool_calls"][0]["id"]
    assert len(id) == 9 and body["messages"][3]["tool_call_id"] == id


def test_unknown_fields_travel_on_the_same_wire() -> None:
    assert written(chat, from_chat(min_p=0.1, top_k=4))[0].items() >= {"min_p": 0.1, "top_k": 4}.items()
    assert written(messages, from_messages(container="c"))[0]["container"] == "c"
    config = {"effort": "low", "task_budget": 5}
    assert written(messages, from_messages(output_config=config))[0]["output_config"] == config
