"""The life of a request, top to bottom.

edge        has read the HTTP request and knows which API the client speaks
read_call   what routing and money need of it; every other byte stays as it came
admit       credential → principal; rate limits
plan        an ordered list of offers to try, each with its frozen price
reserve     the worst case of the dearest attempt is held in every scope; nothing has been sent yet
flight      attempts: send, retry, fail over until the first content; stream, meter; settle before the last bytes
            (two of them that race, where a policy hedges)
telemetry   one record of it all
"""

from operator import attrgetter
from typing import Final

from farebox import bridge, metering, race
from farebox.billing.budgets import Scope
from farebox.billing.covering import NOTHING
from farebox.billing.holds import Insufficient, Reserved
from farebox.billing.journal import JournalError
from farebox.billing.markup import MarkupPlan
from farebox.billing.records import Hold
from farebox.billing.settlement import Settlement
from farebox.continuation import Recovery, allowed
from farebox.errors import FareboxError, Kind
from farebox.exchange import Exchange
from farebox.flight import Flight
from farebox.gate.addresses import FORWARDED_FOR, client_address
from farebox.gate.attribution import Attribution, completed, tagged
from farebox.gate.keyring import check, credential, permitted
from farebox.gate.principal import USUAL, Principal
from farebox.gate.too_little import OUTPUT_TOKENS_MIN, too_little
from farebox.gate.wishes import Wishes, wishes
from farebox.gateway import Gateway
from farebox.routing.allowance import NotAllowed
from farebox.routing.complexity.classify import Assessment
from farebox.routing.plan import Plan, affordable, lowered, own_keys_only
from farebox.step import STEP
from farebox.wires.call import Call

_scope_id: Final = attrgetter("id")


async def answer(gateway: Gateway, exchange: Exchange) -> None:
    """Answer one generation request. Raises `FareboxError` for what the caller is told; money is settled whatever happens."""
    if gateway.draining:
        raise FareboxError(Kind.UNAVAILABLE, "the gateway is shutting down; try again in a moment", retry_after_s=1)
    now_us = gateway.clock.now_us()
    principal = remembered(gateway, exchange, now_us) or await admit(gateway, exchange, now_us)
    metering.knock(gateway, principal)
    call = exchange.surface.read_call(exchange.body)
    recovery = recover(gateway, exchange, call) if call.stream else None
    whom = attributed(exchange, principal, call)
    sorter = gateway.sorter
    sorted_as = await sorter.assess(call) if sorter is not None and call.model in sorter.examples else None
    fibers = gateway.fibers
    if call.stream:
        await fibers.as_task()
    if fibers.running is not None:
        await STEP
    found = route(gateway, exchange, principal, call, now_us, sorted_as=sorted_as)
    if principal.tier is not None:
        found = metering.within_tier(principal, found, streamed=call.stream)
    if gateway.health.broken:
        gateway.health.claim(found.candidates[0].target, gateway.clock.monotonic_us())
    slot = metering.enter(gateway, exchange, principal, call, found, now_us)
    try:
        if fibers.running is not None:
            await STEP
        scopes = covered(principal, found, whom, now_us)
        reserved = gateway.books.holds.try_reserve(scopes, found.hold_nano)
        if reserved is None:
            found, reserved = await reserve(gateway, exchange, principal, call, found, scopes, now_us)
        # From here to the flight, which ends the hold whatever happens, nothing waits: a cancelled call would leave it open.
        settlement = open_hold(gateway, exchange, principal, call, found, reserved, scopes, whom)
    except BaseException:
        metering.leave(gateway, slot, None, found)
        raise
    try:
        flight = Flight.of(gateway, exchange, call, found, settlement, recovery, exchange.wishes.demand)
        if found.standing is None or found.standing.hedge is None:
            await flight.run()
        else:
            settlement = await race.run(flight)
    finally:
        metering.leave(gateway, slot, settlement, found)


