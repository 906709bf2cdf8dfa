"""Splicing: a call's body with some of its values changed, and every other byte as it came."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from farebox.wires.call import Call, Fields, read_fields

_encode: Final = msgspec.json.Encoder().encode


def swap_model(call: Call, model: bytes) -> bytes | None:
    """A plain call's body with only the model's value changed; None when its place is not known."""
    start = call.model_at
    if start < 0:
        return None
    body = call.body
    return b"".join((body[:start], model, body[start + call.model_bytes :]))


def splice(call: Call, replace: Mapping[str, bytes], remove: Iterable[str] = ()) -> bytes:
    """The call's body with some top-level values replaced or added and some removed; all other bytes as they came.

    Replacing one value in place is two searches; anything that the quick way cannot prove unique goes through the fields,
    whose values are still the client's bytes.
    """
    fields = call.fields
    removed = [name for name in remove if name in fields]
    layout = call.layout
    if call.plain:
        # Read the quick way: the layout was not looked at yet.
        fields, layout = read_fields(call.body)
    if layout is not None and not removed:
        body = call.body
        added: list[bytes] = []
        for name, value in replace.items():
            raw = fields.get(name)
            quoted = b'"%b":' % name.encode()
            if raw is None:
                added.append(quoted + value)
                continue
            old = bytes(raw)
            if old == value:
                continue
            pattern = quoted + layout + old
            if body.count(pattern) != 1:
                break
            end = body.index(pattern) + len(pattern)
            # A number or a name may go on behind the match (`"n":1` in `"n":12`): only a delimiter proves the value whole.
            if body[end : end + 1] not in _DELIMITERS:
                break
            body = body[: end - len(old)] + value + body[end:]
        else:
            if added:
                return b"{" + b",".join(added) + b"," + body[1:]
            return body
    merged: Fields = {name: raw for name, raw in fields.items() if name not in removed}
    for name, value in replace.items():
        merged[name] = msgspec.Raw(value)
    return _encode(merged)


_DELIMITERS: Final = (b",", b"}")
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")


def is_plain_text(messages: memoryview | bytes) -> bool:
    """Whether messages certainly hold nothing but strings: no typed parts, and no escape that could hide the word."""
    data = bytes(messages)
    return b'"type"' not in data and not hides_ascii(data)


def hides_ascii(data: bytes) -> bool:
    """Whether some escape could spell a word that a search of the bytes does not find."""
    return _ESCAPED_ASCII.search(data) is not None
