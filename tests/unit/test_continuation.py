"""Continuations and money: whatever breaks off where, the hold covers all parts, and a crash in between settles them."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_settlement import SCOPE, Hand, Paper, Till

from farebox import continuation
from farebox.billing.bound import Bound
from farebox.billing.holds import Holds
from farebox.billing.markup import Fees
from farebox.billing.meter import Seen
from farebox.billing.posting import recovery
from farebox.billing.pricing import worst_case_nano
from farebox.billing.quotes import Quote
from farebox.billing.records import Hold, Settle
from farebox.billing.settlement import AttemptStart, Books, Settlement
from farebox.catalog.price import Rates, Schedule, Tier
from farebox.errors import FareboxError
from farebox.routing.plan import Candidate, Plan
from farebox.wires.delivered import Delivered
from farebox.wires.openai_chat.call import read_call
from farebox.wires.usage import Usage, UsageReport

BODY = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}'
RATE = st.integers(0, 3_000_000)
FEES = st.none() | st.builds(
    Fees, st.integers(0, 5_000), st.none() | st.integers(0, 5_000), st.none() | st.integers(5_000, 20_000)
)


@st.composite
def quotes(draw: st.DrawFn) -> Quote:
    rates = Rates(input=draw(RATE), output=draw(RATE), cache_read=draw(RATE), request=draw(st.integers(0, 9_999)))
    tiers = ()
    if draw(st.booleans()):
        dearer = Rates(input=rates.input * 2, output=rates.output * 2, cache_read=rates.cache_read * 2, request=rates.request)
        tiers = (Tier(draw(st.integers(1, 60)), dearer),)
    bp = draw(st.integers(0, 5_000))
    schedule = Schedule(rates, tiers)
    single = None if tiers else (rates.dearest_input, rates.dearest_output, rates.request)
    return Quote("m@1", schedule, bp, {}, single, draw(FEES))


def candidate(quoted: Quote, input_tokens: int, cap: int) -> Candidate:
    hold = worst_case_nano(quoted, input_tokens=input_tokens, output_tokens=cap)
    entry: Any = SimpleNamespace(target=None, upstream_id="m", upstream_id_json=b'"m"', fields=())
    return Candidate(entry, quoted, Bound(input_tokens, cap, cap, True), hold)


async def opened(plan: Plan, bound: int, first: Quote) -> tuple[Settlement, Paper]:
    async def run(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    clock, paper = Hand(), Paper()
    holds = Holds(Till(), clock, run)
    reserved = await holds.reserve([SCOPE], plan.hold_nano)
    books = Books(cast("Any", paper), holds, cast("Any", clock), "life-1", bill_partial=False)
    hold = Hold(
        id="gen-1", at_us=1, account="acc-1", key="key-1", scopes=(SCOPE.id,), amount_nano=plan.hold_nano, surface="s",
        model="m", provider="p1", upstream_id="u", price_version="m@1", rates=first.rates_for(plan.input_estimate),
        markup_bp=first.markup_bp, fees=first.fees, input_bound=bound, input_estimate=plan.input_estimate,
    )  # fmt: skip
    return Settlement.opened(books, hold, reserved, AttemptStart(1, "p1", "u", "", first, 1)), paper


@given(st.data(), st.lists(quotes(), min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 80))
def test_the_hold_covers_every_part(data: st.DataObject, prices: list[Quote], bound: int, cap: int) -> None:
    """No part is ever cut to the hold (`loss_nano`), and together they never pass it."""
    estimate = data.draw(st.integers(0, bound))
    plan = Plan(
        tuple(candidate(quoted, bound, cap) for quoted in prices),
        max(worst_case_nano(quoted, input_tokens=bound, output_tokens=cap) for quoted in prices),
        estimate,
    )
    call = read_call(BODY)

    async def live() -> Settlement:
        settlement, _ = await opened(plan, bound, prices[0])
        left, prompt, quoted = cap, bound, prices[0]
        delivered = 0
        for n in range(2, 6):
            tokens = data.draw(st.integers(0, left))
            known = Usage(input=data.draw(st.integers(0, prompt))) if data.draw(st.booleans()) else None
            seen = Seen(None, tokens, known, estimate)
            rest = continuation.rest(
                call, plan, Delivered(), output_tokens=delivered + tokens, room_nano=settlement.room_nano(seen)
            )
            if isinstance(rest, str):
                break
            delivered += tokens
            settlement.end_attempt("taken_over", seen, outcome="truncated")
            index = data.draw(st.sampled_from(rest.able))
            quoted = prices[index]
            left, prompt = rest.candidates[index].bound.cap, bound + delivered
            settlement.dispatch(AttemptStart(n, f"p{n}", "u", "", quoted, n, continues=True))
        cached = data.draw(st.integers(0, prompt))
        usage = Usage(input=prompt - cached, cache_read=cached, output=data.draw(st.integers(0, left)))
        settlement.end_attempt("complete", Seen(UsageReport(usage)), outcome="ok")
        settlement.settle()
        return settlement

    settlement = asyncio.run(live())
    assert all(attempt.loss_nano == 0 for attempt in settlement.attempts)
    assert sum(attempt.charge_nano for attempt in settlement.attempts) == settlement.charge_nano <= plan.hold_nano


FLAT = Quote("m@1", Schedule(Rates(input=1_000_000, output=2_000_000)), 0, {})


def plan_of(*prices: Quote, bound: int = 40, cap: int = 50) -> Plan:
    found = tuple(candidate(quoted, bound, cap) for quoted in prices)
    return Plan(found, max(one.hold_nano for one in found), 10)


async def test_the_input_is_billed_once_and_learnt_from_the_continuation() -> None:
    settlement, _ = await opened(plan_of(FLAT), 40, FLAT)
    settlement.end_attempt("taken_over", Seen(None, 7, None, 10), outcome="truncated")
    settlement.dispatch(AttemptStart(2, "p2", "u", "", FLAT, 2, continues=True))
    settlement.end_attempt("complete", Seen(UsageReport(Usage(input=22, output=5))), outcome="ok")
    settlement.settle()
    one, two = settlement.attempts
    assert one.usage == Usage(input=15, output=7) and "input_from_continuation" in one.flags
    assert (one.charge_nano, two.charge_nano) == (15_000 + 14_000, 10_000)
    assert (one.cost_nano, two.cost_nano) == (29_000, 22_000 + 10_000)


async def test_an_answer_that_nobody_completes_is_free() -> None:
    settlement, paper = await opened(plan_of(FLAT), 40, FLAT)
    settlement.end_attempt("taken_over", Seen(None, 7, None, 10), outcome="truncated")
    settlement.dispatch(AttemptStart(2, "p2", "u", "", FLAT, 2, continues=True))
    settlement.end_attempt("refused", Seen(None), outcome="http_error")
    settlement.forgive()
    settlement.settle()
    assert settlement.charge_nano == 0 and [one.charge_nano for one in settlement.attempts] == [0, 0]
    assert settlement.attempts[0].cost_nano == 24_000
    last = paper.lines[-1]
    assert isinstance(last, Settle) and last.charge_nano == 0


@pytest.mark.parametrize("progress", [False, True])
async def test_a_crash_behind_the_seam_settles_both_parts(progress: bool) -> None:
    settlement, paper = await opened(plan_of(FLAT), 40, FLAT)
    settlement.end_attempt("taken_over", Seen(None, 7, None, 10), outcome="truncated")
    settlement.dispatch(AttemptStart(2, "p2", "u", "", FLAT, 2, continues=True))
    if progress:
        settlement.progress(Usage(input=17, output=3), exact_input=False)
    (settled,) = recovery.finish(paper.lines, cast("Any", Hand()))
    one, two = settled.attempts
    assert one.charge_nano == 10_000 + 14_000 and (one.n, two.n) == (1, 2)
    assert two.charge_nano == (6_000 if progress else 0) and two.cost_nano == (23_000 if progress else None)
    assert settled.charge_nano == one.charge_nano + two.charge_nano and {"recovered", "continued"} <= set(two.flags)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ('"n":2', "several_choices"),
        ('"logprobs":true', "logprobs"),
        ('"response_format":{"type":"json_object"}', "json_mode"),
        ('"tool_choice":"required"', "tool_choice"),
        ('"tool_choice":"auto"', ""),
        ('"temperature":0', ""),
        ('"logprobs":false', ""),
    ],
)
def test_what_forbids_a_continuation(field: str, reason: str) -> None:
    assert continuation.forbidden(read_call(BODY[:-1] + f",{field}}}".encode())) == reason


@pytest.mark.parametrize(("output_tokens", "reason"), [(50, "output_cap_reached"), (20, "no_capable_provider")])
def test_what_the_hold_does_not_cover_is_another_reason_than_the_output_cap(output_tokens: int, reason: str) -> None:
    """The second one's output is dearer than what the first one's has left of the hold."""
    plan = plan_of(Quote("m@1", Schedule(Rates(input=9_000_000, output=1_000_000)), 0, {}), FLAT)
    found = continuation.rest(read_call(BODY), plan, Delivered(), output_tokens=output_tokens, room_nano=20_000)
    assert found == reason


def test_who_decides_whether_streams_are_continued() -> None:
    call, off = read_call(BODY), read_call(BODY[:-1] + b',"stream_recovery":"off"}')
    header = continuation.HEADER
    assert continuation.allowed(call, {}, default=True) and not continuation.allowed(call, {}, default=False)
    assert not continuation.allowed(off, {}, default=True) and continuation.allowed(off, {header: b"on"}, default=False)
    with pytest.raises(FareboxError, match="must be `on` or `off`"):
        continuation.allowed(call, {header: b"yes"}, default=True)
