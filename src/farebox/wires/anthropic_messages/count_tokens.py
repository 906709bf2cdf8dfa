"""Counting tokens: a messages request without `max_tokens` and `stream`, answered by a number."""

import msgspec

from farebox.wires.anthropic_messages import request
from farebox.wires.neutral import Conversation, UpstreamGarbage
from farebox.wires.usage import COUNT_MAX


class _Count(msgspec.Struct):
    input_tokens: int


def to_neutral(fields: dict[str, msgspec.Raw]) -> Conversation:
    """The request to be counted. Raises `FareboxError` (400) naming the path of a wrong value."""
    return request.to_neutral(fields)


def read(body: bytes) -> int:
    """A vendor's answer, in tokens. Raises `UpstreamGarbage`."""
    try:
        count = msgspec.json.decode(body, type=_Count).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamGarbage("the answer has no `input_tokens`") from None
    if not 0 <= count <= COUNT_MAX:
        raise UpstreamGarbage(f"`input_tokens` is {count}")
    return count


def write(input_tokens: int) -> bytes:
    return msgspec.json.encode({"input_tokens": input_tokens})
