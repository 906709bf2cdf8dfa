"""Chat completion streams for clients: one chunk per event, in the order that the official SDKs expect.

The first delta of a choice carries the role; tool calls keep one index each; thinking is written both as `reasoning_content`,
for clients that show it, and as `reasoning_details`, for those that echo it. The finish chunk has an empty delta, the usage
chunk no choices, and `[DONE]` comes last. After an error nothing else comes.
"""

from typing import Any, assert_never

import msgspec

from farebox.errors import FareboxError
from farebox.wires import finish, sse
from farebox.wires.delivered import Delivered
from farebox.wires.neutral import (
    ANTHROPIC_FORMAT,
    CitationDelta,
    Done,
    Event,
    Finish,
    LogprobsDelta,
    OpaqueBlock,
    PartEnd,
    Ping,
    ReasoningDelta,
    ReasoningSignature,
    RedactedReasoning,
    RefusalDelta,
    Start,
    StreamError,
    TextDelta,
    ToolArgumentsDelta,
    ToolSignature,
    ToolStart,
    UsageSeen,
)
from farebox.wires.openai_chat import errors, signatures, usage
from farebox.wires.openai_chat.parts import WHOLE, WIRE, write_annotation
from farebox.wires.openai_chat.response import shows
from farebox.wires.usage import UsageReport

DONE = b"data: [DONE]\n\n"
KEEPALIVE = sse.comment("FAREBOX PROCESSING")

_encode = msgspec.json.Encoder().encode
_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _ChoiceState:
    __slots__ = (
        "annotations",
        "begun",
        "block_start",
        "custom",
        "logprobs",
        "stretch",
        "stretch_key",
        "stretch_open",
        "text_length",
    )

    def __init__(self) -> None:
        self.begun = False
        self.custom: set[int] = set()
        self.logprobs: bytes | None = None
        self.text_length = 0
        self.annotations = 0
        self.block_start = 0
        self.stretch = -1
        self.stretch_key: object = None
        self.stretch_open = False


