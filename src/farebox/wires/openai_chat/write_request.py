"""The neutral conversation → an OpenAI chat request, in one vendor's dialect.

What the wire or the vendor cannot take is named in `unsupported` by the client's own field names and left out of the body.
Translations that keep the meaning are made without complaint:

- a failed tool call has no mark on this wire, so its text says "Error: ";
- tool messages hold text only, so an image in a tool's answer follows in a user message that names the call;
- a plain-text document becomes text under its title;
- thinking signed by another provider is left out, because nobody but its signer can read it.
"""

from typing import Any, cast

import msgspec

from farebox.wires import complaints, efforts
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Audio,
    CacheMark,
    Conversation,
    CustomTool,
    Document,
    FunctionTool,
    Image,
    Message,
    ModelTraits,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    SystemBlock,
    Text,
    Tool,
    ToolResult,
    ToolUse,
)
from farebox.wires.openai_chat.parts import WIRE, write_cache, write_detail
from farebox.wires.tool_ids import ToolIds

DOCUMENT_NAME = "document.pdf"
"""OpenAI wants a file name; other wires do not always have one."""


def from_neutral(
    conversation: Conversation,
    *,
    model: str,
    stream: bool,
    output_cap: int | None,
    dialect: Dialect,
    unsupported: list[str],
    traits: ModelTraits | None = None,
) -> bytes:
    """The upstream body. `output_cap` replaces the client's own, None keeps it; `traits` None knows nothing of the model."""
    writer = _Writer(conversation, dialect, traits or ModelTraits(), unsupported)
    cap = conversation.params.output_cap if output_cap is None else output_cap
    body: dict[str, Any] = {"model": model, "messages": writer.messages()}
    if stream:
        body["stream"] = True
        if dialect.stream_usage_option:
            body["stream_options"] = {"include_usage": True}
    writer.tools(body)
    writer.params(body, cap)
    writer.reasoning(body, cap)
    writer.extras(body)
    return msgspec.json.encode(body)


