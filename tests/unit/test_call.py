"""The quick read of a request and the splice of its body: what the provider gets is what was read, and held for."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.errors import FareboxError
from farebox.wires import call as calls
from farebox.wires.anthropic_messages import call as messages_call
from farebox.wires.call import Call, Media
from farebox.wires.dialect import Dialect
from farebox.wires.openai_chat import call as chat_call
from farebox.wires.splicing import splice

PLAIN_NAMES = ("model", "n", "messages", "max_tokens", "x", "a b", "model ", "Model", "stream_options", "")
NAMES = st.sampled_from([*PLAIN_NAMES, "é", 'q"', "\\"])
TEXTS = st.text('abc:"{},[]\\ é1\n') | st.sampled_from(['"model":', '"n":1', '"model": "a"', 'model":"a","model'])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from([1, 12, 1.5, "a", "aa", ""]) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=7)
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"separators": (",", ":")}, {}, {"indent": 2}, {"separators": (" ,\t", " : ")}, {"separators": (",", ": ")},
    {"ensure_ascii": False, "separators": (",", ":")}, {"ensure_ascii": False}, {"separators": (", ", ":")},
)  # fmt: skip
PAIRS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=8)


def a_call(body: bytes) -> Call:
    fields, layout = calls.read_fields(body)
    return Call(
        wire="w", body=body, read=fields, layout=layout, model="", stream=False, include_usage=False, output_cap=None, choices=1,
        media=Media(0), needs=frozenset(),
    )  # fmt: skip


def pairs_of(body: bytes) -> list[tuple[str, Any]]:
    """The members in their order, duplicates and all."""
    return json.loads(body, object_pairs_hook=list)


@settings(max_examples=600, deadline=None)
@given(
    value=OBJECTS,
    layout=st.sampled_from(LAYOUTS),
    replace=st.dictionaries(st.sampled_from(PLAIN_NAMES), VALUES, max_size=3),
    remove=st.sets(NAMES, max_size=2),
)
def test_a_splice_changes_the_named_values_and_nothing_else(
    value: dict[str, Any], layout: dict[str, Any], replace: dict[str, Any], remove: set[str]
) -> None:
    body = json.dumps(value, **layout).encode()
    remove = remove - set(replace)
    out = splice(a_call(body), {name: json.dumps(new).encode() for name, new in replace.items()}, remove)
    wanted = {name: old for name, old in value.items() if name not in remove} | replace
    assert json.loads(out) == wanted
    assert len(pairs_of(out)) == len(wanted), "no name stands twice"
    kept = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    sent = msgspec.json.decode(out, type=dict[str, msgspec.Raw])
    assert all(bytes(sent[name]) == bytes(kept[name]) for name in value if name in sent and name not in replace)


@settings(max_examples=600, deadline=None)
@given(pairs=PAIRS, separators=st.sampled_from([(",", ":"), (", ", ": "), (",", ": "), (", ", ":")]), padding=st.integers(0, 12))
def test_duplicates_never_reach_a_provider(pairs: list[tuple[str, Any]], separators: tuple[str, str], padding: int) -> None:
    comma, colon = separators
    members = [f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in pairs]
    body = ("{" + comma.join([*members, f'"pad"{colon}"{"x" * padding}"', f'"model"{colon}"m"']) + "}").encode()
    call = a_call(body)
    for replace in ({}, {"model": b'"m"'}, {"model": b'"other"'}, {"new": b"1"}):
        sent = pairs_of(splice(call, replace))
        assert len({name for name, _ in sent}) == len(sent)
        assert dict(sent)["model"] == json.loads(replace.get("model", b'"m"'))


def test_a_duplicate_that_makes_up_the_length_of_the_spaced_layout_is_seen() -> None:
    """The cap that was held for must be the one that is sent."""
    for filler in range(40):
        rest = b'"a":"%b","messages":[{"role":"user","content":"hi"}],"b":1,"c":2' % (b"x" * filler)
        body = b'{"model":"m","max_tokens":%b,"max_tokens":1,%b}' % (b"9" * (1 + filler % 8), rest)
        sent = pairs_of(splice(a_call(body), {"model": b'"m"'}))
        assert len(sent) == 6 and ("max_tokens", 1) in sent


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":{"model":"old"},"model":"old"}',
        b'{"model":"old","x":{"model":"old"}}',
        b'{"x":"\\"model\\":\\"old\\"","model":"old"}',
        b'{"x": {"model": "old"}, "model": "old"}',
        b'{"x":[{"model":"old","n":1}],"model":"old","n":1}',
    ],
)
def test_a_nested_twin_is_left_alone(body: bytes) -> None:
    before, after = json.loads(body), json.loads(splice(a_call(body), {"model": b'"new"'}))
    assert after == before | {"model": "new"}


# --- chat completions --------------------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}
HELLO = [{"role": "user", "content": "hi"}]


def forwarded(body: bytes, **dialect: Any) -> list[tuple[str, Any]]:
    call = chat_call.read_call(body)
    return pairs_of(chat_call.forward_body(call, model=b'"up"', dialect=Dialect(**dialect), output_cap=None))


# Names as they stand in the body, some of them spelled with an escape; values that hold the words which the quick read looks for.
SPELLED_MODEL = st.sampled_from(['"model"', '"m\\u006fdel"', '"mode\\u006C"'])
SPELLED_MESSAGES = st.sampled_from(['"messages"', '"m\\u0065ssages"'])
MODELS = st.sampled_from(["m", " : ", 'a"b', "é", "model", "messages", '"model":"m"'])
CONVERSATIONS = st.sampled_from(
    [
        HELLO,
        [{"role": "user", "content": '"model": "m", "messages": []'}],
        [{"model": "m", "role": "user", "content": "model"}],
        [{"role": "user", "content": "x", "name": {"messages": HELLO, "model": "m"}}],
        [{"messages": HELLO}],
        [{"role": "user", "content": "a\\b\n\u00e9{}"}],
    ]
)
SAMPLING = st.sampled_from([1, "model", "messages", {"model": "m"}, {"messages": HELLO}, {"max_tokens": 3}, ["stream"]])
MEMBERS = st.one_of(
    st.tuples(SPELLED_MODEL, MODELS),
    st.tuples(SPELLED_MESSAGES, CONVERSATIONS),
    st.tuples(st.just('"temperature"'), SAMPLING),
    st.tuples(st.just('"top_p"'), SAMPLING),
    st.tuples(st.sampled_from(['"max_tokens"', '"max_\\u0074okens"']), st.integers(1, 9)),
    st.tuples(st.just('"stream"'), st.just(value=False)),
)


@settings(max_examples=1500, deadline=None)
@given(
    model=st.tuples(SPELLED_MODEL, MODELS), messages=st.tuples(SPELLED_MESSAGES, CONVERSATIONS),
    more=st.lists(MEMBERS, max_size=3), colons=st.lists(st.sampled_from([":", ": ", " : ", " :"]), min_size=5, max_size=5),
    comma=st.sampled_from([",", ", "]), order=st.permutations(range(5)),
)  # fmt: skip
def test_the_model_is_changed_where_it_stands_whatever_stands_around_it(
    model: tuple[str, Any],
    messages: tuple[str, Any],
    more: list[tuple[str, Any]],
    colons: list[str],
    comma: str,
    order: list[int],
) -> None:
    members = [model, messages, *more]
    members = [members[place] for place in order if place < len(members)]
    body = "{" + comma.join(name + colon + json.dumps(value) for (name, value), colon in zip(members, colons, strict=False)) + "}"
    call = chat_call.read_call(body.encode())
    meant = json.loads(body)  # of a name that stands twice, the last
    assert (call.model, call.output_cap) == (meant["model"], meant.get("max_tokens"))
    sent = chat_call.forward_body(call, model=b'"up"', dialect=Dialect(), output_cap=None)
    weighty = [name for name, _ in pairs_of(sent) if name not in ("temperature", "top_p")]
    assert len(set(weighty)) == len(weighty), "no name stands twice that we read"
    assert json.loads(sent) == meant | {"model": "up"}
    if call.model_at >= 0:
        assert json.loads(call.body[call.model_at : call.model_at + call.model_bytes]) == meant["model"]


TWIN = '"messages":[{"role":"user","content":"hi"}]'


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m",' + TWIN + "," + TWIN + "}",
        '{"temperature":{' + TWIN + '},"model":"m",' + TWIN + "}",
        '{"model":"m","messages":[{"\\u0074ype":"x","role":"user","content":"hi"}]}',
        '{"model":"m","messages":[{"type":"x","role":"user","content":"hi"}]}',
        '{"model":"m","messages" :[{"role":"user","content":"hi"}]}',
        '{"model":"m","messages":["hi"]}',
        '{"model":"m","max_tokens":2,"max_completion_tokens":2,' + TWIN + "}",
        '{"model":"m","stream":null,"stream":null,' + TWIN + "}",
        *('{"temperature":{"messages":["%b"]},"model":"m",'.replace("%b", "x" * n) + TWIN + "}" for n in range(30)),
        *('{"model":"m","temperature":{"messages":["%b"]},'.replace("%b", "x" * n) + TWIN + "}" for n in range(30)),
    ],
)
def test_what_the_quick_read_cannot_prove_is_read_closely(body: str) -> None:
    try:
        call = chat_call.read_call(body.encode())
    except FareboxError:
        return
    assert not call.plain and call.model_at < 0


@pytest.mark.parametrize("name", ["Max_Tokens", "MAX_COMPLETION_TOKENS", "Model", "N", "Service_Tier", "max_toKens", "ſtream"])
def test_a_name_in_another_case_is_no_second_cap(name: str) -> None:
    """Parsers that do not mind case would take it for the field, and spend what nobody has held."""
    body = json.dumps({"model": "m", "messages": HELLO, "max_tokens": 5, name: 9_000}, ensure_ascii=False).encode()
    with pytest.raises(FareboxError, match="is not a field; write `") as refused:
        chat_call.read_call(body)
    assert refused.value.status == 400 and refused.value.param == name
    if name.casefold() in ("max_tokens", "model", "service_tier", "stream"):
        with pytest.raises(FareboxError, match="is not a field; write `"):
            messages_call.read_call(body)


def test_a_model_whose_name_is_spelled_another_way_than_ours_is_looked_for() -> None:
    call = chat_call.read_call(b'{"model":"a\\/b","messages":[{"role":"user","content":"hi"}]}')
    assert call.plain and call.model == "a/b" and call.model_at < 0
    assert b'"model":"up"' in chat_call.forward_body(call, model=b'"up"', dialect=Dialect(), output_cap=None)


def test_usual_calls_are_read_quickly_in_both_layouts() -> None:
    for separators in ((",", ":"), (", ", ": ")):
        for order in (("model", "messages", "max_tokens"), ("max_tokens", "messages", "model")):
            value = {"model": "a/b", "messages": HELLO, "max_tokens": 9}
            call = chat_call.read_call(json.dumps({name: value[name] for name in order}, separators=separators).encode())
            assert call.plain and call.body[call.model_at :].startswith(b'"a/b"') and call.model_bytes == 5


@settings(max_examples=400, deadline=None)
@given(
    extra=st.lists(
        st.sampled_from([("stream", True), ("stream", False), ("max_tokens", 5), ("max_tokens", 900), ("max_tokens", None),
                         ("max_completion_tokens", 5), ("temperature", 1), ("model", "m"), ("n", 3), ("n", 1),
                         ("messages", HELLO), ("messages", [{"role": "user", "content": [IMAGE]}])]),
        max_size=5,
    ),
    layout=st.sampled_from([(",", ":"), (", ", ": ")]),
)  # fmt: skip
def test_what_is_sent_on_is_what_was_read(extra: list[tuple[str, Any]], layout: tuple[str, str]) -> None:
    comma, colon = layout
    pairs = [("model", "m"), ("messages", HELLO), *extra]
    body = (
        "{" + comma.join(f"{json.dumps(name)}{colon}{json.dumps(value, separators=layout)}" for name, value in pairs) + "}"
    ).encode()
    try:
        call = chat_call.read_call(body)
    except FareboxError:
        return
    sent = pairs_of(chat_call.forward_body(call, model=b'"up"', dialect=Dialect(), output_cap=None))
    first, last = dict(reversed(sent)), dict(sent)
    for seen in (first, last):
        assert seen["model"] == "up"
        assert bool(seen.get("stream")) == call.stream
        assert (seen.get("n") or 1) == call.choices
        caps = [seen[name] for name in ("max_tokens", "max_completion_tokens") if seen.get(name) is not None]
        assert (caps or [None])[0] == call.output_cap
        assert json.dumps(seen["messages"]).count('["type", "image_url"]') <= call.media.images
    assert call.media.text_bytes <= len(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","stream":true,"stream":false,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","max_tokens":999,"max_tokens":null,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"u"}]}],"messages":[{"role":"user"}]}',
        b'{"model":"m","max_tokens":1,"max_\\u0074okens":999,"messages":[{"role":"user","content":"x"}]}',
        b'{"m\\u006fdel":"x","model":"m","messages":[{"role":"user","content":"x"}]}',
    ],
)
def test_a_name_that_stands_twice_is_sent_once(body: bytes) -> None:
    names = [name for name, _ in forwarded(body)]
    assert len(names) == len(set(names))


def test_a_stream_always_asks_for_usage_and_keeps_the_other_options() -> None:
    body = json.dumps(
        {"model": "m", "messages": HELLO, "stream": True, "stream_options": {"x": [1], "include_usage": False}}
    ).encode()
    assert dict(dict(forwarded(body))["stream_options"]) == {"x": [1], "include_usage": True}


@pytest.mark.parametrize("spelling", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("sent", ["max_tokens", "max_completion_tokens"])
def test_the_cap_goes_out_once_in_the_spelling_that_the_provider_takes(spelling: str, sent: str) -> None:
    names = dict(forwarded(json.dumps({"model": "m", "messages": HELLO, sent: 7}).encode(), output_limit_field=spelling))
    assert {name: names[name] for name in names if name.startswith("max_")} == {spelling: 7}


# --- messages ----------------------------------------------------------------------------------------------------------------

SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("tools", "searches"),
    [
        ([SEARCH], messages_call.WEB_SEARCHES_MAX),
        ([{**SEARCH, "max_uses": 3}], 3),
        ([{"name": "x", "input_schema": {"max_uses": 1}}, SEARCH], messages_call.WEB_SEARCHES_MAX),
        ([{**SEARCH, "max_uses": 3}, {**SEARCH, "max_uses": 4}], 7),
        ([{**SEARCH, "max_uses": 10**9}], messages_call.WEB_SEARCHES_LIMIT),
        ([{**SEARCH, "max_uses": True}], messages_call.WEB_SEARCHES_MAX),
        ([{**SEARCH, "max_uses": -5}], messages_call.WEB_SEARCHES_MAX),
        ([{"name": "web_search_1", "input_schema": {}}], 0),
        ("web_search_1", 0),
        ([5, None, {"type": 7}], 0),
    ],
)
def test_searches_are_bounded_by_what_the_search_tools_themselves_say(tools: object, searches: int) -> None:
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": HELLO, "tools": tools}).encode()
    call = messages_call.read_call(body)
    assert call.web_searches_max == searches and ("web_search" in call.needs) == bool(searches)


def test_an_escaped_search_tool_is_seen() -> None:
    body = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"type":"web\\u005fsearch_20250305"}]}'
    )
    assert messages_call.read_call(body).web_searches_max == messages_call.WEB_SEARCHES_MAX
