"""Call: what routing and money need of a request, read once; every other field stays the client's raw bytes.

A body is decoded into its top-level fields as `msgspec.Raw`, so a 10 MB prompt is scanned once and copied never. When the
provider speaks the client's wire, the body is forwarded with only named values changed (`splice`).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from farebox.errors import FareboxError, Kind, invalid
from farebox.wires.hosted import HostedTool

Fields = dict[str, msgspec.Raw]

BODY_DEPTH_MAX: Final = 64
"""Nesting allowed in a request (security.md §3); checked on the slow path that looks inside messages."""

MODEL_NAME_MAX: Final = 256
"""Characters."""

END_USER_CHARS_MAX: Final = 512
"""Of the end user's name, wherever it is said."""

TAGS_MAX: Final = 16
TAG_CHARS_MAX: Final = 64

_decode_fields: Final = msgspec.json.Decoder(Fields).decode
_decode_str: Final = msgspec.json.Decoder(str).decode
_decode_int: Final = msgspec.json.Decoder(int).decode
_decode_map: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_tags: Final = msgspec.json.Decoder(list[str]).decode
_decode_strings: Final = msgspec.json.Decoder(list[str] | None).decode
_encode: Final = msgspec.json.Encoder().encode
NULL: Final = b"null"


class Media:
    """What the messages carry besides text; `billing.bounds` turns it into tokens."""

    __slots__ = ("audio_bytes", "carriages", "documents", "images", "text_bytes")

    def __init__(
        self, text_bytes: int, images: int = 0, documents: int = 0, audio_bytes: int = 0, carriages: bool = False
    ) -> None:
        self.text_bytes: Final = text_bytes
        """Bytes of JSON that can become text tokens: never fewer than the tokens (a token covers at least one byte)."""
        self.images: Final = images
        self.documents: Final = documents
        self.audio_bytes: Final = audio_bytes
        """Decoded bytes of audio."""
        self.carriages: Final = carriages
        """The signature of some thinking block is ours, and no provider's (`anthropic_messages.carriage`)."""


class Call:
    """One request as the pipeline sees it."""

    __slots__ = (
        "body", "choices", "end_user", "hosted", "include_usage", "layout", "max_output_to_balance", "media", "messages", "model",
        "model_at", "model_bytes", "needs", "output_cap", "plain", "read", "service_tier", "stream", "stream_recovery", "tags",
        "web_searches_max", "wire",
    )

    def __init__(
        self,
        *,
        wire: str,
        body: bytes,
        model: str,
        stream: bool,
        include_usage: bool,
        output_cap: int | None,
        choices: int,
        media: Media,
        needs: frozenset[str],
        web_searches_max: int = 0,
        service_tier: str | None = None,
        max_output_to_balance: bool = False,
        end_user: str = "",
        tags: tuple[str, ...] = (),
        stream_recovery: bool | None = None,
        messages: msgspec.Raw | None = None,
        read: Fields | None = None,
        plain: bool = False,
        model_at: int = -1,
        model_bytes: int = 0,
        layout: bytes | None = None,
        hosted: tuple[HostedTool, ...] = (),
    ) -> None:
        self.wire: Final = wire
        self.body: Final = body
        self.model: Final = model
        self.stream: Final = stream
        self.include_usage: Final = include_usage
        """The client wants the usage chunk at the end of its stream."""
        self.output_cap: Final = output_cap
        """Output tokens per choice as the client capped them; None = no cap."""
        self.choices: Final = choices
        self.media: Final = media
        self.needs: Final = needs
        """Capabilities that the request uses, by the names of `catalog.model.CAPABILITIES`."""
        self.web_searches_max: Final = web_searches_max
        self.service_tier: Final = service_tier
        self.max_output_to_balance: Final = max_output_to_balance
        """Lower the cap to what the balance can hold instead of refusing (billing.md §3)."""
        self.end_user: Final = end_user
        self.tags: Final = tags
        """What the call is filed under, as far as its body says so."""
        self.stream_recovery: Final = stream_recovery
        """Whether a stream that breaks off may be continued by another provider; None = as configured."""
        self.messages: Final = messages
        """The messages of a plain call; of others they are in `fields`."""
        self.read: Final = read
        """The top-level fields, if they were read already; see `fields`."""
        self.plain: Final = plain
        """Nothing but usual fields, each name once and unescaped, and text without parts."""
        self.model_at: Final = model_at
        """Where the model's name stands in the body of a plain call, with its quotes; -1 = it has to be looked for."""
        self.model_bytes: Final = model_bytes
        self.layout: Final = layout
        """What stands behind a top-level colon (`` or a space) in a body whose values can be replaced in place; None = not so."""
        self.hosted: Final = hosted
        """Tools that the provider shall run on its side."""

    @property
    def fields(self) -> Fields:
        """The top-level fields as raw JSON, in the client's order."""
        return self.read if self.read is not None else _decode_fields(self.body)

    def of_body(self, body: bytes, read: Fields, layout: bytes | None) -> "Call":
        """The same call as another body says it."""
        return Call(
            wire=self.wire,
            body=body,
            model=self.model,
            stream=self.stream,
            include_usage=self.include_usage,
            output_cap=self.output_cap,
            choices=self.choices,
            media=self.media,
            needs=self.needs,
            web_searches_max=self.web_searches_max,
            service_tier=self.service_tier,
            max_output_to_balance=self.max_output_to_balance,
            end_user=self.end_user,
            tags=self.tags,
            stream_recovery=self.stream_recovery,
            read=read,
            layout=layout,
            hosted=self.hosted,
        )