class _Writer:
    def __init__(self, conversation: Conversation, dialect: Dialect, traits: ModelTraits, unsupported: list[str]) -> None:
        self._conversation = conversation
        self._dialect = dialect
        self._traits = traits
        self._unsupported = unsupported
        self._ids = ToolIds(dialect.tool_call_id_pattern)
        self._same_wire = conversation.wire == WIRE

    def _refuse(self, name: str) -> None:
        complaints.add(self._unsupported, name)

    def _field(self, name: str) -> str:
        return complaints.field(self._conversation, name)

    # Messages

    def messages(self) -> list[dict[str, Any]]:
        written = self._system()
        for message in self._conversation.messages:
            if message.role == "assistant":
                written.append(self._assistant(message))
            elif message.role == "system":
                written.append({"role": "system", "content": self._content(message.parts)} | self._name(message))
            else:
                written.extend(self._user(message))
        return written

    def _system(self) -> list[dict[str, Any]]:
        groups: dict[int, list[SystemBlock]] = {}
        for block in self._conversation.system:
            groups.setdefault(block.group, []).append(block)
        written: list[dict[str, Any]] = []
        for blocks in groups.values():
            role = "developer" if blocks[0].developer and self._dialect.developer_role else "system"
            marked = self._dialect.cache_control and any(block.cache for block in blocks)
            if len(blocks) > 1 and not (self._same_wire or marked):
                written.append({"role": role, "content": "\n\n".join(block.text for block in blocks)})
            else:
                written.append({"role": role, "content": self._content(tuple(Text(b.text, b.cache) for b in blocks))})
        return written

    def _name(self, message: Message) -> dict[str, str]:
        if message.name is None:
            return {}
        if not self._dialect.message_name:
            self._refuse(f"{message.path}.name")
            return {}
        return {"name": message.name}

    def _user(self, message: Message) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        rest: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                written.append(self._tool_message(part, rest))
            else:
                rest.append(part)
        if rest or not written:
            written.append({"role": "user", "content": self._content(tuple(rest))} | self._name(message))
        return written

    def _tool_message(self, result: ToolResult, attached: list[Part]) -> dict[str, Any]:
        texts: list[Text] = []
        for part in result.parts:
            if isinstance(part, Text):
                texts.append(part)
            elif self._same_wire:
                return self._tool_body(result, self._content(result.parts))
            else:
                if not any(isinstance(p, Text) and p.text == _attachment(result) for p in attached):
                    attached.append(Text(_attachment(result)))
                attached.append(part)
        if self._same_wire and len(texts) > 1:
            return self._tool_body(result, self._content(tuple(texts)))
        text = "\n".join(part.text for part in texts)
        if result.is_error and not text.lower().startswith("error"):
            text = f"Error: {text}"
        cache = (texts[-1].cache if texts else None) or result.cache
        return self._tool_body(result, text, cache)

    def _tool_body(self, result: ToolResult, content: Any, cache: CacheMark | None = None) -> dict[str, Any]:
        if cache and self._dialect.cache_control and isinstance(content, str):
            content = [{"type": "text", "text": content, "cache_control": write_cache(cache)}]
        return {"role": "tool", "tool_call_id": self._ids.mapped(result.id), "content": content}

    def _assistant(self, message: Message) -> dict[str, Any]:
        thinking = [part for part in message.parts if isinstance(part, Reasoning)]
        calls = [self._tool_call(part) for part in message.parts if isinstance(part, ToolUse)]
        body: list[Part] = []
        fields: dict[str, Any] = {}
        for part in message.parts:
            if isinstance(part, Refusal):
                fields["refusal"] = part.text
            elif isinstance(part, Opaque) and part.wire == WIRE and part.kind in ("audio", "function_call"):
                fields.update(msgspec.json.decode(part.raw))
            elif not isinstance(part, (Reasoning, ToolUse)):
                body.append(part)
        content: Any
        if all(isinstance(part, Text) for part in body) and not (self._same_wire and len(body) > 1) and not self._marked(body):
            # Pieces of one answer, cut where a wire attached its citations: they join without a seam.
            content = "".join(part.text for part in body if isinstance(part, Text)) if body else None
        else:
            content = self._content(tuple(body))
        written: dict[str, Any] = {"role": "assistant", "content": content or None if calls or fields else content or ""}
        self._echo(written, thinking, bool(calls))
        if calls:
            written["tool_calls"] = calls
        return written | fields | self._name(message)

    def _marked(self, parts: list[Part]) -> bool:
        return self._dialect.cache_control and any(isinstance(part, Text) and part.cache for part in parts)

    def _echo(self, written: dict[str, Any], thinking: list[Reasoning], with_calls: bool) -> None:
        """Earlier thinking, in the vendor's form. Signed thinking goes only where details are understood."""
        reply = self._dialect.reasoning_reply
        if reply == "reasoning_details":
            if thinking:
                written["reasoning_details"] = [write_detail(part, i) for i, part in enumerate(thinking)]
            return
        text = "".join(part.text for part in thinking if not part.signed)
        if reply == "content_list":
            if text:
                said: Any = written["content"]
                pieces = cast("list[Any]", said) if isinstance(said, list) else [{"type": "text", "text": said}] if said else []
                written["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *pieces]
        elif reply in ("reasoning_content", "reasoning") and text:
            written[reply] = text
        if self._dialect.reasoning_echo_required and with_calls and "reasoning_content" not in written:
            written["reasoning_content"] = " "

    def _tool_call(self, part: ToolUse) -> dict[str, Any]:
        extra: dict[str, Any] = dict(part.extra)
        if extra and not self._same_wire:
            for name in extra:
                self._refuse(f"{part.path}.{name}")
            extra = {}
        inner = {"name": part.name, "input" if part.custom else "arguments": part.arguments}
        kind = "custom" if part.custom else "function"
        return {"id": self._ids.mapped(part.id), "type": kind, kind: inner} | extra

    def _content(self, parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
        if not parts:
            return ""
        if len(parts) == 1 and isinstance(parts[0], Text) and not (parts[0].cache and self._dialect.cache_control):
            return parts[0].text
        return [written for part in parts if (written := self._part(part)) is not None]

    def _part(self, part: Part) -> Any:
        match part:
            case Text():
                return {"type": "text", "text": part.text} | self._mark(part.cache)
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case Audio():
                inner: Any = part.data if part.format is None else {"data": part.data, "format": part.format}
                return {"type": "input_audio", "input_audio": inner}
            case Refusal():
                return {"type": "refusal", "refusal": part.text}
            case Opaque():
                if part.wire == WIRE:
                    return msgspec.Raw(part.raw)
                self._refuse(complaints.part(part.path, part.kind))
                return None
            case ToolUse() | ToolResult() | Reasoning():
                raise AssertionError(f"{type(part).__name__} is written by its message")

    def _mark(self, cache: CacheMark | None) -> dict[str, Any]:
        return {"cache_control": write_cache(cache)} if cache and self._dialect.cache_control else {}

    def _image(self, part: Image) -> dict[str, Any] | None:
        if part.file_id is not None:
            self._refuse(complaints.part(part.path, "image file"))
            return None
        url = part.url if part.url is not None else f"data:{part.media_type or ''};base64,{part.data}"
        inner = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": inner} | self._mark(part.cache)

    def _document(self, part: Document) -> dict[str, Any] | None:
        if part.citations:
            self._refuse(f"{part.path}.citations")
        if part.text is not None:
            heading = "\n\n".join(piece for piece in (part.name, part.context, part.text) if piece)
            return {"type": "text", "text": heading} | self._mark(part.cache)
        if part.context is not None:
            self._refuse(f"{part.path}.context")
        if part.url is not None and self._same_wire:
            named = {} if part.name is None else {"document_name": part.name}
            return {"type": "document_url", "document_url": part.url} | named
        if not self._dialect.pdf or part.url is not None or part.blocks is not None or (part.file_id and not self._same_wire):
            self._refuse(complaints.part(part.path, "file" if self._same_wire else "document"))
            return None
        name = part.name or (None if self._same_wire else DOCUMENT_NAME)
        inner: dict[str, Any] = {} if name is None else {"filename": name}
        if part.file_id is not None:
            inner["file_id"] = part.file_id
        else:
            inner["file_data"] = part.data if part.media_type is None else f"data:{part.media_type};base64,{part.data}"
        return {"type": "file", "file": inner} | self._mark(part.cache)

    # Tools and settings

    def tools(self, body: dict[str, Any]) -> None:
        tools = self._conversation.tools
        if tools is not None:
            written = [tool for tool in (self._tool(tool) for tool in tools) if tool is not None]
            if written or self._same_wire:
                body["tools"] = written
        choice = self._conversation.tool_choice
        if choice is not None and (body.get("tools") or self._same_wire):
            if choice.mode == "named":
                kind = "custom" if choice.custom else "function"
                body["tool_choice"] = {"type": kind, kind: {"name": choice.name}}
            elif choice.mode == "allowed":
                body["tool_choice"] = msgspec.Raw(choice.allowed or b"null")
            elif choice.mode != "required":
                body["tool_choice"] = choice.mode
            elif self._dialect.tool_choice_required == "unsupported":
                self._refuse("tool_choice")
            else:
                body["tool_choice"] = self._dialect.tool_choice_required
        parallel = self._conversation.params.parallel_tools
        # True is the default everywhere; said only when the client of this wire said it.
        if parallel is False or (parallel and self._same_wire):
            body["parallel_tool_calls"] = parallel

    def _tool(self, tool: Tool) -> Any:
        match tool:
            case FunctionTool():
                inner: dict[str, Any] = {"name": tool.name}
                if tool.description is not None:
                    inner["description"] = tool.description
                if tool.schema is not None:
                    inner["parameters"] = msgspec.Raw(tool.schema)
                where = f"{tool.path}.function" if self._same_wire else tool.path
                if tool.strict is not None and self._dialect.tool_strict:
                    inner["strict"] = tool.strict
                elif tool.strict:
                    self._refuse(f"{where}.strict")
                if self._same_wire:
                    inner.update(tool.extra)
                else:
                    for name in tool.extra:
                        self._refuse(f"{where}.{name}")
                return {"type": "function", "function": inner} | self._mark(tool.cache)
            case CustomTool():
                inner = {"name": tool.name}
                if tool.description is not None:
                    inner["description"] = tool.description
                if tool.format is not None:
                    inner["format"] = msgspec.Raw(tool.format)
                return {"type": "custom", "custom": inner}
            case Opaque():
                if tool.wire == WIRE:
                    return msgspec.Raw(tool.raw)
                self._refuse(complaints.part(tool.path, tool.kind))
                return None

    def params(self, body: dict[str, Any], cap: int | None) -> None:
        params, dialect = self._conversation.params, self._dialect
        if cap is not None:
            body[self._cap_field()] = cap
        for name, value in (("temperature", params.temperature), ("top_p", params.top_p)):
            if value is None:
                continue
            if not self._traits.sampling or (name == "temperature" and value > dialect.temperature_max):
                self._refuse(name)
            else:
                body[name] = value
        if params.top_k is not None:
            if self._same_wire or dialect.extensions:
                body["top_k"] = params.top_k
            else:
                self._refuse("top_k")
        if params.stop is not None:
            if not dialect.stop or len(params.stop) > dialect.stop_max:
                self._refuse(self._field("stop"))
            else:
                body["stop"] = list(params.stop)
        if params.seed is not None:
            if dialect.seed_field == "unsupported":
                self._refuse("seed")
            else:
                body[dialect.seed_field] = params.seed
        # A value that asks for nothing (one choice, no penalty, no log-probabilities) is nothing to refuse.
        for name, value, able, idle in (
            ("n", params.n, dialect.n_choices, params.n == 1),
            ("presence_penalty", params.presence_penalty, dialect.penalties, not params.presence_penalty),
            ("frequency_penalty", params.frequency_penalty, dialect.penalties, not params.frequency_penalty),
            ("logit_bias", params.logit_bias and msgspec.Raw(params.logit_bias), dialect.logit_bias, False),
            ("logprobs", params.logprobs, dialect.logprobs, not params.logprobs),
            ("top_logprobs", params.top_logprobs, dialect.logprobs, not params.top_logprobs),
        ):
            if value is None:
                continue
            if able:
                body[name] = value
            elif not idle:
                self._refuse(name)
        self._response_format(body)
        if params.user is not None:
            body["user"] = params.user
        if params.metadata is not None:
            if self._same_wire:
                body["metadata"] = msgspec.Raw(params.metadata)
            else:
                self._refuse("metadata")
        tier = params.service_tier
        if tier is not None and not self._same_wire:
            # Anthropic's `auto` is what happens anyway; `standard_only` is OpenAI's `default`.
            tier = {"auto": None, "standard_only": "default"}.get(tier, tier)
        if tier is not None:
            body["service_tier"] = tier

    def _cap_field(self) -> str:
        field = self._dialect.output_limit_field
        if field != "as_sent":
            return field
        sent = self._conversation.params.output_cap_field
        return sent if self._same_wire and sent is not None else "max_completion_tokens"

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self._conversation.params.response_format
        if wanted is None:
            return
        if wanted.kind != "json_schema":
            body["response_format"] = {"type": wanted.kind}
            return
        if not self._dialect.json_schema:
            self._refuse(self._field("response_format"))
            return
        inner: dict[str, Any] = {}
        if wanted.name is not None or not self._same_wire:
            inner["name"] = wanted.name or "response"
        if wanted.description is not None:
            inner["description"] = wanted.description
        if wanted.schema is not None:
            inner["schema"] = msgspec.Raw(wanted.schema)
        if wanted.strict is not None:
            inner["strict"] = wanted.strict
        body["response_format"] = {"type": "json_schema", "json_schema": inner}

    def reasoning(self, body: dict[str, Any], cap: int | None) -> None:
        asked = self._conversation.params.reasoning
        if asked is None:
            return
        field = complaints.reasoning_field(self._conversation)
        way = self._dialect.reasoning_request
        if way == "openrouter":
            body["reasoning"] = self._openrouter(asked.effort, asked.budget_tokens, asked.enabled, asked.exclude) | asked.extra
            return
        if asked.exclude and self._dialect.reasoning_reply != "none":
            self._refuse("include_reasoning" if field == "include_reasoning" else f"{field}.exclude")
        if asked.enabled is None and asked.effort is None:
            return
        if self._traits.thinking == "none" or way == "none":
            if asked.enabled is not False:
                self._refuse(field)
            return
        effort = efforts.effort_of(asked, cap)
        if effort is not None and (effort != "none" or way == "reasoning_effort"):
            accepted = efforts.accepted(effort, self._traits.efforts)
            if accepted is None:
                self._refuse(field)
                return
            effort = accepted
        match way:
            case "reasoning_effort":
                if effort is not None:
                    body["reasoning_effort"] = effort
            case "thinking_type":
                body["thinking"] = {"type": "disabled" if asked.enabled is False else "enabled"} | asked.extra
                if asked.enabled is not False and asked.effort is not None:
                    body["reasoning_effort"] = effort
            case "enable_thinking":
                body["enable_thinking"] = asked.enabled is not False
                if asked.enabled is not False and (asked.budget_tokens or (asked.effort and cap)):
                    budget = efforts.budget_of(asked, cap or 0)
                    if budget is not None:
                        body["thinking_budget"] = budget

    @staticmethod
    def _openrouter(effort: str | None, budget: int | None, enabled: bool | None, exclude: bool) -> dict[str, Any]:
        """OpenRouter takes an effort or a budget, not both; the effort is the plainer wish."""
        written: dict[str, Any] = {}
        if effort is not None:
            written["effort"] = effort
        elif budget is not None:
            written["max_tokens"] = budget
        elif enabled is not None:
            written["enabled"] = enabled
        if exclude:
            written["exclude"] = True
        return written

    def extras(self, body: dict[str, Any]) -> None:
        for name, raw in self._conversation.extra.items():
            if name in complaints.GATEWAY_FIELDS:
                if self._dialect.extensions:
                    body[name] = raw
            elif self._same_wire:
                body[name] = raw
            elif name not in complaints.CACHE_HINTS:
                self._refuse(name)


def _attachment(result: ToolResult) -> str:
    return f"Attached to the result of tool call {result.id}:"
