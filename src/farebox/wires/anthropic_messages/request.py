"""Anthropic messages requests → the neutral conversation. The other direction is `write_request`.

Raises a 400 that names the path of what is wrong; fields it does not know are kept by name in `Conversation.extra`.
"""

from typing import Any

import msgspec

from farebox.wires import reading
from farebox.wires.anthropic_messages import blocks, carriage
from farebox.wires.anthropic_messages.blocks import WIRE
from farebox.wires.anthropic_messages.write_request import from_neutral
from farebox.wires.neutral import (
    Conversation,
    FunctionTool,
    Message,
    Opaque,
    Params,
    ReasoningRequest,
    ResponseFormat,
    SystemBlock,
    Text,
    Tool,
    ToolChoice,
)

__all__ = ["from_neutral", "to_neutral"]

CALL_FIELDS = frozenset({"model", "stream", "anthropic_version"})
"""Belong to the call, not to the conversation. `anthropic_version` stands in the body on Vertex and Bedrock."""

_KNOWN = frozenset({
    "messages", "system", "tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "thinking",
    "output_config", "output_format", "metadata", "service_tier",
})  # fmt: skip


def to_neutral(fields: dict[str, msgspec.Raw]) -> Conversation:
    """The request whose top-level members are `fields`. Raises `FareboxError` (400) naming the path of a wrong value."""
    values = {name: reading.decode(raw, name) for name, raw in fields.items() if name in _KNOWN}
    if values.get("messages") is None:
        raise reading.missing("messages", "a list of messages")
    config = reading.opt_obj(values, "output_config", "") or {}
    choice, parallel = _tool_choice(values.get("tool_choice"))
    extra = {k: raw for k, raw in fields.items() if k not in _KNOWN and k not in CALL_FIELDS and bytes(raw).strip() != b"null"}
    rest = {k: v for k, v in config.items() if k not in ("effort", "format") and v is not None}
    if rest:
        extra["output_config"] = msgspec.Raw(msgspec.json.encode(rest))
    return Conversation(
        wire=WIRE,
        system=_system(values.get("system")),
        messages=_messages(reading.array(values["messages"], "messages")),
        tools=_tools(values.get("tools")),
        tool_choice=choice,
        params=_params(values, config, parallel),
        extra=extra,
    )


def _system(value: Any) -> tuple[SystemBlock, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (SystemBlock(value),)
    found: list[SystemBlock] = []
    for i, item in enumerate(reading.array(value, "system", "a string or an array of text blocks")):
        path = f"system[{i}]"
        block = reading.obj(item, path, "a text block")
        kind = reading.need_text(block, "type", path, '"text"')
        if kind != "text":
            raise reading.wrong(f"{path}.type", kind, '"text": instructions hold text only')
        cache = blocks.read_cache(block.get("cache_control"), f"{path}.cache_control")
        found.append(SystemBlock(reading.need_text(block, "text", path), cache))
    return tuple(found)


def _messages(listed: list[Any]) -> tuple[Message, ...]:
    found: list[Message] = []
    for i, item in enumerate(listed):
        path = f"messages[{i}]"
        fields = reading.obj(item, path, "a message")
        role = reading.need_text(fields, "role", path, '"user" or "assistant"')
        parts = blocks.read_content(fields.get("content"), f"{path}.content")
        match role:
            case "user" | "assistant":
                found.append(Message(role, tuple(carriage.unload(parts)), path=path))
            case "system":
                # Newer models take instructions in the middle of a conversation, which keeps the cached prefix whole.
                for j, part in enumerate(parts):
                    if not isinstance(part, Text):
                        raise reading.wrong(f"{path}.content[{j}]", type(part).__name__.lower(), "text only in instructions")
                found.append(Message(role, tuple(parts), path=path))
            case _:
                raise reading.wrong(f"{path}.role", role, '"user" or "assistant"')
    return tuple(found)


def _tools(value: Any) -> tuple[Tool, ...] | None:
    if value is None:
        return None
    listed = reading.array(value, "tools")
    return tuple(_tool(reading.obj(item, f"tools[{i}]", "a tool"), f"tools[{i}]") for i, item in enumerate(listed))


_TOOL_FIELDS = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})


