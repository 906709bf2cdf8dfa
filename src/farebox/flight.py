"""Flights: a call from its first attempt to its settlement. Try, retry and fail over until the first content byte reaches the
client; go on with a stream that broke off; settle.

Whatever ends a flight (an answer, an error, a vanished client, a cancelled task), its settlement is closed in a `finally`. Two
endings need care: a client that hangs up where the provider honours that is cut and billed by what was seen; where it does not,
the stream is read on, unsent, to its usage. What one attempt does is in `attempt`, what its failure means in `verdict`, who is
next in `routing.retry`.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from farebox import bridge, continuation
from farebox.attempt import UNSUPPORTED, Try
from farebox.billing import seams
from farebox.billing.meter import RATING_FLAG, SEAM_FLAG, Seen, Verdict
from farebox.billing.settlement import Settlement, cost_fields, cost_members
from farebox.bridge import Outgoing
from farebox.continuation import Recovery, Rest
from farebox.errors import FareboxError
from farebox.escalation import Escalation, Withheld
from farebox.exchange import Exchange
from farebox.money import format_amount
from farebox.routing import explain
from farebox.routing.filters import Exclusion
from farebox.routing.patience import NO_DEMAND, Demand
from farebox.routing.plan import CONTINUATION, TRANSLATION, Candidate, Plan, passed_over, without
from farebox.routing.retry import Next, Tries
from farebox.step import STEP
from farebox.verdict import Failure, barred
from farebox.wires.call import Call
from farebox.wires.relay import Relay, Reply, with_members
from farebox.wires.usage import Usage

if TYPE_CHECKING:
    from farebox.gateway import Gateway
    from farebox.race import Lane

CHECKPOINT_US: Final = 2_000_000
CHECKPOINT_TOKENS: Final = 256
SEND_STALL_US: Final = 30_000_000
"""A client that takes no bytes for this long counts as gone."""

_JSON: Final = b"content-type: application/json\r\n"
_EVENT_STREAM: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Flight:
    """One call on its way; in `Gateway.flights` from its first attempt to its end, where the ticker looks after it."""

    __slots__ = (
        "_trying", "call", "checkpoint_tokens", "checkpoint_us", "deadline_us", "demand", "escalation", "exchange", "gateway",
        "gone_us", "interrupted", "lane", "passed_over", "plan", "recovery", "sending_us", "settlement", "started_us", "task",
    )

    def __init__(
        self,
        gateway: "Gateway",
        exchange: Exchange,
        call: Call,
        plan: Plan,
        settlement: Settlement,
        recovery: Recovery | None,
        demand: Demand,
        escalation: Escalation | None,
        started_us: int,
        deadline_us: int,
        checkpoint_us: int,
        checkpoint_tokens: int = 0,
        sending_us: int = 0,
        gone_us: int = 0,
        interrupted: bool = False,
        task: asyncio.Task[object] | None = None,
        lane: "Lane | None" = None,
    ) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.call = call
        self.plan = plan
        self.settlement = settlement
        self.recovery = recovery
        self.demand = demand
        self.escalation = escalation
        self.started_us = started_us
        self.deadline_us = deadline_us
        self.checkpoint_us = checkpoint_us
        self._trying: Try | None = None
        self.checkpoint_tokens = checkpoint_tokens
        self.sending_us = sending_us
        self.gone_us = gone_us
        self.interrupted = interrupted
        self.task = task
        """What is interrupted when the client of a stream leaves."""
        self.lane = lane
        """Where the call is hedged, and another flight may be under way beside this one."""
        self.passed_over: dict[int, Exclusion] | None = None
        """Candidates that could not be told the call, or not the rest of an answer, by their places in the plan."""

    @staticmethod
    def of(
        gateway: "Gateway",
        exchange: Exchange,
        call: Call,
        plan: Plan,
        settlement: Settlement,
        recovery: Recovery | None = None,
        demand: Demand = NO_DEMAND,
    ) -> "Flight":
        """Of a call whose hold, and with it the first attempt, is open."""
        first = settlement.current
        assert first is not None, "the hold has opened the first attempt"
        standing = plan.standing
        escalates = standing is not None and standing.escalation is not None and plan.escalates(call)
        escalation = Escalation(call, plan) if escalates else None
        now_us = first.chosen_us
        deadline_us = now_us + gateway.total_us(plan, demand)
        flight = Flight(
            gateway, exchange, call, plan, settlement, recovery, demand, escalation, now_us, deadline_us, now_us
        )
        flight._trying = Try(flight, plan.candidates[0], first)
        return flight

    @property
    def call_id(self) -> str:
        """What the client knows the call by; also the name of its hold, unless it is a second one beside it."""
        return self.settlement.id if self.lane is None else self.lane.call_id

    @property
    def trying(self) -> Try:
        """The attempt under way, or the last one."""
        found = self._trying
        assert found is not None, "a flight has an attempt until it has ended"
        return found

    @property
    def candidate(self) -> Candidate:
        """Who is asked, or was last."""
        return self.trying.candidate

    @property
    def rest(self) -> Rest | None:
        """How the stream goes on that another attempt began; None while nobody has delivered anything."""
        return None if self.recovery is None else self.recovery.rest

    @property
    def _withheld(self) -> Withheld | None:
        """The stream in whose place a stronger model's is waited for."""
        kept = None if self.escalation is None else self.escalation.kept
        return kept.answer if kept is not None and isinstance(kept.answer, Withheld) else None

    # --- the loop over attempts -------------------------------------------------------------------------------------

    async def run(self, *, counted: bool = True) -> None:
        """Answer the call, or raise the `FareboxError` that tells why not. The settlement is terminal when this returns. A call
        is `counted` once, whose retries are bounded by the number of calls."""
        gateway = self.gateway
        gateway.flights[self] = None
        if counted:
            gateway.retries.called(self.started_us)
        try:
            if gateway.fibers.running is not None:
                await STEP
            failure = await self.trying.run()
            if failure is None:
                return
            index, tries = 0, Tries()
            error = failure.error
            while True:
                if self.lane is not None and not await self.lane.goes_on(failure, tries):
                    return
                coming = self._following(failure, index, tries)
                if coming is None:
                    self._give_up(error)
                    return
                following, outgoing = coming
                if following.wait_s:
                    await asyncio.sleep(following.wait_s)
                    if self.exchange.answer.gone:
                        # Who has left meanwhile is to pay for no further attempt.
                        self._give_up(error)
                        return
                index = following.candidate
                self._trying = self._next_try(index, outgoing)
                failure = await self.trying.run()
                if failure is None:
                    return
                if not failure.unsaid:
                    # What one cannot be told does not hide why the others failed.
                    error = failure.error
        finally:
            gateway.flights.pop(self, None)
            self.exchange.answer.on_gone = None
            if not self.settlement.done:
                gone, trying = self.exchange.answer.gone, self.trying
                # Of what was withheld nobody got anything.
                unseen = trying.withheld is not None and not gone
                seen = Seen(None, estimated_input=self.plan.input_estimate) if unseen else trying.seen()
                self.settlement.close(seen, gone=gone)
            # The two know each other; memory is free at once when one forgets.
            self._trying = None

    def _following(self, failure: Failure, index: int, tries: Tries) -> tuple[Next, Outgoing] | None:
        """Who is asked after the candidate at `index` has failed, when, and with what; None to give up.

        Whoever cannot be told the call is passed over: nobody was asked, so it takes none of the attempts and nothing of what
        retries may take. Each is passed over once, so this ends.
        """
        gateway, rest = self.gateway, self.rest
        now_us = gateway.clock.monotonic_us()
        will_not_do = None if self.escalation is None else self.escalation.barred(failure)
        bars = self._barred(failure, index) if will_not_do is None else will_not_do
        tries.failed(index, now_us, retry_after_s=failure.retry_after_s, barred=bars)
        policy = gateway.retry_policy_for(self.plan, self.demand)
        attempts = 0 if self.lane is None else self.lane.others
        for one in self.settlement.attempts:
            if RATING_FLAG not in one.flags and one.outcome != UNSUPPORTED:
                attempts += 1
        chance = gateway.random.uniform()
        while True:
            following = tries.following(
                range(len(self.plan.candidates)) if rest is None else rest.able,
                policy,
                attempts=attempts,
                now_us=now_us,
                deadline_us=self.deadline_us,
                chance=chance,
            )
            if following is None or self.exchange.answer.gone:
                return None
            outgoing = self.said(following.candidate)
            if outgoing is None:
                tries.pass_over(following.candidate)
                continue
            # A second opinion is no retry: it does not come out of what those may take.
            return (following, outgoing) if will_not_do is not None or gateway.retries.take(now_us) else None

    def outgoing(self, candidate: Candidate) -> Outgoing:
        """What a candidate is sent: the call, or what is asked of whoever goes on. Raises `FareboxError`."""
        rest, drop = self.rest, self.exchange.wishes.drops_unsupported
        if rest is not None:
            return rest.outgoing(self.call, candidate, drop_unsupported=drop)
        return bridge.outgoing(self.call, candidate, drop_unsupported=drop)

    def said(self, index: int) -> Outgoing | None:
        """What the candidate at `index` is sent; None when it cannot be told, which is noted."""
        rest = self.rest
        candidate = self.plan.candidates[index] if rest is None else rest.candidates[index]
        try:
            return self.outgoing(candidate)
        except FareboxError as error:
            if self.passed_over is None:
                self.passed_over = {}
            rule = TRANSLATION if rest is None else CONTINUATION
            self.passed_over.setdefault(index, passed_over(candidate, rule, error.message))
            if self.recovery is not None and rest is not None and SEAM_FLAG in self.settlement.attempts[-1].flags:
                # Nobody has been asked to go on so far.
                self.recovery.problem = continuation.NO_CANDIDATE
            return None

    def _barred(self, failure: Failure, index: int) -> tuple[int, ...]:
        """Whom a failure of the candidate at `index` rules out."""
        if self.rest is None:
            return barred(failure, index, self.plan.candidates)
        # One that cannot go on with another's answer says nothing about the others.
        return () if failure.bars == "nothing" else (index,)

    def _next_try(self, index: int, outgoing: Outgoing) -> Try:
        """Another attempt, written down before its first byte."""
        candidate = self.plan.candidates[index]
        start = self.gateway.start_attempt(
            candidate,
            len(self.settlement.attempts) + 1,
            streamed=self.call.stream,
            continues=self.rest is not None,
            tried=self.settlement.attempts,
        )
        self.settlement.dispatch(start)
        self.checkpoint_tokens = 0
        if self.rest is not None and self.recovery is not None:
            self.recovery.problem = ""
        return Try(self, candidate if self.rest is None else self.rest.candidates[index], start, outgoing=outgoing)

    # --- endings ----------------------------------------------------------------------------------------------------

    def deliver(self, reply: Reply, verdict: Verdict, *, at_once: bool) -> None:
        """Settle, and send a whole answer of the candidate at hand. `at_once`: its attempt has ended at this moment."""
        gateway, settlement, candidate = self.gateway, self.settlement, self.trying.candidate
        settlement.settle(cancelled=self.exchange.answer.gone, settled_at_once=at_once)
        gateway.fail_point("settle.after_journal")
        usage, extra, cost = self._told(verdict)
        data = reply.write(id=self.call_id, provider=candidate.target.provider.name, usage=usage, extra=extra)
        if self.exchange.wishes.tells:
            data = with_members(data, b'"farebox":%b' % self.metadata())
        gateway.finished(self, "ok", 200)
        paid = f"x-farebox-cost-usd: {cost}\r\nx-litellm-response-cost: {cost}\r\n".encode()
        self.exchange.answer.whole(200, _JSON + self.headers() + paid, data)

    def deliver_stream(self, relay: Relay, verdict: Verdict, withheld: Withheld | None = None) -> None:
        """Settle, and send the end of a stream of the candidate at hand; all of it, if it was withheld."""
        gateway, settlement, answer = self.gateway, self.settlement, self.exchange.answer
        settlement.settle(cancelled=answer.gone)
        gateway.fail_point("settle.after_journal")
        gateway.finished(self, "ok", 200)
        usage, extra, _ = self._told(verdict)
        answer.start(self.stream_headers())
        # A comment: readers of event streams skip it, and no SDK has to know of it.
        told = b": farebox %b\n\n" % self.metadata() if self.exchange.wishes.tells else b""
        first = b"" if withheld is None else withheld.released()
        answer.end(first + told + relay.finish(usage, extra))

    def _told(self, verdict: Verdict) -> tuple[Usage, bytes, str]:
        """The usage that the client is told, the cost members with it, and the cost in USD."""
        settlement = self.settlement
        cost = format_amount(settlement.charge_nano)
        fees = self.trying.candidate.quoted.fees
        own_key = fees is not None and fees.own_key
        if settlement.pieced:
            shown = seams.shown(settlement.attempts)
            costs = shown.upstream_nano, shown.prompt_nano, shown.completion_nano
            return shown.usage, cost_members(*costs, cost, estimated=True, own_key=own_key), cost
        usage, estimated = verdict.usage or Usage(), verdict.basis != "reported"
        if own_key or any(seams.aside(one) for one in settlement.attempts):
            # The usage is the answer's; the costs are of everything that was paid for it, to whomever.
            costs = seams.list_costs_nano(settlement.attempts)
            return usage, cost_members(*costs, cost, estimated=estimated, own_key=own_key), cost
        return usage, cost_fields(settlement.last_bill, usage, cost, estimated=estimated), cost

    def _give_up(self, error: FareboxError) -> None:
        if self.recovery is not None and self.recovery.broke is not None:
            # The client is told of the break, not of who could not mend it.
            self.break_off(self.recovery.broke, "not_continued")
            return
        kept = None if self.escalation is None else self.escalation.kept
        if kept is not None:
            # Nobody stronger had a better one.
            self.trying.candidate = kept.candidate
            if isinstance(kept.answer, Withheld):
                self.deliver_stream(kept.answer.relay, kept.verdict, kept.answer)
            else:
                self.deliver(kept.answer, kept.verdict, at_once=False)
            return
        self.settlement.settle(state="voided" if not self.settlement.charge_nano else "settled")
        error.details = {
            **error.details,
            "attempts": [self._attempt_summary(n) for n in range(len(self.settlement.attempts))],
            **self._excluded(),
        }
        self.gateway.finished(self, "failed", error.status)
        if self.exchange.answer.started:
            # Only keep-alives were sent so far, but the status line is out: the error has to travel in the stream.
            self.exchange.answer.end(self._relay().fail(error))
            return
        raise error

    def _excluded(self) -> dict[str, object]:
        """Who was passed over, and why, for the details of an error."""
        passed = self.passed_over
        return {} if passed is None else {"excluded": [msgspec.structs.asdict(one) for one in passed.values()]}

    def _attempt_summary(self, n: int) -> dict[str, object]:
        attempt = self.settlement.attempts[n]
        return {"provider": attempt.provider, "outcome": attempt.outcome, "status": attempt.status}

    def take_over(self, broken: Try, error: FareboxError) -> bool:
        """Whether somebody may go on with the stream that just broke off with `error`."""
        recovery, answer = self.recovery, self.exchange.answer
        if recovery is None or answer.gone:
            return False
        broken.text_bytes = recovery.text_bytes()
        seen = broken.seen()
        delivered = seams.delivered_tokens(self.settlement.attempts)
        reported = seen.report.usage.completion_tokens if seen.report is not None and seen.report.usage is not None else 0
        return recovery.take_over(
            self.plan,
            attempt=broken.start.n,
            output_tokens=delivered + max(seen.output_tokens, reported),
            room_nano=self.settlement.room_nano(seen),
            told=error,
        )

    def break_off(self, error: FareboxError, outcome: str) -> None:
        """A stream ends in the middle: the client is told why, and gets no mark of success."""
        if not self.exchange.answer.gone:
            self.settlement.forgive()
        self.settlement.settle()
        self.gateway.finished(self, "client_gone" if self.exchange.answer.gone else outcome, 200)
        if self.recovery is not None:
            told = self.recovery.problem or continuation.NOT_CONTINUED
            error.details = {**error.details, "stream_recovery": told, **self._excluded()}
        self.exchange.answer.start(self.stream_headers())
        self.exchange.answer.end(self._relay().fail(error))

    def _relay(self) -> Relay:
        """The relay of the attempt under way, or one that can at least tell an error."""
        return self.trying.relay or bridge.relay(
            self.call, self.candidate, id=self.call_id, created_s=self.created_s()
        )

    # --- what the client is told of the call ------------------------------------------------------------------------

    def created_s(self) -> int:
        return self.gateway.clock.now_us() // 1_000_000

    def metadata(self) -> bytes:
        """The plan, and what became of it, as JSON."""
        settlement = self.settlement
        plan = self.plan if self.passed_over is None else without(self.plan, self.passed_over)
        return msgspec.json.encode(
            {
                "plan": self.gateway.explained(self.call, plan, self.demand),
                "hedge": None if self.lane is None else self.lane.told(),
                "attempts": [explain.attempted(one) for one in settlement.attempts],
                "seams": [] if self.recovery is None else [msgspec.structs.asdict(seam) for seam in self.recovery.seams],
                "hold_usd": format_amount(settlement.hold_nano),
            }
        )

    def headers(self) -> bytes:
        """Who answered, after how many attempts, and what was left out, as header lines."""
        settlement, trying = self.settlement, self.trying
        lines = b"%b%bx-farebox-attempts: %d\r\nx-generation-id: %b\r\n" % (
            self.exchange.base,
            trying.candidate.target.head,
            len(settlement.attempts) + len(settlement.under_way) + (0 if self.lane is None else self.lane.others),
            self.call_id.encode(),
        )
        if self.lane is not None:
            lines += self.lane.header
        if trying.dropped:
            lines += b"x-farebox-dropped: %b\r\n" % ", ".join(trying.dropped).encode("ascii", "replace")
        if self.escalation is not None:
            lines += self.escalation.header(trying.candidate)
        return lines

    def stream_headers(self) -> bytes:
        return _EVENT_STREAM + self.headers()

    # --- the client hangs up ----------------------------------------------------------------------------------------

    def client_left(self) -> None:
        """The client hung up. Where that stops the provider's billing we hang up, too; else we read on to the usage."""
        if self.gone_us:
            return
        self.gone_us = self.gateway.clock.monotonic_us()
        self.exchange.answer.gone = True
        if self.candidate.target.provider.abort_stops_billing or not self.gateway.may_drain():
            self.interrupt()

    def interrupt(self) -> None:
        """Break into whatever the flight is waiting for."""
        if not self.interrupted and self.task is not None and not self.settlement.done:
            self.interrupted = True
            self.task.cancel()

    # --- the ticker's visits ----------------------------------------------------------------------------------------

    def tick(self, now_us: int) -> bool:
        """A few times a second: checkpoints, stalled clients, overlong drains. True when a keep-alive is due."""
        trying = self.trying
        relay = trying.relay
        settings = self.gateway.settings
        if self.gone_us and now_us - self.gone_us > settings.drain_us:
            self.interrupt()
            return False
        if relay is None:
            return self._withheld is not None and now_us - self.checkpoint_us >= settings.keepalive_us
        if trying.first_token_us and now_us > trying.first_token_us and not relay.content_started:
            trying.first_token_us = 0
            if trying.response is not None:
                trying.response.give_up("no content within the time-out for the first token")
            return False
        if self.sending_us and now_us - self.sending_us > SEND_STALL_US:
            self.client_left()
            self.interrupt()
            return False
        if relay.content_started and trying.withheld is None:
            if self.lane is not None and self.lane.lost:
                return False  # what nobody got is charged to nobody, not after a crash either
            tokens = relay.observed_output_tokens()
            if tokens - self.checkpoint_tokens >= CHECKPOINT_TOKENS or now_us - self.checkpoint_us >= CHECKPOINT_US:
                self.checkpoint(relay, tokens, now_us)
            return False
        return now_us - self.checkpoint_us >= settings.keepalive_us

    def checkpoint(self, relay: Relay, tokens: int, now_us: int) -> None:
        self.checkpoint_us = now_us
        self.checkpoint_tokens = tokens
        known = relay.observed_input()
        base = known if known is not None else Usage(input=self.plan.input_estimate)
        usage = msgspec.structs.replace(base, output=tokens)
        self.settlement.progress(usage, exact_input=known is not None, n=self.trying.start.n)
        self.gateway.fail_point("stream.after_checkpoint")

    def keepalive(self, now_us: int) -> None:
        """Tell the client and what stands between that the answer is still coming."""
        relay = self.trying.relay
        if relay is None and self._withheld is not None:
            relay = self._withheld.relay
        if relay is None or self.exchange.answer.gone:
            return
        self.checkpoint_us = now_us
        waiting = None if self.lane is None else self.lane.undecided
        if waiting is not None:
            # Nobody knows yet who will answer.
            waiting.start(b"%b%bx-generation-id: %b\r\n" % (_EVENT_STREAM, self.exchange.base, self.call_id.encode()))
            waiting.send(relay.keepalive())
            return
        self.exchange.answer.start(self.stream_headers())
        self.exchange.answer.send(relay.keepalive())
