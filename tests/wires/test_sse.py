"""The event decoder: any split of the same bytes gives the same events, and they are the events of the grammar."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.wires.sse import Decoder, ServerSentEvent, encode


def reference(data: bytes) -> list[ServerSentEvent]:
    """The grammar, read slowly: whole body, one line after another."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    events: list[ServerSentEvent] = []
    name, lines = "", []
    for line in [*re.split(rb"\r\n|\n|\r", data), b""]:
        if line == b"":
            if lines:
                events.append(ServerSentEvent(name, b"\n".join(lines)))
            name, lines = "", []
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                lines.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
    return events


def fed(pieces: list[bytes]) -> list[ServerSentEvent]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()


fragments = st.sampled_from(
    [b"data:", b"data: ", b"data", b"event: error", b"event:ping", b": comment", b"id: 1", b"retry: 5", b"{\"a\":1}", b"[DONE]",
     b" ", "é€🙂".encode(), b"\xff", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b":", b"x", b"\x00"]
)  # fmt: skip
marks = st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"])
bodies = st.builds(lambda mark, parts: mark + b"".join(parts), marks, st.lists(fragments, max_size=40))


@settings(max_examples=400, deadline=None)
@given(bodies, st.data())
def test_any_split_gives_the_events_of_the_grammar(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    expected = reference(body)
    assert fed([body]) == expected
    assert fed(pieces) == expected
    assert fed([body[i : i + 1] for i in range(len(body))]) == expected


def test_an_event_without_its_blank_line_is_an_event_at_the_end() -> None:
    assert fed([b"data: [DONE]"]) == [ServerSentEvent("", b"[DONE]")]
    assert fed([b"data: a\n\ndata: b\n"]) == [ServerSentEvent("", b"a"), ServerSentEvent("", b"b")]


def test_an_event_of_many_data_lines_is_joined() -> None:
    assert fed([b"event: e\ndata: one\ndata: two\n\n"]) == [ServerSentEvent("e", b"one\ntwo")]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_event_above_the_bound_ends_the_stream_for_every_split(size: int) -> None:
    body = b"data: ok\n\ndata: " + b"x" * 100 + b"\n\ndata: later\n\n"
    decoder = Decoder(event_bytes_max=50)
    events = [event for i in range(0, len(body), size) for event in decoder.feed(body[i : i + size])]
    assert events == [ServerSentEvent("", b"ok")]
    assert decoder.too_large
    assert decoder.end() == []


def test_an_event_of_just_the_bound_passes_for_every_split() -> None:
    event = b"data: " + b"x" * 44
    for size in (1, 7, 1000):
        decoder = Decoder(event_bytes_max=len(event))
        body = event + b"\n\n"
        events = [e for i in range(0, len(body), size) for e in decoder.feed(body[i : i + size])]
        assert events == [ServerSentEvent("", event[6:])]


@given(st.text(alphabet="ab\u20ac", max_size=20), st.sampled_from(["", "ping"]))
def test_what_is_encoded_is_decoded(text: str, name: str) -> None:
    assert fed([encode(text.encode(), name)]) == [ServerSentEvent(name, text.encode())]
