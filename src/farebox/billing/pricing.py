"""Pricing: usage × rates → money, exactly, with one rounding. Pure integers; see billing.md §1 and §2.

A `Quote` freezes everything that decides a charge when the hold is made: the price version, its rate vectors and the
markup. Settlement uses the quote even if prices change meanwhile.
"""


from typing import Final

from farebox.billing.markup import Fees, Terms, marked_up_nano
from farebox.billing.quotes import Bill, Quote
from farebox.catalog.price import Price, Rates, Schedule
from farebox.money import NANO_PER_USD, PICO_PER_NANO, divide_half_even, round_charge
from farebox.wires.usage import Usage

MINUTES_PER_DAY: Final = 1440


def cost_pico(usage: Usage, rates: Rates) -> int:
    """Σ units × rate, in pico-dollars, without the per-request fee's markup or any rounding."""
    total = usage.input * rates.input + usage.output * rates.output + rates.request
    if usage.cache_read:
        total += usage.cache_read * rates.cache_read
    if usage.reasoning:
        total += usage.reasoning * rates.reasoning
    if usage.cache_write_5m:
        total += usage.cache_write_5m * rates.cache_write_5m
    if usage.cache_write_1h:
        total += usage.cache_write_1h * rates.cache_write_1h
    if usage.audio_input:
        total += usage.audio_input * rates.audio_input
    if usage.image_input:
        total += usage.image_input * rates.image_input
    if usage.audio_output:
        total += usage.audio_output * rates.audio_output
    if usage.image_output:
        total += usage.image_output * rates.image_output
    if usage.web_searches:
        total += usage.web_searches * rates.web_searches
    return total


def side_costs_pico(usage: Usage, rates: Rates) -> tuple[int, int]:
    """The cost split as OpenRouter's `cost_details` does: (prompt side, completion side), fees with the prompt."""
    output = (
        usage.output * rates.output
        + usage.reasoning * rates.reasoning
        + usage.audio_output * rates.audio_output
        + usage.image_output * rates.image_output
    )
    return cost_pico(usage, rates) - output, output


