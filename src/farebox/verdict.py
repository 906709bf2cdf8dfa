"""Verdicts: what a provider's failure means for the call. One table, to be read as documentation.

| kind | the client is told | the same offer again | not asked any more |
|---|---|---|---|
| `caller`, `content_policy` | 400, in the provider's words | no | every offer of this model |
| `context_length` | 400 | no | every offer whose window is no larger |
| `credentials`, `provider_balance` | 502: the operator's business | with another key only | this offer, if it has no other key |
| the same, of a key of the customer's own | 403, in the provider's words | no | this offer with this key |
| `not_found` | 502: the operator's business | no | this offer |
| `rate_limit` | 429 | yes, when it said or after back-off | |
| `overloaded`, `server`, `timeout`, `unknown` | 503, 502, 504 | yes, after back-off | |
| no connection, or broken off before content | 502 | yes, after back-off | |
| silent until a time-out | 504 | no | this offer |
"""

from math import ceil
from typing import Literal

import msgspec

from farebox.errors import FareboxError, Kind
from farebox.routing.fitness import input_limit
from farebox.routing.own_keys import is_own
from farebox.routing.plan import Candidate
from farebox.wires.neutral import FailureKind, UpstreamError

Bars = Literal["nothing", "offer", "model", "no_larger_window"]
"""Who would fail as well: nobody, this offer, every offer of this model, or those whose window is no larger."""


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt failed before any content: what the client is told if it was the last one, and what follows from it."""

    error: FareboxError
    bars: Bars = "nothing"
    retry_after_s: float | None = None
    """When the provider wants to be asked again."""
    unsaid: bool = False
    """Nobody was asked: the call cannot be said on this candidate's wire."""


class _Rule(msgspec.Struct, frozen=True):
    kind: Kind
    bars: Bars


_RULES: dict[FailureKind, _Rule] = {
    "caller": _Rule(Kind.INVALID_REQUEST, "model"),
    "context_length": _Rule(Kind.CONTEXT_LENGTH, "no_larger_window"),
    "content_policy": _Rule(Kind.CONTENT_POLICY, "model"),
    "credentials": _Rule(Kind.UPSTREAM_BAD, "offer"),
    "provider_balance": _Rule(Kind.UPSTREAM_BAD, "offer"),
    "not_found": _Rule(Kind.UPSTREAM_BAD, "offer"),
    "rate_limit": _Rule(Kind.UPSTREAM_RATE_LIMIT, "nothing"),
    "overloaded": _Rule(Kind.UPSTREAM_OVERLOADED, "nothing"),
    "server": _Rule(Kind.UPSTREAM_BAD, "nothing"),
    "timeout": _Rule(Kind.UPSTREAM_TIMEOUT, "nothing"),
    "unknown": _Rule(Kind.UPSTREAM_BAD, "nothing"),
}
_OPERATORS = frozenset({"credentials", "provider_balance", "not_found"})


def upstream_failure(found: UpstreamError, candidate: Candidate, *, other_key: bool = False) -> Failure:
    """A provider's refusal. `other_key`: it was the key that was refused, and the offer has another one."""
    rule = _RULES[found.kind]
    bars = rule.bars
    if other_key:
        # What the provider asks for is asked of that key.
        return Failure(told(found, candidate))
    if found.should_retry is False and bars == "nothing":
        bars = "offer"
    return Failure(told(found, candidate), bars, found.retry_after_s)


def told(found: UpstreamError, candidate: Candidate) -> FareboxError:
    """A provider's failure as the client is told."""
    rule = _RULES[found.kind]
    name = candidate.target.provider.title
    if found.kind in _OPERATORS and is_own(candidate.target):
        return _own_key_refused(found, candidate)
    ours = found.kind in _OPERATORS
    message = f"{name} refused the gateway's own account or model id; its operator has to mend that" if ours else found.message
    return FareboxError(
        rule.kind,
        message or f"{name} answered with status {found.status}",
        param=None if ours else found.param,
        retry_after_s=None if found.retry_after_s is None else max(1, ceil(found.retry_after_s)),
        should_retry=None if rule.kind is Kind.UPSTREAM_RATE_LIMIT else False,
        details={
            "provider": candidate.target.provider.name,
            "provider_status": found.status,
            "provider_code": found.provider_code,
        },
    )


def _own_key_refused(found: UpstreamError, candidate: Candidate) -> FareboxError:
    """The customer's own account at the provider is the customer's to mend."""
    target = candidate.target
    said = found.message or f"status {found.status}"
    return FareboxError(
        Kind.PERMISSION,
        f"{target.provider.title} refused your own key (`{target.key_refs[0]}`): {said}",
        code="own_key_refused",
        should_retry=False,
        details={"provider": target.provider.name, "provider_status": found.status, "provider_code": found.provider_code},
    )


def barred(failure: Failure, index: int, candidates: tuple[Candidate, ...]) -> tuple[int, ...]:
    """Which candidates are not asked any more after a failure of the one at `index`."""
    failed = candidates[index].target
    match failure.bars:
        case "nothing":
            return ()
        case "offer":
            return (index,)
        case "model":
            return tuple(n for n, one in enumerate(candidates) if one.target.model is failed.model)
        case "no_larger_window":
            # It is not known which of its limits the prompt was too long for.
            window, limit = failed.offer.context_window, input_limit(failed.offer)
            return tuple(
                n
                for n, one in enumerate(candidates)
                if n == index or (one.target.offer.context_window <= window and input_limit(one.target.offer) <= limit)
            )
