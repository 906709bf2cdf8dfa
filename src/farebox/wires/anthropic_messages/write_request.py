"""The neutral conversation → an Anthropic messages request.

What the wire, the vendor or the model cannot take is named in `unsupported` by the client's own field names and left out.
Translations that keep the meaning are made without complaint:

- instructions go to `system`, also those given later (a same-wire client's stay in place);
- turns of one role are merged and a user turn begins with its tool results, as the API demands;
- empty text blocks, which the API refuses, are left out;
- thinking that the target did not sign is left out, because only its signer can read it.
"""

import base64
import binascii
from typing import Any

import msgspec

from farebox.errors import invalid
from farebox.wires import complaints, efforts
from farebox.wires.anthropic_messages.blocks import WIRE, write_citation, write_thinking
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Audio,
    CacheMark,
    Conversation,
    CustomTool,
    Document,
    FunctionTool,
    Image,
    ModelTraits,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolResult,
    ToolUse,
)
from farebox.wires.tool_ids import ToolIds

TOOL_ID_PATTERN = r"[a-zA-Z0-9_-]+"
"""What Anthropic accepts as the id of a tool call."""
TEMPERATURE_MAX = 1
EMPTY_SCHEMA = b'{"type":"object","properties":{}}'
_PDF_START = "JVBERi0"
"""Base64 of `%PDF-`, for files that come without a media type."""


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
    """The upstream body. `output_cap` replaces the client's own; this wire needs one of them, else `FareboxError` (400)."""
    cap = conversation.params.output_cap if output_cap is None else output_cap
    if cap is None:
        raise invalid("`max_tokens` is missing; this model needs a bound on its output.", param="max_tokens")
    writer = _Writer(conversation, dialect, traits or ModelTraits(), unsupported)
    body: dict[str, Any] = {"model": model, "max_tokens": cap}
    messages, later = writer.messages()
    system = writer.system(later)
    if system:
        body["system"] = system
    body["messages"] = messages
    if stream:
        body["stream"] = True
    writer.tools(body)
    writer.params(body)
    writer.reasoning(body, cap)
    writer.extras(body)
    return msgspec.json.encode(body)


