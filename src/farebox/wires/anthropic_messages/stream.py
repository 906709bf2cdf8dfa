"""Anthropic message streams. Reading is here; writing for clients is `write_stream`.

The reader follows `content_block_*` by index, merges the two usage reports (last present value per field), takes a second
`message_start` for the repetition that it is, and gives `{}` as the arguments of a call that streamed none.
Blocks of the provider's own tools come out whole, at their end.
"""

from typing import Any, cast

import msgspec

from farebox.wires import failures, finish, sse
from farebox.wires.anthropic_messages import usage
from farebox.wires.anthropic_messages.blocks import WIRE, read_citation
from farebox.wires.anthropic_messages.response import text_of
from farebox.wires.anthropic_messages.write_stream import Writer
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    ANTHROPIC_FORMAT,
    CitationDelta,
    Done,
    Event,
    Finish,
    Opaque,
    OpaqueBlock,
    PartEnd,
    Ping,
    ReasoningDelta,
    ReasoningSignature,
    RedactedReasoning,
    Start,
    StreamError,
    TextDelta,
    ToolArgumentsDelta,
    ToolStart,
    UpstreamError,
    UsageSeen,
)

__all__ = ["Reader", "Writer"]


_NULL = msgspec.Raw(b"null")
"""Absent and null are the same (and `Raw` cannot be optional)."""


class _Message(msgspec.Struct):
    id: Any = None
    model: Any = None
    usage: msgspec.Raw = _NULL


class _Event(msgspec.Struct):
    """Loose on purpose; only the parts that must be looked at are decoded."""

    type: Any = None
    index: Any = None
    message: _Message | None = None
    content_block: Any = None
    delta: Any = None
    usage: msgspec.Raw = _NULL
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class _Block:
    """An open content block."""

    __slots__ = ("arguments", "detail", "kind", "opaque", "opaque_input", "tool")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.tool = 0
        self.detail = 0
        self.arguments = False
        """Whether any arguments were told."""
        self.opaque: dict[str, Any] | None = None
        self.opaque_input: list[str] = []


