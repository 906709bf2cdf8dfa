"""One process's counts, as its file holds them."""

import msgspec

BUCKETS_US = (50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000)


class Snapshot(msgspec.Struct):
    """One process's counts, as written to its file."""

    calls: dict[str, int] = {}
    """By `surface|provider|model|outcome`."""
    seconds_buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS_US) + 1))
    seconds_sum_us: int = 0
    refused: dict[str, int] = {}
    """By `surface|code`."""
    attempts: dict[str, int] = {}
    """By `provider|outcome`."""
    input_tokens: int = 0
    output_tokens: int = 0
    settled: dict[str, int] = {}
    """By basis of the counts: reported, observed, estimated, none."""
    rate_limited: dict[str, int] = {}
    malformed: dict[str, int] = {}
    """By provider: attempts whose stream had events that could not be read."""
    hedges: dict[str, int] = {}
    """By event: `started`, `won`, `wasted`, `failed`, and why there was none."""
    hedge_waste_nano: int = 0
    charge_nano: int = 0
    losses: int = 0
    crashes: int = 0
    holds_open: int = 0
    hold_nano: int = 0
    unwritten: int = 0
