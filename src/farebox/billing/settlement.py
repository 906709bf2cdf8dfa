"""Settlement: the one owner of a call's hold, from its journal line to its terminal record.

Everything here is synchronous: a cancelled task, a vanished client or a shutdown cannot come between the decision and the
journal. `Settlement.close` always runs, once; it ends what nothing else has ended.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from farebox.billing import seams
from farebox.billing.holds import Holds, Reserved
from farebox.billing.journal import Journal, JournalError
from farebox.billing.markup import Terms
from farebox.billing.meter import CONTINUED_FLAG, REPORTED_COST_FLAG, Ending, Seen, Verdict, judge
from farebox.billing.pricing import bill, reported_bill, rest_bill, side_costs_pico, worst_case_nano, worst_rest_nano
from farebox.billing.quotes import Bill, Quote
from farebox.billing.records import Attempt, Dispatch, Hold, Progress, Settle, State
from farebox.money import PICO_PER_NANO, divide_half_even, format_nine
from farebox.ports import Clock
from farebox.wires.neutral import FailureKind
from farebox.wires.usage import Usage

ERROR_TEXT_MAX: Final = 500
UNWRITTEN_MAX: Final = 10_000
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
        self.learn: Callable[[AttemptStart, Attempt], None] | None = None
        """Told of every attempt where it ends, in the one place where attempts end: what the offers' health is made of."""

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


class Ruling(Protocol):
    """Who decides between attempts of two holds that race (`farebox.race`)."""

    def rule(self, ending: Ending, outcome: str) -> tuple[Ending, str, tuple[str, ...]]:
        """How an attempt of this hold ends, seen with the other's: its ending, its outcome, and flags for its record."""
        ...


class AttemptStart:
    """An attempt under way."""

    __slots__ = (
        "begun_us", "by_reported_cost", "chosen_us", "continues", "first_byte_us", "flags", "key_index", "kind", "late",
        "model", "n", "provider", "provider_key", "quoted", "retry_after_us", "started_us", "status", "streamed",
        "upstream_id", "upstream_request_id",
    )

    def __init__(
        self,
        n: int,
        provider: str,
        upstream_id: str,
        provider_key: str,
        quoted: Quote,
        started_us: int,
        by_reported_cost: bool = False,
        continues: bool = False,
        model: str = "",
        streamed: bool = False,
        key_index: int = 0,
        chosen_us: int = 0,
        begun_us: int = 0,
        kind: FailureKind | None = None,
        retry_after_us: int | None = None,
        first_byte_us: int | None = None,
        status: int | None = None,
        upstream_request_id: str = "",
        flags: tuple[str, ...] = (),
        late: bool = False,
    ) -> None:
        self.n = n
        self.provider = provider
        self.upstream_id = upstream_id
        self.provider_key = provider_key
        self.quoted = quoted
        self.started_us = started_us
        self.by_reported_cost = by_reported_cost
        """The provider's own reported cost is what we owe it, and what the charge is made of (its row says so)."""
        self.continues = continues
        """It goes on with the answer of the attempts before it: the customer pays its output only (`billing.seams`)."""
        self.model = model
        """The model's slug; a call may fall back to another one."""
        self.streamed = streamed
        self.key_index = key_index
        """Which of its provider's keys is used."""
        self.chosen_us = chosen_us
        """Monotonic time of its making."""
        self.begun_us = begun_us
        """Monotonic time of its sending; 0 = it was never sent."""
        self.kind: FailureKind | None = kind
        """What the provider said was wrong."""
        self.retry_after_us = retry_after_us
        """How long it asked to be left alone."""
        self.first_byte_us = first_byte_us
        self.status = status
        self.upstream_request_id = upstream_request_id
        self.flags = flags
        """What its record is marked with, however it ends."""
        self.late = late
        """It was waited for alone for longer than usual: if it is cut off, that is how long it took at least."""

