"""Chat completion streams. Reading is here; writing for clients is `write_stream`.

The reader takes what real vendors send (providers.md §1.5): chunks without `choices`, without `role`, with `content: null`
or lists; tool calls whole or in pieces, with or without `index` and ids; usage at the end, in every chunk, inside a choice or
in `x_groq`; errors as `event: error` or as an `error` member; text after the finish reason (OpenRouter).

A finish is told when the stream ends, not when its word comes: the word may be repeated, text may follow it, and only then
is it known whether `stop` meant tool calls.
"""

from typing import Any, cast

import msgspec

from farebox.wires import failures, finish, sse
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    CitationDelta,
    Done,
    Event,
    Finish,
    LogprobsDelta,
    Opaque,
    OpaqueBlock,
    Reasoning,
    ReasoningDelta,
    ReasoningSignature,
    RedactedReasoning,
    RefusalDelta,
    Start,
    StreamError,
    Text,
    TextDelta,
    ToolArgumentsDelta,
    ToolSignature,
    ToolStart,
    UpstreamError,
    UsageSeen,
)
from farebox.wires.openai_chat import parts as content
from farebox.wires.openai_chat import response, signatures, usage
from farebox.wires.openai_chat.parts import WIRE
from farebox.wires.openai_chat.response import text_of
from farebox.wires.openai_chat.write_stream import Writer
from farebox.wires.think_tags import Splitter
from farebox.wires.usage import UsageReport

__all__ = ["Reader", "Writer"]

CHOICES_MAX = 128
"""OpenAI's own bound on `n`; chunks for a choice beyond it are malformed."""


_PLAIN = frozenset({"role", "content"})
_NULL = msgspec.Raw(b"null")
"""Absent and null are the same (and `Raw` cannot be optional)."""


class _Chunk(msgspec.Struct):
    """Loose on purpose; only the parts that must be looked at are decoded."""

    id: Any = None
    model: Any = None
    created: Any = None
    service_tier: Any = None
    choices: Any = None
    usage: msgspec.Raw = _NULL
    error: Any = None
    base_resp: Any = None
    x_groq: Any = None
    citations: Any = None
    search_results: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _Tool:
    """One call of a choice, as far as it came."""

    __slots__ = ("custom", "id", "name", "number", "signature", "started", "told_id", "waiting")

    def __init__(self, number: int, custom: bool) -> None:
        self.number = number
        self.custom = custom
        self.id: str | None = None
        self.name = ""
        self.signature: str | None = None
        self.started = False
        self.told_id = ""
        """The id by which the call was told: its own, or one made for it."""
        self.waiting: list[str] = []
        """Arguments that came before the name."""


class _ChoiceState:
    __slots__ = ("by_index", "finished", "last", "native", "reason_seen", "tags", "tools")

    def __init__(self) -> None:
        self.tools: list[_Tool] = []
        self.by_index: dict[int, _Tool] = {}
        self.last: _Tool | None = None
        self.reason_seen: str | None = None
        self.native: str | None = None
        self.finished = False
        self.tags = Splitter()


