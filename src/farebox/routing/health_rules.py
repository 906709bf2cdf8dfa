"""The rules of health: when an offer is left alone, and for how long."""

import msgspec


class Rules(msgspec.Struct, frozen=True):
    """When a circuit opens, and for how long. Times in microseconds."""

    failures_in_a_row: int = 5
    window_us: int = 30_000_000
    failed_share_percent: int = 50
    samples_min: int = 20
    """The share counts from so many attempts in the window."""
    ejection_us: int = 30_000_000
    """The first time out; the n-th is n times as long."""
    ejection_max_us: int = 300_000_000
    ejected_max_percent: int = 100
    """Of a model's offers: more are not put behind the others."""
