"""What passed by in a stream, as tokens: where a provider's count never comes, nothing is billed that was not delivered."""

import json
from typing import Any

import pytest
from tests.wires.conftest import Recording

from farebox.bridge import WIRES
from farebox.wires.anthropic_messages.relay import Relay as MessagesRelay
from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat.relay import Relay as ChatRelay
from farebox.wires.relay import ESTIMATE_BYTES_PER_TOKEN, TOKEN_BYTES_MAX, Relay, streamed_tokens
from farebox.wires.translation import TranslatedRelay

WORDS = [" lorem", " ipsum", " dolor", " sit", " amet", " nullam", " viverra", " sed", " magna"]
"""Nine tokens of more than four bytes each, in the mean."""


def same(wire: str, dialect: Dialect | None = None) -> Relay:
    if wire == "chat":
        dialect = dialect or Dialect()
        return ChatRelay(id="gen-1", provider="p", include_usage=True, dialect=dialect, created=1, model="v/m")
    return MessagesRelay(id="gen-1", provider="p", dialect=dialect or Dialect())


def translated(wire: str) -> Relay:
    here, there = ("openai_chat", "anthropic_messages") if wire == "messages" else ("anthropic_messages", "openai_chat")
    writer = WIRES[here].stream.Writer(id="gen-1", model="v/m", provider="p", created=1, include_usage=True)
    return TranslatedRelay(WIRES[there].stream.Reader(Dialect()), writer)


def event(fields: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def chat(texts: list[str], **more: Any) -> list[bytes]:
    return [event({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}], **more}) for text in texts]


def block(kind: str, name: str, texts: list[str]) -> list[bytes]:
    return [event({"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: text}}) for text in texts]


START = event({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 10, "output_tokens": 1}}})


BEGIN = event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})


def events(wire: str, texts: list[str]) -> list[bytes]:
    return chat(texts) if wire == "chat" else [START, BEGIN, *block("text_delta", "text", texts)]


@pytest.mark.parametrize("at_once", [1, 4, 100])
@pytest.mark.parametrize("make", [same, translated])
@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_a_token_an_event_is_counted_by_events(wire: str, make: Any, at_once: int) -> None:
    sent = events(wire, WORDS)
    relay = make(wire)
    for start in range(0, len(sent), at_once):
        relay.feed(b"".join(sent[start : start + at_once]))
    assert sum(map(len, WORDS)) / ESTIMATE_BYTES_PER_TOKEN > len(WORDS) + 2, "by size it would be more"
    assert relay.observed_output_tokens() == len(WORDS)


@pytest.mark.parametrize("make", [same, translated])
@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_many_tokens_an_event_are_taken_by_their_size(wire: str, make: Any) -> None:
    relay = make(wire)
    for one in events(wire, ["a few words that came together, " * 4] * 6):
        relay.feed(one)
    assert relay.observed_output_tokens() == 6 * 128 // ESTIMATE_BYTES_PER_TOKEN


def test_bytes_are_counted_not_characters_and_nothing_where_there_is_none() -> None:
    relay = translated("chat")
    for one in events("chat", ["", "天气很好" * 5, ""]):
        relay.feed(one)
    assert relay.observed_output_tokens() == 60 // ESTIMATE_BYTES_PER_TOKEN
    assert streamed_tokens(3, 3 * TOKEN_BYTES_MAX) == 3 and streamed_tokens(3, 3 * TOKEN_BYTES_MAX + 1) == 7


@pytest.mark.parametrize("together", [False, True])
def test_what_a_providers_own_tool_found_is_none_of_the_models_tokens(together: bool) -> None:
    found = {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "encrypted_content": "x" * 30_000}]}
    cited = {"type": "citations_delta", "citation": {"cited_text": "y" * 600, "encrypted_index": "z" * 200}}
    sent = [
        *events("messages", WORDS[:4]),
        event({"type": "content_block_start", "index": 1, "content_block": found}),
        event({"type": "content_block_stop", "index": 1}),
        event({"type": "content_block_delta", "index": 2, "delta": cited}),
        *block("text_delta", "text", WORDS[4:]),
        event({"type": "content_block_delta", "index": 2, "delta": {"type": "signature_delta", "signature": "s" * 400}}),
    ]
    relay = same("messages")
    for one in [b"".join(sent)] if together else sent:
        relay.feed(one)
    assert relay.observed_output_tokens() == len(WORDS)


@pytest.mark.parametrize(("kind", "name"), [("thinking_delta", "thinking"), ("input_json_delta", "partial_json")])
def test_thoughts_and_arguments_are_tokens_too(kind: str, name: str) -> None:
    relay = same("messages")
    for one in (START, *block("text_delta", "text", WORDS[:3]), *block(kind, name, WORDS[3:])):
        relay.feed(one)
    assert relay.observed_output_tokens() == len(WORDS)


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_the_text_itself_is_better_than_the_size_of_its_events(wire: str) -> None:
    """Some providers pad their events; what a client was given is known where its stream breaks off."""
    relay = same(wire)
    padded = [START, *(one[:-2] + b" " * 9 + b"\n\n" for one in block("text_delta", "text", ["a", *WORDS]))]
    for number, one in enumerate(padded if wire == "messages" else chat(["a"]) + chat(WORDS, p="0" * 40)):
        relay.feed(one if number else one.replace(b" ", b""))
    assert relay.observed_output_tokens(1 + sum(map(len, WORDS))) == 1 + len(WORDS)


def test_recorded_streams_are_hardly_ever_taken_for_more_than_they_were(recorded: tuple[Recording, ...]) -> None:
    """Summed up over each wire, against what the provider counted. What is too much is mostly padding of events."""
    for wire, too_many_percent in (("chat", 25), ("messages", 10)):
        tokens = too_many = 0
        for one in recorded:
            if not one.stream or one.status != 200 or one.family != ("chat_completions" if wire == "chat" else wire):
                continue
            relay = same(wire, one.dialect)
            for start in range(0, len(one.body), 700):
                relay.feed(one.body[start : start + 700])
            relay.end()
            report = relay.report()
            if report is None or report.usage is None:
                continue
            tokens += report.usage.completion_tokens
            too_many += max(relay.observed_output_tokens() - report.usage.completion_tokens, 0)
        assert tokens and too_many * 100 <= tokens * too_many_percent, (wire, too_many, tokens)
