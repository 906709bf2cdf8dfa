"""Signatures of tool calls, which Gemini wants back with its calls: `extra_content.google.thought_signature`.

See https://ai.google.dev/gemini-api/docs/thought-signatures. Of the calls of one turn the model itself signs but the first, and
takes no turn whose first call has no signature; for calls that another model made there is a placeholder.
"""

import re
from typing import Any, cast

import msgspec

from farebox.wires.call import Fields

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_fields = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.encode
_NULL = msgspec.Raw(b"null")


def take(extra: dict[str, msgspec.Raw]) -> str | None:
    """The signature among a call's further members; it is taken out of them where it is all that stands in its place."""
    raw = extra.get("extra_content")
    if raw is None:
        return None
    value: Any = msgspec.json.decode(raw)
    google: Any = cast("dict[str, Any]", value).get("google") if isinstance(value, dict) else None
    signature: Any = cast("dict[str, Any]", google).get("thought_signature") if isinstance(google, dict) else None
    if not isinstance(signature, str) or not signature:
        return None
    if value == members(signature)["extra_content"]:
        del extra["extra_content"]
    return signature


def members(signature: str) -> dict[str, Any]:
    """What a call has more for its signature."""
    return {"extra_content": {"google": {"thought_signature": signature}}}


PLACEHOLDER = members("skip_thought_signature_validator")


def wanted(pattern: str | None, model: str) -> bool:
    """Whether this model of a vendor with `Dialect.signed_calls` takes no unsigned call."""
    return pattern is not None and re.fullmatch(pattern, model) is not None


def unsigned(signed: list[bool]) -> range:
    """Which calls of a turn need the placeholder, by who is signed: the first; and where none is, all, as none is Gemini's."""
    if not any(signed):
        return range(len(signed))
    return range(0 if signed[0] else 1)


def completed(messages: bytes) -> bytes | None:
    """`messages` of a client with placeholders where they are needed; all else byte for byte. None when none is needed.

    What is malformed is left for the provider to name.
    """
    changed = False
    out: list[msgspec.Raw] = []
    for raw in _decode_list(messages):
        written = _turn(raw)
        changed = changed or written is not None
        out.append(raw if written is None else msgspec.Raw(written))
    return _encode(out) if changed else None


def _turn(raw: msgspec.Raw) -> bytes | None:
    try:
        fields = _decode_fields(raw)
        calls = [_decode_fields(call) for call in _decode_list(fields["tool_calls"])]
    except (msgspec.DecodeError, KeyError):
        return None
    bare = unsigned([bytes(call.get("extra_content", _NULL)) != b"null" for call in calls])
    if not bare:
        return None
    for at in bare:
        calls[at]["extra_content"] = msgspec.Raw(_encode(PLACEHOLDER["extra_content"]))
    return _encode(fields | {"tool_calls": msgspec.Raw(_encode(calls))})
