"""OpenAI chat completions: the quick read of a request, and its body for a provider that speaks the same wire."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from farebox.errors import invalid
from farebox.wires import call as calls
from farebox.wires.call import Call, Fields, Media
from farebox.wires.complaints import ROUTING_FIELDS
from farebox.wires.dialect import Dialect
from farebox.wires.hosted import NEED, HostedTool, check_names, search_like
from farebox.wires.media import survey
from farebox.wires.openai_chat import hosted as hosted_tools
from farebox.wires.openai_chat import signatures
from farebox.wires.openai_chat.shapes import OUTPUT_CAP_MAX, Routine
from farebox.wires.splicing import is_plain_text, splice, swap_model

WIRE: Final = "openai_chat"
CHOICES_MAX: Final = 128
"""OpenAI's own limit of `n`."""
WEB_SEARCHES_MAX: Final = 10
"""Searches that one request may run at the provider, for the hold."""

EXTENSIONS: Final = frozenset(
    {"plugins", "transforms", "usage", "session_id", "trace", "include_reasoning"}
)
"""Fields addressed to a gateway, not to the model; forwarded only where the provider is one with the same dialect. The fields
of `ROUTING_FIELDS` never are: a gateway behind us that went on to another model would charge what nobody has held."""

_GATEWAYS: Final = EXTENSIONS | ROUTING_FIELDS
_encode: Final = msgspec.json.Encoder().encode
_decode_map: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str: Final = msgspec.json.Decoder(str).decode
_decode_strings: Final = msgspec.json.Decoder(list[str]).decode
_ROUTINE: Final = frozenset(
    {"model", "messages", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stream_options"}
)
_WEIGHTY: Final = _ROUTINE | {"n", "service_tier"}
"""What of a request decides what it costs."""
_INCLUDE_USAGE: Final = b'{"include_usage":true}'


_decode_routine: Final = msgspec.json.Decoder(Routine).decode
_NOTHING: Final[frozenset[str]] = frozenset()


def read_call(body: bytes) -> Call:
    """The request as routing and money need it. `FareboxError` (400) names the field that is wrong."""
    try:
        read = _decode_routine(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = None  # unusual, or wrong: looked at closely below, where an error gets its words
    if read is not None:
        call = _plain(body, read)
        if call is not None:
            return call
    fields, layout = calls.read_fields(body)
    return _read_closely(body, fields, layout)


def _plain(body: bytes, read: Routine) -> Call | None:
    """The call, if every field that was read certainly stands once and the messages are nothing but text; else None.

    Of a name that stands twice we read the last, a provider perhaps the first. A quote inside a JSON string has a backslash
    before it, so a name in quotes is a name or a whole string; and what is not the messages is short, so it is searched for all
    of them. `find`, not `in`, which first tries the text as a number.
    """
    older, cap = read.max_tokens, read.max_completion_tokens
    messages = bytes(read.messages)
    start = body.find(b'"messages":') + 11
    if body.startswith(b" ", start):
        start += 1
    end = start + len(messages)
    if start < 11 or not messages.startswith(b"[{") or body[start:end] != messages:
        return None
    if messages.find(b'"type"') >= 0 or (messages.find(b"\\") >= 0 and messages.find(b"\\u00") >= 0):
        return None
    around = body[:start] + body[end:]
    if (
        around.find(b"\\u00") >= 0  # an escaped name
        or around.count(b'"messages"') != 1
        or around.count(b'"model"') != 1
        or around.count(b'_tokens"') != (older is not None or cap is not None)  # the ends of both caps' names
        or around.count(b'"stream"') > 1
    ):
        return None
    name = _encode(read.model)
    place = around.find(b'"model":')
    if place >= 0:
        place += 8
        if around.startswith(b" ", place):
            place += 1
        if place > start:
            place += len(messages)
        if not body.startswith(name, place):
            place = -1
    return Call(
        wire=WIRE,
        body=body,
        model=read.model,
        stream=read.stream is True,
        include_usage=False,
        output_cap=older if cap is None else cap,
        choices=1,
        media=Media(len(body)),
        needs=_NOTHING,
        messages=read.messages,
        plain=True,
        model_at=place,
        model_bytes=len(name),
    )


def _read_closely(body: bytes, fields: Fields, layout: bytes | None) -> Call:
    """Field by field, every field that matters."""
    model = calls.model_name(fields)
    messages = calls.required_array(fields, "messages")
    stream = calls.flag(fields, "stream")
    cap = calls.integer(fields, "max_completion_tokens", minimum=1, maximum=OUTPUT_CAP_MAX)
    older_cap = calls.integer(fields, "max_tokens", minimum=1, maximum=OUTPUT_CAP_MAX)
    if cap is not None and older_cap is not None and cap != older_cap:
        raise invalid("`max_tokens` and `max_completion_tokens` differ; send one of them", param="max_completion_tokens")
    if is_plain_text(messages):
        media = Media(len(body))
        needs: frozenset[str] = frozenset()
    else:
        media = survey(messages, body_bytes=len(body), param="messages")
        needs = _media_needs(media)
    choices = 1
    searches = 0
    tier = end_user = None
    to_balance = False
    tags: tuple[str, ...] = ()
    recovery: bool | None = None
    include_usage = False
    hosted: tuple[HostedTool, ...] = ()
    if not _ROUTINE.issuperset(fields):
        check_names(fields, _WEIGHTY)
        choices = calls.integer(fields, "n", minimum=1, maximum=CHOICES_MAX) or 1
        tier = calls.text(fields, "service_tier", length_max=32)
        end_user = calls.text(fields, "user", length_max=calls.END_USER_CHARS_MAX)
        tags = calls.metadata_tags(fields)
        to_balance = calls.flag(fields, "max_output_to_balance")
        recovery = calls.switch(fields, "stream_recovery")
        needs |= _feature_needs(fields)
        hosted = hosted_tools.read(fields)
        if hosted:
            needs |= {NEED}
            if "web_search" in needs or search_like(hosted):
                searches = WEB_SEARCHES_MAX
        include_usage = _option(fields, "usage", "include")
    if stream:
        include_usage = include_usage or _option(fields, "stream_options", "include_usage")
    elif "stream_options" in fields and bytes(fields["stream_options"]) != calls.NULL:
        raise invalid("`stream_options` is only allowed with `stream: true`", param="stream_options")
    return Call(
        wire=WIRE,
        body=body,
        read=fields,
        model=model,
        stream=stream,
        include_usage=include_usage,
        output_cap=cap if cap is not None else older_cap,
        choices=choices,
        media=media,
        needs=needs,
        web_searches_max=searches,
        service_tier=tier if tier not in ("auto", "default") else None,
        max_output_to_balance=to_balance,
        end_user=end_user or "",
        tags=tags,
        stream_recovery=recovery,
        layout=layout,
        hosted=hosted,
    )


def _option(fields: Fields, name: str, key: str) -> bool:
    """A flag inside an object field, e.g. `stream_options.include_usage`."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == calls.NULL:
        return False
    try:
        inner = _decode_map(raw)
    except msgspec.DecodeError:
        raise invalid(f"`{name}` must be an object", param=name) from None
    return calls.flag(inner, key, inside=f"{name}.")


def _media_needs(media: Media) -> frozenset[str]:
    needs: set[str] = set()
    if media.images:
        needs.add("vision")
    if media.documents:
        needs.add("pdf")
    if media.audio_bytes:
        needs.add("audio_input")
    return frozenset(needs)


def _present(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    return raw is not None and bytes(raw) not in (calls.NULL, b"[]")


def _feature_needs(fields: Fields) -> set[str]:
    needs: set[str] = set()
    if _present(fields, "tools") or _present(fields, "functions"):
        needs.add("tools")
    if _present(fields, "response_format"):
        try:
            kind = calls.text(_decode_map(fields["response_format"]), "type", inside="response_format.")
        except msgspec.DecodeError:
            raise invalid("`response_format` must be an object", param="response_format") from None
        if kind == "json_schema":
            needs.add("json_schema")
        elif kind == "json_object":
            needs.add("json_mode")
    if _asks_reasoning(fields):
        needs.add("reasoning")
    if _present(fields, "web_search_options"):
        needs.add("web_search")
    if _present(fields, "modalities"):
        try:
            modalities = _decode_strings(fields["modalities"])
        except msgspec.DecodeError:
            raise invalid("`modalities` must be a list of strings", param="modalities") from None
        if "audio" in modalities:
            needs.add("audio_output")
    return needs


def _asks_reasoning(fields: Fields) -> bool:
    """Whether the model shall think. What is malformed is left for whoever writes the upstream body to name."""
    if _present(fields, "reasoning_effort"):
        return bytes(fields["reasoning_effort"]) != b'"none"'
    if not _present(fields, "reasoning"):
        return False
    try:
        asked = _decode_map(fields["reasoning"])
    except msgspec.DecodeError:
        return False
    if bytes(asked.get("enabled", calls.NULL)) == b"true":
        return True
    off = (calls.NULL, b'"none"')
    return any(bytes(asked[name]) not in off for name in ("effort", "max_tokens") if name in asked)


def forward_body(
    call: Call, *, model: bytes, dialect: Dialect, output_cap: int | None, put: Sequence[tuple[str, bytes]] = ()
) -> bytes:
    """The client's bytes for a provider that speaks chat completions. `put` are fields that routing adds or replaces.

    `model` is the upstream id as JSON; `output_cap` is written when the client sent none or it was lowered, since what is
    held must be what the provider enforces. In streams usage is always asked for.
    """
    if call.plain and not call.stream and output_cap is None and not put and dialect.output_limit_field == "as_sent":
        swapped = swap_model(call, model)
        if swapped is not None and (dialect.developer_role or b'"developer"' not in swapped):
            return swapped
    fields = call.fields
    replace: dict[str, bytes] = {"model": model}
    remove: list[str] = []
    if call.stream and dialect.stream_usage_option:
        replace["stream_options"] = _stream_options(fields)
    spelling = dialect.output_limit_field
    if output_cap is not None or spelling != "as_sent":
        cap = output_cap if output_cap is not None else call.output_cap
        if cap is not None:
            name = spelling
            if name == "as_sent":
                name = "max_tokens" if "max_tokens" in fields else "max_completion_tokens"
            replace[name] = b"%d" % cap
            remove += [other for other in ("max_tokens", "max_completion_tokens") if other != name and other in fields]
    if not fields.keys().isdisjoint(_GATEWAYS):
        remove += (ROUTING_FIELDS if dialect.extensions else _GATEWAYS).intersection(fields)
    if call.tags:
        left = calls.metadata_left(fields)
        if left is None:
            remove.append("metadata")
        else:
            replace["metadata"] = left
    for put_name, value in put:
        replace[put_name] = value
        remove = [other for other in remove if other != put_name]
    if not dialect.developer_role and b'"developer"' in call.body:
        replace["messages"] = _developer_to_system(fields["messages"])
    signed_calls = dialect.signed_calls
    if signed_calls is not None and b'"tool_calls"' in call.body and signatures.wanted(signed_calls, _decode_str(model)):
        # Calls of another model, or of a client that keeps no fields that it does not know, are refused as they are.
        said = replace["messages"] if "messages" in replace else bytes(fields["messages"])
        completed = signatures.completed(said)
        if completed is not None:
            replace["messages"] = completed
    return splice(call, replace, remove)


def _stream_options(fields: Mapping[str, msgspec.Raw]) -> bytes:
    raw = fields.get("stream_options")
    if raw is None or bytes(raw) == calls.NULL:
        return _INCLUDE_USAGE
    options = _decode_map(raw)
    if calls.flag(options, "include_usage"):
        return bytes(raw)
    return msgspec.json.encode({**options, "include_usage": True})


def _developer_to_system(raw: msgspec.Raw) -> bytes:
    """Rename the role of `developer` messages; the messages' other fields stay raw."""
    try:
        messages = msgspec.json.decode(raw, type=list[dict[str, msgspec.Raw]])
    except msgspec.DecodeError:
        raise invalid("`messages` must be a list of objects", param="messages") from None
    for message in messages:
        role = message.get("role")
        if role is not None and bytes(role) == b'"developer"':
            message["role"] = msgspec.Raw(b'"system"')
    return msgspec.json.encode(messages)
