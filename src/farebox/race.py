"""Races: a call of a policy that hedges, with a second provider asked when the first is slower than usual (`routing.hedging`).

Both attempts are flights of their own, each with its own hold, over one client. To a flight its `Lane` is the client's end of the
exchange: the first that has content, or its whole answer, gets the client; for the other one the client has left. So what becomes
of it is what becomes of any call whose client left: it is hung up on where that stops the provider's bill, else read on to its
usage, within the same bounds. Nobody waits for that: the winner's answer and settlement are the call's.

docs/decisions/0016-a-hedge-has-its-own-hold.md says why there are two holds.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from farebox.billing.hedges import OUTRUN, SUFFIX
from farebox.billing.journal import JournalError
from farebox.billing.meter import OUTRUN_FLAG, Ending, Seen
from farebox.billing.settlement import Settlement
from farebox.continuation import SWITCHED_OFF, Recovery
from farebox.errors import FareboxError
from farebox.exchange import Answer, Exchange
from farebox.flight import Flight
from farebox.routing import hedging
from farebox.routing.patience import Patience
from farebox.routing.plan import Candidate
from farebox.routing.retry import Tries
from farebox.routing.target import Target
from farebox.verdict import Failure, barred

_CUT: dict[Ending, Ending] = {
    "complete": "outrun_drained", "drained": "outrun_drained", "client_gone": "outrun", "truncated": "outrun",
}  # fmt: skip
"""How an attempt ends that was outrun, by how it would have ended."""
_CUT_AND_PAID: dict[Ending, Ending] = {"complete": "drained"}


async def run(flight: Flight) -> Settlement:
    """Answer a call of a policy that hedges; the settlement of whoever answered. Raises what `Flight.run` raises."""
    gateway, plan = flight.gateway, flight.plan
    outlook = gateway.outlook(flight.call, plan, flight.demand)
    if outlook.why_not:
        gateway.metrics.hedge(outlook.why_not)
        await flight.run()
        return flight.settlement
    return await Race(flight, outlook.delay_us).run()


class Race:
    """One call's, from its first attempt on."""

    __slots__ = ("_reserved_nano", "_rules", "answer", "changed", "delay_us", "first", "second", "winner")

    def __init__(self, flight: Flight, delay_us: int) -> None:
        standing = flight.plan.standing
        assert standing is not None and standing.hedge is not None, "only policies that hedge have races"
        self._rules = standing.hedge
        self.answer = flight.exchange.answer
        self.delay_us = delay_us
        self.first = Lane(self, flight)
        self.second: Lane | None = None
        self.winner: Lane | None = None
        self.changed: asyncio.Future[None] | None = None
        """What the first one waits for after it has failed."""
        self._reserved_nano = 0
        """Set aside of what may be wasted today."""

    @property
    def charges_both(self) -> bool:
        """Whether the customer pays for the answer that nobody got, too."""
        return self._rules.charges_both

    async def run(self) -> Settlement:
        """Both attempts, to the end of the one that answers. What is left of the other ends by itself."""
        first = self.first
        self.answer.on_gone = self._client_left
        first.begin()
        try:
            await asyncio.wait((first.task,), timeout=self.delay_us / 1_000_000)
            if self.winner is None and not first.task.done():
                self._ask_another()
            while not (lane := self.winner or first).task.done():
                running = [lane.task] if self.winner else [one.task for one in self._lanes() if not one.task.done()]
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            lane.task.result()
            return lane.flight.settlement
        finally:
            self.answer.on_gone = None
            await self._leave()

    async def _leave(self) -> None:
        """Who was outrun goes on alone; when the call itself was cancelled, so are its attempts."""
        left = [lane for lane in self._lanes() if not lane.task.done()]
        ended: list[asyncio.Task[None]] = []
        for lane in left:
            if lane.lost:
                outrun = lane.flight.gateway.outrun
                outrun.add(lane.task)
                lane.task.add_done_callback(outrun.discard)
            else:
                lane.task.cancel()
                ended.append(lane.task)
        if ended:
            await asyncio.wait(ended)

    def _lanes(self) -> "list[Lane]":
        return [self.first] if self.second is None else [self.first, self.second]

    # --- the second attempt ---------------------------------------------------------------------------------------------

    def _ask_another(self) -> None:
        """The first one is late. Whatever speaks against a second attempt, the call goes on without."""
        flight = self.first.flight
        gateway, plan = flight.gateway, flight.plan
        if self.answer.gone or flight.settlement.attempts:
            return  # its first try has failed: others are asked anyway
        now_us = gateway.clock.monotonic_us()
        index = self._partner(now_us)
        if index is None:
            gateway.metrics.hedge("no_second_offer")
            return
        worst_nano = max(plan.candidates[0].hold_nano, plan.candidates[index].hold_nano)
        wall_us = gateway.clock.now_us()
        if not gateway.waste.reserve(worst_nano, wall_us):
            gateway.metrics.hedge("daily_cap")
            return
        flight.trying.start.late = True
        second = self._second_flight(index) if gateway.retries.take(now_us) else "retry_budget"
        if isinstance(second, str):
            gateway.waste.end(worst_nano, 0, wall_us)
            gateway.metrics.hedge(second)
            return
        self._reserved_nano = worst_nano
        gateway.fail_point("hold.after_journal")
        gateway.metrics.hedge("started")
        self.second = Lane(self, second, index)
        self.second.begin()

    def _partner(self, now_us: int) -> int | None:
        """Who is asked beside the first: of those that are well, the first that can be told the call."""
        flight = self.first.flight
        health = flight.gateway.health
        targets = tuple(candidate.target for candidate in flight.plan.candidates)
        deaf: set[Target] = set()
        while True:
            index = hedging.partner(targets, lambda target: target not in deaf and health.usable(target, now_us))
            if index is None or flight.said(index) is not None:
                return index
            deaf.add(targets[index])

    def _second_flight(self, index: int) -> "Flight | str":
        """A flight over the same exchange that begins with another candidate, with its money held; or why there is none."""
        flight = self.first.flight
        gateway, plan = flight.gateway, flight.plan
        candidate = plan.candidates[index]
        passed = flight.passed_over or {}
        others = tuple(one for n, one in enumerate(plan.candidates) if n != index and n not in passed)
        start = gateway.start_attempt(candidate, 1, streamed=flight.call.stream)
        try:
            settlement = flight.settlement.beside(
                start, id=flight.settlement.id + SUFFIX, input_bound=candidate.bound.input_tokens
            )
        except JournalError:
            return "journal"
        if settlement is None:
            return "no_money"
        recovery = flight.recovery
        if recovery is not None:
            recovery = Recovery(flight.call, wanted=recovery.problem != SWITCHED_OFF)
        made = Flight.of(
            gateway,
            flight.exchange,
            flight.call,
            # What is left of the call's time bounds this attempt, too.
            plan.of((candidate, *others), plan.hold_nano, tuple(passed.values()), patience=Patience()),
            settlement,
            recovery,
            flight.demand,
        )
        made.deadline_us = flight.deadline_us
        return made

    # --- who wins -------------------------------------------------------------------------------------------------------

    def claim(self, lane: "Lane") -> None:
        """The client is this lane's; the other one has lost. Only the first to ask is heard."""
        if self.winner is not None:
            return
        self.winner = lane
        if self.second is None:
            return
        other = self.second if lane is self.first else self.first
        if not self.second.failed:
            lane.flight.gateway.metrics.hedge("won" if lane is self.second else "wasted")
        other.lose()

    def _client_left(self) -> None:
        """Both end. What the client was to get was the first one's answer, unless that has failed."""
        if self.winner is None:
            self.claim(self.second if self.second is not None and self.changed is not None else self.first)
        assert self.winner is not None, "somebody has been claimed"
        if self.winner.on_gone is not None:
            self.winner.on_gone()

    def wake(self) -> None:
        """What the first one waits for has been decided."""
        if self.changed is not None and not self.changed.done():
            self.changed.set_result(None)

    def over(self) -> None:
        """An attempt is over. When both are, it is known what the hedge has wasted."""
        second = self.second
        if second is None or not self._reserved_nano or not (self.first.task.done() and second.task.done()):
            return
        gateway = second.flight.gateway
        wasted = sum(lane.wasted_nano() for lane in (self.first, second) if lane.lost or lane.failed)
        gateway.waste.end(self._reserved_nano, wasted, gateway.clock.now_us())
        self._reserved_nano = 0
        gateway.metrics.counts.hedge_waste_nano += wasted

    def told(self) -> dict[str, Any] | None:
        """What became of it, for whoever asks for the metadata of a call."""
        second = self.second
        if second is None:
            return None
        return {
            "after_ms": self.delay_us // 1_000,
            "provider": second.candidate.target.provider.name,
            "answered": "second" if self.winner is second else "first",
            "generations": [lane.flight.settlement.id for lane in (self.first, second)],
        }


