"""Anthropic message streams for clients, in the exact order of the API.

`message_start`, then for each block `content_block_start`, its deltas, `content_block_stop`, one block at a time; then
`message_delta` with the stop reason and the usage, and `message_stop`. Only the first choice is told: this wire has one.

A provider may interleave the arguments of several calls. A block is closed when the next one begins, unless it is a call
whose arguments are not yet whole JSON: then the other calls wait, and are told when it is, at the latest at the end.
"""

from typing import Any, assert_never

import msgspec

from farebox.errors import FareboxError
from farebox.wires import finish, sse
from farebox.wires.anthropic_messages import carriage, errors, usage
from farebox.wires.anthropic_messages.blocks import WIRE, write_citation
from farebox.wires.delivered import Delivered
from farebox.wires.neutral import (
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
from farebox.wires.usage import UsageReport

_encode = msgspec.json.Encoder().encode

PING = sse.encode(b'{"type":"ping"}', "ping")
STOP = sse.encode(b'{"type":"message_stop"}', "message_stop")


def _sent(kind: str, fields: dict[str, Any]) -> bytes:
    return sse.encode(_encode({"type": kind} | fields), kind)


class _Call:
    """A tool call, told or waiting."""

    __slots__ = ("pieces", "start")

    def __init__(self, start: ToolStart) -> None:
        self.start = start
        self.pieces: list[str] = []

    def whole(self) -> bool:
        """True when the arguments are complete JSON (nothing at all may still be coming)."""
        try:
            msgspec.json.decode("".join(self.pieces))
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return False
        return True


class Writer:
    """`created` and `include_usage` are the other surface's: this one has no time stamp, and usage always.

    `signer` is whose signatures the client is given in carriages; without one it is given none.
    """

    def __init__(
        self, *, id: str, model: str, provider: str, created: int, include_usage: bool, signer: str = ""
    ) -> None:
        del created, include_usage
        self._id, self._model, self._provider = id, model, provider
        self._signer = signer
        self._carriages: dict[str, str] = {}
        """By the ids of calls that are not told yet."""
        self._begun = False
        self._next = 0
        self._open: str | None = None
        """Kind of the open block: text, thinking (not signed yet), signed thinking, tool or whole."""
        self._detail: int | None = None
        self._call: _Call | None = None
        self._waiting: dict[int, _Call] = {}
        self._block_text: list[str] = []
        self._finish: Finish | None = None
        self._delta_sent = False
        self._refused = False

    def resume(self, delivered: Delivered) -> None:
        """Go on behind what another writer, or a provider, has sent already: an open text block stays open."""
        self._begun = delivered.started
        self._next = delivered.next_block
        self._open = delivered.open_block or None
        self._block_text = [delivered.text] if self._open == "text" else []

    def write(self, event: Event) -> bytes:
        """The events for one neutral event; b"" for what this wire does not say, or says at another place."""
        if isinstance(event, (Start, UsageSeen, StreamError, Done, LogprobsDelta, Ping)):
            return PING if isinstance(event, Ping) and self._begun else b""
        if event.index != 0:
            return b""
        begin = self._begin()
        match event:
            case TextDelta():
                return begin + self._text(event.text)
            case RefusalDelta():
                self._refused = True
                return begin + self._text(event.text)
            case ReasoningDelta():
                out = self._thinking(event.detail)
                return begin + out + self._block_delta({"type": "thinking_delta", "thinking": event.text})
            case ReasoningSignature():
                return begin + self._thinking(event.detail) + self._sign(event.signature) + self._close()
            case RedactedReasoning():
                return begin + self._whole({"type": "redacted_thinking", "data": event.data})
            case ToolStart():
                return begin + self._tool_start(event)
            case ToolSignature():
                self._carry(event.id, event.signature)
                return begin
            case ToolArgumentsDelta():
                return begin + self._arguments(event)
            case CitationDelta():
                out = self._open_text()
                citation = write_citation(event.citation, "".join(self._block_text))
                return begin + out + self._block_delta({"type": "citations_delta", "citation": citation})
            case OpaqueBlock():
                return begin + (self._whole(msgspec.Raw(event.block.raw)) if event.block.wire == WIRE else b"")
            case PartEnd():
                return begin + self._close()
            case Finish():
                self._finish = event
                return begin + self._close_all()
            case _:
                assert_never(event)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "provider": self._provider,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The counts so far, as the API has it; `message_delta` repeats them all, cumulative and final.
            "usage": {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0},
        }
        return _sent("message_start", {"message": message})

    # Blocks, one at a time

    def _start(self, kind: str, block: Any) -> bytes:
        self._open = kind
        self._block_text = []
        return _sent("content_block_start", {"index": self._next, "content_block": block})

    def _block_delta(self, delta: dict[str, Any]) -> bytes:
        return _sent("content_block_delta", {"index": self._next, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        out = self._sign(carriage.UNSIGNED) if self._open == "thinking" else b""
        self._open, self._call = None, None
        self._next += 1
        return out + _sent("content_block_stop", {"index": self._next - 1})

    def _close_all(self) -> bytes:
        """Closes the open block and tells the calls that were waiting for it."""
        out = self._close()
        waiting, self._waiting = list(self._waiting.values()), {}
        for call in waiting:
            out += self._tell(call) + self._close()
        return out

    def _whole(self, block: Any) -> bytes:
        return self._close_all() + self._start("whole", block) + self._close()

    def _open_text(self) -> bytes:
        if self._open == "text":
            return b""
        return self._close_all() + self._start("text", {"type": "text", "text": ""})

    def _text(self, text: str) -> bytes:
        out = self._open_text()
        self._block_text.append(text)
        return out + self._block_delta({"type": "text_delta", "text": text})

    def _thinking(self, detail: int | None) -> bytes:
        if self._open == "thinking" and self._detail == detail:
            return b""
        out = self._close_all() + self._start("thinking", carriage.block(""))
        self._detail = detail
        return out

    def _sign(self, signature: str) -> bytes:
        self._open = "signed"
        return self._block_delta({"type": "signature_delta", "signature": signature})

    def _tell(self, call: _Call) -> bytes:
        block: dict[str, Any] = {"type": "tool_use", "id": call.start.id, "name": call.start.name, "input": {}}
        carried = self._carriages.pop(call.start.id, None)
        out = b"" if carried is None else self._start("thinking", carriage.block("")) + self._sign(carried) + self._close()
        out += self._start("tool", block)
        self._call = call
        if call.pieces and not call.start.custom:
            out += self._block_delta({"type": "input_json_delta", "partial_json": "".join(call.pieces)})
        elif call.pieces:
            out += self._block_delta({"type": "input_json_delta", "partial_json": _custom("".join(call.pieces))})
        return out

    def _carry(self, call: str, signature: str) -> None:
        if self._signer:
            carried = carriage.write(carriage.Carried(self._signer, call, signature))
            if carried is not None:
                self._carriages[call] = carried

    def _tool_start(self, event: ToolStart) -> bytes:
        call = _Call(event)
        if event.signature is not None:
            self._carry(event.id, event.signature)
        # A custom tool's text becomes one JSON object, so it is told when it is whole. A signature may come behind its call, and
        # has to stand before it: some clients lose an answer that ends with thinking.
        waits = event.custom or (self._signer and event.signature is None)
        if waits or (self._call is not None and not self._call.whole()) or self._waiting:
            self._waiting[event.tool] = call
            return b""
        return self._close() + self._tell(call)

    def _arguments(self, event: ToolArgumentsDelta) -> bytes:
        waiting = self._waiting.get(event.tool)
        if waiting is not None:
            waiting.pieces.append(event.text)
            return b""
        if self._call is None or self._call.start.tool != event.tool:
            # The call is closed: its arguments were whole. What comes now is white space or a provider's mistake.
            return b""
        self._call.pieces.append(event.text)
        return self._block_delta({"type": "input_json_delta", "partial_json": event.text})

    # The end

    def usage(self, report: UsageReport, extra: dict[str, msgspec.Raw]) -> bytes:
        """`message_delta`: why it ended and what it used. Unknown counts are left out, since unknown is never zero."""
        reason = self._finish or Finish("stop")
        why = finish.refused(reason.reason) if self._refused else reason.reason
        delta: dict[str, Any] = {
            "stop_reason": finish.to_anthropic(why, reason.native, reason.stop_sequence),
            "stop_sequence": reason.stop_sequence,
        }
        if reason.stop_details:
            delta["stop_details"] = msgspec.Raw(reason.stop_details)
        counts = dict(extra) if report.usage is None else usage.write(report.usage, extra)
        self._delta_sent = True
        return self._begin() + self._close_all() + _sent("message_delta", {"delta": delta, "usage": counts})

    def error(self, error: FareboxError) -> bytes:
        """The stream ends with this event: no `message_stop` follows a failure."""
        return _sent("error", {"error": errors.body_of(error)})

    def done(self) -> bytes:
        return (b"" if self._delta_sent else self.usage(UsageReport(None), {})) + STOP

    def keepalive(self) -> bytes:
        return PING


def _custom(text: str) -> str:
    return _encode({"input": text}).decode()
