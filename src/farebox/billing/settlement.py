"""Settlement: the one owner of a call's hold, from its journal line to its terminal record.

Everything here is synchronous: a cancelled task, a vanished client or a shutdown cannot come between the decision and the
journal. `Settlement.close` always runs, once; it ends what nothing else has ended.
"""

from collections import deque

import msgspec

from farebox.billing.holds import Holds, Reserved
from farebox.billing.journal import Journal, JournalError
from farebox.billing.markup import Terms
from farebox.billing.meter import Ending, Seen, Verdict, judge
from farebox.billing.pricing import Bill, Quote, bill, reported_bill, side_costs_pico
from farebox.billing.records import Attempt, Dispatch, Hold, Progress, Settle, State
from farebox.money import NANO_PER_USD, PICO_PER_NANO, divide_half_even
from farebox.ports import Clock
from farebox.wires.usage import Usage

ERROR_TEXT_MAX = 500
REPORTED_COST_FLAG = "reported_cost"
"""The row's amounts follow from the provider's own reported cost, not from its counts."""
UNWRITTEN_MAX = 10_000
"""Settlements kept in memory while the journal cannot be written; new calls are refused long before."""


class Books:
    """Where this worker's settlements go: its journal, its purses, and the queue of what could not be written yet."""

    def __init__(self, journal: Journal, holds: Holds, clock: Clock, life: str, *, bill_partial: bool) -> None:
        self.journal = journal
        self.holds = holds
        self.clock = clock
        self.life = life
        self.bill_partial = bill_partial
        self.unwritten: deque[Settle] = deque()
        self.charged_nano = 0
        self.settled = {"settled": 0, "voided": 0, "recovered": 0}
        self.estimated = 0
        self.losses = 0

    def write(self, settle: Settle) -> None:
        """A terminal record must not be lost to a full disk: it waits in memory, behind the hold that is already written."""
        if not self.unwritten:
            try:
                self.journal.write(settle)
                return
            except JournalError:
                pass
        assert len(self.unwritten) < UNWRITTEN_MAX, "calls are refused while the journal cannot be written"
        self.unwritten.append(settle)

    def retry_unwritten(self) -> bool:
        """Try what waits; True when nothing waits any more."""
        while self.unwritten:
            try:
                self.journal.write(self.unwritten[0])
            except JournalError:
                return False
            self.unwritten.popleft()
        return True


class AttemptStart(msgspec.Struct):
    """An attempt under way."""

    n: int
    provider: str
    upstream_id: str
    provider_key: str
    quoted: Quote
    started_us: int
    by_reported_cost: bool = False
    """The provider's own reported cost is what we owe it, and what the charge is made of (its row says so)."""
    first_byte_us: int | None = None
    status: int | None = None
    upstream_request_id: str = ""


