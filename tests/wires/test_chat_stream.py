# ruff: noqa: E501  (tables read best with one case per line)
"""Chat completion streams: what odd vendors send, and what clients get."""

import json
from typing import Any

import pytest

from farebox.errors import FareboxError, Kind
from farebox.wires import neutral, openai_chat
from farebox.wires.dialect import Dialect, UsageRules
from farebox.wires.neutral import (
    Done,
    Event,
    Finish,
    ReasoningDelta,
    Start,
    StreamError,
    TextDelta,
    ToolArgumentsDelta,
    ToolStart,
    UsageSeen,
)
from farebox.wires.usage import Usage, UsageReport

WRITER: dict[str, Any] = {"id": "gen-1", "model": "m", "provider": "p", "created": 7}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return sse({"id": "up-1", "model": "served", "created": 3, "choices": choices} | more)


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def read(*pieces: bytes, dialect: Dialect | None = None) -> tuple[Any, list[Event]]:
    reader = openai_chat.stream.Reader(dialect or Dialect())
    events = [event for piece in pieces for event in reader.feed(piece)] + reader.end()
    return reader, [event for event in events if not isinstance(event, Start)]


def call(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: str | None = None
) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    fields = {k: v for k, v in (("index", index), ("id", id)) if v is not None}
    return {"tool_calls": [fields | {"function": function}]}


def calls(events: list[Event]) -> list[list[str]]:
    found: list[list[str]] = []
    for event in events:
        if isinstance(event, ToolStart):
            assert event.tool == len(found)
            found.append([event.id, event.name, ""])
        elif isinstance(event, ToolArgumentsDelta):
            found[event.tool][2] += event.text
    return found


def test_an_ordinary_stream() -> None:
    reader = openai_chat.stream.Reader(Dialect())
    events = reader.feed(
        chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hi"}) + chunk({}, "stop") + chunk(usage=USAGE) + DONE
    )
    assert events == [
        Start("up-1", "served", 3),
        TextDelta("Hi"),
        UsageSeen(UsageReport(Usage(input=5, output=2), raw=json.dumps(USAGE).encode())),
        Finish("stop", "stop"),
        Done(),
    ]
    assert reader.finished and reader.malformed == 0


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([call(0, "a", "f", ""), call(0, None, None, '{"x'), call(0, None, None, '":1}')], [["a", "f", '{"x":1}']]),
        ([call(None, "a", "f", "{}"), call(None, "b", "g", "{}")], [["a", "f", "{}"], ["b", "g", "{}"]]),
        ([call(None, "a", "f", ""), call(None, None, None, "{}")], [["a", "f", "{}"]]),
        ([call(0, "a", "f", "{}"), call(0, "b", "g", "{}")], [["a", "f", "{}"], ["b", "g", "{}"]]),
        ([call(0, "a", "f", ""), call(0, "null", None, "{}")], [["a", "f", "{}"]]),
        ([call(0, "a", "f", ""), call(1, "b", "g", ""), call(0, None, None, "1"), call(1, None, None, "2")], [["a", "f", "1"], ["b", "g", "2"]]),
        ([call(0, None, "f", "{}"), call(1, None, "f", "{}")], [["call_up-1_0_0", "f", "{}"], ["call_up-1_0_1", "f", "{}"]]),
        ([call(None, None, "f", "{}"), call(None, None, "g", "{}")], [["call_up-1_0_0", "f", "{}"], ["call_up-1_0_1", "g", "{}"]]),
        ([call(3, "a", None, '{"y'), call(3, None, "f", '":2}')], [["a", "f", '{"y":2}']]),
        ([{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}], [["call_up-1_0_0", "f", "{}"]]),
    ],
)  # fmt: skip
def test_tool_calls_in_every_way_they_come(deltas: list[dict[str, Any]], expected: list[list[str]]) -> None:
    _, events = read(*[chunk(delta) for delta in deltas], chunk({}, "stop"), DONE)
    assert calls(events) == expected
    assert Finish("tool_calls", "stop") in events


