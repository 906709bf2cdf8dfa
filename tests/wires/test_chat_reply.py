"""A chat completion on its way to a client of the same wire: what is put in stands where it belongs, and nowhere else."""

import json
from typing import Any

import pytest

from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat.reply import Reply
from farebox.wires.usage import Usage

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CHOICES = [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
COST = b'"cost":0.1'


def written(body: bytes) -> list[tuple[str, Any]]:
    reply = Reply.read(body, Dialect())
    assert reply.report() is not None
    out = reply.write(id="gen-1", provider="p", usage=Usage(input=3, output=2), extra=COST)
    return json.loads(out, object_pairs_hook=list)


def plainly(pairs: Any) -> Any:
    if isinstance(pairs, list) and pairs and all(isinstance(one, tuple) for one in pairs):
        return {name: plainly(value) for name, value in pairs}
    return [plainly(one) for one in pairs] if isinstance(pairs, list) else pairs


@pytest.mark.parametrize("layout", [(",", ":"), (", ", ": "), (",", " : "), (",", ":  ")])
@pytest.mark.parametrize(
    "body",
    [
        {"id": "c1", "object": "chat.completion", "choices": CHOICES, "usage": USAGE},
        {"usage": USAGE, "id": "c1", "choices": CHOICES},
        {"id": "c1", "timing": {"usage": USAGE}, "choices": CHOICES, "usage": USAGE},
        {"id": "c1", "choices": CHOICES, "usage": USAGE, "behind": {"usage": USAGE}},
        {"id": "c1", "choices": CHOICES, "usage": USAGE, "behind": {"usage": {"prompt_tokens": 9}}},
        {"id": "c1", "choices": CHOICES, "behind": {"id": "c1"}, "usage": USAGE},
        {"before": {"id": "c1"}, "id": "c1", "choices": CHOICES, "usage": USAGE},
        {"id": "c1", "provider": "theirs", "choices": CHOICES, "usage": USAGE},
        {"id": "usage", "choices": [{**CHOICES[0], "message": {"role": "assistant", "content": '"usage":{}'}}], "usage": USAGE},
        {"choices": CHOICES, "usage": USAGE},
    ],
)
def test_id_provider_and_cost_are_put_in_and_the_rest_is_as_it_came(body: dict[str, Any], layout: tuple[str, str]) -> None:
    pairs = written(json.dumps(body, separators=layout).encode())
    assert len({name for name, _ in pairs}) == len(pairs), "no name stands twice"
    assert plainly(pairs) == body | {"id": "gen-1", "provider": "p", "usage": USAGE | {"cost": 0.1}}


def test_a_usage_that_stands_apart_from_its_name_is_replaced_whole() -> None:
    body = b'{"id":"c1","choices":%b,"usage":  %b}' % (json.dumps(CHOICES).encode(), json.dumps(USAGE).encode())
    assert plainly(written(body))["usage"] == USAGE | {"cost": 0.1}
