"""Signatures of Gemini's calls: they survive a client's loop of tools, on messages in carriages, on chat as they are."""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2 as httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from tests.routing.conftest import model, offer, planned, provider, router

from farebox import bridge
from farebox.errors import FareboxError, Kind
from farebox.providers import google
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.anthropic_messages import carriage
from farebox.wires.anthropic_messages.carriage import Carried
from farebox.wires.openai_chat import call as chat_call
from farebox.wires.relay import estimated_tokens
from farebox.wires.usage import Usage

SIGNATURE = "EjQKMgEMOdbHJChLX75QUCJjyYlm+q/bGa=="
PLACEHOLDER = {"google": {"thought_signature": "skip_thought_signature_validator"}}
ANSWERS = Usage(input=1, output=2)
"""What the gateway counted; it is not what these tests are about."""
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "EqQBCgIYAhIM+/=="}
"""One of Claude's own."""


def signed(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


def gemini_call(id: str, name: str = "look", signature: str | None = None) -> dict[str, Any]:
    """A call as Gemini's endpoint writes it: whole, and in a stream without an index."""
    call: dict[str, Any] = {"function": {"arguments": '{"at":"it"}', "name": name}, "id": id, "type": "function"}
    return call | ({} if signature is None else {"extra_content": signed(signature)})


def gemini_answer(*calls: dict[str, Any], text: str | None = None) -> bytes:
    message = {"role": "assistant", "content": text, "tool_calls": list(calls)}
    return msgspec.json.encode({
        "id": "g1", "object": "chat.completion", "model": "gemini-3-flash-preview", "created": 1,
        "choices": [{"finish_reason": "tool_calls", "index": 0, "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9},
    })  # fmt: skip


def gemini_stream(*deltas: dict[str, Any]) -> bytes:
    head = {"id": "g1", "object": "chat.completion.chunk", "created": 1, "model": "gemini-3-flash-preview"}
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append(head | {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 9}})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


CLAUDE = provider("anthropic", wires=("anthropic_messages",))
MARKET = router(
    model(
        "v/m",
        offer("google", id="gemini-3-flash-preview"),
        offer("google", id="gemini-3-pro-preview"),
        offer("anthropic", id="claude", wire="anthropic_messages"),
        offer("other", id="gpt"),
    ),
    providers={"google": google.PROVIDER, "anthropic": CLAUDE},
    attempts_max=9,
)


def call_of(fields: dict[str, Any], wire: str = "anthropic_messages") -> Any:
    body = msgspec.json.encode({"model": "v/m"} | fields)
    return (messages_call if wire == "anthropic_messages" else chat_call).read_call(body)


def candidate(asked: Any, id: str) -> Any:
    (found,) = [one for one in planned(MARKET, asked).candidates if one.target.offer.id == id]
    return found


def request(fields: dict[str, Any], id: str, wire: str = "anthropic_messages", *, drop: bool = False) -> dict[str, Any]:
    """The body that the provider of this model gets."""
    asked = call_of(fields, wire)
    sent = bridge.outgoing(asked, candidate(asked, id), drop_unsupported=drop)
    assert drop or sent.dropped == ()
    return msgspec.json.decode(sent.body)


ASKED: dict[str, Any] = {
    "max_tokens": 1024,
    "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    "messages": [{"role": "user", "content": "go"}],
}


def content_of(answer: bytes, by: str = "gemini-3-flash-preview", **fields: Any) -> list[dict[str, Any]]:
    """The blocks that a messages client gets of Gemini's answer, or another model's."""
    asked = call_of(ASKED | fields)
    reply = bridge.reply(asked, candidate(asked, by), answer, created_s=1)
    return msgspec.json.decode(reply.write(id="gen-1", provider="google", usage=ANSWERS, extra=b'"cost":0'))["content"]


def streamed(
    body: bytes, *, by: str = "gemini-3-flash-preview", pieces: int = 1 << 20, fields: dict[str, Any] | None = None
) -> bytes:
    """The events that a messages client gets of Gemini's stream, or another model's, which comes in pieces."""
    asked = call_of(ASKED | {"stream": True} | (fields or {}))
    relay = bridge.relay(asked, candidate(asked, by), id="gen-1", created_s=1)
    out = b"".join(relay.feed(body[at : at + pieces]) for at in range(0, len(body), pieces)) + relay.end()
    assert relay.done
    return out + relay.finish(ANSWERS, b'"cost":0')


def through_the_sdk(events: bytes) -> list[dict[str, Any]]:
    """What Anthropic's SDK gathers of a stream, as it would be sent back."""
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=events)
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: answer)) as http,
        anthropic.Anthropic(api_key="k", base_url="http://farebox", http_client=http, max_retries=0) as client,
        client.messages.stream(**(ASKED | {"model": "v/m"})) as stream,
    ):
        return [block.model_dump(exclude_none=True) for block in stream.get_final_message().content]


