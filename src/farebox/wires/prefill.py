"""Prefill: a request whose last turn is the answer so far, for the model to go on with. Shared by the wires.

The request is the one that would have been sent without it, already in the target's words (`bridge.outgoing`); only its last
turn, and what says that this turn is to be continued, are added. A client that began the answer itself (its last turn is the
assistant's) keeps that beginning in front.
"""

from typing import Any, cast

import msgspec

Fields = dict[str, msgspec.Raw]

_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_messages = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_message = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


class CannotContinue(Exception):
    """The request's last turn is no beginning of a text."""


def fields_of(body: bytes) -> tuple[Fields, list[msgspec.Raw]]:
    """A request's fields and its messages."""
    fields = _decode_fields(body)
    return fields, _decode_messages(fields["messages"])


def own_beginning(body: bytes) -> str:
    """The text with which the client began the answer: "" when its last turn is not the assistant's."""
    _, messages = fields_of(body)
    last = _decode_message(messages[-1])
    if last.get("role") != "assistant":
        return ""
    return _text(last)


def _text(message: dict[str, Any]) -> str:
    content: Any = message.get("content")
    if message.get("tool_calls") or message.get("function_call"):
        raise CannotContinue("its last turn calls a tool")
    if isinstance(content, str):
        return content
    pieces: list[str] = []
    for part in cast("list[Any]", content) if isinstance(content, list) else [None]:
        fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        if fields.get("type") != "text" or not isinstance(fields.get("text"), str):
            raise CannotContinue("its last turn is more than text")
        pieces.append(fields["text"])
    return "".join(pieces)


def with_last_turn(body: bytes, text: str, marks: dict[str, Any]) -> Fields:
    """The request's fields with `text` as the assistant's last turn; `marks` are further members of that turn.

    `text` begins with the client's own beginning, if there is one: its turn is replaced.
    """
    fields, messages = fields_of(body)
    turn: dict[str, Any] = {"role": "assistant"}
    if own_beginning(body):
        turn = _decode_message(messages.pop())
    turn |= {"content": text} | marks
    fields["messages"] = msgspec.Raw(_encode([*messages, msgspec.Raw(_encode(turn))]))
    return fields


def encode(fields: Fields) -> bytes:
    return _encode(fields)
