"""Between attempts: elsewhere first, then again with back-off, never more often than allowed."""

from farebox.routing.retry import Next, Policy, decide

POLICY = Policy(attempts_max=3, backoff_ms=100, backoff_max_ms=1_000)


def ask(**changes: object) -> Next | None:
    arguments: dict[str, object] = {
        "attempts": 1, "failed": (0,), "candidates": 1, "retryable_here": True, "retry_elsewhere": True,
        "retry_after_s": None, "chance": 0.5,
    }  # fmt: skip
    return decide(POLICY, **(arguments | changes))  # type: ignore[arg-type]


def test_another_offer_is_tried_at_once() -> None:
    assert ask(candidates=3) == Next(1, 0.0)
    assert ask(candidates=3, attempts=2, failed=(0, 1)) == Next(2, 0.0)


def test_a_callers_own_mistake_is_tried_nowhere() -> None:
    assert ask(candidates=3, retryable_here=False, retry_elsewhere=False) is None


def test_a_dead_key_moves_on_but_is_not_asked_again() -> None:
    assert ask(candidates=2, retryable_here=False) == Next(1, 0.0)
    assert ask(candidates=1, retryable_here=False) is None


def test_the_same_offer_waits_with_jitter_that_grows() -> None:
    first, second = ask(attempts=1), ask(attempts=2, failed=(0, 0))
    assert first is not None and second is not None
    assert 0 < first.wait_s <= 0.2 and first.wait_s < second.wait_s


def test_retry_after_is_honoured_unless_it_is_too_long() -> None:
    waited = ask(retry_after_s=2.0)
    assert waited is not None and waited.wait_s == 2.0
    assert ask(retry_after_s=3600.0) is None
    assert ask(retry_after_s=3600.0, candidates=2) == Next(1, 0.0)


def test_three_attempts_are_the_most() -> None:
    assert ask(attempts=3, failed=(0, 1, 2), candidates=9) is None
