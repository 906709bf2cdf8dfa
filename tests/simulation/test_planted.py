"""Bugs that are put in on purpose must be found, each within a few hundred seeds.

`FOUND` says at which seed a bug showed itself when this was last looked at: there is looked first, then at all others in order.
"""

import os

import pytest

from tests.simulation.options import Options
from tests.simulation.planted import BUGS
from tests.simulation.shrink import problems

FULL = bool(os.environ.get("FAREBOX_FULL"))
SEEDS_MAX = 300
FOUND = {
    "held_money_counts_as_free": 0,
    "settled_twice": 0,
    "recovery_voids_what_was_sent": 3,
    "recovery_at_other_prices": 3,
    "fails_over_behind_content": 0,
    "settlement_lost_on_cancel": 8,
    "answered_before_settled": 1,
    "slots_leak": 0,
    "holds_the_first_candidate": 0,
    "never_times_out": 4,
    "a_vanished_client_is_a_success": 4,
    "posted_again_after_a_lost_acknowledgement": 2,
    "torn_lines_stay": 3,
    "given_back_before_it_is_gone": 0,
    "a_full_disk_loses_a_settlement": 8,
    "fractions_are_dropped": 1,
    "revoked_keys_are_remembered": 59,
    "a_torn_stream_is_a_success": 2,
    "broken_streams_are_paid_for": 0,
    "ended_lives_keep_their_slices": 0,
}
LONG = ("given_back_before_it_is_gone", "never_times_out")
"""Those that take longest to be found."""
NAMES = [pytest.param(name, marks=pytest.mark.full) if at % 2 or name in LONG else name for at, name in enumerate(BUGS)]


def found_at(name: str) -> int | None:
    """The first seed that finds it."""
    known = FOUND[name]
    with pytest.MonkeyPatch.context() as patch:
        BUGS[name](patch)
        for seed in (known, *(seed for seed in range(SEEDS_MAX) if seed != known)):
            if problems(Options(seed)):
                return seed
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_bug_is_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = found_at(name)
    assert seed is not None, f"{name} is not found within {SEEDS_MAX} seeds"
    if seed != FOUND[name]:
        with capsys.disabled():
            print(f"\n{name} is found at seed {seed}, no longer at {FOUND[name]}")


def test_every_planted_bug_has_its_seed() -> None:
    assert set(FOUND) == set(BUGS)
