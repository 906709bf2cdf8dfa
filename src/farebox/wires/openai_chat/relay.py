"""Chat completions, same wire on both sides: chunks are scanned, not parsed.

Nearly every chunk of a long answer is plain text: one search per marker (usage, end, error) finds nothing, the provider's id
is replaced by ours, and the bytes go on. Only chunks with a marker, and those before the first content, are parsed.
"""

from typing import Any, Final, cast

import msgspec

from farebox.errors import FareboxError
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import UpstreamError
from farebox.wires.openai_chat import errors
from farebox.wires.openai_chat import usage as usages
from farebox.wires.openai_chat.shapes import Chunk
from farebox.wires.relay import BOM, TAIL_BYTES_MAX, Extra, MalformedStream, streamed_tokens, with_members
from farebox.wires.usage import Usage, UsageReport

_encode: Final = msgspec.json.Encoder().encode
_decode_map: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


_decode_chunk: Final = msgspec.json.Decoder(Chunk).decode
_NULL: Final = b"null"
_FRAME_BYTES: Final = len(b"data: \n\n")


def _given(raw: msgspec.Raw) -> bytes | None:
    """A field's bytes; None when it is absent (an empty `Raw`) or null."""
    value = bytes(raw)
    return None if not value or value == _NULL else value


def merged_usage(raw: bytes | None, usage: Usage, extra: Extra, *, as_it_came: bool = False) -> bytes:
    """The usage object for the client: the provider's fields, OpenAI's totals whatever the provider's way of counting, cost.

    `as_it_came`: the provider counts as OpenAI does, so its object goes out as it is, with the cost behind.
    """
    if as_it_came and raw is not None and raw.find(b'"cost') < 0:
        return with_members(raw, extra)
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    fields: dict[str, Any] = {}
    if raw is not None:
        try:
            fields.update(_decode_map(raw))
        except msgspec.DecodeError:
            fields.clear()
    fields["prompt_tokens"] = prompt
    fields["completion_tokens"] = completion
    fields["total_tokens"] = prompt + completion
    if "prompt_tokens_details" not in fields:
        fields["prompt_tokens_details"] = {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h,
        }
    if "completion_tokens_details" not in fields:
        fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    # Ours replace members of the same name (OpenRouter's `cost`): a name stands once.
    for name in ("cost", "cost_usd", "is_byok", "cost_details", "estimated"):
        fields.pop(name, None)
    return with_members(_encode(fields), extra)


