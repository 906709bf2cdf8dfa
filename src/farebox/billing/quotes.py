"""What a call may cost and what it did: the prices it was quoted, and its bill."""

import msgspec

from farebox.billing.markup import Fees
from farebox.catalog.price import Rates, Schedule


class Quote(msgspec.Struct, frozen=True):
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
        if service_tier is not None:
            schedule = self.service_tiers.get(service_tier, schedule)
        return schedule.at(prompt_tokens)


class Bill(msgspec.Struct, frozen=True, gc=False):
    """What one attempt costs us and the customer, in nano-dollars."""

    rates: Rates
    cost_nano: int
    """0 where the provider bills the customer itself."""
    charge_nano: int
