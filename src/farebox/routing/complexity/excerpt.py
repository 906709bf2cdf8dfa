"""Excerpt: the part of a request that the classifier looks at, read from the client's JSON within fixed bounds. Never raises.

A conversation of some kilobytes is read whole. Of a longer one the two ends are read: what was asked last stands at the end, and
what the conversation is about at its beginning. So the time does not grow with the prompt.
"""

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from farebox.wires.call import Call

WHOLE_BYTES_MAX = 24 * 2**10
"""Messages up to this size are decoded; of larger ones only the ends are looked at."""
END_BYTES = 6 * 2**10
"""How much of each end is looked at then."""
TEXT_CHARS_MAX = 1000
"""Characters of one text that are looked at: the first half and the last."""
BEFORE_CHARS_MAX = 300
"""Characters of the user's message before the last one."""
SHORT_CHARS = 60
"""A last message up to this length, in a conversation, is read together with the one before it."""
PARTS_MAX = 64
TURNS_MAX = 400
"""Parts of a message, and messages, that are looked at, from the end."""
TOOLS_BYTES_MAX = 64 * 2**10


class _Turn(msgspec.Struct):
    role: Any = None
    content: Any = None


_decode_turns = msgspec.json.Decoder(list[_Turn]).decode
_decode_any = msgspec.json.Decoder().decode


class Excerpt(msgspec.Struct, frozen=True):
    """What is known of a request."""

    text: str = ""
    """What the user said last, shortened."""
    text_chars: int = 0
    """Its full length; of a very large request, what it is at least."""
    before: str = ""
    """What the user said before, where the last message is short."""
    turns: int = 0
    """The user's messages."""
    request_bytes: int = 0
    """The whole conversation, instructions included."""
    tools: int = 0
    images: int = 0
    documents: int = 0
    schema: bool = False
    """A JSON object, or an answer by a schema, was asked for."""
    effort: str = ""
    """The reasoning effort that was asked for."""
    output_cap: int | None = None


def read(call: Call) -> Excerpt:
    """The excerpt of a call on either wire."""
    fields = call.fields
    raw = fields.get("messages")
    messages = memoryview(raw) if raw is not None else memoryview(b"[]")
    texts = _texts(messages)
    text, text_chars, before, turns = texts
    return Excerpt(
        text=text,
        text_chars=text_chars,
        before=before,
        turns=turns,
        request_bytes=len(messages),
        tools=_tools(fields.get("tools")),
        images=call.media.images,
        documents=call.media.documents,
        schema=bool(call.needs & _SCHEMA_NEEDS),
        effort=_effort(fields),
        output_cap=call.output_cap,
    )


_SCHEMA_NEEDS = frozenset({"json_schema", "json_mode"})


def of_text(text: str) -> Excerpt:
    """The excerpt of one message."""
    return Excerpt(text=shortened(text), text_chars=len(text), turns=1, request_bytes=len(text.encode("utf-8", "replace")))


def shortened(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Both ends of a long text: the task stands before or behind what it is about."""
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]}\n{text[-half:]}"


def _texts(messages: memoryview) -> tuple[str, int, str, int]:
    """The last message of the user, its length, the one before it if that matters, and how many there are."""
    if len(messages) > WHOLE_BYTES_MAX:
        return _ends(messages)
    try:
        turns = _decode_turns(messages)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", len(messages), "", 0
    said: list[str] = []
    chars = 0
    count = 0
    for turn in reversed(turns[-TURNS_MAX:]):
        if turn.role != "user":
            continue
        pieces = _pieces(turn.content)
        if not pieces:
            continue  # results of tools, or only pictures
        count += 1
        if len(said) < 2:
            text = "\n".join(pieces)
            if not said:
                chars = len(text)
            said.append(text)
    if not said:
        return "", 0, "", count
    before = ""
    if len(said) > 1 and chars <= SHORT_CHARS:
        before = shortened(said[1], BEFORE_CHARS_MAX)
    return shortened(said[0]), chars, before, count


def _pieces(content: object) -> Sequence[str]:
    """The texts of a message's content, on either wire."""
    if isinstance(content, str):
        return (content,) if content else ()
    if not isinstance(content, list):
        return ()
    found: list[str] = []
    for part in cast("list[object]", content)[-PARTS_MAX:]:
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict):
            known = cast("dict[str, object]", part)
            text = known.get("text")
            if isinstance(text, str):
                found.append(text)
    return found


_USER = re.compile(rb'"role"\s*:\s*"user"')


def _ends(messages: memoryview) -> tuple[str, int, str, int]:
    """The same of a conversation too large to be decoded, from its raw ends."""
    head, tail = bytes(messages[:END_BYTES]), bytes(messages[-END_BYTES:])
    starts = [match.start() for match in _USER.finditer(tail)]
    last = tail[starts[-1] :] if starts else b""
    if starts and b'"content"' in last:
        text = _unescaped(last)
        return shortened(text), len(text), "", len(starts)
    # The last message itself is longer than an end, or its role stands behind it.
    first = head.find(b'"content"')
    text = _unescaped(head[max(first, 0) :]) + "\n" + _unescaped(tail)
    return shortened(text), max(len(messages) - 2 * END_BYTES, 0), "", max(len(starts), 1)


def _unescaped(piece: bytes) -> str:
    """A cut out of JSON as readable text, keys and all; what is cut in the middle is left out."""
    if piece.isascii() and b"\\u" in piece:
        text = piece.decode("raw_unicode_escape", "ignore").encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    else:
        text = piece.decode("utf-8", "ignore")
    return text.replace("\\n", "\n").replace('\\"', '"').replace('"role"', " ").replace('"content"', " ").replace('"text"', " ")


def _tools(raw: msgspec.Raw | None) -> int:
    """About how many tools are offered: their names, where the list is of a usual size."""
    if raw is None:
        return 0
    view = memoryview(raw)
    if len(view) < 3 or view[0] != 0x5B:
        return 0
    listed = bytes(view[:TOOLS_BYTES_MAX])
    # OpenAI's tools carry a `type` and a `name` each, Anthropic's an `input_schema` and a `name`.
    return max(listed.count(b'"parameters"'), listed.count(b'"input_schema"'), 1)


def _effort(fields: dict[str, msgspec.Raw]) -> str:
    """How much thinking was asked for, in OpenAI's words: empty where nothing was said."""
    raw = fields.get("reasoning_effort")
    if raw is None:
        raw = fields.get("reasoning") or fields.get("thinking")
        if raw is None or len(memoryview(raw)) > 512:
            return ""
    try:
        value = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(value, str):
        return value[:16]
    if isinstance(value, dict):
        known = cast("dict[str, object]", value)
        effort = known.get("effort")
        if isinstance(effort, str):
            return effort[:16]
        if known.get("type") == "enabled":
            return "high"
    return ""
