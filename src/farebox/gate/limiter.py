"""Rate limits: requests, tokens and calls in flight, of an account, its project and its key, all of them or none. Pure: the time
and the cells are arguments.

A bucket is GCRA (the generic cell rate algorithm, ITU-T I.371) in its second form, the continuous-state leaky bucket: it is full
at the limit, empties evenly within its period, and takes what fits. A period's allowance may come at once, and flows back evenly:
a burst after a quiet minute, and the minute that it opens, pass at most twice the limit; on average it holds exactly. Levels are
integers of `units x period`, so nothing is ever rounded.

Tokens are taken by estimate before a call and trued up by what it used. What it used beyond is added, even above the limit: a
debt that flows off before the next call is let in. What it did not use is given back, less what of it may have flowed off: where
less is in the bucket than calls in flight have reserved, what flows may be what is not used in the end. So nobody is let in who
would not be if every use had been known before.

The cells lie in a `LimitTable`, which several processes can share (`gate.limit_file`).
"""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Final, Protocol

from farebox.gate.limit_table import DAY_LEVEL, FIELDS, MINUTE_LEVEL, REQUEST_LEVEL, LimitTable, mark_of
from farebox.gate.limits import Limits, Refusal, Standing

MINUTE: Final = 60_000_000
"""The period of a minute's buckets, in microseconds."""
DAY: Final = 86_400_000
"""The period of a day's buckets, in milliseconds: so a level fits into 64 bits."""
LEVEL_MAX: Final = 2**62
"""What calls owe above a limit is remembered up to here: several days of the largest limit, ages of a usual one."""
CALL_WAIT_US: Final = 1_000_000
"""When a call in flight ends is not known: this is what its successor is told."""
_Bucket = tuple[str, int, int, int, int, int]
"""Its limit's name; where its level is, in the slot; the limit; the level at which it is full; the period; µs per tick of it."""


def _buckets(limits: Limits) -> tuple[_Bucket, ...]:
    """The limits that somebody has, requests first."""
    found = (
        ("requests_per_minute", REQUEST_LEVEL, limits.requests_per_minute, MINUTE, 1),
        ("tokens_per_minute", MINUTE_LEVEL, limits.tokens_per_minute, MINUTE, 1),
        ("tokens_per_day", DAY_LEVEL, limits.tokens_per_day, DAY, 1_000),
    )
    return tuple((name, at, limit, limit * period, period, tick) for name, at, limit, period, tick in found if limit)


class Holder:
    """Somebody with limits: an account, a project, a key; and where its cells are."""

    __slots__ = ("about", "base", "buckets", "calls", "classes", "id", "limits", "mark", "most", "pressed", "requests", "whose")

    def __init__(
        self, id: str, whose: str, limits: Limits, classes: Sequence[tuple[str, "Holder"]] = (), about: str = ""
    ) -> None:
        """`whose` in words: `the account `acme``; `classes` are further limits for models that match a pattern (`with_classes`);
        `about` is what a refusal says behind the limit's name."""
        self.id = id
        self.whose = whose
        self.limits = limits
        self.classes = tuple(classes)
        self.about = about
        self.mark = mark_of(id)
        self.base = -1
        self.pressed = False
        """The last call was refused for one of these limits."""
        self.requests = limits.requests_per_minute or 0
        self.calls = limits.concurrent_calls or 0
        self.buckets = _buckets(limits)
        self.most = max(limits.tokens_per_minute or 0, limits.tokens_per_day or 0)
        """So many tokens at once at most; a call that asks for more is taken for all of a limit, and trued up as any other."""

    def refusal(self, limit: str, maximum: int, retry_after_us: int) -> Refusal:
        return Refusal(limit + self.about, self.whose, maximum, retry_after_us)


def with_classes(id: str, whose: str, limits: Limits, classes: Sequence[tuple[str, Limits]]) -> Holder:
    """A holder who has further limits for models that match a pattern."""
    of_classes = [(pattern, Holder(f"{id}|{pattern}", whose, own, about=f" for {pattern}")) for pattern, own in classes]
    return Holder(id, whose, limits, of_classes)


def concerned(holders: Sequence[Holder], models: Collection[str]) -> Sequence[Holder]:
    """The holders, and their classes of which one of the models is."""
    found = list(holders)
    for holder in holders:
        for pattern, of_class in holder.classes:
            if any(fnmatchcase(model, pattern) for model in models):
                found.append(of_class)
    return found


