"""OpenAI chat requests → the neutral conversation. The other direction is `write_request`.

Reads what clients of this surface send, also in the spellings that clones and routers added: `reasoning`, `thinking`,
`enable_thinking`, `cache_control` on messages and parts, `document_url`, `prompt` caching hints. Raises a 400 that names the
path of what is wrong; fields it does not know are kept by name in `Conversation.extra`.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from farebox.wires import reading
from farebox.wires.neutral import (
    Conversation,
    CustomTool,
    FunctionTool,
    Message,
    Number,
    Opaque,
    Params,
    Part,
    Reasoning,
    ReasoningRequest,
    Refusal,
    ResponseFormat,
    SystemBlock,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
)
from farebox.wires.openai_chat import parts as content
from farebox.wires.openai_chat.parts import WIRE
from farebox.wires.openai_chat.write_request import from_neutral

__all__ = ["from_neutral", "to_neutral"]

CALL_FIELDS = frozenset({"model", "stream", "stream_options"})
"""Belong to the call, not to the conversation."""


def to_neutral(fields: dict[str, msgspec.Raw]) -> Conversation:
    """The request whose top-level members are `fields`. Raises `FareboxError` (400) naming the path of a wrong value."""
    values = {name: reading.decode(raw, name) for name, raw in fields.items() if name in _KNOWN}
    listed = values.get("messages")
    if listed is None:
        raise reading.missing("messages", "a list of messages")
    system, messages = _messages(reading.array(listed, "messages"))
    return Conversation(
        wire=WIRE,
        system=system,
        messages=messages,
        tools=_tools(values.get("tools")),
        tool_choice=_tool_choice(values.get("tool_choice")),
        params=_params(values),
        extra={k: raw for k, raw in fields.items() if k not in _KNOWN and k not in CALL_FIELDS and bytes(raw).strip() != b"null"},
    )


_KNOWN = frozenset({
    "messages", "tools", "tool_choice", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "stop", "n",
    "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "response_format",
    "reasoning_effort", "reasoning", "thinking", "enable_thinking", "thinking_budget", "include_reasoning",
    "parallel_tool_calls", "user", "metadata", "service_tier",
})  # fmt: skip


def _messages(listed: list[Any]) -> tuple[tuple[SystemBlock, ...], tuple[Message, ...]]:
    system: list[SystemBlock] = []
    messages: list[Message] = []
    results: list[ToolResult] = []
    for i, item in enumerate(listed):
        path = f"messages[{i}]"
        fields = reading.obj(item, path, "a message")
        role = reading.need_text(fields, "role", path, "the role of the speaker")
        cache = content.read_cache(fields.get("cache_control"), f"{path}.cache_control")
        if role in ("tool", "function"):
            results.append(_tool_result(fields, role, path))
            continue
        if results:
            messages.append(Message("user", tuple(results), path=results[0].path))
            results = []
        name = reading.opt_text(fields, "name", path)
        match role:
            case "system" | "developer":
                found = _mark_last(content.read_content(fields.get("content"), f"{path}.content"), cache)
                blocks = _system_blocks(found, role == "developer", i, path)
                if messages:
                    messages.append(Message("system", tuple(Text(b.text, b.cache) for b in blocks), name, path))
                else:
                    system.extend(blocks)
            case "user":
                found = content.read_content(fields.get("content"), f"{path}.content")
                messages.append(Message("user", tuple(_mark_last(found, cache)), name, path))
            case "assistant":
                messages.append(Message("assistant", tuple(_mark_last(_assistant(fields, path), cache)), name, path))
            case _:
                raise reading.wrong(f"{path}.role", role, '"system", "developer", "user", "assistant" or "tool"')
    if results:
        messages.append(Message("user", tuple(results), path=results[0].path))
    return tuple(system), tuple(messages)


def _system_blocks(found: list[Part], developer: bool, group: int, path: str) -> list[SystemBlock]:
    blocks: list[SystemBlock] = []
    for j, part in enumerate(found):
        if not isinstance(part, Text):
            raise reading.wrong(f"{path}.content[{j}]", type(part).__name__.lower(), "text only in instructions")
        blocks.append(SystemBlock(part.text, part.cache, developer, group))
    return blocks


def _assistant(fields: dict[str, Any], path: str) -> list[Part]:
    body = content.read_content(fields.get("content"), f"{path}.content")
    thinking: list[Part] = [] if any(isinstance(p, Reasoning) for p in body) else list(content.read_reasoning(fields))
    refusal = reading.opt_text(fields, "refusal", path)
    calls = fields.get("tool_calls")
    found: list[Part] = [*thinking, *body]
    if refusal:
        found.append(Refusal(refusal))
    if calls is not None:
        found.extend(content.read_tool_calls(calls, f"{path}.tool_calls"))
    for name in ("audio", "function_call"):
        value = fields.get(name)
        if value:
            found.append(Opaque(WIRE, name, msgspec.json.encode({name: value}), f"{path}.{name}"))
    citations = content.read_annotations(fields.get("annotations"))
    if citations:
        for j, part in enumerate(found):
            if isinstance(part, Text):
                found[j] = msgspec.structs.replace(part, citations=citations)
                break
    return found


def _tool_result(fields: dict[str, Any], role: str, path: str) -> ToolResult:
    call = reading.need_text(
        fields, "tool_call_id" if role == "tool" else "name", path, "the id of the tool call that this message answers"
    )
    found = content.read_content(fields.get("content"), f"{path}.content")
    for j, part in enumerate(found):
        if isinstance(part, (Reasoning, Refusal)):
            raise reading.wrong(f"{path}.content[{j}]", type(part).__name__.lower(), "text or image parts in a tool's answer")
    cache = content.read_cache(fields.get("cache_control"), f"{path}.cache_control")
    return ToolResult(call, tuple(found), cache=cache, path=path)  # pyright: ignore[reportArgumentType]


def _mark_last(found: list[Part], cache: Any) -> list[Part]:
    """A mark on the message means its last part, as OpenRouter reads it."""
    if cache is not None and found and not isinstance(found[-1], (Reasoning, Refusal, Opaque)) and hasattr(found[-1], "cache"):
        found[-1] = msgspec.structs.replace(found[-1], cache=cache)
    return found


def _tools(value: Any) -> tuple[Tool, ...] | None:
    if value is None:
        return None
    listed = reading.array(value, "tools")
    return tuple(_tool(reading.obj(item, f"tools[{i}]", "a tool"), f"tools[{i}]") for i, item in enumerate(listed))


def _tool(item: dict[str, Any], path: str) -> Tool:
    kind = reading.opt_text(item, "type", path) or "function"
    if kind == "function":
        where = f"{path}.function"
        if item.get("function") is None:
            raise reading.missing(where, "an object with `name`, `description` and `parameters`")
        fields = reading.obj(item["function"], where)
        schema = reading.opt_obj(fields, "parameters", where)
        return FunctionTool(
            name=reading.need_text(fields, "name", where, "the tool's name"),
            description=reading.opt_text(fields, "description", where),
            schema=reading.encoded(schema),
            strict=reading.opt_flag(fields, "strict", where),
            cache=content.read_cache(item.get("cache_control"), f"{path}.cache_control"),
            extra=reading.raws(fields, _FUNCTION_FIELDS),
            path=path,
        )
    if kind == "custom":
        where = f"{path}.custom"
        fields = reading.obj(item.get("custom"), where)
        return CustomTool(
            name=reading.need_text(fields, "name", where, "the tool's name"),
            description=reading.opt_text(fields, "description", where),
            format=reading.encoded(reading.opt_obj(fields, "format", where)),
            path=path,
        )
    return Opaque(WIRE, kind, msgspec.json.encode(item), path)


_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "strict"})


def _tool_choice(value: Any) -> ToolChoice | None:
    expected = '"auto", "none", "required" or {"type":"function","function":{"name":"…"}}'
    match value:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(value)
        case "any":
            return ToolChoice("required")
        case {"type": "function" | "custom" as kind, **rest}:
            inner = reading.obj(rest.get(kind), f"tool_choice.{kind}")
            return ToolChoice("named", reading.need_text(inner, "name", f"tool_choice.{kind}"), custom=kind == "custom")
        case {"type": "allowed_tools"}:
            return ToolChoice("allowed", allowed=msgspec.json.encode(value))
        case {"type": "auto" | "none" | "required" as mode}:
            return ToolChoice(mode)
        case _:
            raise reading.wrong("tool_choice", value, expected)


def _params(values: dict[str, Any]) -> Params:
    def taken(name: str, check: Callable[[Any, str], Any]) -> Any:
        value = values.get(name)
        return None if value is None else check(value, name)

    def number(name: str) -> Number | None:
        return taken(name, reading.number)

    cap_field = next((n for n in ("max_completion_tokens", "max_tokens") if values.get(n) is not None), None)
    metadata = taken("metadata", reading.obj)
    if metadata and isinstance(metadata.get("tags"), list):
        metadata = {name: value for name, value in metadata.items() if name != "tags"}  # the gateway's own (`call.metadata_tags`)
    bias = taken("logit_bias", reading.obj)
    return Params(
        output_cap=None if cap_field is None else reading.positive(values[cap_field], cap_field),
        output_cap_field=cap_field,
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=taken("top_k", reading.integer),
        stop=_stop(values.get("stop")),
        n=taken("n", reading.positive),
        seed=taken("seed", reading.integer),
        presence_penalty=number("presence_penalty"),
        frequency_penalty=number("frequency_penalty"),
        logit_bias=reading.encoded(bias) if bias else None,
        logprobs=taken("logprobs", reading.flag),
        top_logprobs=taken("top_logprobs", reading.integer),
        response_format=_response_format(values.get("response_format")),
        reasoning=_reasoning(values),
        parallel_tools=taken("parallel_tool_calls", reading.flag),
        user=taken("user", reading.text),
        metadata=reading.encoded(metadata) if metadata else None,
        service_tier=taken("service_tier", reading.text),
    )


def _stop(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return (value,)
    found = reading.array(value, "stop", "a string or an array of strings")
    return tuple(reading.text(item, f"stop[{i}]") for i, item in enumerate(found)) or None


def _response_format(value: Any) -> ResponseFormat | None:
    if value is None:
        return None
    fields = reading.obj(value, "response_format")
    kind = reading.need_text(fields, "type", "response_format", '"text", "json_object" or "json_schema"')
    match kind:
        case "text" | "json_object":
            return ResponseFormat(kind)
        case "json_schema":
            where = "response_format.json_schema"
            if fields.get("json_schema") is None:
                raise reading.missing(where, "an object with `name` and `schema`")
            inner = reading.obj(fields["json_schema"], where)
            return ResponseFormat(
                kind,
                name=reading.opt_text(inner, "name", where),
                description=reading.opt_text(inner, "description", where),
                schema=reading.encoded(reading.opt_obj(inner, "schema", where)),
                strict=reading.opt_flag(inner, "strict", where),
            )
        case _:
            raise reading.wrong("response_format.type", kind, '"text", "json_object" or "json_schema"')


def _reasoning(values: dict[str, Any]) -> ReasoningRequest | None:
    """Every way to ask for thinking, put together: an effort, a budget, a switch, and whether to show it."""
    named = [name for name in _REASONING_FIELDS if values.get(name) is not None]
    if not named:
        return None
    asked = reading.opt_obj(values, "reasoning", "") or {}
    thinking = reading.opt_obj(values, "thinking", "") or {}
    effort = reading.opt_text(values, "reasoning_effort", "") or reading.opt_text(asked, "effort", "reasoning")
    enabled = reading.opt_flag(asked, "enabled", "reasoning")
    if enabled is None:
        enabled = reading.opt_flag(values, "enable_thinking", "")
    if enabled is None and thinking:
        enabled = reading.need_text(thinking, "type", "thinking", '"enabled" or "disabled"') != "disabled"
    budget: int | None = None
    for fields, name, path in (
        (asked, "max_tokens", "reasoning.max_tokens"),
        (thinking, "budget_tokens", "thinking.budget_tokens"),
        (values, "thinking_budget", "thinking_budget"),
    ):
        if budget is None and fields.get(name) is not None:
            budget = reading.positive(fields[name], path)
    if enabled is None and (effort is not None or budget is not None):
        enabled = effort != "none"
    # `include_reasoning` is OpenRouter's older switch: false hides thinking, it does not prevent it.
    exclude = reading.opt_flag(asked, "exclude", "reasoning") or reading.opt_flag(values, "include_reasoning", "") is False
    return ReasoningRequest(
        named[0],
        effort=effort,
        budget_tokens=budget,
        enabled=enabled,
        adaptive=thinking.get("type") == "adaptive",
        exclude=exclude,
        extra=reading.raws(thinking, _THINKING_FIELDS) | reading.raws(asked, _ASKED_FIELDS),
    )


_REASONING_FIELDS = ("reasoning_effort", "reasoning", "thinking", "enable_thinking", "thinking_budget", "include_reasoning")
_THINKING_FIELDS = frozenset({"type", "budget_tokens"})
_ASKED_FIELDS = frozenset({"effort", "max_tokens", "enabled", "exclude"})
