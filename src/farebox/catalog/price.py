"""Prices: integer rates by usage class, dated versions, tiers by prompt size, service tiers, off-peak windows.

Only data and look-up; `farebox.billing.pricing` does the arithmetic. A `Price` is immutable once used: a correction is a
new version.
"""

from typing import Literal

import msgspec


class Rates(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Pico-dollars per unit, for each class of `farebox.wires.usage.Usage`, plus per-call fees.

    Every class has a number: the loader fills a class that the source does not price with the rate that it bills at
    (cached tokens at `input`, reasoning at `output`…), so that nothing is free by omission.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0
    image_output: int = 0
    web_searches: int = 0
    request: int = 0
    """A fee per request answered."""

    @property
    def dearest_input(self) -> int:
        return max(self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h, self.audio_input, self.image_input)

    @property
    def dearest_output(self) -> int:
        return max(self.output, self.reasoning, self.audio_output, self.image_output)


class Tier(msgspec.Struct, frozen=True):
    """The whole request bills at `rates` when its prompt has strictly more than `above` tokens, cached ones included."""

    above: int
    rates: Rates


class Schedule(msgspec.Struct, frozen=True):
    """The rates of one service tier: the base and its prompt-size tiers, ascending by `above`."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()

    def at(self, prompt_tokens: int) -> Rates:
        """The rates that a prompt of this size bills at."""
        found = self.rates
        for tier in self.tiers:
            if prompt_tokens > tier.above:
                found = tier.rates
        return found

    def reachable(self, prompt_tokens_max: int) -> list[Rates]:
        """Every rate vector that a prompt of up to this size could bill at: what a hold must cover."""
        return [self.rates, *(tier.rates for tier in self.tiers if prompt_tokens_max > tier.above)]


class OffPeak(msgspec.Struct, frozen=True):
    """Cheaper hours: `schedule` applies outside the peak windows."""

    schedule: Schedule
    peak_minutes_utc: tuple[tuple[int, int], ...]
    """Half-open windows [start, end) in minutes of the UTC day, on weekdays."""
    weekends_off_peak: bool = True


class Price(msgspec.Struct, frozen=True):
    """One dated price version of one offer."""

    version: str
    """Stable name of this version, e.g. `openai/gpt-4o@2026-11-23`: frozen into every hold and usage row."""
    effective_from: str
    """Date, `YYYY-MM-DD`, UTC."""
    standard: Schedule
    service_tiers: dict[str, Schedule] = {}
    """By the provider's own names: `flex`, `priority`, `batch`…"""
    off_peak: OffPeak | None = None
    multipliers_bp: dict[str, int] = {}
    """Surcharges that the vendor states as a factor, in basis points (`inference_geo_us`: 11000 is ×1.1). Recorded, not
    applied: what triggers one is not part of a price."""
    source: tuple[str, ...] = ()
    checked: str | None = None
    """The date on which the source was read."""
    confidence: Literal["agreed", "single", "single-plus-older", "conflict", "conflict-majority", "operator"] = "operator"
