"""The gateway: the services that a call needs, put together once per worker process. `app.Worker` builds it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from farebox.billing import seams
from farebox.billing.hedges import OUTRUN
from farebox.billing.records import Attempt
from farebox.billing.settlement import AttemptStart, Books
from farebox.exchange import Exchange
from farebox.flight import Flight
from farebox.gate.keyring import Keyring
from farebox.gate.limiter import Limiter
from farebox.ports import Clock, Ids, Random
from farebox.routing import explain, hedging, retry
from farebox.routing.health import Health
from farebox.routing.hedging import Outlook, Waste
from farebox.routing.lessons import lesson
from farebox.routing.market import Market
from farebox.routing.patience import Demand, Patience, before, shorter
from farebox.routing.plan import Candidate, Plan
from farebox.routing.retry_budget import RetryBudget
from farebox.routing.router import Router
from farebox.routing.target import Place, Target
from farebox.settings import Settings
from farebox.sorting import Sorter
from farebox.telemetry import Metrics
from farebox.transport import Client, Origin, Prepared, Timeouts, Tls, prepare
from farebox.turn import Turn
from farebox.wires.call import Call

USER_AGENT: Final = "farebox/0.1"
HEADS_MAX: Final = 10_000
NO_PATIENCE: Final = Patience()


class Gateway:
    """Everything that `pipeline` and `flight` reach for."""

    def __init__(
        self,
        *,
        market: Market,
        router: Router,
        client: Client,
        books: Books,
        keyring: Keyring,
        limiter: Limiter,
        metrics: Metrics,
        clock: Clock,
        ids: Ids,
        random: Random,
        timeouts: Timeouts,
        first_token_us: int,
        retry_policy: retry.Policy,
        retries: RetryBudget,
        health: Health,
        settings: Settings,
        fail_point: Callable[[str], None],
        turn: Turn,
        sorter: Sorter | None = None,
        waste: Waste | None = None,
    ) -> None:
        self.router = router
        self._market = market
        self.client = client
        self.books = books
        self.keyring = keyring
        self.limiter = limiter
        self.metrics = metrics
        self.clock = clock
        self.ids = ids
        self.random = random
        self.timeouts = timeouts
        self.first_token_us = first_token_us
        self.retry_policy = retry_policy
        self.retries = retries
        self.health = health
        books.learn = self._learn
        self.settings = settings
        self.fail_point = fail_point
        self.turn = turn
        self.fibers = turn.fibers
        self.sorter = sorter
        """Where policies sort calls by examples."""
        self.flights: dict[Flight, None] = {}
        """In the order of their beginning."""
        self.outrun: set[asyncio.Task[None]] = set()
        """Attempts that another one has outrun, on their way to their end; nobody waits for them."""
        self.waste = Waste(0) if waste is None else waste
        self.draining = False
        self._heads: dict[tuple[Target, int], Prepared] = {}
        self._day = ("", 0)

    @property
    def market(self) -> Market:
        return self._market

    @market.setter
    def market(self, market: Market) -> None:
        """From here on calls are planned and priced by another snapshot; those in flight keep their own."""
        self._market = market
        self._heads.clear()
        self.router = self.router.over(market.catalog, market.by_wire)

    def total_us(self, plan: Plan, demand: Demand) -> int:
        """How long a call may take, over all its attempts: as caller or policy say, or its first choice's class of models."""
        patience = plan.candidates[0].target.patience
        if demand.patience or plan.patience:
            patience = before(shorter(demand.patience, plan.patience), patience)
        total_s = None if patience is None else patience.total_s
        return int((self.timeouts.total_s if total_s is None else total_s) * 1_000_000)

    def timeouts_for(self, target: Target, flight: Flight) -> tuple[Timeouts, int]:
        """The time-outs of one attempt: the caller's or its policy's, the provider's, the configured ones; what is left of the
        call bounds them all. And the microseconds to the first token."""
        ours = self.timeouts
        patience = flight.demand.patience or flight.plan.patience or target.patience
        if patience is None and not flight.settlement.attempts:
            return ours, self.first_token_us
        patience = before(shorter(flight.demand.patience, flight.plan.patience), target.patience) or NO_PATIENCE
        left_s = max(flight.deadline_us - self.clock.monotonic_us(), 1) / 1_000_000
        first_token_s = self.first_token_us / 1_000_000 if patience.first_token_s is None else patience.first_token_s
        headers_s = ours.headers_s if patience.headers_s is None else patience.headers_s
        if flight.call.stream:
            headers_s = min(headers_s, first_token_s)
        chunk_s = ours.chunk_s if patience.chunk_s is None else patience.chunk_s
        timeouts = replace(
            ours,
            connect_s=min(ours.connect_s if patience.connect_s is None else patience.connect_s, left_s),
            headers_s=min(headers_s, left_s),
            chunk_s=min(chunk_s, left_s),
            total_s=left_s,
        )
        return timeouts, int(first_token_s * 1_000_000)

    def retry_policy_for(self, plan: Plan, demand: Demand) -> retry.Policy:
        """The configured one, with the caller's own number of tries, if any: within its policy's, and one for each model."""
        asked, planned = demand.attempts_max, plan.attempts_max
        if asked is not None:
            models = len({candidate.target.model.slug for candidate in plan.candidates})
            asked = max(asked if planned is None else min(asked, planned), models)
        elif planned is None:
            return self.retry_policy
        else:
            asked = planned
        return msgspec.structs.replace(self.retry_policy, attempts_max=asked)

    def explained(self, call: Call, plan: Plan, demand: Demand) -> dict[str, Any]:
        """The plan as its owner may read it."""
        now_us = self.clock.monotonic_us()
        tried = self.retry_policy_for(plan, demand).attempts_max
        standing = plan.standing
        return explain.explained(
            call,
            plan,
            lambda target: self.health.view(target, now_us),
            tried=tried,
            decision=self.router.policies.decision(call.model),
            hedge=None if standing is None or standing.hedge is None else self.outlook(call, plan, demand),
        )

    def outlook(self, call: Call, plan: Plan, demand: Demand) -> Outlook:
        """Whether, when and where a second attempt would be made beside a slow first one."""
        assert plan.standing is not None and plan.standing.hedge is not None, "it is asked of policies that hedge"
        now_us = self.clock.monotonic_us()
        return hedging.outlook(
            plan.standing.hedge,
            call,
            tuple(candidate.target for candidate in plan.candidates),
            escalates=plan.escalates(call),
            attempts_max=self.retry_policy_for(plan, demand).attempts_max,
            times=lambda target: self.health.times(target, now_us, streamed=call.stream),
            usable=lambda target: self.health.usable(target, now_us),
        )

    async def end_outrun(self) -> None:
        """Cut off what nobody waits for; each is settled by what was seen."""
        for task in self.outrun:
            task.cancel()
        if self.outrun:
            await asyncio.wait(self.outrun)

    def today(self, now_us: int) -> str:
        """The UTC day `YYYY-MM-DD`, computed once a day."""
        day, until_us = self._day
        if now_us >= until_us:
            from datetime import UTC, datetime

            moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
            day = moment.strftime("%Y-%m-%d")
            self._day = (day, (now_us // 86_400_000_000 + 1) * 86_400_000_000)
        return day

    def start_attempt(
        self, candidate: Candidate, n: int, *, streamed: bool, continues: bool = False, tried: Sequence[Attempt] = ()
    ) -> AttemptStart:
        """An attempt as its record begins, with the key that is free and has the least to do; another than those tried."""
        target = candidate.target
        now_us = self.clock.monotonic_us()
        number, places = 0, target.places
        if len(places) > 1:
            number = self.health.choose(target, now_us, [one.provider_key for one in tried] if tried else ()).number
        place = places[number]
        return AttemptStart(
            n,
            place.provider,
            candidate.entry.upstream_id,
            place.key,
            candidate.quoted,
            self.clock.now_us(),
            target.provider.charges_by_reported_cost,
            continues,
            place.model,
            streamed,
            number,
            now_us,
        )

    def has_other_key(self, candidate: Candidate, tried: Sequence[Attempt]) -> bool:
        """Whether an offer has a free key that this call has not tried."""
        keys = [one.provider_key for one in tried]
        choice = self.health.choose(candidate.target, self.clock.monotonic_us(), keys)
        return choice.free and choice.place.key not in keys

    def begin(self, start: AttemptStart, target: Target) -> None:
        """The attempt leaves now: health counts it until it ends."""
        number = start.key_index
        start.begun_us = start.chosen_us
        self.health.started(target.places[number], start.begun_us, target.key_weights[number] if target.key_weights else 1)

    def answers(self, target: Target, start: AttemptStart) -> None:
        """An attempt has brought its first content, while some offer is out: that may be this one, which is then in again."""
        self.health.answers(target.places[start.key_index], start.begun_us, self.clock.monotonic_us())

    def _learn(self, start: AttemptStart, attempt: Attempt) -> None:
        """An attempt is over, whatever ended it."""
        if not start.begun_us:
            return
        first = attempt.first_byte_us if start.streamed else None
        answer_us = None
        if start.late and attempt.outcome == OUTRUN and attempt.first_byte_us is None:
            # It is not known how long it would have taken; without it the slowest would be missing from what is usual.
            first, answer_us = (attempt.ended_us, None) if start.streamed else (None, attempt.ended_us - attempt.started_us)
        elif not start.streamed and self.health.measures_answers and attempt.first_byte_us is not None:
            answer_us = attempt.ended_us - attempt.started_us
        self.health.finished(
            Place(start.provider, start.provider_key, start.model),
            "ok" if attempt.outcome == "ok" else lesson(attempt.outcome, start.kind),
            start.begun_us,
            self.clock.monotonic_us(),
            first_token_us=None if first is None else max(first - attempt.started_us, 0),
            answer_us=answer_us,
            tokens=0 if first is None or attempt.usage is None else attempt.usage.completion_tokens,
            retry_after_us=start.retry_after_us,
            reason=start.kind or "",
        )

    def upstream_head(
        self, target: Target, exchange: Exchange, generation: str, start: AttemptStart, *, prefilled: bool = False
    ) -> tuple[Prepared, Sequence[tuple[bytes, bytes]], bytes]:
        """The encoded request head for a target (made once per key), the client's fields that go along, and lines of our own."""
        key_index = start.key_index
        cached = self._heads.get((target, key_index))
        if prefilled and target.speaks.prefill_path is not None:
            cached = self._prepare(target, key_index, target.speaks.prefill_path)
        elif cached is None:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            cached = self._heads[target, key_index] = self._prepare(target, key_index, target.speaks.path)
        extra: list[tuple[bytes, bytes]] = []
        headers = exchange.headers
        for name in target.forward_headers:
            if name in headers:
                extra.append((name, headers[name]))
        # Providers of our own can join their records with ours; a vendor has no business with our ids.
        own = target.provider.kind != "cloud"
        return cached, extra, b"x-farebox-attempt: %b/%d\r\n" % (generation.encode(), start.n) if own else b""

    def count_tokens_head(self, target: Target) -> Prepared:
        """The head of a token-counting request."""
        path = target.speaks.count_tokens_path
        assert path is not None, "asked only of targets that count"
        return self._prepare(target, 0, path)

    @staticmethod
    def _prepare(target: Target, key_index: int, path: str) -> Prepared:
        files = target.provider.certificates
        tls = Tls(ca_file=files.ca_file, client_cert_file=files.client_cert_file, client_key_file=files.client_key_file)
        origin, base = Origin.parse(target.base_url, tls)
        headers = [("content-type", "application/json"), ("user-agent", USER_AGENT), *target.speaks.headers]
        if target.keys:
            credential = target.provider.credential
            headers.append((credential.header, f"{credential.scheme}{target.keys[key_index]}"))
        return prepare(origin, "POST", f"{base.rstrip('/')}{path}", headers)

    def may_drain(self) -> bool:
        """Whether one more vanished client's stream may be read on."""
        return sum(1 for flight in self.flights if flight.gone_us) <= self.settings.drains_max

    def finished(self, flight: Flight, outcome: str, status: int) -> None:
        """One call is over; telemetry takes note."""
        if flight.lane is not None and flight.lane.lost:
            return  # the call is the other one's
        target = flight.trying.candidate.target
        plan = flight.plan
        if plan.later_turn and outcome == "ok":
            answered = seams.answering(flight.settlement.attempts)
            usage = None if answered is None else answered.usage
            if usage is not None:
                self.router.caching.learn(target, prompt_tokens=usage.prompt_tokens, cached_tokens=usage.cache_read)
        self.metrics.call(
            surface=flight.exchange.surface.name,
            provider=target.provider.name,
            model=target.model.slug,
            outcome=outcome,
            status=status,
            duration_us=self.clock.monotonic_us() - flight.started_us,
            settlement=flight.settlement,
        )

    def tick(self) -> None:
        """A few times a second: look after every flight. Keep-alives are sent beside the flights, which wait upstream."""
        now_us = self.clock.monotonic_us()
        self.health.tick(now_us)
        due = [flight for flight in list(self.flights) if flight.tick(now_us)]
        for flight in due:
            flight.keepalive(now_us)
        if self.books.unwritten:
            self.books.retry_unwritten()
