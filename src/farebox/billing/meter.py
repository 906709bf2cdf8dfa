"""Meter: from how an attempt ended and what was seen of it to the usage that is billed, and who pays. Pure.

This is the table of billing.md §4, one row per `Ending`. Zero is not missing, missing is not zero: an attempt whose usage is
unknown has `usage=None` and a cost of None until a correction names it.
"""

from typing import Final, Literal

import msgspec

from farebox.billing.records import Basis
from farebox.wires.usage import Usage, UsageReport

Ending = Literal[
    "complete", "refused", "failed_unsent", "failed_before_content", "truncated", "taken_over", "client_gone", "drained",
    "outrun", "outrun_drained",
]
"""How an attempt ended.

`refused`: an error status, nothing generated · `failed_unsent`: no byte reached the provider · `failed_before_content`: an
error event, a time-out or an end before any content · `truncated`: broken off after content · `taken_over`: the same, and another
attempt goes on from there · `client_gone`: we hung up after the client did · `drained`: the client went, we read on to the
usage · `outrun`: another attempt had content first, and we hung up · `outrun_drained`: the same, and we read on to the usage.
"""


class Seen:
    """What was observed of an attempt."""

    __slots__ = ("estimated_input", "input", "output_tokens", "report")

    def __init__(
        self, report: UsageReport | None, output_tokens: int = 0, input: Usage | None = None, estimated_input: int = 0
    ) -> None:
        self.report: Final = report
        """The provider's own usage."""
        self.output_tokens: Final = output_tokens
        """Estimate of the output that passed by."""
        self.input: Final = input
        """The input side, exact, where a stream said it at its start."""
        self.estimated_input: Final = estimated_input


class Verdict:
    """What one attempt bills at."""

    __slots__ = ("basis", "cost_known", "customer_pays", "flags", "usage")

    def __init__(
        self, usage: Usage | None, basis: Basis, flags: tuple[str, ...], customer_pays: bool, cost_known: bool = True
    ) -> None:
        self.usage: Final = usage
        self.basis: Final = basis
        self.flags: Final = flags
        self.customer_pays: Final = customer_pays
        self.cost_known: Final = cost_known


SEAM_FLAG: Final = "seam"
"""The attempt broke off, and what it had delivered stayed with the client: the next one went on from there."""
CONTINUED_FLAG: Final = "continued"
"""The attempt went on with another's answer: the customer pays its output only."""
ESCALATED_FLAG: Final = "escalated"
"""The answer would not do, and a stronger model was asked: both are billed."""
RATING_FLAG: Final = "rating"
"""The attempt was a question to the model about its own answer: billed, and no part of what the caller gets."""
ASIDE: Final = frozenset({ESCALATED_FLAG, RATING_FLAG})
"""Of attempts that are billed with an answer in which nothing of them is; without an answer they are free."""
MALFORMED_FLAG: Final = "malformed_events"
"""Some events of the stream could not be read and were skipped."""
UNBILLED_FLAG: Final = "unbilled"
"""It ended well and is free all the same: nobody got its answer."""
OUTRUN_FLAG: Final = "outrun"
"""Another attempt beside it had content first: nobody got this one's, and the customer does not pay for it, unless its policy
says so."""
INPUT_ESTIMATED_FLAG: Final = "estimated_input"
REPORTED_COST_FLAG: Final = "reported_cost"
"""The row's amounts follow from the provider's own reported cost, not from its counts."""
_NOTHING: Final = Usage()


def _estimate(seen: Seen) -> tuple[Usage, tuple[str, ...]]:
    """Input as exact as known, output as observed."""
    if seen.input is not None:
        return msgspec.structs.replace(seen.input, output=seen.output_tokens), ("estimated",)
    return Usage(input=seen.estimated_input, output=seen.output_tokens), ("estimated", INPUT_ESTIMATED_FLAG)


def judge(ending: Ending, seen: Seen, *, bill_partial: bool = False) -> Verdict:
    """The usage, its basis, and whether the customer pays for this attempt."""
    if ending in ("outrun", "outrun_drained"):
        found = _judge("client_gone" if ending == "outrun" else "drained", seen, bill_partial=False)
        return Verdict(found.usage, found.basis, (*found.flags, OUTRUN_FLAG), False)
    return _judge(ending, seen, bill_partial=bill_partial)


def _judge(ending: Ending, seen: Seen, *, bill_partial: bool) -> Verdict:
    """The same of what nothing ran beside."""
    report = seen.report
    if ending == "complete" and report is not None and report.usage is not None and not report.anomalies:
        return Verdict(report.usage, "reported", (), True)
    reported = report.usage if report is not None else None
    anomaly = ("usage_anomaly",) if report is not None and report.anomalies else ()
    if ending in ("complete", "drained"):
        drained = ("drained",) if ending == "drained" else ()
        if reported is not None:
            return Verdict(reported, "reported", (*drained, *anomaly), True)
        usage, flags = _estimate(seen)
        return Verdict(usage, "estimated", (*drained, *flags, *(anomaly or ("usage_missing",))), True)
    if ending in ("refused", "failed_unsent"):
        return Verdict(_NOTHING, "none", (), False)
    if ending == "failed_before_content":
        if reported is not None:
            return Verdict(reported, "reported", anomaly, False)
        return Verdict(None, "none", anomaly, False, cost_known=False)
    if ending in ("truncated", "taken_over"):
        cut = ("upstream_truncated",) if ending == "truncated" else ("upstream_truncated", SEAM_FLAG)
        pays = bill_partial or ending == "taken_over"
        if reported is not None:
            return Verdict(reported, "reported", (*cut, *anomaly), pays)
        usage, flags = _estimate(seen)
        return Verdict(usage, "observed", (*cut, *flags), pays)
    # client_gone: a final usage may have come just before the client left.
    if reported is not None:
        return Verdict(reported, "reported", anomaly, True)
    usage, flags = _estimate(seen)
    return Verdict(usage, "observed", flags, True)
