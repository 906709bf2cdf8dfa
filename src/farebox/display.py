"""A second currency to show beside US dollars, by a dated rate. The books never hold it: it is computed when it is shown.

A rate says how many units one US dollar buys from the start of its UTC day on, until the next rate's day. An amount is
converted exactly and rounded once, half-even, to the currency's smallest unit (cents; whole yen).
"""

import datetime as dt
import re
from collections.abc import Mapping

import msgspec

from farebox.money import NANO_PER_USD, MoneyError, divide_half_even

RATE_DECIMALS_MAX = 9
SOURCE_MAX = 100
RATE_WHOLE_DIGITS_MAX = 9
_SCALE = 10**RATE_DECIMALS_MAX
_RATE = re.compile(rf"([0-9]{{1,{RATE_WHOLE_DIGITS_MAX}}})(?:\.([0-9]{{1,{RATE_DECIMALS_MAX}}}))?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_DECIMALS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals of the currencies that do not have two (ISO 4217)."""


class Rate(msgspec.Struct, frozen=True):
    day: dt.date
    text: str
    """As it was written: `0.92`."""
    scaled: int
    """Units per US dollar × 10⁹."""


class Shown(msgspec.Struct, frozen=True):
    """A currency and its rates, ascending by day. There is at least one."""

    currency: str
    rates: tuple[Rate, ...]
    source: str = ""
    """Where the rates are from, in the operator's words."""

    def rate_on(self, day: dt.date) -> Rate | None:
        """The newest rate whose day has come; None before the first."""
        return next((rate for rate in reversed(self.rates) if rate.day <= day), None)

    def convert(self, nano: int, rate: Rate) -> str:
        """Nano-dollars → a decimal string of the currency, rounded once."""
        decimals = _DECIMALS.get(self.currency, 2)
        smallest = divide_half_even(nano * rate.scaled * 10**decimals, NANO_PER_USD * _SCALE)
        whole, fraction = divmod(abs(smallest), 10**decimals)
        sign = "-" if smallest < 0 else ""
        return f"{sign}{whole}.{fraction:0{decimals}d}" if decimals else f"{sign}{whole}"


def read(currency: str, rates: Mapping[str, str], source: str = "") -> Shown:
    """The configuration's words → what is shown. Raises `MoneyError` with the day or name that is wrong."""
    if _CURRENCY.fullmatch(currency) is None:
        raise MoneyError(f"{currency!r} is not a currency's three capital letters such as `EUR`")
    if currency == "USD":
        raise MoneyError("`USD` is shown anyway; name another currency or leave it out")
    if not rates:
        raise MoneyError(f'{currency} has no rate; add `[display.rates]` with a line such as `"2026-11-01" = "0.92"`')
    if len(source) > SOURCE_MAX or not (source.isprintable() or not source):
        raise MoneyError(f"the source of the rates has at most {SOURCE_MAX} printable characters")
    found = sorted((_rate(day, text) for day, text in rates.items()), key=lambda rate: rate.day)
    return Shown(currency, tuple(found), source)


def _rate(day: str, text: str) -> Rate:
    try:
        date = dt.date.fromisoformat(day) if _DAY.fullmatch(day) else None
    except ValueError:
        date = None
    if date is None:
        raise MoneyError(f"{day!r} is not a day such as `2026-11-01`")
    match = _RATE.fullmatch(text)
    if match is None:
        raise MoneyError(
            f"the rate of {day} must be units per US dollar with at most {RATE_DECIMALS_MAX} decimals, "
            f"such as `0.92`, not {text!r}"
        )
    scaled = int(match[1]) * _SCALE + int((match[2] or "").ljust(RATE_DECIMALS_MAX, "0"))
    if scaled == 0:
        raise MoneyError(f"the rate of {day} is 0; a rate is more than 0")
    return Rate(date, text, scaled)
