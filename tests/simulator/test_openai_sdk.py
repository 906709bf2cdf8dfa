"""OpenAI's own client against the simulated provider."""

import json

import openai
import pytest

from farebox.simulator.testing import SimulatorProcess

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 3}},
            "required": ["city", "days"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def collect(stream):
    return [chunk for chunk in stream]


def test_plain_and_streamed_answers_agree(chat, hello):
    whole = chat.chat.completions.create(model="sim", messages=hello)
    chunks = collect(
        chat.chat.completions.create(model="sim", messages=hello, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert whole.usage.completion_tokens == len(text.split())


def test_without_include_usage_a_stream_reports_none(chat, hello):
    chunks = collect(chat.chat.completions.create(model="sim", messages=hello, stream=True))
    assert all(chunk.usage is None for chunk in chunks)


def test_limit_ends_with_length(chat, hello):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = chat.chat.completions.create(model="sim+tokens=50", messages=hello, **{field: 5})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 5
    exact = chat.chat.completions.create(model="sim+tokens=5", messages=hello, max_tokens=5)
    assert exact.choices[0].finish_reason == "stop"


def test_several_choices_are_different_and_billed_together(chat, hello):
    whole = chat.chat.completions.create(model="sim", messages=hello, n=3)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert whole.usage.completion_tokens == sum(len(text.split()) for text in texts)
    streamed = ["", "", ""]
    for chunk in chat.chat.completions.create(model="sim", messages=hello, n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_a_tool_loop(chat, hello):
    first = chat.chat.completions.create(model="sim", messages=hello, tools=[WEATHER])
    call = first.choices[0].message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    assert first.choices[0].finish_reason == "tool_calls" and call.function.name == "weather"
    assert isinstance(arguments["city"], str) and 1 <= arguments["days"] <= 3
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    turns = [*hello, first.choices[0].message.model_dump(exclude_none=True), result]
    second = chat.chat.completions.create(model="sim", messages=turns, tools=[WEATHER])
    assert second.choices[0].finish_reason == "stop" and second.choices[0].message.content


def test_parallel_tools_stream_in_pieces(chat, hello):
    with chat.chat.completions.stream(model="sim+tools=2", messages=hello, tools=[WEATHER, CLOCK]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "clock"]
    assert kinds.count("tool_calls.function.arguments.delta") > 2
    assert json.loads(calls[0].function.arguments)["days"] in (1, 2, 3)


def test_one_call_when_parallel_is_off_and_none_when_told_so(chat, hello):
    tools = [WEATHER, CLOCK]
    one = chat.chat.completions.create(model="sim+tools=2", messages=hello, tools=tools, parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls) == 1
    none = chat.chat.completions.create(model="sim", messages=hello, tools=tools, tool_choice="none")
    assert none.choices[0].message.tool_calls is None
    forced = chat.chat.completions.create(
        model="sim", messages=hello, tools=tools, tool_choice={"type": "function", "function": {"name": "clock"}}
    )
    assert forced.choices[0].message.tool_calls[0].function.name == "clock"


def test_reasoning_is_hidden_by_effort_and_shown_by_order(chat, hello):
    hidden = chat.chat.completions.create(model="sim", messages=hello, reasoning_effort="low")
    details = hidden.usage.completion_tokens_details
    assert details.reasoning_tokens > 0
    assert hidden.usage.completion_tokens == details.reasoning_tokens + len(hidden.choices[0].message.content.split())
    assert not hasattr(hidden.choices[0].message, "reasoning_content")
    shown = chat.chat.completions.create(model="sim+thinking=7", messages=hello)
    assert len(shown.choices[0].message.reasoning_content.split()) == 7


def test_json_mode_and_schema(chat):
    said = [{"role": "user", "content": "answer in json"}]
    mode = chat.chat.completions.create(model="sim", messages=said, response_format={"type": "json_object"})
    assert isinstance(json.loads(mode.choices[0].message.content), dict)
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["tram", "bus"]}, "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}}},
        "required": ["kind", "stops"],
        "$defs": {"stop": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "ride", "schema": schema, "strict": True}}
    value = json.loads(chat.chat.completions.create(model="sim", messages=said, response_format=form).choices[0].message.content)
    assert value["kind"] in ("tram", "bus") and isinstance(value["stops"][0]["name"], str)


def test_stop_sequences_are_billed_and_not_shown(chat, hello):
    whole = chat.chat.completions.create(model="sim+tokens=20", messages=hello).choices[0].message.content
    word = whole.split()[4]
    cut = chat.chat.completions.create(model="sim+tokens=20", messages=hello, stop=word)
    assert cut.choices[0].message.content == whole[: whole.index(word)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens >= len(cut.choices[0].message.content.split()) + 1
    streamed = chat.chat.completions.create(model="sim+tokens=20", messages=hello, stop=word, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == cut.choices[0].message.content


def test_logprobs(chat, hello):
    answer = chat.chat.completions.create(model="sim+tokens=4", messages=hello, logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert all(len(token.top_logprobs) == 2 and token.top_logprobs[0].token == token.token for token in tokens)


def test_media_cost_fixed_tokens(chat):
    def prompt(*parts):
        said = [{"role": "user", "content": [{"type": "text", "text": "look"}, *parts]}]
        return chat.chat.completions.create(model="sim", messages=said).usage

    plain = prompt().prompt_tokens
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    assert prompt(image).prompt_tokens == plain + 765
    assert prompt(pdf).prompt_tokens == plain + 1500
    heard = prompt(audio)
    assert heard.prompt_tokens == plain + 100 and heard.prompt_tokens_details.audio_tokens == 100


def test_a_repeated_prefix_is_cached(chat):
    said = [{"role": "system", "content": "rule " * 1500}, {"role": "user", "content": "first"}]
    first = chat.chat.completions.create(model="sim", messages=said).usage
    said[1] = {"role": "user", "content": "second"}
    second = chat.chat.completions.create(model="sim", messages=said).usage
    assert first.prompt_tokens_details.cached_tokens == 0
    cached = second.prompt_tokens_details.cached_tokens
    assert cached % 128 == 0 and second.prompt_tokens - 160 < cached <= second.prompt_tokens


def test_refusal_and_filter(chat, hello):
    refused = chat.chat.completions.create(model="sim+refusal", messages=hello)
    assert refused.choices[0].message.refusal and refused.choices[0].message.content is None
    filtered = chat.chat.completions.create(model="sim+tokens=10+content-filter", messages=hello)
    assert filtered.choices[0].finish_reason == "content_filter" and filtered.usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"made_up": 1}, "made_up", "unknown_parameter"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_parameter_combination"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages.[0].role", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"response_format": {"type": "json_object"}}, "messages", None),
        ({"model": "sim+nonsense"}, "model", "unknown_directive"),
        ({"model": "sim+context-length"}, "messages", "context_length_exceeded"),
    ],
)
def test_strictness(chat, hello, fields, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        chat.chat.completions.create(extra_body=fields, model="sim", messages=hello)
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")


def test_unanswered_tool_calls_are_refused(chat, hello):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with pytest.raises(openai.BadRequestError, match="did not have response messages: c1"):
        chat.chat.completions.create(model="sim", messages=[*hello, {"role": "assistant", "tool_calls": [call]}, *hello])


def test_status_errors(provider, hello):
    def with_key(key):
        return openai.OpenAI(base_url=provider.base_url, api_key=key, max_retries=0)

    with with_key("invalid-key") as sdk, pytest.raises(openai.AuthenticationError) as caught:
        sdk.chat.completions.create(model="sim", messages=hello)
    assert caught.value.code == "invalid_api_key"
    with with_key("key") as sdk:
        with pytest.raises(openai.NotFoundError) as missing:
            sdk.chat.completions.create(model="gpt-9", messages=hello)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.RateLimitError) as limited:
            sdk.chat.completions.create(model="sim+status=429+retry-after=7", messages=hello)
        assert limited.value.response.headers["retry-after"] == "7" and limited.value.code == "rate_limit_exceeded"
        with pytest.raises(openai.RateLimitError) as poor:
            sdk.chat.completions.create(model="sim+status=429+code=insufficient_quota", messages=hello)
        assert poor.value.type == "insufficient_quota"
        with pytest.raises(openai.APIError, match="Overloaded"):
            list(sdk.chat.completions.create(model="sim+error-in-stream=3", messages=hello, stream=True))
        assert [model.id for model in sdk.models.list()] == ["sim", "bench"]


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("openai", {"prompt_tokens": 100, "completion_tokens": 15, "total_tokens": 115}),
        ("xai", {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 115}),
        ("deepseek", {"completion_tokens": 15, "prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 60}),
        ("together", {"prompt_tokens": 100, "cached_tokens": 40}),
        ("gemini", {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 115}),
    ],
)
def test_dialects(chat, hello, dialect, expected):
    model = f"sim+dialect={dialect}+prompt=100+cached=40+thinking=5+tokens=10"
    usage = chat.chat.completions.create(model=model, messages=hello).usage.model_dump()
    assert expected.items() <= usage.items()


