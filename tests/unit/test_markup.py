"""Markup plans against an oracle of fractions: which terms apply, what they charge, and that a hold covers them."""

from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.billing import pricing
from farebox.billing.markup import Fees, MarkupPlan, Terms, changed_level
from farebox.billing.posting.recovery import finish
from farebox.billing.records import Dispatch, Hold, Progress
from farebox.catalog.price import Price, Rates, Schedule
from farebox.config import ConfigError, load
from farebox.market import markup_plans
from farebox.wires.usage import Usage

amounts = st.one_of(st.none(), st.integers(0, 10**7))
fees_of = st.builds(Fees, per_call_nano=st.integers(0, 10**7), min_nano=amounts, max_nano=amounts, own_key=st.booleans())
terms_of = st.builds(Terms, plan=st.just("p"), bp=st.integers(-10_000, 50_000), fees=st.one_of(st.none(), fees_of))
terms_of = terms_of.filter(lambda terms: not (owns(terms) and terms.bp < 0))
usages = st.builds(Usage, input=st.integers(0, 10**6), output=st.integers(0, 10**5), cache_read=st.integers(0, 10**5))
rates_of = st.builds(Rates, input=st.integers(0, 10**8), output=st.integers(0, 10**8), request=st.integers(0, 10**9))


def owns(terms: Terms) -> bool:
    """Whether the provider bills the customer itself."""
    return terms.fees is not None and terms.fees.own_key


def oracle(cost: Fraction, terms: Terms) -> Fraction:
    """The charge in nano-dollars, before rounding."""
    fee = cost * terms.bp / 10_000
    if terms.fees is not None:
        fee += terms.fees.per_call_nano
        if terms.fees.min_nano is not None:
            fee = max(fee, Fraction(terms.fees.min_nano))
        if terms.fees.max_nano is not None:
            fee = min(fee, Fraction(terms.fees.max_nano))
        if terms.fees.own_key:
            return fee
    return cost + fee


def cost_of(usage: Usage, rates: Rates) -> Fraction:
    pico = usage.input * rates.input + usage.cache_read * rates.cache_read + usage.output * rates.output + rates.request
    return Fraction(pico, 1_000)


def quoted(rates: Rates, terms: Terms) -> pricing.Quote:
    return pricing.quote(Price("v", "2026-01-01", Schedule(rates)), terms=terms, service_tier=None, now_us=0)


@settings(max_examples=2_000, deadline=None)
@given(usages, rates_of, terms_of)
def test_charges_equal_the_fraction_oracle(usage: Usage, rates: Rates, terms: Terms) -> None:
    billed = pricing.bill(usage, quoted(rates, terms))
    assert billed.charge_nano == round(oracle(cost_of(usage, rates), terms))
    owed = 0 if owns(terms) else cost_of(usage, rates)
    assert billed.cost_nano == round(owed), "what we owe has no markup, and is nothing by the customer's own key"


@settings(max_examples=1_000, deadline=None)
@given(usages, rates_of, terms_of, st.integers(0, 10**5), st.integers(0, 10**5))
def test_the_hold_covers_every_usage_within_its_bounds(
    usage: Usage, rates: Rates, terms: Terms, more_input: int, more_output: int
) -> None:
    quote = quoted(rates, terms)
    held = pricing.worst_case_nano(
        quote, input_tokens=usage.prompt_tokens + more_input, output_tokens=usage.output + more_output
    )
    assert pricing.bill(usage, quote).charge_nano <= held
    assert held >= oracle(cost_of(usage, rates), terms), "not even a fraction of a nano-dollar is uncovered"


@given(st.integers(0, 10**12), st.integers(0, 12), terms_of)
def test_a_reported_cost_is_marked_up_alike(digits: int, decimals: int, terms: Terms) -> None:
    text = f"{digits:0{decimals + 1}d}"
    text = f"{text[:-decimals]}.{text[-decimals:]}" if decimals else text
    exact = Fraction(digits, 10**decimals) * 10**9
    billed = pricing.reported_bill(text, Rates(), terms.bp, terms.fees)
    assert (billed.cost_nano, billed.charge_nano) == (0 if owns(terms) else round(exact), round(oracle(exact, terms)))


