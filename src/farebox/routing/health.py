"""Health: what attempts have told of every offer and key, and what follows for the next ones. Pure: time is an argument.

A *place* is where a call goes: a provider, one of its keys, a model. Each has a circuit (`routing.circuit`), its pauses after
429s and measurements (`routing.rolling`); each key has its own bench, for credentials and empty accounts, and a limit on calls at
a time (`routing.concurrency`). An attempt is told of twice, by `started` and by `finished`, whatever became of it.

What a failure says about a place, by its `Outcome`: `failed` counts against it; `rate_limited` makes it pause; `key_refused`
benches the key for all its models; `caller` and `unknown` say nothing, and `outrun` only how long nothing had come.
"""

from collections.abc import Iterable, Sequence
from heapq import nlargest, nsmallest
from itertools import islice
from typing import Final, Literal, NamedTuple, assert_never

from farebox.routing.circuit import Circuit
from farebox.routing.concurrency import Concurrency
from farebox.routing.health_report import KeyReport, OfferHealth, PlaceReport, Report
from farebox.routing.health_rules import Rules
from farebox.routing.measured import State
from farebox.routing.own_keys import KEY_PREFIX
from farebox.routing.rolling import Counts, Histogram, merged, percentiles
from farebox.routing.target import Place, Target

Outcome = Literal["ok", "failed", "rate_limited", "key_refused", "caller", "outrun", "unknown"]
ProbeOutcome = Literal["up", "down", "key_refused", "unknown"]

PLACES_MAX: Final = 20_000
"""Places that are remembered; beyond it those not used for the longest time are forgotten."""
FORGOTTEN_AT_ONCE: Final = PLACES_MAX // 10
REPORTED_MAX: Final = 2_000
"""Places, and keys, of a report."""
HALF_HOUR_US: Final = 1_800_000_000
BENCH_US: Final = 60_000_000
"""A refused key is tried again after a minute, then after two, and so on up to an hour: somebody may have filled its account."""
BENCH_MAX_US: Final = 3_600_000_000
PAUSE_US: Final = 1_000_000
"""After a 429 that does not say how long, a place pauses for a second, two, four, up to a minute."""
PAUSE_MAX_US: Final = 60_000_000
SHARE: Final = 1_000_000
"""What one call of a key of weight 1 counts (stride scheduling)."""
VIEW_US: Final = 1_000_000
"""Percentiles are worked out at most once a second."""


class Choice(NamedTuple):
    """A key for an attempt."""

    number: int
    """Its place in the target's keys."""
    place: Place
    free: bool
    """False: every key is benched, pausing or full, and this one will be free first."""


class _Key:
    """One credential."""

    __slots__ = ("bench_until_us", "benched", "down", "load", "reason", "turn")

    def __init__(self) -> None:
        self.load = Concurrency()
        self.bench_until_us = 0
        self.benched = 0
        """Refusals in a row."""
        self.reason = ""
        self.down = False
        """The last probe failed."""
        self.turn = 0
        """What it has had of its provider's calls, a heavier key's counting for less: of keys with as little to do, the one
        that had least is next."""


class _Record:
    """One place."""

    __slots__ = (
        "answer", "circuit", "counts", "first_token", "in_flight", "key", "pause_until_us", "paused", "tokens_per_s", "used_us",
    )  # fmt: skip

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.circuit = Circuit()
        self.counts = Counts()
        self.first_token = Histogram()
        self.answer: Histogram | None = None
        """Of whole answers, where they are measured."""
        self.tokens_per_s = Histogram()
        self.in_flight = 0
        self.pause_until_us = 0
        self.paused = 0
        """429s in a row."""
        self.used_us = 0


