"""What a call may cost and what it did: the prices it was quoted, and its bill."""

from dataclasses import dataclass
from typing import Final

from farebox.billing.markup import Fees
from farebox.catalog.price import Rates, Schedule


@dataclass(frozen=True)
class Quote:
    """One offer's price as frozen into a hold."""

    price_version: str
    schedule: Schedule
    """The service tier asked for, or the standard one."""
    markup_bp: int
    service_tiers: dict[str, Schedule]
    """Other tiers of the same version: the provider's answer says which one it served (providers.md §2.1)."""
    single: tuple[int, int, int] | None = None
    """(dearest input, dearest output, per request) where there is only one rate vector: the hold's short cut."""
    fees: Fees | None = None
    """What the markup has beside its percentage."""
    plan: str = ""
    """Whose markup this is; see `farebox.billing.markup`."""

    def rates_for(self, prompt_tokens: int, service_tier: str | None = None) -> Rates:
        """The vector that a finished attempt bills at."""
        schedule = self.schedule
        if self.single is not None:
            return schedule.rates
        if service_tier is not None:
            schedule = self.service_tiers.get(service_tier, schedule)
        return schedule.at(prompt_tokens)


class Bill:
    """What one attempt costs us and the customer, in nano-dollars."""

    __slots__ = ("charge_nano", "cost_nano", "rates")

    def __init__(self, rates: Rates, cost_nano: int, charge_nano: int) -> None:
        self.rates: Final = rates
        self.cost_nano: Final = cost_nano
        """0 where the provider bills the customer itself."""
        self.charge_nano: Final = charge_nano
