"""A plan in words and numbers, for whoever asks why a call goes where it goes. Pure."""

from collections.abc import Callable
from typing import Any

from farebox.billing.meter import ESCALATED_FLAG, RATING_FLAG
from farebox.billing.records import Attempt
from farebox.money import BASIS_POINTS, format_amount
from farebox.routing.complexity.classify import Assessment, assess
from farebox.routing.expected import expected_nano
from farebox.routing.filters import Exclusion
from farebox.routing.hedging import Outlook
from farebox.routing.measured import OfferHealth
from farebox.routing.own_keys import is_own
from farebox.routing.plan import Candidate, Plan
from farebox.routing.preferences import Percentiles
from farebox.routing.target import Target
from farebox.wires.call import Call


def explained(
    call: Call,
    found: Plan,
    view: Callable[[Target], OfferHealth],
    *,
    tried: int,
    decision: str = "",
    hedge: Outlook | None = None,
) -> dict[str, Any]:
    """The plan as JSON: money as decimal strings of USD, times in milliseconds. `tried` is how many attempts a call may make,
    `decision` what the called policy chooses its models by, `hedge` when a second one would be made beside the first."""
    standing = found.standing
    rules = None if standing is None else standing.escalation
    kept = [
        _kept(n, one, expected_nano(call, one, found.input_estimate), view(one.target), why(one, found))
        for n, one in enumerate(found.candidates, 1)
    ]
    return {
        "model": call.model,
        "policy": (standing.policy if standing is not None else "") or None,
        "complexity": _complexity(found.assessment or assess(call)) if decision else None,
        "escalates_to": [] if rules is None or not found.escalates(call) else list(rules.to),
        "hedge": None if hedge is None else _hedge(hedge, found),
        "sticky": found.sticky or None,
        "input_tokens_estimate": found.input_estimate,
        "output_tokens_max": call.output_cap,
        "needs": sorted(call.needs),
        "hold_usd": format_amount(found.hold_nano),
        "attempts_max": tried,
        "offers": kept,
        "excluded": [_excluded(item) for item in found.left_out],
    }


def _hedge(outlook: Outlook, found: Plan) -> dict[str, Any]:
    partner = outlook.partner
    return {
        "after_ms": None if outlook.why_not else outlook.delay_us // 1_000,
        "provider": None if partner is None else found.candidates[partner].target.provider.name,
        "why_not": outlook.why_not or None,
    }


def _complexity(found: Assessment) -> dict[str, Any]:
    return {
        "score": found.score,
        "tier": found.tier,
        "reasons": [{"feature": one.feature, "points": one.points, "words": list(one.words)} for one in found.reasons],
    }


def attempted(one: Attempt) -> dict[str, Any]:
    """An attempt as whoever asks for the metadata of a call is told."""
    return {
        "n": one.n,
        "provider": one.provider,
        "own_key": one.provider_key if one.own_key else None,
        "id": one.upstream_id,
        "outcome": one.outcome,
        "status": one.status,
        "rates_answer": RATING_FLAG in one.flags,
        "escalated": one.error if ESCALATED_FLAG in one.flags else None,
        "ms": (one.ended_us - one.started_us) // 1_000,
        "cost_usd": None if one.cost_nano is None else format_amount(one.cost_nano),
        "charge_usd": format_amount(one.charge_nano),
    }


_BY_MODE = {"price": "the next by price", "measured": "the next by what was measured"}


def why(candidate: Candidate, found: Plan) -> str:
    """Why a candidate stands where it stands, in words."""
    if candidate.entry.reason:
        return candidate.entry.reason
    groups = () if found.standing is None else found.standing.groups
    for group in groups:
        if candidate.entry in group.entries:
            if len(group.entries) == 1:
                return "the only offer that may be called"
            if group.mode != "chance":
                return _BY_MODE[group.mode]
            return "where the conversation goes" if found.sticky else "by chance, the cheaper the likelier"
    return ""


def _kept(position: int, candidate: Candidate, cost_nano: int, health: OfferHealth, reason: str) -> dict[str, Any]:
    target, entry = candidate.target, candidate.entry
    return {
        "position": position,
        "model": target.model.slug,
        "provider": target.provider.name,
        "own_key": target.key_refs[0] if is_own(target) else None,
        "id": entry.upstream_id,
        "wire": target.wire,
        "expected_cost_usd": format_amount(cost_nano),
        "expected_cached_percent": candidate.cached_bp * 100 // BASIS_POINTS,
        "worst_case_usd": format_amount(candidate.hold_nano),
        "first_try_percent": entry.share_bp * 100 // BASIS_POINTS,
        "price_version": candidate.quoted.price_version,
        "health": {
            "state": health.state,
            "success_percent": None if health.success is None else round(health.success * 100, 1),
            "first_token_ms": _percentiles(health.first_token_ms),
            "tokens_per_s": _percentiles(health.tokens_per_s),
            "attempts": health.samples,
            "in_flight": health.in_flight,
            "in_flight_max": health.limit,
        },
        "reason": reason,
    }


def _percentiles(found: Percentiles | None) -> dict[str, float | None] | None:
    return None if found is None else {"p50": found.p50, "p90": found.p90, "p99": found.p99}


def _excluded(item: Exclusion) -> dict[str, str]:
    return {"model": item.model, "provider": item.provider, "id": item.id, "rule": item.rule, "reason": item.reason}
