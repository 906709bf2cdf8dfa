"""The configuration's section about a second currency to show. Read by `farebox.config`."""

from collections.abc import Callable

import msgspec

from farebox import display
from farebox.money import MoneyError


class DisplaySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A currency that `farebox accounts list`, the total of `farebox usage`, `GET /v1/usage`, `GET /v1/activity` and invoices
    show beside US dollars. The books, prices and charges stay in US dollars."""

    currency: str = ""
    """Three letters, such as `"EUR"`. Empty: only US dollars."""
    rates: dict[str, str] = {}
    """Units per US dollar from the start of a UTC day on: `"2026-11-01" = "0.92"`. Before the first day none is shown."""

    source: str = ""
    """Where the rates are from, as invoices say it: `"European Central Bank"`."""

    @property
    def shown(self) -> display.Shown | None:
        return display.read(self.currency, self.rates, self.source) if self.currency else None


def check_display(section: DisplaySection, refuse: Callable[[str, str], None]) -> None:
    if section.rates and not section.currency:
        refuse("display.currency", 'is missing, but there are rates; write one such as "EUR"')
    try:
        _ = section.shown
    except MoneyError as error:
        refuse("display", str(error))
