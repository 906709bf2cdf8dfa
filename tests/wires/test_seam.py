"""Streams in parts: what a client was given, the prefill that is made of it, and the join, on every pair of wires."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.delivered import RAW_BYTES_MAX, TEXT_CHARACTERS_MAX, Transcript
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Done,
    Event,
    Finish,
    ReasoningDelta,
    ReasoningSignature,
    Start,
    TextDelta,
    ToolArgumentsDelta,
    ToolStart,
    UsageSeen,
)
from farebox.wires.prefill import CannotContinue, own_beginning
from farebox.wires.seam import OVERLAP_CHARACTERS_MIN, Overlap, Seam, repeats, split_prefill
from farebox.wires.translation import ContinuedRelay
from farebox.wires.usage import Usage, UsageReport

WIRES: dict[str, Any] = {"chat": openai_chat, "messages": anthropic_messages}
NAMES = st.sampled_from(sorted(WIRES))
# Words that never come twice, so that no rest can look like a repetition; white space of every kind between them.
GAPS = st.sampled_from([" ", "\n", "\n\n", "  ", " \n\t", "\u00a0", "　", "—"])
TEXTS = st.lists(GAPS, min_size=1, max_size=30).map(lambda gaps: "".join(f"w{at}é{gap}" for at, gap in enumerate(gaps)) + "end.")


def writer(wire: str, *, id: str = "gen-1") -> Any:
    return WIRES[wire].stream.Writer(id=id, model="m/m", provider="p", created=7, include_usage=True)


def pieces(text: str, cuts: list[int]) -> list[str]:
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def spoken(wire: str, texts: list[str]) -> list[bytes]:
    """The events of a provider's whole answer."""
    speaker = writer(wire, id="theirs")
    out = [speaker.write(event) for event in (Start("theirs"), *map(TextDelta, texts), Finish("stop"))]
    return [*out, speaker.usage(UsageReport(Usage(input=3, output=4)), {}), speaker.done()]


def neutral(wire: str, data: bytes) -> list[Event]:
    reader = WIRES[wire].stream.Reader(Dialect())
    return [*reader.feed(data), *reader.end()]


def split_bytes(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(TEXTS, st.lists(st.integers(0, 999), max_size=6), st.integers(0, 999), NAMES, NAMES, st.integers(1, 400))
def test_a_joined_answer_is_the_undisturbed_one(
    text: str, cuts: list[int], at: int, surface: str, second: str, size: int
) -> None:
    """Cut anywhere, continued on any wire by a model that says what it would have said, in any split of the bytes."""
    at %= len(text)
    first = writer(surface)
    transcript = Transcript(WIRES[surface].delivered.read)
    sent = [first.write(TextDelta(piece)) for piece in pieces(text[:at], cuts)]
    for data in sent:
        transcript.add(data)
    delivered = transcript.delivered()
    assert delivered.text == text[:at] and not delivered.why_not()
    prefill, white_space = split_prefill(delivered.text)
    reader = WIRES[second].stream.Reader(Dialect())
    relay = ContinuedRelay(reader, writer(surface), Seam(prefill, white_space), delivered)
    rest = spoken(second, pieces(text[len(prefill) :], cuts))
    sent += [relay.feed(data) for data in split_bytes(b"".join(rest), size)]
    sent.append(relay.end())
    assert relay.finished and relay.done and relay.report() is not None
    sent.append(relay.finish(Usage(input=3, output=9), b'"cost":0.1'))
    events = neutral(surface, b"".join(sent))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text
    assert [type(event) for event in events if isinstance(event, (Start, Finish, Done))] == [Start, Finish, Done]
    last = [event for event in events if isinstance(event, UsageSeen)][-1].report.usage
    assert last is not None and last.completion_tokens == 9
    assert b"".join(sent).count(b'"role":"assistant"') == 1 and b"theirs" not in b"".join(sent)


@given(TEXTS, st.integers(0, 999), st.integers(1, 40), st.sampled_from(["whole", "end"]))
def test_what_a_model_repeats_of_the_prefill_is_dropped(text: str, at: int, size: int, how: str) -> None:
    at %= len(text)
    prefill, white_space = split_prefill(text[:at])
    repeated = prefill if how == "whole" else prefill[-OVERLAP_CHARACTERS_MIN - 5 :]
    if len(repeated) < OVERLAP_CHARACTERS_MIN:
        return
    seam = Seam(prefill, white_space)
    out: list[Event] = []
    for piece in pieces(repeated + text[len(prefill) :], list(range(0, 2000, size))):
        out += seam.take([TextDelta(piece)])
    out += seam.take([Finish("stop")])
    said = "".join(event.text for event in out if isinstance(event, TextDelta))
    assert text[:at] + said == text


@pytest.mark.parametrize(
    ("before", "rest"),
    [
        ("=" * 60, "=" * 40 + " end"),  # a row goes on as a row
        ("-*-*" * 20, "-*-*" * 20),
        ("no", "no, no"),  # too short to be told from what people say
        ("He said: ha ha", "ha ha"),
        ("abc def", "xyz"),
    ],
)
def test_what_may_well_be_the_answer_itself_is_kept(before: str, rest: str) -> None:
    overlap = Overlap(before)
    assert "".join([overlap.feed(character) for character in rest]) + overlap.end() == rest


def test_nothing_is_held_back_longer_than_it_may_be_a_repetition() -> None:
    overlap = Overlap("The quick brown fox jumps over the lazy dog, and then")
    assert overlap.feed(" rests") == " rests" and not overlap.open


@pytest.mark.parametrize(("text", "found"), [("", False), ("a", False), ("aa", True), ("abab", True), ("aba", False)])
def test_repetition(text: str, found: bool) -> None:
    assert repeats(text) is found


def test_thinking_of_the_continuation_is_not_shown() -> None:
    seam = Seam("So far", "")
    assert seam.take([ReasoningDelta("hm"), ReasoningSignature("s"), TextDelta(" so good")]) == [TextDelta(" so good")]


@pytest.mark.parametrize("wire", sorted(WIRES))
@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([TextDelta("a"), ToolStart(0, "t", "n"), ToolArgumentsDelta(0, "{")], "tool_call"),
        ([ReasoningDelta("hm")], "thinking"),
        ([ReasoningDelta("hm"), ReasoningSignature("s")], "thinking"),
        ([TextDelta("<think>hm")], "thinking"),
        ([TextDelta("a"), Finish("stop")], "finished"),
        ([TextDelta("a" * (TEXT_CHARACTERS_MAX + 1))], "too_long"),
        ([ReasoningDelta("hm"), ReasoningSignature("s"), TextDelta("a")], ""),
        ([], ""),
    ],
)
def test_what_an_answer_holds_beside_text(wire: str, events: list[Event], problem: str) -> None:
    speaker, transcript = writer(wire), Transcript(WIRES[wire].delivered.read)
    for event in events:
        transcript.add(speaker.write(event))
    if problem == "finished":
        transcript.add(speaker.usage(UsageReport(Usage(output=1)), {}))
    assert transcript.delivered().why_not() == problem


