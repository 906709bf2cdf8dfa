"""History: how long each offer took, from recorded attempts; it stands in for measured health. Pure."""

from collections.abc import Iterator

import msgspec

from farebox.billing.records import Attempt
from farebox.routing.measured import Unmeasured
from farebox.routing.preferences import Percentiles
from farebox.routing.target import Target

SAMPLES_MAX = 2_048
"""Kept per offer and measure, spread over the whole time: when they are full, every other one goes."""
OFFERS_MAX = 20_000
TOKENS_MIN = 8
"""Fewer tokens say nothing about tokens per second."""


class Samples:
    """A bounded, even selection of a series of any length."""

    __slots__ = ("_every", "_passed", "kept")

    def __init__(self) -> None:
        self.kept: list[float] = []
        self._every = 1
        self._passed = 0

    def add(self, value: float) -> None:
        if self._passed % self._every == 0:
            if len(self.kept) >= SAMPLES_MAX:
                self.kept = self.kept[::2]
                self._every *= 2
            if self._passed % self._every == 0:
                self.kept.append(value)
        self._passed += 1

    def percentiles(self) -> Percentiles | None:
        if not self.kept:
            return None
        ordered = sorted(self.kept)
        return Percentiles(*(_at(ordered, percent) for percent in (50, 75, 90, 99)))


def _at(ordered: list[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    return ordered[max(-(-len(ordered) * percent // 100) - 1, 0)]


class _Offer:
    __slots__ = ("first_ms", "per_s", "whole_ms")

    def __init__(self) -> None:
        self.first_ms = Samples()
        self.per_s = Samples()
        self.whole_ms = Samples()


class Pace(msgspec.Struct, frozen=True):
    """What an offer's history expects of it: medians."""

    first_ms: float | None = None
    per_s: float | None = None
    whole_ms: float | None = None

    def expected_ms(self, tokens: int) -> float | None:
        """How long an answer of so many tokens takes: by its pace, or, where only whole answers are known, as long as those."""
        if self.first_ms is None or not self.per_s:
            return self.whole_ms
        return self.first_ms + tokens * 1_000 / self.per_s


NO_PACE = Pace()
Key = tuple[str, str]
"""(provider, the id that is called there)."""


class History:
    """Attempts being learnt from; then the health that the router asks for. Its epoch never changes: nothing happens any more."""

    epoch = own_epoch = 0
    ejected_max_percent = 100
    limited = False

    def full(self, target: Target) -> bool:
        return False

    def forget_key(self, provider: str, ref: str) -> None: ...

    def __init__(self) -> None:
        self._offers: dict[Key, _Offer] = {}
        self._views: dict[Key, Unmeasured] = {}
        self._paces: dict[Key, Pace] = {}

    def learn(self, attempt: Attempt, *, streamed: bool) -> None:
        """One attempt that ended well."""
        key = (attempt.provider, attempt.upstream_id)
        offer = self._offers.get(key)
        if offer is None:
            if len(self._offers) >= OFFERS_MAX:
                return
            offer = self._offers[key] = _Offer()
        whole_us = attempt.ended_us - attempt.started_us
        if whole_us <= 0 or attempt.usage is None:
            return
        offer.whole_ms.add(whole_us / 1_000)
        first_us = attempt.first_byte_us
        if streamed and first_us is not None and first_us >= attempt.started_us:
            offer.first_ms.add((first_us - attempt.started_us) / 1_000)
            tokens = attempt.usage.completion_tokens
            if tokens >= TOKENS_MIN and attempt.ended_us > first_us:
                offer.per_s.add(tokens * 1_000_000 / (attempt.ended_us - first_us))

    def view(self, target: Target, now_us: int) -> Unmeasured:
        """What routing is told of an offer: it is healthy, and as quick as it was."""
        key = (target.provider.name, target.offer.id)
        found = self._views.get(key)
        if found is None:
            offer = self._known(target)
            found = self._views[key] = (
                Unmeasured()
                if offer is None
                else Unmeasured(first_token_ms=offer.first_ms.percentiles(), tokens_per_s=_slowest(offer.per_s))
            )
        return found

    def pace(self, target: Target) -> Pace:
        key = (target.provider.name, target.offer.id)
        found = self._paces.get(key)
        if found is None:
            offer = self._known(target)
            found = NO_PACE
            if offer is not None:
                found = Pace(*(_median(one) for one in (offer.first_ms, offer.per_s, offer.whole_ms)))
            self._paces[key] = found
        return found

    def _known(self, target: Target) -> _Offer | None:
        """An offer's history, under its id or one of the dated ones."""
        for id in self._ids(target):
            found = self._offers.get((target.provider.name, id))
            if found is not None:
                return found
        return None

    @staticmethod
    def _ids(target: Target) -> Iterator[str]:
        yield target.offer.id
        yield from target.offer.aliases


def _median(samples: Samples) -> float | None:
    found = samples.percentiles()
    return None if found is None else found.p50


def _slowest(samples: Samples) -> Percentiles | None:
    """Of a throughput, `p90` is what nine tenths reach: the percentiles count from the other end."""
    found = samples.percentiles()
    if found is None:
        return None
    ordered = sorted(samples.kept, reverse=True)
    return Percentiles(*(_at(ordered, percent) for percent in (50, 75, 90, 99)))
