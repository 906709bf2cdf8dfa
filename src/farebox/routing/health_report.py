"""What health says about places: for a plan, and for people who look."""

from typing import Literal

import msgspec

from farebox.routing.measured import State
from farebox.routing.preferences import Percentiles


class OfferHealth(msgspec.Struct, frozen=True):
    """How one offer, over all its keys, has done lately."""

    state: State = "healthy"
    success: float | None = None
    """The share of the last half hour's attempts that succeeded, 0 to 1; None without attempts."""
    first_token_ms: Percentiles | None = None
    tokens_per_s: Percentiles | None = None
    samples: int = 0
    """Attempts of the last half hour that succeeded or failed."""
    in_flight: int = 0
    limit: int | None = None
    """Calls that may be in flight at its keys; None = no limit known."""


class PlaceReport(msgspec.Struct, frozen=True):
    """One place, as written to a file: counts are `(succeeded, failed)`, histograms by bin (`routing.rolling`)."""

    provider: str
    key: str
    model: str
    circuit: Literal["closed", "open", "probing"]
    open_s: int
    paused_s: int
    in_flight: int
    five_minutes: tuple[int, int]
    half_hour: tuple[int, int]
    day: tuple[int, int]
    first_token_ms: dict[int, int]
    tokens_per_s: dict[int, int]


class KeyReport(msgspec.Struct, frozen=True):
    """One key of a provider."""

    provider: str
    key: str
    benched_s: int
    reason: str
    in_flight: int
    limit: int | None


class Report(msgspec.Struct, frozen=True):
    """One worker's health."""

    places: list[PlaceReport]
    keys: list[KeyReport]
