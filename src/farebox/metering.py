"""Metering: what a call takes from the rate limits of its account, project and key, and what its caller is told of them."""

import msgspec

from farebox.billing.settlement import Settlement
from farebox.errors import FareboxError, Kind
from farebox.exchange import Exchange
from farebox.gate.limits import Admission, Refusal
from farebox.gate.principal import Principal
from farebox.gateway import Gateway
from farebox.routing.plan import Plan
from farebox.routing.router import EXPECTED_OUTPUT_TOKENS
from farebox.wires.call import Call


def enter(gateway: Gateway, principal: Principal) -> Admission:
    """Pass the limits of requests and calls in flight, all of them or none; the slot returns in a `finally`."""
    decision = gateway.limiter.admit(principal.holders, gateway.clock.monotonic_us())
    if isinstance(decision, Refusal):
        raise limited(gateway, decision)
    return decision


def meter(gateway: Gateway, exchange: Exchange, principal: Principal, slot: Admission, call: Call, found: Plan) -> None:
    """Reserve the tokens that the call will probably use; and say in the answer's head what is left of every limit."""
    now_us = gateway.clock.monotonic_us()
    if principal.metered:
        models = {candidate.target.model.slug for candidate in found.candidates}
        refused = slot.take_tokens(probable_tokens(call, found), models, now_us)
        if refused is not None:
            raise limited(gateway, refused)
    requests, tokens = slot.left(now_us)
    limits, wall_us = exchange.surface.limits, gateway.clock.now_us()
    for what, left in (("requests", requests), ("tokens", tokens)):
        if left is not None:
            exchange.limits += limits(what, left.maximum, left.remaining, left.reset_us, wall_us)


def probable_tokens(call: Call, found: Plan) -> int:
    """The estimated prompt, and the answer that was asked for: its cap, or a usual one."""
    most = found.candidates[0].bound.cap
    cap = min(EXPECTED_OUTPUT_TOKENS, most) if call.output_cap is None else call.output_cap
    return found.input_estimate + cap * call.choices


def limited(gateway: Gateway, refusal: Refusal) -> FareboxError:
    """The 429: which limit, whose, and when it frees."""
    gateway.metrics.rate_limited(refusal.limit.partition(" ")[0])
    wait_s = -(-refusal.retry_after_us // 1_000_000)
    return FareboxError(
        Kind.RATE_LIMIT,
        f"{refusal.whose} has reached its limit of {refusal.maximum} `{refusal.limit}`; it frees in {wait_s} s",
        retry_after_s=wait_s,
        details={"limit": refusal.limit, "maximum": refusal.maximum, "whose": refusal.whose, "retry_after_s": wait_s},
    )


def within_tier(principal: Principal, found: Plan) -> Plan:
    """The plan without the models that the account's tier may not call. Nobody left is a 403."""
    tier = principal.tier
    if tier is None or not tier.models:
        return found
    kept = tuple(candidate for candidate in found.candidates if tier.allows(candidate.target.model.slug))
    if len(kept) == len(found.candidates):
        return found
    if not kept:
        raise FareboxError(
            Kind.PERMISSION,
            f"`{found.candidates[0].target.model.slug}` is not among the models of the tier `{tier.name}`, in which the account "
            f"`{principal.account_name}` is: {', '.join(tier.models)}",
            param="model",
        )
    return msgspec.structs.replace(found, candidates=kept, hold_nano=max(candidate.hold_nano for candidate in kept))


def used_tokens(settlement: Settlement) -> int | None:
    """What a call really used, by all its attempts; None when nobody knows."""
    total = 0
    for attempt in settlement.attempts:
        if attempt.usage is None:
            return None
        total += attempt.usage.prompt_tokens + attempt.usage.completion_tokens
    return total
