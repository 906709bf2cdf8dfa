"""Looking inside messages: what they carry besides text, counted for the hold. The slow path, for requests with typed parts.

Works on both wires' parts, since their types do not collide: OpenAI's `image_url`, `file`, `input_audio`, Anthropic's
`image`, `document`, and blocks nested in tool results.
"""

from typing import Any, cast

import msgspec

from farebox.errors import invalid
from farebox.wires.call import Media, check_depth

_decode_any = msgspec.json.Decoder().decode
CARRIAGE_PREFIX = "farebox."
"""How the signature of a thinking block begins that is ours (`anthropic_messages.carriage`)."""
PARTS_MAX = 100_000
"""Values looked at in one request's messages; more is refused."""


class Carried(msgspec.Struct):
    """The running count."""

    payload_bytes: int = 0
    images: int = 0
    documents: int = 0
    audio_bytes: int = 0
    carriages: bool = False


def _is_data(value: object) -> bool:
    return isinstance(value, str) and value[:5].lower() == "data:"


def _size(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def _see(part: dict[str, Any], seen: Carried) -> None:
    match part.get("type"):
        case "image_url":
            seen.images += 1
            url = part.get("image_url")
            url = cast("dict[str, Any]", url).get("url") if isinstance(url, dict) else url
            if _is_data(url):
                seen.payload_bytes += _size(url)
        case "image":
            seen.images += 1
            source = part.get("source")
            if isinstance(source, dict):
                seen.payload_bytes += _size(cast("dict[str, Any]", source).get("data"))
        case "file":
            seen.documents += 1
            file = part.get("file")
            if isinstance(file, dict):
                seen.payload_bytes += _size(cast("dict[str, Any]", file).get("file_data"))
        case "document":
            source = part.get("source")
            kind = cast("dict[str, Any]", source).get("type") if isinstance(source, dict) else None
            if kind in ("base64", "url", "file"):
                seen.documents += 1
                if kind == "base64":
                    seen.payload_bytes += _size(cast("dict[str, Any]", source).get("data"))
        case "input_audio":
            audio = part.get("input_audio")
            data = cast("dict[str, Any]", audio).get("data") if isinstance(audio, dict) else None
            seen.payload_bytes += _size(data)
            seen.audio_bytes += _size(data) * 3 // 4
        case "thinking":
            signature = part.get("signature")
            if isinstance(signature, str) and signature.startswith(CARRIAGE_PREFIX):
                seen.carriages = True
        case _:
            pass


def survey(raw: memoryview | bytes, *, body_bytes: int, param: str) -> Media:
    """Count the media of a `messages` array; `body_bytes` is the size of the whole body, from which payloads are taken off.

    Malformed parts are left for the provider, or the translation, to name; a depth bomb is refused here.
    """
    try:
        value: object = _decode_any(raw)
    except RecursionError:
        raise invalid(f"`{param}` is nested too deeply", param=param) from None
    check_depth(value)
    seen = Carried()
    pending: list[object] = [value]
    looked = 0
    while pending:
        item = pending.pop()
        looked += 1
        if looked > PARTS_MAX:
            raise invalid(f"`{param}` has more than {PARTS_MAX} values", param=param)
        if isinstance(item, dict):
            part = cast("dict[str, Any]", item)
            _see(part, seen)
            content: object = part.get("content")
            if isinstance(content, (list, dict)):
                pending.append(cast("object", content))
        elif isinstance(item, list):
            pending.extend(cast("list[object]", item))
    return Media(
        text_bytes=body_bytes - seen.payload_bytes,
        images=seen.images,
        documents=seen.documents,
        audio_bytes=seen.audio_bytes,
        carriages=seen.carriages,
    )
