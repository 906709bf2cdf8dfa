"""Between attempts: elsewhere first, then again with back-off, within the deadline and never more often than allowed."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from farebox.routing.retry import RETRY_AFTER_MAX_US, Next, Policy, Tries

POLICY = Policy(attempts_max=6, backoff_ms=100, backoff_max_ms=1_000, per_offer_max=3)
NOW_US = 1_000_000
LATE_US = 900_000_000


def ask(
    failures: Sequence[tuple[int, float | None, Sequence[int]]],
    *,
    candidates: int = 1,
    deadline_us: int = LATE_US,
    chance: float = 0.5,
    policy: Policy = POLICY,
) -> Next | None:
    """What follows after failures: the candidate, when it wants to be asked again, whom its failure bars."""
    tries = Tries()
    for candidate, retry_after_s, barred in failures:
        tries.failed(candidate, NOW_US, retry_after_s=retry_after_s, barred=barred)
    return tries.following(
        range(candidates), policy, attempts=len(failures), now_us=NOW_US, deadline_us=deadline_us, chance=chance
    )


def test_another_offer_is_tried_at_once() -> None:
    assert ask([(0, None, ())], candidates=3) == Next(1, 0.0)
    assert ask([(0, None, ()), (1, None, ())], candidates=3) == Next(2, 0.0)
    assert ask([(0, 3600.0, ())], candidates=2) == Next(1, 0.0), "whatever the first one asks for"


def test_a_failure_that_all_would_repeat_is_tried_nowhere() -> None:
    assert ask([(0, None, (0, 1, 2))], candidates=3) is None


def test_whoever_is_barred_is_passed_over() -> None:
    assert ask([(0, None, (0, 1))], candidates=3) == Next(2, 0.0)
    assert ask([(0, None, (0,))], candidates=1) is None


def test_the_same_offer_waits_with_jitter_that_grows() -> None:
    first, second = ask([(0, None, ())]), ask([(0, None, ())] * 2)
    assert first == Next(0, 0.05) and second == Next(0, 0.1)
    assert ask([(0, None, ())], chance=0.0) == Next(0, 0.0)
    assert ask([(0, None, ())] * 2, policy=Policy(9, 100, 120, 9)) == Next(0, 0.06), "up to the longest pause"


def test_retry_after_is_honoured_unless_it_is_too_long() -> None:
    assert ask([(0, 2.0, ())]) == Next(0, 2.0)
    assert ask([(0, 3600.0, ())]) is None


def test_the_one_whose_turn_comes_soonest_is_asked_again() -> None:
    assert ask([(0, 4.0, ()), (1, 1.0, ())], candidates=2) == Next(1, 1.0)
    assert ask([(0, None, ()), (1, None, ())], candidates=2) == Next(0, 0.05), "of equals the first of the plan"
    assert ask([(0, None, (0,)), (1, None, ())], candidates=2) == Next(1, 0.05), "the silent one is not asked twice"


def test_nothing_is_waited_for_past_the_deadline() -> None:
    assert ask([(0, 2.0, ())], deadline_us=NOW_US + 2_000_000) is None
    assert ask([(0, 2.0, ())], deadline_us=NOW_US + 2_000_001) == Next(0, 2.0)
    assert ask([(0, None, ())], candidates=2, deadline_us=NOW_US) is None, "nor is another one asked"


def test_an_offer_is_asked_three_times_and_a_call_makes_six_attempts() -> None:
    assert ask([(0, None, ())] * 3) is None
    assert ask([(0, None, ())] * 3 + [(1, None, ())] * 2, candidates=2) == Next(1, 0.1)
    assert ask([(n % 3, None, ()) for n in range(6)], candidates=3) is None
    assert ask([(n, None, ()) for n in range(6)], candidates=9) is None


@given(
    failures=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(st.none(), st.floats(0, 40)),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        min_size=1,
        max_size=7,
    ),
    chance=st.floats(0, 1, exclude_max=True),
    left_us=st.integers(0, 60_000_000),
)
def test_whatever_happens_the_rules_hold(
    failures: list[tuple[int, float | None, list[int]]], chance: float, left_us: int
) -> None:
    found = ask(failures, candidates=4, chance=chance, deadline_us=NOW_US + left_us)
    if found is None:
        return
    assert len(failures) < POLICY.attempts_max
    assert not any(found.candidate in barred for _, _, barred in failures)
    asked = [failure for failure in failures if failure[0] == found.candidate]
    assert len(asked) < POLICY.per_offer_max
    assert 0 <= found.wait_s * 1_000_000 <= RETRY_AFTER_MAX_US and found.wait_s * 1_000_000 < left_us
    if asked:
        untried = set(range(4)) - {candidate for candidate, _, _ in failures} - {n for _, _, barred in failures for n in barred}
        assert not untried, "an offer that nobody asked comes first"
        last = asked[-1][1]
        assert last is None or found.wait_s >= int(last * 1_000_000) / 1_000_000
