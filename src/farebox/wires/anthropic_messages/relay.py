"""Messages, same wire on both sides: events are scanned, not parsed, except the few that frame the answer.

`message_start` carries the id and the input's usage, `message_delta` the stop reason and the final usage, `message_stop` the
end. The last two are held back until the settlement is written, so that the usage that the client sees carries the cost.
"""

import msgspec

from farebox.errors import FareboxError
from farebox.wires.anthropic_messages import errors
from farebox.wires.anthropic_messages import usage as usages
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import UpstreamError
from farebox.wires.relay import BOM, TAIL_BYTES_MAX, Extra, MalformedStream, size_of_texts, streamed_tokens, with_members
from farebox.wires.usage import Usage, UsageReport

_encode = msgspec.json.Encoder().encode
_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT, _THINKING, _ARGUMENTS = b'"text_delta"', b'"thinking_delta"', b'"input_json_delta"'
"""Deltas that carry output. Signatures, citations and what the provider's own tools found are none of its tokens."""
_THINKING_BYTES = len('"thinking_delta","thinking":') - len('"text_delta","text":')
_ARGUMENTS_BYTES = len('"input_json_delta","partial_json":') - len('"text_delta","text":')
"""So much longer than a delta of text they are around their words."""


def merged_usage(raw: bytes | None, usage: Usage, extra: Extra) -> bytes:
    """The usage object for the client: the provider's fields and the cost; built from the counts where there was none."""
    if raw is not None and raw[:1] == b"{" and b'"cost' not in raw:
        return with_members(raw, extra)
    fields = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.completion_tokens,
    }
    return with_members(_encode(fields), extra)


class Relay:
    """See `farebox.wires.relay.Relay`."""

    def __init__(self, *, id: str, provider: str, dialect: Dialect) -> None:
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
        self._usage = usages.Accumulator(dialect.usage)
        self._final_usage = False
        self._last_delta: dict[str, msgspec.Raw] | None = None
        self._held = b""
        self._tail = b""
        self._started = self._begun = False
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
            if data.endswith(b"\r"):
                self._tail = b"\r"
                data = data[:-1]
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
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
            self.content_started
            and b"message_" not in data
            and b'"error"' not in data
            # An event that was cut short is not passed on: the client's parser would stumble over it. A text with braces of its
            # own only takes the longer way.
            and data.count(b"{") == data.count(b"}")
        ):
            events = data.count(b"\n\n")
            if data.count(_TEXT) == events:
                self._events += events
                self._bytes += len(data)
                return data
            thinking, arguments = data.count(_THINKING), data.count(_ARGUMENTS)
            if data.count(_TEXT) + thinking + arguments == events:
                self._events += events
                self._bytes += len(data) - thinking * _THINKING_BYTES - arguments * _ARGUMENTS_BYTES
                return data
        return self._look(data)

    def _look(self, data: bytes) -> bytes:
        sent = b"".join([self._event(event) for event in data.split(b"\n\n") if event])
        if not self.content_started:
            self._held += sent
            return b""
        if self._held:
            sent = self._held + sent
            self._held = b""
        return sent

    def _event(self, event: bytes) -> bytes:
        # Lines of one event break between JSON tokens, where a space means the same; what is written anew is one line.
        payload = b" ".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if not payload or self.done:
            return b""
        try:
            fields = _decode_map(payload)
            kind = _decode_str(fields["type"])
        except (msgspec.DecodeError, KeyError):
            self.malformed += 1
            return b""
        match kind:
            case "content_block_delta":
                if not self._begun:
                    # Clients cannot read content of a message that never began; nothing was sent yet, so another may answer.
                    raise MalformedStream("content without a `message_start`")
                self.content_started = True
                self._count(event, fields)
            case "message_start":
                return self._message_start(fields)
            case "message_delta":
                return self._message_delta(fields)
            case "message_stop":
                self.finished = self.done = True
                return b""
            case "error":
                self.failure = payload
                return b""
            case _:
                pass
        return event + b"\n\n"

    def _count(self, event: bytes, fields: dict[str, msgspec.Raw]) -> None:
        """Take an event's output down; the first one shows what stands around it."""
        thinking, arguments = _THINKING in event, _ARGUMENTS in event
        if not (thinking or arguments or _TEXT in event):
            return
        size = len(event) + 2 - (_THINKING_BYTES if thinking else _ARGUMENTS_BYTES if arguments else 0)
        if not self._events:
            text = size_of_texts(msgspec.json.decode(fields["delta"])) if "delta" in fields else 0
            self._overhead = size - text
        self._events += 1
        self._bytes += size

    def _message_start(self, fields: dict[str, msgspec.Raw]) -> bytes:
        if self._begun:
            return b""  # some gateways repeat it
        try:
            message = _decode_map(fields["message"])
            self.upstream_id = _decode_str(message["id"]) if "id" in message else ""
        except (msgspec.DecodeError, KeyError):
            self.malformed += 1
            return b""
        self._begun = True
        if "usage" in message:
            self._usage.merge(bytes(message["usage"]))
        message["id"] = msgspec.Raw(_encode(self._id))
        message["provider"] = msgspec.Raw(_encode(self._provider))
        fields["message"] = msgspec.Raw(_encode(message))
        return b"event: message_start\ndata: " + _encode(fields) + b"\n\n"

    def _message_delta(self, fields: dict[str, msgspec.Raw]) -> bytes:
        earlier = b"" if self._last_delta is None else self._write_delta(self._last_delta)
        try:
            if "usage" in fields and bytes(fields["usage"]) != b"null":
                self._usage.merge(bytes(fields["usage"]))
                self._final_usage = True
            reason = _decode_map(fields["delta"]).get("stop_reason")
            if reason is not None and bytes(reason) != b"null":
                self.finish_reason = self.native_finish_reason = _decode_str(reason)
                self.finished = True
        except (msgspec.DecodeError, KeyError):
            self.malformed += 1
            return earlier
        self.content_started = True
        self._last_delta = fields
        return earlier

    @staticmethod
    def _write_delta(fields: dict[str, msgspec.Raw]) -> bytes:
        return b"event: message_delta\ndata: " + _encode(fields) + b"\n\n"

    def end(self) -> bytes:
        if not self._tail:
            return b""
        rest, self._tail = self._tail, b""
        return self._look(rest.replace(b"\r", b"\n"))

    def report(self) -> UsageReport | None:
        """The final usage only: what `message_start` says of the output is no more than a beginning."""
        return self._usage.report() if self._final_usage else None

    def observed_output_tokens(self, text_bytes: int | None = None) -> int:
        return streamed_tokens(
            self._events, self._bytes - self._events * self._overhead if text_bytes is None else text_bytes
        )

    def observed_input(self) -> Usage | None:
        report = self._usage.report()
        if report.usage is None:
            return None
        return msgspec.structs.replace(report.usage, output=0, reasoning=0)

    def finish(self, usage: Usage, extra: Extra) -> bytes:
        fields = self._last_delta or {
            "type": msgspec.Raw(b'"message_delta"'),
            "delta": msgspec.Raw(b'{"stop_reason":"end_turn","stop_sequence":null}'),
        }
        raw = fields.get("usage")
        fields["usage"] = msgspec.Raw(merged_usage(None if raw is None else bytes(raw), usage, extra))
        return self._write_delta(fields) + _STOP

    def fail(self, error: FareboxError) -> bytes:
        body = {"type": "error", "error": errors.body_of(error)}
        return b"event: error\ndata: " + _encode(body) + b"\n\n"

    def keepalive(self) -> bytes:
        return _PING