def loop(content: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """The next request of a client that ran the tools."""
    results = [
        {"type": "tool_result", "tool_use_id": one["id"], "content": "seen"} for one in content if one["type"] == "tool_use"
    ]
    turns = [*ASKED["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": results}]
    return ASKED | fields | {"messages": turns}


def calls_sent(body: dict[str, Any]) -> list[Any]:
    (turn,) = [message for message in body["messages"] if message["role"] == "assistant"]
    return [call.get("extra_content") for call in turn["tool_calls"]]


# --- There and back ------------------------------------------------------------------------------------------------------


def test_a_signature_survives_a_messages_client() -> None:
    content = content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE), text="Looking."))
    assert [block["type"] for block in content] == ["text", "thinking", "tool_use"]
    assert content[1]["thinking"] == "" and content[1]["signature"].startswith("farebox.v1.")
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed(SIGNATURE)]


@pytest.mark.parametrize("pieces", [1 << 20, 7])
def test_a_signature_survives_a_streaming_messages_client(pieces: int) -> None:
    body = gemini_stream({"content": "Looking."}, {"tool_calls": [gemini_call("c1", signature=SIGNATURE)]})
    events = streamed(body, pieces=pieces)
    content = through_the_sdk(events)
    assert [block["type"] for block in content] == ["text", "thinking", "tool_use"]
    assert content[2]["input"] == {"at": "it"}
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed(SIGNATURE)]
    told = [json.loads(line[6:]) for line in events.decode().splitlines() if line.startswith("data: ")]
    assert [(one["type"], one["index"]) for one in told if "index" in one] == [
        ("content_block_start", 0), ("content_block_delta", 0), ("content_block_stop", 0),
        ("content_block_start", 1), ("content_block_delta", 1), ("content_block_stop", 1),
        ("content_block_start", 2), ("content_block_delta", 2), ("content_block_stop", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_of_parallel_calls_the_first_is_signed_and_the_others_go_back_as_they_came(stream: bool) -> None:
    calls = [gemini_call("c1", signature=SIGNATURE), gemini_call("c2"), gemini_call("c3")]
    content = through_the_sdk(streamed(gemini_stream({"tool_calls": calls}))) if stream else content_of(gemini_answer(*calls))
    assert [block["type"] for block in content] == ["thinking", "tool_use", "tool_use", "tool_use"]
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed(SIGNATURE), None, None]


@pytest.mark.parametrize("stream", [False, True])
def test_every_signature_finds_its_own_call(stream: bool) -> None:
    calls = [gemini_call("c1", signature="one1"), gemini_call("c2"), gemini_call("c3", signature="three")]
    content = through_the_sdk(streamed(gemini_stream({"tool_calls": calls}))) if stream else content_of(gemini_answer(*calls))
    assert [block["type"] for block in content] == ["thinking", "tool_use", "tool_use", "thinking", "tool_use"]
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed("one1"), None, signed("three")]
    content.insert(0, content.pop(3))
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed("one1"), None, signed("three")]


def test_calls_told_in_pieces_that_mix_keep_their_signatures_and_their_arguments() -> None:
    def piece(index: int, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index} | more]}

    body = gemini_stream(
        piece(0, id="c1", function={"name": "look", "arguments": '{"at":'}, extra_content=signed("one1")),
        piece(1, id="c2", function={"name": "look", "arguments": '{"at":'}, extra_content=signed("two2")),
        piece(0, function={"arguments": '"a"}'}),
        piece(1, function={"arguments": '"b"}'}, extra_content=signed("again")),
    )
    content = through_the_sdk(streamed(body))
    assert [block["type"] for block in content] == ["thinking", "tool_use", "thinking", "tool_use"]
    assert [block["input"] for block in content if block["type"] == "tool_use"] == [{"at": "a"}, {"at": "b"}]
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed("one1"), signed("two2")]