def test_thinking_in_every_way_it_comes() -> None:
    for delta in (
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]},
        {"reasoning": "hm", "reasoning_details": []},
    ):
        _, events = read(chunk(delta), chunk({"content": "Yes"}), DONE)
        assert [e.text for e in events if isinstance(e, ReasoningDelta)] == ["hm"]
    _, events = read(*[chunk({"content": piece}) for piece in ("<th", "ink>h", "m</think", ">\n\nYe", "s")], DONE)
    assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == "hm"
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Yes"


def test_text_that_only_begins_like_a_tag_is_not_lost() -> None:
    _, events = read(chunk({"content": "<thi"}), chunk({}, "stop"), DONE)
    assert [e for e in events if isinstance(e, (TextDelta, Finish))] == [TextDelta("<thi"), Finish("stop", "stop")]


def test_a_finish_is_told_once_and_after_the_text_that_follows_it() -> None:
    """OpenRouter repeats the finish reason and sends text and usage with it."""
    _, events = read(chunk({"content": "a"}, "length"), chunk({"content": "b"}, "length"), chunk({}, "length", usage=USAGE), DONE)
    assert [type(event).__name__ for event in events] == ["TextDelta", "TextDelta", "UsageSeen", "Finish", "Done"]


def test_usage_wherever_it_stands_is_counted_once() -> None:
    expected = Usage(input=5, output=2)
    moonshot = Dialect(usage=UsageRules(usage_in_choice=True))
    in_choice = sse({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]})
    for pieces, dialect in (
        ([chunk({}, "stop", usage=USAGE)], Dialect()),
        ([chunk({"content": "a"}, usage=USAGE), chunk({}, "stop", usage=USAGE), chunk(usage=USAGE)], Dialect()),
        ([chunk({}, "stop", x_groq={"usage": USAGE}), chunk(usage=USAGE)], Dialect()),
        ([in_choice], moonshot),
        ([chunk({}, "stop", usage=USAGE), chunk({}, usage=None)], Dialect()),
        ([chunk({}, "stop", usage=USAGE), chunk({}, usage={"prompt_tokens": None})], Dialect()),
    ):
        _, events = read(*pieces, DONE, dialect=dialect)
        seen = [event.report.usage for event in events if isinstance(event, UsageSeen)]
        assert seen == [expected]


def test_first_chunk_without_choices_is_not_the_usage_chunk() -> None:
    _, events = read(sse({"choices": [], "prompt_filter_results": [], "id": "", "model": ""}), chunk({"content": "x"}), DONE)
    assert events == [TextDelta("x"), Done()]


def test_the_served_tier_stands_in_the_usage() -> None:
    _, events = read(chunk({}, "stop", service_tier="priority"), chunk(usage=USAGE), DONE)
    assert [e.report.service_tier for e in events if isinstance(e, UsageSeen)] == ["priority"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'event: error\ndata: {"error":{"message":"no","type":"invalid_request_error","code":"tool_use_failed"}}\n\n', "server"),
        (b'event: error\ndata: {"message":"no","code":429}\n\n', "rate_limit"),
        (b"event: error\ndata: broken pipe\n\n", "unknown"),
        (b'data: {"error":"overheated"}\n\n', "unknown"),
        (b'data: {"error":{"code":502,"message":"Provider returned error"},"choices":[]}\n\n', "server"),
        (b'data: {"error":{"type":"overloaded_error","message":"Overloaded"}}\n\n', "overloaded"),
        (b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}\n\ndata: [DONE]\n\n', "unknown"),
        (b'data: {"choices":[{"index":0,"delta":{},"error":{"code":429,"message":"slow"}}]}\n\n', "rate_limit"),
    ],
)
def test_failures_inside_a_stream(body: bytes, kind: str) -> None:
    reader, events = read(chunk({"content": "a"}), body, chunk({"content": "never"}), DONE)
    assert isinstance(events[-1], StreamError) and events[-1].error.kind == kind
    assert events[:-1] == [TextDelta("a")]
    assert not reader.finished


def test_malformed_events_are_counted_and_skipped() -> None:
    reader, events = read(
        b"data: {oops\n\n", b"data: []\n\n", sse({"choices": ["x"]}), sse({"choices": [{"index": -1, "delta": {}}]}),
        sse({"choices": [{"index": 10**9}]}), chunk({"content": "a"}), DONE,
    )  # fmt: skip
    assert reader.malformed == 5
    assert events == [TextDelta("a"), Done()]


