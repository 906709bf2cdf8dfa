"""Pricing against an oracle of fractions: exact, independent of order, and never above what was held."""

from fractions import Fraction

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.billing import pricing
from farebox.billing.markup import Terms
from farebox.catalog.price import OffPeak, Price, Rates, Schedule, Tier
from farebox.wires.usage import Usage

CLASSES = Usage.TOKEN_CLASSES
counts = st.integers(0, 2**24)
rates_of = st.builds(Rates, **{name: st.integers(0, 10**9) for name in (*CLASSES, "web_searches", "request")})
usages = st.builds(Usage, **{name: counts for name in CLASSES}, web_searches=st.integers(0, 20))


def oracle(usage: Usage, rates: Rates, markup_bp: int) -> Fraction:
    total = Fraction(rates.request)
    for name in (*CLASSES, "web_searches"):
        total += Fraction(getattr(usage, name)) * getattr(rates, name)
    return total * (10_000 + markup_bp) / 10_000 / 1_000


def quoted(rates: Rates, markup_bp: int = 0, tiers: tuple[Tier, ...] = ()) -> pricing.Quote:
    return pricing.Quote("v", Schedule(rates, tiers), markup_bp, {})


@settings(max_examples=3_000, deadline=None)
@given(usages, rates_of, st.integers(0, 5_000))
def test_charges_equal_the_fraction_oracle(usage: Usage, rates: Rates, markup_bp: int) -> None:
    billed = pricing.bill(usage, quoted(rates, markup_bp))
    assert billed.charge_nano == round(oracle(usage, rates, markup_bp))
    assert billed.cost_nano == round(oracle(usage, rates, 0))


@given(usages, rates_of)
def test_prompt_and_completion_sides_add_up(usage: Usage, rates: Rates) -> None:
    assert sum(pricing.side_costs_pico(usage, rates)) == pricing.cost_pico(usage, rates)


@settings(max_examples=1_000, deadline=None)
@given(st.data(), rates_of, rates_of, st.integers(1, 100_000), st.integers(0, 2_000))
def test_the_worst_case_covers_every_usage_within_its_bounds(
    data: st.DataObject, base: Rates, upper: Rates, above: int, markup_bp: int
) -> None:
    quote = quoted(base, markup_bp, (Tier(above, upper),))
    input_max, output_max, searches = data.draw(st.integers(0, 200_000)), data.draw(st.integers(0, 100_000)), 3
    held = pricing.worst_case_nano(quote, input_tokens=input_max, output_tokens=output_max, web_searches=searches)
    shares = data.draw(st.lists(st.integers(0, 100), min_size=6, max_size=6))
    left = input_max
    parts: list[int] = []
    for share in shares:
        part = left * share // 100
        parts.append(part)
        left -= part
    reasoning = data.draw(st.integers(0, output_max))
    usage = Usage(
        input=parts[0], cache_read=parts[1], cache_write_5m=parts[2], cache_write_1h=parts[3], audio_input=parts[4],
        image_input=parts[5], output=output_max - reasoning, reasoning=reasoning, web_searches=searches,
    )  # fmt: skip
    assert pricing.bill(usage, quote).charge_nano <= held


def test_a_tier_reprices_the_whole_request_strictly_above_its_limit() -> None:
    quote = quoted(Rates(input=1_000_000, output=2_000_000), tiers=(Tier(200_000, Rates(input=3_000_000, output=4_000_000)),))
    at = pricing.bill(Usage(input=200_000, output=10), quote)
    over = pricing.bill(Usage(input=150_000, cache_read=50_001, output=10), quote)
    assert at.charge_nano == 200_000 * 1_000 + 10 * 2_000
    assert over.rates.input == 3_000_000
    assert over.charge_nano == 150_000 * 3_000 + 10 * 4_000


@given(rates_of, st.integers(1, 10_000), st.integers(0, 10**12))
def test_the_affordable_cap_is_the_largest_that_fits(rates: Rates, input_tokens: int, available: int) -> None:
    rates = msgspec.structs.replace(rates, output=max(rates.output, 1_000))
    quote = quoted(rates)
    cap = pricing.affordable_output_tokens(quote, input_tokens=input_tokens, available_nano=available)
    if cap:
        assert pricing.worst_case_nano(quote, input_tokens=input_tokens, output_tokens=cap) <= available
    if cap < 2**31:  # no model writes more: where the search ends
        assert pricing.worst_case_nano(quote, input_tokens=input_tokens, output_tokens=cap + 1) > available


PRICE = Price(
    version="m@1",
    effective_from="2026-01-01",
    standard=Schedule(Rates(input=2_000_000, output=8_000_000)),
    service_tiers={
        "flex": Schedule(Rates(input=1_000_000, output=4_000_000)),
        "priority": Schedule(Rates(input=4_000_000, output=16_000_000)),
    },
)


def test_the_tier_that_was_served_decides_not_the_one_that_was_asked() -> None:
    asked = pricing.quote(PRICE, terms=Terms(), service_tier="priority", now_us=0)
    usage = Usage(input=100, output=100)
    assert pricing.bill(usage, asked, service_tier="default").charge_nano == 100 * 2_000 + 100 * 8_000
    assert pricing.bill(usage, asked, service_tier="priority").charge_nano == 100 * 4_000 + 100 * 16_000
    assert pricing.bill(usage, asked).charge_nano == 100 * 4_000 + 100 * 16_000


def test_a_dearer_tier_than_asked_for_is_never_billed() -> None:
    plain = pricing.quote(PRICE, terms=Terms(), service_tier=None, now_us=0)
    usage = Usage(input=100, output=100)
    assert pricing.bill(usage, plain, service_tier="priority").charge_nano == pricing.bill(usage, plain).charge_nano
    assert pricing.bill(usage, plain, service_tier="flex").charge_nano == 100 * 1_000 + 100 * 4_000


def test_off_peak_hours_are_utc_and_weekends_count() -> None:
    cheap = Schedule(Rates(input=500_000, output=1_000_000))
    price = msgspec.structs.replace(PRICE, service_tiers={}, off_peak=OffPeak(cheap, ((60, 240), (360, 600))))
    wednesday = 1_795_564_800_000_000  # 2026-11-25T00:00Z
    hour = 3_600_000_000

    def at(moment: int) -> int:
        return pricing.quote(price, terms=Terms(), service_tier=None, now_us=moment).schedule.rates.input

    assert at(wednesday) == 500_000
    assert at(wednesday + hour) == 2_000_000
    assert at(wednesday + 4 * hour - 1) == 2_000_000
    assert at(wednesday + 4 * hour) == 500_000
    assert at(wednesday + 3 * 24 * hour + hour) == 500_000


@given(st.integers(0, 10**18), st.integers(0, 15), st.integers(0, 5_000))
def test_a_reported_cost_is_rounded_once_for_each_side(digits: int, decimals: int, markup_bp: int) -> None:
    text = str(digits).rjust(decimals + 1, "0")
    text = f"{text[:-decimals]}.{text[-decimals:]}" if decimals else text
    exact = Fraction(digits, 10**decimals) * 10**9
    billed = pricing.reported_bill(text, Rates(), markup_bp)
    assert billed.cost_nano == round(exact)
    assert billed.charge_nano == round(exact * (10_000 + markup_bp) / 10_000)
