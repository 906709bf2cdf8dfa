"""Whole answers of OpenAI chat ↔ the neutral completion.

Reading takes every form that clones answer in (providers.md §1.7): thinking in four fields, in lists and in tags; missing
ids, empty strings for absent values, vendor extras. Writing is for clients: `provider` and `native_finish_reason` as
OpenRouter has them, thinking as `reasoning_content` plus `reasoning_details` that a client can echo.

Blocks that only another wire understands (provider-run tools of Anthropic) have no place in this shape. A client of this
surface cannot ask for them, so none are lost.
"""

from typing import Any, cast

import msgspec

from farebox.wires import failures, finish, think_tags
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Choice,
    Citation,
    Completion,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolUse,
    UpstreamFailure,
    UpstreamGarbage,
)
from farebox.wires.openai_chat import parts as content
from farebox.wires.openai_chat import signatures, usage
from farebox.wires.openai_chat.parts import WIRE
from farebox.wires.usage import UsageReport


class _Body(msgspec.Struct):
    """Loose on purpose: only what must be an object is one."""

    id: Any = None
    model: Any = None
    created: Any = None
    service_tier: Any = None
    choices: Any = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    base_resp: Any = None
    citations: Any = None
    search_results: Any = None
    x_groq: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def read(body: bytes, dialect: Dialect) -> Completion:
    """Raises `UpstreamGarbage` when the body is not an answer, `UpstreamFailure` when it is an error sent with status 200."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage(f"the answer is not a JSON object: {type(error).__name__}") from None
    _raise_failure(found, dialect)
    if not isinstance(found.choices, list):
        raise UpstreamGarbage("the answer has no `choices`")
    choices = [_choice(item, i, found) for i, item in enumerate(cast("list[Any]", found.choices))]
    for choice in choices:
        if choice.finish == "error":
            raise UpstreamFailure(failures.from_value({"message": "the model failed", "code": choice.native_finish}))
    report = usage.read(bytes(found.usage), dialect.usage)
    tier = text_of(found.service_tier) or report.service_tier
    return Completion(
        choices=tuple(choices),
        usage=UsageReport(report.usage, report.anomalies, report.raw, report.provider_cost_usd, tier),
        id=text_of(found.id),
        model=text_of(found.model),
        created=found.created if isinstance(found.created, int) else None,
        service_tier=tier,
    )


def text_of(value: Any) -> str | None:
    """A non-empty string, or None for whatever else stands there."""
    return value if isinstance(value, str) and value else None


def _raise_failure(found: _Body, dialect: Dialect) -> None:
    if isinstance(found.base_resp, dict):
        resp = cast("dict[str, Any]", found.base_resp)
        if dialect.error_in_200 == "base_resp" and resp.get("status_code") not in (0, None):
            raise UpstreamFailure(failures.from_base_resp(resp))
    if found.error and (dialect.error_in_200 == "error_object" or not found.choices):
        raise UpstreamFailure(failures.from_value({"error": found.error}))


def _choice(item: Any, position: int, body: _Body) -> Choice:
    if not isinstance(item, dict):
        raise UpstreamGarbage(f"`choices[{position}]` is not an object")
    fields = cast("dict[str, Any]", item)
    inner: Any = fields.get("message")
    message = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
    found = _message(message, fields, text_of(body.id) or "0", position)
    if position == 0:
        found = _with_sources(found, body)
    native = fields.get("finish_reason")
    native = native if isinstance(native, str) else None
    error: Any = fields.get("error")
    if isinstance(error, dict):  # OpenRouter puts a failed provider's error into the choice
        raise UpstreamFailure(failures.from_value({"error": error}))
    index = fields.get("index")
    logprobs: Any = fields.get("logprobs")
    return Choice(
        index=index if isinstance(index, int) and index >= 0 else position,
        parts=tuple(found),
        finish=finish.from_openai(native, with_tools=any(isinstance(part, ToolUse) for part in found)),
        native_finish=text_of(fields.get("native_finish_reason")) or native,
        logprobs=msgspec.json.encode(logprobs) if logprobs else None,
    )


def _message(message: dict[str, Any], choice: dict[str, Any], id: str, position: int) -> list[Part]:
    body: list[Part] = []
    value: Any = message.get("content")
    if value is None and not message:
        value = choice.get("text")
    thinking: list[Part] = list(content.read_reasoning(message))
    if isinstance(value, str):
        if not thinking and think_tags.OPEN in value:
            thought, value = think_tags.split(value)
            thinking = [Reasoning(thought)] if thought else []
        body = [Text(value)] if value else []
    elif isinstance(value, list):
        body = read_list(cast("list[Any]", value))
    citations = content.read_annotations(message.get("annotations"))
    if citations:
        at = next((i for i, part in enumerate(body) if isinstance(part, Text)), None)
        if at is not None:
            body[at] = msgspec.structs.replace(body[at], citations=citations)
    refusal = text_of(message.get("refusal"))
    if refusal:
        body.append(Refusal(refusal))
    audio: Any = message.get("audio")
    if isinstance(audio, dict) and cast("dict[str, Any]", audio).get("data"):
        body.append(Opaque(WIRE, "audio", msgspec.json.encode({"audio": audio})))
    images: Any = message.get("images")
    if isinstance(images, list) and images:
        body.append(Opaque(WIRE, "images", msgspec.json.encode({"images": images})))
    return [*thinking, *body, *_calls(message, f"{id}_{position}")]


def read_list(items: list[Any]) -> list[Part]:
    """Mistral's content list: thinking and text. Unknown chunks are kept as they are."""
    found: list[Part] = []
    for raw in items:
        if isinstance(raw, str):
            found.append(Text(raw))
        elif isinstance(raw, dict):
            item = cast("dict[str, Any]", raw)
            if item.get("type") == "thinking":
                found.extend(content.read_thinking(item))
            elif isinstance(item.get("text"), str):
                found.append(Text(item["text"]))
            elif item.get("type") == "refusal" and isinstance(item.get("refusal"), str):
                found.append(Refusal(item["refusal"]))
            else:
                found.append(Opaque(WIRE, text_of(item.get("type")) or "unknown", msgspec.json.encode(item)))
    return found


