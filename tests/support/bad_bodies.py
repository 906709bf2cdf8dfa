"""Request bodies that are wrong, by name: what they hold, the status, and words that the answer must have."""

import json
from typing import Any

HELLO = [{"role": "user", "content": "hi"}]
DEEP = b"[" * 100_000 + b"]" * 100_000
PROVIDER_SAYS = 400
Case = tuple[bytes, int, str]


def body(model: str, /, **fields: Any) -> bytes:
    """A small request with some fields changed; `...` leaves one out."""
    whole = {"model": model, "messages": HELLO, "max_tokens": 5} | fields
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def raw(model: str, members: bytes) -> bytes:
    """A small request with members that `json` would not write."""
    return b'{"model":"%b","max_tokens":5,"messages":[{"role":"user","content":"x"}],%b}' % (model.encode(), members)


def unreadable(model: str) -> dict[str, Case]:
    """Not JSON, or no object."""
    good = body(model)
    no_json, no_object, deep = "not valid JSON", "must be a JSON object", "nested"
    return {
        "empty": (b"", 400, "is empty; send a JSON object"),
        "spaces": (b" \n ", 400, "is empty"),
        "cut_short": (good[:-1], 400, no_json),
        "words": (b"hello", 400, no_json),
        "form": (b"model=a&messages=b", 400, no_json),
        "python": (b"{'model': 'a'}", 400, no_json),
        "comment": (b"{/* x */}", 400, no_json),
        "trailing_comma": (good[:-1] + b",}", 400, no_json),
        "trailing_garbage": (good + b"x", 400, no_json),
        "two_objects": (good * 2, 400, no_json),
        "byte_order_mark": (b"\xef\xbb\xbf" + good, 400, no_json),
        "utf_16": (good.decode().encode("utf-16"), 400, no_json),
        "nul_bytes": (b"\0" * 1000, 400, no_json),
        "control_character": (raw(model, b'"user":"a\x01b"'), 400, no_json),
        "nan": (raw(model, b'"temperature":NaN'), 400, no_json),
        "infinity": (raw(model, b'"temperature":-Infinity'), 400, no_json),
        "leading_zero": (raw(model, b'"seed":007'), 400, no_json),
        "lone_surrogate": (raw(model, b'"user":"\\ud800"'), 400, no_json),
        "array": (b"[]", 400, no_object),
        "string": (b'"x"', 400, no_object),
        "number": (b"1", 400, no_object),
        "null": (b"null", 400, no_object),
        "depth_bomb": (DEEP, 400, no_object),
        "depth_bomb_in_a_field": (raw(model, b'"x":' + DEEP), 400, deep),
        "depth_bomb_in_messages": (b'{"model":"%b","max_tokens":5,"messages":%b}' % (model.encode(), DEEP), 400, deep),
        "depth_500_with_parts": (body(model, messages=[{"type": json.loads("[" * 500 + "]" * 500)}]), 400, "64 levels"),
        "model_of_bad_utf_8": (b'{"model":"\xff"}', 400, "`model` must be a string"),
    }


