"""The plan: which offers a call is tried at, in which order, and why. Pure: catalog, call and time in; attempts out.

Here the order is the expected price. Preferences, health and policies (their own issue) come in as further arguments.
"""

from collections.abc import Sequence

import msgspec

from farebox.billing.bounds import Bound, bound, estimated_input
from farebox.billing.markup import MarkupPlan
from farebox.billing.pricing import Quote, affordable_output_tokens, worst_case_nano
from farebox.errors import FareboxError, Kind
from farebox.routing.target import Target
from farebox.wires.call import Call

EXPECTED_OUTPUT_TOKENS = 512
"""Output assumed when offers are compared by price and the client set no lower cap."""


class Candidate(msgspec.Struct, frozen=True):
    """One offer in the plan."""

    target: Target
    quoted: Quote
    bound: Bound
    hold_nano: int
    expected_nano: int
    reason: str
    upstream_id: str
    """The id to send: the offer's own, or the dated one of the same offer that the client asked for."""
    upstream_id_json: bytes


class Plan(msgspec.Struct, frozen=True):
    """Candidates in the order of trying; `hold_nano` covers the dearest of them."""

    candidates: tuple[Candidate, ...]
    excluded: tuple[tuple[str, str], ...]
    """Offers left out, as (provider/id, reason)."""
    hold_nano: int
    input_estimate: int


def plan(
    call: Call,
    targets: Sequence[Target],
    *,
    now_us: int,
    day: str,
    markup: MarkupPlan | None = None,
    volume_nano: int = 0,
) -> Plan:
    """Order the targets of one model for a call. Raises `model_not_priced` when none has a price today.

    `markup` is the account's own plan, `volume_nano` what it was charged this month.
    """
    candidates: list[Candidate] = []
    excluded: list[tuple[str, str]] = []
    estimate = estimated_input(call)
    cap = call.output_cap
    expected_output = EXPECTED_OUTPUT_TOKENS if cap is None or cap > EXPECTED_OUTPUT_TOKENS else cap
    for item in targets:
        offer = item.offer
        terms = (markup or item.markup).terms(item.model.slug, offer.provider, volume_nano)
        quoted = item.quote_at(now_us, day, call.service_tier, terms)
        if quoted is None:
            excluded.append((f"{offer.provider}/{offer.id}", "no price in force today for this service tier"))
            continue
        limits = bound(
            call, model=item.model.slug, context_window=offer.context_window, max_output_tokens=offer.max_output_tokens
        )
        hold = worst_case_nano(
            quoted, input_tokens=limits.input_tokens, output_tokens=limits.output_tokens, web_searches=call.web_searches_max
        )
        rates = quoted.schedule.rates
        expected = (estimate * rates.input + expected_output * rates.output + rates.request) // 1000
        upstream_id, encoded = offer.id, item.upstream_id_json
        if offer.aliases:
            asked = call.model.rpartition("/")[2]
            if asked in offer.aliases:
                upstream_id, encoded = asked, msgspec.json.encode(asked)
        candidates.append(Candidate(item, quoted, limits, hold, expected, "priced", upstream_id, encoded))
    if not candidates:
        raise _not_priced(call)
    if len(candidates) == 1:
        return Plan((candidates[0],), tuple(excluded), candidates[0].hold_nano, estimate)
    # Stable: equal prices keep the catalog's order.
    candidates.sort(key=_expected)
    return Plan(tuple(candidates), tuple(excluded), max(c.hold_nano for c in candidates), estimate)


def _expected(candidate: Candidate) -> int:
    return candidate.expected_nano


def _not_priced(call: Call) -> FareboxError:
    tier = f" on service tier `{call.service_tier}`" if call.service_tier else ""
    return FareboxError(
        Kind.MODEL_NOT_PRICED,
        f"`{call.model}` has no price in force{tier}, and what has no price is never sent; give its offer a price in the "
        "configuration, or call another model",
        param="model",
    )


def affordable(call: Call, found: Plan, available_nano: int) -> int:
    """The largest output cap per choice that the money covers on every candidate."""
    return min(
        affordable_output_tokens(
            candidate.quoted,
            input_tokens=candidate.bound.input_tokens,
            available_nano=available_nano,
            web_searches=call.web_searches_max,
            choices=call.choices,
        )
        for candidate in found.candidates
    )


def lowered(call: Call, found: Plan, cap: int) -> Plan:
    """The same plan with a lower output cap, to be written into the upstream request."""
    candidates: list[Candidate] = []
    for candidate in found.candidates:
        limits = candidate.bound
        output = cap * call.choices
        hold = worst_case_nano(
            candidate.quoted, input_tokens=limits.input_tokens, output_tokens=output, web_searches=call.web_searches_max
        )
        candidates.append(
            msgspec.structs.replace(candidate, bound=Bound(limits.input_tokens, output, cap, False), hold_nano=hold)
        )
    return msgspec.structs.replace(found, candidates=tuple(candidates), hold_nano=max(c.hold_nano for c in candidates))
