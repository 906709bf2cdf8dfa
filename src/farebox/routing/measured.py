"""What routing asks of the offers' measured health, and the answer of a gateway that has measured nothing yet. Pure."""

from typing import Literal, Protocol

import msgspec

from farebox.routing.preferences import PERCENTILES, Percentiles
from farebox.routing.target import Target

State = Literal["healthy", "probing", "ejected"]
HEALTHY: State = "healthy"


class OfferHealth(Protocol):
    """How one offer has done lately."""

    @property
    def state(self) -> State: ...
    @property
    def success(self) -> float | None:
        """Share of attempts that succeeded, 0 to 1; None without attempts."""
        ...

    @property
    def first_token_ms(self) -> Percentiles | None:
        """Milliseconds from the request to the first content."""
        ...

    @property
    def tokens_per_s(self) -> Percentiles | None: ...
    @property
    def samples(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def limit(self) -> int | None:
        """Calls that may be in flight; None = no limit known."""
        ...


class Measured(Protocol):
    """Every offer's health. `epoch` grows whenever some offer's state changes, `own_epoch` where it is a customer's own key."""

    @property
    def epoch(self) -> int: ...
    @property
    def own_epoch(self) -> int: ...
    @property
    def ejected_max_percent(self) -> int:
        """The share of a model's offers that may be put behind the others."""
        ...

    @property
    def limited(self) -> bool:
        """Whether some key takes only so many calls at a time."""
        ...

    def full(self, target: Target) -> bool:
        """Whether all of an offer's keys have as many as they take."""
        ...

    def view(self, target: Target, now_us: int) -> OfferHealth: ...

    def forget_key(self, provider: str, ref: str) -> None:
        """A customer's key has another secret."""
        ...


class Unmeasured(msgspec.Struct, frozen=True):
    """The health of an offer that nobody has called."""

    state: State = HEALTHY
    success: float | None = None
    first_token_ms: Percentiles | None = None
    tokens_per_s: Percentiles | None = None
    samples: int = 0
    in_flight: int = 0
    limit: int | None = None


class NothingMeasured:
    """All offers are healthy as far as anybody knows: for a command line without a server."""

    epoch = own_epoch = 0
    ejected_max_percent = 100
    limited = False
    _view = Unmeasured()

    def full(self, target: Target) -> bool:
        return False

    def view(self, target: Target, now_us: int) -> OfferHealth:
        return self._view

    def forget_key(self, provider: str, ref: str) -> None: ...


def percentile(found: Percentiles | None, name: str) -> float | None:
    return None if found is None else getattr(found, name)


def meets(found: Percentiles | None, bounds: Percentiles, *, at_least: bool) -> bool | None:
    """Whether measurements keep every bound; None when one of them was not measured, and none that was is missed."""
    known = True
    for name in PERCENTILES:
        bound = getattr(bounds, name)
        if bound is None:
            continue
        value = percentile(found, name)
        if value is None:
            known = False
        elif value < bound if at_least else value > bound:
            return False
    return True if known else None