def wrong_fields(model: str) -> dict[str, Case]:
    """Fields that the gateway itself reads, on both surfaces."""
    return {
        "model_missing": (body(model, model=...), 400, "`model` is missing; `GET /v1/models`"),
        "model_null": (body(model, model=None), 400, "`model` is missing"),
        "model_empty": (body(model, model=""), 400, "`model` is missing"),
        "model_number": (body(model, model=7), 400, "`model` must be a string"),
        "model_list": (body(model, model=[model]), 400, "`model` must be a string"),
        "model_long": (body(model, model="x" * 300), 400, "`model` is longer than 256"),
        "model_unknown": (body(model, model=model + "x"), 404, f"did you mean `{model}`"),
        "model_odd": (body(model, model="a\0\n"), 404, "there is no model"),
        "messages_missing": (body(model, messages=...), 400, "`messages` is missing"),
        "messages_null": (body(model, messages=None), 400, "`messages` must be an array"),
        "messages_object": (body(model, messages={"role": "user"}), 400, "`messages` must be an array"),
        "messages_string": (body(model, messages="hi"), 400, "`messages` must be an array"),
        "messages_empty": (body(model, messages=[]), 400, "`messages` must not be empty"),
        "messages_blank": (body(model, messages=[]).replace(b"[]", b"[ \n ]"), 400, "`messages` must not be empty"),
        "messages_of_strings": (body(model, messages=["hi"]), 400, "messages"),
        "message_without_role": (body(model, messages=[{"content": "x"}]), 400, "role"),
        "max_tokens_text": (body(model, max_tokens="5"), 400, "`max_tokens` must be a whole number"),
        "max_tokens_fraction": (body(model, max_tokens=1.5), 400, "`max_tokens` must be a whole number"),
        "max_tokens_true": (body(model, max_tokens=True), 400, "`max_tokens` must be a whole number"),
        "max_tokens_list": (body(model, max_tokens=[5]), 400, "`max_tokens` must be a whole number"),
        "max_tokens_zero": (body(model, max_tokens=0), 400, "`max_tokens` must be from 1 to"),
        "max_tokens_negative": (body(model, max_tokens=-1), 400, "`max_tokens` must be from 1 to"),
        "max_tokens_huge": (body(model, max_tokens=2**40), 400, "`max_tokens` must be from 1 to"),
        "max_tokens_million_digits": (
            body(model).replace(b"5}", b"9" * 10**6 + b"}"),
            400,
            "`max_tokens` must be a whole number",
        ),
        "stream_text": (body(model, stream="yes"), 400, "`stream` must be true or false"),
        "stream_number": (body(model, stream=1), 400, "`stream` must be true or false"),
        "service_tier_number": (body(model, service_tier=5), 400, "`service_tier` must be a string"),
        "to_balance_text": (body(model, max_output_to_balance="x"), 400, "`max_output_to_balance` must be true or false"),
    }


def wrong_chat_fields(model: str) -> dict[str, Case]:
    numbers = {"n_negative": -1, "n_zero": 0, "n_huge": 1000}
    options = "`stream_options` is only allowed with `stream: true`"
    return {
        **{name: (body(model, n=value), 400, "`n` must be from 1 to 128") for name, value in numbers.items()},
        "n_text": (body(model, n="2"), 400, "`n` must be a whole number"),
        "both_caps": (body(model, max_completion_tokens=6), 400, "`max_tokens` and `max_completion_tokens` differ; send one"),
        "newer_cap_negative": (
            body(model, max_tokens=..., max_completion_tokens=-1),
            400,
            "`max_completion_tokens` must be from 1",
        ),
        "stream_options_alone": (body(model, stream_options={"include_usage": True}), 400, options),
        "stream_options_text": (body(model, stream=True, stream_options="x"), 400, "`stream_options` must be an object"),
        "include_usage_text": (
            body(model, stream=True, stream_options={"include_usage": "x"}),
            400,
            "`stream_options.include_usage`",
        ),
        "response_format_text": (body(model, response_format="json"), 400, "`response_format` must be an object"),
        "response_format_type": (body(model, response_format={"type": 5}), 400, "`response_format.type` must be a string"),
        "modalities_text": (body(model, modalities="audio"), 400, "`modalities` must be a list of strings"),
        "user_number": (body(model, user=5), 400, "`user` must be a string"),
        "usage_text": (body(model, usage="x"), 400, "`usage` must be an object"),
        "temperature_text": (body(model, temperature="hot"), PROVIDER_SAYS, "temperature"),
        "tools_text": (body(model, tools="x"), PROVIDER_SAYS, "tools"),
        "seed_million_digits": (raw(model, b'"seed":' + b"9" * 10**6), PROVIDER_SAYS, "seed"),
        "unknown_field": (body(model, unknown_field={"a": 1}), PROVIDER_SAYS, "unknown_field"),
    }


def wrong_messages_fields(model: str) -> dict[str, Case]:
    return {
        "max_tokens_missing": (body(model, max_tokens=...), 400, "`max_tokens` is missing"),
        "max_tokens_null": (body(model, max_tokens=None), 400, "`max_tokens` is missing"),
        "metadata_text": (body(model, metadata="x"), 400, "`metadata` must be an object"),
        "user_id_number": (body(model, metadata={"user_id": 5}), 400, "`metadata.user_id` must be a string"),
        "system_number": (body(model, system=5), PROVIDER_SAYS, "system"),
        "temperature_text": (body(model, temperature="hot"), PROVIDER_SAYS, "temperature"),
        "tools_text": (body(model, tools="web_search_1"), PROVIDER_SAYS, "tools"),
        "unknown_field": (body(model, unknown_field={"a": 1}), PROVIDER_SAYS, "unknown_field"),
        "n": (body(model, n=2), PROVIDER_SAYS, "n"),
    }
