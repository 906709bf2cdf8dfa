"""Recorded exchanges with values replaced by odd ones: readers may refuse, in their own words, and never fall over."""

import json
import random
from typing import Any

import msgspec
import pytest

from farebox.errors import FareboxError
from farebox.wires import anthropic_messages, openai_chat
from farebox.wires.dialect import Dialect, UsageRules
from farebox.wires.neutral import UpstreamFailure, UpstreamGarbage

WIRES: Any = (openai_chat, anthropic_messages)
DIALECTS = (
    Dialect(),
    Dialect(error_in_200="base_resp", usage=UsageRules(usage_in_choice=True, cost_field="cost", reasoning="outside")),
    Dialect(
        reasoning_reply="content_list", reasoning_echo_required=True, reasoning_request="enable_thinking", cache_control=True
    ),
)
ODD: list[Any] = [
    None,
    True,
    5,
    -1,
    1.5,
    "x",
    "",
    [],
    {},
    [1],
    ["a"],
    {"a": 1},
    [None],
    [{}],
    {"type": "text"},
    10**30,
    {"index": 0},
]
BODY_BYTES_MAX = 20_000
ROUNDS = 250


def odd(value: Any, chance: random.Random) -> Any:
    """The value with one member, somewhere inside, replaced or removed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        if chance.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: odd(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], odd(value[at], chance), *value[at + 1 :]]
    return chance.choice(ODD)


@pytest.mark.parametrize("seed", range(6))
def test_odd_values_are_refused_or_read(seed: int, recorded: Any) -> None:
    chance = random.Random(seed)
    usable = [item for item in recorded if len(item.body) < BODY_BYTES_MAX and item.family != "count_tokens"]
    for _ in range(ROUNDS):
        item = chance.choice(usable)
        wire, dialect = WIRES[not item.chat], chance.choice(DIALECTS)
        if isinstance(item.request, dict):
            try_request(wire, odd(odd(item.request, chance), chance), dialect)
        if item.status >= 400:
            wire.errors.read(item.status, {}, json.dumps(odd(json.loads(item.body), chance)).encode(), dialect)
        elif item.stream:
            try_stream(wire, item.body.decode(), dialect, chance)
        else:
            try_answer(wire, odd(json.loads(item.body), chance), dialect)


def try_request(wire: Any, body: Any, dialect: Dialect) -> None:
    if not isinstance(body, dict):
        return
    try:
        conversation = wire.request.to_neutral(msgspec.json.decode(msgspec.json.encode(body), type=dict[str, msgspec.Raw]))
    except FareboxError as error:
        assert error.status == 400 and error.param
        return
    for target in WIRES:
        target.request.from_neutral(conversation, model="m", stream=True, output_cap=2000, dialect=dialect, unsupported=[])


def try_answer(wire: Any, body: Any, dialect: Dialect) -> None:
    try:
        completion = wire.response.read(json.dumps(body).encode(), dialect)
    except (UpstreamFailure, UpstreamGarbage):
        return
    for surface in WIRES:
        json.loads(surface.response.write(completion, id="1", model="m", provider="p", extra_usage={}))


def try_stream(wire: Any, body: str, dialect: Dialect, chance: random.Random) -> None:
    lines = [
        f"data: {json.dumps(odd(json.loads(line[5:]), chance))}" if line.startswith("data: {") and chance.random() < 0.3 else line
        for line in body.splitlines()
    ]
    reader = wire.stream.Reader(dialect)
    events = reader.feed("\n".join(lines).encode()) + reader.end()
    for surface in WIRES:
        writer = surface.stream.Writer(id="1", model="m", provider="p", created=1, include_usage=True)
        for raw in (b"".join(writer.write(event) for event in events) + writer.done()).split(b"\n\n"):
            if raw.startswith(b"data: {"):
                json.loads(raw[6:])
