"""Reads an OpenAI chat completion request as strictly as OpenAI does. Pure."""

from typing import Literal

import msgspec

from farebox.simulator import chat_request as shape
from farebox.simulator.dialects import Dialect
from farebox.simulator.refusals import Refusal, complaint
from farebox.simulator.request import (
    AUDIO_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    PDF_TOKENS,
    Block,
    Request,
    Tool,
    text_tokens,
)

STOPS_MAX = 4
_EMPTY_SCHEMA = msgspec.Raw(b"{}")

_decode_strict = msgspec.json.Decoder(shape.ChatRequest).decode
_decode_lenient = msgspec.json.Decoder(shape.LenientRequest).decode


def read(body: bytes, dialect: Dialect) -> Request:
    """Raises `Refusal` in OpenAI's words."""
    try:
        asked = _decode_strict(body) if dialect.strict else _decode_lenient(body)
    except msgspec.ValidationError as error:
        raise complaint(error, "chat") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(
            400, "We could not parse the JSON body of your request. The request body must be valid JSON."
        ) from None
    _check(asked, dialect)
    tools = tuple(
        Tool(spec.function.name, spec.function.parameters) for spec in asked.tools or () if spec.function is not None
    )
    effort = asked.reasoning_effort not in (None, "none")
    if isinstance(asked, shape.LenientRequest):
        effort = effort or bool(asked.enable_thinking) or (asked.thinking is not None and asked.thinking.type == "enabled")
    prefill = _prefill(asked)
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Request(
        wire="chat",
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=asked.stream_options is not None and asked.stream_options.include_usage,
        blocks=_blocks(asked),
        body_bytes=len(body),
        prefill=prefill,
        prefill_blocks=0 if not prefill else 1 + len(_content_blocks(asked.messages[-1].content)),
        limit=asked.max_completion_tokens or asked.max_tokens,
        choices=asked.n or 1,
        tools=tools,
        tool_choice=_choice(asked, tools),
        parallel=asked.parallel_tool_calls is not False,
        after_tool_results=isinstance(asked.messages[-1], (shape.ToolResult, shape.FunctionResult)),
        thinking="off" if not effort else "shown" if dialect.reasoning_shown else "counted",
        instance_of=_instance_of(asked),
        stops=tuple(stop for stop in stops if stop),
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )


def _prefill(asked: shape.ChatRequest) -> str:
    """The last turn's text, where the caller says that the model is to go on with it; OpenAI's models never do."""
    last = asked.messages[-1]
    if not isinstance(asked, shape.LenientRequest) or not isinstance(last, shape.Assistant):
        return ""
    if not (last.prefix or last.partial or asked.continue_final_message) or last.tool_calls:
        return ""
    return b"".join(block.content for block in _content_blocks(last.content)).decode()


def _instance_of(asked: shape.ChatRequest) -> msgspec.Raw | None:
    form = asked.response_format
    if form is None or form.type == "text":
        return None
    return form.json_schema.schema if form.json_schema is not None else _EMPTY_SCHEMA


def _choice(asked: shape.ChatRequest, tools: tuple[Tool, ...]) -> Literal["auto", "none", "required"] | Tool:
    choice = asked.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    if choice.function is not None:
        for tool in tools:
            if tool.name == choice.function.name:
                return tool
        name = choice.function.name
        raise Refusal(
            400, f"Invalid value for 'tool_choice': function '{name}' not found in 'tools'.", param="tool_choice",
            code="invalid_value",
        )  # fmt: skip
    mode = (choice.allowed_tools or {}).get("mode", "auto")
    return "required" if mode == "required" else "auto"


def _content_blocks(content: shape.Content | None) -> list[Block]:
    if content is None:
        return []
    if isinstance(content, str):
        data = content.encode()
        return [Block(data, text_tokens(len(data)))]
    blocks: list[Block] = []
    for part in content:
        match part:
            case shape.Text():
                data = part.text.encode()
                blocks.append(Block(data, text_tokens(len(data))))
            case shape.Refused():
                data = part.refusal.encode()
                blocks.append(Block(data, text_tokens(len(data))))
            case shape.Image():
                blocks.append(Block(part.image_url.url.encode(), IMAGE_TOKENS, media=True))
            case shape.Audio():
                blocks.append(Block(part.input_audio.data.encode(), 0, audio_tokens=AUDIO_TOKENS))
            case shape.File():
                blocks.append(Block((part.file.file_data or part.file.file_id or "").encode(), PDF_TOKENS, media=True))
    return blocks


