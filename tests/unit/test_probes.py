"""What the status of a probe says about a provider."""

import pytest

from farebox.probes import judged


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "up"), (204, "up"), (301, "unknown"), (404, "unknown"), (429, "unknown"), (401, "key_refused"),
        (402, "key_refused"), (403, "key_refused"), (500, "down"), (503, "down"),
    ],
)  # fmt: skip
def test_a_status_says_something_about_calls_or_nothing(status: int, outcome: str) -> None:
    assert judged(status) == outcome
