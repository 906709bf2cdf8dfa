"""Money: integers only. Amounts in nano-dollars, rates in pico-dollars per unit, one rounding rule.

Two scales, chosen so that every published price is an exact integer:

- a **rate** counts pico-dollars (10⁻¹² USD) per unit; $1 per million tokens is 1,000,000;
- an **amount** counts nano-dollars (10⁻⁹ USD) and fits a signed 64-bit column.

A charge is summed in pico-dollars, marked up in basis points and rounded once, half-even, to nano-dollars
(`round_charge`). Nothing here, and nothing that imports it for arithmetic, uses a float.
"""

import re
from typing import Final

NANO_PER_USD: Final = 1_000_000_000
PICO_PER_NANO: Final = 1_000
BASIS_POINTS: Final = 10_000
AMOUNT_NANO_MAX: Final = 2**63 - 1
"""The largest amount a 64-bit column holds: about 9.2 billion dollars."""
RATE_DECIMALS_MAX: Final = 6
"""Decimals of a price per million tokens; one more would be below a pico-dollar per token."""
AMOUNT_DECIMALS_MAX: Final = 9
UNIT_RATE_DECIMALS_MAX: Final = 12
"""Decimals of a price per single unit (request, image, second): down to one pico-dollar."""

_DECIMAL: Final = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,30}))?")


class MoneyError(ValueError):
    """A price or an amount that cannot be represented exactly."""


def _scaled(text: str, decimals: int, what: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise MoneyError(f'{what} must be a plain decimal string such as "2.50", not {text!r}')
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > decimals:
        raise MoneyError(f"{what} {text!r} has more than {decimals} decimals; correct it at its source, it is never rounded here")
    value = int(whole) * 10**decimals + int(fraction.ljust(decimals, "0") or 0)
    return -value if sign else value


def parse_amount(text: str) -> int:
    """A decimal string of USD → nano-dollars. More than 9 decimals or a magnitude over 64 bits is a `MoneyError`."""
    value = _scaled(text, AMOUNT_DECIMALS_MAX, "amount")
    if abs(value) > AMOUNT_NANO_MAX:
        raise MoneyError(f"amount {text!r} does not fit 64 bits of nano-dollars")
    return value


def parse_rate(text: str) -> int:
    """A decimal string of USD per million units → pico-dollars per unit. Negative prices are a `MoneyError`."""
    value = _scaled(text, RATE_DECIMALS_MAX, "price per million")
    if value < 0:
        raise MoneyError(f"price per million {text!r} is negative")
    return value


def parse_percent(text: str) -> int:
    """A decimal string of percent, at most two decimals → basis points: `5.5` → 550. Negative ones are discounts."""
    return _scaled(text, 2, "percentage")


def parse_unit_rate(text: str) -> int:
    """A decimal string of USD per single unit → pico-dollars per unit (requests, images, seconds, searches)."""
    value = _scaled(text, UNIT_RATE_DECIMALS_MAX, "price per unit")
    if value < 0:
        raise MoneyError(f"price per unit {text!r} is negative")
    return value


def _plain(value: int, decimals: int, decimals_min: int) -> str:
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**decimals)
    digits = str(10**decimals + fraction)[1:].rstrip("0").ljust(decimals_min, "0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def format_amount(nano: int) -> str:
    """Nano-dollars → an exact decimal string with at least two decimals: 12_450 → `0.00001245`."""
    whole = nano // NANO_PER_USD
    if whole < 0:
        return _plain(nano, AMOUNT_DECIMALS_MAX, 2)
    # Every answer carries an amount. A digit before the others keeps their zeros; a format would be read anew each time.
    digits = str(NANO_PER_USD + nano - whole * NANO_PER_USD)[1:].rstrip("0")
    return f"{whole}.{digits.ljust(2, '0')}"


def format_nine(nano: int) -> str:
    """Nano-dollars, none below zero, as a number with all nine decimals: 12_450 → `0.000012450`."""
    whole = nano // NANO_PER_USD
    return f"{whole}.{str(NANO_PER_USD + nano - whole * NANO_PER_USD)[1:]}"


def format_rate(pico: int) -> str:
    """Pico-dollars per unit → USD per million units: 2_500_000 → `2.50`."""
    return _plain(pico, RATE_DECIMALS_MAX, 2)


def format_unit_rate(pico: int) -> str:
    """Pico-dollars per unit → USD per unit, exact: 2_500_000 → `0.0000025`."""
    return _plain(pico, UNIT_RATE_DECIMALS_MAX, 0)


def format_percent(bp: int) -> str:
    """Basis points → percent: 550 → `5.5`."""
    return _plain(bp, 2, 0)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Integer division rounded half to even; the denominator is positive."""
    quotient = numerator // denominator
    twice = 2 * (numerator - quotient * denominator)
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def round_charge(pico: int, markup_bp: int = 0) -> int:
    """Pico-dollars, marked up by `markup_bp` basis points → nano-dollars, rounded exactly once (billing.md §1)."""
    return divide_half_even(pico * (BASIS_POINTS + markup_bp), BASIS_POINTS * PICO_PER_NANO)