class Settlement:
    """One call's hold and its attempts."""

    __slots__ = ("_books", "_done", "_hold", "_reserved", "attempts", "charge_nano", "current", "last_bill", "last_verdict")

    def __init__(self, books: Books, hold: Hold, reserved: Reserved, first: AttemptStart) -> None:
        """Write the hold; nothing was sent before this returns. Raises `JournalError`, and then the money is free again."""
        self._books = books
        self._hold = hold
        self._reserved = reserved
        self._done = False
        self.attempts: list[Attempt] = []
        self.charge_nano = 0
        self.current: AttemptStart | None = first
        self.last_bill: Bill | None = None
        self.last_verdict: Verdict | None = None
        try:
            books.journal.write(hold)
        except JournalError:
            books.holds.settle(reserved, 0)
            self._done = True
            raise

    @property
    def id(self) -> str:
        return self._hold.id

    @property
    def done(self) -> bool:
        return self._done

    def dispatch(self, start: AttemptStart) -> None:
        """A further attempt leaves; written before its first byte."""
        assert self.current is None, "one attempt at a time"
        self._books.journal.write(
            Dispatch(
                id=self._hold.id,
                n=start.n,
                at_us=start.started_us,
                provider=start.provider,
                upstream_id=start.upstream_id,
                price_version=start.quoted.price_version,
                rates=start.quoted.rates_for(self._hold.input_estimate),
                provider_key=start.provider_key,
                terms=Terms(start.quoted.plan, start.quoted.markup_bp, start.quoted.fees),
                before=tuple(self.attempts),
            )
        )
        self.current = start

    def progress(self, usage: Usage, *, exact_input: bool) -> None:
        """A checkpoint that recovery can fall back on. A full disk is not the stream's fault: the next one tries again."""
        current = self.current
        if current is None or self._done:
            return
        try:
            self._books.journal.write(
                Progress(id=self._hold.id, n=current.n, at_us=self._books.clock.now_us(), usage=usage, exact_input=exact_input)
            )
        except JournalError:
            return

    def end_attempt(
        self,
        ending: Ending,
        seen: Seen,
        *,
        outcome: str,
        finish_reason: str = "",
        native_finish_reason: str = "",
        error: str = "",
    ) -> Verdict:
        """Bill the attempt under way; the record is written with the settlement, or with the next dispatch."""
        current = self.current
        assert current is not None, "no attempt is under way"
        self.current = None
        books = self._books
        verdict = judge(ending, seen, bill_partial=books.bill_partial)
        report = seen.report
        rates = None
        cost: int | None = None
        charge = loss = 0
        flags = verdict.flags
        if verdict.usage is not None:
            refused = ending in ("refused", "failed_unsent")
            tier = report.service_tier if report is not None else None
            billed = bill(verdict.usage, current.quoted, service_tier=tier)
            if current.by_reported_cost and report is not None and report.provider_cost_usd and not refused:
                quoted = current.quoted
                billed = reported_bill(report.provider_cost_usd, billed.rates, quoted.markup_bp, quoted.fees)
                flags = (*flags, REPORTED_COST_FLAG)
            rates = None if refused else billed.rates
            cost = 0 if refused else billed.cost_nano
            if verdict.customer_pays:
                room = self._hold.amount_nano - self.charge_nano
                charge = min(billed.charge_nano, room)
                loss = billed.charge_nano - charge
                if loss:
                    books.losses += 1
                    flags = (*flags, "hold_exceeded")
                self.charge_nano += charge
                self.last_bill = billed
                self.last_verdict = verdict
        if flags and "estimated" in flags:
            books.estimated += 1
        self.attempts.append(
            Attempt(
                n=current.n,
                provider=current.provider,
                upstream_id=current.upstream_id,
                started_us=current.started_us,
                ended_us=books.clock.now_us(),
                outcome=outcome,
                provider_key=current.provider_key,
                first_byte_us=current.first_byte_us,
                status=current.status,
                usage=verdict.usage,
                basis=verdict.basis,
                flags=(*flags, *report.anomalies) if report is not None and report.anomalies else flags,
                price_version=current.quoted.price_version,
                rates=rates,
                markup_bp=current.quoted.markup_bp,
                fees=current.quoted.fees,
                plan=current.quoted.plan,
                cost_nano=cost,
                charge_nano=charge,
                loss_nano=loss,
                raw_usage=report.raw.decode("utf-8", "replace") if report is not None else "",
                upstream_request_id=current.upstream_request_id,
                finish_reason=finish_reason,
                native_finish_reason=native_finish_reason,
                provider_cost_usd=(report.provider_cost_usd or "") if report is not None else "",
                error=error[:ERROR_TEXT_MAX],
            )
        )
        return verdict

    def settle(self, *, state: State = "settled", cancelled: bool = False) -> None:
        """Write the terminal record and free the rest of the hold. Exactly once; a second call is a bug and asserts."""
        assert not self._done, "a terminal state is never left (I10)"
        assert self.current is None, "an attempt is still under way"
        self._done = True
        hold = self._hold
        books = self._books
        books.write(
            Settle(
                id=hold.id,
                state=state,
                at_us=books.clock.now_us(),
                account=hold.account,
                key=hold.key,
                scopes=hold.scopes,
                hold_nano=hold.amount_nano,
                charge_nano=self.charge_nano,
                surface=hold.surface,
                model=hold.model,
                attempts=tuple(self.attempts),
                created_us=hold.at_us,
                life=books.life,
                project=hold.project,
                end_user=hold.end_user,
                requested=hold.requested,
                streamed=hold.streamed,
                cancelled=cancelled,
            )
        )
        books.holds.settle(self._reserved, self.charge_nano)
        books.settled[state] += 1
        books.charged_nano += self.charge_nano

    def close(self, seen: Seen, *, gone: bool) -> None:
        """The last resort, in a `finally`: end what an exception or a cancellation left open, by what was seen.

        A client that is `gone` pays for what it received; one that we broke off with pays as if its provider had.
        """
        if self._done:
            return
        if self.current is not None:
            ending: Ending = "truncated" if seen.output_tokens else "failed_before_content"
            if gone and (self.current.status is not None or seen.output_tokens):
                ending = "client_gone"
            self.end_attempt(ending, seen, outcome="interrupted")
        self.settle(state="settled" if self.charge_nano else "voided", cancelled=True)


def cost_fields(bill: Bill | None, usage: Usage, cost_usd: str, *, estimated: bool) -> bytes:
    """The gateway's additions to a usage object, as JSON members: `cost` (a number), `cost_usd` (the exact decimal string),
    `is_byok`, `cost_details` (at list price; the charge carries the markup). Written from integers, never floats.
    """
    prompt = completion = upstream = 0
    if bill is not None:
        upstream = bill.cost_nano
        prompt_pico, completion_pico = side_costs_pico(usage, bill.rates)
        prompt, completion = divide_half_even(prompt_pico, PICO_PER_NANO), divide_half_even(completion_pico, PICO_PER_NANO)
    text = (
        f'"cost":{cost_usd},"cost_usd":"{cost_usd}","is_byok":false,"cost_details":{{"upstream_inference_cost":'
        f'{upstream // NANO_PER_USD}.{upstream % NANO_PER_USD:09d},"upstream_inference_prompt_cost":'
        f'{prompt // NANO_PER_USD}.{prompt % NANO_PER_USD:09d},"upstream_inference_completions_cost":'
        f'{completion // NANO_PER_USD}.{completion % NANO_PER_USD:09d}}}'
    )
    return (text + ',"estimated":true' if estimated else text).encode()
