# ruff: noqa: E501  (tables read best with one case per line)
"""Message streams: what gateways of this shape send, and the exact order that clients get."""

import json
from typing import Any

import pytest

from farebox.errors import FareboxError, Kind
from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Citation,
    CitationDelta,
    Done,
    Event,
    Finish,
    OpaqueBlock,
    PartEnd,
    Ping,
    ReasoningDelta,
    ReasoningSignature,
    RedactedReasoning,
    RefusalDelta,
    Start,
    StreamError,
    TextDelta,
    ToolArgumentsDelta,
    ToolStart,
    UsageSeen,
)
from farebox.wires.usage import Usage, UsageReport

WRITER: dict[str, Any] = {"id": "gen-1", "model": "m", "provider": "p", "created": 7, "include_usage": False}


def sse(*events: Any) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


START = {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 9, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def block(kind: dict[str, Any], *deltas: dict[str, Any], index: int = 0) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": kind},
        *[{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas],
        {"type": "content_block_stop", "index": index},
    ]


def read(body: bytes) -> tuple[Any, list[Event]]:
    reader = anthropic_messages.stream.Reader(Dialect())
    return reader, reader.feed(body) + reader.end()


def test_a_second_message_start_is_a_repetition() -> None:
    _, events = read(sse(START, START, STOP))
    assert [type(event).__name__ for event in events] == ["Start", "UsageSeen", "UsageSeen", "Done"]
    assert events[0] == Start("msg_1", "claude")


def test_counts_are_merged_over_the_stream() -> None:
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5, "input_tokens": None}}
    _, events = read(sse(START, last, STOP))
    assert [e.report.usage for e in events if isinstance(e, UsageSeen)][-1] == Usage(input=9, output=5)
    assert Finish("stop", "end_turn") in events


@pytest.mark.parametrize(
    ("start", "deltas", "arguments"),
    [
        ({}, [], "{}"),
        ({}, [{"type": "input_json_delta", "partial_json": ""}], "{}"),
        (
            {},
            [{"type": "input_json_delta", "partial_json": '{"a"'}, {"type": "input_json_delta", "partial_json": ":1}"}],
            '{"a":1}',
        ),
        ({"a": 1}, [], '{"a":1}'),
    ],
)
def test_tool_arguments_in_every_way_they_come(start: Any, deltas: list[Any], arguments: str) -> None:
    tool = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": start}
    _, events = read(sse(START, *block(tool, *deltas), STOP))
    assert ToolStart(0, "toolu_1", "f") in events
    assert "".join(e.text for e in events if isinstance(e, ToolArgumentsDelta)) == arguments


