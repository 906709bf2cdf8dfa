"""When to try again, and where: pure decisions between attempts, before any content has reached the client."""

import msgspec

RETRYABLE_STATUS = frozenset({408, 409, 429, 498, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that another try, here or elsewhere, may cure. 498: Groq's flex capacity; 52x: proxies in front of providers."""
RETRY_AFTER_MAX_S = 20.0
"""A provider that asks for a longer wait is not waited for."""


class Policy(msgspec.Struct, frozen=True):
    """How often and how patiently."""

    attempts_max: int
    backoff_ms: int
    backoff_max_ms: int


class Next(msgspec.Struct, frozen=True):
    """The next attempt: which candidate of the plan, after how long."""

    candidate: int
    wait_s: float


def decide(
    policy: Policy,
    *,
    attempts: int,
    failed: tuple[int, ...],
    candidates: int,
    retryable_here: bool,
    retry_elsewhere: bool,
    retry_after_s: float | None,
    chance: float,
    other_models: tuple[int, ...] = (),
) -> Next | None:
    """The next attempt after `attempts` failures, or None to give up.

    Another offer of the model is tried first, at once; when every offer has failed, the best of them again after full-jitter
    exponential back-off (`chance` in [0, 1)), or after what the provider asked for, if that is not too long.
    `failed` are the candidates tried so far, in order; only the last failure's `retryable_here` says whether its own offer
    may be asked again. `other_models` are candidates of other models, for a failure that only they can cure.
    """
    if attempts >= policy.attempts_max:
        return None
    if retry_elsewhere or retryable_here:
        for index in range(candidates):
            if index not in failed:
                return Next(index, 0.0)
    for index in other_models:
        if index not in failed:
            return Next(index, 0.0)
    if not retryable_here:
        return None
    rounds = attempts // max(candidates, 1)
    ceiling_ms = min(policy.backoff_ms * 2**rounds, policy.backoff_max_ms)
    wait_s = ceiling_ms * chance / 1000
    if retry_after_s is not None:
        if retry_after_s > RETRY_AFTER_MAX_S:
            return None
        wait_s = max(wait_s, retry_after_s)
    return Next(failed[0] if candidates > 1 else 0, wait_s)
