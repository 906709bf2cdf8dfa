"""Gathering: a provider's stream, event by event, put together to the whole answer that it is. Pure.

For who wants to look at an answer before a client gets it. Kept is what can be judged: text, refusals, which tools were called,
probabilities, and how each choice ended; not thinking, citations or a tool call's arguments.
"""

from collections.abc import Callable

import msgspec

from farebox.wires.neutral import (
    Choice,
    Completion,
    Event,
    Finish,
    FinishReason,
    LogprobsDelta,
    Part,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolStart,
    ToolUse,
)
from farebox.wires.usage import UsageReport


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


_decode = msgspec.json.Decoder(_Logprobs).decode


class _Choice:
    __slots__ = ("finish", "logprobs", "refusal", "text", "tools")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.tools: list[Part] = []
        self.logprobs: list[bytes] = []
        self.finish: FinishReason | None = None


class Gathering:
    """Feed it the body's bytes, in pieces of any size. What it keeps is less than what it was fed: bound that."""

    __slots__ = ("_choices", "_end", "_feed")

    def __init__(self, feed: Callable[[bytes], list[Event]], end: Callable[[], list[Event]]) -> None:
        """`feed` and `end` are those of the provider's wire's stream reader."""
        self._feed = feed
        self._end = end
        self._choices: dict[int, _Choice] = {}

    def feed(self, data: bytes) -> None:
        for event in self._feed(data):
            self._take(event)

    def completion(self) -> Completion | None:
        """The whole answer, when the stream is over; None when a choice has no end."""
        for event in self._end():
            self._take(event)
        choices: list[Choice] = []
        for index, one in sorted(self._choices.items()):
            if one.finish is None:
                return None
            parts: list[Part] = [Text("".join(one.text))] if one.text else []
            if one.refusal:
                parts.append(Refusal("".join(one.refusal)))
            logprobs = b'{"content":[%b]}' % b",".join(one.logprobs) if one.logprobs else None
            choices.append(Choice(index, (*parts, *one.tools), one.finish, logprobs=logprobs))
        return Completion(tuple(choices), UsageReport(None, (), b""))

    def _take(self, event: Event) -> None:
        match event:
            case TextDelta():
                self._at(event.index).text.append(event.text)
            case RefusalDelta():
                self._at(event.index).refusal.append(event.text)
            case ToolStart():
                self._at(event.index).tools.append(ToolUse(event.id, event.name, "", event.custom))
            case LogprobsDelta():
                self._at(event.index).logprobs += _tokens(event.raw)
            case Finish():
                self._at(event.index).finish = event.reason
            case _:
                pass

    def _at(self, index: int) -> _Choice:
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _Choice()
        return found


def _tokens(raw: bytes) -> list[bytes]:
    try:
        return [bytes(one) for one in _decode(raw).content or ()]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
