"""Messages: what a client was given so far, read from the events that it was sent."""

from typing import Any

import msgspec

from farebox.wires import sse
from farebox.wires.delivered import FINISHED, NOT_TEXT, TOOL_CALL, Delivered


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: dict[str, msgspec.Raw] | None = None
    content_block: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_any = msgspec.json.Decoder().decode
_THINKING = ("thinking", "redacted_thinking")


def read(data: bytes, into: Delivered) -> None:
    """Events → text, and the block that stands open; or the reason why it is more than text."""
    decoder = sse.Decoder()
    for item in (*decoder.feed(data), *decoder.end()):
        try:
            event = _decode(item.data)
        except msgspec.DecodeError:
            into.refuse(NOT_TEXT)
            return
        match event.type:
            case "content_block_delta":
                _delta(event.delta or {}, into)
            case "content_block_start":
                _start(event, into)
            case "content_block_stop":
                into.open_block = ""
                into.next_block = event.index + 1
            case "message_start":
                into.started = True
                model: Any = _decode_any(event.message["model"]) if event.message and "model" in event.message else ""
                into.model = model if isinstance(model, str) else ""
            case "message_delta" | "message_stop":
                into.refuse(FINISHED)
            case _:
                pass


def _start(event: _Event, into: Delivered) -> None:
    block = event.content_block or {}
    kind = str(block.get("type"))
    into.open_block = kind
    into.next_block = event.index
    if kind == "text":
        if isinstance(block.get("text"), str):
            into.say(block["text"])
        if block.get("citations"):
            into.refuse(NOT_TEXT)
    elif kind in _THINKING:
        into.thought = True
    else:
        into.refuse(TOOL_CALL if kind.endswith("tool_use") else NOT_TEXT)


def _delta(delta: dict[str, Any], into: Delivered) -> None:
    match delta.get("type"):
        case "text_delta":
            into.say(str(delta.get("text", "")))
        case "thinking_delta" | "signature_delta":
            into.thought = True
        case "input_json_delta":
            into.refuse(TOOL_CALL)
        case _:
            into.refuse(NOT_TEXT)
