"""Translation: an answer read on one wire and written on another, through the neutral form, behind the relay's interface."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

import msgspec

from farebox.errors import FareboxError
from farebox.wires.delivered import Delivered
from farebox.wires.dialect import Dialect
from farebox.wires.neutral import (
    Done,
    Event,
    Finish,
    LogprobsDelta,
    Ping,
    ReasoningDelta,
    ReasoningSignature,
    RefusalDelta,
    Start,
    StreamError,
    TextDelta,
    ToolArgumentsDelta,
    ToolStart,
    UpstreamError,
    UpstreamFailure,
    UpstreamGarbage,
    UsageSeen,
)
from farebox.wires.relay import Extra, NotACompletion, estimated_tokens, streamed_tokens
from farebox.wires.seam import Seam
from farebox.wires.usage import Usage, UsageReport

_decode_any = msgspec.json.Decoder(dict[str, object]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _members(extra: Extra) -> dict[str, msgspec.Raw]:
    """The gateway's encoded members by name, for writers that build their usage object."""
    return _decode_members(b"{%b}" % extra)


class Reader(Protocol):
    """A wire's stream reader."""

    malformed: int

    def feed(self, data: bytes) -> list[Event]: ...

    def end(self) -> list[Event]: ...


class Writer(Protocol):
    """A wire's stream writer."""

    def write(self, event: Event) -> bytes: ...

    def resume(self, delivered: Delivered) -> None: ...

    def usage(self, report: UsageReport, extra: dict[str, msgspec.Raw]) -> bytes: ...

    def error(self, error: FareboxError) -> bytes: ...

    def done(self) -> bytes: ...

    def keepalive(self) -> bytes: ...


class TranslatedRelay:
    """See `farebox.wires.relay.Relay`."""

    def __init__(self, reader: Reader, writer: Writer, *, choices: int = 1) -> None:
        self.content_started = False
        self.finished = False
        self.done = False
        self.failure: bytes | UpstreamError | None = None
        self.finish_reason = ""
        self.native_finish_reason = ""
        self.upstream_id = ""
        self._reader = reader
        self._writer = writer
        self._open_choices = choices
        self._report: UsageReport | None = None
        self._final_usage = False
        self._events = 0
        self._bytes = 0
        self._held = b""

    @property
    def malformed(self) -> int:
        """Events that were no valid JSON and were skipped."""
        return self._reader.malformed

    def feed(self, data: bytes) -> bytes:
        return self._write(self._reader.feed(data))

    def end(self) -> bytes:
        return self._write(self._reader.end())

    def _write(self, events: list[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self._note(event):
                out.append(self._writer.write(event))
        sent = b"".join(out)
        if not self.content_started:
            self._held += sent
            return b""
        if self._held:
            sent = self._held + sent
            self._held = b""
        return sent

    def _note(self, event: Event) -> bool:
        """Take down what the pipeline asks about; whether the event is for the client."""
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolArgumentsDelta():
                text = event.text
                if text:
                    self.content_started = True
                    self._events += 1
                    self._bytes += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
            case ToolStart() | ReasoningSignature() | LogprobsDelta():
                self.content_started = True
            case Finish():
                self.content_started = True
                self.finish_reason = event.reason
                self.native_finish_reason = event.native or event.reason
                self._open_choices -= 1
                self.finished = self._open_choices <= 0
            case UsageSeen():
                self._report = event.report
                self._final_usage = self._final_usage or not event.beginning
                return False
            case StreamError():
                self.failure = event.error
                return False
            case Done():
                self.done = self.finished = True
                return False
            case Start():
                self.upstream_id = event.id or ""
            case Ping():
                return self.content_started
            case _:
                pass
        return True

    def report(self) -> UsageReport | None:
        """The final usage only: at its start an answer may state a beginning, and its end may have been lost."""
        return self._report if self.finished and self._final_usage else None

    def observed_output_tokens(self, text_bytes: int | None = None) -> int:
        return streamed_tokens(self._events, self._bytes if text_bytes is None else text_bytes)

    def observed_input(self) -> Usage | None:
        report = self._report
        if report is None or report.usage is None or (self.finished and self._final_usage):
            return None
        return msgspec.structs.replace(report.usage, output=0, reasoning=0)

    def finish(self, usage: Usage, extra: Extra) -> bytes:
        raw = self._report.raw if self._report is not None else b""
        return self._writer.usage(UsageReport(usage, raw=raw), _members(extra)) + self._writer.done()

    def fail(self, error: FareboxError) -> bytes:
        return self._writer.error(error)

    def keepalive(self) -> bytes:
        return self._writer.keepalive()


class ContinuedRelay(TranslatedRelay):
    """An answer that another provider began, and the client has the beginning of; see `farebox.wires.seam`."""

    def __init__(self, reader: Reader, writer: Writer, seam: Seam, delivered: Delivered) -> None:
        super().__init__(reader, writer)
        writer.resume(delivered)
        self._seam = seam

    def _write(self, events: list[Event]) -> bytes:
        return super()._write(self._seam.take(events))


class TranslatedReply:
    """See `farebox.wires.relay.Reply`."""

    def __init__(
        self,
        source: ModuleType | Any,
        surface: ModuleType | Any,
        body: bytes,
        dialect: Dialect,
        *,
        model: str,
        created_s: int,
        more: Mapping[str, Any],
    ) -> None:
        """`source` and `surface` are the wires' `response` modules; `more` is what only this surface's is told.

        Raises `NotACompletion`.
        """
        self.failure: bytes | UpstreamError | None = None
        self.finish_reason = ""
        self.native_finish_reason = ""
        self.upstream_id = ""
        self._surface = surface
        self._model = model
        self._created_s = created_s
        self._more = more
        self._body = body
        self._completion: Any = None
        try:
            completion = source.read(body, dialect)
        except UpstreamFailure as failure:
            self.failure = failure.error
            return
        except UpstreamGarbage as garbage:
            raise NotACompletion(str(garbage)) from garbage
        self._completion = completion
        self.upstream_id = completion.id or ""
        if completion.choices:
            self.finish_reason = completion.choices[0].finish
            self.native_finish_reason = completion.choices[0].native_finish or self.finish_reason

    def report(self) -> UsageReport | None:
        report: UsageReport = self._completion.usage
        return None if report.usage is None and not report.raw else report

    def observed_output_tokens(self) -> int:
        body = _decode_any(self._body)
        return estimated_tokens(body.get("choices") or body.get("content"))

    def write(self, *, id: str, provider: str, usage: Usage, extra: Extra) -> bytes:
        completion = msgspec.structs.replace(self._completion, usage=UsageReport(usage))
        return self._surface.write(
            completion,
            id=id,
            model=self._model,
            provider=provider,
            extra_usage=_members(extra),
            created=self._created_s,
            **self._more,
        )
