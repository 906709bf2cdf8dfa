"""Bugs on purpose: each a small patch of the real code, to see that the simulation would find it.

One per way in which gateways are known to lose money or calls. `BUGS` names them; each is a function of a `MonkeyPatch`.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from farebox import pipeline
from farebox.attempt import Try
from farebox.billing import journal, meter, pricing, seams, settlement
from farebox.billing.books import allotments
from farebox.billing.holds import Holds, Purse, Reserved
from farebox.billing.journal import JournalError
from farebox.billing.markup import Terms
from farebox.billing.meter import Seen, Verdict
from farebox.billing.position import Position
from farebox.billing.posting import poster, recovery
from farebox.billing.records import Attempt, Settle
from farebox.billing.settlement import Books, Settlement
from farebox.escalation import Escalation, Withheld
from farebox.flight import Flight
from farebox.gate.keyring import Keyring
from farebox.gate.limiter import Admission, Limiter
from farebox.gateway import Gateway
from farebox.probes import Prober
from farebox.race import Lane, Race
from farebox.routing.circuit import Circuit
from farebox.routing.health import Health
from farebox.routing.retry import Tries
from farebox.routing.retry_budget import RetryBudget
from farebox.transport.connection import Connection
from farebox.turn import Turn
from farebox.wires.openai_chat.relay import Relay
from farebox.wires.usage import Usage
from tests.simulation.world import World

Plant = Callable[[pytest.MonkeyPatch], None]


def the_house_owes_for_own_keys(patch: pytest.MonkeyPatch) -> None:
    """What a customer's own key was used for is booked as ours to pay."""
    patch.setattr(pricing, "owed_nano", lambda cost_nano, fees: cost_nano)


def held_money_counts_as_free(patch: pytest.MonkeyPatch) -> None:
    """A purse is asked for what it was granted, not for what is left beside the calls in flight."""

    def try_reserve(self: Holds, scopes: Any, amount_nano: int) -> Reserved | None:
        purses = [self._purses.get(scope.id) for scope in scopes]
        if any(purse is None or purse.granted - purse.spent < amount_nano for purse in purses):
            return None
        for purse in purses:
            purse.held += amount_nano
        self.open_nano += amount_nano
        self.open_count += 1
        return Reserved(amount_nano, tuple(purses))

    patch.setattr(Holds, "try_reserve", try_reserve)


def settled_twice(patch: pytest.MonkeyPatch) -> None:
    """The terminal record is written again on the way out."""
    write = Books.write

    def twice(self: Books, settle: Settle) -> None:
        write(self, settle)
        if settle.charge_nano:
            write(self, settle)

    patch.setattr(Books, "write", twice)


def recovery_voids_what_was_sent(patch: pytest.MonkeyPatch) -> None:
    """A hold without an end is taken for one that was never dispatched."""
    honest = recovery.finish

    def void(one: Attempt) -> Attempt:
        if "recovered" not in one.flags:
            return one
        return msgspec.structs.replace(one, usage=Usage(), flags=(), cost_nano=0, charge_nano=0, basis="none")

    def finish(*arguments: Any) -> list[Settle]:
        return [
            msgspec.structs.replace(
                settle, state="voided", attempts=tuple(map(void, settle.attempts)), charge_nano=0
            )
            for settle in honest(*arguments)
        ]

    patch.setattr(recovery, "finish", finish)


def recovery_at_other_prices(patch: pytest.MonkeyPatch) -> None:
    """A recovered call is priced by what is in force when it is recovered, not by what its hold froze."""
    honest = recovery.open_holds

    def dearer(record: Any) -> Any:
        rates = msgspec.structs.replace(record.rates, output=record.rates.output + 100_000)
        return msgspec.structs.replace(record, rates=rates)

    def open_holds(records: Any) -> Any:
        found = honest(records)
        for item in found:
            item.hold = dearer(item.hold)
            for flying in item.flying.values():
                flying.dispatch = flying.dispatch and dearer(flying.dispatch)
        return found

    patch.setattr(recovery, "open_holds", open_holds)