def in_peak(peak_minutes_utc: tuple[tuple[int, int], ...], weekends_off_peak: bool, now_us: int) -> bool:
    """Whether a moment lies in a price's peak hours."""
    minutes = now_us // 60_000_000
    day = (minutes // MINUTES_PER_DAY + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    if weekends_off_peak and day >= 5:
        return False
    minute = minutes % MINUTES_PER_DAY
    return any(start <= minute < end for start, end in peak_minutes_utc)


def quote(price: Price, *, terms: Terms, service_tier: str | None, now_us: int) -> Quote:
    """Freeze a price for a call that starts now. An unknown service tier bills as standard until the provider names one."""
    standard = price.standard
    off_peak = price.off_peak
    if off_peak is not None and not in_peak(off_peak.peak_minutes_utc, off_peak.weekends_off_peak, now_us):
        standard = off_peak.schedule
    schedule = standard
    served: dict[str, Schedule] = {}
    if price.service_tiers:
        if service_tier is not None:
            schedule = price.service_tiers.get(service_tier, standard)
        tiers = {"default": standard, "standard": standard, **price.service_tiers}
        # A provider may serve with less than was asked for, never bill more than was: only such tiers are billed, and held.
        served = {name: tier for name, tier in tiers.items() if _not_dearer(tier.rates, schedule.rates)}
    rates = schedule.rates
    single = (rates.dearest_input, rates.dearest_output, rates.request) if not schedule.tiers and not served else None
    return Quote(price.version, schedule, terms.bp, served, single, terms.fees, terms.plan)


def _not_dearer(rates: Rates, than: Rates) -> bool:
    return rates.dearest_input <= than.dearest_input and rates.dearest_output <= than.dearest_output


def bill(usage: Usage, quoted: Quote, *, service_tier: str | None = None) -> Bill:
    """The exact cost and charge of a usage under a quote, each rounded once."""
    rates = quoted.schedule.rates if quoted.single is not None else quoted.rates_for(usage.prompt_tokens, service_tier)
    pico = cost_pico(usage, rates)
    cost = divide_half_even(pico, PICO_PER_NANO)
    if quoted.fees is None and quoted.markup_bp == 0:
        return Bill(rates, cost, cost)
    return Bill(rates, owed_nano(cost, quoted.fees), charge_nano(pico, quoted.markup_bp, quoted.fees))


def owed_nano(cost_nano: int, fees: Fees | None) -> int:
    """What of a cost is ours: nothing of what the customer's own key was used for."""
    return 0 if fees is not None and fees.own_key else cost_nano


def charge_nano(pico: int, markup_bp: int, fees: Fees | None) -> int:
    """What a cost of so many pico-dollars is charged at, rounded once."""
    return round_charge(pico, markup_bp) if fees is None else marked_up_nano(pico, PICO_PER_NANO, markup_bp, fees)


def outlay_nano(pico: int, markup_bp: int, fees: Fees | None) -> int:
    """What a cost of so many pico-dollars costs the customer in all: the charge, and, by its own key, the provider's bill."""
    charge = charge_nano(pico, markup_bp, fees)
    return charge + divide_half_even(pico, PICO_PER_NANO) if fees is not None and fees.own_key else charge


def rest_bill(usage: Usage, quoted: Quote, *, fees: Fees | None = None, service_tier: str | None = None) -> Bill:
    """The bill of an attempt that went on with another's answer (billing.md §4): all of it costs us, the customer pays its
    output. The input, the fee per request and what the markup takes per call were paid with the first part.

    `fees` is what is left of the markup's cap (`rest_fees`).
    """
    rates = quoted.rates_for(usage.prompt_tokens, service_tier)
    cost = divide_half_even(cost_pico(usage, rates), PICO_PER_NANO)
    return Bill(rates, owed_nano(cost, quoted.fees), charge_nano(rest_pico(usage, rates), quoted.markup_bp, fees))


def rest_pico(usage: Usage, rates: Rates) -> int:
    """What a usage costs without its input and the fee per request."""
    _, output = side_costs_pico(usage, rates)
    return output + usage.web_searches * rates.web_searches


def rest_fees(fees: Fees | None, taken_nano: int) -> Fees | None:
    """A markup's fees for the rest of a call that has borne `taken_nano` of markup: only its cap goes on."""
    if fees is None or (fees.max_nano is None and not fees.own_key):
        return None
    return Fees(max_nano=None if fees.max_nano is None else max(fees.max_nano - taken_nano, 0), own_key=fees.own_key)


def worst_rest_nano(quoted: Quote, *, prompt_tokens: int, output_tokens: int) -> int:
    """The most that `rest_bill` can charge; rounded up. `prompt_tokens` says which price tiers are in reach."""
    worst = 0
    for schedule in (quoted.schedule, *quoted.service_tiers.values()):
        for rates in schedule.reachable(prompt_tokens):
            worst = max(worst, output_tokens * rates.dearest_output)
    alone = Fees(own_key=True) if quoted.fees is not None and quoted.fees.own_key else None
    return marked_up_nano(worst, PICO_PER_NANO, quoted.markup_bp, alone, up=True)


def reported_bill(cost_usd: str, rates: Rates, markup_bp: int, fees: Fees | None = None) -> Bill:
    """A bill made of the provider's own charge, a plain decimal string of dollars; each amount rounded once, half-even."""
    whole, _, fraction = cost_usd.partition(".")
    digits, scale = int(whole + fraction), 10 ** len(fraction)
    cost = divide_half_even(digits * NANO_PER_USD, scale)
    return Bill(rates, owed_nano(cost, fees), marked_up_nano(digits * NANO_PER_USD, scale, markup_bp, fees))


def worst_case_nano(quoted: Quote, *, input_tokens: int, output_tokens: int, requests: int = 1, web_searches: int = 0) -> int:
    """The most that a call with these bounds can be charged: the dearest input and output class of every reachable tier.

    Rounded up, so that the hold is never below the charge it must cover.
    """
    if quoted.single is not None and not web_searches:
        dearest_input, dearest_output, request = quoted.single
        pico = input_tokens * dearest_input + output_tokens * dearest_output + requests * request
        if not quoted.markup_bp and quoted.fees is None:
            return -(-pico // PICO_PER_NANO)
        return marked_up_nano(pico, PICO_PER_NANO, quoted.markup_bp, quoted.fees, up=True)
    worst = 0
    for schedule in (quoted.schedule, *quoted.service_tiers.values()):
        for rates in schedule.reachable(input_tokens):
            pico = (
                input_tokens * rates.dearest_input
                + output_tokens * rates.dearest_output
                + requests * rates.request
                + web_searches * rates.web_searches
            )
            worst = max(worst, pico)
    return marked_up_nano(worst, PICO_PER_NANO, quoted.markup_bp, quoted.fees, up=True)


def affordable_output_tokens(
    quoted: Quote, *, input_tokens: int, available_nano: int, web_searches: int = 0, choices: int = 1
) -> int:
    """The largest output cap whose worst case fits `available_nano`; 0 when not even the input fits."""
    low, high = 0, 2**31
    if worst_case_nano(quoted, input_tokens=input_tokens, output_tokens=0, web_searches=web_searches) > available_nano:
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        cost = worst_case_nano(quoted, input_tokens=input_tokens, output_tokens=middle * choices, web_searches=web_searches)
        if cost <= available_nano:
            low = middle
        else:
            high = middle - 1
    return low
