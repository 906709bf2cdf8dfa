"""Writes an answer on the Anthropic Messages wire. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

from farebox.simulator.answer import Event
from farebox.simulator.dialects import anthropic_usage, spoil
from farebox.simulator.directives import Directives
from farebox.simulator.plan import Finish, Plan, Segment
from farebox.simulator.refusals import Refusal
from farebox.simulator.request import Request
from farebox.simulator.signatures import sign

_FINISH: dict[Finish, str] = {
    "end": "end_turn",
    "stop_sequence": "stop_sequence",
    "limit": "max_tokens",
    "tool": "tool_use",
    "filter": "refusal",
    "refusal": "refusal",
}
_STOP_DETAILS = {
    "type": "refusal",
    "category": "general_harms",
    "explanation": "The simulated model was ordered to refuse.",
}
_encode = msgspec.json.Encoder().encode
DONE = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **fields}))


class MessagesAnswer:
    """See `farebox.simulator.answer.Answer`. This wire has one choice."""

    def __init__(self, plan: Plan, request: Request, orders: Directives, seed: int, id: str, number: int) -> None:
        self._plan = plan
        self._choice = plan.choices[0]
        self._request = request
        self._orders = orders
        self._seed = seed
        self._id = id
        self._number = number

    def _usage(self, output: bool) -> bytes | None:
        return spoil(anthropic_usage(self._plan.usage, output), self._orders.usage)

    def _message(self, content: list[dict[str, Any]], output: bool) -> bytes:
        ended = self._choice.finish if output else None
        fields: dict[str, Any] = {
            "model": self._request.model,
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": None if ended is None else _FINISH[ended],
            "stop_sequence": self._choice.stop_sequence if output else None,
            "stop_details": _STOP_DETAILS if ended in ("refusal", "filter") else None,
        }
        usage = self._usage(output)
        body = _encode(fields)
        if usage is None:
            return body
        pair = b',"usage":' + usage
        return body[:-1] + pair * (2 if output and self._orders.usage == "duplicate" else 1) + b"}"

    def _thought(self, segment: Segment) -> str:
        return "" if self._plan.thinking == "omitted" else segment.text

    def _tool_id(self, at: int) -> str:
        return f"toolu_{self._number:012d}{at:03d}"

    def whole(self) -> bytes:
        content: list[dict[str, Any]] = []
        calls = 0
        for segment in self._choice.segments:
            match segment.kind:
                case "thinking":
                    thought = self._thought(segment)
                    content.append({"type": "thinking", "thinking": thought, "signature": sign(self._seed, thought)})
                case "text" | "refusal":
                    if segment.text:
                        content.append({"type": "text", "text": segment.text})
                case "tool":
                    # Cut by the limit, arguments are no JSON; Anthropic then returns what it could read.
                    whole = self._choice.finish != "limit" or segment is not self._choice.segments[-1]
                    arguments: Any = msgspec.json.decode(segment.text) if whole else {}
                    content.append(
                        {"type": "tool_use", "id": self._tool_id(calls), "name": segment.tool, "input": arguments}
                    )
                    calls += 1
        return self._message(content, output=True)

    def opening(self) -> list[bytes]:
        start = b'event: message_start\ndata: {"type":"message_start","message":' + self._message([], output=False) + b"}\n\n"
        return [start, PING]

    def content(self) -> Iterator[Event]:
        calls = index = 0
        for segment in self._choice.segments:
            if not segment.text and segment.kind in ("text", "refusal"):
                yield from (Event(b"", 1) for _ in segment.tokens)
                continue
            yield from self._block(segment, index, calls)
            calls += segment.kind == "tool"
            index += 1

    def _block(self, segment: Segment, index: int, call: int) -> Iterator[Event]:
        thinking = segment.kind == "thinking"
        match segment.kind:
            case "thinking":
                block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
                delta = b'"thinking_delta","thinking":'
            case "tool":
                block = {"type": "tool_use", "id": self._tool_id(call), "name": segment.tool, "input": {}}
                delta = b'"input_json_delta","partial_json":'
            case "text" | "refusal":
                block = {"type": "text", "text": ""}
                delta = b'"text_delta","text":'
        yield Event(
            _event("content_block_start", {"index": index, "content_block": block}), 1 if segment.kind == "tool" else 0
        )
        head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":' % index + delta
        )
        shown = not (thinking and self._plan.thinking == "omitted")
        for token in segment.tokens:
            data = head + _encode(token) + b"}}\n\n" if shown and token else b""
            yield Event(data, 0, 1) if thinking else Event(data, 1)
        if thinking:
            signature = {"type": "signature_delta", "signature": sign(self._seed, self._thought(segment))}
            yield Event(_event("content_block_delta", {"index": index, "delta": signature}))
        yield Event(_event("content_block_stop", {"index": index}))

    def closing(self) -> list[bytes]:
        finish = self._choice.finish
        delta: dict[str, Any] = {"stop_reason": _FINISH[finish], "stop_sequence": self._choice.stop_sequence}
        if finish in ("refusal", "filter"):
            delta["stop_details"] = _STOP_DETAILS
        usage = self._usage(output=True)
        fields = b'{"type":"message_delta","delta":' + _encode(delta)
        event = b"event: message_delta\ndata: " + fields + (b"" if usage is None else b',"usage":' + usage) + b"}\n\n"
        return [event, event, DONE] if self._orders.usage == "duplicate" else [event, DONE]

    def failure(self, refusal: Refusal) -> bytes:
        return b"event: error\ndata: " + refusal.body("messages", self._id) + b"\n\n"
