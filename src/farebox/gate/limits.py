"""Rate limits: requests, tokens and calls in flight, of an account, its project and its key, all of them or none. Pure: the time
is an argument.

GCRA (the generic cell rate algorithm, ITU-T I.371) keeps one number per limit, the theoretical arrival time. A period's allowance
may come at once, and flows back evenly: a burst after a quiet minute, and the minute that it opens, pass at most twice the limit;
on average it holds exactly. Times are scaled by the limit, so that everything is whole numbers and nothing is rounded.

Tokens are taken by estimate before a call and trued up by what it used: a call that used more leaves a debt.
"""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import msgspec

BUCKETS_MAX = 100_000
"""Remembered holders; beyond it those that are idle are forgotten, which loses nothing."""
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What somebody may do; None is no limit."""

    requests_per_minute: int | None = None
    concurrent_calls: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None

    @property
    def counts_tokens(self) -> bool:
        return self.tokens_per_minute is not None or self.tokens_per_day is not None


class Holder(msgspec.Struct, frozen=True):
    """Somebody with limits: an account, a project, a key."""

    id: str
    whose: str
    """In words: `the account `acme``."""
    limits: Limits
    classes: tuple[tuple[str, Limits], ...] = ()
    """Further limits for models that match a pattern."""
    told: bool = True
    """Whether answers say in their headers what is left."""


class Refusal(msgspec.Struct, frozen=True):
    """Which limit said no, whose it is, and when it frees."""

    limit: str
    whose: str
    maximum: int
    retry_after_us: int
    """0: never, the call alone is too much."""


class Left(msgspec.Struct, frozen=True):
    """How much is left of one limit: the limit itself, what may come now, and when all of it is back."""

    maximum: int
    remaining: int
    reset_us: int


class Meter:
    """One limit's state."""

    __slots__ = ("_arrival", "maximum", "period_us")

    def __init__(self, maximum: int, period_us: int) -> None:
        self.maximum = maximum
        self.period_us = period_us
        self._arrival = 0
        """The theoretical arrival time, times the limit."""

    def resize(self, maximum: int) -> None:
        """Another limit from now on; what was taken stays taken."""
        self._arrival = self._arrival * maximum // self.maximum
        self.maximum = maximum

    def wait_us(self, count: int, now_us: int) -> int:
        """0 when so many may come now; else how long until they may."""
        now = now_us * self.maximum
        above = max(self._arrival, now) + (count - self.maximum) * self.period_us - now
        return 0 if above <= 0 else -(-above // self.maximum)

    def take(self, count: int, now_us: int) -> None:
        now = now_us * self.maximum
        self._arrival = max(self._arrival, now) + count * self.period_us

    def correct(self, count: int) -> None:
        """So many more were taken than was said, or fewer."""
        self._arrival += count * self.period_us

    def left(self, now_us: int) -> Left:
        now = now_us * self.maximum
        ahead = max(self._arrival - now, 0)
        remaining = (self.maximum * self.period_us - ahead) // self.period_us
        return Left(self.maximum, max(remaining, 0), -(-ahead // self.maximum))

    def idle(self, now_us: int) -> bool:
        return self._arrival <= now_us * self.maximum


class _State:
    """One holder's meters."""

    __slots__ = ("day", "in_flight", "limits", "minute", "requests")

    def __init__(self, limits: Limits) -> None:
        self.in_flight = 0
        self.limits = limits
        self.requests = _meter(None, limits.requests_per_minute, MINUTE_US)
        self.minute = _meter(None, limits.tokens_per_minute, MINUTE_US)
        self.day = _meter(None, limits.tokens_per_day, DAY_US)

    def follow(self, limits: Limits) -> None:
        """The holder's limits have changed."""
        self.limits = limits
        self.requests = _meter(self.requests, limits.requests_per_minute, MINUTE_US)
        self.minute = _meter(self.minute, limits.tokens_per_minute, MINUTE_US)
        self.day = _meter(self.day, limits.tokens_per_day, DAY_US)

    def idle(self, now_us: int) -> bool:
        meters = (self.requests, self.minute, self.day)
        return not self.in_flight and all(meter is None or meter.idle(now_us) for meter in meters)


def _meter(old: Meter | None, maximum: int | None, period_us: int) -> Meter | None:
    if maximum is None:
        return None
    if old is None:
        return Meter(maximum, period_us)
    if old.maximum != maximum:
        old.resize(maximum)
    return old


class Admission:
    """A call that was let in; it must be released, whatever becomes of it."""

    __slots__ = ("_limiter", "_states", "_tokens", "counts_tokens", "holders")

    def __init__(self, limiter: "Limiter", holders: Sequence[Holder], states: list[_State]) -> None:
        self._limiter = limiter
        self.holders = holders
        self._states = states
        self._tokens: list[Meter] = []
        self.counts_tokens = 0
        """How many were reserved."""

    def take_tokens(self, count: int, models: Collection[str], now_us: int) -> Refusal | None:
        """Reserve tokens, and a request of the model's class, in every limit that counts them, or in none. More than a limit
        allows at all are taken as all that it allows: what the call really uses is known at its end."""
        wanted: list[tuple[Meter, int, str, Holder]] = []
        for holder, state in zip(self.holders, self._states, strict=True):
            for meter, name in ((state.minute, "tokens_per_minute"), (state.day, "tokens_per_day")):
                if meter is not None:
                    wanted.append((meter, min(count, meter.maximum), name, holder))
            for pattern, limits in holder.classes:
                if not any(fnmatchcase(model, pattern) for model in models):
                    continue
                of_class = self._limiter.state(f"{holder.id}|{pattern}", limits, now_us)
                said = f" for {pattern}"
                if of_class.requests is not None:
                    wanted.append((of_class.requests, 1, "requests_per_minute" + said, holder))
                for meter, name in ((of_class.minute, "tokens_per_minute"), (of_class.day, "tokens_per_day")):
                    if meter is not None:
                        wanted.append((meter, min(count, meter.maximum), name + said, holder))
        for meter, tokens, name, holder in wanted:
            wait_us = meter.wait_us(tokens, now_us)
            if wait_us:
                return Refusal(name, holder.whose, meter.maximum, wait_us)
        for meter, tokens, name, _ in wanted:
            meter.take(tokens, now_us)
            if not name.startswith("requests"):
                self._tokens.append(meter)
                self.counts_tokens = max(self.counts_tokens, tokens)
        return None

    def release(self, tokens: int | None = 0) -> None:
        """Give the concurrency slots back, exactly once; `tokens` is what the call used, None when nobody knows."""
        for state in self._states:
            state.in_flight -= 1
        if tokens is not None:
            for meter in self._tokens:
                meter.correct(tokens - min(self.counts_tokens, meter.maximum))

    def left(self, now_us: int) -> tuple[Left | None, Left | None]:
        """The scarcest requests, and the scarcest tokens."""
        requests: Left | None = None
        tokens: Left | None = None
        for holder, state in zip(self.holders, self._states, strict=True):
            if not holder.told:
                continue
            if state.requests is not None:
                requests = _scarcer(requests, state.requests.left(now_us))
            for meter in (state.minute, state.day):
                if meter is not None:
                    tokens = _scarcer(tokens, meter.left(now_us))
        return requests, tokens


def _scarcer(first: Left | None, second: Left) -> Left:
    return second if first is None or second.remaining < first.remaining else first


class Limiter:
    """Decides for every holder."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def admit(self, holders: Sequence[Holder], now_us: int) -> Admission | Refusal:
        """Let a call in, by requests and calls in flight of every holder, or say which limit it has reached."""
        states: list[_State] = []
        for holder in holders:
            state = self.state(holder.id, holder.limits, now_us)
            most = holder.limits.concurrent_calls
            if most is not None and state.in_flight >= most:
                return Refusal("concurrent_calls", holder.whose, most, 1_000_000)
            if state.requests is not None:
                wait_us = state.requests.wait_us(1, now_us)
                if wait_us:
                    return Refusal("requests_per_minute", holder.whose, state.requests.maximum, wait_us)
            states.append(state)
        for state in states:
            state.in_flight += 1
            if state.requests is not None:
                state.requests.take(1, now_us)
        return Admission(self, holders, states)

    def state(self, id: str, limits: Limits, now_us: int) -> _State:
        state = self._states.get(id)
        if state is None:
            if len(self._states) >= BUCKETS_MAX:
                self._states = {id: one for id, one in self._states.items() if not one.idle(now_us)}
            state = self._states[id] = _State(limits)
        elif state.limits is not limits and state.limits != limits:
            state.follow(limits)
        return state

    def in_flight(self) -> dict[str, int]:
        """Calls that were let in and not released, by holder."""
        return {id: state.in_flight for id, state in self._states.items() if state.in_flight}
