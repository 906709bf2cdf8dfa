"""What is wrong with an answer: refusals, JSON that is not by its schema, doubt, patterns; and what is left alone."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.config.routing import EscalationSection
from farebox.quality import rating, rules, schema
from farebox.quality.check import confidence_percent, problem
from farebox.quality.refusals import declines
from farebox.quality.rules import RuleError, Rules, compiled, found
from farebox.wires.neutral import Choice, Completion, Conversation, Message, Refusal, ResponseFormat, Text, ToolUse
from farebox.wires.usage import UsageReport


def answer(text: str, *, finish: Any = "stop", logprobs: bytes | None = None, parts: Any = None) -> Completion:
    choice = Choice(0, (Text(text),) if parts is None else parts, finish, logprobs=logprobs)
    return Completion((choice,), UsageReport(None, (), b""))


def reason(text: str, *, wanted: ResponseFormat | None = None, room: bool = True, **settings: Any) -> str:
    made = {name: settings.pop(name) for name in list(settings) if name in ("finish", "logprobs", "parts")}
    section = EscalationSection(to=("s",), **settings)
    return problem(compiled(section), answer(text, **made), wanted, room=room)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot share that information.",
        "I don't know the answer to this.",
        "Es tut mir leid, aber das kann ich leider nicht beantworten.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "抱歉，我无法回答这个问题。",
    ],
)
def test_who_declines_says_so_at_the_beginning(text: str) -> None:
    assert declines(text)
    assert reason(text) == "refusal" and reason(text, refused=False) == ""


@pytest.mark.parametrize(
    "text",
    [
        "You can't return opened goods, but here is what you can do.",
        "Sorry for the delay! Your parcel arrives on Tuesday.",
        "The sentence “I cannot help” has three words." + " And here is the long answer that was asked for." * 30,
        "Ja, das kann ich Ihnen sagen: um neun Uhr.",
        "",
    ],
)
def test_what_only_sounds_like_it_is_no_refusal(text: str) -> None:
    assert not declines(text)


def test_an_answer_that_will_do_has_no_problem() -> None:
    assert reason("Paris.") == ""
    assert reason("", parts=(ToolUse("1", "f", "{}"),), must_match="x") == "", "a tool's turn has no text to judge"
    assert reason("") == "empty"
    assert reason("no", parts=(Refusal("no"),)) == "refusal"
    assert reason("half an", finish="content_filter") == "refusal"


def test_cut_off_counts_only_where_another_may_write_more() -> None:
    assert reason("half an", finish="length") == "truncation"
    assert reason("half an", finish="length", room=False) == ""
    assert reason("half an", finish="length", truncated=False) == ""


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
        "either": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string"}},
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": "x"}, ""),
        ({"name": "x", "age": None, "kind": "a", "tags": ["t"], "either": True}, ""),
        ({"name": "x", "age": 3.0}, ""),
        ({}, "the answer has no `name`"),
        ({"name": ""}, "`name` is less than its `minLength`"),
        ({"name": 3}, "`name` is not of type string"),
        ({"name": "x", "age": -1}, "`age` is less than its `minimum`"),
        ({"name": "x", "age": True}, "`age` is not of type ['integer', 'null']"),
        ({"name": "x", "kind": "c"}, "`kind` is not one of its values"),
        ({"name": "x", "tags": ["t", 1]}, "`tags`[1] is not of type string"),
        ({"name": "x", "tags": ["1", "2", "3"]}, "`tags` is more than its `maxItems`"),
        ({"name": "x", "either": 1}, "`either` fits none of `anyOf`"),
        ({"name": "x", "more": 1}, "the answer has `more`, which is not allowed"),
        ([], "the answer is not of type object"),
    ],
)
def test_json_is_what_its_schema_says(value: Any, said: str) -> None:
    assert schema.invalid(json.dumps(value), json.dumps(SCHEMA).encode()) == said
    wanted = ResponseFormat("json_schema", schema=json.dumps(SCHEMA).encode())
    assert reason(json.dumps(value), wanted=wanted) == ("schema" if said else "")


def test_json_that_is_none() -> None:
    assert reason('{"a": 1', wanted=ResponseFormat("json_object")) == "schema"
    assert reason("[1]", wanted=ResponseFormat("json_object")) == "schema"
    assert reason('{"a": 1}', wanted=ResponseFormat("json_object")) == ""
    assert reason("no json", wanted=ResponseFormat("json_object"), schema=False) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_schema_and_any_value_have_an_answer(value: Any, rule: Any) -> None:
    assert isinstance(schema.invalid(msgspec.json.encode(value), msgspec.json.encode(rule)), str)


def test_a_schema_without_an_end_is_given_up() -> None:
    endless = {"$ref": "#"}
    assert schema.invalid("1", json.dumps(endless).encode()) == ""
    wide = {"anyOf": [{"anyOf": [{"anyOf": [{"type": "string"}] * 40}] * 40}] * 40}
    assert schema.invalid("1", json.dumps(wide).encode()) == ""


def tokens(*values: Any) -> bytes:
    return json.dumps({"content": [{"token": "t", "logprob": value} for value in values]}).encode()


def test_doubt_is_the_mean_of_the_tokens() -> None:
    assert confidence_percent(tokens(0.0, 0.0)) == 100.0
    assert confidence_percent(tokens(-0.6931471805599453)) == pytest.approx(50.0)
    assert confidence_percent(tokens()) is confidence_percent(b"null") is confidence_percent(b'{"content": 3}') is None
    assert reason("Paris.", logprobs=tokens(-2.0), confidence_percent=60) == "confidence"
    assert reason("Paris.", logprobs=tokens(-0.1), confidence_percent=60) == ""
    assert reason("Paris.", confidence_percent=60) == "", "not known is not low"


def test_patterns() -> None:
    assert reason("order 123", must_match=r"\d{3}") == "" and reason("order", must_match=r"\d{3}") == "rule"
    assert reason("call us", must_not_match="call us") == "rule" and reason("fine", must_not_match="call us") == ""


def test_a_pattern_that_takes_too_long_is_given_up() -> None:
    section = EscalationSection(to=("s",), must_match="(a|aa)+$", must_not_match="(a|aa)+$")
    made = compiled(section)
    text = "a" * 60 + "b"
    assert found(made.must_match, text) is None
    assert problem(made, answer(text), None, room=True) == "", "neither found nor not found"


@pytest.mark.parametrize(
    ("settings", "setting", "said"),
    [
        ({"to": ()}, "to", "name the models"),
        ({"confidence_percent": 0}, "confidence_percent", "0 is not from 1 to 100"),
        ({"must_match": "("}, "must_match", "not a regular expression"),
        ({"must_match": ""}, "must_match", "1 to 1000 characters"),
        ({"must_not_match": "x" * 1001}, "must_not_match", "this one has 1001"),
    ],
)
def test_rules_that_cannot_be(settings: dict[str, Any], setting: str, said: str) -> None:
    with pytest.raises(RuleError, match=said) as caught:
        compiled(EscalationSection(**({"to": ("s",)} | settings)))
    assert caught.value.setting == setting


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "regex", None)
    with pytest.raises(RuleError, match=r"pip install 'farebox\[rules\]'"):
        compiled(EscalationSection(to=("s",), must_match="x"))
    assert isinstance(compiled(EscalationSection(to=("s",))), Rules)
    assert rules.PATTERN_S < 0.1


@pytest.mark.parametrize(
    ("said", "percent"),
    [("85", 85), ("85%", 85), ("**0**", 0), ("I'd say 100.", 100), ("7/10", 70), ("60/100", 60)]
    + [("certain", None), ("250", None), ("-3", None), ("20/10", None)],
)
def test_a_rating_is_the_first_number(said: str, percent: int | None) -> None:
    assert rating.percent(answer(said)) == percent


@given(st.text(max_size=9_000), st.text(min_size=1, max_size=9_000))
def test_the_question_for_a_rating_is_bounded(asked: str, said: str) -> None:
    made = rating.question(Conversation("openai_chat", (Message("user", (Text(asked),)),)), answer(said))
    if not said.strip():
        assert made is None
        return
    assert made is not None
    (part,) = made.messages[0].parts
    assert isinstance(part, Text) and len(part.text.encode()) < rating.INPUT_TOKENS_MAX - 256


def test_what_is_no_text_is_not_rated() -> None:
    asked = Conversation("openai_chat", (Message("user", (Text("x"),)),))
    assert rating.question(asked, answer("", parts=(ToolUse("t", "look", "{}"),))) is None
    assert rating.question(asked, Completion((*answer("a").choices, *answer("b").choices), UsageReport(None, (), b""))) is None