PLANS = """
[billing]
markup = "shop"
[markup.shop]
percent = "20"
per_call = "0.0005"
fee_min = "0.001"
fee_max = "0.05"
volume = [{ above = "100", percent = "15.5" }, { above = "1000.00", percent = "-2" }]
rules = [
    { model = "openai/*", provider = "azure", percent = "3" },
    { model = "openai/*", percent = "5", volume = [{ above = "10", percent = "4" }] },
]
[markup.friends]
"""


def plans(folder: Path, text: str = PLANS) -> dict[str, MarkupPlan]:
    path = folder / "farebox.toml"
    path.write_text(text)
    return markup_plans(load(path, {}))


DOLLAR = 10**9
FEES = Fees(500_000, 1_000_000, 50_000_000)


@pytest.mark.parametrize(
    ("model", "provider", "volume", "expected"),
    [
        ("x/y", "lab", 0, Terms("shop", 2_000, FEES)),
        ("x/y", "lab", 100 * DOLLAR, Terms("shop", 2_000, FEES)),
        ("x/y", "lab", 100 * DOLLAR + 1, Terms("shop above 100.00", 1_550, FEES)),
        ("x/y", "lab", 5_000 * DOLLAR, Terms("shop above 1000.00", -200, FEES)),
        ("openai/gpt-4o", "azure", 5_000 * DOLLAR, Terms("shop (openai/* azure)", 300)),
        ("openai/gpt-4o", "openai", 0, Terms("shop (openai/*)", 500)),
        ("openai/gpt-4o", "openai", 11 * DOLLAR, Terms("shop (openai/*) above 10.00", 400)),
    ],
)
def test_the_first_rule_and_the_highest_step_decide(
    tmp_path: Path, model: str, provider: str, volume: int, expected: Terms
) -> None:
    found = plans(tmp_path)
    assert found["shop"].terms(model, provider, volume) == found[""].terms(model, provider, volume) == expected
    assert found["friends"].terms(model, provider, volume) == Terms("friends")