@pytest.mark.parametrize(
    "value",
    [{"choices": 5}, {"choices": [{"delta": 5}]}, {"choices": [{"delta": {"content": 5, "tool_calls": [5, {}]}}]}, {"id": 5, "model": [], "usage": 5},
     {"choices": [{"delta": {"reasoning_details": [5, {}], "annotations": 5, "function_call": {}}}]}, {"choices": [{"logprobs": {"content": None}}]},
     {"x_groq": {}}, {"x_groq": 5}, {"citations": 5}, {"citations": [5]}, {"search_results": [{}]}],
)  # fmt: skip
def test_odd_chunks_are_read(value: Any) -> None:
    _, events = read(sse(value), DONE)
    assert events == [Done()] or isinstance(events[0], UsageSeen)


def test_a_cut_stream_is_not_finished() -> None:
    reader, events = read(chunk({"content": "a"}))
    assert events == [TextDelta("a")] and not reader.finished
    reader, events = read(chunk({"content": "a"}, "stop"))
    assert events == [TextDelta("a"), Finish("stop", "stop")] and not reader.finished


def test_an_endless_event_is_an_error() -> None:
    reader = openai_chat.stream.Reader(Dialect(), event_bytes_max=1000)
    events = reader.feed(chunk({"content": "a"})) + reader.feed(b"data: " + b"x" * 2000) + reader.feed(DONE) + reader.end()
    assert isinstance(events[-1], StreamError) and not reader.finished


# Writing


def lines(body: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in body.decode().split("\n\n") if line and line != "data: [DONE]"]


def writer(include_usage: bool = False) -> Any:
    return openai_chat.stream.Writer(**WRITER, include_usage=include_usage)


def test_the_role_comes_first_and_once_per_choice() -> None:
    w = writer()
    chunks = lines(w.write(TextDelta("a")) + w.write(TextDelta("b")) + w.write(TextDelta("c", 1)))
    assert [c["choices"][0]["delta"].get("role") for c in chunks] == ["assistant", None, "assistant"]
    assert (
        chunks[0].items()
        >= {"id": "gen-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "provider": "p"}.items()
    )


def test_the_finish_chunk_is_empty_and_keeps_the_native_word() -> None:
    w = writer()
    [_, last] = lines(w.write(TextDelta("a")) + w.write(Finish("pause", "pause_turn")))
    assert last["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "native_finish_reason": "pause_turn"}
    ]


def test_the_usage_chunk_comes_only_when_asked_for() -> None:
    report = UsageReport(Usage(input=5, cache_read=3, output=2))
    assert writer().usage(report, {}) == b""
    w = writer(include_usage=True)
    [first] = lines(w.write(TextDelta("a")))
    assert first["usage"] is None
    [last] = lines(w.usage(report, {}))
    assert (last["choices"], last["usage"]["prompt_tokens"], last["usage"]["total_tokens"]) == ([], 8, 10)
    assert w.usage(UsageReport(None), {}) == b""
    assert w.done() == DONE


def test_log_probabilities_stand_with_their_text() -> None:
    w = writer()
    assert w.write(neutral.LogprobsDelta(b'{"content":[]}')) == b""
    [first] = lines(w.write(TextDelta("a")))
    assert first["choices"][0]["logprobs"] == {"content": []}


def test_an_error_ends_the_stream() -> None:
    [error] = lines(writer().error(FareboxError(Kind.UPSTREAM_OVERLOADED, "busy", retry_after_s=2)))
    assert error["error"]["code"] == "provider_overloaded" and error["error"]["farebox"]["retry_after_s"] == 2
    assert error["choices"][0]["finish_reason"] == "error"


def test_a_custom_tool_streams_its_input() -> None:
    w = writer()
    chunks = lines(w.write(ToolStart(0, "c1", "sql", custom=True)) + w.write(ToolArgumentsDelta(0, "SELECT")))
    assert chunks[0]["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": ""}}
    ]
    assert chunks[1]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "custom": {"input": "SELECT"}}]


def test_keepalive_is_a_comment() -> None:
    assert writer().keepalive() == b": FAREBOX PROCESSING\n\n"