class Settlement:
    """One call's hold and its attempts; made by `opened`."""

    __slots__ = (
        "_books", "_hold", "_reserved", "_seam_quotes", "attempts", "charge_nano", "done", "id", "last_bill", "last_verdict",
        "ruling", "under_way",
    )

    def __init__(
        self,
        books: Books,
        hold: Hold,
        reserved: Reserved,
        id: str,
        under_way: dict[int, AttemptStart],
        done: bool = False,
        charge_nano: int = 0,
        last_bill: Bill | None = None,
        last_verdict: Verdict | None = None,
        ruling: Ruling | None = None,
    ) -> None:
        self._books = books
        self._hold = hold
        self._reserved = reserved
        self.id = id
        self.under_way = under_way
        """Attempts without an end, by number. Usually one; a hedged call has two."""
        self.attempts: list[Attempt] = []
        self.done = done
        self.charge_nano = charge_nano
        self.last_bill = last_bill
        self.last_verdict = last_verdict
        self._seam_quotes: dict[int, Quote] = {}
        """Of the attempts that broke off and were gone on with."""
        self.ruling = ruling
        """Where the call is hedged, and has another hold beside this one."""

    @staticmethod
    def opened(books: Books, hold: Hold, reserved: Reserved, first: AttemptStart) -> "Settlement":
        """Write the hold; nothing was sent before this returns. Raises `JournalError`, and then the money is free again."""
        try:
            books.journal.write(hold)
        except JournalError:
            books.holds.settle(reserved, 0)
            raise
        return Settlement(books, hold, reserved, hold.id, {first.n: first})

    @property
    def hold_nano(self) -> int:
        return self._hold.amount_nano

    @property
    def current(self) -> AttemptStart | None:
        """The attempt under way; the one that left first, where there are two."""
        for start in self.under_way.values():
            return start
        return None

    @property
    def pieced(self) -> bool:
        """The answer has parts of several attempts."""
        return bool(self._seam_quotes)

    def room_nano(self, seen: Seen) -> int:
        """What the hold leaves for going on with an answer of which `seen` is the last part so far, whatever the parts turn out
        to cost."""
        current = self.current
        assert current is not None, "it is asked before the attempt is ended"
        bound = self._hold.input_bound
        usage = judge("taken_over", seen).usage or Usage()
        output = usage.completion_tokens
        if current.continues:
            # The prompt of this part was longer by what stood before it: at most by the output so far.
            prompt = bound + seams.delivered_tokens(self.attempts)
            last = worst_rest_nano(current.quoted, prompt_tokens=max(prompt, usage.prompt_tokens), output_tokens=output)
        else:
            last = worst_case_nano(current.quoted, input_tokens=max(bound, usage.prompt_tokens), output_tokens=output)
        return self._hold.amount_nano - last - seams.spoken_for_nano(self.attempts, self._seam_quotes, bound)

    def dispatch(self, start: AttemptStart, *, beside: bool = False) -> None:
        """A further attempt leaves; written before its first byte. `beside`: another one is still under way."""
        assert beside or not self.under_way, "one attempt at a time"
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
                continues=start.continues,
                model=self._other_model(start),
            )
        )
        self.under_way[start.n] = start

    def beside(self, start: AttemptStart, *, id: str, input_bound: int) -> "Settlement | None":
        """A second hold of the call, of the same size and in the same scopes, for an attempt beside this one's. Nothing was sent
        before this returns. None: there is no money at hand for it. Raises `JournalError`."""
        books, hold = self._books, self._hold
        reserved = books.holds.try_reserve([purse.scope for purse in self._reserved.purses], hold.amount_nano)
        if reserved is None:
            return None
        quoted = start.quoted
        second = msgspec.structs.replace(
            hold,
            id=id,
            at_us=start.started_us,
            model=start.model,
            provider=start.provider,
            upstream_id=start.upstream_id,
            price_version=quoted.price_version,
            rates=quoted.rates_for(hold.input_estimate),
            markup_bp=quoted.markup_bp,
            fees=quoted.fees,
            plan=quoted.plan,
            provider_key=start.provider_key,
            input_bound=input_bound,
        )
        return Settlement.opened(books, second, reserved, start)

    def _other_model(self, start: AttemptStart) -> str:
        return start.model if start.model != self._hold.model else ""

    def progress(self, usage: Usage, *, exact_input: bool, n: int | None = None) -> None:
        """A checkpoint that recovery can fall back on. A full disk is not the stream's fault: the next one tries again."""
        current = self.current if n is None else self.under_way.get(n)
        if current is None or self.done:
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
        n: int | None = None,
        flags: tuple[str, ...] = (),
        ended_us: int | None = None,
    ) -> Verdict:
        """Bill an attempt under way, the only one if `n` does not say; its record is written with the settlement, or with the
        next dispatch. It ends now, or did `ended_us`."""
        assert len(self.under_way) == 1 or n in self.under_way, "no such attempt is under way"
        _, current = self.under_way.popitem() if n is None else (n, self.under_way.pop(n))
        if self.ruling is not None:
            ending, outcome, ruled = self.ruling.rule(ending, outcome)
            flags = (*flags, *ruled)
        books = self._books
        verdict = judge(ending, seen, bill_partial=books.bill_partial)
        report = seen.report
        rates = None
        cost: int | None = None
        charge = loss = 0
        flags = (*verdict.flags, *current.flags, *flags) if flags or current.flags else verdict.flags
        fees = current.quoted.fees
        if current.continues:
            flags = (*flags, CONTINUED_FLAG)
            fees = seams.fees_left(fees, self.attempts)
        if verdict.usage is not None:
            refused = ending in ("refused", "failed_unsent")
            tier = report.service_tier if report is not None else None
            quoted = current.quoted
            if current.continues:
                billed = rest_bill(verdict.usage, quoted, fees=fees, service_tier=tier)
            else:
                billed = bill(verdict.usage, quoted, service_tier=tier)
            if current.by_reported_cost and report is not None and report.provider_cost_usd and not refused:
                told = reported_bill(report.provider_cost_usd, billed.rates, quoted.markup_bp, fees)
                billed = told if not current.continues else Bill(billed.rates, told.cost_nano, billed.charge_nano)
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
        elif fees is not None and fees.own_key:
            cost = 0  # whatever it was, it is the customer's
        if flags and "estimated" in flags:
            books.estimated += 1
        raw_usage = provider_cost_usd = ""
        if report is not None:
            if report.anomalies:
                flags = (*flags, *report.anomalies)
            raw_usage = report.raw.decode("utf-8", "replace")
            provider_cost_usd = report.provider_cost_usd or ""
        ended_us = books.clock.now_us() if ended_us is None else ended_us
        self.attempts.append(
            Attempt(  # in the order of its fields, as every record on the way of a call: see `billing.records`
                current.n,
                current.provider,
                current.upstream_id,
                current.started_us,
                ended_us,
                outcome,
                current.provider_key,
                current.first_byte_us,
                current.status,
                verdict.usage,
                verdict.basis,
                flags,
                current.quoted.price_version,
                rates,
                current.quoted.markup_bp,
                fees,
                current.quoted.plan,
                cost,
                charge,
                loss,
                raw_usage,
                current.upstream_request_id,
                finish_reason,
                native_finish_reason,
                provider_cost_usd,
                error[:ERROR_TEXT_MAX],
                self._other_model(current),
            )
        )
        if books.learn is not None:
            books.learn(current, self.attempts[-1])
        if ending == "taken_over":
            self._seam_quotes[current.n] = current.quoted
        elif ending == "complete" and self._seam_quotes:
            self._refine()
        return verdict

    def _refine(self) -> None:
        """The last part has ended well: what its provider counted tells the first one's input."""
        last = self.attempts[-1]
        for index, one in enumerate(self.attempts):
            if one.n not in self._seam_quotes:
                continue
            better = seams.refined(
                one,
                last,
                self._seam_quotes[one.n],
                prefill_tokens=seams.delivered_tokens(self.attempts),
                input_bound=self._hold.input_bound,
                room_nano=self._hold.amount_nano - self.charge_nano + one.charge_nano,
            )
            self.charge_nano += better.charge_nano - one.charge_nano
            self.attempts[index] = better

    def forgive(self) -> None:
        """The answer was not completed after all: what was delivered of it is free, unless partial answers are billed. And so is
        an answer that would not do, and that nobody got."""
        for index, one in enumerate(self.attempts):
            if seams.aside(one) or (one.n in self._seam_quotes and not self._books.bill_partial):
                self.charge_nano -= one.charge_nano
                self.attempts[index] = seams.free(one)

    def settle(self, *, state: State = "settled", cancelled: bool = False, settled_at_once: bool = False) -> None:
        """Write the terminal record and free the rest of the hold. Exactly once; a second call is a bug and asserts.

        `settled_at_once`: the last attempt ended at this moment."""
        assert not self.done, "a terminal state is never left (I10)"
        assert not self.under_way, "an attempt is still under way"
        self.done = True
        if len(self.attempts) > 1:
            self.attempts.sort(key=_number)
        hold = self._hold
        books = self._books
        scopes = hold.scopes_charged(self.attempts) if hold.only or hold.only_models else hold.scopes
        at_us = self.attempts[-1].ended_us if settled_at_once and self.attempts else books.clock.now_us()
        books.write(
            Settle(
                hold.id,
                state,
                at_us,
                hold.account,
                hold.key,
                scopes,
                hold.amount_nano,
                self.charge_nano,
                hold.surface,
                hold.model,
                tuple(self.attempts),
                hold.at_us,
                books.life,
                hold.project,
                hold.end_user,
                hold.requested,
                hold.streamed,
                cancelled,
                hold.tags,
            )
        )
        books.holds.settle(self._reserved, self.charge_nano, scopes if scopes is not hold.scopes else None)
        books.settled[state] += 1
        books.charged_nano += self.charge_nano

    def close(self, seen: Seen, *, gone: bool) -> None:
        """The last resort, in a `finally`: end what an exception or a cancellation left open, by what was seen.

        A client that is `gone` pays for what it received; one that we broke off with pays as if its provider had.
        """
        if self.done:
            return
        for n, start in list(self.under_way.items()):
            ending: Ending = "truncated" if seen.output_tokens else "failed_before_content"
            if not start.begun_us and start.status is None and not seen.output_tokens:
                ending = "failed_unsent"
            if gone and (start.status is not None or seen.output_tokens):
                ending = "client_gone"
            # Whoever left ended it; else we did.
            self.end_attempt(ending, seen, outcome="client_gone" if ending == "client_gone" else "interrupted", n=n)
            # What was seen is the first one's; of another that was to take over nothing was.
            seen = Seen(None, estimated_input=self._hold.input_estimate)
        if not gone:
            self.forgive()
        self.settle(state="settled" if self.charge_nano else "voided", cancelled=True)


