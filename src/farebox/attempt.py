"""One attempt: send the request to a candidate, and forward its answer or say why there is none.

A `Try` knows what is of its attempt alone; what is of the call (its answer, its settlement, what may be tried next) is its
`Flight`'s. Nothing of an attempt has reached the client when it fails: who goes on with a stream that broke off is the flight's
to decide.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from farebox import bridge, escalation, rating
from farebox.billing.meter import ESCALATED_FLAG, MALFORMED_FLAG, Ending, Seen, Verdict
from farebox.billing.settlement import AttemptStart
from farebox.bridge import Outgoing
from farebox.errors import FareboxError, Kind
from farebox.escalation import Escalation, Withheld
from farebox.routing.lessons import KEY_KINDS
from farebox.routing.plan import Candidate
from farebox.step import STEP
from farebox.transport import (
    BodyTooLarge,
    ChunkTimeout,
    ConnectTimeout,
    GivenUp,
    HeadersTimeout,
    Response,
    TotalTimeout,
    TransportError,
)
from farebox.verdict import Failure, upstream_failure
from farebox.wires.neutral import Completion, UpstreamError
from farebox.wires.relay import MalformedStream, NotACompletion, Relay

if TYPE_CHECKING:
    from farebox.flight import Flight

REPLY_BYTES_MAX: Final = 64 * 2**20
ERROR_BYTES_MAX: Final = 64 * 2**10
UNSUPPORTED: Final = "unsupported"
"""The outcome of an attempt at an offer that could not be told the call: nobody was asked."""


class Try:
    """An attempt under way."""

    __slots__ = (
        "candidate", "dropped", "first_token_us", "flight", "outgoing", "relay", "response", "start", "text_bytes", "withheld",
    )  # fmt: skip

    def __init__(
        self,
        flight: "Flight",
        candidate: Candidate,
        start: AttemptStart,
        relay: Relay | None = None,
        response: Response | None = None,
        first_token_us: int = 0,
        dropped: tuple[str, ...] = (),
        withheld: Withheld | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.flight = flight
        self.candidate = candidate
        self.start = start
        self.relay = relay
        """Of a stream, from its head on."""
        self.response = response
        """From its head on."""
        self.first_token_us = first_token_us
        """When it is given up unless content has come; 0: not yet, or not a stream."""
        self.dropped = dropped
        """What of the request this candidate cannot be told."""
        self.withheld = withheld
        """Of a stream that nobody gets until it was looked at."""
        self.outgoing = outgoing
        """What is sent, where it was made to see whether this candidate can be told the call."""
        self.text_bytes: int | None = None
        """The size of the text that it delivered, where it broke off and that was looked at."""

    def seen(self) -> Seen:
        """What was observed so far."""
        relay = self.relay
        if relay is None:
            return Seen(None, estimated_input=self.flight.plan.input_estimate)
        # A provider was told the cap; an estimate that is above it is one of another way to count.
        tokens = min(relay.observed_output_tokens(self.text_bytes), self.candidate.bound.output_tokens)
        return Seen(relay.report(), tokens, relay.observed_input(), self.flight.plan.input_estimate)

    async def run(self) -> Failure | None:
        """None when the client has its answer (or is gone) and the call is settled."""
        flight, candidate, start = self.flight, self.candidate, self.start
        gateway = flight.gateway
        rest = None if flight.recovery is None else flight.rest
        prefilled = rest is not None and bool(rest.text)
        outgoing, self.outgoing = self.outgoing, None
        if outgoing is None:
            try:
                outgoing = flight.outgoing(candidate)
            except FareboxError as error:
                self.end("failed_unsent", outcome=UNSUPPORTED, error=error.message)
                return Failure(error, "offer", unsaid=True)
        self.dropped = outgoing.dropped
        head, extra_headers, lines = gateway.upstream_head(
            candidate.target, flight.exchange, flight.settlement.id, start, prefilled=prefilled
        )
        if gateway.fibers.running is not None:
            await STEP
        gateway.begin(start, candidate.target)
        timeouts, first_token_us = gateway.timeouts_for(candidate.target, flight)
        self.first_token_us = start.begun_us + first_token_us if flight.call.stream else 0
        try:
            response = self.response = await gateway.client.send(
                head, outgoing.body, extra_headers=extra_headers, timeouts=timeouts, lines=lines
            )
        except TransportError as error:
            return self._transport_failure(error, "failed_before_content" if error.sent else "failed_unsent")
        start.status = response.status
        gateway.fail_point("attempt.after_head")
        try:
            request_id = response.header(b"x-request-id") or response.header(b"request-id")
            if request_id is not None:
                start.upstream_request_id = request_id[:128].decode("latin-1")
            if response.status != 200:
                return await self._refused(response)
            if flight.call.stream:
                return await self._stream(response)
            # Read to its end even if the client left: only then is its price known.
            body = response.at_once(REPLY_BYTES_MAX)
            if body is None:
                body = await response.read(REPLY_BYTES_MAX)
            if gateway.fibers.running is not None:
                await STEP
            looking = flight.escalation
            if looking is None or not looking.looks_at(candidate) or flight.exchange.answer.gone:
                return self._whole(response, body)
            start.first_byte_us = gateway.clock.now_us()
            return self._whole(response, body, await self._problem(looking, escalation.completion(candidate, body)))
        except TransportError as error:
            return self._transport_failure(error, "failed_before_content")
        finally:
            response.close()

    # --- how it ends ----------------------------------------------------------------------------------------------------

    def end(
        self,
        ending: Ending,
        *,
        outcome: str,
        finish_reason: str = "",
        native_finish_reason: str = "",
        error: str = "",
        flags: tuple[str, ...] = (),
    ) -> Verdict:
        """The attempt is over; bill it by what was seen."""
        if self.relay is not None and self.relay.malformed:
            flags = (*flags, MALFORMED_FLAG)
            self.flight.gateway.metrics.malformed(self.start.provider)
        return self.flight.settlement.end_attempt(
            ending,
            self.seen(),
            outcome=outcome,
            finish_reason=finish_reason,
            native_finish_reason=native_finish_reason,
            error=error,
            n=self.start.n,
            flags=flags,
        )

    def _transport_failure(self, error: TransportError, ending: Ending) -> Failure:
        timed_out = isinstance(error, (ConnectTimeout, HeadersTimeout, ChunkTimeout, TotalTimeout, GivenUp))
        outcome = "timeout" if timed_out else "broken" if error.sent else "connect_error"
        self.end(ending, outcome=outcome, error=str(error))
        name = self.candidate.target.provider.title
        if timed_out:
            told = FareboxError(Kind.UPSTREAM_TIMEOUT, f"{name} did not answer in time", should_retry=False)
        else:
            told = FareboxError(Kind.UPSTREAM_BAD, f"{name} could not be reached or broke off: {error}", should_retry=False)
        # A provider that was silent until the time-out is not asked twice.
        silent = timed_out and not isinstance(error, ConnectTimeout)
        return Failure(told, "offer" if silent or isinstance(error, BodyTooLarge) else "nothing")

    async def _refused(self, response: Response) -> Failure:
        """An error status: nothing was generated, nobody pays."""
        body = await response.read(ERROR_BYTES_MAX)
        found = bridge.failure(self.candidate, body, response.header, status=response.status)
        return self._upstream_failure(found, "refused", "http_error")

    def _upstream_failure(self, found: UpstreamError, ending: Ending, outcome: str) -> Failure:
        start, flight = self.start, self.flight
        start.kind = found.kind
        start.retry_after_us = None if found.retry_after_s is None else int(found.retry_after_s * 1_000_000)
        self.end(ending, outcome=outcome, error=found.message)
        other_key = found.kind in KEY_KINDS and flight.gateway.has_other_key(self.candidate, flight.settlement.attempts)
        return upstream_failure(found, self.candidate, other_key=other_key)

    def _garbage(self, problem: str) -> Failure:
        problem = bridge.without_keys(problem, self.candidate.target)
        self.end("failed_before_content", outcome="garbage", error=problem)
        name = self.candidate.target.provider.title
        told = FareboxError(Kind.UPSTREAM_BAD, f"{name} sent an answer that is not of its API", should_retry=False)
        return Failure(told)

    # --- whole answers --------------------------------------------------------------------------------------------------

    def _whole(self, response: Response, body: bytes, reason: str = "") -> Failure | None:
        """An answer that is not streamed. `reason`: why it will not do, where it was looked at."""
        flight, candidate, start = self.flight, self.candidate, self.start
        came_us = start.first_byte_us
        if came_us is None:
            came_us = start.first_byte_us = flight.gateway.clock.now_us()
        try:
            reply = bridge.reply(flight.call, candidate, body, created_s=came_us // 1_000_000)
        except NotACompletion as error:
            return self._garbage(str(error))
        if reply.failure is not None:
            found = bridge.failure(candidate, reply.failure, response.header)
            return self._upstream_failure(found, "failed_before_content", "error_in_body")
        report = reply.report()
        # The answer is measured only where its usage is missing.
        observed = 0 if report is not None and report.usage is not None else reply.observed_output_tokens()
        verdict = flight.settlement.end_attempt(
            "complete",
            Seen(report, observed, None, flight.plan.input_estimate),
            outcome="ok",
            finish_reason=reply.finish_reason,
            native_finish_reason=reply.native_finish_reason,
            error=reason,
            flags=(ESCALATED_FLAG,) if reason else (),
            n=start.n,
            ended_us=None if reason else came_us,
        )
        if reason:
            assert flight.escalation is not None, "it was looked at"
            return flight.escalation.keep(candidate, reply, verdict, reason)
        flight.deliver(reply, verdict, at_once=True)
        return None

    async def _problem(self, looking: Escalation, answer: Completion | None) -> str:
        """Why a whole answer will not do; empty when it will, or cannot be read."""
        if answer is None:
            return ""
        reason = looking.problem(self.candidate, answer)
        if reason or not looking.rates:
            return reason
        return looking.rated(await rating.rate(self.flight, self.candidate, answer))

    # --- streams --------------------------------------------------------------------------------------------------------

    async def _stream(self, response: Response) -> Failure | None:
        flight, candidate = self.flight, self.candidate
        kind = response.header(b"content-type") or b""
        if kind.startswith((b"application/json", b"text/html")):
            body = await response.read(ERROR_BYTES_MAX)
            if b'"error"' in body or b'"base_resp"' in body:
                found = bridge.failure(candidate, body, response.header)
                return self._upstream_failure(found, "failed_before_content", "error_in_body")
            return self._garbage(f"`{kind[:64].decode('latin-1')}` in place of an event stream")
        make = bridge.relay if flight.rest is None else flight.rest.relay
        relay = self.relay = make(flight.call, candidate, id=flight.call_id, created_s=flight.created_s())
        if flight.escalation is not None and flight.escalation.looks_at(candidate):
            self.withheld = Withheld(candidate, relay)
        answer = flight.exchange.answer
        flight.task = asyncio.current_task()
        answer.on_gone = flight.client_left
        try:
            broken = await (self._forward(relay, response) if self.withheld is None else self._withhold(self.withheld, response))
        except asyncio.CancelledError:
            if not flight.interrupted:
                raise
            # Cancelled by our own watcher or ticker: the client is gone, the call is not.
            if flight.task is not None:
                flight.task.uncancel()
            answer.gone = True
            broken = None
        if answer.gone and not relay.finished:
            self._client_gone(response)
            return None
        if relay.failure is not None or not relay.finished or not relay.content_started:
            # An end mark behind nothing, not even a reason to finish, is no answer.
            return self._broken(relay, response, broken)
        looking, withheld, reason = flight.escalation, self.withheld, ""
        if looking is not None and withheld is not None and not answer.gone:
            # Whoever leaves from now on interrupts nothing: what is left to do is short.
            flight.task = None
            self._leave(relay, response)
            reason = await self._problem(looking, withheld.completion())
            if answer.gone:
                reason = ""
        verdict = self.end(
            "drained" if answer.gone else "complete",
            outcome="ok",
            finish_reason=relay.finish_reason,
            native_finish_reason=relay.native_finish_reason,
            error=reason,
            flags=(ESCALATED_FLAG,) if reason else (),
        )
        if looking is not None and withheld is not None and reason:
            answer.on_gone = None
            return looking.keep(candidate, withheld, verdict, reason)
        flight.deliver_stream(relay, verdict, withheld)
        if withheld is None:
            self._leave(relay, response)
        return None

    @staticmethod
    def _leave(relay: Relay, response: Response) -> None:
        """Only the end of the body is due now. The call is over, and must not hold its place for as long as that takes."""
        if relay.done:
            response.leave_to_end()

    async def _forward(self, relay: Relay, response: Response) -> TransportError | MalformedStream | None:
        """Pump the provider's bytes to the client until the end; the meter sees everything, the client what it may."""
        flight, start = self.flight, self.start
        answer = flight.exchange.answer
        gateway = flight.gateway
        transcript = None if flight.recovery is None else flight.recovery.transcript

        def take(data: bytes) -> bool:
            """One piece of the provider's body, straight from its socket to the client's. True to go on."""
            out = relay.feed(data) if data else relay.end()
            if start.first_byte_us is None and relay.content_started:
                start.first_byte_us = gateway.clock.now_us()
                if gateway.health.broken:
                    gateway.answers(self.candidate.target, start)
            clogged = False
            if out and not answer.gone:
                if not answer.started:
                    answer.start(flight.stream_headers())
                clogged = answer.send(out)
                if transcript is not None:
                    transcript.add(out)
                gateway.fail_point("stream.after_first_chunk")
            return not (clogged or relay.done or relay.failure is not None)

        try:
            while await response.pump(take):
                if relay.done or relay.failure is not None:
                    return None
                flight.sending_us = gateway.clock.monotonic_us()
                await answer.drain()
                flight.sending_us = 0
            take(b"")
        except (TransportError, MalformedStream) as error:
            return error
        return None

    async def _withhold(self, withheld: Withheld, response: Response) -> TransportError | MalformedStream | None:
        """Keep the provider's bytes until the end. What gets too long for that is released, and goes on as any stream."""
        flight, start, relay = self.flight, self.start, withheld.relay
        answer = flight.exchange.answer
        gateway = flight.gateway

        def take(data: bytes) -> bool:
            out = relay.feed(data) if data else relay.end()
            if start.first_byte_us is None and relay.content_started:
                start.first_byte_us = gateway.clock.now_us()
                if gateway.health.broken:
                    gateway.answers(self.candidate.target, start)
            withheld.take(data, out)
            return not (relay.done or relay.failure is not None or withheld.full)

        try:
            while await response.pump(take):
                if relay.done or relay.failure is not None:
                    return None
                self.withheld = None
                out = withheld.released()
                if not answer.gone:
                    answer.start(flight.stream_headers())
                    answer.send(out)
                    if flight.recovery is not None and flight.recovery.transcript is not None:
                        flight.recovery.transcript.add(out)
                return await self._forward(relay, response)
            take(b"")
        except (TransportError, MalformedStream) as error:
            return error
        return None

    def _client_gone(self, response: Response) -> None:
        """The client left before the end: bill what was seen, hang up."""
        response.close()
        self.end("client_gone", outcome="client_gone", finish_reason="cancelled")
        self.flight.settlement.settle(cancelled=True)
        self.flight.gateway.finished(self.flight, "client_gone", 499)

    def _broken(self, relay: Relay, response: Response, broken: TransportError | MalformedStream | None) -> Failure | None:
        """An error inside the stream, or an end before the end: fail over if the client has nothing yet, else say so."""
        found: UpstreamError | None = None
        if relay.failure is not None:
            found = bridge.failure(self.candidate, relay.failure, response.header)
        if not relay.content_started or self.withheld is not None:
            if found is not None:
                return self._upstream_failure(found, "failed_before_content", "error_event")
            if isinstance(broken, TransportError):
                return self._transport_failure(broken, "failed_before_content")
            early = "before any content" if not relay.content_started else "without its terminal event"
            return self._garbage(f"the stream ended {early}" if broken is None else str(broken))
        timed_out = isinstance(broken, (ChunkTimeout, TotalTimeout, GivenUp))
        reason = "error_event" if found is not None else "timeout" if timed_out else "truncated"
        message = found.message if found is not None else str(broken or "the stream ended without its terminal event")
        error = FareboxError(
            Kind.UPSTREAM_BAD,
            f"{self.candidate.target.provider.title} broke off in the middle of the answer: {message}",
            code="upstream_truncated" if found is None else None,
            should_retry=False,
            details={"reason": reason},
        )
        taken_over = self.flight.take_over(self, error)
        ending: Ending = "taken_over" if taken_over else "truncated"
        self.end(ending, outcome=reason, finish_reason="error", error=message)
        if taken_over:
            self.flight.exchange.answer.on_gone = None
            # Whoever was silent until the time-out is not asked twice, not for the rest either.
            return Failure(error, "offer" if timed_out else "nothing")
        self.flight.break_off(error, reason)
        return None