def test_blocks_of_the_providers_own_tools_come_whole() -> None:
    used = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    _, events = read(sse(START, *block(used, {"type": "input_json_delta", "partial_json": '{"query":"x"}'}), STOP))
    [found] = [event.block for event in events if isinstance(event, OpaqueBlock)]
    assert json.loads(found.raw) == used | {"input": {"query": "x"}}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), "overloaded", 529),
        (sse({"type": "error", "error": {"type": "api_error", "message": "no"}}), "server", 500),
        (sse({"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}), "rate_limit", 429),
        (b'event: error\ndata: {"error":{"message":"no","type":"timeout_error"}}\n\n', "timeout", 504),
        (b"event: error\ndata: upstream gone\n\n", "unknown", 500),
    ],
)
def test_failures_inside_a_stream(body: bytes, kind: str, status: int) -> None:
    reader, events = read(sse(START) + body + sse(STOP))
    assert isinstance(events[-1], StreamError)
    assert (events[-1].error.kind, events[-1].error.status, reader.finished) == (kind, status, False)


def test_unknown_events_are_skipped_and_malformed_ones_counted() -> None:
    body = sse(START, {"type": "novelty"}) + b"data: {oops\n\ndata: {}\n\ndata: [DONE]\n\n"
    body += sse({"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "x"}})
    body += sse({"type": "content_block_stop", "index": 7}, {"type": "content_block_start", "index": 0})
    body += sse(*block({"type": "text", "text": ""}, {"type": "novel_delta"}), STOP)
    reader, events = read(body)
    assert reader.malformed == 5 and reader.finished
    assert [type(event).__name__ for event in events] == ["Start", "UsageSeen", "PartEnd", "Done"]


def test_a_cut_stream_is_not_finished() -> None:
    reader, events = read(sse(START, *block({"type": "text", "text": "a"})))
    assert not reader.finished and not any(isinstance(event, Done) for event in events)


# Writing


def told(events: list[Event], usage: Usage | None = None) -> list[Any]:
    writer = anthropic_messages.stream.Writer(**WRITER)
    body = b"".join(writer.write(event) for event in events)
    body += writer.usage(UsageReport(usage or Usage(input=3, cache_read=2, output=1)), {}) + writer.done()
    found = []
    for raw in body.decode().split("\n\n")[:-1]:
        name, data = raw.split("\n")
        found.append(json.loads(data[6:]))
        assert name == f"event: {found[-1]['type']}"
    return found


def outline(events: list[Any]) -> list[str]:
    """`start 0 text`, `delta 0 text_delta`, `stop 0`, `message_delta` …"""
    return [
        {
            "content_block_start": lambda e: f"start {e['index']} {e['content_block']['type']}",
            "content_block_delta": lambda e: f"delta {e['index']} {e['delta']['type']}",
            "content_block_stop": lambda e: f"stop {e['index']}",
        }.get(event["type"], lambda e: e["type"])(event)
        for event in events
    ]


def test_the_order_of_a_whole_answer() -> None:
    events = told([
        Start("up"), ReasoningDelta("hm"), ReasoningDelta("!"), ReasoningSignature("s"), RedactedReasoning("d"), TextDelta("a"),
        TextDelta("b"), ToolStart(0, "t0", "f"), ToolArgumentsDelta(0, '{"a":'), ToolArgumentsDelta(0, "1}"), ToolStart(1, "t1", "g"),
        ToolArgumentsDelta(1, "{}"), Finish("tool_calls", "tool_calls"),
    ])  # fmt: skip
    assert outline(events) == [
        "message_start",
        "start 0 thinking", "delta 0 thinking_delta", "delta 0 thinking_delta", "delta 0 signature_delta", "stop 0",
        "start 1 redacted_thinking", "stop 1",
        "start 2 text", "delta 2 text_delta", "delta 2 text_delta", "stop 2",
        "start 3 tool_use", "delta 3 input_json_delta", "delta 3 input_json_delta", "stop 3",
        "start 4 tool_use", "delta 4 input_json_delta", "stop 4",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"].items() >= {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 1}.items()
    assert events[0]["message"].items() >= {"id": "gen-1", "model": "m", "role": "assistant", "content": []}.items()


def test_interleaved_calls_are_told_one_after_another() -> None:
    events = told([
        ToolStart(0, "t0", "f"), ToolStart(1, "t1", "g"), ToolArgumentsDelta(1, '{"b":'), ToolArgumentsDelta(0, '{"a":'),
        ToolArgumentsDelta(1, "2}"), ToolArgumentsDelta(0, "1}"), Finish("tool_calls"),
    ])  # fmt: skip
    pieces: dict[int, str] = {}
    for event in events:
        if event["type"] == "content_block_delta":
            pieces[event["index"]] = pieces.get(event["index"], "") + event["delta"]["partial_json"]
    assert pieces == {0: '{"a":1}', 1: '{"b":2}'}
    assert outline(events)[1:-2] == [
        "start 0 tool_use", "delta 0 input_json_delta", "delta 0 input_json_delta", "stop 0",
        "start 1 tool_use", "delta 1 input_json_delta", "stop 1",
    ]  # fmt: skip


def test_a_custom_tools_text_becomes_one_object() -> None:
    events = told(
        [
            ToolStart(0, "t0", "sql", custom=True),
            ToolArgumentsDelta(0, "SELECT "),
            ToolArgumentsDelta(0, '"1"'),
            Finish("tool_calls"),
        ]
    )
    assert json.loads(events[2]["delta"]["partial_json"]) == {"input": 'SELECT "1"'}


def test_blocks_that_the_upstream_closed_stay_apart() -> None:
    cited = Citation(url="https://x", title="X", cited_text="q")
    events = told([TextDelta("a"), PartEnd(), TextDelta("b"), CitationDelta(cited), PartEnd(), Finish("stop", "end_turn")])
    assert outline(events)[1:-2] == [
        "start 0 text", "delta 0 text_delta", "stop 0", "start 1 text", "delta 1 text_delta", "delta 1 citations_delta", "stop 1",
    ]  # fmt: skip
    assert events[6]["delta"]["citation"]["url"] == "https://x"


def test_only_the_first_choice_is_told() -> None:
    assert [e["delta"]["text"] for e in told([TextDelta("a"), TextDelta("no", 1)]) if e["type"] == "content_block_delta"] == ["a"]


def test_an_empty_answer_has_no_blocks() -> None:
    assert outline(told([Finish("content_filter", "refusal", stop_details=b'{"category":"x"}')])) == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip


def test_a_stop_sequence_is_told() -> None:
    assert told([TextDelta("a"), Finish("stop", "stop_sequence", "END")])[-2]["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
    }


def test_a_refusal_in_words_is_told_as_a_refusal() -> None:
    """A client that waits for its JSON schema must not take the words for an answer."""
    assert told([RefusalDelta("I "), RefusalDelta("will not"), Finish("stop", "stop")])[-2]["delta"]["stop_reason"] == "refusal"
    assert told([RefusalDelta("I will"), Finish("length", "length")])[-2]["delta"]["stop_reason"] == "max_tokens"
    body = b'{"id":"x","choices":[{"index":0,"message":{"content":null,"refusal":"I will not"},"finish_reason":"stop"}]}'
    completion = openai_chat.response.read(body, Dialect())
    answer = json.loads(anthropic_messages.response.write(completion, id="g", model="m", provider="p", extra_usage={}))
    assert (answer["stop_reason"], answer["content"][0]["text"]) == ("refusal", "I will not")


def test_unknown_usage_is_not_zero() -> None:
    writer = anthropic_messages.stream.Writer(**WRITER)
    body = writer.write(TextDelta("a")) + writer.write(Finish("stop")) + writer.done()
    assert b'"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{}' in body


def test_pings_errors_and_keepalive() -> None:
    writer = anthropic_messages.stream.Writer(**WRITER)
    assert writer.write(Ping()) == b""
    writer.write(TextDelta("a"))
    assert writer.write(Ping()) == writer.keepalive() == b'event: ping\ndata: {"type":"ping"}\n\n'
    error = writer.error(FareboxError(Kind.UPSTREAM_OVERLOADED, "busy"))
    assert error.startswith(b"event: error\n")
    assert json.loads(error.split(b"data: ")[1])["error"]["type"] == "overloaded_error"
