"""The neutral conversation → an OpenAI chat request, in one vendor's dialect.

What the wire or the vendor cannot take is named in `unsupported` by the client's own field names and left out of the body.
The messages are written by `write_messages`; here are tools and settings.
"""

from typing import Any

import msgspec

from farebox.wires import complaints, efforts
from farebox.wires.complaints import Target
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import Conversation, CustomTool, FunctionTool, ModelTraits, Opaque, Tool
from farebox.wires.openai_chat.parts import WIRE, mark
from farebox.wires.openai_chat.write_messages import MessagesWriter


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
    known = traits or ModelTraits()
    cap = conversation.params.output_cap if output_cap is None else output_cap
    messages = MessagesWriter(conversation, dialect, known, unsupported, model=model).messages()
    body: dict[str, Any] = {"model": model, "messages": messages}
    if stream:
        body["stream"] = True
        if dialect.stream_usage_option:
            body["stream_options"] = {"include_usage": True}
    settings = _Settings(WIRE, conversation, dialect, known, unsupported)
    settings.tools(body)
    settings.params(body, cap)
    settings.reasoning(body, cap)
    settings.extras(body)
    return msgspec.json.encode(body)


class _Settings(Target):
    def tools(self, body: dict[str, Any]) -> None:
        tools = self.conversation.tools
        if tools is not None:
            written = [tool for tool in (self._tool(tool) for tool in tools) if tool is not None]
            if written or self.same_wire:
                body["tools"] = written
        choice = self.conversation.tool_choice
        if choice is not None and (body.get("tools") or self.same_wire):
            if choice.mode == "named":
                kind = "custom" if choice.custom else "function"
                body["tool_choice"] = {"type": kind, kind: {"name": choice.name}}
            elif choice.mode == "allowed":
                body["tool_choice"] = msgspec.Raw(choice.allowed or b"null")
            elif choice.mode != "required":
                body["tool_choice"] = choice.mode
            elif self.dialect.tool_choice_required == "unsupported":
                self.refuse("tool_choice")
            else:
                body["tool_choice"] = self.dialect.tool_choice_required
        parallel = self.conversation.params.parallel_tools
        # True is the default everywhere; said only when the client of this wire said it. Without tools, false is refused.
        if parallel is not None and (self.same_wire or (not parallel and body.get("tools"))):
            body["parallel_tool_calls"] = parallel

    def _tool(self, tool: Tool) -> Any:
        match tool:
            case FunctionTool():
                inner: dict[str, Any] = {"name": tool.name}
                if tool.description is not None:
                    inner["description"] = tool.description
                if tool.schema is not None:
                    inner["parameters"] = msgspec.Raw(tool.schema)
                where = f"{tool.path}.function" if self.same_wire else tool.path
                if tool.strict is not None and self.dialect.tool_strict:
                    inner["strict"] = tool.strict
                elif tool.strict:
                    self.refuse(f"{where}.strict")
                if self.same_wire:
                    inner.update(tool.extra)
                else:
                    for name in tool.extra:
                        self.refuse(f"{where}.{name}")
                return {"type": "function", "function": inner} | mark(tool.cache, self.dialect)
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
                self.refuse_part(tool.path, tool.kind)
                return None

    def params(self, body: dict[str, Any], cap: int | None) -> None:
        params, dialect = self.conversation.params, self.dialect
        if cap is not None:
            body[self._cap_field()] = cap
        for name, value in (("temperature", params.temperature), ("top_p", params.top_p)):
            if value is None:
                continue
            if not self.traits.sampling or (name == "temperature" and value > dialect.temperature_max):
                self.refuse(name)
            else:
                body[name] = value
        if params.top_k is not None:
            if self.same_wire or dialect.extensions:
                body["top_k"] = params.top_k
            else:
                self.refuse("top_k")
        if params.stop is not None:
            if not dialect.stop or len(params.stop) > dialect.stop_max:
                self.refuse(self.field("stop"))
            else:
                body["stop"] = list(params.stop)
        if params.seed is not None:
            if dialect.seed_field == "unsupported":
                self.refuse("seed")
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
                self.refuse(name)
        self._response_format(body)
        if params.user is not None:
            body["user"] = params.user
        if params.metadata is not None:
            if self.same_wire:
                body["metadata"] = msgspec.Raw(params.metadata)
            else:
                self.refuse("metadata")
        tier = params.service_tier
        if tier is not None and not self.same_wire:
            # Anthropic's `auto` is what happens anyway; `standard_only` is OpenAI's `default`.
            tier = {"auto": None, "standard_only": "default"}.get(tier, tier)
        if tier is not None:
            body["service_tier"] = tier

    def _cap_field(self) -> str:
        field = self.dialect.output_limit_field
        if field != "as_sent":
            return field
        sent = self.conversation.params.output_cap_field
        return sent if self.same_wire and sent is not None else "max_completion_tokens"

    def _response_format(self, body: dict[str, Any]) -> None:
        wanted = self.conversation.params.response_format
        if wanted is None:
            return
        if wanted.kind != "json_schema":
            body["response_format"] = {"type": wanted.kind}
            return
        if not self.dialect.json_schema:
            self.refuse(self.field("response_format"))
            return
        inner: dict[str, Any] = {}
        if wanted.name is not None or not self.same_wire:
            inner["name"] = wanted.name or "response"
        if wanted.description is not None:
            inner["description"] = wanted.description
        if wanted.schema is not None:
            inner["schema"] = msgspec.Raw(wanted.schema)
        if wanted.strict is not None:
            inner["strict"] = wanted.strict
        body["response_format"] = {"type": "json_schema", "json_schema": inner}

    def reasoning(self, body: dict[str, Any], cap: int | None) -> None:
        asked = self.conversation.params.reasoning
        if asked is None:
            return
        field = self.reasoning_field()
        way = self.dialect.reasoning_request
        if way == "openrouter":
            body["reasoning"] = self._openrouter(asked.effort, asked.budget_tokens, asked.enabled, asked.exclude) | asked.extra
            return
        if asked.exclude and self.dialect.reasoning_reply != "none":
            self.refuse("include_reasoning" if field == "include_reasoning" else f"{field}.exclude")
        if asked.enabled is None and asked.effort is None:
            return
        if self.traits.thinking == "none" or way == "none":
            if asked.enabled is not False:
                self.refuse(field)
            return
        effort = efforts.effort_of(asked, cap)
        if effort is not None and (effort != "none" or way == "reasoning_effort"):
            accepted = efforts.accepted(effort, self.traits.efforts)
            if accepted is None:
                self.refuse(field)
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
        for name, raw in self.conversation.extra.items():
            if name in complaints.GATEWAY_FIELDS:
                if self.dialect.extensions and name not in complaints.ROUTING_FIELDS:
                    body[name] = raw
            elif self.same_wire:
                body[name] = raw
            elif name not in complaints.CACHE_HINTS:
                self.refuse(name)