@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_a_signature_that_comes_after_its_call_was_begun_stands_before_it_all_the_same(index: dict[str, int]) -> None:
    first, later = gemini_call("c1") | index, {"extra_content": signed(SIGNATURE)} | index
    content = through_the_sdk(streamed(gemini_stream({"tool_calls": [first]}, {"tool_calls": [later]})))
    assert [block["type"] for block in content] == ["thinking", "tool_use"]
    assert content[1]["input"] == {"at": "it"}
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed(SIGNATURE)]


def test_calls_without_ids_are_signed_by_the_ids_made_for_them() -> None:
    for content in (
        content_of(gemini_answer(gemini_call("", signature=SIGNATURE))),
        through_the_sdk(streamed(gemini_stream({"tool_calls": [gemini_call("", signature=SIGNATURE)]}))),
    ):
        assert content[-1]["id"] == "call_g1_0_0"
        assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed(SIGNATURE)]


# --- Where it does not belong --------------------------------------------------------------------------------------------


def test_a_signature_goes_to_nobody_but_its_signer() -> None:
    content = content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE)))
    assert calls_sent(request(loop(content), "gemini-3-pro-preview")) == [PLACEHOLDER]
    assert calls_sent(request(loop(content), "gpt")) == [None]
    assert "farebox" not in json.dumps(request(loop(content), "gpt"))


def test_claude_gets_the_turn_without_carriages_and_its_own_thinking_byte_for_byte() -> None:
    content = content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE), text="Looking."))
    own = b'{ "type":"thinking",  "thinking":"H\\u00fcm.", "signature":"EqQB+/==" }'
    redacted = b'{"data":"Emwk+/==","type":"redacted_thinking"}'
    fields = loop([{"type": "text", "text": "OWN"}, {"type": "text", "text": "REDACTED"}, *content])
    body = msgspec.json.encode({"model": "v/m"} | fields)
    body = body.replace(b'{"type":"text","text":"OWN"}', own).replace(b'{"type":"text","text":"REDACTED"}', redacted)
    asked = messages_call.read_call(body)
    sent = bridge.outgoing(asked, candidate(asked, "claude"), drop_unsupported=False).body
    assert b"farebox." not in sent and own in sent and redacted in sent
    kept = msgspec.json.decode(sent)
    assert [block["type"] for block in kept["messages"][1]["content"]] == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert kept["messages"][2] == fields["messages"][2] and kept["tools"] == fields["tools"]
    counted = messages_call.forward_body(asked, model=b'"c"', output_cap=None)
    assert b"farebox." not in counted


def test_a_body_without_carriages_is_forwarded_as_it_came() -> None:
    asked = call_of(loop([THINKING, {"type": "tool_use", "id": "t1", "name": "look", "input": {}}]))
    sent = bridge.outgoing(asked, candidate(asked, "claude"), drop_unsupported=False).body
    assert sent == asked.body.replace(b'"v/m"', b'"claude"')


def test_a_turn_that_is_nothing_but_a_carriage_is_left_out() -> None:
    content = content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE)))
    fields = loop(content[1:])
    fields["messages"].insert(1, {"role": "assistant", "content": content[:1]})
    assert request(fields, "claude")["messages"] == loop(content[1:])["messages"]


BUDGET = {"type": "enabled", "budget_tokens": 1024}


def test_thinking_by_budget_cannot_begin_in_the_middle_of_a_loop_that_gemini_began() -> None:
    fields = loop(content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE)), thinking=BUDGET), thinking=BUDGET)
    with pytest.raises(FareboxError) as refused:
        request(fields, "claude")
    assert refused.value.kind is Kind.UNSUPPORTED and refused.value.param == "thinking"
    assert "another model began it" in refused.value.message and refused.value.details == {"unsupported": ["thinking"]}
    assert "thinking" not in request(fields, "claude", drop=True)
    assert request(fields | {"thinking": {"type": "adaptive"}}, "claude")["thinking"] == {"type": "adaptive"}
    more = [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "on"}]
    later = fields | {"messages": [*fields["messages"], *more]}
    assert request(later, "claude")["thinking"] == BUDGET
    own = fields | {"messages": [dict(turn) for turn in fields["messages"]]}
    own["messages"][1]["content"] = [THINKING, *own["messages"][1]["content"]]
    assert request(own, "claude")["thinking"] == BUDGET


