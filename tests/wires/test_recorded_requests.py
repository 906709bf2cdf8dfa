"""Requests that people really sent: read, written back on the same wire, and translated to the other."""

import dataclasses
from types import ModuleType
from typing import Any

import msgspec
import pytest

from farebox.errors import FareboxError
from farebox.wires.anthropic_messages import request as messages
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import Conversation
from farebox.wires.openai_chat import request as chat

SENT_WRONG = ("anthropic-completion-error-0", "test-custom-llm-within-crew-0")
"""Two clients that sent a malformed body on purpose; the vendor answered 400, and so do we."""


def read(recording: Any) -> tuple[ModuleType, Conversation]:
    wire = chat if recording.chat else messages
    try:
        return wire, wire.to_neutral(recording.fields)
    except FareboxError:
        assert recording.status == 400 and any(name in recording.name for name in SENT_WRONG)
        pytest.skip("sent wrong on purpose")


IDLE = ("path", "group", "output_cap_field", "index")


def meaning(value: Any) -> Any:
    """The conversation without what has none: where the client put a part, and how it grouped its instructions."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, msgspec.Struct):
        names = [name for name in value.__struct_fields__ if name not in IDLE]
        return type(value).__name__, {name: meaning(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [meaning(item) for item in value]
    if isinstance(value, dict):
        return {name: meaning(item) for name, item in value.items()}
    return value


@dataclasses.dataclass
class Written:
    body: dict[str, msgspec.Raw]
    unsupported: list[str]


def write(wire: ModuleType, conversation: Conversation, dialect: Dialect) -> Written:
    unsupported: list[str] = []
    cap = 4096 if conversation.params.output_cap is None and wire is messages else None
    body = wire.from_neutral(conversation, model="target", stream=False, output_cap=cap, dialect=dialect, unsupported=unsupported)
    return Written(msgspec.json.decode(body, type=dict[str, msgspec.Raw]), unsupported)


EVERYTHING = Dialect(cache_control=True, extensions=True, reasoning_request="openrouter", reasoning_reply="reasoning_details")
"""A dialect of chat completions that can say everything the surface can."""


def test_same_wire_round_trip_keeps_the_meaning(recorded_request: Any) -> None:
    wire, conversation = read(recorded_request)
    if recorded_request.request["messages"] == [{"role": "user", "content": ""}]:
        pytest.skip("an empty message, which the vendor refused")
    written = write(wire, conversation, EVERYTHING)
    assert written.unsupported == []
    again = wire.to_neutral(written.body)
    left, right = meaning(conversation), meaning(again)
    if wire is messages and conversation.params.output_cap is None:
        right[1]["params"][1]["output_cap"] = None
    for side in (left, right):  # said in OpenRouter's words, whatever the client's
        if wire is chat and side[1]["params"][1]["reasoning"] is not None:
            side[1]["params"][1]["reasoning"] = None
        for name in ("provider", "models", "route"):  # read by routing, which tells a gateway behind us its own
            side[1]["extra"].pop(name, None)
    assert merged(left) == merged(right)


def merged(conversation: Any) -> Any:
    """Neighbours of one role are one turn on the messages wire, and empty text says nothing."""
    turns: list[Any] = []
    for _, turn in conversation[1]["messages"]:
        parts = [part for part in turn["parts"] if not (part[0] == "Text" and part[1]["text"] == "")]
        if turns and turns[-1][0] == turn["role"]:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append([turn["role"], parts])
    system = [block for block in conversation[1]["system"] if block[1]["text"]]
    return conversation[1] | {"messages": turns, "system": system}


def test_translation_to_the_other_wire_works_or_names_what_it_cannot_say(recorded_request: Any) -> None:
    wire, conversation = read(recorded_request)
    other = messages if wire is chat else chat
    written = write(other, conversation, Dialect())
    known = set(recorded_request.request)
    for name in written.unsupported:
        field = name.split(".")[0].split("[")[0].split(" ")[0]
        assert field in known, f"{name} is not a field of the client's request"
    if not written.unsupported:
        again = other.to_neutral(written.body)
        assert texts(again) == texts(conversation)
        assert calls(again) == calls(conversation)
        assert answered(again) == answered(conversation)


def texts(conversation: Conversation) -> str:
    """All text, without white space, which joining blocks may change, and in no order: later instructions move to the top."""
    found: list[str] = [block.text for block in conversation.system]
    for message in conversation.messages:
        for part in message.parts:
            for piece in getattr(part, "parts", [part]):
                if type(piece).__name__ == "Text":
                    found.append(piece.text)
    return "".join(sorted("".join("".join(found).split())))


def calls(conversation: Conversation) -> list[tuple[str, Any]]:
    return [
        (part.name, msgspec.json.decode(part.arguments or "{}"))
        for message in conversation.messages
        for part in message.parts
        if type(part).__name__ == "ToolUse"
    ]


def answered(conversation: Conversation) -> list[int]:
    """For each tool result, which call it answers: ids may be mapped, but they still meet."""
    made = [part.id for message in conversation.messages for part in message.parts if type(part).__name__ == "ToolUse"]
    results = [part.id for message in conversation.messages for part in message.parts if type(part).__name__ == "ToolResult"]
    return [made.index(id) if id in made else -1 for id in results]
