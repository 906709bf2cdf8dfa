"""Reads an Anthropic Messages request as strictly as Anthropic does, signatures of thinking included. Pure."""

from typing import Literal

import msgspec

from farebox.simulator import messages_request as shape
from farebox.simulator.refusals import Refusal, complaint
from farebox.simulator.request import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    PDF_TOKENS,
    Block,
    Request,
    Tool,
    Ttl,
    text_tokens,
)
from farebox.simulator.signatures import is_signed

CACHE_MARKS_MAX = 4

_decode_request = msgspec.json.Decoder(shape.MessagesRequest).decode
_decode_count = msgspec.json.Decoder(shape.CountRequest).decode
_encode = msgspec.json.Encoder().encode


def read(body: bytes, seed: int) -> Request:
    """`POST /messages`. Raises `Refusal` in Anthropic's words."""
    try:
        asked = _decode_request(body)
    except msgspec.ValidationError as error:
        raise _complaint(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    _check_thinking(asked, seed)
    choice = asked.tool_choice
    tools = _tools(asked)
    thinking = asked.thinking
    stops = asked.stop_sequences or []
    if any(not stop.strip() for stop in stops):
        raise Refusal(400, "stop_sequences: each stop sequence must contain non-whitespace")
    blocks = _prompt(asked)
    prefill = _prefill(asked.messages[-1])
    if prefill != prefill.rstrip():
        raise Refusal(400, "messages: final assistant content cannot end with trailing whitespace")
    if prefill and thinking is not None and thinking.type != "disabled":
        raise Refusal(400, f"messages.{len(asked.messages) - 1}.content.0.type: Expected `thinking`, but found `text`.")
    form = None if asked.output_config is None else asked.output_config.format
    return Request(
        wire="messages",
        model=asked.model,
        stream=asked.stream,
        include_usage=True,
        blocks=blocks,
        body_bytes=len(body),
        prefill=prefill,
        prefill_blocks=0 if not prefill else 1 + len(_content(asked.messages[-1].content, len(asked.messages) - 1)),
        limit=asked.max_tokens,
        tools=tools,
        tool_choice=_choice(choice, tools),
        parallel=choice is None or not choice.disable_parallel_tool_use,
        after_tool_results=_brings_results(asked.messages[-1]),
        thinking="off"
        if thinking is None or thinking.type == "disabled"
        else "omitted"
        if thinking.display == "omitted"
        else "shown",
        thinking_limit=None if thinking is None else thinking.budget_tokens,
        instance_of=None if form is None else form.schema,
        stops=tuple(stops),
    )


def read_count(body: bytes) -> Request:
    """`POST /messages/count_tokens`: only its prompt matters."""
    try:
        asked = _decode_count(body)
    except msgspec.ValidationError as error:
        raise _complaint(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    return Request(wire="messages", model=asked.model, blocks=_prompt(asked), body_bytes=len(body))


def _complaint(error: msgspec.ValidationError) -> Refusal:
    text = str(error)
    if text.startswith("Invalid enum value 'system'") and ".role" in text:
        return Refusal(
            400, 'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as '
            "an input message role.",
        )  # fmt: skip
    return complaint(error, "messages")


def _tools(asked: shape.CountRequest) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for at, spec in enumerate(asked.tools or ()):
        if spec.type not in (None, "custom"):
            continue
        if not bytes(spec.input_schema):
            raise Refusal(400, f"tools.{at}.custom.input_schema: Field required")
        schema = msgspec.json.decode(spec.input_schema)
        if not isinstance(schema, dict):
            raise Refusal(400, f"tools.{at}.custom.input_schema: Input should be a valid dictionary")
        if "type" not in schema:
            raise Refusal(400, f"tools.{at}.custom.input_schema.type: Field required")
        if schema["type"] != "object":
            raise Refusal(400, f"tools.{at}.custom.input_schema.type: Input should be 'object'")
        tools.append(Tool(spec.name, spec.input_schema))
    return tuple(tools)


def _choice(choice: shape.ToolChoice | None, tools: tuple[Tool, ...]) -> Literal["auto", "none", "required"] | Tool:
    if choice is None or choice.type == "auto":
        return "auto"
    if choice.type == "none":
        return "none"
    if not tools:
        raise Refusal(400, "tool_choice may only be specified while providing tools")
    if choice.type == "any":
        return "required"
    for tool in tools:
        if tool.name == choice.name:
            return tool
    raise Refusal(400, f"Tool '{choice.name}' not found in provided tools")


def _ttl(mark: shape.CacheControl | None) -> Ttl | None:
    return None if mark is None else mark.ttl


def _text(text: str, cache: Ttl | None = None) -> Block:
    data = text.encode()
    return Block(data, text_tokens(len(data)), cache=cache)


def _source_block(source: shape.Source, tokens: int, cache: Ttl | None) -> Block:
    if source.type in ("text", "content"):
        return _text((source.data or "") + bytes(source.content).decode(), cache)
    return Block((source.data or source.url or source.file_id or "").encode(), tokens, media=True, cache=cache)


def _content(content: str | list[shape.AnyBlock], at: int) -> list[Block]:
    if isinstance(content, str):
        return [_text(content)]
    blocks: list[Block] = []
    for block in content:
        match block:
            case shape.Text():
                if not block.text:
                    raise Refusal(400, "messages: text content blocks must be non-empty")
                blocks.append(_text(block.text, _ttl(block.cache_control)))
            case shape.Image():
                blocks.append(_source_block(block.source, IMAGE_TOKENS, _ttl(block.cache_control)))
            case shape.Document():
                blocks.append(_source_block(block.source, PDF_TOKENS, _ttl(block.cache_control)))
            case shape.SearchResult():
                blocks.append(_text("".join(part.text for part in block.content), _ttl(block.cache_control)))
            case shape.ToolUse():
                blocks.append(_text(block.name + _encode(block.input).decode(), _ttl(block.cache_control)))
            case shape.ToolResult():
                inner = [_text(block.content)] if isinstance(block.content, str) else _content(list(block.content), at)
                blocks.extend(inner)
                if block.cache_control is not None:
                    blocks.append(Block(b"", 0, cache=block.cache_control.ttl))
            case shape.Thinking():
                blocks.append(_text(block.thinking))
            case shape.RedactedThinking():
                blocks.append(_text(block.data))
    return blocks


def _prompt(asked: shape.CountRequest) -> tuple[Block, ...]:
    """The prompt in cache order; refuses what no turn order allows."""
    _check_turns(asked.messages)
    blocks: list[Block] = []
    for spec in asked.tools or ():
        blocks.append(
            _text(spec.name + spec.description + bytes(spec.input_schema).decode(), _ttl(spec.cache_control))
        )
    if isinstance(asked.system, str):
        blocks.append(_text(asked.system))
    elif asked.system is not None:
        for part in asked.system:
            if not part.text:
                raise Refusal(400, "system: text content blocks must be non-empty")
            blocks.append(_text(part.text, _ttl(part.cache_control)))
    for at, message in enumerate(asked.messages):
        blocks.append(Block(f"<{message.role}>".encode(), MESSAGE_TOKENS))
        blocks.extend(_content(message.content, at))
    if asked.cache_control is not None:
        # A mark on the request itself stands for one at the end of the prompt.
        blocks.append(Block(b"", 0, cache=asked.cache_control.ttl))
    marks = [block.cache for block in blocks if block.cache is not None]
    if len(marks) > CACHE_MARKS_MAX:
        raise Refusal(400, f"A maximum of {CACHE_MARKS_MAX} blocks with cache_control may be provided. Found {len(marks)}.")
    if "5m" in marks and "1h" in marks[marks.index("5m") :]:
        raise Refusal(
            400, "cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block."
        )
    return tuple(blocks)


def _prefill(message: shape.Message) -> str:
    """The text that the model is to go on with: the last turn's, if it is the assistant's and nothing but text."""
    if message.role != "assistant":
        return ""
    if isinstance(message.content, str):
        return message.content
    return "".join(block.text for block in message.content if isinstance(block, shape.Text))


def _brings_results(message: shape.Message) -> bool:
    return not isinstance(message.content, str) and any(isinstance(block, shape.ToolResult) for block in message.content)


def _check_turns(messages: list[shape.Message]) -> None:
    if not messages:
        raise Refusal(400, "messages: at least one message is required")
    if messages[0].role != "user":
        raise Refusal(400, 'messages: first message must use the "user" role')
    open_ids: list[str] = []
    for at, message in enumerate(messages):
        if not message.content and not (at == len(messages) - 1 and message.role == "assistant"):
            raise Refusal(
                400, f"messages.{at}: all messages must have non-empty content except for the optional final assistant message"
            )
        blocks = [] if isinstance(message.content, str) else message.content
        results = [block.tool_use_id for block in blocks if isinstance(block, shape.ToolResult)]
        for result in results:
            if result not in open_ids:
                raise Refusal(
                    400, f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {result}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
                )  # fmt: skip
        _all_answered(open_ids, results, at)
        open_ids = [block.id for block in blocks if isinstance(block, shape.ToolUse)]
    _all_answered(open_ids, [], len(messages))


def _all_answered(open_ids: list[str], results: list[str], at: int) -> None:
    missing = [id for id in open_ids if id not in results]
    if missing:
        raise Refusal(
            400, f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        )  # fmt: skip


def _check_thinking(asked: shape.MessagesRequest, seed: int) -> None:
    """Thinking comes back signed and untouched; in a tool loop it must come back."""
    config = asked.thinking
    if config is not None and config.type == "enabled":
        if config.budget_tokens is None:
            raise Refusal(400, "thinking.enabled.budget_tokens: Field required")
        if config.budget_tokens >= asked.max_tokens:
            raise Refusal(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
        if asked.tool_choice is not None and asked.tool_choice.type in ("any", "tool"):
            raise Refusal(400, "Thinking may not be enabled when tool_choice forces tool use.")
    for at, message in enumerate(asked.messages):
        if isinstance(message.content, str):
            continue
        for number, block in enumerate(message.content):
            if isinstance(block, shape.Thinking) and not is_signed(seed, block.thinking, block.signature):
                raise Refusal(400, f"messages.{at}.content.{number}: Invalid `signature` in `thinking` block")
    if config is None or config.type != "enabled" or not _brings_results(asked.messages[-1]):
        return
    at = len(asked.messages) - 2
    turn = asked.messages[at].content
    first = turn[0] if not isinstance(turn, str) and turn else None
    if not isinstance(first, shape.Thinking | shape.RedactedThinking):
        found = "text" if first is None else first.__struct_config__.tag
        raise Refusal(
            400, f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{found}`. When "
            "`thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost "
            "set of `tool_use` and `tool_result` blocks).",
        )  # fmt: skip