@pytest.mark.parametrize(
    ("fields", "given_one"),
    [
        ({}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": BUDGET, "tool_choice": {"type": "auto"}}, True),
        ({"thinking": {"type": "adaptive"}, "tool_choice": {"type": "any"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"tool_choice": {"type": "any"}}, False),
        ({"tool_choice": {"type": "tool", "name": "look"}}, False),
        ({"tool_choice": None, "thinking": None}, True),
    ],
)
def test_who_has_to_expect_no_thinking_is_given_none(fields: dict[str, Any], given_one: bool) -> None:
    kinds = ["thinking", "tool_use"] if given_one else ["tool_use"]
    content = content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE)), **fields)
    assert [block["type"] for block in content] == kinds
    events = streamed(gemini_stream({"tool_calls": [gemini_call("c1", signature=SIGNATURE)]}), fields=fields)
    assert [block["type"] for block in through_the_sdk(events)] == kinds
    expected = signed(SIGNATURE) if given_one else PLACEHOLDER
    assert calls_sent(request(loop(content, **fields), "gemini-3-flash-preview")) == [expected]


def spoiled(text: str) -> Iterator[str]:
    yield text[:-1]
    yield text[: len(text) // 2]
    yield text.replace("farebox.v1.", "farebox.v2.")
    yield text.replace(SIGNATURE, SIGNATURE[:-3] + "A==")
    yield "farebox."
    yield "farebox.v1....."
    yield text + "\n"


def checked(*pieces: str) -> str:
    text = ".".join(("farebox.v1", *pieces))
    return f"{text}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def test_a_spoiled_or_forged_carriage_is_left_out_and_its_call_goes_with_the_placeholder() -> None:
    name = urlsafe_b64encode(b"google/gemini-3-flash-preview").decode().rstrip("=")
    content = content_of(gemini_answer(gemini_call("c1", signature=SIGNATURE)))
    forged = [(name, "YzE", 'gar"bage'), (name, "YzE", "a", "b"), (name, "Y", "s1"), ("7aCA", "YzE", "s1"), (name, "ü", "s1")]
    for text in [*spoiled(content[0]["signature"]), *(checked(*pieces) for pieces in forged)]:
        fields = loop([content[0] | {"signature": text}, content[1]])
        sent = request(fields, "gemini-3-flash-preview")
        assert calls_sent(sent) == [PLACEHOLDER], text
        for id in ("gemini-3-flash-preview", "claude", "gpt"):
            assert "farebox" not in json.dumps(request(fields, id)), text
    stray = loop([content[0], content[1] | {"id": "c9"}])
    assert calls_sent(request(stray, "gemini-3-flash-preview")) == [PLACEHOLDER]


def test_a_signature_that_is_too_long_or_no_base64_is_not_carried() -> None:
    for signature in ("x" * (carriage.SIGNATURE_CHARS_MAX + 1), "a.b", "ü", ""):
        content = content_of(gemini_answer(gemini_call("c1", signature=signature)))
        assert [block["type"] for block in content] == ["tool_use"]
    most = "x" * carriage.SIGNATURE_CHARS_MAX
    content = content_of(gemini_answer(gemini_call("c1", signature=most)))
    assert calls_sent(request(loop(content), "gemini-3-flash-preview")) == [signed(most)]


@given(
    st.text(max_size=60), st.text(max_size=60), st.text("ABYZabyz0189+/=_-", min_size=1, max_size=400), st.data()
)
def test_a_carriage_holds_what_was_put_in_and_any_change_is_found(signer: str, call: str, signature: str, data: Any) -> None:
    carried = Carried(signer, call, signature)
    text = carriage.write(carried)
    assert text is not None and carriage.read(text) == carried and text.isascii()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda one: one != text[at]))
    assert carriage.read(text[:at] + other + text[at + 1 :]) is None
    assert carriage.read(text[:at]) is None


@given(st.text() | st.text("farebox.v1-_=+/ü", max_size=80).map(lambda text: f"farebox.v1.{text}"))
def test_whatever_a_client_makes_up_is_read_or_not_and_never_more(text: str) -> None:
    found = carriage.read(text)
    assert found is None or carriage.write(found) == text


# --- Thinking that nobody signed -----------------------------------------------------------------------------------------


