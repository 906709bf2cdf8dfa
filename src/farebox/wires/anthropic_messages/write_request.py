"""The neutral conversation → an Anthropic messages request.

What the wire, the vendor or the model cannot take is named in `unsupported` by the client's own field names and left out.
The turns are written by `write_messages`; here are tools and settings.
"""

from typing import Any

import msgspec

from farebox.errors import invalid
from farebox.wires import complaints, efforts
from farebox.wires.anthropic_messages.blocks import WIRE, mark
from farebox.wires.anthropic_messages.write_messages import MessagesWriter
from farebox.wires.complaints import Target
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import Conversation, CustomTool, FunctionTool, ModelTraits, Opaque, Tool

TEMPERATURE_MAX = 1
TOP_P_THINKING_MIN = 0.95
EMPTY_SCHEMA = b'{"type":"object","properties":{}}'


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
    """The upstream body. `output_cap` replaces the client's own; this wire needs one of them, else `FareboxError` (400).

    `traits` None takes the model for a current one.
    """
    cap = conversation.params.output_cap if output_cap is None else output_cap
    if cap is None:
        raise invalid("`max_tokens` is missing; this model needs a bound on its output.", param="max_tokens")
    known = traits or ModelTraits()
    turns = MessagesWriter(conversation, dialect, known, unsupported)
    body: dict[str, Any] = {"model": model, "max_tokens": cap}
    messages, later = turns.messages()
    system = turns.system(later)
    if system:
        body["system"] = system
    body["messages"] = messages
    if stream:
        body["stream"] = True
    settings = _Settings(WIRE, conversation, dialect, known, unsupported)
    settings.tools(body)
    settings.params(body)
    settings.reasoning(body, cap)
    settings.extras(body)
    return msgspec.json.encode(body)


