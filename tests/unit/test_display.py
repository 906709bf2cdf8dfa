"""A second currency: exact conversion, one rounding, and the rate of the day."""

import datetime as dt
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox import display
from farebox.money import AMOUNT_NANO_MAX, MoneyError

DAY = dt.date(2026, 11, 1)


@given(
    st.integers(-AMOUNT_NANO_MAX, AMOUNT_NANO_MAX),
    st.integers(1, 10**18 - 1),
    st.sampled_from([("EUR", 2), ("JPY", 0), ("KWD", 3)]),
)
def test_a_conversion_is_the_exact_product_rounded_once_half_even(nano: int, scaled: int, kind: tuple[str, int]) -> None:
    currency, decimals = kind
    whole, fraction = divmod(scaled, 10**9)
    shown = display.read(currency, {"2026-11-01": f"{whole}.{fraction:09d}"})
    exact = Fraction(nano, 10**9) * Fraction(scaled, 10**9)
    text = shown.convert(nano, shown.rates[0])
    assert len(text.partition(".")[2]) == decimals
    assert Fraction(text) == Fraction(round(exact * 10**decimals), 10**decimals)


@pytest.mark.parametrize(("nano", "text"), [(5_000_000, "0.00"), (15_000_000, "0.02"), (-15_000_000, "-0.02"), (-1, "0.00")])
def test_a_half_goes_to_the_even_cent_and_nothing_is_minus_zero(nano: int, text: str) -> None:
    shown = display.read("EUR", {"2026-11-01": "1"})
    assert shown.convert(nano, shown.rates[0]) == text


def test_a_rate_holds_from_its_day_until_the_next_ones() -> None:
    shown = display.read("EUR", {"2026-12-01": "0.95", "2026-11-01": "0.92"})
    one = dt.timedelta(days=1)
    assert shown.rate_on(DAY - one) is None
    found = [shown.rate_on(day) for day in (DAY, dt.date(2026, 11, 30), dt.date(2026, 12, 1), dt.date(2030, 1, 1))]
    assert [rate.text for rate in found if rate] == ["0.92", "0.92", "0.95", "0.95"]


@pytest.mark.parametrize(
    ("currency", "rates", "part"),
    [
        ("eur", {"2026-11-01": "1"}, "three capital letters"),
        ("USD", {"2026-11-01": "1"}, "shown anyway"),
        ("EUR", {}, "has no rate"),
        ("EUR", {"2026-11-31": "1"}, "'2026-11-31' is not a day"),
        ("EUR", {"20261101": "1"}, "is not a day"),
        ("EUR", {"2026-11-01": "0.000"}, "is 0"),
        ("EUR", {"2026-11-01": "-1"}, "units per US dollar"),
        ("EUR", {"2026-11-01": "1e3"}, "units per US dollar"),
        ("EUR", {"2026-11-01": "0.1234567891"}, "at most 9 decimals"),
        ("EUR", {"2026-11-01": "\u0661"}, "units per US dollar"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(currency: str, rates: dict[str, str], part: str) -> None:
    with pytest.raises(MoneyError) as error:
        display.read(currency, rates)
    assert part in str(error.value)
