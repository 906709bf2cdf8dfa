"""Windows are computed from time and never reset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.billing import budgets

MOMENT = 1_795_564_800_000_000  # 2026-11-25T00:00:00Z, a Wednesday


@pytest.mark.parametrize(
    ("window", "name", "hours"),
    [("hour", "2026-11-25T00", 1), ("day", "2026-11-25", 24), ("week", "2026-W48", 5 * 24), ("month", "2026-11", 6 * 24)],
)
def test_names_and_ends(window: budgets.Window, name: str, hours: int) -> None:
    assert budgets.window_name(window, MOMENT) == name
    assert budgets.window_end_us(window, MOMENT) == MOMENT + hours * 3_600_000_000


def test_a_lifetime_budget_has_no_window() -> None:
    assert budgets.window_name("none", MOMENT) == ""
    assert budgets.window_end_us("none", MOMENT) is None
    assert budgets.key_scope("key-1", "none", MOMENT).id == "key:key-1"


@given(st.integers(0, 4_102_444_800_000_000), st.sampled_from(["hour", "day", "week", "month"]))
def test_the_name_changes_exactly_at_the_end(now_us: int, window: budgets.Window) -> None:
    end = budgets.window_end_us(window, now_us)
    assert end is not None and end > now_us
    assert budgets.window_name(window, end - 1_000_000) == budgets.window_name(window, now_us) or end - 1_000_000 < now_us
    assert budgets.window_name(window, end) != budgets.window_name(window, now_us)