def _blocks(asked: shape.ChatRequest) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for spec in asked.tools or ():
        if spec.function is not None:
            text = f"{spec.function.name}{spec.function.description or ''}".encode() + bytes(spec.function.parameters)
        else:
            text = bytes(spec.custom)
        blocks.append(Block(text, text_tokens(len(text))))
    for message in asked.messages:
        head = f"<{type(message).__struct_config__.tag}>".encode()
        blocks.append(Block(head, MESSAGE_TOKENS))
        blocks.extend(_content_blocks(message.content))
        if isinstance(message, shape.Assistant):
            for call in message.tool_calls or ():
                text = b"" if call.function is None else (call.function.name + call.function.arguments).encode()
                blocks.append(Block(text, text_tokens(len(text))))
            thought = (message.reasoning_content or "").encode()
            if thought:
                blocks.append(Block(thought, text_tokens(len(thought))))
    return tuple(blocks)


def _check(asked: shape.ChatRequest, dialect: Dialect) -> None:
    if not asked.messages:
        raise Refusal(
            400, "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages", code="empty_array",
        )  # fmt: skip
    if asked.max_tokens is not None and asked.max_completion_tokens is not None and dialect.strict:
        raise Refusal(
            400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens", code="invalid_parameter_combination",
        )  # fmt: skip
    if asked.stream_options is not None and not asked.stream:
        raise Refusal(
            400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options",
        )  # fmt: skip
    if asked.top_logprobs is not None and not asked.logprobs:
        raise Refusal(
            400, "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs"
        )
    if isinstance(asked.stop, list) and len(asked.stop) > STOPS_MAX:
        raise Refusal(
            400, f"Invalid 'stop': array too long. Expected an array with maximum length {STOPS_MAX}, "
            f"but got an array with length {len(asked.stop)} instead.", param="stop", code="array_above_max_length",
        )  # fmt: skip
    if asked.tool_choice not in (None, "none", "auto") and not asked.tools:
        raise Refusal(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    for at, spec in enumerate(asked.tools or ()):
        if spec.type not in ("function", "custom"):
            raise Refusal(
                400, f"Invalid value: '{spec.type}'. Supported values are: 'function' and 'custom'.",
                param=f"tools[{at}].type", code="invalid_value",
            )  # fmt: skip
        if spec.type == "function" and spec.function is None:
            name = f"tools[{at}].function"
            raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if asked.response_format is not None:
        _check_format(asked, asked.response_format)
    _check_turns(asked, dialect)


def _check_format(asked: shape.ChatRequest, form: shape.Format) -> None:
    if form.type == "json_schema" and form.json_schema is None:
        name = "response_format.json_schema"
        raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if form.type == "json_object":
        said = b" ".join(block.content for block in _blocks(asked)).lower()
        if b"json" not in said:
            raise Refusal(
                400, "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                param="messages",
            )  # fmt: skip


def _check_turns(asked: shape.ChatRequest, dialect: Dialect) -> None:
    """Tool results answer the calls of the turn before them, all of them and nothing else."""
    thinking = isinstance(asked, shape.LenientRequest) and asked.thinking is not None and asked.thinking.type == "enabled"
    open_calls: list[str] = []
    called = False
    for at, message in enumerate(asked.messages):
        if isinstance(message, shape.ToolResult):
            if not called:
                raise Refusal(
                    400, "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.", param=f"messages.[{at}].role",
                )  # fmt: skip
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
            continue
        _all_answered(open_calls, at)
        called = isinstance(message, shape.Assistant) and bool(message.tool_calls)
        if isinstance(message, shape.Assistant):
            open_calls = [call.id for call in message.tool_calls or ()]
            if message.content is None and not open_calls and message.refusal is None:
                raise Refusal(
                    400, f"Invalid value for 'content': expected a string, got null. - 'messages.[{at}].content'",
                    param=f"messages.[{at}].content",
                )  # fmt: skip
            if called and thinking and dialect.echo_required and message.reasoning_content is None:
                raise Refusal(
                    400, f"Missing `reasoning_content` field in the assistant message at message index {at}.",
                    code="invalid_request_error",
                )  # fmt: skip
    _all_answered(open_calls, len(asked.messages))


def _all_answered(open_calls: list[str], at: int) -> None:
    if open_calls:
        raise Refusal(
            400, "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
            f"The following tool_call_ids did not have response messages: {', '.join(open_calls)}",
            param=f"messages.[{at}].role",
        )  # fmt: skip