class Writer:
    """`id`, `model`, `provider` and `created` (Unix seconds) stand in every chunk."""

    def __init__(self, *, id: str, model: str, provider: str, created: int, include_usage: bool) -> None:
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "provider": provider}
        self._head = b"data: " + _encode(head)[:-1] + b","
        self._include_usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._choices: dict[int, _ChoiceState] = {}

    def resume(self, delivered: Delivered) -> None:
        """Go on behind what another writer, or a provider, has sent already."""
        state = self._choice(0)
        state.begun = delivered.started
        state.text_length = delivered.size

    def _choice(self, index: int) -> _ChoiceState:
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _ChoiceState()
        return state

    def _chunk(self, index: int, delta: bytes, reason: str | None = None, native: str | None = None) -> bytes:
        """`delta` holds the members of the delta object, without its braces."""
        state = self._choice(index)
        if not state.begun:
            state.begun = True
            delta = b'"role":"assistant"' + (b"," + delta if delta else b"")
        logprobs, state.logprobs = state.logprobs or b"null", None
        end = b"null" if reason is None else _encode(reason)
        if native is not None:
            end += b',"native_finish_reason":' + _encode(native)
        return b'%b"choices":[{"index":%d,"delta":{%b},"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head, index, delta, logprobs, end, self._tail,
        )  # fmt: skip

    def write(self, event: Event) -> bytes:
        """The chunk for an event; b"" for what this wire does not say, or says at another place."""
        match event:
            case TextDelta():
                self._choice(event.index).text_length += len(event.text)
                return self._chunk(event.index, b'"content":' + _encode(event.text))
            case ReasoningDelta():
                return self._reasoning(event)
            case ReasoningSignature():
                detail = {"type": "reasoning.text", "text": "", "signature": event.signature}
                return self._detail(event, False, detail, event.format or ANTHROPIC_FORMAT, closes=True)
            case RedactedReasoning():
                detail = {"type": "reasoning.encrypted", "data": event.data}
                return self._detail(event, None, detail, event.format, closes=True)
            case ToolStart():
                return self._tool_start(event)
            case ToolSignature():
                # The official SDKs want a function in every delta of a call.
                return self._tool_delta(event.tool, event.index, "", signatures.members(event.signature))
            case ToolArgumentsDelta():
                return self._tool_delta(event.tool, event.index, event.text, {})
            case RefusalDelta():
                return self._chunk(event.index, b'"refusal":' + _encode(event.text))
            case CitationDelta():
                state = self._choice(event.index)
                if not shows(event.citation):
                    return b""
                # The official SDKs join the entries of a list by their `index`.
                annotation = _decode_map(_encode(write_annotation(event.citation, state.block_start, state.text_length)))
                annotation["index"] = msgspec.Raw(b"%d" % state.annotations)
                state.annotations += 1
                return self._chunk(event.index, b'"annotations":' + _encode([annotation]))
            case LogprobsDelta():
                self._choice(event.index).logprobs = event.raw
                return b""
            case Finish():
                return self._chunk(event.index, b"", finish.TO_OPENAI[event.reason], event.native)
            case OpaqueBlock():
                if event.block.wire == WIRE and event.block.kind in WHOLE:
                    return self._chunk(event.index, event.block.raw[1:-1])
                return b""
            case PartEnd():
                state = self._choice(event.index)
                state.block_start = state.text_length
                state.stretch_open = False
                return b""
            case Start() | UsageSeen() | StreamError() | Done() | Ping():
                return b""
            case _:
                assert_never(event)

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        if event.summary:
            detail = {"type": "reasoning.summary", "summary": event.text}
        else:
            detail = {"type": "reasoning.text", "text": event.text}
        plain = b'"reasoning_content":' + _encode(event.text) + b","
        return self._detail(event, event.summary, detail, event.format, before=plain)

    def _detail(
        self,
        event: ReasoningDelta | ReasoningSignature | RedactedReasoning,
        summary: bool | None,
        detail: dict[str, Any],
        format: str | None,
        *,
        closes: bool = False,
        before: bytes = b"",
    ) -> bytes:
        """One entry of `reasoning_details`. Entries of one stretch share an `index`, by which clients join them.

        A new stretch begins when the upstream's number or kind changes, or the last one is closed. `format` and `id` stand in
        its first entry only, because joining means concatenating strings.
        """
        state = self._choice(event.index)
        key = (event.detail, summary)
        if not state.stretch_open or state.stretch_key != key:
            state.stretch += 1
            state.stretch_key = key
            if format is not None:
                detail["format"] = format
            if event.id is not None:
                detail["id"] = event.id
        state.stretch_open = not closes
        detail["index"] = state.stretch
        return self._chunk(event.index, before + b'"reasoning_details":' + _encode([detail]))

    def _tool_delta(self, tool: int, index: int, text: str, more: dict[str, Any]) -> bytes:
        custom = tool in self._choice(index).custom
        inner = {"custom": {"input": text}} if custom else {"function": {"arguments": text}}
        return self._chunk(index, b'"tool_calls":' + _encode([{"index": tool} | inner | more]))

    def _tool_start(self, event: ToolStart) -> bytes:
        kind, inner = "function", {"name": event.name, "arguments": ""}
        if event.custom:
            self._choice(event.index).custom.add(event.tool)
            kind, inner = "custom", {"name": event.name, "input": ""}
        call: dict[str, Any] = {"index": event.tool, "id": event.id, "type": kind, kind: inner}
        if event.signature is not None:
            call |= signatures.members(event.signature)
        return self._chunk(event.index, b'"tool_calls":' + _encode([call]))

    def usage(self, report: UsageReport, extra: dict[str, msgspec.Raw]) -> bytes:
        """The usage chunk, if the client asked for it and the counts are known."""
        if not self._include_usage or report.usage is None:
            return b""
        return self._head + b'"choices":[],"usage":' + _encode(usage.write(report.usage, extra)) + b"}\n\n"

    def error(self, error: FareboxError) -> bytes:
        """The stream ends with this chunk: no `[DONE]` follows a failure."""
        choice = b'"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"error"}]}\n\n'
        return self._head + b'"error":' + _encode(errors.body_of(error)) + b"," + choice

    def done(self) -> bytes:
        return DONE

    def keepalive(self) -> bytes:
        return KEEPALIVE
