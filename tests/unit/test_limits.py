"""The rate limiter against an exact model, and its slots."""

import random

import pytest

from farebox.gate.limits import Bucket, Limiter, Limits, Refusal


def test_over_any_stretch_no_more_than_burst_plus_rate_pass() -> None:
    limits = Limits(requests_per_minute=60, concurrent_calls=10_000)
    limiter, chance = Limiter(), random.Random(7)
    now, admitted = 0, []
    for _ in range(50_000):
        now += chance.choice([0, 0, 0, 1_000, 50_000, 2_000_000])
        decision = limiter.admit("k", limits, now)
        if isinstance(decision, Bucket):
            admitted.append(now)
            limiter.release(decision)
    # GCRA's promise: any n + 1 admissions span at least (n + 1 − burst) intervals of one second.
    for gap in (60, 61, 120, 600):
        for first, last in zip(admitted, admitted[gap:], strict=False):
            assert last - first >= (gap + 1 - 60) * 1_000_000


def test_a_minute_of_requests_may_come_at_once_and_the_next_waits_a_second() -> None:
    limits = Limits(requests_per_minute=60, concurrent_calls=1_000)
    limiter = Limiter()
    assert all(isinstance(limiter.admit("k", limits, 0), Bucket) for _ in range(60))
    refusal = limiter.admit("k", limits, 0)
    assert refusal == Refusal("requests_per_minute", 60, 1)
    assert isinstance(limiter.admit("k", limits, 1_000_000), Bucket)


def test_concurrency_slots_come_back() -> None:
    limits = Limits(requests_per_minute=60_000, concurrent_calls=2)
    limiter = Limiter()
    first, second = limiter.admit("k", limits, 0), limiter.admit("k", limits, 0)
    assert isinstance(first, Bucket) and isinstance(second, Bucket)
    assert isinstance(limiter.admit("k", limits, 0), Refusal)
    assert isinstance(limiter.admit("other", limits, 0), Bucket)
    limiter.release(first)
    assert isinstance(limiter.admit("k", limits, 0), Bucket)


def test_a_refused_call_takes_nothing() -> None:
    limits = Limits(requests_per_minute=2, concurrent_calls=1)
    limiter = Limiter()
    held = limiter.admit("k", limits, 0)
    assert isinstance(held, Bucket)
    for _ in range(100):
        assert isinstance(limiter.admit("k", limits, 0), Refusal)
    limiter.release(held)
    assert isinstance(limiter.admit("k", limits, 0), Bucket)


@pytest.mark.parametrize("rate", [1, 59, 61, 1_000_000])
def test_odd_rates_never_divide_by_zero(rate: int) -> None:
    assert isinstance(Limiter().admit("k", Limits(rate, 1), 5), Bucket)
