"""Same-wire relays: the same bytes in any split give the same stream and report; ids are ours; usage waits for the end."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.wires.anthropic_messages.relay import Relay as MessagesRelay
from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat.relay import Relay as ChatRelay
from farebox.wires.relay import MalformedStream
from farebox.wires.usage import Usage

USAGE = Usage(input=7, output=3)
EXTRA = b'"cost":0.5'


def chat(**options: Any) -> ChatRelay:
    settings: dict[str, Any] = {"include_usage": True, "dialect": Dialect(), "created": 1, "model": "m"}
    return ChatRelay(id="gen-ours", provider="lab", **(settings | options))


def messages() -> MessagesRelay:
    return MessagesRelay(id="gen-ours", provider="lab", dialect=Dialect())


def chunk(delta: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": fields.pop("finish", None)}]
    return {"id": "theirs", "object": "chat.completion.chunk", "created": 9, "model": "up", "choices": choices, **fields}


WORDS = ["Hel", "lo ", 'é "quoted" \n\r', "[DONE]", '"usage":{', '"id":"theirs"', "data: x\n\n", ""]
CHAT = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"content": word}) for word in WORDS),
    chunk({}, finish="stop"),
    chunk(None, usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}),
]
BEGUN = {"id": "theirs", "type": "message", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
MESSAGES: list[dict[str, Any]] = [
    {"type": "message_start", "message": BEGUN},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]  # fmt: skip


def chat_bytes(*, line_end: bytes, bom: bool, spaced: bool, comments: bool) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    lines = [b"data: " + json.dumps(item, separators=separators).encode() for item in CHAT] + [b"data: [DONE]"]
    between = line_end * 2 + (b": hello" + line_end * 2 if comments else b"")
    return (b"\xef\xbb\xbf" if bom else b"") + between.join(lines) + line_end * 2


def messages_bytes(*, line_end: bytes, bom: bool, spaced: bool, comments: bool) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    lines = [
        b"event: %b%bdata: %b" % (item["type"].encode(), line_end, json.dumps(item, separators=separators).encode())
        for item in MESSAGES
    ]
    between = line_end * 2 + (b": hello" + line_end * 2 if comments else b"")
    return (b"\xef\xbb\xbf" if bom else b"") + between.join(lines) + line_end * 2


def run(relay: Any, data: bytes, cuts: list[int]) -> tuple[bytes, Any]:
    places = sorted({min(cut, len(data)) for cut in cuts})
    out = b"".join(relay.feed(data[start:end]) for start, end in zip([0, *places], [*places, len(data)], strict=True))
    out += relay.end()
    report = relay.report()
    told = (
        relay.finished,
        relay.done,
        relay.malformed,
        relay.finish_reason,
        relay.upstream_id,
        relay.failure,
        report and report.usage,
    )
    return out + relay.finish(USAGE, EXTRA), told


def events(stream: bytes) -> list[Any]:
    """What a client's parser makes of a stream."""
    found: list[Any] = []
    for event in stream.decode().split("\n\n"):
        data = "\n".join(line[6:] for line in event.split("\n") if line.startswith("data: "))
        if data:
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


SHAPES = st.fixed_dictionaries(
    {
        "line_end": st.sampled_from([b"\n", b"\r\n", b"\r"]),
        "bom": st.booleans(),
        "spaced": st.booleans(),
        "comments": st.booleans(),
    }
)
CUTS = st.lists(st.integers(0, 4000) | st.integers(0, 12), max_size=12)


@settings(max_examples=300, deadline=None)
@given(shape=SHAPES, cuts=CUTS)
def test_chat_in_any_split_is_the_same_stream(shape: dict[str, Any], cuts: list[int]) -> None:
    stream, told = run(chat(), chat_bytes(**shape), cuts)
    sent = events(stream)
    assert told == (True, True, 0, "stop", "theirs", None, USAGE)
    assert sent[-1] == "[DONE]" and sent[-2]["usage"]["cost"] == 0.5 and sent[-2]["choices"] == []
    assert all(item["id"] == "gen-ours" for item in sent[:-1])
    assert all("usage" not in item for item in sent[:-2]), "usage waits for the settlement"
    deltas = [choice["delta"].get("content", "") for item in sent[:-1] for choice in item["choices"]]
    assert "".join(deltas) == "".join(WORDS)