def test_where_streams_report(client):
    def streamed(dialect, **fields):
        events = client.ask(f"sim+dialect={dialect}+tokens=3", stream=True, **fields).events
        return [json.loads(event[6:]) for event in events[:-1]]

    for dialect in ("xai", "deepseek", "mistral", "together"):
        last = streamed(dialect)[-1]
        assert last["choices"][0]["finish_reason"] == "stop" and last["usage"]["completion_tokens"] == 3
    assert streamed("moonshot")[-1]["choices"][0]["usage"]["completion_tokens"] == 3
    counts = [event["usage"]["completion_tokens"] for event in streamed("perplexity")]
    assert counts == [0, 1, 2, 3, 3]
    groq = streamed("groq", stream_options={"include_usage": True})
    assert groq[-2]["x_groq"]["usage"] == groq[-1]["usage"]


def test_deepseek_wants_its_reasoning_back(client):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "x"}
    user = {"role": "user", "content": "hi"}
    options = {"thinking": {"type": "enabled"}}
    refused = client.ask("sim+dialect=deepseek", messages=[user, turn, result], **options)
    assert refused.status == 400 and "reasoning_content" in refused.json["error"]["message"]
    echoed = client.ask("sim+dialect=deepseek", messages=[user, turn | {"reasoning_content": " "}, result], **options)
    assert echoed.status == 200


def test_retries_of_the_sdk_meet_times(provider: SimulatorProcess, hello):
    with openai.OpenAI(base_url=provider.base_url, api_key="key", max_retries=2) as sdk:
        answer = sdk.chat.completions.create(model="sim+tokens=3+status=503+retry-after-ms=1+times=2", messages=hello)
    assert answer.usage.completion_tokens == 3
