"""Own keys (BYOK): what calls by customers' own keys at providers cost, of which no bill of ours has more than the fee. Pure."""

from farebox.billing.meter import REPORTED_COST_FLAG
from farebox.billing.pricing import cost_pico
from farebox.billing.records import Attempt
from farebox.money import NANO_PER_USD, PICO_PER_NANO, divide_half_even

MARK = '"own_key":true'
"""In the record of every call that such a key was used for. A string of a caller's cannot have it: its quotes are escaped."""

LEFT_OUTCOMES = frozenset({"client_gone", "recovered"})
"""The customer is charged what was delivered."""


def provider_nano(attempt: Attempt) -> int:
    """What the provider bills the customer itself for an attempt, nano-dollars: as it reported, else at its list price.

    0 for an attempt by the house's key, and for one that came to nothing.
    """
    if not attempt.own_key or attempt.usage is None or attempt.rates is None:
        return 0
    if REPORTED_COST_FLAG in attempt.flags:
        whole, _, fraction = attempt.provider_cost_usd.partition(".")
        return divide_half_even(int(whole + fraction) * NANO_PER_USD, 10 ** len(fraction))
    return divide_half_even(cost_pico(attempt.usage, attempt.rates), PICO_PER_NANO)


def counts(attempt: Attempt) -> bool:
    """Whether its call is one of those that a month has some free of: there was an answer, or as much of one as the customer
    waited for. Whoever always leaves before the end would have all of them free."""
    if attempt.outcome == "ok":
        return attempt.own_key
    return attempt.outcome in LEFT_OUTCOMES and provider_nano(attempt) > 0
