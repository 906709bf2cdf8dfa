"""Health by the clock that never goes back: what stands between the router, which is told the wall's time, and the health."""

from farebox.ports import Clock
from farebox.routing.health import Health
from farebox.routing.measured import OfferHealth
from farebox.routing.target import Target


class MonotonicHealth:
    """Health as the router asks for it. Circuits and pauses run by the clock that never goes back, prices by the wall's."""

    def __init__(self, health: Health, clock: Clock) -> None:
        self._health = health
        self._clock = clock

    @property
    def epoch(self) -> int:
        return self._health.epoch

    @property
    def own_epoch(self) -> int:
        return self._health.own_epoch

    @property
    def ejected_max_percent(self) -> int:
        return self._health.rules.ejected_max_percent

    @property
    def limited(self) -> bool:
        return self._health.limited

    def full(self, target: Target) -> bool:
        return self._health.full(target)

    def view(self, target: Target, now_us: int) -> OfferHealth:
        return self._health.view(target, self._clock.monotonic_us())

    def forget_key(self, provider: str, ref: str) -> None:
        self._health.forget_key(provider, ref)