class Relay:
    """See `farebox.wires.relay.Relay`."""

    def __init__(
        self,
        *,
        id: str,
        provider: str,
        include_usage: bool,
        dialect: Dialect,
        created: int,
        model: str,
        one_event_one_token: bool = False,
        choices: int = 1,
    ) -> None:
        """`created` (Unix seconds) and `model` stand in the usage chunk unless the provider says otherwise.

        `one_event_one_token`: estimate by events alone, for requests (logprobs, n) whose chunks carry more than text.
        """
        self.content_started = False
        self.finished = False
        self.done = False
        self.failure: bytes | UpstreamError | None = None
        self.malformed = 0
        self.finish_reason = ""
        self.native_finish_reason = ""
        self.upstream_id = ""
        self._id = id
        self._provider = provider
        self._ours = f'"id":"{id}","provider":{msgspec.json.encode(provider).decode()}'.encode()
        self._theirs = b""
        self._finish_mark = b'reason":"'
        self._include_usage = include_usage
        self._dialect = dialect
        self._created = created
        self._model = model
        self._count_events_only = one_event_one_token
        self._open_choices = choices
        self._usage: bytes | None = None
        self._as_it_came = False
        self._tier: str | None = None
        self._held = b""
        self._tail = b""
        self._started = False
        self._plain = False
        self._events = 0
        self._bytes = 0
        self._overhead = 0

    def feed(self, data: bytes) -> bytes:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if not self._started:
            if len(data) < len(BOM) and BOM.startswith(data):
                self._tail = data
                return b""
            self._started = True
            data = data.removeprefix(BOM)
        if b"\r" in data:
            data = self._without_carriage_returns(data)
        if not data.endswith(b"\n\n"):
            cut = data.rfind(b"\n\n") + 2
            if cut == 1:
                cut = 0
            self._tail = data[cut:] + self._tail
            if len(self._tail) > TAIL_BYTES_MAX:
                raise MalformedStream(f"an event of more than {TAIL_BYTES_MAX} bytes")
            if not cut:
                return b""
            data = data[:cut]
        if (
            self._plain
            and b"[DONE]" not in data
            and self._finish_mark not in data
            and b'"error"' not in data
            and (b'"usage"' not in data or self._only_null_usage(data))
            # An event that was cut short is not passed on: the client's parser would stumble over it. A text with braces of its
            # own only takes the longer way.
            and data.count(b"{") == data.count(b"}")
        ):
            events = data.count(b"\n\n")
            self._events += events
            self._bytes += len(data) - events * _FRAME_BYTES
            return data.replace(self._theirs, self._ours)
        return self._look(data)

    @staticmethod
    def _only_null_usage(data: bytes) -> bool:
        """OpenAI writes `"usage":null` into every chunk once usage was asked for."""
        return data.count(b'"usage"') == data.count(b'"usage":null')

    def _without_carriage_returns(self, data: bytes) -> bytes:
        """CR LF and CR are line ends, too; a CR at the very end waits for its LF."""
        if data.endswith(b"\r"):
            self._tail = b"\r"
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _look(self, data: bytes) -> bytes:
        """Event by event."""
        out: list[bytes] = []
        for event in data.split(b"\n\n"):
            if event:
                out.append(self._event(event))
        sent = b"".join(out)
        if not self.content_started:
            self._held += sent
            return b""
        if self._held:
            sent = self._held + sent
            self._held = b""
        return sent

    def _event(self, event: bytes) -> bytes:
        parts: list[bytes] = []
        named_error = False
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                parts.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:") and line[6:].strip() == b"error":
                named_error = True
        # Lines of one event break between JSON tokens, where a space means the same, and the payload is sent on as one line.
        payload = b" ".join(parts).strip()
        if not payload or self.done:
            return b""
        if payload == b"[DONE]":
            self.done = self.finished = True
            return b""
        try:
            chunk = _decode_chunk(payload)
        except msgspec.DecodeError:
            self.malformed += 1
            return b""
        error = _given(chunk.error)
        if error is not None or named_error:
            self.failure = payload
            return b""
        return self._chunk(chunk, payload)

    def _chunk(self, chunk: Chunk, payload: bytes) -> bytes:
        if chunk.id and not self.upstream_id:
            self._learn(chunk, payload)
        if chunk.service_tier:
            self._tier = chunk.service_tier
        usage = _given(chunk.usage)
        for choice in chunk.choices or ():
            if usage is None and self._dialect.usage.usage_in_choice:
                usage = _given(choice.usage)
            if choice.finish_reason is not None or choice.native_finish_reason:
                self.finish_reason = choice.finish_reason or self.finish_reason or "stop"
                self.native_finish_reason = choice.native_finish_reason or choice.finish_reason or ""
                self.content_started = True
                self._open_choices -= 1
                self.finished = self._open_choices <= 0
            elif choice.delta and any(value and name != "role" for name, value in choice.delta.items()):
                self.content_started = True
                self._events += 1
                self._bytes += len(payload)
                if not self._overhead:
                    text = cast("object", choice.delta.get("content"))
                    self._overhead = len(payload) - (len(text.encode()) if isinstance(text, str) else 0)
        self._plain = self.content_started and bool(self._theirs)
        if usage is not None:
            self._usage = usage
            if not chunk.choices:
                return b""
            payload = self._without_usage(payload)
        if self._theirs:
            payload = payload.replace(self._theirs, self._ours, 1)
        return b"data: " + payload + b"\n\n"

    def _learn(self, chunk: Chunk, payload: bytes) -> None:
        """How the provider writes its id, and what the usage chunk will repeat."""
        self.upstream_id = chunk.id or ""
        quoted = _encode(self.upstream_id)
        self._theirs = b'"id":' + quoted
        if self._theirs not in payload:
            # The other layout in use: a space behind each colon.
            self._theirs = b'"id": ' + quoted
            self._finish_mark = b'reason": "'
        if chunk.created is not None:
            self._created = int(chunk.created)
        if chunk.model:
            self._model = chunk.model

    @staticmethod
    def _without_usage(payload: bytes) -> bytes:
        """Usage goes to clients that asked, at the end, with the cost: not inside other chunks."""
        fields = _decode_map(payload)
        fields.pop("usage", None)
        return _encode(fields)

    def end(self) -> bytes:
        sent = b""
        if self._tail:
            rest, self._tail = self._tail, b""
            sent = self._look(rest.replace(b"\r", b"\n"))
        return sent

    def report(self) -> UsageReport | None:
        if self._usage is None:
            return None
        report = usages.read(self._usage, self._dialect.usage)
        self._as_it_came = report.openai_totals
        return msgspec.structs.replace(report, service_tier=self._tier) if self._tier and report.service_tier is None else report

    def observed_output_tokens(self, text_bytes: int | None = None) -> int:
        if self._count_events_only:
            return self._events
        return streamed_tokens(
            self._events, self._bytes - self._events * self._overhead if text_bytes is None else text_bytes
        )

    def observed_input(self) -> Usage | None:
        return None

    def finish(self, usage: Usage, extra: Extra) -> bytes:
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "provider": self._provider,
            "choices": (),
            "usage": msgspec.Raw(merged_usage(self._usage, usage, extra, as_it_came=self._as_it_came)),
        }
        return b"data: " + _encode(chunk) + b"\n\ndata: [DONE]\n\n"

    def fail(self, error: FareboxError) -> bytes:
        chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "provider": self._provider,
            "error": errors.body_of(error),
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        }
        return b"data: " + _encode(chunk) + b"\n\n"

    def keepalive(self) -> bytes:
        return b": FAREBOX PROCESSING\n\n"
