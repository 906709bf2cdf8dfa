"""Numbers: exact parsing, exact printing, one rounding."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox import money


@pytest.mark.parametrize(
    ("text", "nano"),
    [("25.00", 25_000_000_000), ("0.000000001", 1), ("0", 0), ("-1.5", -1_500_000_000), ("9223372036.854775807", 2**63 - 1)],
)
def test_amounts_parse_exactly(text: str, nano: int) -> None:
    assert money.parse_amount(text) == nano


@pytest.mark.parametrize("text", ["", "1e3", "1,5", " 1", "0.0000000001", "NaN", "9223372036.854775808", "1.", ".5", "٣"])
def test_what_is_no_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(money.MoneyError):
        money.parse_amount(text)


def test_float_noise_in_a_price_is_an_error_never_a_rounding() -> None:
    with pytest.raises(money.MoneyError, match="more than 6 decimals"):
        money.parse_rate("0.18000000000000002")
    assert money.parse_rate("0.1800000000") == 180_000


def test_one_dollar_per_million_is_a_million_pico_dollars() -> None:
    assert money.parse_rate("1") == 1_000_000
    assert money.parse_unit_rate("0.0000025") == 2_500_000


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_amounts_survive_printing_and_parsing(nano: int) -> None:
    assert money.parse_amount(money.format_amount(nano)) == nano


@given(st.integers(0, 2**63 - 1))
def test_amounts_with_nine_decimals_are_the_same_amounts(nano: int) -> None:
    text = money.format_nine(nano)
    assert len(text.partition(".")[2]) == 9 and Fraction(text) == Fraction(nano, 10**9)


@given(st.integers(0, 10**12))
def test_rates_survive_printing_and_parsing(pico: int) -> None:
    assert money.parse_rate(money.format_rate(pico)) == pico
    assert money.parse_unit_rate(money.format_unit_rate(pico)) == pico


@settings(max_examples=2_000)
@given(st.integers(0, 10**24), st.integers(0, 20_000))
def test_a_charge_is_rounded_once_half_even(pico: int, markup_bp: int) -> None:
    exact = Fraction(pico) * (10_000 + markup_bp) / 10_000 / 1_000
    assert money.round_charge(pico, markup_bp) == round(exact)


@pytest.mark.parametrize(("pico", "nano"), [(500, 0), (1_500, 2), (2_500, 2), (501, 1), (1_499, 1)])
def test_halves_go_to_the_even_neighbour(pico: int, nano: int) -> None:
    assert money.round_charge(pico) == nano
