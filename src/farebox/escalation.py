"""Escalation: the cheap models answer first; where their answer will not do, a strong one does. Pure.

Only for whole answers: nothing has reached the client when the answer is looked at. Both are billed and both are attempts of the
call (docs/routing.md). When no strong model answers either, the client gets the answer that there is.
"""

import msgspec

from farebox import bridge
from farebox.billing.meter import Verdict
from farebox.errors import FareboxError, Kind
from farebox.quality import check
from farebox.routing.plan import Candidate, Plan
from farebox.verdict import Failure
from farebox.wires.call import Call
from farebox.wires.neutral import ResponseFormat, UpstreamFailure, UpstreamGarbage
from farebox.wires.relay import Reply

_FORMATS = frozenset({"json_schema", "json_mode"})


class Kept(msgspec.Struct, frozen=True):
    """The answer that would not do, as long as there is no better one."""

    candidate: Candidate
    reply: Reply
    verdict: Verdict
    reason: str
    failure: Failure


class Escalation:
    """What one call's flight knows of it."""

    __slots__ = ("call", "kept", "plan")

    def __init__(self, call: Call, plan: Plan) -> None:
        self.call = call
        self.plan = plan
        self.kept: Kept | None = None

    def problem(self, candidate: Candidate, body: bytes) -> str:
        """What is wrong with a candidate's whole answer; empty when it will do, or when nobody stronger can be asked."""
        standing = self.plan.standing
        assert standing is not None and standing.escalation is not None, "only plans that escalate have one"
        if self.kept is not None or candidate.target.model.slug in standing.strong:
            return ""
        caps = [one.bound.cap for one in self.plan.candidates if one.target.model.slug in standing.strong]
        try:
            answer = bridge.completion(candidate, body)
        except (UpstreamFailure, UpstreamGarbage):
            # What cannot be read cannot be judged.
            return ""
        room = self.call.output_cap is None or max(caps) > candidate.bound.cap
        return check.problem(standing.escalation, answer, self._format(), room=room)

    def keep(self, candidate: Candidate, reply: Reply, verdict: Verdict, reason: str) -> Failure:
        """Go on to the strong models. The failure is what the client would be told if there were no answer at all."""
        error = FareboxError(Kind.UPSTREAM_BAD, f"the answer would not do: {reason}", should_retry=False)
        failure = Failure(error)
        self.kept = Kept(candidate, reply, verdict, reason, failure)
        return failure

    def barred(self, failure: Failure) -> tuple[int, ...] | None:
        """Whom an answer that will not do rules out: all but the strong ones. None: it is another kind of failure."""
        standing = self.plan.standing
        if self.kept is None or failure is not self.kept.failure or standing is None:
            return None
        return tuple(n for n, one in enumerate(self.plan.candidates) if one.target.model.slug not in standing.strong)

    def header(self, candidate: Candidate) -> bytes:
        """Why a stronger model was asked, and whether it answered, as a header line."""
        kept = self.kept
        if kept is None:
            return b""
        return b"x-farebox-escalated: %b%b\r\n" % (kept.reason.encode(), b"; kept" if candidate is kept.candidate else b"")

    def _format(self) -> ResponseFormat | None:
        return bridge.response_format(self.call) if self.call.needs & _FORMATS else None