class _Writer:
    def __init__(self, conversation: Conversation, dialect: Dialect, traits: ModelTraits, unsupported: list[str]) -> None:
        self._conversation = conversation
        self._dialect = dialect
        self._traits = traits
        self._unsupported = unsupported
        self._ids = ToolIds(dialect.tool_call_id_pattern or TOOL_ID_PATTERN)
        self._same_wire = conversation.wire == WIRE

    def _refuse(self, name: str) -> None:
        complaints.add(self._unsupported, name)

    def _field(self, name: str) -> str:
        return complaints.field(self._conversation, name)

    # Messages

    def system(self, later: list[Text]) -> str | list[dict[str, Any]]:
        texts = [Text(b.text, b.cache) for b in self._conversation.system] + later
        texts = [part for part in texts if part.text]
        if len(texts) == 1 and texts[0].cache is None:
            return texts[0].text
        return [self._text(part) for part in texts]

    def messages(self) -> tuple[list[dict[str, Any]], list[Text]]:
        """The turns, and instructions from the middle of the conversation that have to move to the top."""
        turns: list[dict[str, Any]] = []
        later: list[Text] = []
        for message in self._conversation.messages:
            if message.role == "system" and not self._same_wire:
                later.extend(part for part in message.parts if isinstance(part, Text))
                continue
            if message.name is not None:
                self._refuse(f"{message.path}.name")
            blocks = [block for part in message.parts if (block := self._block(part)) is not None]
            if not blocks:
                continue
            if turns and turns[-1]["role"] == message.role:
                turns[-1]["content"].extend(blocks)
            else:
                turns.append({"role": message.role, "content": blocks})
        for turn in turns:
            if turn["role"] == "user":
                turn["content"].sort(key=_results_first)
        self._check_ends(turns)
        return turns, later

    def _check_ends(self, turns: list[dict[str, Any]]) -> None:
        if not turns:
            self._refuse("messages (no user message)")
        elif turns[0]["role"] == "assistant" and not self._same_wire:
            self._refuse(f"{self._conversation.messages[0].path} (assistant message first)")
        if turns and turns[-1]["role"] == "assistant" and not self._traits.prefill:
            self._refuse(f"{self._conversation.messages[-1].path} (assistant message last)")

    def _block(self, part: Part) -> Any:
        match part:
            case Text():
                return self._text(part) if part.text else None
            case Refusal():
                return {"type": "text", "text": part.text} if part.text else None
            case Reasoning():
                return write_thinking(part) if self._echoed(part) else None
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case ToolUse():
                return self._tool_use(part)
            case ToolResult():
                return self._tool_result(part)
            case Audio():
                self._refuse(complaints.part(part.path, "input_audio"))
                return None
            case Opaque():
                if part.wire == WIRE:
                    return msgspec.Raw(part.raw)
                self._refuse(complaints.part(part.path, part.kind))
                return None

    def _echoed(self, part: Reasoning) -> bool:
        """Whether the target can read this thinking: it signed it, or its own client sent it back as it came."""
        if part.summary:
            return False
        if part.signed:
            return part.format in (self._traits.reasoning_format, None) and self._traits.reasoning_format is not None
        return self._same_wire

    def _text(self, part: Text) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "text", "text": part.text}
        # A citation of another wire has no `encrypted_index`, without which Anthropic refuses it.
        native = [c for c in part.citations if c.wire == WIRE and b'"encrypted_index":""' not in c.raw]
        citations = [write_citation(citation, part.text) for citation in native]
        if citations:
            block["citations"] = citations
        return block | _mark(part.cache)

    def _image(self, part: Image) -> dict[str, Any] | None:
        source: dict[str, Any]
        if part.url is not None:
            source = {"type": "url", "url": part.url}
        elif part.file_id is not None:
            source = {"type": "file", "file_id": part.file_id}
        elif part.media_type is None:
            self._refuse(complaints.part(part.path, "image without a media type"))
            return None
        else:
            source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "image", "source": source} | _mark(part.cache)

    def _document(self, part: Document) -> dict[str, Any] | None:
        source = self._document_source(part)
        if source is None:
            return None
        block: dict[str, Any] = {"type": "document", "source": source}
        if part.name is not None:
            block["title"] = part.name
        if part.context is not None:
            block["context"] = part.context
        if part.citations:
            block["citations"] = {"enabled": True}
        return block | _mark(part.cache)

    def _document_source(self, part: Document) -> dict[str, Any] | None:
        if part.text is not None:
            return {"type": "text", "media_type": "text/plain", "data": part.text}
        if part.blocks is not None:
            return {"type": "content", "content": msgspec.Raw(part.blocks)}
        if part.url is not None:
            return {"type": "url", "url": part.url}
        if part.file_id is not None:
            if self._same_wire:
                return {"type": "file", "file_id": part.file_id}
            self._refuse(complaints.part(part.path, "file_id"))
            return None
        data = part.data or ""
        media_type = part.media_type or ("application/pdf" if data.startswith(_PDF_START) else None)
        if media_type == "application/pdf" and self._dialect.pdf:
            return {"type": "base64", "media_type": media_type, "data": data}
        text = _decoded(data) if (media_type or "").startswith("text/") else None
        if text is not None:
            return {"type": "text", "media_type": "text/plain", "data": text}
        self._refuse(complaints.part(part.path, f"file of type {media_type or 'unknown'}"))
        return None

    def _tool_use(self, part: ToolUse) -> dict[str, Any] | None:
        if part.custom:
            self._refuse(complaints.part(part.path, "custom tool call"))
            return None
        if not self._same_wire:
            for name in part.extra:
                self._refuse(f"{part.path}.{name}")
        given = _object(part.arguments or "{}")
        if given is None:
            self._refuse(complaints.part(part.path, "arguments that are not a JSON object"))
            return None
        block = {"type": "tool_use", "id": self._ids.mapped(part.id), "name": part.name, "input": given}
        return block | (part.extra if self._same_wire else {}) | _mark(part.cache)

    def _tool_result(self, part: ToolResult) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._ids.mapped(part.id)}
        written = [inner for piece in part.parts if (inner := self._block(piece)) is not None]
        plain = len(part.parts) == 1 and isinstance(part.parts[0], Text) and part.parts[0].cache is None
        block["content"] = part.parts[0].text if plain and isinstance(part.parts[0], Text) else written
        if part.is_error:
            block["is_error"] = True
        return block | _mark(part.cache)

    # Tools and settings

    def tools(self, body: dict[str, Any]) -> None:
        tools = self._conversation.tools
        if tools:
            written = [tool for tool in (self._tool(tool) for tool in tools) if tool is not None]
            if written:
                body["tools"] = written
        choice, parallel = self._conversation.tool_choice, self._conversation.params.parallel_tools
        written_choice: dict[str, Any] | None = None
        if choice is not None:
            match choice.mode:
                case "auto" | "none":
                    written_choice = {"type": choice.mode}
                case "required":
                    written_choice = {"type": "any"}
                case "named" if not choice.custom:
                    written_choice = {"type": "tool", "name": choice.name}
                case _:
                    self._refuse("tool_choice")
        elif parallel is False:
            written_choice = {"type": "auto"}
        if written_choice is None or not (body.get("tools") or self._same_wire):
            return
        if parallel is not None and written_choice["type"] != "none":
            written_choice["disable_parallel_tool_use"] = not parallel
        body["tool_choice"] = written_choice

    def _tool(self, tool: Tool) -> Any:
        match tool:
            case FunctionTool():
                block: dict[str, Any] = {"name": tool.name}
                if tool.description is not None:
                    block["description"] = tool.description
                block["input_schema"] = msgspec.Raw(tool.schema if self._same_wire and tool.schema else _schema(tool.schema))
                where = tool.path if self._same_wire else f"{tool.path}.function"
                if tool.strict is not None and self._dialect.tool_strict:
                    block["strict"] = tool.strict
                elif tool.strict:
                    self._refuse(f"{where}.strict")
                if self._same_wire:
                    block.update(tool.extra)
                else:
                    for name in tool.extra:
                        self._refuse(f"{where}.{name}")
                return block | _mark(tool.cache)
            case CustomTool():
                self._refuse(complaints.part(tool.path, "custom"))
                return None
            case Opaque():
                if tool.wire == WIRE:
                    return msgspec.Raw(tool.raw)
                self._refuse(complaints.part(tool.path, tool.kind))
                return None

    def params(self, body: dict[str, Any]) -> None:
        params = self._conversation.params
        hottest = min(TEMPERATURE_MAX, self._dialect.temperature_max)
        for name, value in (("temperature", params.temperature), ("top_p", params.top_p), ("top_k", params.top_k)):
            if value is None:
                continue
            if not self._traits.sampling or (name == "temperature" and value > hottest):
                self._refuse(name)
            else:
                body[name] = value
        if params.stop is not None:
            if not self._dialect.stop or any(not text.strip() for text in params.stop):
                self._refuse(self._field("stop"))
            else:
                body["stop_sequences"] = list(params.stop)
        # A value that asks for nothing (one choice, no penalty, no log-probabilities) is nothing to refuse.
        for name, asked in (
            ("n", (params.n or 1) > 1),
            ("seed", params.seed is not None),
            ("presence_penalty", bool(params.presence_penalty)),
            ("frequency_penalty", bool(params.frequency_penalty)),
            ("logit_bias", params.logit_bias is not None),
            ("logprobs", bool(params.logprobs)),
            ("top_logprobs", bool(params.top_logprobs)),
        ):
            if asked:
                self._refuse(name)
        self._response_format(body)
        metadata: dict[str, Any] = {} if params.user is None else {"user_id": params.user}
        if params.metadata is not None:
            if self._same_wire:
                metadata |= msgspec.json.decode(params.metadata)
            else:
                self._refuse("metadata")
        if metadata:
            body["metadata"] = metadata
        tier = params.service_tier
        if tier is not None and not self._same_wire:
            # OpenAI's `default` is Anthropic's `standard_only`; its other tiers have no counterpart.
            tier = {"auto": "auto", "default": "standard_only"}.get(tier)
            if tier is None:
                self._refuse("service_tier")
        if tier is not None:
            body["service_tier"] = tier

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self._conversation.params.response_format
        if wanted is None or wanted.kind == "text":
            return
        if wanted.schema is None or not self._dialect.json_schema:
            self._refuse(self._field("response_format"))
            return
        body["output_config"] = {"format": {"type": "json_schema", "schema": msgspec.Raw(wanted.schema)}}

    def reasoning(self, body: dict[str, Any], cap: int) -> None:
        asked = self._conversation.params.reasoning
        if asked is None:
            return
        field = complaints.reasoning_field(self._conversation)
        if asked.exclude:
            self._refuse("include_reasoning" if field == "include_reasoning" else f"{field}.exclude")
        if asked.enabled is None and asked.effort is None:
            return
        effort = efforts.effort_of(asked, cap)
        if self._same_wire:
            if asked.enabled is not None:
                kind = "adaptive" if asked.adaptive else "enabled" if asked.enabled else "disabled"
                budget = {} if asked.budget_tokens is None else {"budget_tokens": asked.budget_tokens}
                body["thinking"] = {"type": kind} | budget | asked.extra
            if asked.effort is not None:
                body.setdefault("output_config", {})["effort"] = asked.effort
        elif self._traits.thinking == "none":
            if asked.enabled:
                self._refuse(field)
        elif not asked.enabled:
            body["thinking"] = {"type": "disabled"}
        elif self._traits.thinking == "budget":
            budget_tokens = efforts.budget_of(asked, cap)
            if budget_tokens is None or not efforts.BUDGET_TOKENS_MIN <= budget_tokens < cap:
                self._refuse(field)
            else:
                body["thinking"] = {"type": "enabled", "budget_tokens": budget_tokens}
        else:
            # This wire's lowest effort is `low`.
            wanted = "low" if effort == "minimal" else effort
            accepted = None if wanted is None else efforts.accepted(wanted, self._traits.efforts)
            if effort is not None and accepted is None:
                self._refuse(field)
                return
            body["thinking"] = {"type": "adaptive"}
            if accepted is not None:
                body.setdefault("output_config", {})["effort"] = accepted

    def extras(self, body: dict[str, Any]) -> None:
        for name, raw in self._conversation.extra.items():
            if name in complaints.GATEWAY_FIELDS:
                if self._dialect.extensions:
                    body[name] = raw
            elif self._same_wire:
                if name == "output_config":
                    body["output_config"] = body.get("output_config", {}) | msgspec.json.decode(raw)
                else:
                    body[name] = raw
            elif name not in complaints.CACHE_HINTS and not _idle(name, raw):
                self._refuse(name)


def _idle(name: str, raw: msgspec.Raw) -> bool:
    """A field that asks for what happens anyway."""
    return name == "modalities" and msgspec.json.decode(raw) == ["text"]


def _results_first(block: Any) -> bool:
    return not (isinstance(block, dict) and block.get("type") == "tool_result")  # pyright: ignore[reportUnknownMemberType]


def _mark(cache: CacheMark | None) -> dict[str, Any]:
    if cache is None:
        return {}
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": cache.ttl} if cache.ttl != "5m" else {})}


def _object(text: str) -> msgspec.Raw | None:
    """The text as a JSON object, byte for byte; None when it is none."""
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return msgspec.Raw(text.encode()) if isinstance(value, dict) else None


def _schema(schema: bytes | None) -> bytes:
    """A schema's root must say that it is an object; clients of other wires may leave that out, or the schema altogether."""
    if schema is None:
        return EMPTY_SCHEMA
    fields = msgspec.json.decode(schema, type=dict[str, msgspec.Raw])
    return schema if "type" in fields else msgspec.json.encode({"type": "object"} | fields)


def _decoded(data: str) -> str | None:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