class Lane:
    """One of a race's attempts, and the client's end of the exchange as its flight sees it (`farebox.exchange.Answer`)."""

    __slots__ = ("_on_gone", "candidate", "failed", "failure", "flight", "index", "lost", "race", "task")

    def __init__(self, race: Race, flight: Flight, index: int = 0) -> None:
        self.race = race
        self.flight = flight
        self.index = index
        """In the plan of the first one."""
        self.candidate: Candidate = flight.candidate
        self.lost = False
        """The other one has the client."""
        self.failed = False
        """The second one has ended without content."""
        self.failure: Failure | None = None
        self._on_gone: Callable[[], None] | None = None
        exchange = flight.exchange
        own = Exchange(exchange.surface, exchange.headers, exchange.body, self, exchange.request_id, exchange.notes)
        own.limits, own.wishes = exchange.limits, exchange.wishes
        flight.exchange = own
        flight.lane = self
        flight.settlement.ruling = self
        self.task: asyncio.Task[None]

    def begin(self) -> None:
        """Send it."""
        self.task = self.flight.task = asyncio.get_running_loop().create_task(
            self.flight.run(counted=self is self.race.first)
        )
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Its money has its end. What nobody waits for may have failed, too."""
        flight = self.flight
        if not flight.settlement.done:
            # A task that is cancelled before its first step never enters its flight, whose `finally` would have ended the hold.
            flight.settlement.close(Seen(None, estimated_input=flight.plan.input_estimate), gone=False)
        if self is self.race.second and self.race.winner is not self:
            self.failed = True
        if self.lost or self.failed:
            flight.gateway.metrics.ended(flight.settlement)
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, FareboxError):
                flight.gateway.metrics.crashed("race", error)
        self.race.over()
        self.race.wake()

    def lose(self) -> None:
        """The client is the other one's."""
        self.lost = True
        if self.race.changed is not None and self is self.race.first:
            self.race.wake()
        elif not self.task.done() and not self.flight.settlement.done:
            self.flight.client_left()

    def wasted_nano(self) -> int:
        """What it has cost beyond what the customer pays; what is not known counts as its worst case."""
        settlement = self.flight.settlement
        cost = sum(self.candidate.hold_nano if one.cost_nano is None else one.cost_nano for one in settlement.attempts)
        return max(cost - settlement.charge_nano, 0)

    # --- asked by its flight --------------------------------------------------------------------------------------------

    async def goes_on(self, failure: Failure, tries: Tries) -> bool:
        """Whether its flight looks for another candidate after a failure. While the other attempt runs, that one is the next."""
        race, flight = self.race, self.flight
        second = race.second
        if race.winner is None and self is second:
            self.failure, self.failed = failure, True
            flight.gateway.metrics.hedge("failed")
        elif race.winner is None and second is not None and not second.failed:
            race.changed = asyncio.get_running_loop().create_future()
            try:
                await race.changed
            finally:
                race.changed = None
        if race.winner is None and self is race.first:
            race.claim(self)
            if second is not None and second.failure is not None:
                tries.failed(
                    second.index,
                    flight.gateway.clock.monotonic_us(),
                    retry_after_s=second.failure.retry_after_s,
                    barred=barred(second.failure, second.index, flight.plan.candidates),
                )
        if race.winner is self:
            return True
        flight.settlement.settle(state="voided" if not flight.settlement.charge_nano else "settled")
        return False

    def rule(self, ending: Ending, outcome: str) -> tuple[Ending, str, tuple[str, ...]]:
        """How an attempt ends: a whole answer wins the race; what is outrun is nobody's (`billing.settlement.Ruling`)."""
        if ending == "complete":
            self.race.claim(self)
        if not self.lost:
            return ending, outcome, ()
        cut = (_CUT_AND_PAID if self.race.charges_both else _CUT).get(ending)
        if cut is None and outcome not in ("interrupted", "client_gone", "ok"):
            return ending, outcome, ()  # it failed by itself
        ruled = ending if cut is None else cut
        return ruled, OUTRUN, () if ruled in ("outrun", "outrun_drained") else (OUTRUN_FLAG,)

    @property
    def call_id(self) -> str:
        """What the client knows the call by, whoever answers it."""
        return self.race.first.flight.settlement.id

    @property
    def others(self) -> int:
        """How many attempts the call has beside this flight's."""
        return 1 if self.race.second is not None else 0

    @property
    def header(self) -> bytes:
        """Which of the two answers, as a header line."""
        second = self.race.second
        if second is None:
            return b""
        # Whoever tells the client is the one that answers.
        return b"x-farebox-hedge: %b\r\n" % (b"second" if self is second else b"first")

    def told(self) -> dict[str, Any] | None:
        """What became of the race."""
        return self.race.told()

    @property
    def undecided(self) -> Answer | None:
        """The client, while nobody has it: for a sign of life."""
        return self.race.answer if self.race.winner is None else None

    # --- the client's end -----------------------------------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """The client has hung up, or is the other one's."""
        return self.lost or self.race.answer.gone

    @gone.setter
    def gone(self, gone: bool) -> None:
        if not self.lost:
            self.race.answer.gone = gone

    @property
    def started(self) -> bool:
        """Its status line has been sent."""
        return self.race.winner is self and self.race.answer.started

    @property
    def ended(self) -> bool:
        """The last part has been sent."""
        return self.race.winner is self and self.race.answer.ended

    @property
    def on_gone(self) -> Callable[[], None] | None:
        """Called when the client hangs up, or is the other one's."""
        return self._on_gone

    @on_gone.setter
    def on_gone(self, told: Callable[[], None] | None) -> None:
        self._on_gone = told
        if told is not None and self.gone:
            told()

    @property
    def peer(self) -> str:
        return self.race.answer.peer

    def whole(self, status: int, headers: bytes, body: bytes) -> None:
        if not self.lost:
            self.race.claim(self)
            self.race.answer.whole(status, headers, body)

    def start(self, headers: bytes) -> None:
        if not self.lost:
            self.race.claim(self)
            self.race.answer.start(headers)

    def send(self, data: bytes) -> bool:
        return not self.lost and self.race.answer.send(data)

    async def drain(self) -> None:
        if not self.lost:
            await self.race.answer.drain()

    def end(self, data: bytes = b"") -> None:
        if not self.lost:
            self.race.answer.end(data)
