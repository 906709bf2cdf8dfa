"""Metering: what a call takes from the rate limits of its account, project and key, and what its caller is told of them."""

from collections.abc import Sequence

from farebox.billing.meter import CONTINUED_FLAG
from farebox.billing.settlement import Settlement
from farebox.errors import FareboxError, Kind
from farebox.exchange import Exchange
from farebox.gate.limit_table import TableFull
from farebox.gate.limiter import Admission, Holder, concerned
from farebox.gate.limits import Refusal
from farebox.gate.principal import Principal
from farebox.gateway import Gateway
from farebox.routing.expected import EXPECTED_OUTPUT_TOKENS
from farebox.routing.plan import Plan, held_nano
from farebox.wires.call import Call


def knock(gateway: Gateway, principal: Principal) -> None:
    """Refuse who has reached a limit before the request is read; takes nothing. Who was let in the last time is let in here."""
    for holder in principal.holders:
        if holder.pressed:
            break
    else:
        return
    refused = gateway.limiter.refusal(principal.holders, gateway.clock.monotonic_us())
    if refused is not None:
        raise limited(gateway, refused)


def enter(
    gateway: Gateway, exchange: Exchange, principal: Principal, call: Call, found: Plan, now_us: int
) -> Admission:
    """Pass every limit, with the tokens that the call will probably use, or none; what is left stands in the answer's head. The
    place is given back in a `finally`, by `leave`."""
    holders: Sequence[Holder] = principal.holders
    tokens = 0
    if principal.metered:
        tokens = probable_tokens(call, found)
        holders = concerned(holders, {candidate.target.model.slug for candidate in found.candidates})
    return _enter(gateway, exchange, holders, tokens, now_us)


def enter_without_tokens(gateway: Gateway, exchange: Exchange, principal: Principal) -> Admission:
    """The same for what generates nothing."""
    return _enter(gateway, exchange, principal.holders, 0, gateway.clock.now_us())


def _enter(gateway: Gateway, exchange: Exchange, holders: Sequence[Holder], tokens: int, now_us: int) -> Admission:
    try:
        decision = gateway.limiter.admit(holders, tokens, gateway.clock.monotonic_us())
    except TableFull:
        raise FareboxError(
            Kind.UNAVAILABLE, "more callers are active than the gateway can count; try again later", retry_after_s=60
        ) from None
    if isinstance(decision, Refusal):
        raise limited(gateway, decision)
    exchange.limits = exchange.surface.limits(decision.standing, now_us)
    return decision


def leave(gateway: Gateway, slot: Admission, settlement: Settlement | None = None, found: Plan | None = None) -> None:
    """The call is over: its place is free, and its tokens are those that it used. Nonsense that a provider reports is bounded by
    what was possible: nobody is kept out for years."""
    used = 0
    if settlement is not None and found is not None and slot.tokens:
        most = max(candidate.bound.input_tokens + candidate.bound.output_tokens for candidate in found.candidates)
        used = min(used_tokens(settlement), most * len(settlement.attempts))
    slot.release(used, gateway.clock.monotonic_us())


def standing(gateway: Gateway, exchange: Exchange) -> bytes:
    """Header lines on what is left, for an error; empty when nobody knows whose request it is."""
    mark = exchange.notes.get("key")
    principal = gateway.keyring.remembered(mark) if isinstance(mark, bytes) else None
    if exchange.limits or principal is None:
        return exchange.limits
    try:
        found = gateway.limiter.standing(principal.holders, gateway.clock.monotonic_us())
    except TableFull:
        return b""
    return exchange.surface.limits(found, gateway.clock.now_us())


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


def within_tier(principal: Principal, found: Plan, *, streamed: bool) -> Plan:
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
    return found.of(kept, held_nano(kept, found.standing, streamed=streamed))


def used_tokens(settlement: Settlement) -> int:
    """What a call used, cached prompts included, by the attempts of which usage was reported or estimated. One that failed before
    any content used nothing of the caller's; one that goes on with another's answer adds its output, as on the bill."""
    total = 0
    for attempt in settlement.attempts:
        usage = attempt.usage
        if usage is not None:
            total += usage.completion_tokens + (0 if CONTINUED_FLAG in attempt.flags else usage.prompt_tokens)
    return total
