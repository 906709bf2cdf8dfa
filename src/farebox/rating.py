"""A cheap model's own rating of its answer: a short second request, an attempt of the call, written down and billed like any.

It is asked while the rated attempt is still under way, so that a worker that dies in between leaves two attempts of which nobody
got anything. No rating, for whatever reason, is no reason to ask a stronger model.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from farebox import bridge, escalation
from farebox.billing.journal import JournalError
from farebox.billing.meter import RATING_FLAG, Ending, Seen
from farebox.quality import rating
from farebox.routing.plan import Candidate
from farebox.transport import ConnectTimeout, HeadersTimeout, Response, TransportError
from farebox.wires.neutral import Completion
from farebox.wires.relay import ESTIMATE_BYTES_PER_TOKEN, NotACompletion

if TYPE_CHECKING:
    from farebox.billing.settlement import AttemptStart
    from farebox.flight import Flight

RATING_S_MAX = 15.0
"""Longer nobody waits for a rating."""
RATING_BYTES_MAX = 256 * 2**10


async def rate(flight: "Flight", candidate: Candidate, answer: Completion) -> int | None:
    """How sure a candidate is of its answer, in percent; None when it does not say."""
    question = rating.question(bridge.conversation(flight.call), answer)
    left_s = min(RATING_S_MAX, (flight.deadline_us - flight.gateway.clock.monotonic_us()) / 1_000_000)
    if question is None or left_s <= 0:
        return None
    body = bridge.request(candidate, question, output_cap=rating.OUTPUT_TOKENS_MAX)
    gateway, settlement = flight.gateway, flight.settlement
    start = gateway.start_attempt(candidate, len(settlement.attempts) + len(settlement.under_way) + 1, streamed=False)
    start.flags = (RATING_FLAG,)
    try:
        settlement.dispatch(start, beside=True)
    except JournalError:
        return None
    head, extra_headers, lines = gateway.upstream_head(candidate.target, flight.exchange, settlement.id, start)
    timeouts, _ = gateway.timeouts_for(candidate.target, flight)
    timeouts = replace(
        timeouts,
        connect_s=min(timeouts.connect_s, left_s),
        headers_s=min(timeouts.headers_s, left_s),
        chunk_s=min(timeouts.chunk_s, left_s),
        total_s=left_s,
    )
    gateway.begin(start, candidate.target)
    try:
        response = await gateway.client.send(head, body, extra_headers=extra_headers, timeouts=timeouts, lines=lines)
    except TransportError as error:
        silent = isinstance(error, (ConnectTimeout, HeadersTimeout))
        ending: Ending = "failed_before_content" if error.sent else "failed_unsent"
        _failed(flight, start, ending, "timeout" if silent else "broken", error)
        return None
    start.status = response.status
    try:
        return await _read(flight, candidate, start, response, input_estimate=-(-len(body) // ESTIMATE_BYTES_PER_TOKEN))
    except TransportError as error:
        _failed(flight, start, "failed_before_content", "broken", error)
        return None
    finally:
        response.close()


async def _read(
    flight: "Flight", candidate: Candidate, start: "AttemptStart", response: Response, *, input_estimate: int
) -> int | None:
    body = await response.read(RATING_BYTES_MAX)
    now_us = start.first_byte_us = flight.gateway.clock.now_us()
    if response.status != 200:
        found = bridge.failure(candidate, body, response.header, status=response.status)
        start.kind = found.kind
        _failed(flight, start, "refused", "http_error", found.message)
        return None
    try:
        reply = bridge.reply(flight.call, candidate, body, created_s=now_us // 1_000_000)
    except NotACompletion as error:
        problem = bridge.without_keys(str(error), candidate.target)
        _failed(flight, start, "failed_before_content", "garbage", problem)
        return None
    if reply.failure is not None:
        found = bridge.failure(candidate, reply.failure, response.header)
        start.kind = found.kind
        _failed(flight, start, "failed_before_content", "error_in_body", found.message)
        return None
    report = reply.report()
    observed = 0 if report is not None and report.usage is not None else reply.observed_output_tokens()
    flight.settlement.end_attempt(
        "complete",
        Seen(report, min(observed, rating.OUTPUT_TOKENS_MAX), None, input_estimate),
        outcome="ok",
        finish_reason=reply.finish_reason,
        native_finish_reason=reply.native_finish_reason,
        n=start.n,
    )
    said = escalation.completion(candidate, body)
    return None if said is None else rating.percent(said)


def _failed(flight: "Flight", start: "AttemptStart", ending: Ending, outcome: str, error: object) -> None:
    flight.settlement.end_attempt(
        ending,
        Seen(None),
        outcome=outcome,
        error=str(error),
        n=start.n,
    )
