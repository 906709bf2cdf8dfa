"""Chat completions: what a client was given so far, read from the chunks that it was sent."""

from typing import Any, cast

import msgspec

from farebox.wires import sse
from farebox.wires.delivered import FINISHED, NOT_TEXT, TOOL_CALL, Delivered

_THINKING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_CALLS = ("tool_calls", "function_call")


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct):
    created: int | float | None = None
    model: str | None = None
    choices: list[_Choice] | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


def read(data: bytes, into: Delivered) -> None:
    """Chunks of a stream with one choice → text, or the reason why it is more than text."""
    decoder = sse.Decoder()
    for event in (*decoder.feed(data), *decoder.end()):
        try:
            chunk = _decode(event.data)
        except msgspec.DecodeError:
            into.refuse(NOT_TEXT)
            return
        if not into.started:
            into.started = True
            into.model, into.created = chunk.model or "", int(chunk.created or 0)
        for choice in chunk.choices or ():
            if choice.delta:
                _delta(choice.delta, into)
            if choice.logprobs:
                into.refuse(NOT_TEXT)
            if choice.finish_reason is not None:
                into.refuse(FINISHED)


def _delta(delta: dict[str, Any], into: Delivered) -> None:
    for name, value in delta.items():
        if not value or name == "role":
            continue
        if name == "content" and isinstance(value, str):
            into.say(value)
        elif name in _THINKING:
            # Providers may show it under several names at once, and some put an empty detail beside text.
            into.thought = into.thought or not isinstance(value, list) or any(cast("list[object]", value))
        else:
            into.refuse(TOOL_CALL if name in _CALLS else NOT_TEXT)