class Admission:
    """A call that was let in; it must be released, whatever becomes of it."""

    __slots__ = ("holders", "limiter", "open", "standing", "tokens")

    def __init__(self, limiter: "Limiter", holders: Sequence[Holder], tokens: int, standing: Standing, open: bool = True) -> None:
        self.limiter = limiter
        self.holders = holders
        self.tokens = tokens
        """How many were reserved."""
        self.standing = standing
        self.open = open

    def release(self, tokens: int | None, now_us: int) -> None:
        """The call is over; exactly once. `tokens` is what it used, None when nobody knows: then the estimate stands."""
        assert self.open, "a call leaves once"
        self.open = False
        self.limiter.leave(self, self.tokens if tokens is None else tokens, now_us)


class Lock(Protocol):
    """Keeps other processes away from the cells; held for microseconds."""

    def acquire(self) -> None: ...

    def release(self) -> None: ...


class NoLock:
    """For cells that nobody else has."""

    def acquire(self) -> None:
        return

    def release(self) -> None:
        return


class Limiter:
    """Decides for every holder; one per process."""

    def __init__(self, table: LimitTable | None = None, lock: Lock | None = None) -> None:
        """Without a table: one of its own."""
        self._table = table if table is not None else LimitTable.private()
        lock = NoLock() if lock is None else lock
        self._acquire = lock.acquire
        self._release = lock.release

    def admit(self, holders: Sequence[Holder], tokens: int, now_us: int) -> Admission | Refusal:
        """Take a request, the tokens and a place among the calls in flight from every holder, or nothing from any. Of several
        limits that say no, the one is named that does for longest."""
        table = self._table
        cells = table.cells
        worst: Refusal | None = None
        fresh: list[tuple[int, int, int, int]] = []
        request_limit = requests_left = requests_level = 0
        token_limit = tokens_left = tokens_reset_us = 0
        pressed = False
        self._acquire()
        try:
            for holder in holders:
                base = holder.base
                if base < 0 or cells[base] != holder.mark:
                    base = holder.base = table.find(holder.mark, now_us)
                if holder.pressed:
                    pressed = True
                place = base // FIELDS
                calls, unsure = table.in_hand(place) if holder.most or holder.calls else (0, 0)
                for name, at, limit, full, period, tick in holder.buckets:
                    at += base
                    level = cells[at]
                    last = cells[at + 1]
                    lost = -1
                    now = now_us // tick
                    if now > last:
                        left = level - (now - last) * limit
                        if unsure:
                            lost = cells[at + 2]
                            if lost or left < unsure * period:
                                lost = _lost(lost, level, left, unsure * period)
                        level = left if left > 0 else 0
                        last = now
                    if name == "requests_per_minute":
                        level += period
                        above = level - full
                        room = -above // period
                        if not request_limit or room < requests_left:
                            request_limit, requests_left, requests_level = limit, room, level
                    else:
                        level += (tokens if tokens < limit else limit) * period
                        above = level - full
                        room = -above // period
                        if not token_limit or room < tokens_left:
                            token_limit, tokens_left, tokens_reset_us = limit, room, level // limit * tick
                    if above > 0:
                        holder.pressed = True
                        worst = _longer(worst, holder.refusal(name, limit, -(-above // limit) * tick))
                    fresh.append((at, level, last, lost))
                limit = holder.calls
                if limit and calls >= limit:
                    holder.pressed = True
                    worst = _longer(worst, holder.refusal("concurrent_calls", limit, CALL_WAIT_US))
            if worst is not None:
                return worst
            if pressed:
                for holder in holders:
                    holder.pressed = False
            for at, level, last, lost in fresh:
                cells[at] = level
                cells[at + 1] = last
                if lost >= 0:
                    cells[at + 2] = lost
            own, reserved = table.own, table.reserved
            for holder in holders:
                place = holder.base // FIELDS
                cells[own + place] += 1
                most = holder.most
                if most:
                    cells[reserved + place] += tokens if tokens < most else most
        finally:
            self._release()
        reset_us = requests_level // request_limit if request_limit else 0
        standing = Standing(request_limit, requests_left, reset_us, token_limit, tokens_left, tokens_reset_us)
        return Admission(self, holders, tokens, standing)

    def refusal(self, holders: Sequence[Holder], now_us: int) -> Refusal | None:
        """Whether a call would be refused whatever it asks for; takes nothing. So who is over a limit is not even read."""
        return self._full(holders, now_us) and self._surely_full(holders, now_us)

    def _full(self, holders: Sequence[Holder], now_us: int) -> Refusal | None:
        cells = self._table.cells
        for holder in holders:
            base = holder.base
            if base < 0 or cells[base] != holder.mark:
                continue
            limit = holder.requests
            if limit:
                above = drained(cells, base + REQUEST_LEVEL, limit, now_us) + MINUTE - limit * MINUTE
                if above > 0:
                    return holder.refusal("requests_per_minute", limit, -(-above // limit))
            if holder.calls and self._table.in_hand(base // FIELDS)[0] >= holder.calls:
                return holder.refusal("concurrent_calls", holder.calls, CALL_WAIT_US)
        return None

    def _surely_full(self, holders: Sequence[Holder], now_us: int) -> Refusal | None:
        """Looked at without the lock, a level may be another worker's and its moment not yet: nobody is refused for that."""
        self._acquire()
        try:
            return self._full(holders, now_us)
        finally:
            self._release()

    def leave(self, admission: Admission, tokens: int, now_us: int) -> None:
        """Free a call's place, and true up its tokens: it used so many."""
        table = self._table
        cells = table.cells
        self._acquire()
        try:
            for holder in admission.holders:
                base = holder.base
                place = base // FIELDS
                # The slot of a call in flight is nobody else's.
                assert cells[base] == holder.mark, "a slot is kept while it has calls in flight"
                cells[table.own + place] -= 1
                if not holder.most:
                    continue
                _, unsure = table.in_hand(place)
                estimate = admission.tokens
                reserved = estimate if estimate < holder.most else holder.most
                for _, at, limit, _, period, tick in holder.buckets:
                    if at != REQUEST_LEVEL:
                        more = tokens - (estimate if estimate < limit else limit)
                        _true_up(cells, base + at, limit, now_us // tick, more * period, unsure * period, reserved * period)
                cells[table.reserved + place] -= reserved
        finally:
            self._release()

    def standing(self, holders: Sequence[Holder], now_us: int) -> Standing:
        """How the scarcest limits stand, for who takes nothing."""
        table = self._table
        cells = table.cells
        requests = tokens = (0, 0, 0)
        self._acquire()
        try:
            for holder in holders:
                base = holder.base
                if base < 0 or cells[base] != holder.mark:
                    base = holder.base = table.find(holder.mark, now_us)
                for name, at, limit, full, period, tick in holder.buckets:
                    level = drained(cells, base + at, limit, now_us // tick)
                    found = (limit, max(full - level, 0) // period, level // limit * tick)
                    if name == "requests_per_minute":
                        requests = _scarcer(requests, found)
                    else:
                        tokens = _scarcer(tokens, found)
        finally:
            self._release()
        return Standing(*requests, *tokens)

    def in_flight(self) -> dict[int, int]:
        """Calls of this worker that were let in and not released, by their holders' marks."""
        return self._table.own_calls()


def _scarcer(first: tuple[int, int, int], second: tuple[int, int, int]) -> tuple[int, int, int]:
    return second if not first[0] or second[1] < first[1] else first


def _longer(first: Refusal | None, second: Refusal) -> Refusal:
    return second if first is None or second.retry_after_us > first.retry_after_us else first


def drained(cells: memoryview, at: int, limit: int, now: int) -> int:
    """The level as it is at a moment."""
    level: int = cells[at]
    elapsed = now - cells[at + 1]
    return max(level - elapsed * limit, 0) if elapsed > 0 else level


def _lost(lost: int, before: int, after: int, unsure: int) -> int:
    """How much of what calls in flight reserved may have flowed off for nothing: what flowed while no more was there than they
    have reserved. What they did not use is then gone, and cannot come back."""
    if after < unsure:
        lost += (before if before < unsure else unsure) - (after if after > 0 else 0)
    return lost if lost < unsure else unsure


def _true_up(cells: memoryview, at: int, limit: int, now: int, more: int, unsure: int, reserved: int) -> None:
    """Add what a call used beyond its estimate, or give back what it did not use and is not lost."""
    level: int = cells[at]
    lost: int = cells[at + 2]
    elapsed = now - cells[at + 1]
    if elapsed > 0:
        left = level - elapsed * limit
        if lost or left < unsure:
            lost = _lost(lost, level, left, unsure)
        level = left if left > 0 else 0
        cells[at + 1] = now
    if more > 0:
        level += more
        level = min(level, LEVEL_MAX)
    elif more:
        gone = lost if lost < -more else -more
        lost -= gone
        level += more + gone
        level = max(level, 0)
    cells[at] = level
    most = unsure - reserved
    cells[at + 2] = lost if lost < most else most
