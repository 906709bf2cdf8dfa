"""The ladder of tiers: what an account of each tier may do, and what leads from one to the next. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from farebox.gate.limits import Limits


class Tier(msgspec.Struct, frozen=True):
    """One rung."""

    name: str
    limits: Limits
    classes: tuple[tuple[str, Limits], ...] = ()
    daily_spend_nano: int | None = None
    """What calls may cost in a UTC day."""
    models: tuple[str, ...] = ()
    """Patterns of slugs; empty is every model."""
    paid_nano: int = 0
    """An account that has paid so much, and is so old, moves up to here."""
    age_us: int = 0

    def allows(self, model: str) -> bool:
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


class Ladder:
    """All tiers, the lowest first."""

    def __init__(self, tiers: Sequence[Tier], first: str) -> None:
        """`first` is the tier of accounts that have none; empty: they have no limits of a tier."""
        self.tiers = tuple(tiers)
        self.first = first
        self._by_name = {tier.name: tier for tier in tiers}

    @property
    def climbs(self) -> bool:
        """Whether accounts begin on it, and so move up by themselves. Without a first tier only who was given one has one."""
        return bool(self.first)

    def of(self, name: str) -> Tier | None:
        """The tier of an account; one that is not configured any more counts as the lowest, never as none."""
        name = name or self.first
        if not name:
            return None
        return self._by_name.get(name) or (self.tiers[0] if self.tiers else None)

    def reached(self, name: str, *, paid_nano: int, age_us: int) -> str:
        """The tier that an account has come to: the highest above its own whose conditions it meets, else its own."""
        current = self.of(name)
        if current is None:
            return name
        place = self.tiers.index(current)
        for tier in reversed(self.tiers[place + 1 :]):
            if paid_nano >= tier.paid_nano and age_us >= tier.age_us:
                return tier.name
        return name