def a_continuation_is_charged_its_input(patch: pytest.MonkeyPatch) -> None:
    """Who goes on with an answer bills the prompt a second time."""
    honest = settlement.rest_bill

    def rest_bill(usage: Usage, quoted: Any, **more: Any) -> Any:
        found = honest(usage, quoted, **more)
        return msgspec.structs.replace(found, charge_nano=pricing.bill(usage, quoted).charge_nano)

    patch.setattr(settlement, "rest_bill", rest_bill)


def priced_when_it_settles(patch: pytest.MonkeyPatch) -> None:
    """The rates are those in force at the end of a call, not those that its hold froze."""
    now: dict[str, Any] = {}
    honest, market = Settlement.end_attempt, Gateway.market

    def sell(self: Gateway, found: Any) -> None:
        now["targets"] = found.targets
        assert market.fset is not None
        market.fset(self, found)

    def end_attempt(self: Settlement, *arguments: Any, **named: Any) -> Verdict:
        for start in self.under_way.values():
            for target in now.get("targets", {}).get(start.upstream_id.replace("-", "/", 1), ()):
                if target.provider.name == start.provider:
                    terms = Terms(start.quoted.plan, start.quoted.markup_bp, start.quoted.fees)
                    start.quoted = target.quote_at(start.started_us, "2026-03-01", None, terms)
        return honest(self, *arguments, **named)

    patch.setattr(Gateway, "market", property(market.fget, sell))
    patch.setattr(Settlement, "end_attempt", end_attempt)


def fails_over_behind_content(patch: pytest.MonkeyPatch) -> None:
    """Another provider answers although the caller already has the beginning of an answer."""
    honest = Try._broken

    def broken(self: Try, relay: Any, response: Any, error: Any) -> Any:
        relay.content_started = False
        return honest(self, relay, response, error)

    patch.setattr(Try, "_broken", broken)


def settlement_lost_on_cancel(patch: pytest.MonkeyPatch) -> None:
    """No `finally`: what was cancelled has no end."""
    patch.setattr(Settlement, "close", lambda self, seen, **_: None)


def answered_before_settled(patch: pytest.MonkeyPatch) -> None:
    """The last bytes leave first, the record follows a moment later."""
    write = Books.write

    def later(self: Books, settle: Settle) -> None:
        asyncio.get_running_loop().call_later(0.01, write, self, settle)

    patch.setattr(Books, "write", later)


def slots_leak(patch: pytest.MonkeyPatch) -> None:
    """A concurrency slot is not given back if another call of the key is still in flight."""

    honest = Limiter.leave

    def leave(self: Limiter, admission: Admission, tokens: int, now_us: int) -> None:
        if all(calls == 1 for calls in self.in_flight().values()):
            honest(self, admission, tokens, now_us)

    patch.setattr(Limiter, "leave", leave)