def _calls(message: dict[str, Any], stem: str) -> list[Part]:
    found: list[Part] = []
    listed: Any = message.get("tool_calls")
    for i, item in enumerate(cast("list[Any]", listed) if isinstance(listed, list) else []):
        call = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        custom = isinstance(call.get("custom"), dict) and not isinstance(call.get("function"), dict)
        inner: Any = call.get("custom" if custom else "function")
        if not isinstance(inner, dict):
            continue
        found.append(_call(call, cast("dict[str, Any]", inner), f"{stem}_{i}", custom))
    legacy: Any = message.get("function_call")
    if not found and isinstance(legacy, dict) and text_of(cast("dict[str, Any]", legacy).get("name")):
        found.append(_call({}, cast("dict[str, Any]", legacy), f"{stem}_0", False))
    return found


def _call(call: dict[str, Any], inner: dict[str, Any], stem: str, custom: bool) -> ToolUse:
    extra_content: Any = call.get("extra_content")
    extra = {"extra_content": msgspec.Raw(msgspec.json.encode(extra_content))} if extra_content else {}
    return ToolUse(
        id=tool_id(call.get("id"), stem),
        name=text_of(inner.get("name")) or "",
        arguments=arguments_text(inner.get("input" if custom else "arguments")),
        custom=custom,
        signature=signatures.take(extra),
        extra=extra,
    )


def tool_id(value: Any, stem: str) -> str:
    """The upstream's id; where it gives none (Ollama, old Gemini), one made from the answer's id and the call's place."""
    known = text_of(value)
    return known if known and known != "null" else f"call_{stem}"


