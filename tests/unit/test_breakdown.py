"""Breakdowns: by class and fee, every charge adds up again to the nano-dollar, corrections included."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.billing.books.breakdown import Breakdown, Part, allocate, breakdown, less
from farebox.billing.books.periods import format_moment, month_before, month_bounds, parse_moment
from farebox.billing.markup import Fees
from farebox.billing.pricing import charge_nano, cost_pico
from farebox.billing.records import Attempt
from farebox.catalog.price import Rates
from farebox.wires.usage import Usage

rate = st.integers(0, 10**8)
rates_of = st.builds(Rates, input=rate, output=rate, cache_read=rate, reasoning=rate, web_searches=rate, request=rate)
count = st.integers(0, 10**6)
usages = st.builds(Usage, input=count, output=count, cache_read=count, reasoning=count, web_searches=st.integers(0, 9))
fees_of = st.one_of(st.none(), st.builds(Fees, per_call_nano=st.integers(0, 10**6), own_key=st.booleans()))


def attempt(usage: Usage, rates: Rates, bp: int = 0, fees: Fees | None = None) -> Attempt:
    price = charge_nano(cost_pico(usage, rates), bp, fees)
    return Attempt(1, "p", "m", 0, 0, "ok", usage=usage, rates=rates, markup_bp=bp, fees=fees, charge_nano=price)


@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=12).filter(any))
def test_shares_add_up_and_are_within_one_of_their_part(total: int, weights: list[int]) -> None:
    parts = allocate(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


@settings(max_examples=1_000)
@given(usages, rates_of, st.integers(-10_000, 20_000), fees_of)
def test_the_parts_and_the_fee_are_the_charge(usage: Usage, rates: Rates, bp: int, fees: Fees | None) -> None:
    own = fees is not None and fees.own_key
    bp = abs(bp) if own else bp
    one = attempt(usage, rates, bp, fees)
    found = breakdown(one, one.charge_nano)
    assert found.charge_nano == one.charge_nano
    if one.charge_nano:
        listed = 0 if own else round(Fraction(cost_pico(usage, rates), 1_000))
        assert found.list_nano == listed, "the parts are at list price, or the customer's own"
        assert {name: part.quantity for name, part in found.parts.items() if name != "request"} == {
            name: getattr(usage, name) for name in usage.__struct_fields__ if getattr(usage, name)
        }


@given(usages, usages, rates_of, st.integers(0, 3_000))
def test_a_correction_is_the_difference(before: Usage, after: Usage, rates: Rates, bp: int) -> None:
    old, new = attempt(before, rates, bp), attempt(after, rates, bp)
    first, second = breakdown(old, old.charge_nano), breakdown(new, new.charge_nano)
    change = less(second, first)
    assert change.charge_nano == new.charge_nano - old.charge_nano
    assert first.list_nano + change.list_nano == second.list_nano


def test_what_is_cut_to_the_hold_pays_for_the_delivery_before_the_fee() -> None:
    one = attempt(Usage(input=1_000), Rates(input=1_000), 5_000)  # 1,000 by the list, 1,500 with the fee
    assert breakdown(one, 1_200) == Breakdown({"input": Part(1_000, 1_000, 1_000)}, 200)
    assert breakdown(one, 700) == Breakdown({"input": Part(1_000, 1_000, 700)}, 0)
    assert breakdown(one, 0) == Breakdown({}, 0)


def test_a_discount_is_a_negative_fee() -> None:
    one = attempt(Usage(input=1_000), Rates(input=1_000), -1_000)
    assert breakdown(one, one.charge_nano) == Breakdown({"input": Part(1_000, 1_000, 1_000)}, -100)


def test_a_reported_cost_is_divided_over_the_classes() -> None:
    one = msgspec.structs.replace(
        attempt(Usage(input=10, output=10), Rates(input=1_000, output=3_000)),
        flags=("reported_cost",), cost_nano=100, charge_nano=110, provider_cost_usd="0.0000001",
    )  # fmt: skip
    found = breakdown(one, 110)
    assert (found.parts["input"].list_nano, found.parts["output"].list_nano, found.fee_nano) == (25, 75, 10)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T08:30:00.000001Z", "2026-11-01T08:30:00.000001Z"),
        ("2026-11-01T08:30:00+02:00", "2026-11-01T06:30:00.000000Z"),
        ("2d", "2026-11-21T00:00:00.000000Z"),
        ("90m", "2026-11-22T22:30:00.000000Z"),
    ],
)
def test_moments_are_read_and_written_in_utc(text: str, moment: str) -> None:
    assert format_moment(parse_moment(text, 1_795_392_000_000_000)) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "7", "-7d", "2026-02-30"])
def test_what_is_no_moment_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write 7d"):
        parse_moment(text, 0)


def test_months_know_leap_days_and_years() -> None:
    start, end = month_bounds("2028-02")
    assert end - start == 29 * 86_400_000_000
    assert month_before("2028-01") == "2027-12"
    for wrong in ("2026-13", "2026-1", "26-01", "2026-00", "0000-01"):
        with pytest.raises(ValueError, match="is not a month"):
            month_bounds(wrong)
