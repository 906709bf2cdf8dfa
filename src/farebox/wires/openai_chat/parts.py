"""Content of OpenAI chat messages ↔ neutral parts: text, images, files, audio, tool calls, thinking, citations."""

from typing import Any, Literal, cast

import msgspec

from farebox.wires import reading
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Audio,
    CacheMark,
    Citation,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolUse,
)
from farebox.wires.openai_chat import signatures

WIRE: Literal["openai_chat"] = "openai_chat"
WHOLE = ("audio", "images", "extra_content")
"""Members of a delta that only this wire understands, told as they came. The last is Google's, e.g. an answer's signature."""


def read_cache(value: Any, path: str) -> CacheMark | None:
    """`cache_control: {type: ephemeral, ttl}` as Anthropic has it and OpenRouter carries it on this wire."""
    if value is None:
        return None
    mark = reading.obj(value, path, 'an object such as {"type":"ephemeral"}')
    ttl = mark.get("ttl")
    if ttl is None:
        return CacheMark()
    if ttl not in ("5m", "1h"):
        raise reading.wrong(f"{path}.ttl", ttl, '"5m" or "1h"')
    return CacheMark(ttl)


def write_cache(mark: CacheMark) -> dict[str, str]:
    return {"type": "ephemeral", "ttl": mark.ttl} if mark.ttl != "5m" else {"type": "ephemeral"}


def mark(cache: CacheMark | None, dialect: Dialect) -> dict[str, Any]:
    """The member to add for a cache mark; nothing where the vendor does not understand marks."""
    return {"cache_control": write_cache(cache)} if cache and dialect.cache_control else {}


def read_content(value: Any, path: str) -> list[Part]:
    """`content` of a message: a string, a list of parts, or null."""
    if value is None:
        return []
    if isinstance(value, str):
        return [Text(value)]
    parts: list[Part] = []
    for i, item in enumerate(reading.array(value, path, "a string or an array of parts")):
        where = f"{path}[{i}]"
        if isinstance(item, str):
            parts.append(Text(item))
        else:
            parts.extend(_read_part(reading.obj(item, where, "a content part"), where))
    return parts


def _read_part(item: dict[str, Any], path: str) -> list[Part]:
    kind = reading.need_text(item, "type", path, 'the kind of part, such as "text" or "image_url"')
    cache = read_cache(item.get("cache_control"), f"{path}.cache_control")
    match kind:
        case "text" | "input_text" | "output_text":
            return [Text(reading.need_text(item, "text", path), cache)]
        case "image_url":
            return [_read_image(item.get("image_url"), f"{path}.image_url", cache, path)]
        case "input_audio":
            return [_read_audio(item.get("input_audio"), f"{path}.input_audio", path)]
        case "file":
            return [_read_file(reading.obj(item.get("file"), f"{path}.file"), f"{path}.file", cache, path)]
        case "document_url":
            url = reading.need_text(item, "document_url", path, "the document's URL")
            inline = reading.data_url(url)
            if inline:
                return [Document(data=inline[1], media_type=inline[0], cache=cache, path=path)]
            return [Document(url=url, name=reading.opt_text(item, "document_name", path), cache=cache, path=path)]
        case "refusal":
            return [Refusal(reading.need_text(item, "refusal", path))]
        case "thinking":
            return read_thinking(item)
        case _:
            return [Opaque(WIRE, kind, msgspec.json.encode(item), path)]


def _read_image(value: Any, where: str, cache: CacheMark | None, path: str) -> Image:
    if isinstance(value, str):  # Mistral's short form
        url, detail = value, None
    else:
        if value is None:
            raise reading.missing(where, 'an object such as {"url":"https://…"}')
        fields = reading.obj(value, where)
        url, detail = reading.need_text(fields, "url", where, "an https or data: URL"), reading.opt_text(fields, "detail", where)
    inline = reading.data_url(url)
    if inline:
        return Image(data=inline[1], media_type=inline[0] or None, detail=detail, cache=cache, path=path)
    return Image(url=url, detail=detail, cache=cache, path=path)


def _read_audio(value: Any, where: str, path: str) -> Audio:
    if isinstance(value, str):  # Mistral takes bare base64 or a URL
        return Audio(value, None, path)
    fields = reading.obj(value, where, 'an object such as {"data":"<base64>","format":"wav"}')
    return Audio(reading.need_text(fields, "data", where, "base64 audio"), reading.opt_text(fields, "format", where), path)


def _read_file(fields: dict[str, Any], where: str, cache: CacheMark | None, path: str) -> Document:
    name, file_id = reading.opt_text(fields, "filename", where), reading.opt_text(fields, "file_id", where)
    data = reading.opt_text(fields, "file_data", where)
    if data is None:
        if file_id is None:
            raise reading.missing(f"{where}.file_data", "the file as a data: URL, or `file_id`")
        return Document(file_id=file_id, name=name, cache=cache, path=path)
    if data[:8].lower().startswith(("https://", "http://")):  # OpenRouter's form
        return Document(url=data, name=name, cache=cache, path=path)
    media_type, data = reading.data_url(data) or (None, data)
    return Document(data=data, media_type=media_type, name=name, cache=cache, path=path)


def read_thinking(item: dict[str, Any]) -> list[Part]:
    """Mistral's `{type: thinking, thinking: [{type: text, text}]}`, or the string that others put there."""
    inner: Any = item.get("thinking")
    if isinstance(inner, str):
        text = inner
    elif isinstance(inner, list):
        texts = [cast("dict[str, Any]", piece).get("text") for piece in cast("list[Any]", inner) if isinstance(piece, dict)]
        text = "".join(piece for piece in texts if isinstance(piece, str))
    else:
        text = ""
    signature = item.get("signature")
    return [Reasoning(text, signature=signature if isinstance(signature, str) and signature else None)]