@settings(max_examples=300, deadline=None)
@given(shape=SHAPES, cuts=CUTS)
def test_messages_in_any_split_are_the_same_stream(shape: dict[str, Any], cuts: list[int]) -> None:
    stream, told = run(messages(), messages_bytes(**shape), cuts)
    sent = events(stream)
    assert told == (True, True, 0, "end_turn", "theirs", None, USAGE)
    assert sent[0]["message"]["id"] == "gen-ours" and sent[0]["message"]["provider"] == "lab"
    assert [item["type"] for item in sent] == [item["type"] for item in MESSAGES]
    assert sent[-2]["usage"]["cost"] == 0.5 and sent[-2]["usage"]["output_tokens"] == 3
    assert "".join(item["delta"]["text"] for item in sent if item["type"] == "content_block_delta") == "".join(WORDS)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_byte_by_byte(line_end: bytes) -> None:
    shape = {"line_end": line_end, "bom": True, "spaced": False, "comments": True}
    for relay, data in ((chat, chat_bytes(**shape)), (messages, messages_bytes(**shape))):
        one = run(relay(), data, list(range(len(data))))
        whole = run(relay(), data, [])
        assert (events(one[0]), one[1]) == (events(whole[0]), whole[1])


@pytest.mark.parametrize("make", [chat_bytes, messages_bytes])
def test_nothing_leaves_before_the_first_content(make: Any) -> None:
    relay: Any = chat() if make is chat_bytes else messages()
    data = make(line_end=b"\n", bom=False, spaced=False, comments=True)
    until = data.index(b'"Hel"')
    assert relay.feed(data[:until]) == b"" and not relay.content_started
    assert b'"Hel"' in relay.feed(data[until:])


@pytest.mark.parametrize("make", [chat_bytes, messages_bytes])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_an_event_cut_short_is_skipped_and_counted_however_it_arrives(make: Any, at_once: bool, lost: int) -> None:
    relay: Any = chat() if make is chat_bytes else messages()
    data = make(line_end=b"\n", bom=False, spaced=False, comments=False)
    parts = data.split(b"\n\n")
    broken = next(index for index, part in enumerate(parts) if b'"lo "' in part)
    parts[broken] = parts[broken][:-lost]
    pieces = [b"\n\n".join(parts)] if at_once else [part + b"\n\n" for part in parts if part]
    sent = b"".join(relay.feed(piece) for piece in pieces)
    assert b'"Hel"' in sent and b'"lo "' not in sent and relay.malformed == 1 and relay.finished


@pytest.mark.parametrize("wanted", [True, False])
def test_usage_goes_to_those_who_asked(wanted: bool) -> None:
    data = chat_bytes(line_end=b"\n", bom=False, spaced=False, comments=False)
    stream, told = run(chat(include_usage=wanted), data, [])
    assert any("usage" in item for item in events(stream)[:-1]) is wanted
    assert told[-1] == USAGE, "for the bill in any case"


def test_a_stream_without_its_last_line_end_is_read_to_its_end() -> None:
    data = chat_bytes(line_end=b"\n", bom=False, spaced=False, comments=False)
    assert run(chat(), data.rstrip(b"\n"), [])[1][:2] == (True, True)
    data = messages_bytes(line_end=b"\n", bom=False, spaced=False, comments=False)
    assert run(messages(), data.rstrip(b"\n"), [])[1][:2] == (True, True)


@pytest.mark.parametrize(("relay", "make"), [(chat, chat_bytes), (messages, messages_bytes)])
def test_an_event_over_several_lines_is_the_same_event(relay: Any, make: Any) -> None:
    data = make(line_end=b"\n", bom=False, spaced=False, comments=False)
    over_lines = data.replace(b'data: {"', b'data: {\ndata: "')
    for name in (b"delta", b"message"):
        over_lines = over_lines.replace(b'"%b":{"' % name, b'"%b":{\ndata: "' % name)
    assert over_lines.count(b"\ndata: \"") > 3
    stream, told = run(relay(), over_lines, [])
    whole, told_whole = run(relay(), data, [])
    assert events(stream) == events(whole)
    assert told == told_whole


def test_messages_that_never_began_are_malformed_before_anything_is_sent() -> None:
    data = messages_bytes(line_end=b"\n", bom=False, spaced=False, comments=False)
    relay = messages()
    with pytest.raises(MalformedStream, match="message_start"):
        relay.feed(data[data.index(b"event: content_block_start") :])
    assert not relay.content_started


@pytest.mark.parametrize("relay", [chat, messages])
def test_an_event_without_an_end_is_bounded(relay: Any) -> None:
    running = relay()
    with pytest.raises(MalformedStream):
        for _ in range(100):
            running.feed(b"data: " + b"x" * 100_000)


@pytest.mark.parametrize(("relay", "make"), [(chat, chat_bytes), (messages, messages_bytes)])
def test_an_error_event_ends_in_a_failure_and_is_not_passed_on(relay: Any, make: Any) -> None:
    data = make(line_end=b"\n", bom=False, spaced=False, comments=False)
    cut = data.index(b'"lo "')
    start = data.rindex(b"\n\n", 0, cut) + 2
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'
    running = relay()
    out = running.feed(data[:start] + error)
    assert running.failure is not None and b"overloaded" not in out and not running.finished
