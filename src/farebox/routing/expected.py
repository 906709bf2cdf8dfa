"""What a call will probably cost: what offers are sorted by, and what whoever asks for a plan is told. Pure."""

from typing import Final

from farebox.billing.pricing import outlay_nano
from farebox.billing.quotes import Quote
from farebox.catalog.model import Offer
from farebox.money import BASIS_POINTS, PICO_PER_NANO
from farebox.routing.plan import Candidate
from farebox.wires.call import Call

EXPECTED_OUTPUT_TOKENS: Final = 512
"""Output assumed when the client set no lower cap."""


def uncached_nano(call: Call, quoted: Quote, estimate: int, offer: Offer) -> int:
    """What the estimated prompt and a usual answer cost the caller in all, no cache hit assumed."""
    estimate = min(estimate, offer.context_window)
    rates = quoted.schedule.rates if quoted.single is not None else quoted.rates_for(estimate)
    output = call.output_cap or offer.max_output_tokens
    output = min(output, EXPECTED_OUTPUT_TOKENS)
    pico = estimate * rates.input + output * call.choices * rates.output + rates.request
    if not quoted.markup_bp and quoted.fees is None:
        return pico // PICO_PER_NANO
    return outlay_nano(pico, quoted.markup_bp, quoted.fees)


def expected_nano(call: Call, candidate: Candidate, estimate: int) -> int:
    """The same of a candidate, with the share of the prompt that is probably in its cache."""
    quoted, offer = candidate.quoted, candidate.target.offer
    cost_nano = uncached_nano(call, quoted, estimate, offer)
    if not candidate.cached_bp:
        return cost_nano
    rates = quoted.rates_for(estimate)
    saved = estimate * candidate.cached_bp // BASIS_POINTS * (rates.input - rates.cache_read)
    saved = saved * (quoted.markup_bp + BASIS_POINTS) // (BASIS_POINTS * PICO_PER_NANO)
    return max(cost_nano - saved, 0)
