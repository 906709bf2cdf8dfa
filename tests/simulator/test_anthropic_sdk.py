"""Anthropic's own client against the simulated provider."""

import anthropic
import pytest

WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def test_plain_and_streamed_answers_agree(messages, hello):
    whole = messages.messages.create(model="sim", max_tokens=1000, messages=hello)
    with messages.messages.stream(model="sim", max_tokens=1000, messages=hello) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].text == whole.content[0].text
    assert streamed.usage.output_tokens == whole.usage.output_tokens == len(whole.content[0].text.split())
    assert whole.stop_reason == streamed.stop_reason == "end_turn"


def test_both_wires_say_the_same(messages, chat, hello):
    one = messages.messages.create(model="sim", max_tokens=1000, messages=hello).content[0].text
    assert one == chat.chat.completions.create(model="sim", messages=hello).choices[0].message.content


def test_count_tokens_is_what_is_billed(messages, hello):
    said = {"system": "be brief", "messages": hello, "tools": [WEATHER]}
    counted = messages.messages.count_tokens(model="sim", **said).input_tokens
    assert counted == messages.messages.create(model="sim", max_tokens=100, **said).usage.input_tokens


def test_limit_and_stop_sequence(messages, hello):
    cut = messages.messages.create(model="sim+tokens=50", max_tokens=5, messages=hello)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 5)
    whole = messages.messages.create(model="sim+tokens=20", max_tokens=100, messages=hello).content[0].text
    word = whole.split()[3]
    with messages.messages.stream(model="sim+tokens=20", max_tokens=100, messages=hello, stop_sequences=[word]) as stream:
        stopped = stream.get_final_message()
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert stopped.content[0].text == whole[: whole.index(word)]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_thinking_tool_loop(messages, hello, streamed):
    asked = {"model": "sim", "max_tokens": 2000, "tools": [WEATHER], "thinking": THINKING}
    if streamed:
        with messages.messages.stream(messages=hello, **asked) as stream:
            first = stream.get_final_message()
    else:
        first = messages.messages.create(messages=hello, **asked)
    assert [block.type for block in first.content] == ["thinking", "tool_use"] and first.stop_reason == "tool_use"
    assert first.usage.output_tokens_details.thinking_tokens > 0
    turn = [block.to_dict() for block in first.content]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": turn[1]["id"], "content": "rain"}]}

    def again(content):
        return messages.messages.create(messages=[*hello, {"role": "assistant", "content": content}, result], **asked)

    second = again(turn)
    assert [block.type for block in second.content] == ["thinking", "text"]
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        again([turn[0] | {"signature": "AAAA"}, turn[1]])
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
        again([turn[0] | {"thinking": "another thought"}, turn[1]])
    with pytest.raises(anthropic.BadRequestError, match="signature: Field required"):
        again([{"type": "thinking", "thinking": "x"}, turn[1]])
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking` or `redacted_thinking`, but found `tool_use`"):
        again([turn[1]])


def test_thinking_may_be_omitted_and_still_signed(messages, hello):
    asked = {"model": "sim+thinking=9", "max_tokens": 2000, "thinking": {"type": "adaptive", "display": "omitted"}}
    answer = messages.messages.create(messages=hello, **asked)
    assert answer.content[0].thinking == "" and answer.content[0].signature
    assert answer.usage.output_tokens_details.thinking_tokens == 9
    echo = [*hello, {"role": "assistant", "content": [block.to_dict() for block in answer.content]}, *hello]
    messages.messages.create(messages=echo, **asked)


def test_parallel_tools(messages, hello):
    second = WEATHER | {"name": "clock"}
    with messages.messages.stream(model="sim+tools=2", max_tokens=500, messages=hello, tools=[WEATHER, second]) as stream:
        final = stream.get_final_message()
    assert [block.name for block in final.content] == ["weather", "clock"]
    assert all(isinstance(block.input["city"], str) for block in final.content)
    one = messages.messages.create(
        model="sim+tools=2", max_tokens=500, messages=hello, tools=[WEATHER, second],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )  # fmt: skip
    assert len(one.content) == 1


def test_cache_marks(messages, hello):
    def ask(ttl, tail, rule="law"):
        system = [{"type": "text", "text": f"{rule} " * 2000, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
        said = [{"role": "user", "content": tail}]
        return messages.messages.create(model="sim", max_tokens=10, system=system, messages=said).usage

    first, second = ask("5m", "one"), ask("5m", "two")
    written = first.cache_creation.ephemeral_5m_input_tokens
    assert written == first.cache_creation_input_tokens > 1024 and first.cache_read_input_tokens == 0
    assert (second.cache_read_input_tokens, second.cache_creation_input_tokens) == (written, 0)
    assert first.input_tokens == second.input_tokens > 0
    hour = ask("1h", "one", "other law")
    assert hour.cache_creation.ephemeral_1h_input_tokens == hour.cache_creation_input_tokens > 1024


def test_refusal_is_a_success_with_details(messages, hello):
    refused = messages.messages.create(model="sim+refusal", max_tokens=100, messages=hello)
    assert refused.stop_reason == "refusal" and refused.stop_details.category == "general_harms"
    with messages.messages.stream(model="sim+content-filter+tokens=10", max_tokens=100, messages=hello) as stream:
        filtered = stream.get_final_message()
    assert (filtered.stop_reason, filtered.usage.output_tokens) == ("refusal", 5)


USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x"}]}
USER = {"role": "user", "content": "x"}
MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"made_up": 1}, "made_up: Extra inputs are not permitted"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role: Input should be"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}]}, "y: Extra inputs"),
        ({"messages": [USER, USE, USER]}, "without `tool_result` blocks immediately after: t1"),
        ({"messages": [USER, RESULT]}, "unexpected `tool_use_id` found in `tool_result` blocks: t1"),
        ({"tools": [{"name": "f"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{"name": "f", "input_schema": {"anyOf": []}}]}, "input_schema.type: Field required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "`max_tokens` must be greater"),
        ({"system": [{"type": "text", "text": str(n), **MARK} for n in range(5)]}, "A maximum of 4 blocks"),
        ({"model": "sim+context-length"}, "prompt is too long: 1000001 tokens > 1000000 maximum"),
        ({"model": "sim+nonsense"}, "unknown directive `nonsense`"),
    ],
)
def test_strictness(messages, hello, fields, message):
    with pytest.raises(anthropic.BadRequestError) as caught:
        messages.messages.create(extra_body=fields, model="sim", max_tokens=100, messages=hello)
    body = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"
    assert message in body["error"]["message"]
    assert body["request_id"] == caught.value.response.headers["request-id"]


def test_missing_max_tokens(client):
    refused = client.exchange(client.request("sim", "messages").replace(b'"max_tokens": 1000', b'"top_k": 100000001'))
    assert refused.status == 400 and refused.json["error"]["message"] == "max_tokens: Field required"


def test_missing_headers(client):
    assert client.ask("sim", "messages", headers={"x-api-key": ""}).json["error"]["type"] == "authentication_error"
    refused = client.ask("sim", "messages", headers={"anthropic-version": ""})
    assert refused.status == 400 and "anthropic-version" in refused.json["error"]["message"]


def test_status_errors(messages, hello):
    def ask(model, **options):
        return messages.messages.create(model=model, max_tokens=100, messages=hello, **options)

    with pytest.raises(anthropic.NotFoundError):
        ask("claude-9")
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        ask("sim+status=529")
    assert overloaded.value.status_code == 529 and overloaded.value.body["error"]["type"] == "overloaded_error"
    with pytest.raises(anthropic.RateLimitError) as limited:
        ask("sim+status=429+retry-after=3+should-retry=false")
    assert limited.value.response.headers["retry-after"] == "3"
    assert limited.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(ask("sim+error-in-stream=3", stream=True))
    assert [model.id for model in messages.models.list()] == ["sim", "bench"]