def _tool(item: dict[str, Any], path: str) -> Tool:
    kind = reading.opt_text(item, "type", path)
    if kind not in (None, "custom"):
        return Opaque(WIRE, kind, msgspec.json.encode(item), path)
    if item.get("input_schema") is None:
        raise reading.missing(f"{path}.input_schema", "the JSON Schema of the tool's input")
    return FunctionTool(
        name=reading.need_text(item, "name", path),
        description=reading.opt_text(item, "description", path),
        schema=reading.encoded(reading.obj(item["input_schema"], f"{path}.input_schema")),
        strict=reading.opt_flag(item, "strict", path),
        cache=blocks.read_cache(item.get("cache_control"), f"{path}.cache_control"),
        extra=reading.raws(item, _TOOL_FIELDS),
        path=path,
    )


def _tool_choice(value: Any) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and whether parallel calls are allowed (None: not said)."""
    if value is None:
        return None, None
    fields = reading.obj(value, "tool_choice", 'an object such as {"type":"auto"}')
    disabled = reading.opt_flag(fields, "disable_parallel_tool_use", "tool_choice")
    parallel = None if disabled is None else not disabled
    match reading.need_text(fields, "type", "tool_choice", '"auto", "any", "tool" or "none"'):
        case "auto":
            return ToolChoice("auto"), parallel
        case "none":
            return ToolChoice("none"), parallel
        case "any":
            return ToolChoice("required"), parallel
        case "tool":
            return ToolChoice("named", reading.need_text(fields, "name", "tool_choice")), parallel
        case other:
            raise reading.wrong("tool_choice.type", other, '"auto", "any", "tool" or "none"')


def _params(values: dict[str, Any], config: dict[str, Any], parallel: bool | None) -> Params:
    metadata = reading.opt_obj(values, "metadata", "") or {}
    others = {k: v for k, v in metadata.items() if k != "user_id" and v is not None and not (k == "tags" and isinstance(v, list))}

    def number(name: str) -> int | float | None:
        return None if values.get(name) is None else reading.number(values[name], name)

    stop = values.get("stop_sequences")
    return Params(
        output_cap=None if values.get("max_tokens") is None else reading.positive(values["max_tokens"], "max_tokens"),
        output_cap_field=None if values.get("max_tokens") is None else "max_tokens",
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=None if values.get("top_k") is None else reading.integer(values["top_k"], "top_k"),
        stop=None
        if stop is None
        else tuple(reading.text(s, f"stop_sequences[{i}]") for i, s in enumerate(reading.array(stop, "stop_sequences"))) or None,
        response_format=_format(config.get("format"), "output_config.format")
        or _format(values.get("output_format"), "output_format"),
        reasoning=_reasoning(values, config),
        parallel_tools=parallel,
        user=reading.opt_text(metadata, "user_id", "metadata"),
        metadata=msgspec.json.encode(others) if others else None,
        service_tier=reading.opt_text(values, "service_tier", ""),
    )


def _format(value: Any, path: str) -> ResponseFormat | None:
    """`output_config.format`, and `output_format` of its beta."""
    if value is None:
        return None
    fields = reading.obj(value, path)
    kind = reading.need_text(fields, "type", path, '"json_schema"')
    if kind != "json_schema":
        raise reading.wrong(f"{path}.type", kind, '"json_schema"')
    schema = reading.obj(fields.get("schema"), f"{path}.schema", "a JSON Schema")
    return ResponseFormat("json_schema", schema=msgspec.json.encode(schema), strict=True)


_THINKING_FIELDS = frozenset({"type", "budget_tokens"})


def _reasoning(values: dict[str, Any], config: dict[str, Any]) -> ReasoningRequest | None:
    effort = reading.opt_text(config, "effort", "output_config")
    fields = reading.opt_obj(values, "thinking", "")
    if fields is None:
        # An effort without thinking sets how much the model spends on the whole answer.
        return None if effort is None else ReasoningRequest("output_config.effort", effort=effort)
    kind = reading.need_text(fields, "type", "thinking", '"enabled", "adaptive" or "disabled"')
    if kind not in ("enabled", "adaptive", "disabled"):
        raise reading.wrong("thinking.type", kind, '"enabled", "adaptive" or "disabled"')
    budget = fields.get("budget_tokens")
    return ReasoningRequest(
        "thinking",
        effort=effort,
        budget_tokens=None if budget is None else reading.positive(budget, "thinking.budget_tokens"),
        enabled=kind != "disabled",
        adaptive=kind == "adaptive",
        extra=reading.raws(fields, _THINKING_FIELDS),
    )