def thought_by_gpt(*, stream: bool) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"reasoning_content": "Let me "}, {"reasoning_content": "look."}, {"content": "Looking."}]
    if stream:
        calls = {"tool_calls": [gemini_call("c1")]}
        return through_the_sdk(streamed(gemini_stream(*deltas, calls), by="gpt"))
    answer = msgspec.json.decode(gemini_answer(gemini_call("c1"), text="Looking."))
    answer["choices"][0]["message"]["reasoning_content"] = "Let me look."
    return content_of(msgspec.json.encode(answer), "gpt")


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_that_nobody_signed_keeps_nobody_from_going_on_with_claude(stream: bool) -> None:
    content = thought_by_gpt(stream=stream)
    assert content[0] == {"type": "thinking", "thinking": "Let me look.", "signature": "farebox.unsigned"}
    assert [block["type"] for block in content] == ["thinking", "text", "tool_use"]
    sent = request(loop(content), "claude")
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["text", "tool_use"]
    assert "Let me look." not in json.dumps(request(loop(content), "gemini-3-flash-preview"))


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_that_nobody_signed_goes_back_as_text_where_that_is_taken(stream: bool) -> None:
    sent = request(loop(thought_by_gpt(stream=stream)), "gpt")
    assert sent["messages"][1]["reasoning_content"] == "Let me look."
    assert "farebox" not in json.dumps(sent)


# --- Chat completions ----------------------------------------------------------------------------------------------------

CHAT: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "look"}}],
    "messages": [{"role": "user", "content": "go"}],
}


