"""Content blocks of Anthropic messages ↔ neutral parts, in requests."""

from typing import Any, Literal, cast

import msgspec

from farebox.wires import reading
from farebox.wires.anthropic_messages import carriage
from farebox.wires.neutral import (
    ANTHROPIC_FORMAT,
    CacheMark,
    Citation,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolResult,
    ToolUse,
)

WIRE: Literal["anthropic_messages"] = "anthropic_messages"


def read_cache(value: Any, path: str) -> CacheMark | None:
    if value is None:
        return None
    mark = reading.obj(value, path, 'an object such as {"type":"ephemeral"}')
    ttl = mark.get("ttl")
    if ttl is None:
        return CacheMark()
    if ttl not in ("5m", "1h"):
        raise reading.wrong(f"{path}.ttl", ttl, '"5m" or "1h"')
    return CacheMark(ttl)


def mark(cache: CacheMark | None) -> dict[str, Any]:
    """The member to add for a cache mark."""
    if cache is None:
        return {}
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": cache.ttl} if cache.ttl != "5m" else {})}


def read_content(value: Any, path: str) -> list[Part]:
    """`content` of a message: a string or a list of blocks."""
    if isinstance(value, str):
        return [Text(value)]
    if value is None:
        raise reading.missing(path, "a string or an array of content blocks")
    blocks = reading.array(value, path, "a string or an array of content blocks")
    return [_read_block(reading.obj(item, f"{path}[{i}]", "a content block"), f"{path}[{i}]") for i, item in enumerate(blocks)]


def _read_block(block: dict[str, Any], path: str) -> Part:
    kind = reading.need_text(block, "type", path, 'the kind of block, such as "text"')
    cache = read_cache(block.get("cache_control"), f"{path}.cache_control")
    match kind:
        case "text":
            return Text(reading.need_text(block, "text", path), cache, read_citations(block.get("citations")))
        case "image":
            return _read_image(block, path, cache)
        case "document":
            return _read_document(block, path, cache)
        case "tool_use":
            given = reading.obj({} if block.get("input") is None else block["input"], f"{path}.input")
            return ToolUse(
                id=reading.need_text(block, "id", path),
                name=reading.need_text(block, "name", path),
                arguments=msgspec.json.encode(given).decode(),
                cache=cache,
                extra=reading.raws(block, _TOOL_USE_FIELDS),
                path=path,
            )
        case "tool_result":
            return _read_result(block, path, cache)
        case "thinking":
            signature = reading.opt_text(block, "signature", path) or None
            if signature == carriage.UNSIGNED:
                signature = None
            text = reading.need_text(block, "thinking", path)
            return Reasoning(text, signature=signature, format=ANTHROPIC_FORMAT if signature else None)
        case "redacted_thinking":
            return Reasoning(redacted=reading.need_text(block, "data", path), format=ANTHROPIC_FORMAT)
        case _:
            return Opaque(WIRE, kind, msgspec.json.encode(block), path)


_TOOL_USE_FIELDS = frozenset({"type", "id", "name", "input", "cache_control", "caller"})
"""`caller` says which of the provider's own tools made the call: "direct" for the model itself; its absence means the same."""


def _read_image(block: dict[str, Any], path: str, cache: CacheMark | None) -> Part:
    where = f"{path}.source"
    source = reading.obj(block.get("source"), where)
    match reading.need_text(source, "type", where, '"base64", "url" or "file"'):
        case "base64":
            data = reading.need_text(source, "data", where)
            return Image(data=data, media_type=reading.need_text(source, "media_type", where), cache=cache, path=path)
        case "url":
            return Image(url=reading.need_text(source, "url", where), cache=cache, path=path)
        case "file":
            return Image(file_id=reading.need_text(source, "file_id", where), cache=cache, path=path)
        case _:
            return Opaque(WIRE, "image", msgspec.json.encode(block), path)


def _read_document(block: dict[str, Any], path: str, cache: CacheMark | None) -> Part:
    where = f"{path}.source"
    source = reading.obj(block.get("source"), where)
    kind = reading.need_text(source, "type", where, '"base64", "url", "text", "content" or "file"')
    citations = reading.opt_obj(block, "citations", path) or {}
    content: dict[str, Any] = {}
    match kind:
        case "base64":
            content["data"] = reading.need_text(source, "data", where)
            content["media_type"] = reading.opt_text(source, "media_type", where) or "application/pdf"
        case "url":
            content["url"] = reading.need_text(source, "url", where)
        case "text":
            content["text"] = reading.need_text(source, "data", where)
            content["media_type"] = reading.opt_text(source, "media_type", where) or "text/plain"
        case "file":
            content["file_id"] = reading.need_text(source, "file_id", where)
        case "content":
            content["blocks"] = msgspec.json.encode(source.get("content"))
        case _:
            return Opaque(WIRE, "document", msgspec.json.encode(block), path)
    return Document(
        **content,
        name=reading.opt_text(block, "title", path),
        context=reading.opt_text(block, "context", path),
        citations=reading.opt_flag(citations, "enabled", f"{path}.citations") or False,
        cache=cache,
        path=path,
    )


def _read_result(block: dict[str, Any], path: str, cache: CacheMark | None) -> ToolResult:
    value: Any = block.get("content")
    found = [] if value is None else read_content(value, f"{path}.content")
    parts: list[Text | Image | Document | Opaque] = []
    for i, part in enumerate(found):
        if not isinstance(part, (Text, Image, Document, Opaque)):
            kind = cast("list[Any]", value)[i]["type"]
            raise reading.wrong(f"{path}.content[{i}].type", kind, "text, image or document blocks in a tool's answer")
        parts.append(part)
    return ToolResult(
        id=reading.need_text(block, "tool_use_id", path),
        parts=tuple(parts),
        is_error=reading.opt_flag(block, "is_error", path) or False,
        cache=cache,
        path=path,
    )


def read_citations(value: Any) -> tuple[Citation, ...]:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return tuple(read_citation(cast("dict[str, Any]", item)) for item in items if isinstance(item, dict))


def read_citation(item: dict[str, Any]) -> Citation:
    def text(*names: str) -> str | None:
        return next((item[name] for name in names if isinstance(item.get(name), str)), None)

    url = text("url")
    if url is None and item.get("type") == "search_result_location":
        url = text("source")
    return Citation(
        url=url, title=text("title", "document_title"), cited_text=text("cited_text"), wire=WIRE, raw=msgspec.json.encode(item)
    )


def write_citation(citation: Citation, text: str) -> Any:
    """A citation from another wire becomes a web search location, the only kind with a URL. `text` is the cited answer."""
    if citation.wire == WIRE:
        return msgspec.Raw(citation.raw)
    span = text[citation.start : citation.end] if citation.start is not None and citation.end is not None else text
    return {
        "type": "web_search_result_location",
        "url": citation.url or "",
        "title": citation.title,
        "cited_text": citation.cited_text or span,
        "encrypted_index": "",
    }


def write_thinking(part: Reasoning) -> dict[str, Any]:
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
