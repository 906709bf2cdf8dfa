"""Writes an answer on the OpenAI chat wire. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

from farebox.simulator.answer import CREATED_S, Event
from farebox.simulator.dialects import Dialect, chat_usage, spoil
from farebox.simulator.directives import Directives
from farebox.simulator.plan import Choice, Finish, Plan, Segment
from farebox.simulator.refusals import Refusal
from farebox.simulator.request import Request
from farebox.simulator.words import VOCABULARY, digest

_FINISH: dict[Finish, str] = {
    "end": "stop",
    "stop_sequence": "stop",
    "limit": "length",
    "tool": "tool_calls",
    "filter": "content_filter",
    "refusal": "stop",
}
_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


def _probability(token: str, alternatives: int) -> dict[str, Any]:
    """A token's log probability, made up from its letters, and its alternatives', each less likely."""
    mark = digest(0, token.encode())
    logprob = -(mark % 1000) / 1000
    others = [token, *(" " + VOCABULARY[(mark + at) % len(VOCABULARY)] for at in range(19))]
    return {
        "token": token,
        "logprob": logprob,
        "bytes": list(token.encode()),
        "top_logprobs": [
            {"token": other, "logprob": logprob - at, "bytes": list(other.encode())}
            for at, other in enumerate(others[:alternatives])
        ],
    }


class ChatAnswer:
    """See `farebox.simulator.answer.Answer`."""

    def __init__(self, plan: Plan, request: Request, orders: Directives, dialect: Dialect, id: str, number: int) -> None:
        self._plan = plan
        self._request = request
        self._orders = orders
        self._dialect = dialect
        self._id = id
        self._number = number
        self._shown = plan.thinking == "shown"
        head = {"id": id, "object": "chat.completion.chunk", "created": CREATED_S, "model": request.model}
        self._head = b"data: " + _encode(head)[:-1] + b',"service_tier":"default","system_fingerprint":"fp_simulator","choices":['
        self._tail = b',"usage":null}\n\n' if request.include_usage and dialect.stream_usage == "extra_chunk" else b"}\n\n"
        self._output = self._reasoning = 0

    def _tool_id(self, choice: int, at: int) -> str:
        order = choice * 1000 + at
        if self._request.wire == "chat" and not self._dialect.audio_inside:
            # Mistral's ids are nine alphanumerics.
            return f"{self._number % 10**6:06d}{order % 1000:03d}"
        return f"call_{self._number:012d}{order:06d}"

    def whole(self) -> bytes:
        fields: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": CREATED_S,
            "model": self._request.model,
            "choices": [self._whole_choice(choice, index) for index, choice in enumerate(self._plan.choices)],
            "service_tier": "default",
            "system_fingerprint": "fp_simulator",
        }
        usage = self._usage()
        body = _encode(fields)
        if usage is None:
            return body
        pair = b',"usage":' + usage
        return body[:-1] + pair * (2 if self._orders.usage == "duplicate" else 1) + b"}"

    def _usage(self) -> bytes | None:
        return spoil(chat_usage(self._plan.usage, self._dialect), self._orders.usage)

    def _whole_choice(self, choice: Choice, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        calls: list[dict[str, Any]] = []
        logprobs: Any = None
        for segment in choice.segments:
            match segment.kind:
                case "thinking":
                    if self._shown:
                        message["reasoning_content"] = segment.text
                case "text":
                    message["content"] = segment.text
                    if self._request.logprobs is not None:
                        shown = [token for token in segment.tokens if token]
                        logprobs = {
                            "content": [_probability(token, self._request.logprobs) for token in shown],
                            "refusal": None,
                        }
                case "refusal":
                    message["refusal"] = segment.text
                case "tool":
                    call = {"name": segment.tool, "arguments": segment.text}
                    calls.append({"id": self._tool_id(index, len(calls)), "type": "function", "function": call})
        if calls:
            message["tool_calls"] = calls
        elif message["content"] is None and message["refusal"] is None:
            message["content"] = ""
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": _FINISH[choice.finish]}

    def _chunk(self, index: int, delta: bytes, finish: str | None = None, logprobs: bytes = b"null", extra: bytes = b"") -> bytes:
        reason = b"null" if finish is None else b'"' + finish.encode() + b'"'
        tail = self._tail
        if self._dialect.stream_usage == "every_chunk" and not extra:
            running = msgspec.structs.replace(self._plan.prompt, output=self._output, reasoning=self._reasoning)
            extra = b',"usage":' + _encode(chat_usage(running, self._dialect))
        if extra:
            tail = extra + b"}\n\n"
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head, index, delta, logprobs, reason, tail,
        )  # fmt: skip

    def opening(self) -> list[bytes]:
        delta = b'{"role":"assistant","content":"","refusal":null}'
        return [self._chunk(index, delta) for index in range(len(self._plan.choices))]

    def content(self) -> Iterator[Event]:
        """Choices take turns, token by token, as they do at OpenAI."""
        runs = [self._choice_events(choice, index) for index, choice in enumerate(self._plan.choices)]
        if len(runs) == 1:
            yield from runs[0]
            return
        while runs:
            going: list[Iterator[Event]] = []
            for run in runs:
                event = next(run, None)
                if event is not None:
                    going.append(run)
                    yield event
            runs = going

    def _choice_events(self, choice: Choice, index: int) -> Iterator[Event]:
        calls = 0
        for segment in choice.segments:
            if segment.kind == "thinking":
                for token in segment.tokens:
                    self._reasoning += 1
                    delta = b'{"reasoning_content":' + _encode(token) + b"}"
                    yield Event(self._chunk(index, delta) if self._shown else b"", 0, 1)
            elif segment.kind == "tool":
                yield from self._tool_events(segment, index, calls)
                calls += 1
            else:
                yield from self._text_events(segment, index)

    def _text_events(self, segment: Segment, index: int) -> Iterator[Event]:
        name = b'{"content":' if segment.kind == "text" else b'{"refusal":'
        probabilities = self._request.logprobs if segment.kind == "text" else None
        for token in segment.tokens:
            self._output += 1
            if not token:
                yield Event(b"", 1)
                continue
            logprobs = b"null"
            if probabilities is not None:
                logprobs = _encode({"content": [_probability(token, probabilities)], "refusal": None})
            yield Event(self._chunk(index, name + _encode(token) + b"}", logprobs=logprobs), 1)

    def _tool_events(self, segment: Segment, index: int, at: int) -> Iterator[Event]:
        self._output += 1
        first = {
            "index": at,
            "id": self._tool_id(index, at),
            "type": "function",
            "function": {"name": segment.tool, "arguments": ""},
        }
        yield Event(self._chunk(index, b'{"tool_calls":[' + _encode(first) + b"]}"), 1)
        for token in segment.tokens:
            self._output += 1
            delta = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (at, _encode(token))
            yield Event(self._chunk(index, delta), 1)

    def closing(self) -> list[bytes]:
        usage = self._usage()
        where = self._dialect.stream_usage
        events: list[bytes] = []
        last = len(self._plan.choices) - 1
        for index, choice in enumerate(self._plan.choices):
            extra = b""
            if index == last and usage is not None:
                if where in ("last_chunk", "every_chunk"):
                    extra = b',"usage":' + usage
                elif where == "twice":
                    extra = b',"x_groq":{"id":"%b","usage":%b}' % (self._id.encode(), usage)
            event = self._chunk(index, b"{}", _FINISH[choice.finish], extra=extra)
            if index == last and usage is not None and where == "choice":
                event = event.replace(b'"logprobs":null,', b'"logprobs":null,"usage":%b,' % usage)
            events.append(event)
        if usage is not None and where in ("extra_chunk", "twice") and self._request.include_usage:
            events.append(self._head + b'],"usage":' + usage + b"}\n\n")
        if self._orders.usage == "duplicate":
            events.append(events[-1])
        events.append(DONE)
        return events

    def failure(self, refusal: Refusal) -> bytes:
        return b"data: " + _encode({"error": refusal.error("chat")}) + b"\n\n"