def chat_loop(message: dict[str, Any]) -> dict[str, Any]:
    results = [{"role": "tool", "tool_call_id": one["id"], "content": "seen"} for one in message["tool_calls"]]
    return CHAT | {"messages": [*CHAT["messages"], message, *results]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_client_gets_the_signature_itself_and_sends_it_back(stream: bool) -> None:
    asked = call_of(CHAT | {"stream": stream}, "openai_chat")
    found = candidate(asked, "gemini-3-flash-preview")
    message: dict[str, Any]
    if stream:
        relay = bridge.relay(asked, found, id="gen-1", created_s=1)
        call = gemini_call("c1", signature=SIGNATURE) | {"index": 0}
        out = relay.feed(gemini_stream({"role": "assistant", "content": "Looking."}, {"tool_calls": [call]})) + relay.end()
        state = ChatCompletionStreamState()
        for line in out.decode().split("\n\n"):
            if line.startswith("data: {"):
                state.handle_chunk(ChatCompletionChunk.model_validate(json.loads(line[6:])))
        message = state.current_completion_snapshot.choices[0].message.model_dump(exclude_none=True)
    else:
        reply = bridge.reply(asked, found, gemini_answer(gemini_call("c1", signature=SIGNATURE)), created_s=1)
        body = msgspec.json.decode(reply.write(id="gen-1", provider="google", usage=ANSWERS, extra=b'"cost":0'))
        message = body["choices"][0]["message"]
    assert calls_sent(request(chat_loop(message), "gemini-3-flash-preview", "openai_chat")) == [signed(SIGNATURE)]


def test_geminis_streamed_calls_come_to_chat_clients_as_openais_do() -> None:
    """Gemini says the role in every chunk, numbers no call, ends with `stop`, and may sign a call, or the answer, afterwards."""
    calls = [gemini_call("c1"), gemini_call("c2")]
    deltas = [
        {"content": "Looking."}, {"tool_calls": calls[:1]}, {"tool_calls": [{"extra_content": signed(SIGNATURE)}]},
        {"tool_calls": calls[1:]}, {"extra_content": signed("last")},
    ]  # fmt: skip
    body = gemini_stream(*({"role": "assistant"} | delta for delta in deltas)).replace(b'"tool_calls"}', b'"stop"}')
    asked = call_of(CHAT | {"stream": True}, "openai_chat")
    relay = bridge.relay(asked, candidate(asked, "gemini-3-flash-preview"), id="gen-1", created_s=1)
    out = relay.feed(body) + relay.end()
    assert relay.done and relay.finish_reason == "tool_calls" and relay.native_finish_reason == "stop"
    state = ChatCompletionStreamState()
    for line in out.decode().split("\n\n"):
        if line.startswith("data: {"):
            state.handle_chunk(ChatCompletionChunk.model_validate(json.loads(line[6:])))
    choice = state.current_completion_snapshot.choices[0]
    message = choice.message.model_dump(exclude_none=True)
    assert choice.finish_reason == "tool_calls" and message["role"] == "assistant" and message["extra_content"] == signed("last")
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == ['{"at":"it"}', '{"at":"it"}']
    assert calls_sent(request(chat_loop(message), "gemini-3-flash-preview", "openai_chat")) == [signed(SIGNATURE), None]


def test_geminis_stream_is_forwarded_as_it_comes_where_no_tool_can_be_called() -> None:
    asked = call_of({"messages": CHAT["messages"], "stream": True}, "openai_chat")
    relay = bridge.relay(asked, candidate(asked, "gemini-3-flash-preview"), id="gen-1", created_s=1)
    assert b'"unknown":7' in relay.feed(gemini_stream({"role": "assistant", "content": "Hi.", "unknown": 7}))


def test_geminis_signature_on_a_chat_clients_call_keeps_nobody_from_going_on_with_claude() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [gemini_call("c1", signature=SIGNATURE)]}
    fields = chat_loop(message) | {"max_tokens": 1024}
    sent = request(fields, "claude", "openai_chat")
    assert SIGNATURE not in json.dumps(sent)
    assert sent["messages"][1]["content"] == [{"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "it"}}]
    message["tool_calls"][0]["extra_content"]["google"]["more"] = 1
    with pytest.raises(FareboxError, match="extra_content"):
        request(fields, "claude", "openai_chat")


def test_calls_of_another_model_go_on_with_gemini_on_chat_too() -> None:
    def turn(*calls: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "tool_calls": list(calls)}

    unsigned = chat_loop(turn(gemini_call("c1"), gemini_call("c2")))
    unsigned["messages"].insert(0, {"role": "developer", "content": "Be brief."})
    sent = request(unsigned, "gemini-3-flash-preview", "openai_chat")
    assert calls_sent(sent) == [PLACEHOLDER, PLACEHOLDER]
    assert sent["messages"][0]["role"] == "system"
    for message in sent["messages"]:
        for call in message.get("tool_calls", ()):
            del call["extra_content"]
    assert sent["messages"][1:] == unsigned["messages"][1:]
    assert calls_sent(request(unsigned, "gpt", "openai_chat")) == [None, None]
    first = chat_loop(turn(gemini_call("c1", signature=SIGNATURE), gemini_call("c2")))
    assert calls_sent(request(first, "gemini-3-flash-preview", "openai_chat")) == [signed(SIGNATURE), None]
    last = chat_loop(turn(gemini_call("c1"), gemini_call("c2", signature=SIGNATURE)))
    assert calls_sent(request(last, "gemini-3-flash-preview", "openai_chat")) == [PLACEHOLDER, signed(SIGNATURE)]
    null = chat_loop(turn(gemini_call("c1") | {"extra_content": None}))
    assert calls_sent(request(null, "gemini-3-flash-preview", "openai_chat")) == [PLACEHOLDER]


def test_a_chat_request_that_lacks_no_signature_goes_to_gemini_byte_for_byte() -> None:
    calls = [gemini_call("c1", signature=SIGNATURE), gemini_call("c2")]
    turns = [{"role": "assistant", "tool_calls": calls}, {"role": "assistant", "content": "no", "tool_calls": []}]
    asked = call_of(CHAT | {"max_tokens": 9, "messages": [*CHAT["messages"], *turns]}, "openai_chat")
    sent = bridge.outgoing(asked, candidate(asked, "gemini-3-flash-preview"), drop_unsupported=False).body
    assert sent == asked.body.replace(b'"v/m"', b'"gemini-3-flash-preview"')
    odd: list[Any] = [7, {"role": "assistant", "tool_calls": 7}, {"role": "assistant", "tool_calls": [7, None]}]
    asked = call_of(CHAT | {"max_tokens": 9, "messages": odd}, "openai_chat")
    sent = bridge.outgoing(asked, candidate(asked, "gemini-3-flash-preview"), drop_unsupported=False).body
    assert msgspec.json.decode(sent)["messages"] == odd  # what is malformed is left for the provider to name


def test_a_signature_is_not_counted_as_text_where_usage_was_lost() -> None:
    call = gemini_call("c1")
    assert estimated_tokens([call]) == estimated_tokens([call | {"extra_content": signed("x" * 4000)}])