def arguments_text(value: Any) -> str:
    """Arguments as JSON text: a few servers send them as an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def sources(citations: Any, search_results: Any) -> tuple[Citation, ...]:
    """Perplexity's `search_results` and its older list of URLs `citations`: evidence for the whole answer."""
    found: list[Citation] = []
    for raw in cast("list[Any]", search_results) if isinstance(search_results, list) else []:
        if isinstance(raw, dict):
            item = cast("dict[str, Any]", raw)
            if text_of(item.get("url")):
                found.append(Citation(url=item["url"], title=text_of(item.get("title")), cited_text=text_of(item.get("snippet"))))
    if found:
        return tuple(found)
    return tuple(Citation(url=url) for url in cast("list[Any]", citations) if text_of(url)) if isinstance(citations, list) else ()


def _with_sources(found: list[Part], body: _Body) -> list[Part]:
    known = sources(body.citations, body.search_results)
    if not known:
        return found
    return [msgspec.structs.replace(p, citations=known) if isinstance(p, Text) and not p.citations else p for p in found]


def write(
    completion: Completion, *, id: str, model: str, provider: str, extra_usage: dict[str, msgspec.Raw], created: int | None = None
) -> bytes:
    """The body for a client. Without counts it has no `usage`, because unknown is never zero.

    `created` (Unix seconds) is for answers of wires that carry no time of their own.
    """
    body: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": completion.created or created or 0,
        "model": model,
        "provider": provider,
        "choices": [_write_choice(choice) for choice in completion.choices],
    }
    tier = _TIERS.get(completion.service_tier or "")
    if tier is not None:
        body["service_tier"] = tier
    if completion.usage.usage is not None:
        body["usage"] = usage.write(completion.usage.usage, extra_usage)
    return msgspec.json.encode(body)


_TIERS = {name: name for name in ("auto", "default", "flex", "scale", "priority", "fast")} | {
    "standard": "default",
    "on_demand": "default",
}
"""Tiers that clients of this wire know. Another one is left out here; the price follows the report, not this."""


def _write_choice(choice: Choice) -> dict[str, Any]:
    written: dict[str, Any] = {
        "index": choice.index,
        "message": _write_message(choice.parts),
        "logprobs": msgspec.Raw(choice.logprobs) if choice.logprobs else None,
        "finish_reason": finish.TO_OPENAI[choice.finish],
    }
    if choice.native_finish:
        written["native_finish_reason"] = choice.native_finish
    return written


def _write_message(parts: tuple[Part, ...]) -> dict[str, Any]:
    texts: list[str] = []
    annotations: list[Any] = []
    thinking: list[Reasoning] = []
    calls: list[dict[str, Any]] = []
    refusal: str | None = None
    fields: dict[str, Any] = {}
    length = 0
    for part in parts:
        match part:
            case Text():
                texts.append(part.text)
                end = length + len(part.text)
                annotations.extend(content.write_annotation(c, length, end) for c in part.citations if shows(c))
                length = end
            case Reasoning():
                thinking.append(part)
            case ToolUse():
                calls.append(write_call(part))
            case Refusal():
                refusal = (refusal or "") + part.text
            case Opaque():
                if part.wire == WIRE and part.kind in ("audio", "images"):
                    fields.update(msgspec.json.decode(part.raw))
            case Image():
                url = part.url or f"data:{part.media_type or ''};base64,{part.data}"
                fields.setdefault("images", []).append({"type": "image_url", "image_url": {"url": url}})
            case _:
                pass  # the remaining kinds stand only in requests
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": refusal}
    if annotations:
        message["annotations"] = annotations
    if thinking:
        plain = "".join(part.text for part in thinking)
        if plain:
            message["reasoning_content"] = plain
        message["reasoning_details"] = [content.write_detail(part, i) for i, part in enumerate(thinking)]
    if calls:
        message["tool_calls"] = calls
    return message | fields


def shows(citation: Citation) -> bool:
    """Clients of this wire know only citations with a URL; a span of the caller's own document is shown by the text itself."""
    return citation.url is not None or citation.wire == WIRE


def write_call(part: ToolUse) -> dict[str, Any]:
    kind = "custom" if part.custom else "function"
    inner = {"name": part.name, "input" if part.custom else "arguments": part.arguments}
    signed = {} if part.signature is None else signatures.members(part.signature)
    return {"id": part.id, "type": kind, kind: inner} | signed | part.extra