def read_fields(body: bytes) -> tuple[Fields, bytes | None]:
    """The top-level fields, and the layout in which the body's bytes can be spliced, if any.

    A body that is exactly its fields in compact or in `", "`/`": "` layout has no duplicate name and no escaped one. For the
    compact layout, the shortest there is, the length proves it; of the other a duplicate can have the length. Any other
    layout is legal, too, but is forwarded re-assembled from the fields that we read, so that the provider can never see a
    duplicate that we did not.
    """
    try:
        fields = _decode_fields(body)
    except msgspec.ValidationError:
        raise invalid("the request body must be a JSON object") from None
    except msgspec.DecodeError as error:
        if not body.strip():
            raise invalid("the request body is empty; send a JSON object with `model` and `messages`") from None
        raise invalid(f"the request body is not valid JSON: {error}") from None
    except RecursionError:
        raise invalid("the request body is nested too deeply") from None
    except UnicodeDecodeError:
        raise invalid("the request body is not valid UTF-8") from None
    count = len(fields)
    size = sum(map(len, fields)) + sum(map(_raw_length, fields.values()))
    compact = size + 4 * count + 1
    if len(body) == compact:
        return fields, b""
    if len(body) != compact + 2 * count - 1:
        return fields, None
    spaced = b"{%b}" % b", ".join([b'"%b": %b' % (name.encode(), raw) for name, raw in fields.items()])
    return fields, b" " if body == spaced else None


def _raw_length(raw: msgspec.Raw) -> int:
    return len(memoryview(raw))


