"""Settlement: one owner, one end, whatever happens; nothing is lost while the journal cannot be written."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from farebox.billing import seams
from farebox.billing.budgets import account_scope
from farebox.billing.holds import Holds
from farebox.billing.journal import JournalError
from farebox.billing.markup import Fees
from farebox.billing.meter import ESCALATED_FLAG, RATING_FLAG, SEAM_FLAG, UNBILLED_FLAG, Seen
from farebox.billing.own_keys import provider_nano
from farebox.billing.posting import recovery
from farebox.billing.quotes import Quote
from farebox.billing.records import Hold, Record, Settle
from farebox.billing.settlement import AttemptStart, Books, Settlement
from farebox.billing.taken import Taken
from farebox.catalog.price import Rates, Schedule
from farebox.race import Lane
from farebox.wires.usage import Usage, UsageReport

QUOTE = Quote("m@1", Schedule(Rates(input=1_000_000, output=2_000_000)), 0, {})
SCOPE = account_scope("acc-1")


class Paper:
    """A journal in memory that can run out."""

    def __init__(self) -> None:
        self.lines: list[Record] = []
        self.full = False

    def write(self, *records: Record) -> None:
        if self.full:
            raise JournalError("the disk is full")
        self.lines.extend(records)


class Hand:
    """A clock that does not move."""

    def now_us(self) -> int:
        return 1_000_000

    def monotonic_us(self) -> int:
        return 1_000_000


class Till:
    """A database with enough for everybody."""

    def take(self, scope: Any, need_nano: int, wish_nano: int) -> Taken:
        return Taken(wish_nano, 10**12, 0, wish_nano)

    def give_back(self, scope_id: str, granted_nano: int) -> None: ...

    def grant_of(self, scope_id: str) -> int:
        return 0

    def want(self, scope_id: str, until_us: int) -> None: ...

    def wanted(self) -> Sequence[str]:
        return []


async def opened(amount_nano: int = 10_000, quoted: Quote = QUOTE) -> tuple[Settlement, Books, Paper]:
    async def run(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    paper = Paper()
    holds = Holds(Till(), Hand(), lambda function, *rest: asyncio.ensure_future(run(function, *rest)))
    books = Books(paper, holds, Hand(), "life-1", bill_partial=False)  # type: ignore[arg-type]
    reserved = await holds.reserve([SCOPE], amount_nano)
    hold = Hold("gen-1", 1, "acc-1", "key-1", (SCOPE.id,), amount_nano, "chat_completions", "m/x", "lab", "x", "m@1", Rates())
    settlement = Settlement.opened(books, hold, reserved, AttemptStart(1, "lab", "x", "", quoted, 1))
    return settlement, books, paper


def reported(usage: Usage) -> Seen:
    return Seen(UsageReport(usage, raw=b"{}"))


async def test_the_charge_is_exact_and_the_rest_of_the_hold_is_free() -> None:
    settlement, books, paper = await opened()
    settlement.end_attempt("complete", reported(Usage(input=3, output=2)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano == 3_000 + 4_000 and end.state == "settled"
    assert books.holds.open_nano == 0 and books.holds.open_count == 0


async def test_what_is_above_the_hold_is_our_loss_never_the_customers() -> None:
    settlement, books, paper = await opened(5_000)
    settlement.end_attempt("complete", reported(Usage(input=3, output=2)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano == 5_000
    assert end.attempts[0].loss_nano == 2_000 and "hold_exceeded" in end.attempts[0].flags and books.losses == 1


@pytest.mark.parametrize("filters", [{"only": {"budget-1": ("elsewhere",)}}, {"only_models": {"budget-1": ("other/*",)}}])
async def test_a_budget_for_others_alone_is_no_scope_of_the_end(filters: dict[str, Any]) -> None:
    settlement, _, paper = await opened()
    settlement._hold = msgspec.structs.replace(settlement._hold, scopes=(SCOPE.id, "budget-1"), **filters)
    settlement.end_attempt("complete", reported(Usage(input=3, output=2)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano and end.scopes == (SCOPE.id,)


async def test_a_second_settlement_is_a_bug_and_says_so() -> None:
    settlement, _, _ = await opened()
    settlement.end_attempt("refused", Seen(None), outcome="http_error")
    settlement.settle(state="voided")
    with pytest.raises(AssertionError, match="never left"):
        settlement.settle()


async def test_close_ends_what_nothing_else_has_ended_once() -> None:
    settlement, books, paper = await opened()
    assert settlement.current is not None
    settlement.current.begun_us = 1  # it was sent
    settlement.close(Seen(None, estimated_input=5), gone=False)
    settlement.close(Seen(None, estimated_input=5), gone=False)
    ends = [line for line in paper.lines if isinstance(line, Settle)]
    assert len(ends) == 1 and ends[0].state == "voided" and ends[0].cancelled
    assert ends[0].attempts[0].cost_nano is None, "an interrupted attempt costs nobody knows what, not nothing"
    assert books.holds.open_count == 0


@pytest.mark.parametrize(
    ("seen", "gone", "charged"),
    [
        (Seen(None, 0, None, 100), False, False),  # its caller was told an error: nothing is owed
        (Seen(None, 7, None, 100), False, False),  # we broke off in the middle, as a provider might
        (Seen(None, 7, None, 100), True, True),  # the client left: what it received is charged
    ],
)
async def test_who_pays_for_a_call_that_was_cancelled(seen: Seen, gone: bool, charged: bool) -> None:
    settlement, _, paper = await opened()
    assert settlement.current is not None
    settlement.current.status = 200
    settlement.close(seen, gone=gone)
    end = paper.lines[-1]
    assert isinstance(end, Settle)
    assert bool(end.charge_nano) is charged and end.state == ("settled" if charged else "voided")


async def test_a_hold_that_cannot_be_written_frees_its_money() -> None:
    settlement, books, paper = await opened()
    settlement.end_attempt("refused", Seen(None), outcome="http_error")
    settlement.settle(state="voided")
    paper.full = True
    reserved = await books.holds.reserve([SCOPE], 10_000)
    hold = Hold("gen-2", 1, "acc-1", "key-1", (SCOPE.id,), 10_000, "chat_completions", "m/x", "lab", "x", "m@1", Rates())
    with pytest.raises(JournalError):
        Settlement.opened(books, hold, reserved, AttemptStart(1, "lab", "x", "", QUOTE, 1))
    assert books.holds.open_nano == 0


async def test_a_settlement_waits_in_memory_while_the_disk_is_full() -> None:
    settlement, books, paper = await opened()
    settlement.end_attempt("complete", reported(Usage(input=1)), outcome="ok")
    paper.full = True
    settlement.settle()
    assert len(books.unwritten) == 1 and not any(isinstance(line, Settle) for line in paper.lines)
    assert not books.retry_unwritten()
    paper.full = False
    assert books.retry_unwritten() and not books.unwritten
    assert isinstance(paper.lines[-1], Settle)


async def escalated(amount_nano: int = 20_000) -> tuple[Settlement, Books, Paper]:
    """A call whose first answer would not do, and whose second attempt is under way."""
    settlement, books, paper = await opened(amount_nano)
    settlement.end_attempt("complete", reported(Usage(input=3, output=2)), outcome="ok", flags=(ESCALATED_FLAG,))
    settlement.dispatch(AttemptStart(2, "lab", "y", "", QUOTE, 1))
    return settlement, books, paper


async def test_both_answers_of_an_escalated_call_are_billed_and_never_above_the_hold() -> None:
    settlement, _, paper = await escalated()
    settlement.end_attempt("complete", reported(Usage(input=3, output=2)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and [one.charge_nano for one in end.attempts] == [7_000, 7_000] and end.charge_nano == 14_000
    scarce, books, paper = await escalated(10_000)
    scarce.end_attempt("complete", reported(Usage(input=3, output=2)), outcome="ok")
    scarce.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano == 10_000 and end.attempts[1].loss_nano == 4_000 and books.losses == 1


async def test_an_answer_that_would_not_do_and_that_nobody_got_is_free() -> None:
    settlement, books, paper = await escalated()
    settlement.close(Seen(None, estimated_input=5), gone=False)
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano == 0 and end.state == "voided"
    assert [one.charge_nano for one in end.attempts] == [0, 0] and UNBILLED_FLAG in end.attempts[0].flags
    assert end.attempts[0].cost_nano == 7_000, "we owe it all the same"
    assert books.holds.open_nano == 0


async def test_so_is_one_whose_worker_died_before_the_better_one_came() -> None:
    _, _, paper = await escalated()
    (settled,) = recovery.finish(paper.lines, cast("Any", Hand()))
    assert settled.charge_nano == 0 and settled.state == "recovered"
    assert [one.charge_nano for one in settled.attempts] == [0, 0] and UNBILLED_FLAG in settled.attempts[0].flags


@pytest.mark.parametrize("gone", [True, False])
async def test_what_is_cut_short_says_who_ended_it_and_what_it_was(gone: bool) -> None:
    """A client that left pays for what was made for it; the question about the answer keeps its mark."""
    settlement, books, paper = await opened()
    first = settlement.current
    assert first is not None
    first.status = 200
    question = AttemptStart(2, "lab", "x", "", QUOTE, 1, flags=(RATING_FLAG,))
    settlement.dispatch(question, beside=True)
    settlement.close(Seen(None, output_tokens=2, estimated_input=3), gone=gone)
    end = paper.lines[-1]
    assert isinstance(end, Settle)
    assert [one.outcome for one in end.attempts] == ["client_gone" if gone else "interrupted", "interrupted"]
    assert RATING_FLAG not in end.attempts[0].flags and RATING_FLAG in end.attempts[1].flags
    assert end.attempts[1].charge_nano == 0 and bool(end.charge_nano) is gone
    assert books.holds.open_nano == 0


async def test_a_hedge_that_is_cancelled_before_its_first_step_leaves_no_hold() -> None:
    settlement, books, paper = await opened()
    entered: list[int] = []

    async def run(*, counted: bool) -> None:
        entered.append(counted)

    lane = Lane.__new__(Lane)
    lane.lost = lane.failed = False
    lane.race = cast("Any", SimpleNamespace(first=None, second=None, winner=None, over=lambda: None, wake=lambda: None))
    lane.flight = cast("Any", SimpleNamespace(settlement=settlement, run=run, task=None, plan=SimpleNamespace(input_estimate=3)))
    lane.begin()
    lane.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lane.task
    await asyncio.sleep(0)
    end = paper.lines[-1]
    assert not entered and isinstance(end, Settle) and end.state == "voided"
    assert [(one.outcome, one.cost_nano) for one in end.attempts] == [("interrupted", 0)], "nothing was sent, nothing is owed"
    assert books.holds.open_nano == 0


# --- by a customer's own key at a provider ------------------------------------------------------------------------------------

OWN = Quote("m@1", QUOTE.schedule, 500, {}, fees=Fees(own_key=True), plan="std BYOK")
FREE = Quote("m@1", QUOTE.schedule, 0, {}, fees=Fees(own_key=True), plan="std BYOK free")


async def test_by_an_own_key_the_fee_is_charged_and_the_providers_bill_is_the_customers() -> None:
    settlement, books, paper = await opened(quoted=OWN)
    settlement.end_attempt("complete", reported(Usage(input=30, output=20)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano == 70_000 // 20 and books.charged_nano == 3_500
    one = end.attempts[0]
    assert (one.cost_nano, provider_nano(one), one.own_key, one.plan) == (0, 70_000, True, "std BYOK")
    assert seams.list_costs_nano(settlement.attempts) == (70_000, 30_000, 40_000)


async def test_a_free_call_by_an_own_key_holds_and_is_charged_nothing_and_is_settled() -> None:
    settlement, books, paper = await opened(0, FREE)
    settlement.end_attempt("complete", reported(Usage(input=30, output=20)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and (end.charge_nano, end.state, books.losses) == (0, "settled", 0)
    assert provider_nano(end.attempts[0]) == 70_000 and end.attempts[0].loss_nano == 0


async def test_after_an_own_key_was_refused_the_house_is_paid_as_ever() -> None:
    settlement, _, paper = await opened(100_000, OWN)
    settlement.end_attempt("refused", Seen(None), outcome="http_error")
    settlement.dispatch(AttemptStart(2, "lab", "x", "lab#1", QUOTE, 2))
    settlement.end_attempt("complete", reported(Usage(input=30, output=20)), outcome="ok")
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle) and end.charge_nano == 70_000
    assert [(one.cost_nano, provider_nano(one), one.own_key) for one in end.attempts] == [(0, 0, True), (70_000, 0, False)]


@pytest.mark.parametrize("ending", ["failed_before_content", "truncated", "client_gone"])
async def test_whatever_an_own_key_cost_is_not_ours(ending: Any) -> None:
    settlement, _, paper = await opened(100_000, OWN)
    assert settlement.current is not None
    settlement.current.begun_us, settlement.current.status = 1, 200
    settlement.end_attempt(ending, Seen(None, 20, None, 30), outcome=ending)
    settlement.settle()
    end = paper.lines[-1]
    assert isinstance(end, Settle)
    one = end.attempts[0]
    assert one.cost_nano == 0, "known to be nothing, where a key of ours would have cost nobody knows what"
    assert provider_nano(one) == (0 if one.usage is None else 70_000)
    assert end.charge_nano == (3_500 if ending == "client_gone" else 0)


async def test_what_own_keys_and_ours_cost_together_is_told_with_an_answer_in_several_parts() -> None:
    settlement, _, _ = await opened(1_000_000, OWN)
    settlement.end_attempt("complete", reported(Usage(input=30, output=20)), outcome="ok", flags=(ESCALATED_FLAG,))
    settlement.dispatch(AttemptStart(2, "lab", "y", "lab#1", QUOTE, 2))
    settlement.end_attempt("complete", reported(Usage(input=30, output=40)), outcome="ok")
    assert seams.list_costs_nano(settlement.attempts) == (70_000 + 110_000, 60_000, 120_000)
    assert settlement.charge_nano == 3_500 + 110_000


async def test_what_the_provider_reports_is_what_it_bills_the_customer() -> None:
    settlement, _, _ = await opened(1_000_000, OWN)
    assert settlement.current is not None
    settlement.current.by_reported_cost = True
    seen = Seen(UsageReport(Usage(input=30, output=20), raw=b"{}", provider_cost_usd="0.0001"))
    settlement.end_attempt("complete", seen, outcome="ok")
    assert (settlement.charge_nano, settlement.attempts[0].cost_nano) == (5_000, 0)
    assert seams.list_costs_nano(settlement.attempts)[0] == provider_nano(settlement.attempts[0]) == 100_000


@pytest.mark.parametrize("finished", [True, False])
async def test_what_an_own_key_began_and_the_house_completed_is_charged_part_by_part(finished: bool) -> None:
    settlement, _, paper = await opened(1_000_000, OWN)
    settlement.end_attempt("taken_over", reported(Usage(input=30, output=20)), outcome="truncated", flags=(SEAM_FLAG,))
    settlement.dispatch(AttemptStart(2, "spare", "x", "spare#1", QUOTE, 2, continues=True))
    if not finished:
        settlement.progress(Usage(input=50, output=10), exact_input=True)
        (end,) = recovery.finish([line for line in paper.lines if not isinstance(line, Settle)], Hand())
    else:
        settlement.end_attempt("complete", reported(Usage(input=50, output=10)), outcome="ok")
        settlement.settle()
        last = paper.lines[-1]
        assert isinstance(last, Settle)
        end = last
    own, house = end.attempts
    assert (own.charge_nano, own.cost_nano, provider_nano(own)) == (70_000 // 20, 0, 70_000), "the fee on the first part"
    assert (house.charge_nano, house.cost_nano) == (20_000, 70_000), "its output; we owe its longer prompt, too"
