"""The configuration's sections about rate limits: what each key may do, and the ladder of tiers. Read by `farebox.config`."""

from collections.abc import Callable

import msgspec

from farebox.money import MoneyError, parse_amount

LIMIT_MAX = 10**10
"""As in `gate.limits`: the cells of larger ones would not fit into 64 bits."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class RateLimits(_Section, frozen=True):
    """What each key may do, over all workers, whatever limits it has of its own; and which tier accounts begin in."""

    requests_per_minute: int = 60_000
    """A minute's worth may come at once."""
    concurrent_calls: int = 2_000
    """Calls in flight."""
    tier: str = ""
    """The tier of new accounts, such as `"free"`; they move up by themselves. Empty: only who is given a tier has one."""


class ClassLimits(_Section, frozen=True):
    """Further limits for some models."""

    requests_per_minute: int | None = None
    """Unset: none."""
    tokens_per_minute: int | None = None
    """Unset: none."""
    tokens_per_day: int | None = None
    """Unset: none."""


class RateTierSection(_Section, frozen=True):
    """A tier: limits of an account, over all workers, and what leads to it. The sections stand in the order of the ladder;
    without any, the shipped ladder holds: `free`, `tier-1` to `tier-5`."""

    requests_per_minute: int | None = None
    """Unset: no limit, here and below."""
    tokens_per_minute: int | None = None
    """Estimated before a call, trued up after it."""
    tokens_per_day: int | None = None
    """The same over a day."""
    concurrent_calls: int | None = None
    """Calls in flight."""
    daily_spend: str | None = None
    """USD that calls may cost in a UTC day, exact over all workers."""
    models: tuple[str, ...] = ()
    """Patterns of the models that may be called, such as `"openai/gpt-4*"`. Empty: all."""
    classes: dict[str, ClassLimits] = {}
    """Further limits by pattern: `[tiers.free.classes."openai/*"]`."""
    paid: str = "0"
    """An account moves up to this tier when it has paid so much, in USD,"""
    age_days: int = 0
    """and is so many days old."""


SHIPPED_TIERS: dict[str, RateTierSection] = {
    "free": RateTierSection(
        requests_per_minute=20, tokens_per_minute=40_000, tokens_per_day=500_000, concurrent_calls=5, daily_spend="1.00"
    ),
    "tier-1": RateTierSection(
        requests_per_minute=500, tokens_per_minute=500_000, concurrent_calls=50, daily_spend="50.00", paid="5.00"
    ),
    "tier-2": RateTierSection(
        requests_per_minute=2_000, tokens_per_minute=2_000_000, concurrent_calls=200, daily_spend="250.00", paid="50.00",
        age_days=7,
    ),
    "tier-3": RateTierSection(
        requests_per_minute=5_000, tokens_per_minute=5_000_000, concurrent_calls=500, daily_spend="1000.00", paid="100.00",
        age_days=7,
    ),
    "tier-4": RateTierSection(
        requests_per_minute=10_000, tokens_per_minute=20_000_000, concurrent_calls=1_000, daily_spend="5000.00", paid="250.00",
        age_days=14,
    ),
    "tier-5": RateTierSection(
        requests_per_minute=30_000, tokens_per_minute=150_000_000, concurrent_calls=3_000, daily_spend="50000.00", paid="1000.00",
        age_days=30,
    ),
}  # fmt: skip
"""The ladder of a gateway that has none of its own."""


def check_tiers(limits: RateLimits, tiers: dict[str, RateTierSection], refuse: Callable[[str, str], None]) -> None:
    """What types alone cannot say."""
    for name in ("requests_per_minute", "concurrent_calls"):
        if not 1 <= getattr(limits, name) <= LIMIT_MAX:
            refuse(f"limits.{name}", f"{getattr(limits, name)} is not from 1 to {LIMIT_MAX}")
    known = tiers or SHIPPED_TIERS
    if limits.tier and limits.tier not in known:
        refuse("limits.tier", f"there is no tier {limits.tier!r}; known: {', '.join(known)}")
    paid_before = -1
    for name, tier in tiers.items():
        place = f"tiers.{name}"
        for setting in ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent_calls"):
            _check_count(getattr(tier, setting), f"{place}.{setting}", refuse)
        for pattern, limited in tier.classes.items():
            for setting in ("requests_per_minute", "tokens_per_minute", "tokens_per_day"):
                _check_count(getattr(limited, setting), f'{place}.classes."{pattern}".{setting}', refuse)
        if tier.age_days < 0:
            refuse(f"{place}.age_days", f"{tier.age_days} is not a number of days")
        amounts = {"paid": tier.paid, "daily_spend": tier.daily_spend}
        for setting, text in amounts.items():
            try:
                nano = 0 if text is None else parse_amount(text)
            except MoneyError as error:
                refuse(f"{place}.{setting}", str(error))
                return
            if nano < 0:
                refuse(f"{place}.{setting}", f"{text} is negative")
        if parse_amount(tier.paid) < paid_before:
            refuse(f"{place}.paid", f"{tier.paid} is less than the tier before it asks for; the ladder goes up")
        paid_before = parse_amount(tier.paid)


def _check_count(value: int | None, place: str, refuse: Callable[[str, str], None]) -> None:
    if value is not None and not 1 <= value <= LIMIT_MAX:
        refuse(place, f"{value} is not from 1 to {LIMIT_MAX}; leave it out for no limit")