class Health:
    """This worker's. Lives on the event loop; nothing here waits."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.measures_answers = False
        """Whether somebody asks how long whole answers take."""
        self._times: dict[tuple[int, bool], tuple[int, Target, dict[int, int]]] = {}
        """By the target's identity, and whether it is of streams: time, the target, and the measurements."""
        self.epoch = 0
        """Changes with every state that the order of offers depends on."""
        self.own_epoch = 0
        """The same of customers' own keys: nobody else's plans depend on them, or one bad key would have all made anew."""
        self.limited = False
        """Some key takes only so many calls at a time."""
        self.broken = False
        """Some circuit is open, or half-open."""
        self._places: dict[Place, _Record] = {}
        self._keys: dict[tuple[str, str], _Key] = {}
        self._next_change_us = 0
        self._turns: dict[str, int] = {}
        """By provider: the turn of the key that was used last. One that was out for long, or is new, begins there."""
        self._views: dict[int, tuple[int, int, Target, OfferHealth]] = {}
        """By the target's identity: epoch, time, the target itself, so that its identity stays its own, and the view."""

    # --- attempts ---------------------------------------------------------------------------------------------------------

    def choose(self, target: Target, now_us: int, tried: Iterable[str] = ()) -> Choice:
        """The key for an attempt at a target: free, not tried by this call yet if possible, and with the least to do; if
        none is free, the one that will be first."""
        provider, model = target.provider.name, target.model.slug
        refs = target.key_refs or ("",)
        weights = target.key_weights
        best: tuple[int, int, int, int] | None = None
        found = 0
        for index, ref in enumerate(refs):
            free_us = self._free_us(Place(provider, ref, model), now_us)
            load = self._keys.get((provider, ref))
            busy = 0 if load is None else load.load.in_flight
            if weights:
                busy = busy * SHARE // weights[index]
            rank = (max(free_us - now_us, 0), 1 if ref in tried else 0, busy, 0 if load is None else load.turn)
            if best is None or rank < best:
                best, found = rank, index
        assert best is not None, "a target has at least the key that is none"
        return Choice(found, Place(provider, refs[found], model), best[0] == 0)

    def _free_us(self, place: Place, now_us: int) -> int:
        """When a call may go to a place; not after now when it may at once."""
        back_us = self._back_us(place, now_us)
        key = self._keys.get((place.provider, place.key))
        return max(back_us, now_us + 1) if key is not None and key.load.full else back_us

    def _back_us(self, place: Place, now_us: int) -> int:
        """The same, however many calls are in flight there."""
        free_us = 0
        key = self._keys.get((place.provider, place.key))
        if key is not None:
            free_us = key.bench_until_us
        record = self._places.get(place)
        if record is not None:
            free_us = max(free_us, record.pause_until_us)
            circuit = record.circuit
            if not circuit.passes(now_us):
                free_us = max(free_us, circuit.open_until_us, now_us + 1)
        return free_us

    def claim(self, target: Target, now_us: int) -> None:
        """A call is planned that begins with this offer. Where it would be the probe, those planned until it has left go
        elsewhere: many are planned in a turn before the first of them leaves. Asked for while something is `broken`."""
        records = [(place, self._places.get(place)) for place in target.places]
        if any(record is None or record.circuit.closed for place, record in records if self._free_us(place, now_us) <= now_us):
            return
        for place, record in records:
            if record is not None and record.circuit.claim(now_us):
                self._changed(place, record.circuit.open_until_us)

    def started(self, place: Place, now_us: int, weight: int = 1) -> None:
        """An attempt leaves. `weight`: its key's."""
        record = self._places.get(place)
        if record is None:
            record = self._remember(place)
        record.used_us = now_us
        record.in_flight += 1
        key = record.key
        key.load.started()
        provider = place.provider
        turn = self._turns.get(provider, 0)
        turn = max(turn, key.turn)
        self._turns[provider] = turn
        key.turn = turn + SHARE // weight
        circuit = record.circuit
        if circuit.open_until_us and circuit.started(now_us):
            self._changed(place, 0)

    def answers(self, place: Place, started_us: int, now_us: int) -> None:
        """The first content of a stream has come. Asked for while something is `broken`."""
        record = self._places.get(place)
        if record is not None and record.circuit.answers(started_us, now_us):
            self._mended(place)

    def finished(
        self,
        place: Place,
        outcome: Outcome,
        started_us: int,
        now_us: int,
        *,
        first_token_us: int | None = None,
        answer_us: int | None = None,
        tokens: int = 0,
        retry_after_us: int | None = None,
        reason: str = "",
    ) -> None:
        """An attempt is over. `first_token_us` is from its start to the first content, `answer_us` to the whole of what is not
        streamed, `tokens` what it generated. Of one that was outrun both may be the time after which nothing had come."""
        record = self._places.get(place)
        if record is None:
            record = self._remember(place)
        else:
            record.in_flight -= 1
        key = record.key
        if outcome == "rate_limited":
            key.load.refused(now_us)
            self.limited = True
        key.load.ended()
        match outcome:
            case "ok":
                self._succeeded(place, record, started_us, now_us, first_token_us, tokens)
            case "failed":
                record.counts.add(now_us, succeeded=False)
                if record.circuit.failed(started_us, now_us, self.rules):
                    self.broken = True
                    self._changed(place, record.circuit.open_until_us)
            case "rate_limited":
                record.counts.add(now_us, succeeded=False)
                record.circuit.forget_probe(started_us)
                self._pause(place, record, now_us, retry_after_us)
            case "key_refused":
                record.circuit.forget_probe(started_us)
                self._bench(place, key, now_us, reason)
            case "outrun":
                record.circuit.forget_probe(started_us)
                if first_token_us is not None:
                    record.first_token.add(now_us, first_token_us / 1000)
            case "caller" | "unknown":
                record.circuit.forget_probe(started_us)
            case _:
                assert_never(outcome)
        if answer_us is not None and outcome in ("ok", "outrun"):
            if record.answer is None:
                record.answer = Histogram()
            record.answer.add(now_us, answer_us / 1000)

    def probed(self, places: Sequence[Place], outcome: ProbeOutcome, now_us: int) -> None:
        """A probe of a key is over; `places` is all that is behind it.

        Failures count like those of calls, and keep out what is out: no call need try it. An end of failures makes what is out
        due at once: the next call tries it. A probe that has seen nothing of a failure, since only calls fail, does not shorten
        the time out for it.
        """
        records = [self._places.get(place) or self._remember(place) for place in places]
        key = records[0].key
        for record in records:
            if outcome == "down":
                circuit = record.circuit
                out = not circuit.closed and not circuit.probe_us
                if circuit.stays_out(now_us, self.rules) if out else circuit.failed(now_us, now_us, self.rules):
                    self.broken = True
                    self._changed(places[0], circuit.open_until_us)
            elif outcome == "up" and key.down and record.circuit.due(now_us):
                self._changed(places[0], 0)
        if outcome == "key_refused" and now_us >= key.bench_until_us:
            self._bench(places[0], key, now_us, "credentials")
        if outcome in ("up", "down"):
            key.down = outcome == "down"

    def _succeeded(
        self, place: Place, record: _Record, started_us: int, now_us: int, first_token_us: int | None, tokens: int
    ) -> None:
        key = record.key
        record.counts.add(now_us, succeeded=True)
        if key.load.limit is not None and key.load.answered(now_us):
            self.limited = any(one.load.limit is not None for one in self._keys.values())
        if first_token_us is not None:
            record.first_token.add(now_us, first_token_us / 1000)
            writing_us = now_us - started_us - first_token_us
            if tokens > 1 and writing_us > 0:
                record.tokens_per_s.add(now_us, tokens * 1_000_000 / writing_us)
        changed = False
        if record.circuit.succeeded(started_us, now_us, self.rules):
            self._mended(place)
        if record.paused:
            record.paused = record.pause_until_us = 0
            changed = True
        if key.benched:
            key.benched = key.bench_until_us = 0
            key.reason = ""
            changed = True
        if changed:
            self._changed(place, 0)

    def _mended(self, place: Place) -> None:
        self.broken = any(not one.circuit.closed for one in self._places.values())
        self._changed(place, 0)

    def _pause(self, place: Place, record: _Record, now_us: int, retry_after_us: int | None) -> None:
        record.paused += 1
        wait_us = min(PAUSE_US << min(record.paused - 1, 10), PAUSE_MAX_US) if retry_after_us is None else retry_after_us
        record.pause_until_us = max(record.pause_until_us, now_us + wait_us)
        self._changed(place, record.pause_until_us)

    def _bench(self, place: Place, key: _Key, now_us: int, reason: str) -> None:
        key.benched += 1
        key.reason = reason
        key.bench_until_us = now_us + min(BENCH_US << min(key.benched - 1, 10), BENCH_MAX_US)
        self._changed(place, key.bench_until_us)

    def _changed(self, place: Place, until_us: int) -> None:
        if place.key.startswith(KEY_PREFIX):
            self.own_epoch += 1
        else:
            self.epoch += 1
        if until_us and (not self._next_change_us or until_us < self._next_change_us):
            self._next_change_us = until_us

    def tick(self, now_us: int) -> None:
        """A few times a second: states that end by themselves count as changes when their time is over."""
        if not self._next_change_us or now_us < self._next_change_us:
            return
        self.epoch += 1
        self.own_epoch += 1
        times = [key.bench_until_us for key in self._keys.values()]
        for record in self._places.values():
            times += (record.pause_until_us, record.circuit.open_until_us)
        self._next_change_us = min((time for time in times if time > now_us), default=0)

    def _key(self, place: Place) -> _Key:
        key = self._keys.get((place.provider, place.key))
        if key is None:
            key = self._keys[place.provider, place.key] = _Key()
        return key

    def _remember(self, place: Place) -> _Record:
        if len(self._places) >= PLACES_MAX:
            self._forget_idle()
        record = self._places[place] = _Record(self._key(place))
        return record

    def _forget_idle(self) -> None:
        """Make room for many, since it takes a look at all; a customer's key goes with the last place it is used at."""
        idle = [(record.used_us, known) for known, record in self._places.items() if not record.in_flight]
        for _, known in nsmallest(FORGOTTEN_AT_ONCE, idle):
            del self._places[known]
        used = {(place.provider, place.key) for place in self._places}
        for key in [key for key in self._keys if key[1].startswith(KEY_PREFIX) and key not in used]:
            del self._keys[key]

    def forget_key(self, provider: str, ref: str) -> None:
        """A customer's key has another secret: what is known of the one before is not about it."""
        key = self._keys.get((provider, ref))
        if key is None:
            return
        key.benched = key.bench_until_us = 0
        key.reason = ""
        for place, record in self._places.items():
            if place.key == ref:
                record.paused = record.pause_until_us = 0
        self.own_epoch += 1

    # --- views ------------------------------------------------------------------------------------------------------------

    def view(self, target: Target, now_us: int) -> OfferHealth:
        """How an offer has done, over all its keys: `ejected` while none may be used, `probing` while one call finds out."""
        cached = self._views.get(id(target))
        epoch = self.epoch + self.own_epoch
        if cached is not None and cached[0] == epoch and now_us - cached[1] < VIEW_US:
            return cached[3]
        if len(self._views) >= PLACES_MAX:
            self._views.clear()
        found = self._view(target, now_us)
        self._views[id(target)] = (epoch, now_us, target, found)
        return found

    def _view(self, target: Target, now_us: int) -> OfferHealth:
        places = target.places
        records = [record for record in map(self._places.get, places) if record is not None]
        keys = [key for key in (self._keys.get((place.provider, place.key)) for place in places) if key is not None]
        good = bad = 0
        for record in records:
            succeeded, failed = record.counts.since(now_us - HALF_HOUR_US)
            good += succeeded
            bad += failed
        state: State = "healthy"
        if all(self._back_us(place, now_us) > now_us for place in places):
            state = "probing" if any(record.circuit.probe_us for record in records) else "ejected"
        limits = [key.load.limit for key in keys if key.load.limit is not None]
        return OfferHealth(
            state=state,
            success=good / (good + bad) if good + bad else None,
            first_token_ms=percentiles(merged(record.first_token.bins(now_us) for record in records)),
            tokens_per_s=percentiles(merged(record.tokens_per_s.bins(now_us) for record in records)),
            samples=good + bad,
            in_flight=sum(record.in_flight for record in records),
            limit=sum(limits) if limits and len(limits) == len(places) else None,
        )

    def full(self, target: Target) -> bool:
        """Whether each of an offer's keys has as many calls in flight as it takes. It changes with every call, so it is asked of
        by each that is planned while some key is `limited`, and is no state of the offer's."""
        keys = [self._keys.get((place.provider, place.key)) for place in target.places]
        return all(key is not None and key.load.full for key in keys)

    def times(self, target: Target, now_us: int, *, streamed: bool) -> dict[int, int]:
        """The last half hour's milliseconds of an offer, over all its keys: to the first content of streams, else to the whole
        answer."""
        key = (id(target), streamed)
        cached = self._times.get(key)
        if cached is not None and now_us - cached[0] < VIEW_US:
            return cached[2]
        if len(self._times) >= PLACES_MAX:
            self._times.clear()
        records = [record for record in map(self._places.get, target.places) if record is not None]
        histograms = [record.first_token if streamed else record.answer for record in records]
        found = merged(one.bins(now_us) for one in histograms if one is not None)
        if found:
            self._times[key] = (now_us, target, found)
        return found

    def usable(self, target: Target, now_us: int) -> bool:
        """Whether an offer is well, with a key that is free."""
        return self.view(target, now_us).state == "healthy" and self.choose(target, now_us).free

    def report(self, now_us: int) -> "Report":
        """What other processes may show: of the places, those used last. How customers' own keys do is nobody else's business."""
        house = (item for item in self._places.items() if not item[0].key.startswith(KEY_PREFIX))
        keys = ((where, key) for where, key in self._keys.items() if not where[1].startswith(KEY_PREFIX))
        shown = nlargest(REPORTED_MAX, house, key=lambda item: item[1].used_us)
        return Report(
            [
                PlaceReport(
                    provider=place.provider,
                    key=place.key,
                    model=place.model,
                    circuit="closed" if record.circuit.closed else "probing" if record.circuit.probe_us else "open",
                    open_s=max(record.circuit.open_until_us - now_us, 0) // 1_000_000,
                    paused_s=max(record.pause_until_us - now_us, 0) // 1_000_000,
                    in_flight=record.in_flight,
                    five_minutes=record.counts.since(now_us - HALF_HOUR_US // 6),
                    half_hour=record.counts.since(now_us - HALF_HOUR_US),
                    day=record.counts.since(now_us - 48 * HALF_HOUR_US),
                    first_token_ms=record.first_token.bins(now_us),
                    tokens_per_s=record.tokens_per_s.bins(now_us),
                )
                for place, record in shown
            ],
            [
                KeyReport(
                    provider=provider,
                    key=ref,
                    benched_s=max(key.bench_until_us - now_us, 0) // 1_000_000,
                    reason=key.reason,
                    in_flight=key.load.in_flight,
                    limit=key.load.limit,
                )
                for (provider, ref), key in islice(keys, REPORTED_MAX)
            ],
        )