@pytest.mark.parametrize("wire", sorted(WIRES))
def test_a_long_stream_is_read_as_it_grows(wire: str) -> None:
    speaker, transcript = writer(wire), Transcript(WIRES[wire].delivered.read)
    count = RAW_BYTES_MAX // 50
    for at in range(count):
        transcript.add(speaker.write(TextDelta(f"{at} ")))
    assert transcript.delivered().text == "".join(f"{at} " for at in range(count))


def body(*messages: Any, **fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": list(messages), **fields}).encode()


ASKED = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("dialect", "turn", "fields"),
    [
        (Dialect(prefill="plain"), {}, {}),
        (Dialect(prefill="prefix"), {"prefix": True}, {}),
        (Dialect(prefill="partial"), {"partial": True}, {}),
        (
            Dialect(prefill="continue_final_message"),
            {},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
        (Dialect(prefill="plain", reasoning_request="thinking_type"), {}, {"thinking": {"type": "disabled"}}),
        (Dialect(prefill="plain", reasoning_request="enable_thinking"), {}, {"enable_thinking": False}),
    ],
)
def test_how_chat_vendors_are_told_to_go_on(dialect: Dialect, turn: dict[str, Any], fields: dict[str, Any]) -> None:
    written = json.loads(openai_chat.prefill.continued(body(ASKED, top_p=1), "So far", dialect, thinks=True))
    assert written == {
        "model": "m",
        "messages": [ASKED, {"role": "assistant", "content": "So far"} | turn],
        "top_p": 1,
        **fields,
    }


def test_messages_are_continued_without_thinking() -> None:
    asked = body(ASKED, thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=9)
    written = json.loads(anthropic_messages.prefill.continued(asked, "So far", Dialect(), thinks=True))
    assert written == {"model": "m", "messages": [ASKED, {"role": "assistant", "content": "So far"}], "max_tokens": 9}


@pytest.mark.parametrize(
    "content", ["He", [{"type": "text", "text": "H"}, {"type": "text", "text": "e", "cache_control": {"type": "ephemeral"}}]]
)
def test_the_clients_own_beginning_stays_in_front(content: Any) -> None:
    asked = body(ASKED, {"role": "assistant", "content": content})
    assert own_beginning(asked) == "He"
    written = json.loads(openai_chat.prefill.continued(asked, "Hello", Dialect(prefill="prefix"), thinks=False))
    assert written["messages"] == [ASKED, {"role": "assistant", "content": "Hello", "prefix": True}]


@pytest.mark.parametrize(
    "turn",
    [
        {"content": None, "tool_calls": [{"id": "1"}]},
        {"content": [{"type": "image"}]},
        {"content": 5},
    ],
)
def test_a_last_turn_that_is_no_text_cannot_be_continued(turn: dict[str, Any]) -> None:
    with pytest.raises(CannotContinue):
        own_beginning(body(ASKED, {"role": "assistant"} | turn))
    assert own_beginning(body(ASKED)) == ""