async def admit(gateway: Gateway, exchange: Exchange, now_us: int) -> Principal:
    """The caller behind the credential, allowed to call; what else the headers say is read with it."""
    secret = credential(exchange.headers)
    principal = await gateway.keyring.find(secret)
    exchange.notes["key"] = gateway.keyring.mark(secret)
    return allowed_in(gateway, exchange, principal, now_us)


def remembered(gateway: Gateway, exchange: Exchange, now_us: int) -> Principal | None:
    """The same for a head that was admitted before, if the key is still at hand: nothing to wait for."""
    mark = exchange.notes.get("key")
    principal = gateway.keyring.remembered(mark) if isinstance(mark, bytes) else None
    return None if principal is None else allowed_in(gateway, exchange, principal, now_us)


def allowed_in(gateway: Gateway, exchange: Exchange, principal: Principal, now_us: int) -> Principal:
    """The principal, unless its key may not call."""
    check(principal, now_us)
    if principal.permit is not USUAL:
        permitted(principal, "inference", address_of(gateway, exchange))
    gateway.keyring.used[principal.key] = now_us
    wanted = exchange.notes.get("wishes")
    if not isinstance(wanted, Wishes):
        wanted = exchange.notes["wishes"] = wishes(exchange.headers)
    exchange.wishes = wanted
    return principal


def address_of(gateway: Gateway, exchange: Exchange) -> str:
    """Where the request comes from, as far as that can be believed."""
    return client_address(exchange.answer.peer, exchange.headers.get(FORWARDED_FOR), gateway.settings.trusted_proxies)


def attributed(exchange: Exchange, principal: Principal, call: Call) -> Attribution:
    """For whom the call is made, and what it is filed under."""
    whom = exchange.wishes.whom
    if call.end_user or call.tags:
        whom = completed(whom, call.end_user, call.tags)
    return tagged(whom, principal.tags) if principal.tags else whom


def route(
    gateway: Gateway,
    exchange: Exchange,
    principal: Principal,
    call: Call,
    now_us: int,
    *,
    everything: bool = False,
    sorted_as: Assessment | None = None,
) -> Plan:
    """The offers to try, in order: what the call needs, its preferences, the key's policy, prices and health considered.

    The first one can be told the call. Of the others that is seen when it is their turn, unless `everything` is asked for.
    """
    found = planned(gateway, exchange, principal, call, now_us, everything, sorted_as, False)
    first, drops = found.candidates[0], exchange.wishes.drops_unsupported
    reason = bridge.unsayable(call, first, drop_unsupported=drops)
    if reason is None and not everything:
        return found
    try:
        return planned(gateway, exchange, principal, call, now_us, everything, sorted_as, True)
    except FareboxError:
        if reason is None:
            raise
    # A call that no translation can express is the caller's error: told before any money is held.
    bridge.outgoing(call, first, drop_unsupported=drops)
    return found


def planned(
    gateway: Gateway,
    exchange: Exchange,
    principal: Principal,
    call: Call,
    now_us: int,
    everything: bool,
    sorted_as: Assessment | None,
    sayable: bool,
) -> Plan:
    """The router's plan for this caller; `sayable`: without those whose wire cannot express the call."""
    drops = exchange.wishes.drops_unsupported
    day = gateway.today(now_us)
    try:
        return gateway.router.plan(
            call,
            now_us=now_us,
            day=day,
            random=gateway.random,
            policy=principal.policy,
            allowance=principal.permit.allowance,
            markup=own_markup(gateway, principal) if principal.markup else None,
            volume_nano=principal.volume_nano(day[:7]),
            own_keys=principal.own_keys,
            own_key_calls=principal.own_key_calls_in(day[:7]) if principal.own_keys else 0,
            session=exchange.wishes.session,
            expresses=lambda call, candidate: bridge.unsayable(call, candidate, drop_unsupported=drops),
            everything=everything,
            assessment=sorted_as,
            sayable=sayable,
        )
    except NotAllowed as refused:
        raise refused.for_key(principal.key_hint) from None


