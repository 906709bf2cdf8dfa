"""The messages of an OpenAI chat request: turns, parts, tool calls and their answers, earlier thinking.

Translations that keep the meaning are made without complaint:

- a failed tool call has no mark on this wire, so its text says "Error: ";
- tool messages hold text only, so an image in a tool's answer follows in a user message that names the call;
- a plain-text document becomes text under its title;
- thinking signed by another provider is left out, because nobody but its signer can read it;
- a call goes with its signature to the model that signed it, and to no other;
- to a model that takes no unsigned call, one goes with the vendor's placeholder for calls that another model made.
"""

from typing import Any, cast

import msgspec

from farebox.wires.complaints import Target
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Audio,
    CacheMark,
    Conversation,
    Document,
    Image,
    Message,
    ModelTraits,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    SystemBlock,
    Text,
    ToolResult,
    ToolUse,
)
from farebox.wires.openai_chat import signatures
from farebox.wires.openai_chat.parts import WIRE, mark, write_cache, write_detail
from farebox.wires.tool_ids import ToolIds

DOCUMENT_NAME = "document.pdf"
"""OpenAI wants a file name; other wires do not always have one."""


class MessagesWriter(Target):
    """Writes `messages`; what cannot be said is refused by its path."""

    def __init__(
        self, conversation: Conversation, dialect: Dialect, traits: ModelTraits, unsupported: list[str], *, model: str
    ) -> None:
        super().__init__(WIRE, conversation, dialect, traits, unsupported)
        self._ids = ToolIds(dialect.tool_call_id_pattern)
        self._signed_calls = signatures.wanted(dialect.signed_calls, model)

    def messages(self) -> list[dict[str, Any]]:
        written = self._system()
        for message in self.conversation.messages:
            if message.role == "assistant":
                written.append(self._assistant(message))
            elif message.role == "system":
                written.append({"role": "system", "content": self._content(message.parts)} | self._name(message))
            else:
                written.extend(self._user(message))
        return written

    def _system(self) -> list[dict[str, Any]]:
        groups: dict[int, list[SystemBlock]] = {}
        for block in self.conversation.system:
            groups.setdefault(block.group, []).append(block)
        written: list[dict[str, Any]] = []
        for blocks in groups.values():
            role = "developer" if blocks[0].developer and self.dialect.developer_role else "system"
            marked = self.dialect.cache_control and any(block.cache for block in blocks)
            if len(blocks) > 1 and not (self.same_wire or marked):
                written.append({"role": role, "content": "\n\n".join(block.text for block in blocks)})
            else:
                written.append({"role": role, "content": self._content(tuple(Text(b.text, b.cache) for b in blocks))})
        return written

    def _name(self, message: Message) -> dict[str, str]:
        if message.name is None:
            return {}
        if not self.dialect.message_name:
            self.refuse(f"{message.path}.name")
            return {}
        return {"name": message.name}

    def _user(self, message: Message) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        rest: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                written.append(self._tool_message(part, rest))
            else:
                rest.append(part)
        if rest or not written:
            written.append({"role": "user", "content": self._content(tuple(rest))} | self._name(message))
        return written

    def _tool_message(self, result: ToolResult, attached: list[Part]) -> dict[str, Any]:
        texts: list[Text] = []
        for part in result.parts:
            if isinstance(part, Text):
                texts.append(part)
            elif self.same_wire:
                return self._tool_body(result, self._content(result.parts))
            else:
                if not any(isinstance(p, Text) and p.text == _attachment(result) for p in attached):
                    attached.append(Text(_attachment(result)))
                attached.append(part)
        if self.same_wire and len(texts) > 1:
            return self._tool_body(result, self._content(tuple(texts)))
        text = "\n".join(part.text for part in texts)
        if result.is_error and not text.lower().startswith("error"):
            text = f"Error: {text}"
        cache = (texts[-1].cache if texts else None) or result.cache
        return self._tool_body(result, text, cache)

    def _tool_body(self, result: ToolResult, content: Any, cache: CacheMark | None = None) -> dict[str, Any]:
        if cache and self.dialect.cache_control and isinstance(content, str):
            content = [{"type": "text", "text": content, "cache_control": write_cache(cache)}]
        return {"role": "tool", "tool_call_id": self._ids.mapped(result.id), "content": content}

    def _assistant(self, message: Message) -> dict[str, Any]:
        thinking = [part for part in message.parts if isinstance(part, Reasoning)]
        calls = self._calls([part for part in message.parts if isinstance(part, ToolUse)])
        body: list[Part] = []
        fields: dict[str, Any] = {}
        for part in message.parts:
            if isinstance(part, Refusal):
                fields["refusal"] = part.text
            elif isinstance(part, Opaque) and part.wire == WIRE and part.kind in ("audio", "function_call"):
                fields.update(msgspec.json.decode(part.raw))
            elif not isinstance(part, (Reasoning, ToolUse)):
                body.append(part)
        content: Any
        if all(isinstance(part, Text) for part in body) and not (self.same_wire and len(body) > 1) and not self._marked(body):
            # Pieces of one answer, cut where a wire attached its citations: they join without a seam.
            content = "".join(part.text for part in body if isinstance(part, Text)) if body else None
        else:
            content = self._content(tuple(body))
        written: dict[str, Any] = {"role": "assistant", "content": content or None if calls or fields else content or ""}
        self._echo(written, thinking, bool(calls))
        if calls:
            written["tool_calls"] = calls
        return written | fields | self._name(message)

    def _marked(self, parts: list[Part]) -> bool:
        return self.dialect.cache_control and any(isinstance(part, Text) and part.cache for part in parts)

    def _echo(self, written: dict[str, Any], thinking: list[Reasoning], with_calls: bool) -> None:
        """Earlier thinking, in the vendor's form. Signed thinking goes only where details are understood."""
        reply = self.dialect.reasoning_reply
        if reply == "reasoning_details":
            if thinking:
                written["reasoning_details"] = [write_detail(part, i) for i, part in enumerate(thinking)]
            return
        text = "".join(part.text for part in thinking if not part.signed)
        if reply == "content_list":
            if text:
                said: Any = written["content"]
                pieces = cast("list[Any]", said) if isinstance(said, list) else [{"type": "text", "text": said}] if said else []
                written["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *pieces]
        elif reply in ("reasoning_content", "reasoning") and text:
            written[reply] = text
        if self.dialect.reasoning_echo_required and with_calls and "reasoning_content" not in written:
            written["reasoning_content"] = " "

    def _calls(self, parts: list[ToolUse]) -> list[dict[str, Any]]:
        written = [self._tool_call(part) for part in parts]
        if self._signed_calls:
            for at in signatures.unsigned(["extra_content" in call for call in written]):
                written[at].update(signatures.PLACEHOLDER)
        return written

    def _tool_call(self, part: ToolUse) -> dict[str, Any]:
        extra: dict[str, Any] = dict(part.extra)
        if extra and not self.same_wire:
            for name in extra:
                self.refuse(f"{part.path}.{name}")
            extra = {}
        if part.signature is not None and "extra_content" not in extra and self._reads(part):
            extra |= signatures.members(part.signature)
        inner = {"name": part.name, "input" if part.custom else "arguments": part.arguments}
        kind = "custom" if part.custom else "function"
        return {"id": self._ids.mapped(part.id), "type": kind, kind: inner} | extra

    def _reads(self, part: ToolUse) -> bool:
        """Whether the target signed this call; a client of this wire sends the signature itself, as it does everything."""
        return self.same_wire or (bool(part.signer) and part.signer == self.traits.signer)

    def _content(self, parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
        if not parts:
            return ""
        if len(parts) == 1 and isinstance(parts[0], Text) and not (parts[0].cache and self.dialect.cache_control):
            return parts[0].text
        return [written for part in parts if (written := self._part(part)) is not None]

    def _part(self, part: Part) -> Any:
        match part:
            case Text():
                return {"type": "text", "text": part.text} | mark(part.cache, self.dialect)
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case Audio():
                inner: Any = part.data if part.format is None else {"data": part.data, "format": part.format}
                return {"type": "input_audio", "input_audio": inner}
            case Refusal():
                return {"type": "refusal", "refusal": part.text}
            case Opaque():
                if part.wire == WIRE:
                    return msgspec.Raw(part.raw)
                self.refuse_part(part.path, part.kind)
                return None
            case ToolUse() | ToolResult() | Reasoning():
                raise AssertionError(f"{type(part).__name__} is written by its message")

    def _image(self, part: Image) -> dict[str, Any] | None:
        if part.file_id is not None:
            self.refuse_part(part.path, "image file")
            return None
        url = part.url if part.url is not None else f"data:{part.media_type or ''};base64,{part.data}"
        inner = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": inner} | mark(part.cache, self.dialect)

    def _document(self, part: Document) -> dict[str, Any] | None:
        if part.citations:
            self.refuse(f"{part.path}.citations")
        if part.text is not None:
            heading = "\n\n".join(piece for piece in (part.name, part.context, part.text) if piece)
            return {"type": "text", "text": heading} | mark(part.cache, self.dialect)
        if part.context is not None:
            self.refuse(f"{part.path}.context")
        if part.url is not None and self.same_wire:
            named = {} if part.name is None else {"document_name": part.name}
            return {"type": "document_url", "document_url": part.url} | named
        if not self.dialect.pdf or part.url is not None or part.blocks is not None or (part.file_id and not self.same_wire):
            self.refuse_part(part.path, "file" if self.same_wire else "document")
            return None
        name = part.name or (None if self.same_wire else DOCUMENT_NAME)
        inner: dict[str, Any] = {} if name is None else {"filename": name}
        if part.file_id is not None:
            inner["file_id"] = part.file_id
        else:
            inner["file_data"] = part.data if part.media_type is None else f"data:{part.media_type};base64,{part.data}"
        return {"type": "file", "file": inner} | mark(part.cache, self.dialect)


def _attachment(result: ToolResult) -> str:
    return f"Attached to the result of tool call {result.id}:"