class Reader:
    """Feed it the body's bytes; see `Event` for what comes out. `finished`: the terminal marker was seen."""

    def __init__(self, dialect: Dialect, *, event_bytes_max: int = sse.EVENT_BYTES_MAX) -> None:
        self.finished = False
        self.malformed = 0
        """Events that were no chunk and were skipped."""
        self._dialect = dialect
        self._sse = sse.Decoder(event_bytes_max)
        self._usage = usage.Accumulator(dialect.usage)
        self._tier: str | None = None
        self._id = "0"
        self._started = False
        self._failed = False
        self._cited = False
        self._choices: dict[int, _ChoiceState] = {}

    def feed(self, data: bytes) -> list[Event]:
        return self._take(self._sse.feed(data))

    def end(self) -> list[Event]:
        """The body is over. Finishes that were waiting are told; `Done` comes only with the marker."""
        events = self._take(self._sse.end())
        if not self.finished and not self._failed:
            self._finish(events)
        return events

    def _take(self, raw: list[sse.ServerSentEvent]) -> list[Event]:
        events: list[Event] = []
        for item in raw:
            if self._failed or self.finished:
                return events
            data = item.data.strip()
            if data == b"[DONE]":
                self._finish(events)
                if not self._failed:
                    self.finished = True
                    events.append(Done())
            elif data:
                self._chunk(data, item.event, events)
        if self._sse.too_large and not self._failed and not self.finished:
            self._fail(events, UpstreamError("server", 502, "the provider sent an event larger than the limit"))
        return events

    def _fail(self, events: list[Event], error: UpstreamError) -> None:
        self._failed = True
        events.append(StreamError(error))

    def _chunk(self, data: bytes, name: str, events: list[Event]) -> None:
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if name == "error":
                self._fail(events, failures.from_value(data.decode("utf-8", "replace")))
            else:
                self.malformed += 1
            return
        if not self._started:
            self._started = True
            self._tier = text_of(chunk.service_tier)
            self._id = text_of(chunk.id) or "0"
            created = chunk.created if isinstance(chunk.created, int) and not isinstance(chunk.created, bool) else None
            events.append(Start(text_of(chunk.id), text_of(chunk.model), created, self._tier))
        elif chunk.service_tier is not None:
            self._tier = text_of(chunk.service_tier) or self._tier
        choices = cast("list[Any]", chunk.choices) if isinstance(chunk.choices, list) else []
        for item in choices:
            if isinstance(item, dict):
                self._choice(cast("dict[str, Any]", item), events)
            else:
                self.malformed += 1
        self._citations(chunk, events)
        self._counts(chunk, choices, events)
        error = chunk.error
        if not error and name == "error":
            error = msgspec.json.decode(data)
        if error:
            self._fail(events, failures.from_value({"error": error}))
        elif isinstance(chunk.base_resp, dict) and self._dialect.error_in_200 == "base_resp":
            resp = cast("dict[str, Any]", chunk.base_resp)
            if resp.get("status_code") not in (0, None):
                self._fail(events, failures.from_base_resp(resp))

    def _counts(self, chunk: _Chunk, choices: list[Any], events: list[Event]) -> None:
        given = bytes(chunk.usage)
        if given != b"null":
            changed = self._usage.merge(given)
        elif isinstance(chunk.x_groq, dict):
            changed = self._nested([chunk.x_groq])
        elif self._dialect.usage.usage_in_choice:
            changed = self._nested(choices)
        else:
            return
        if changed:
            report = self._usage.report()
            tier = self._tier or report.service_tier
            events.append(UsageSeen(UsageReport(report.usage, report.anomalies, report.raw, report.provider_cost_usd, tier)))

    def _nested(self, holders: list[Any]) -> bool:
        """Usage in `x_groq.usage` or in a choice (Moonshot)."""
        found = [cast("dict[str, Any]", holder).get("usage") for holder in holders if isinstance(holder, dict)]
        return any([self._usage.merge(msgspec.json.encode(usage)) for usage in found if usage is not None])

    def _citations(self, chunk: _Chunk, events: list[Event]) -> None:
        if self._cited or not (chunk.citations or chunk.search_results):
            return
        found = response.sources(chunk.citations, chunk.search_results)
        self._cited = bool(found)
        events.extend(CitationDelta(citation) for citation in found)

    def _choice(self, item: dict[str, Any], events: list[Event]) -> None:
        index = item.get("index")
        if index is None:
            index = 0
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < CHOICES_MAX:
            self.malformed += 1
            return
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _ChoiceState()
        logprobs: Any = item.get("logprobs")
        if logprobs is not None and isinstance(logprobs, dict) and any(cast("dict[str, Any]", logprobs).values()):
            events.append(LogprobsDelta(msgspec.json.encode(logprobs), index))
        inner: Any = item.get("delta")
        if not isinstance(inner, dict):
            inner = item.get("message")  # some servers send the last chunk, or the only one, as a whole message
        if isinstance(inner, dict):
            self._delta(cast("dict[str, Any]", inner), index, state, events)
        reason = item.get("finish_reason")
        if isinstance(reason, str):
            state.reason_seen = reason or state.reason_seen or ""
            state.native = text_of(item.get("native_finish_reason")) or reason or state.native
        error: Any = item.get("error")
        if isinstance(error, dict):
            self._fail(events, failures.from_value({"error": error}))

    def _delta(self, delta: dict[str, Any], index: int, state: _ChoiceState, events: list[Event]) -> None:
        value: Any = delta.get("content")
        plain = delta.keys() <= _PLAIN  # as nearly every delta is
        if not plain:
            self._thinking(delta, index, events)
        if isinstance(value, str):
            if value:
                for thinking, text in state.tags.feed(value):
                    events.append(ReasoningDelta(text, index) if thinking else TextDelta(text, index))
        elif isinstance(value, list):
            self._list(cast("list[Any]", value), index, events)
        if plain:
            return
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            events.append(RefusalDelta(refusal, index))
        calls: Any = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in cast("list[Any]", calls):
                if isinstance(call, dict):
                    self._tool(cast("dict[str, Any]", call), index, state, events)
        legacy: Any = delta.get("function_call")
        if isinstance(legacy, dict) and any(cast("dict[str, Any]", legacy).values()):
            self._tool({"index": 0, "function": legacy}, index, state, events)
        if delta.get("annotations"):
            events.extend(CitationDelta(citation, index) for citation in content.read_annotations(delta["annotations"]))
        for name in content.WHOLE:
            if delta.get(name):
                events.append(OpaqueBlock(Opaque(WIRE, name, msgspec.json.encode({name: delta[name]})), index))

    def _thinking(self, delta: dict[str, Any], index: int, events: list[Event]) -> None:
        """Details tell more than the plain text that repeats them."""
        details: Any = delta.get("reasoning_details")
        told = False
        for raw in cast("list[Any]", details) if isinstance(details, list) else []:
            if isinstance(raw, dict):
                told = self._detail(content.read_detail(cast("dict[str, Any]", raw)), index, events) or told
        if told:
            return
        for name in ("reasoning_content", "reasoning", "thinking"):
            value = delta.get(name)
            if isinstance(value, str) and value:
                events.append(ReasoningDelta(value, index))
                return

    def _detail(self, part: Reasoning, index: int, events: list[Event]) -> bool:
        """True when the part has text."""
        if part.redacted is not None:
            events.append(RedactedReasoning(part.redacted, index, part.format, part.id, part.index))
            return False
        if part.text:
            events.append(ReasoningDelta(part.text, index, part.summary, part.format, part.id, part.index))
        if part.signature:
            events.append(ReasoningSignature(part.signature, index, part.format, part.id, part.index))
        return bool(part.text)

    def _list(self, items: list[Any], index: int, events: list[Event]) -> None:
        for part in response.read_list(items):
            match part:
                case Text():
                    if part.text:
                        events.append(TextDelta(part.text, index))
                case Reasoning():
                    self._detail(part, index, events)
                case Opaque():
                    events.append(OpaqueBlock(part, index))
                case _:
                    pass

    def _tool(self, call: dict[str, Any], index: int, state: _ChoiceState, events: list[Event]) -> None:
        tool = self._which(call, state)
        inner: Any = call.get("custom" if tool.custom else "function")
        fields = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
        name, given = text_of(fields.get("name")), _id(call)
        if tool.signature is None and call.get("extra_content"):
            extra = {"extra_content": msgspec.Raw(msgspec.json.encode(call["extra_content"]))}
            tool.signature = signatures.take(extra)
            if tool.started and tool.signature is not None:
                events.append(ToolSignature(tool.number, tool.told_id, tool.signature, index))
        if not tool.started:
            tool.name = name or tool.name
            tool.id = given or tool.id
            if tool.name:
                tool.started = True
                tool.told_id = response.tool_id(tool.id, f"{self._id}_{index}_{tool.number}")
                events.append(ToolStart(tool.number, tool.told_id, tool.name, index, tool.custom, tool.signature))
                events.extend(ToolArgumentsDelta(tool.number, text, index) for text in tool.waiting)
        text = response.arguments_text(fields.get("input" if tool.custom else "arguments"))
        if text and tool.started:
            events.append(ToolArgumentsDelta(tool.number, text, index))
        elif text:
            tool.waiting.append(text)

    def _which(self, call: dict[str, Any], state: _ChoiceState) -> _Tool:
        """The call that a delta belongs to. `index` decides; where it is missing, or the same for every call, the id does."""
        position, given = call.get("index"), _id(call)
        inner: Any = call.get("function") or call.get("custom")
        named = isinstance(inner, dict) and text_of(cast("dict[str, Any]", inner).get("name")) is not None
        known: _Tool | None
        if isinstance(position, int) and not isinstance(position, bool):
            known = state.by_index.get(position)
        else:
            position = None
            known = next((tool for tool in state.tools if given and tool.id == given), None) if given else state.last
            if known is not None and not given and named and known.started:
                known = None  # whole calls without ids (old Ollama)
        if known is not None and given and named and known.started and known.id is not None and known.id != given:
            known = None  # a new call under a used index
        if known is None:
            known = _Tool(len(state.tools), isinstance(call.get("custom"), dict))
            state.tools.append(known)
        if position is not None:
            state.by_index[position] = known
        state.last = known
        return known

    def _finish(self, events: list[Event]) -> None:
        for index, state in sorted(self._choices.items()):
            if state.finished:
                continue
            for thinking, text in state.tags.end():
                events.append(ReasoningDelta(text, index) if thinking else TextDelta(text, index))
            if state.reason_seen is None:
                continue
            state.finished = True
            reason = finish.from_openai(state.reason_seen, with_tools=any(tool.started for tool in state.tools))
            if reason == "error":
                self._fail(events, failures.from_value({"message": "the model failed", "code": state.native}))
                return
            events.append(Finish(reason, state.native, index=index))


def _id(call: dict[str, Any]) -> str | None:
    given = text_of(call.get("id"))
    return None if given == "null" else given  # Mistral's "null" on later deltas