class _Settings(Target):
    def tools(self, body: dict[str, Any]) -> None:
        tools = self.conversation.tools
        if tools:
            written = [tool for tool in (self._tool(tool) for tool in tools) if tool is not None]
            if written:
                body["tools"] = written
        choice, parallel = self.conversation.tool_choice, self.conversation.params.parallel_tools
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
                    self.refuse("tool_choice")
        elif parallel is False:
            written_choice = {"type": "auto"}
        if written_choice is None or not (body.get("tools") or self.same_wire):
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
                block["input_schema"] = msgspec.Raw(tool.schema if self.same_wire and tool.schema else _schema(tool.schema))
                where = tool.path if self.same_wire else f"{tool.path}.function"
                if tool.strict is not None and self.dialect.tool_strict:
                    block["strict"] = tool.strict
                elif tool.strict:
                    self.refuse(f"{where}.strict")
                if self.same_wire:
                    block.update(tool.extra)
                else:
                    for name in tool.extra:
                        self.refuse(f"{where}.{name}")
                return block | mark(tool.cache)
            case CustomTool():
                self.refuse_part(tool.path, "custom")
                return None
            case Opaque():
                if tool.wire == WIRE:
                    return msgspec.Raw(tool.raw)
                self.refuse_part(tool.path, tool.kind)
                return None

    def params(self, body: dict[str, Any]) -> None:
        params = self.conversation.params
        hottest = min(TEMPERATURE_MAX, self.dialect.temperature_max)
        for name, value in (("temperature", params.temperature), ("top_p", params.top_p), ("top_k", params.top_k)):
            if value is None:
                continue
            if not self.traits.sampling or (name == "temperature" and value > hottest):
                self.refuse(name)
            else:
                body[name] = value
        if params.stop is not None:
            if not self.dialect.stop or any(not text.strip() for text in params.stop):
                self.refuse(self.field("stop"))
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
                self.refuse(name)
        self._response_format(body)
        metadata: dict[str, Any] = {} if params.user is None else {"user_id": params.user}
        if params.metadata is not None:
            if self.same_wire:
                metadata |= msgspec.json.decode(params.metadata)
            else:
                self.refuse("metadata")
        if metadata:
            body["metadata"] = metadata
        tier = params.service_tier
        if tier is not None and not self.same_wire:
            # OpenAI's `default` is Anthropic's `standard_only`; its other tiers have no counterpart.
            tier = {"auto": "auto", "default": "standard_only"}.get(tier)
            if tier is None:
                self.refuse("service_tier")
        if tier is not None:
            body["service_tier"] = tier

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.conversation.params.response_format
        if wanted is None or wanted.kind == "text":
            return
        if wanted.schema is None or not self.dialect.json_schema:
            self.refuse(self.field("response_format"))
            return
        body["output_config"] = {"format": {"type": "json_schema", "schema": msgspec.Raw(wanted.schema)}}

    def reasoning(self, body: dict[str, Any], cap: int) -> None:
        asked = self.conversation.params.reasoning
        if asked is None:
            return
        field = self.reasoning_field()
        if asked.exclude:
            self.refuse("include_reasoning" if field == "include_reasoning" else f"{field}.exclude")
        if asked.enabled is None and asked.effort is None:
            return
        effort = efforts.effort_of(asked, cap)
        if self.same_wire:
            if asked.enabled is not None:
                kind = "adaptive" if asked.adaptive else "enabled" if asked.enabled else "disabled"
                budget = {} if asked.budget_tokens is None else {"budget_tokens": asked.budget_tokens}
                body["thinking"] = {"type": kind} | budget | asked.extra
            if asked.effort is not None:
                body.setdefault("output_config", {})["effort"] = asked.effort
        elif self.traits.thinking == "none":
            if asked.enabled:
                self.refuse(field)
        elif not asked.enabled:
            body["thinking"] = {"type": "disabled"}
        elif self.traits.thinking == "budget":
            budget_tokens = efforts.budget_of(asked, cap)
            if budget_tokens is None or not efforts.BUDGET_TOKENS_MIN <= budget_tokens < cap:
                self.refuse(field)
            else:
                body["thinking"] = {"type": "enabled", "budget_tokens": budget_tokens}
                self._while_thinking(body)
        else:
            # This wire's lowest effort is `low`.
            wanted = "low" if effort == "minimal" else effort
            accepted = None if wanted is None else efforts.accepted(wanted, self.traits.efforts)
            if effort is not None and accepted is None:
                self.refuse(field)
                return
            body["thinking"] = {"type": "adaptive"}
            if accepted is not None:
                body.setdefault("output_config", {})["effort"] = accepted
            self._while_thinking(body)

    def _while_thinking(self, body: dict[str, Any]) -> None:
        """What Claude does not take while it thinks (https://platform.claude.com/docs/en/build-with-claude/extended-thinking)."""
        if body.get("temperature", 1) != 1:
            self._leave_out(body, "temperature")
        if body.get("top_p", 1) < TOP_P_THINKING_MIN:
            self._leave_out(body, "top_p")
        if "top_k" in body:
            self._leave_out(body, "top_k")
        turns = body["messages"]
        if turns and turns[-1]["role"] == "assistant":
            self.refuse(f"{self.conversation.messages[-1].path} (assistant message last)")
            turns.pop()
        if body["thinking"]["type"] == "adaptive":
            return
        choice = body.get("tool_choice", {})
        if choice.get("type") in ("any", "tool"):
            self.refuse("tool_choice")
            parallel = choice.get("disable_parallel_tool_use")
            body["tool_choice"] = {"type": "auto"} | ({} if parallel is None else {"disable_parallel_tool_use": parallel})
        if _lost_thinking(turns):
            # Most clients of other wires do not send thinking back; the turn it began can only go on without.
            self.refuse(self.reasoning_field())
            del body["thinking"]

    def _leave_out(self, body: dict[str, Any], name: str) -> None:
        self.refuse(name)
        del body[name]

    def extras(self, body: dict[str, Any]) -> None:
        for name, raw in self.conversation.extra.items():
            if name in complaints.GATEWAY_FIELDS:
                if self.dialect.extensions and name not in complaints.ROUTING_FIELDS:
                    body[name] = raw
            elif self.same_wire:
                if name == "output_config":
                    body["output_config"] = body.get("output_config", {}) | msgspec.json.decode(raw)
                else:
                    body[name] = raw
            elif name not in complaints.CACHE_HINTS and not _idle(name, raw):
                self.refuse(name)


def _lost_thinking(turns: list[dict[str, Any]]) -> bool:
    """Whether the turns end with results of tools, and the turn that called them does not begin with its thinking."""
    if len(turns) < 2 or turns[-1]["content"][0].get("type") != "tool_result":
        return False
    return turns[-2]["content"][0].get("type") not in ("thinking", "redacted_thinking")


def _idle(name: str, raw: msgspec.Raw) -> bool:
    """A field that asks for what happens anyway."""
    return name == "modalities" and msgspec.json.decode(raw) == ["text"]


def _schema(schema: bytes | None) -> bytes:
    """A schema's root must say that it is an object; clients of other wires may leave that out, or the schema altogether."""
    if schema is None:
        return EMPTY_SCHEMA
    fields = msgspec.json.decode(schema, type=dict[str, msgspec.Raw])
    return schema if "type" in fields else msgspec.json.encode({"type": "object"} | fields)