def own_markup(gateway: Gateway, principal: Principal) -> MarkupPlan:
    """The account's own markup plan. One that is not configured any more has no price: refused."""
    found = gateway.market.markups.get(principal.markup)
    if found is None:
        raise FareboxError(
            Kind.UNAVAILABLE,
            f"the account `{principal.account_name}` pays by the markup plan `{principal.markup}`, which is not configured; "
            "its operator has to add it, or give the account another",
            should_retry=False,
        )
    return found


def recover(gateway: Gateway, exchange: Exchange, call: Call) -> Recovery:
    """What is kept of a stream for the case that it breaks off."""
    return Recovery(call, wanted=allowed(call, exchange.headers, default=gateway.settings.stream_recovery))


def covered(principal: Principal, found: Plan, whom: Attribution, now_us: int) -> tuple[Scope, ...]:
    """Every scope that the call is held in."""
    covering = principal.covering
    if covering.steady:
        return covering.scopes(now_us)
    targets = [candidate.target for candidate in found.candidates]
    return covering.scopes(
        now_us,
        models={target.model.slug for target in targets},
        providers={target.provider.name for target in targets},
        end_user=whom.end_user,
        tags=whom.tags,
    )


async def reserve(
    gateway: Gateway,
    exchange: Exchange,
    principal: Principal,
    call: Call,
    found: Plan,
    scopes: tuple[Scope, ...],
    now_us: int,
) -> tuple[Plan, Reserved]:
    """Hold the worst case, asking the database for money. Too little is a 402 that says what fits, or, on request, a lower
    output cap."""
    holds = gateway.books.holds
    while True:
        try:
            return found, await holds.reserve(scopes, found.hold_nano)
        except Insufficient as refusal:
            alone = None if not principal.own_keys else own_keys_only(found, streamed=call.stream)
            if alone is not None:
                # The money does not reach for the house; the customer's own keys need little of it.
                found = alone
                continue
            tokens = affordable(call, found, refusal.available_nano)
            if tokens >= OUTPUT_TOKENS_MIN and (call.max_output_to_balance or exchange.wishes.to_balance):
                smaller = lowered(call, found, tokens)
                try:
                    return smaller, await holds.reserve(scopes, smaller.hold_nano)
                except Insufficient as again:
                    raise too_little(again, principal, affordable(call, found, again.available_nano), now_us) from None
            raise too_little(refusal, principal, tokens, now_us) from None


def open_hold(
    gateway: Gateway,
    exchange: Exchange,
    principal: Principal,
    call: Call,
    found: Plan,
    reserved: Reserved,
    scopes: tuple[Scope, ...],
    whom: Attribution,
) -> Settlement:
    """Write the hold into the journal: from here on the call has exactly one end."""
    first = found.candidates[0]
    start = gateway.start_attempt(first, 1, streamed=call.stream)
    target = first.target
    covering = principal.covering
    only, only_models = (NOTHING, NOTHING) if covering.steady else covering.only(scopes)
    hold = Hold(
        "gen" + exchange.request_id[3:],
        start.started_us,
        principal.account,
        principal.key,
        tuple(map(_scope_id, scopes)),
        reserved.amount_nano,
        exchange.surface.name,
        target.model.slug,
        target.provider.name,
        first.entry.upstream_id,
        first.quoted.price_version,
        first.quoted.rates_for(found.input_estimate),
        first.quoted.markup_bp,
        first.quoted.fees,
        first.quoted.plan,
        start.provider_key,
        principal.project,
        whom.end_user,
        call.model,
        call.stream,
        first.bound.input_tokens,
        found.input_estimate,
        whom.tags,
        only,
        only_models,
    )
    try:
        settlement = Settlement.opened(gateway.books, hold, reserved, start)
    except JournalError as error:
        raise FareboxError(
            Kind.UNAVAILABLE, f"calls are refused until their records can be written: {error}", retry_after_s=5
        ) from None
    gateway.fail_point("hold.after_journal")
    return settlement