def holds_the_first_candidate(patch: pytest.MonkeyPatch) -> None:
    """The hold covers the offer that is tried first, not the dearest of the plan."""
    honest = pipeline.route

    def cheapest(*arguments: Any, **named: Any) -> Any:
        found = honest(*arguments, **named)
        # The expected price is what the first one may cost if nothing unexpected happens.
        return found.of(found.candidates, min(candidate.hold_nano for candidate in found.candidates) // 3)

    patch.setattr(pipeline, "route", cheapest)


def never_times_out(patch: pytest.MonkeyPatch) -> None:
    """A stream that stops is waited for."""
    def check(self: Connection, now_s: float, idle_s: float) -> bool:
        return self._exchange is not None

    patch.setattr(Connection, "check", check)


def a_vanished_client_is_a_success(patch: pytest.MonkeyPatch) -> None:
    """What was cut off because nobody listened is recorded as a finished answer."""
    honest = Settlement.end_attempt

    def end_attempt(self: Settlement, ending: Any, seen: Seen, *, outcome: str, **more: Any) -> Verdict:
        if ending == "client_gone":
            ending, outcome = "complete", "ok"
        return honest(self, ending, seen, outcome=outcome, **more)

    patch.setattr(Settlement, "end_attempt", end_attempt)


def posted_again_after_a_lost_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    """The poster remembers its own position instead of asking the database, and nothing guards it."""
    remembered: dict[str, Position] = {}
    honest = poster._read

    def read(database: Any, root: Any, records_max: int) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(poster, "positions", lambda _: dict(remembered))
            return honest(database, root, records_max)

    def advance(connection: Any, reading: Any) -> None:
        poster_advance(connection, reading)

    def poster_advance(connection: Any, reading: Any) -> None:
        connection.exec_driver_sql(
            "INSERT INTO journal_positions (slot, segment, byte_offset) VALUES (?, ?, ?) ON CONFLICT (slot) DO UPDATE "
            "SET segment = excluded.segment, byte_offset = excluded.byte_offset",
            (reading.slot, reading.end.segment, reading.end.offset),
        )

    post = poster.post

    def remembering(database: Any, root: Any, *arguments: Any, **named: Any) -> Any:
        if not remembered:
            remembered.update(poster.positions(database))
        done = post(database, root, *arguments, **named)
        remembered.update(poster.positions(database))
        return done

    start = World.start_books

    def start_books(self: World) -> None:
        remembered.clear()
        start(self)

    patch.setattr(World, "start_books", start_books)
    patch.setattr(poster, "_read", read)
    patch.setattr(poster, "_advance", advance)
    patch.setattr(poster, "post", remembering)


def torn_lines_stay(patch: pytest.MonkeyPatch) -> None:
    """A new life writes behind half a line."""
    patch.setattr(journal, "cut_torn_tail", lambda path: None)


def given_back_before_it_is_gone(patch: pytest.MonkeyPatch) -> None:
    """Money is returned to its scope first and taken from memory after: a call between them spends it twice."""

    async def give_back(self: Holds, purse: Purse) -> None:
        async with purse.asking:
            free = purse.free
            if free <= 0:
                return
            await self._run(self._store.give_back, purse.scope.id, purse.granted - free)
            purse.granted -= free

    patch.setattr(Holds, "_return", give_back)


def bytes_leave_before_their_records(patch: pytest.MonkeyPatch) -> None:
    """The end of a turn sends first, and writes the journal then."""

    def flush(self: Turn) -> None:
        if not self._due:
            return
        self._due = False
        self.number += 1
        queue, self._queue = self._queue, []
        for sink, data in queue:
            if not sink.is_closing():
                sink.write(data)
        self._fail_point("turn.after_send")
        self._commit()

    patch.setattr(Turn, "flush", flush)


def a_full_disk_loses_a_settlement(patch: pytest.MonkeyPatch) -> None:
    """A record that cannot be written is given up."""

    def write(self: Books, settle: Settle) -> None:
        try:
            self.journal.write(settle)
        except JournalError:
            pass

    patch.setattr(Books, "write", write)


def fractions_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """A charge is cut to whole nano-dollars instead of rounded."""
    patch.setattr(pricing, "round_charge", lambda pico, markup_bp=0: pico * (10_000 + markup_bp) // 10_000_000)


def revoked_keys_are_remembered(patch: pytest.MonkeyPatch) -> None:
    """The memory of keys is never refreshed."""
    patch.setattr(Keyring, "forget", lambda self: None)


def a_torn_stream_is_a_success(patch: pytest.MonkeyPatch) -> None:
    """An end without the terminal event counts as the end, once there was content."""
    finished = property(lambda self: self.content_started, lambda self, finished: None)
    patch.setattr(Relay, "finished", finished, raising=False)


def broken_streams_are_paid_for(patch: pytest.MonkeyPatch) -> None:
    """A customer pays for an answer that its provider broke off, whatever the policy says."""
    honest = meter.judge

    def judge(ending: Any, seen: Seen, *, bill_partial: bool = False) -> Verdict:
        found = honest(ending, seen, bill_partial=bill_partial)
        if ending in ("truncated", "failed_before_content") and found.usage is not None:
            return Verdict(found.usage, "reported", (), True)
        return found

    patch.setattr(settlement, "judge", judge)


def a_silent_provider_is_asked_again(patch: pytest.MonkeyPatch) -> None:
    """A time-out is a failure as any other."""
    honest = Try._transport_failure

    def transport_failure(self: Try, *arguments: Any) -> Any:
        return msgspec.structs.replace(honest(self, *arguments), bars="nothing")

    patch.setattr(Try, "_transport_failure", transport_failure)


def every_attempt_has_the_whole_time(patch: pytest.MonkeyPatch) -> None:
    """The deadline begins anew with each attempt."""
    honest = Flight._next_try

    def next_try(self: Flight, index: int) -> Any:
        self.deadline_us = self.gateway.clock.monotonic_us() + self.gateway.total_us(self.plan, self.demand)
        return honest(self, index)

    patch.setattr(Flight, "_next_try", next_try)


def tries_at_one_offer_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Only all of a call's tries are."""
    honest = Tries.following

    def following(self: Tries, able: Any, policy: Any, **more: Any) -> Any:
        return honest(self, able, msgspec.structs.replace(policy, per_offer_max=99), **more)

    patch.setattr(Tries, "following", following)


def retries_cost_nothing(patch: pytest.MonkeyPatch) -> None:
    """When everything fails, everything is asked again."""
    patch.setattr(RetryBudget, "take", lambda self, now_us: True)


def ended_lives_keep_their_slices(patch: pytest.MonkeyPatch) -> None:
    """What a dead process had taken is never returned."""
    patch.setattr(allotments, "return_slices", lambda database, connection, ended: 0)


def a_first_answer_is_not_billed(patch: pytest.MonkeyPatch) -> None:
    """Only the stronger model's answer is charged, not the one that it replaced."""
    honest = Settlement.end_attempt

    def end_attempt(self: Settlement, ending: Any, seen: Seen, **more: Any) -> Verdict:
        verdict = honest(self, ending, seen, **more)
        last = self.attempts[-1]
        if "escalated" in last.flags:
            self.charge_nano -= last.charge_nano
            self.attempts[-1] = msgspec.structs.replace(last, charge_nano=0)
        return verdict

    patch.setattr(Settlement, "end_attempt", end_attempt)


def two_answers_in_one_stream(patch: pytest.MonkeyPatch) -> None:
    """What was withheld goes out although a stronger model answers."""
    honest = Escalation.keep

    def keep(self: Escalation, candidate: Any, answer: Any, verdict: Any, reason: str) -> Any:
        failure = honest(self, candidate, answer, verdict, reason)
        if isinstance(answer, Withheld):
            leaking[self] = answer.released()
        return failure

    leaking: dict[Escalation, bytes] = {}
    finish = Flight.deliver_stream

    def deliver_stream(self: Flight, relay: Any, verdict: Any, withheld: Any = None) -> None:
        if self.escalation in leaking:
            self.exchange.answer.start(self.stream_headers())
            self.exchange.answer.send(leaking.pop(self.escalation))
        finish(self, relay, verdict, withheld)

    patch.setattr(Escalation, "keep", keep)
    patch.setattr(Flight, "deliver_stream", deliver_stream)


def nobody_got_it_and_pays(patch: pytest.MonkeyPatch) -> None:
    """A first answer that would not do is charged although no other came, and the caller got none."""
    patch.setattr(seams, "aside", lambda attempt: False)


def the_loser_has_no_end(patch: pytest.MonkeyPatch) -> None:
    """Who was hung up on because another one answered is forgotten."""
    honest = Settlement.close

    def close(self: Settlement, seen: Seen, **more: Any) -> None:
        if not (isinstance(self.ruling, Lane) and self.ruling.lost):
            honest(self, seen, **more)

    patch.setattr(Settlement, "close", close)


def both_answers_are_charged(patch: pytest.MonkeyPatch) -> None:
    """Who was outrun is paid for like anybody whose client has left."""
    honest = Lane.rule

    def rule(self: Lane, ending: Any, outcome: str) -> Any:
        honest(self, ending, outcome)
        return ending, outcome, ()

    patch.setattr(Lane, "rule", rule)


def nobody_is_told_of_its_loss(patch: pytest.MonkeyPatch) -> None:
    """Both of a race write to the client."""

    def claim(self: Race, lane: Lane) -> None:
        self.winner = self.winner or lane

    patch.setattr(Race, "claim", claim)


def a_hedge_holds_nothing(patch: pytest.MonkeyPatch) -> None:
    """The second attempt leaves with next to no money behind it."""
    honest = Settlement.beside

    def beside(self: Settlement, start: Any, **more: Any) -> Settlement | None:
        hold = self._hold
        self._hold = msgspec.structs.replace(hold, amount_nano=min(hold.amount_nano, 100))
        try:
            return honest(self, start, **more)
        finally:
            self._hold = hold

    patch.setattr(Settlement, "beside", beside)


def probes_end_no_time_out(patch: pytest.MonkeyPatch) -> None:
    """A provider that says it is well again is left alone until its time out is over."""
    patch.setattr(Circuit, "due", lambda self, now_us: False)


def failed_probes_say_nothing(patch: pytest.MonkeyPatch) -> None:
    """Only calls find out that a provider is down."""
    honest = Health.probed

    def probed(self: Health, places: Any, outcome: Any, now_us: int) -> None:
        honest(self, places, "unknown" if outcome == "down" else outcome, now_us)

    patch.setattr(Health, "probed", probed)


def failed_probes_count_as_calls(patch: pytest.MonkeyPatch) -> None:
    """What a probe has found stands among the calls of an offer."""
    honest = Health.probed

    def probed(self: Health, places: Any, outcome: Any, now_us: int) -> None:
        honest(self, places, outcome, now_us)
        for place in places if outcome == "down" else ():
            self._places[place].counts.add(now_us, succeeded=False)

    patch.setattr(Health, "probed", probed)


def a_probe_is_asked_once(patch: pytest.MonkeyPatch) -> None:
    """A provider whose first probe has been answered is not asked again."""
    honest = Prober.look

    def look(self: Prober) -> None:
        honest(self)
        for asked in self._asked.values():
            if asked.task is not None:
                asked.due_us = sys.maxsize

    patch.setattr(Prober, "look", look)


PROBE_BUGS = (
    "probes_end_no_time_out", "failed_probes_say_nothing", "failed_probes_count_as_calls", "a_probe_is_asked_once",
)  # fmt: skip
BUGS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        held_money_counts_as_free,
        settled_twice,
        recovery_voids_what_was_sent,
        recovery_at_other_prices,
        a_continuation_is_charged_its_input,
        priced_when_it_settles,
        fails_over_behind_content,
        settlement_lost_on_cancel,
        answered_before_settled,
        slots_leak,
        holds_the_first_candidate,
        never_times_out,
        a_vanished_client_is_a_success,
        posted_again_after_a_lost_acknowledgement,
        torn_lines_stay,
        given_back_before_it_is_gone,
        a_full_disk_loses_a_settlement,
        bytes_leave_before_their_records,
        fractions_are_dropped,
        revoked_keys_are_remembered,
        a_torn_stream_is_a_success,
        broken_streams_are_paid_for,
        ended_lives_keep_their_slices,
        a_silent_provider_is_asked_again,
        every_attempt_has_the_whole_time,
        tries_at_one_offer_are_not_counted,
        retries_cost_nothing,
        a_first_answer_is_not_billed,
        two_answers_in_one_stream,
        nobody_got_it_and_pays,
        the_loser_has_no_end,
        both_answers_are_charged,
        nobody_is_told_of_its_loss,
        a_hedge_holds_nothing,
        the_house_owes_for_own_keys,
        probes_end_no_time_out,
        failed_probes_say_nothing,
        failed_probes_count_as_calls,
        a_probe_is_asked_once,
    )
}
