"""Lessons: what health learns from how an attempt ended. Pure.

Only what the provider did counts: its failures against the offer, its 429s as a pause, its refusals of a key against that key. A
caller's mistake, a caller who left and a call that we ourselves ended say nothing about it.
"""

from farebox.billing.hedges import OUTRUN
from farebox.routing.health import Outcome
from farebox.wires.neutral import FailureKind

_BY_KIND: dict[FailureKind, Outcome] = {
    "caller": "caller",
    "context_length": "caller",
    "content_policy": "caller",
    "credentials": "key_refused",
    "provider_balance": "key_refused",
    "rate_limit": "rate_limited",
    "not_found": "failed",
    "overloaded": "failed",
    "server": "failed",
    "timeout": "failed",
    "unknown": "failed",
}
KEY_KINDS = frozenset({"credentials", "provider_balance", "rate_limit"})
"""Failures of a key: another key of the same offer may do."""
_OURS = frozenset({"client_gone", "interrupted", "unsupported"})


def lesson(outcome: str, kind: FailureKind | None) -> Outcome:
    """From an attempt's outcome, as in its record, and the kind of failure that the provider named, if any."""
    if outcome == "ok":
        return "ok"
    if outcome == OUTRUN:
        return "outrun"
    if outcome in _OURS:
        return "unknown"
    return "failed" if kind is None else _BY_KIND[kind]