def _number(attempt: Attempt) -> int:
    return attempt.n


def cost_fields(bill: Bill | None, usage: Usage, cost_usd: str, *, estimated: bool) -> bytes:
    """The gateway's additions to a usage object, as JSON members: `cost` (a number), `cost_usd` (the exact decimal string),
    `is_byok`, `cost_details` (at list price; the charge carries the markup). Written from integers, never floats."""
    prompt = completion = upstream = 0
    if bill is not None:
        upstream = bill.cost_nano
        prompt_pico, completion_pico = side_costs_pico(usage, bill.rates)
        prompt, completion = divide_half_even(prompt_pico, PICO_PER_NANO), divide_half_even(completion_pico, PICO_PER_NANO)
    return cost_members(upstream, prompt, completion, cost_usd, estimated=estimated)


def cost_members(
    upstream_nano: int, prompt_nano: int, completion_nano: int, cost_usd: str, *, estimated: bool, own_key: bool = False
) -> bytes:
    """The same from amounts. `own_key`: the provider bills them to the customer itself."""
    byok = "true" if own_key else "false"
    text = (
        f'"cost":{cost_usd},"cost_usd":"{cost_usd}","is_byok":{byok},"cost_details":{{"upstream_inference_cost":'
        f'{format_nine(upstream_nano)},"upstream_inference_prompt_cost":{format_nine(prompt_nano)},'
        f'"upstream_inference_completions_cost":{format_nine(completion_nano)}}}'
    )
    return (text + ',"estimated":true' if estimated else text).encode()