class Reader:
    """Feed it the body's bytes; see `Event` for what comes out. `finished`: `message_stop` was seen."""

    def __init__(self, dialect: Dialect, *, event_bytes_max: int = sse.EVENT_BYTES_MAX) -> None:
        self.finished = False
        self.malformed = 0
        """Events that were not of this wire and were skipped."""
        self._sse = sse.Decoder(event_bytes_max)
        self._usage = usage.Accumulator(dialect.usage)
        self._blocks: dict[int, _Block] = {}
        self._tools = 0
        self._details = 0
        self._started = False
        self._failed = False

    def feed(self, data: bytes) -> list[Event]:
        return self._take(self._sse.feed(data))

    def end(self) -> list[Event]:
        """The body is over. `Done` was given only if the terminal event came."""
        return self._take(self._sse.end())

    def _take(self, raw: list[sse.ServerSentEvent]) -> list[Event]:
        events: list[Event] = []
        for item in raw:
            if self._failed or self.finished:
                return events
            try:
                self._event(_decode(item.data), item.event, events)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                data = item.data.strip()
                if item.event == "error":
                    self._fail(events, failures.from_value(data.decode("utf-8", "replace")))
                elif data not in (b"", b"[DONE]"):  # some gateways end every stream the same way
                    self.malformed += 1
        if self._sse.too_large and not self._failed and not self.finished:
            self._fail(events, UpstreamError("server", 502, "the provider sent an event larger than the limit"))
        return events

    def _fail(self, events: list[Event], error: UpstreamError) -> None:
        self._failed = True
        events.append(StreamError(error))

    def _event(self, event: _Event, name: str, events: list[Event]) -> None:
        match event.type:
            case "content_block_delta":
                self._delta(event, events)
            case "content_block_start":
                self._start_block(event, events)
            case "content_block_stop":
                self._stop_block(event, events)
            case "message_start":
                self._message_start(event, events)
            case "message_delta":
                self._message_delta(event, events)
            case "message_stop":
                self.finished = True
                events.append(Done())
            case "ping":
                events.append(Ping())
            case "error":
                self._fail(events, failures.from_value({"error": event.error}))
            case _ if event.error or name == "error":
                self._fail(events, failures.from_value({"error": event.error or {}}))
            case kind if not isinstance(kind, str):
                self.malformed += 1
            case _:
                pass  # a kind of event that came later than this code: to be skipped, says the API's versioning

    def _message_start(self, event: _Event, events: list[Event]) -> None:
        message = event.message or _Message()
        if not self._started:
            self._started = True
            events.append(Start(text_of(message.id), text_of(message.model)))
        self._counts(message.usage, events, beginning=True)

    def _counts(self, raw: msgspec.Raw, events: list[Event], *, beginning: bool = False) -> None:
        if self._usage.merge(bytes(raw)):
            events.append(UsageSeen(self._usage.report(), beginning))

    def _message_delta(self, event: _Event, events: list[Event]) -> None:
        self._counts(event.usage, events)
        delta = cast("dict[str, Any]", event.delta) if isinstance(event.delta, dict) else {}
        native = text_of(delta.get("stop_reason"))
        if native is not None:
            details: Any = delta.get("stop_details")
            events.append(
                Finish(
                    finish.from_anthropic(native, with_tools=self._tools > 0),
                    native,
                    text_of(delta.get("stop_sequence")),
                    stop_details=msgspec.json.encode(details) if details else None,
                )
            )

    def _start_block(self, event: _Event, events: list[Event]) -> None:
        if not isinstance(event.content_block, dict) or not isinstance(event.index, int):
            self.malformed += 1
            return
        given = cast("dict[str, Any]", event.content_block)
        kind = text_of(given.get("type")) or "unknown"
        block = self._blocks[event.index] = _Block(kind)
        match kind:
            case "text":
                if text_of(given.get("text")):
                    events.append(TextDelta(given["text"]))
                citations: Any = given.get("citations")
                for citation in cast("list[Any]", citations) if isinstance(citations, list) else []:
                    if isinstance(citation, dict):
                        events.append(CitationDelta(read_citation(cast("dict[str, Any]", citation))))
            case "thinking":
                block.detail = self._next_detail()
                if text_of(given.get("thinking")):
                    events.append(ReasoningDelta(given["thinking"], format=ANTHROPIC_FORMAT, detail=block.detail))
                if text_of(given.get("signature")):
                    events.append(ReasoningSignature(given["signature"], format=ANTHROPIC_FORMAT, detail=block.detail))
            case "redacted_thinking":
                data = text_of(given.get("data")) or ""
                events.append(RedactedReasoning(data, format=ANTHROPIC_FORMAT, detail=self._next_detail()))
            case "tool_use":
                block.tool, self._tools = self._tools, self._tools + 1
                name = text_of(given.get("name")) or ""
                events.append(ToolStart(block.tool, text_of(given.get("id")) or f"toolu_{block.tool}", name))
                whole: Any = given.get("input")
                if whole:  # a gateway that sends calls in one piece
                    block.arguments = True
                    events.append(ToolArgumentsDelta(block.tool, msgspec.json.encode(whole).decode()))
            case _:
                block.opaque = given

    def _next_detail(self) -> int:
        self._details += 1
        return self._details - 1

    def _delta(self, event: _Event, events: list[Event]) -> None:
        block = self._blocks.get(event.index) if isinstance(event.index, int) else None
        if block is None or not isinstance(event.delta, dict):
            self.malformed += 1
            return
        delta = cast("dict[str, Any]", event.delta)
        match delta.get("type"):
            case "text_delta":
                if text_of(delta.get("text")):
                    events.append(TextDelta(delta["text"]))
            case "thinking_delta":
                if text_of(delta.get("thinking")):
                    events.append(ReasoningDelta(delta["thinking"], format=ANTHROPIC_FORMAT, detail=block.detail))
            case "signature_delta":
                if text_of(delta.get("signature")):
                    events.append(ReasoningSignature(delta["signature"], format=ANTHROPIC_FORMAT, detail=block.detail))
            case "input_json_delta":
                text = text_of(delta.get("partial_json"))
                if text is None:
                    pass
                elif block.opaque is not None:
                    block.opaque_input.append(text)
                else:
                    block.arguments = True
                    events.append(ToolArgumentsDelta(block.tool, text))
            case "citations_delta":
                if isinstance(delta.get("citation"), dict):
                    events.append(CitationDelta(read_citation(cast("dict[str, Any]", delta["citation"]))))
            case _:
                pass  # later kinds of delta, e.g. compaction

    def _stop_block(self, event: _Event, events: list[Event]) -> None:
        block = self._blocks.pop(event.index, None) if isinstance(event.index, int) else None
        if block is None:
            self.malformed += 1
            return
        if block.kind == "tool_use" and not block.arguments:
            events.append(ToolArgumentsDelta(block.tool, "{}"))
        if block.opaque is None:
            events.append(PartEnd())
            return
        if block.opaque_input:
            text = "".join(block.opaque_input)
            try:
                msgspec.json.decode(text)
                block.opaque["input"] = msgspec.Raw(text.encode())
            except (msgspec.DecodeError, UnicodeEncodeError):
                self.malformed += 1
        events.append(OpaqueBlock(Opaque(WIRE, block.kind, msgspec.json.encode(block.opaque))))