def read_details(value: Any) -> list[Reasoning]:
    """`reasoning_details`, whole or as a client glued it together from deltas: runs of one text are joined again."""
    found: list[Reasoning] = []
    items = cast("list[Any]", value) if isinstance(value, list) else []
    for raw in items:
        if not isinstance(raw, dict):
            continue
        part = read_detail(cast("dict[str, Any]", raw))
        last = found[-1] if found else None
        if (
            last is not None
            and last.redacted is None
            and part.redacted is None
            and not last.signature
            and (last.summary, last.index) == (part.summary, part.index)
            and part.index is not None
        ):
            found[-1] = msgspec.structs.replace(
                last,
                text=last.text + part.text,
                signature=part.signature,
                format=last.format or part.format,
                id=last.id or part.id,
            )
        else:
            found.append(part)
    return found


def read_detail(item: dict[str, Any]) -> Reasoning:
    """One entry. An entry of unknown type keeps its data as opaque, so that it can be echoed."""
    kind = item.get("type")
    index = item.get("index")
    common: dict[str, Any] = {
        "format": _str(item, "format") or None,
        "id": _str(item, "id") or None,
        "index": index if isinstance(index, int) and not isinstance(index, bool) else None,
    }
    if kind == "reasoning.encrypted":
        return Reasoning(redacted=_str(item, "data"), **common)
    if kind == "reasoning.summary":
        return Reasoning(_str(item, "summary"), summary=True, signature=_str(item, "signature") or None, **common)
    return Reasoning(_str(item, "text"), signature=_str(item, "signature") or None, **common)


def _str(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return value if isinstance(value, str) else ""


def write_detail(part: Reasoning, index: int) -> dict[str, Any]:
    """One entry of `reasoning_details`; `index` stands in when the part has none of its own."""
    body: dict[str, Any]
    if part.redacted is not None:
        body = {"type": "reasoning.encrypted", "data": part.redacted}
    elif part.summary:
        body = {"type": "reasoning.summary", "summary": part.text}
    else:
        body = {"type": "reasoning.text", "text": part.text}
    if part.signature:
        body["signature"] = part.signature
    if part.id is not None:
        body["id"] = part.id
    if part.format is not None:
        body["format"] = part.format
    body["index"] = index if part.index is None else part.index
    return body


def read_reasoning(message: dict[str, Any]) -> list[Reasoning]:
    """Thinking of an assistant message in every form: details first, as they carry signatures; else the plain text."""
    details = read_details(message.get("reasoning_details"))
    if any(part.text for part in details):
        return details
    for name in ("reasoning_content", "reasoning", "thinking"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return [Reasoning(value), *details]
    return details


def read_tool_calls(value: Any, path: str) -> list[ToolUse]:
    calls: list[ToolUse] = []
    for i, item in enumerate(reading.array(value, path)):
        where = f"{path}[{i}]"
        call = reading.obj(item, where, "a tool call")
        kind = reading.opt_text(call, "type", where) or "function"
        custom = kind == "custom"
        inner_name = "custom" if custom else "function"
        inner = call.get(inner_name)
        if inner is None:
            raise reading.missing(f"{where}.{inner_name}", "an object with the name and the arguments of the call")
        fields = reading.obj(inner, f"{where}.{inner_name}")
        arguments: Any = fields.get("input" if custom else "arguments")
        if isinstance(arguments, dict):  # some clients forget to encode them; the meaning is plain
            arguments = msgspec.json.encode(cast("dict[str, Any]", arguments)).decode()
        extra = reading.raws(call, _CALL_FIELDS)
        calls.append(
            ToolUse(
                id=reading.need_text(call, "id", where, "the id of the call"),
                name=reading.need_text(fields, "name", f"{where}.{inner_name}", "the tool's name"),
                arguments=""
                if arguments is None
                else reading.text(arguments, f"{where}.{inner_name}.arguments", "the arguments as a JSON string"),
                custom=custom,
                cache=read_cache(call.get("cache_control"), f"{where}.cache_control"),
                signature=signatures.take(extra),
                extra=extra,
                path=where,
            )
        )
    return calls


_CALL_FIELDS = frozenset({"id", "type", "function", "custom", "index", "cache_control"})


def read_annotations(value: Any) -> tuple[Citation, ...]:
    found: list[Citation] = []
    items = cast("list[Any]", value) if isinstance(value, list) else []
    for raw in items:
        if not isinstance(raw, dict):
            continue
        item = cast("dict[str, Any]", raw)
        inner: Any = item.get("url_citation")
        fields = cast("dict[str, Any]", inner) if isinstance(inner, dict) else item
        found.append(
            Citation(
                url=_str(fields, "url") or None,
                title=_str(fields, "title") or None,
                cited_text=_str(fields, "content") or None,
                start=_int(fields.get("start_index")),
                end=_int(fields.get("end_index")),
                wire=WIRE,
                raw=msgspec.json.encode(item),
            )
        )
    return tuple(found)


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def write_annotation(citation: Citation, start: int, end: int) -> Any:
    """`url_citation`, the only kind that clients of this wire know; `start` and `end` are the cited text's span."""
    if citation.wire == WIRE and citation.raw:
        return msgspec.Raw(citation.raw)
    body: dict[str, Any] = {
        "url": citation.url or "",
        "title": citation.title or "",
        "start_index": citation.start if citation.start is not None else start,
        "end_index": citation.end if citation.end is not None else end,
    }
    if citation.cited_text:
        body["content"] = citation.cited_text
    return {"type": "url_citation", "url_citation": body}
