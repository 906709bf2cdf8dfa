"""Whole answers of Anthropic messages ↔ the neutral completion (one choice, always)."""

from typing import Any, cast

import msgspec

from farebox.wires import failures, finish
from farebox.wires.anthropic_messages import blocks, carriage, usage
from farebox.wires.anthropic_messages.blocks import WIRE
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    ANTHROPIC_FORMAT,
    Choice,
    Completion,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolUse,
    UpstreamFailure,
    UpstreamGarbage,
)


class _Body(msgspec.Struct):
    """Loose on purpose: only what must be an object is one."""

    type: Any = None
    id: Any = None
    model: Any = None
    content: Any = None
    stop_reason: Any = None
    stop_sequence: Any = None
    stop_details: Any = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    base_resp: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def read(body: bytes, dialect: Dialect) -> Completion:
    """Raises `UpstreamGarbage` when the body is not an answer, `UpstreamFailure` when it is an error sent with status 200."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage(f"the answer is not a JSON object: {type(error).__name__}") from None
    if found.error and (found.type == "error" or not found.content):
        raise UpstreamFailure(failures.from_value({"error": found.error}))
    if isinstance(found.base_resp, dict) and dialect.error_in_200 == "base_resp":
        resp = cast("dict[str, Any]", found.base_resp)
        if resp.get("status_code") not in (0, None):
            raise UpstreamFailure(failures.from_base_resp(resp))
    if not isinstance(found.content, list):
        raise UpstreamGarbage("the answer has no `content`")
    parts = [read_block(cast("dict[str, Any]", item)) for item in cast("list[Any]", found.content) if isinstance(item, dict)]
    native = text_of(found.stop_reason)
    report = usage.read(bytes(found.usage), dialect.usage)
    choice = Choice(
        index=0,
        parts=tuple(parts),
        finish=finish.from_anthropic(native, with_tools=any(isinstance(part, ToolUse) for part in parts)),
        native_finish=native,
        stop_sequence=text_of(found.stop_sequence),
        stop_details=msgspec.json.encode(found.stop_details) if found.stop_details else None,
    )
    return Completion(
        choices=(choice,), usage=report, id=text_of(found.id), model=text_of(found.model), service_tier=report.service_tier
    )


def text_of(value: Any) -> str | None:
    """A non-empty string, or None for whatever else stands there."""
    return value if isinstance(value, str) and value else None


def read_block(block: dict[str, Any]) -> Part:
    """Any block of an answer; one that is odd or unknown is kept as it is."""
    text, thinking, data, name = block.get("text"), block.get("thinking"), block.get("data"), block.get("name")
    match block.get("type"):
        case "text" if isinstance(text, str):
            return Text(text, citations=blocks.read_citations(block.get("citations")))
        case "thinking" if isinstance(thinking, str):
            signature = text_of(block.get("signature"))
            return Reasoning(thinking, signature=signature, format=ANTHROPIC_FORMAT)
        case "redacted_thinking" if isinstance(data, str):
            return Reasoning(redacted=data, format=ANTHROPIC_FORMAT)
        case "tool_use" if isinstance(name, str):
            given: Any = block.get("input")
            return ToolUse(
                id=text_of(block.get("id")) or f"toolu_{name}",
                name=name,
                arguments=given if isinstance(given, str) else msgspec.json.encode({} if given is None else given).decode(),
            )
        case kind:
            return Opaque(WIRE, kind if isinstance(kind, str) else "unknown", msgspec.json.encode(block))


def write(
    completion: Completion,
    *,
    id: str,
    model: str,
    provider: str,
    extra_usage: dict[str, msgspec.Raw],
    created: int | None = None,
    signer: str = "",
) -> bytes:
    """The body for a client: the first choice, as this wire has but one. `created` is the other surface's.

    `signer` is whose signatures the client is given in carriages; without one it is given none.

    Blocks of another wire (audio, images of OpenAI) have no place here; a client of this surface cannot ask for them.
    """
    del created
    choice = completion.choices[0] if completion.choices else Choice(0, (), "stop")
    content: list[Any] = []
    for part in choice.parts:
        if signer and isinstance(part, ToolUse) and part.signature is not None:
            carried = carriage.write(carriage.Carried(signer, part.id, part.signature))
            if carried is not None:
                content.append(carriage.block(carried))
        block = write_block(part)
        if block is not None:
            content.append(block)
    reason = finish.refused(choice.finish) if any(isinstance(part, Refusal) for part in choice.parts) else choice.finish
    body: dict[str, Any] = {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": finish.to_anthropic(reason, choice.native_finish, choice.stop_sequence),
        "stop_sequence": choice.stop_sequence,
        "provider": provider,
    }
    if choice.stop_details:
        body["stop_details"] = msgspec.Raw(choice.stop_details)
    if completion.usage.usage is not None:
        written = usage.write(completion.usage.usage, extra_usage)
        tier = _TIERS.get(completion.service_tier or "")
        if tier is not None:
            written["service_tier"] = tier
        body["usage"] = written
    return msgspec.json.encode(body)


_TIERS = {"standard": "standard", "priority": "priority", "batch": "batch", "default": "standard", "on_demand": "standard"}
"""Tiers that clients of this wire know. Another one is left out here; the price follows the report, not this."""


def write_block(part: Part) -> Any:
    """A block of an answer; None for what says nothing here."""
    match part:
        case Text():
            if not part.text and not part.citations:
                return None
            citations = [blocks.write_citation(c, part.text) for c in part.citations]
            return {"type": "text", "text": part.text, "citations": citations or None}
        case Refusal():
            return {"type": "text", "text": part.text, "citations": None}
        case Reasoning():
            return blocks.write_thinking(part) if part.signed else carriage.block(carriage.UNSIGNED, part.text)
        case ToolUse():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": tool_input(part)}
        case Opaque():
            return msgspec.Raw(part.raw) if part.wire == WIRE else None
        case _:
            return None  # the remaining kinds stand only in requests


def tool_input(part: ToolUse) -> Any:
    """The input object. Text that is no JSON object (a custom tool's, or a model's mistake) is put under `input`."""
    if not part.arguments.strip():
        return {}
    try:
        value: Any = msgspec.json.decode(part.arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        value = None
    if part.custom or not isinstance(value, dict):
        return {"input": part.arguments}
    return msgspec.Raw(part.arguments.encode())
