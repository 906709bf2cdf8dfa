"""Escalation: the cheap models answer first; where their answer will not do, a strong one does. Pure.

Nothing has reached the client when an answer is looked at: a stream is withheld meanwhile, or, if the policy does not want that,
never looked at. Both answers are billed and are attempts of the call (docs/routing.md). When no strong model answers either, the
client gets the answer that there is.
"""

import msgspec

from farebox import bridge
from farebox.billing.meter import Verdict
from farebox.errors import FareboxError, Kind
from farebox.quality import check
from farebox.routing.plan import Candidate, Plan
from farebox.verdict import Failure
from farebox.wires.call import Call
from farebox.wires.neutral import Completion, ResponseFormat, UpstreamFailure, UpstreamGarbage
from farebox.wires.relay import Relay, Reply

WITHHELD_BYTES_MAX = 2 * 2**20
"""A stream that is longer, as the client would get it, is released and stays: some 8,000 tokens."""
_FORMATS = frozenset({"json_schema", "json_mode"})


class Withheld:
    """A stream that nobody gets until it was looked at."""

    __slots__ = ("_gathering", "_pieces", "_size", "relay")

    def __init__(self, candidate: Candidate, relay: Relay) -> None:
        self.relay = relay
        self._gathering = bridge.gathering(candidate)
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """It is longer than what is kept."""
        return self._size > WITHHELD_BYTES_MAX

    def take(self, data: bytes, out: bytes) -> None:
        """A piece of the provider's body, and what the client would have got of it."""
        self._gathering.feed(data)
        if out:
            self._pieces.append(out)
            self._size += len(out)

    def completion(self) -> Completion | None:
        """The answer, at its end; None when it cannot be read."""
        return self._gathering.completion()

    def released(self) -> bytes:
        """All that was withheld, for the client."""
        return b"".join(self._pieces)


class Kept(msgspec.Struct, frozen=True):
    """The answer that would not do, as long as there is no better one."""

    candidate: Candidate
    answer: Reply | Withheld
    verdict: Verdict
    reason: str
    failure: Failure


class Escalation:
    """What one call's flight knows of it."""

    __slots__ = ("call", "kept", "plan", "rating")

    def __init__(self, call: Call, plan: Plan) -> None:
        self.call = call
        self.plan = plan
        self.kept: Kept | None = None
        self.rating: int | None = None
        """What the first model says of its own answer, in percent."""

    def looks_at(self, candidate: Candidate) -> bool:
        """Whether a candidate's answer is looked at before the client gets it: somebody stronger can still be asked."""
        standing = self.plan.standing
        assert standing is not None and standing.escalation is not None, "only plans that escalate have one"
        return self.kept is None and candidate.target.model.slug not in standing.strong

    @property
    def rates(self) -> bool:
        """Whether the policy wants an answer rated by who gave it."""
        standing = self.plan.standing
        return standing is not None and standing.escalation is not None and standing.escalation.self_rating_percent is not None

    def rated(self, percent: int | None) -> str:
        """What is wrong with an answer that its own model rates so; None: it did not say."""
        standing = self.plan.standing
        assert standing is not None and standing.escalation is not None, "only plans that escalate have one"
        least = standing.escalation.self_rating_percent
        self.rating = percent
        return check.RATING if least is not None and percent is not None and percent < least else ""

    def problem(self, candidate: Candidate, answer: Completion) -> str:
        """What is wrong with the whole answer of a candidate that is looked at; empty when it will do."""
        standing = self.plan.standing
        assert standing is not None and standing.escalation is not None, "only plans that escalate have one"
        caps = [one.bound.cap for one in self.plan.candidates if one.target.model.slug in standing.strong]
        room = self.call.output_cap is None or max(caps) > candidate.bound.cap
        return check.problem(standing.escalation, answer, self._format(), room=room)

    def keep(self, candidate: Candidate, answer: Reply | Withheld, verdict: Verdict, reason: str) -> Failure:
        """Go on to the strong models. The failure is what the client would be told if there were no answer at all."""
        error = FareboxError(Kind.UPSTREAM_BAD, f"the answer would not do: {reason}", should_retry=False)
        failure = Failure(error)
        self.kept = Kept(candidate, answer, verdict, reason, failure)
        return failure

    def barred(self, failure: Failure) -> tuple[int, ...] | None:
        """Whom an answer that will not do rules out: all but the strong ones. None: it is another kind of failure."""
        standing = self.plan.standing
        if self.kept is None or failure is not self.kept.failure or standing is None:
            return None
        return tuple(n for n, one in enumerate(self.plan.candidates) if one.target.model.slug not in standing.strong)

    def header(self, candidate: Candidate) -> bytes:
        """How the first answer was rated, why a stronger model was asked, and whether it answered, as header lines."""
        kept = self.kept
        told = b"" if self.rating is None else b"x-farebox-rating: %d\r\n" % self.rating
        if kept is None:
            return told
        return told + b"x-farebox-escalated: %b%b\r\n" % (kept.reason.encode(), b"; kept" if candidate is kept.candidate else b"")

    def _format(self) -> ResponseFormat | None:
        return bridge.response_format(self.call) if self.call.needs & _FORMATS else None


def completion(candidate: Candidate, body: bytes) -> Completion | None:
    """A candidate's whole answer; None when it cannot be read."""
    try:
        return bridge.completion(candidate, body)
    except (UpstreamFailure, UpstreamGarbage):
        return None