def text(fields: Mapping[str, msgspec.Raw], name: str, *, length_max: int = 512, inside: str = "") -> str | None:
    """A string field; absent and null are None. `inside` is the object that has it, for the error."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value = _decode_str(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if bytes(raw) == NULL:
            return None
        raise invalid(f"`{inside}{name}` must be a string", param=inside + name) from None
    if len(value) > length_max:
        raise invalid(f"`{inside}{name}` is longer than {length_max} characters", param=inside + name)
    return value


def metadata_tags(fields: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """The list `metadata.tags`, which clients of LiteLLM send; each tag once. Words of another kind are the provider's."""
    raw = fields.get("metadata")
    if raw is None or b'"tags"' not in bytes(raw):
        return ()
    try:
        listed = _decode_map(raw).get("tags")
        if listed is None or not _is_list(listed):
            return ()
        found = tuple(dict.fromkeys(tag.strip() for tag in _decode_tags(listed)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("`metadata.tags` must be a list of strings", param="metadata.tags") from None
    if len(found) > TAGS_MAX:
        raise invalid(f"`metadata.tags` has more than {TAGS_MAX} tags", param="metadata.tags")
    for tag in found:
        if len(tag) > TAG_CHARS_MAX:
            raise invalid(
                f"`metadata.tags` has a tag of more than {TAG_CHARS_MAX} characters: `{tag[:TAG_CHARS_MAX]}…`",
                param="metadata.tags",
            )
    return tuple(tag for tag in found if tag)


def metadata_left(fields: Mapping[str, msgspec.Raw]) -> bytes | None:
    """`metadata` without the tags that are ours, for the provider; None when nothing is left of it."""
    inner = _decode_map(fields["metadata"])
    if "tags" in inner and _is_list(inner["tags"]):
        del inner["tags"]
    return _encode(inner) if inner else None


def _is_list(raw: msgspec.Raw) -> bool:
    return memoryview(raw)[0] == 0x5B


def flag(fields: Mapping[str, msgspec.Raw], name: str, *, inside: str = "") -> bool:
    """A boolean field; absent and null are False."""
    raw = fields.get(name)
    if raw is None:
        return False
    value = bytes(raw)
    if value == b"true":
        return True
    if value in (b"false", NULL):
        return False
    raise invalid(f"`{inside}{name}` must be true or false", param=inside + name)


def switch(fields: Mapping[str, msgspec.Raw], name: str) -> bool | None:
    """A field that is "on" or "off"; absent and null are None."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == NULL:
        return None
    value = bytes(raw)
    if value in (b'"on"', b'"off"'):
        return value == b'"on"'
    raise invalid(f'`{name}` must be "on" or "off"', param=name)


def integer(fields: Mapping[str, msgspec.Raw], name: str, *, minimum: int, maximum: int) -> int | None:
    """A whole number within bounds; absent and null are None."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value = _decode_int(raw)
    except msgspec.DecodeError:
        if bytes(raw) == NULL:
            return None
        raise invalid(f"`{name}` must be a whole number", param=name) from None
    if not minimum <= value <= maximum:
        raise invalid(f"`{name}` must be from {minimum} to {maximum}, not {value}", param=name)
    return value


def required_array(fields: Mapping[str, msgspec.Raw], name: str) -> memoryview:
    """The raw bytes of a field that must be a non-empty array."""
    raw = fields.get(name)
    if raw is None:
        raise invalid(f"`{name}` is missing", param=name)
    view = memoryview(raw)
    if view[0] != 0x5B:
        raise invalid(f"`{name}` must be an array", param=name)
    if not bytes(view[1:-1]).strip():
        raise invalid(f"`{name}` must not be empty", param=name)
    return view


def model_name(fields: Mapping[str, msgspec.Raw]) -> str:
    """The `model` field, or the first of `models` in its place: a non-empty string."""
    name = text(fields, "model", length_max=MODEL_NAME_MAX)
    if not name and "models" in fields:
        try:
            names = _decode_strings(fields["models"])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise invalid("`models` must be a list of names", param="models") from None
        name = names[0] if names and len(names[0]) <= MODEL_NAME_MAX else None
    if not name:
        raise FareboxError(
            Kind.INVALID_REQUEST, "`model` is missing; `GET /v1/models` lists what can be called", param="model"
        )
    return name


def check_depth(value: object, depth_max: int = BODY_DEPTH_MAX) -> None:
    """Refuse what is nested deeper than `depth_max`; iterative, so the check itself cannot overflow."""
    level: list[object] = [value]
    for _ in range(depth_max):
        following: list[object] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(item.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            elif isinstance(item, list):
                following.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        if not following:
            return
        level = following
    raise invalid(f"the request is nested deeper than {depth_max} levels")