def test_a_step_is_passed_once(tmp_path: Path) -> None:
    found = plans(tmp_path)
    assert found["shop"].thresholds_nano == (10 * DOLLAR, 100 * DOLLAR, 1_000 * DOLLAR)
    assert changed_level(found, "shop", 9 * DOLLAR, 10 * DOLLAR + 1)
    assert changed_level(found, "shop", 10 * DOLLAR, 11 * DOLLAR)
    assert not changed_level(found, "shop", 11 * DOLLAR, 99 * DOLLAR)
    assert not changed_level(found, "friends", 0, 99 * DOLLAR)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[markup.a]\npercent = "5.555"', "`markup.a`: `percent`"),
        ('[markup.a]\npercent = "-101"', "not from -100 to 1000 percent"),
        ('[markup.a]\npercent = 5', "in quotes"),
        ('[markup.a]\nper_cal = "1"', "did you mean `per_call`"),
        ('[markup.a]\nper_call = "-1"', "`per_call`: -1 is negative"),
        ('[markup.a]\nfee_min = "2"\nfee_max = "1"', "`fee_min`: 2 is above `fee_max` 1"),
        ('[markup.a]\nvolume = [{ above = "5", percent = "1" }, { above = "5", percent = "2" }]', "`volume[1].above`"),
        ('[markup.a]\nvolume = [{ above = "5", precent = "1" }]', "did you mean `percent`"),
        ('[markup.a]\nrules = [{ percent = "1" }]', "`rules[0].model`"),
        ('[markup.a]\nrules = [{ model = "a/*" }, { model = "a/*" }]', "`rules[1].model`: an earlier rule"),
        ("[markup.a.byok]\nfree_calls = -1", "`byok.free_calls`: -1 is not from 0"),
        ('[markup.a.byok]\npercent = "-1"', "`byok.percent`: -1 is negative"),
        ('[markup.a.byok]\nfee_min = "2"\nfee_max = "1"', "`byok.fee_min`: 2 is above"),
        ('[markup."a b"]\npercent = "1"', "a plan's name"),
        ('[billing]\nmarkup = "none"', "`billing.markup`: there is no plan `none`"),
        ('[billing]\nmarkup = "a"\nmarkup_percent = "1"\n[markup.a]', "write one of them"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plans(tmp_path, text)
    assert words in str(caught.value), caught.value


class Clock:
    def now_us(self) -> int:
        return 9

    def monotonic_us(self) -> int:
        return 9


def test_recovery_charges_by_the_terms_of_the_attempt_that_died() -> None:
    """A failover to a provider with terms of its own must not be billed at the first one's."""
    hold = Hold("g", 1, "a", "k", (), DOLLAR, "chat", "m", "p", "m", "v", Rates(input=1_000), markup_bp=100, plan="one")
    second = Terms("two", 5_000, Fees(per_call_nano=7))
    dispatch = Dispatch("g", 2, 2, "q", "m", "v", Rates(input=1_000), terms=second)
    (settle,) = finish([hold, dispatch, Progress("g", 2, 3, Usage(input=10))], Clock())
    attempt = settle.attempts[-1]
    assert (attempt.plan, attempt.markup_bp, attempt.fees) == ("two", 5_000, Fees(per_call_nano=7))
    assert attempt.charge_nano == 10 + 5 + 7
    (settle,) = finish([hold, msgspec.structs.replace(dispatch, terms=None), Progress("g", 2, 3, Usage(input=1_000))], Clock())
    assert settle.charge_nano == 1_010, "a journal from before there were plans"


@pytest.mark.parametrize(
    ("text", "calls", "expected"),
    [
        ("", 999_999, Terms("a BYOK free", 0, Fees(own_key=True))),
        ("", 1_000_000, Terms("a BYOK", 500, Fees(own_key=True))),
        ("free_calls = 0\npercent = '2.5'", 0, Terms("a BYOK", 250, Fees(own_key=True))),
        ("free_calls = 2\nper_call = '0.001'\nfee_max = '0.01'", 1, Terms("a BYOK free", 0, Fees(own_key=True))),
        ("free_calls = 2\nper_call = '0.001'\nfee_max = '0.01'", 2, Terms("a BYOK", 500, Fees(10**6, None, 10**7, own_key=True))),
    ],
)
def test_calls_by_a_customers_own_key_are_free_up_to_an_allowance(
    tmp_path: Path, text: str, calls: int, expected: Terms
) -> None:
    plan = plans(tmp_path, f"[markup.a]\npercent = '20'\n[markup.a.byok]\n{text}")["a"]
    assert plan.own_key.at(calls) == expected


@given(usages, rates_of, st.integers(0, 50_000), st.one_of(st.none(), st.integers(0, 10**7)))
def test_a_continuation_by_an_own_key_is_charged_its_fee_only(usage: Usage, rates: Rates, bp: int, most: int | None) -> None:
    quote = quoted(rates, Terms("p", bp, Fees(10**6, None, most, own_key=True)))
    taken = pricing.bill(usage, quote).charge_nano
    rest = pricing.rest_bill(usage, quote, fees=pricing.rest_fees(quote.fees, taken))
    fee = Fraction(usage.output * rates.output, 1_000) * bp / 10_000
    assert rest.charge_nano == round(fee if most is None else min(fee, max(Fraction(most - taken), Fraction(0))))
    assert rest.cost_nano == 0
    held = pricing.worst_rest_nano(quote, prompt_tokens=usage.prompt_tokens, output_tokens=usage.output)
    assert rest.charge_nano <= held <= 1 + fee * (1 if rates.output >= rates.reasoning else 10**9)
