"""The turns of an Anthropic messages request and its instructions.

Translations that keep the meaning are made without complaint:

- instructions go to `system`, also those given later (a same-wire client's stay in place);
- turns of one role are merged and a user turn begins with its tool results, as the API demands;
- empty text blocks, which the API refuses, are left out;
- thinking that the target did not sign is left out, because only its signer can read it; so are signatures of calls.
"""

import base64
import binascii
from typing import Any

import msgspec

from farebox.wires.anthropic_messages.blocks import WIRE, mark, write_citation, write_thinking
from farebox.wires.complaints import Target
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Audio,
    Conversation,
    Document,
    Image,
    ModelTraits,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolResult,
    ToolUse,
)
from farebox.wires.tool_ids import ToolIds

TOOL_ID_PATTERN = r"[a-zA-Z0-9_-]+"
"""What Anthropic accepts as the id of a tool call."""
_PDF_START = "JVBERi0"
"""Base64 of `%PDF-`, for files that come without a media type."""


class MessagesWriter(Target):
    """Writes `messages` and `system`; what cannot be said is refused by its path."""

    def __init__(self, conversation: Conversation, dialect: Dialect, traits: ModelTraits, unsupported: list[str]) -> None:
        super().__init__(WIRE, conversation, dialect, traits, unsupported)
        self._ids = ToolIds(dialect.tool_call_id_pattern or TOOL_ID_PATTERN)

    def system(self, later: list[Text]) -> str | list[dict[str, Any]]:
        texts = [Text(b.text, b.cache) for b in self.conversation.system] + later
        texts = [part for part in texts if part.text]
        if len(texts) == 1 and texts[0].cache is None:
            return texts[0].text
        return [self._text(part) for part in texts]

    def messages(self) -> tuple[list[dict[str, Any]], list[Text]]:
        """The turns, and instructions from the middle of the conversation that have to move to the top."""
        turns: list[dict[str, Any]] = []
        later: list[Text] = []
        for message in self.conversation.messages:
            if message.role == "system" and not self.same_wire:
                later.extend(part for part in message.parts if isinstance(part, Text))
                continue
            if message.name is not None:
                self.refuse(f"{message.path}.name")
            blocks = [block for part in message.parts if (block := self._block(part)) is not None]
            if not blocks:
                continue
            if turns and turns[-1]["role"] == message.role:
                turns[-1]["content"].extend(blocks)
            else:
                turns.append({"role": message.role, "content": blocks})
        for turn in turns:
            if turn["role"] == "user":
                turn["content"].sort(key=_results_first)
        self._check_ends(turns)
        return turns, later

    def _check_ends(self, turns: list[dict[str, Any]]) -> None:
        if not turns:
            self.refuse("messages (no user message)")
        elif turns[0]["role"] == "assistant" and not self.same_wire:
            self.refuse(f"{self.conversation.messages[0].path} (assistant message first)")
            turns.pop(0)
        if turns and turns[-1]["role"] == "assistant" and not self.traits.prefill:
            self.refuse(f"{self.conversation.messages[-1].path} (assistant message last)")
            turns.pop()

    def _block(self, part: Part) -> Any:
        match part:
            case Text():
                return self._text(part) if part.text else None
            case Refusal():
                return {"type": "text", "text": part.text} if part.text else None
            case Reasoning():
                return write_thinking(part) if self._echoed(part) else None
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case ToolUse():
                return self._tool_use(part)
            case ToolResult():
                return self._tool_result(part)
            case Audio():
                self.refuse_part(part.path, "input_audio")
                return None
            case Opaque():
                if part.wire == WIRE:
                    return msgspec.Raw(part.raw)
                self.refuse_part(part.path, part.kind)
                return None

    def _echoed(self, part: Reasoning) -> bool:
        """Whether the target can read this thinking: it signed it, or its own client sent it back as it came."""
        if part.summary:
            return False
        if part.signed:
            return part.format in (self.traits.reasoning_format, None) and self.traits.reasoning_format is not None
        return self.same_wire

    def _text(self, part: Text) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "text", "text": part.text}
        # A citation of another wire has no `encrypted_index`, without which Anthropic refuses it.
        native = [c for c in part.citations if c.wire == WIRE and b'"encrypted_index":""' not in c.raw]
        citations = [write_citation(citation, part.text) for citation in native]
        if citations:
            block["citations"] = citations
        return block | mark(part.cache)

    def _image(self, part: Image) -> dict[str, Any] | None:
        source: dict[str, Any]
        if part.url is not None:
            source = {"type": "url", "url": part.url}
        elif part.file_id is not None:
            source = {"type": "file", "file_id": part.file_id}
        elif part.media_type is None:
            self.refuse_part(part.path, "image without a media type")
            return None
        else:
            source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "image", "source": source} | mark(part.cache)

    def _document(self, part: Document) -> dict[str, Any] | None:
        source = self._document_source(part)
        if source is None:
            return None
        block: dict[str, Any] = {"type": "document", "source": source}
        if part.name is not None:
            block["title"] = part.name
        if part.context is not None:
            block["context"] = part.context
        if part.citations:
            block["citations"] = {"enabled": True}
        return block | mark(part.cache)

    def _document_source(self, part: Document) -> dict[str, Any] | None:
        if part.text is not None:
            return {"type": "text", "media_type": "text/plain", "data": part.text}
        if part.blocks is not None:
            return {"type": "content", "content": msgspec.Raw(part.blocks)}
        if part.url is not None:
            return {"type": "url", "url": part.url}
        if part.file_id is not None:
            if self.same_wire:
                return {"type": "file", "file_id": part.file_id}
            self.refuse_part(part.path, "file_id")
            return None
        data = part.data or ""
        media_type = part.media_type or ("application/pdf" if data.startswith(_PDF_START) else None)
        if media_type == "application/pdf" and self.dialect.pdf:
            return {"type": "base64", "media_type": media_type, "data": data}
        text = _decoded(data) if (media_type or "").startswith("text/") else None
        if text is not None:
            return {"type": "text", "media_type": "text/plain", "data": text}
        self.refuse_part(part.path, f"file of type {media_type or 'unknown'}")
        return None

    def _tool_use(self, part: ToolUse) -> dict[str, Any] | None:
        if part.custom:
            self.refuse_part(part.path, "custom tool call")
            return None
        if not self.same_wire:
            for name in part.extra:
                self.refuse(f"{part.path}.{name}")
        given = _object(part.arguments or "{}")
        if given is None:
            self.refuse_part(part.path, "arguments that are not a JSON object")
            return None
        block = {"type": "tool_use", "id": self._ids.mapped(part.id), "name": part.name, "input": given}
        return block | (part.extra if self.same_wire else {}) | mark(part.cache)

    def _tool_result(self, part: ToolResult) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._ids.mapped(part.id)}
        written = [inner for piece in part.parts if (inner := self._block(piece)) is not None]
        plain = len(part.parts) == 1 and isinstance(part.parts[0], Text) and part.parts[0].cache is None
        block["content"] = part.parts[0].text if plain and isinstance(part.parts[0], Text) else written
        if part.is_error:
            block["is_error"] = True
        return block | mark(part.cache)


def _results_first(block: Any) -> bool:
    return not (isinstance(block, dict) and block.get("type") == "tool_result")  # pyright: ignore[reportUnknownMemberType]


def _object(text: str) -> msgspec.Raw | None:
    """The text as a JSON object, byte for byte; None when it is none."""
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return msgspec.Raw(text.encode()) if isinstance(value, dict) else None


def _decoded(data: str) -> str | None:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
