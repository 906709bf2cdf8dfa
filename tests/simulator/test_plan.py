"""Answers are functions of seed and request; prompts are counted by the documented rule; limits hold."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.simulator.__main__ import config_from
from farebox.simulator.dialects import DIALECTS
from farebox.simulator.directives import NONE, Directives
from farebox.simulator.plan import plan
from farebox.simulator.prefixes import Cached
from farebox.simulator.read_chat import read as read_chat
from farebox.simulator.read_messages import read as read_messages
from farebox.simulator.request import Request
from farebox.simulator.schemas import instance
from farebox.simulator.testing import SimulatorProcess
from farebox.simulator.write_chat import ChatAnswer
from farebox.simulator.write_messages import MessagesAnswer

OPENAI = DIALECTS["openai"]


def asked(text: str = "hello", **fields) -> Request:
    body = {"model": "sim", "messages": [{"role": "user", "content": text}], **fields}
    return read_chat(json.dumps(body).encode(), OPENAI)


def test_the_counting_rule():
    # 3 for the request, 3 for the message, ceil(11 / 4) for the text
    assert asked("hello there").prompt_tokens == 3 + 3 + 3
    assert asked("é" * 8).prompt_tokens == 3 + 3 + 4
    tool = {"type": "function", "function": {"name": "abcd", "parameters": {"a": 1}}}
    assert asked("hi", tools=[tool]).prompt_tokens == 3 + 3 + 1 + -(-(4 + len(b'{"a": 1}')) // 4)


@given(st.text(max_size=400))
def test_a_prompt_never_costs_more_than_its_bytes(text):
    body = json.dumps({"model": "sim", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()
    assert 0 < read_chat(body, OPENAI).prompt_tokens <= len(body)


def test_the_same_twice_and_another_under_another_seed():
    one = plan(asked(), NONE, 1, Cached())
    assert one == plan(asked(), NONE, 1, Cached())
    assert one != plan(asked(), NONE, 2, Cached())
    assert one != plan(asked("hullo"), NONE, 1, Cached())


def test_answers_are_as_long_as_wanted_at_most(capsys):
    for longest in (8, 40, 900):
        lengths = {plan(asked(f"hello {n}"), NONE, 1, Cached(), longest).usage.output for n in range(60)}
        assert min(lengths) >= 8 and longest * 9 // 10 <= max(lengths) <= longest
    assert config_from(["--answer-max", "900"]).answer_tokens_max == 900
    with pytest.raises(SystemExit):
        config_from(["--answer-max", "7"])
    assert "--answer-max 7 is below 8" in capsys.readouterr().err


ORDERS = st.builds(
    Directives,
    tokens=st.none() | st.integers(0, 60),
    thinking=st.none() | st.integers(0, 40),
    tools=st.none() | st.integers(0, 3),
    prompt=st.none() | st.integers(0, 100),
    cached=st.none() | st.integers(0, 200),
    cache_write=st.none() | st.integers(0, 200),
    refusal=st.booleans(),
    content_filter=st.booleans(),
)
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}


@given(ORDERS, st.integers(1, 70), st.booleans(), st.integers(1, 3), st.sampled_from([None, "the", "é", " a"]))
def test_events_and_whole_answer_cost_what_the_plan_says(orders, limit, tools, n, stop):
    fields = {"max_tokens": limit, "n": n, "stop": stop}
    if tools:
        fields["tools"] = [{"type": "function", "function": TOOL}]
    request = asked(**fields)
    planned = plan(request, orders, 7, Cached())
    assert all(sum(segment.cost for segment in choice.segments) <= limit for choice in planned.choices)
    assert planned.usage.prompt_tokens == (request.prompt_tokens if orders.prompt is None else orders.prompt)
    answer = ChatAnswer(planned, request, orders, OPENAI, "id", 1)
    events = list(answer.content())
    assert sum(event.output for event in events) == planned.usage.output
    assert sum(event.reasoning for event in events) == planned.usage.reasoning
    whole = json.loads(answer.whole())
    texts = [""] * n
    for event in events:
        for choice in json.loads(event.data[6:])["choices"] if event.data else ():
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == [choice["message"]["content"] or "" for choice in whole["choices"]]
    assert whole["usage"]["total_tokens"] == planned.usage.prompt_tokens + planned.usage.completion_tokens


@given(ORDERS, st.integers(1, 70), st.booleans())
def test_the_same_on_the_messages_wire(orders, limit, tools):
    body = {"model": "sim", "max_tokens": limit, "messages": [{"role": "user", "content": "hello"}]}
    if tools:
        body["tools"] = [{"name": "f", "input_schema": TOOL["parameters"]}]
    request = read_messages(json.dumps(body).encode(), 7)
    planned = plan(request, orders, 7, Cached())
    answer = MessagesAnswer(planned, request, orders, 7, "id", 1)
    events = list(answer.content())
    assert sum(event.output for event in events) == planned.usage.output
    assert sum(event.reasoning for event in events) == planned.usage.reasoning
    whole = json.loads(answer.whole())
    assert whole["usage"]["output_tokens"] == planned.usage.completion_tokens <= limit
    assert whole["usage"]["input_tokens"] == planned.usage.input
    starts = sum(b"content_block_start" in event.data[:40] for event in events)
    assert starts == sum(b"content_block_stop" in event.data[:40] for event in events) == len(whole["content"])


@pytest.mark.parametrize(
    ("schema", "valid"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 6}, lambda value: value in (5, 6)),
        ({"type": "number", "exclusiveMinimum": 0, "multipleOf": 5}, lambda value: value % 5 == 0 and value > 0),
        ({"type": ["string", "null"], "minLength": 20}, lambda value: len(value) >= 20),
        ({"type": "string", "format": "date"}, lambda value: value == "2026-01-02"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 3}, lambda value: len(value) == 3),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, lambda value: value[:2] == [1, 2]),
        ({"anyOf": [{"const": "a"}, {"const": "b"}]}, lambda value: value == "a"),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}]}, lambda value: value == {"a": 1}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"enum": [3]}}}, lambda value: value == 3),
        ({"$ref": "#"}, lambda value: value is None),
        ({}, lambda value: isinstance(value, str)),
    ],
)
def test_instances(schema, valid):
    assert all(valid(instance(schema, key)) for key in range(20))


def test_a_recursive_schema_ends():
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert msgspec.json.encode(instance(node, 1))


def test_two_providers_of_one_seed_answer_byte_for_byte_alike(client_of):
    answers = []
    for seed in (3, 3, 4):
        with SimulatorProcess(seed=seed) as provider:
            client = client_of(provider.port)
            options = {"tools": [{"type": "function", "function": TOOL}], "n": 2}
            answers.append(
                (
                    client.ask("sim").received,
                    client.ask("sim", stream=True, **options).received,
                    client.ask("sim+thinking=5", "messages", stream=True).received,
                )
            )
    assert answers[0] == answers[1] != answers[2]
