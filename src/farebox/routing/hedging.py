"""Hedging: when a second provider is asked because the first one is slower than it usually is. Pure.

"The Tail at Scale" (Dean and Barroso, 2013, https://research.google/pubs/the-tail-at-scale/): a second request after the 95th
percentile of the expected time cuts the slowest answers off for a few percent more of requests. What makes that safe stands
here: no percentile without enough measurements, nobody but a healthy offer of the same model, nothing that a provider would do
twice, and a bound on what may be spent for answers that nobody got.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import msgspec

from farebox.billing.budgets import window_end_us
from farebox.routing.own_keys import is_own
from farebox.routing.rolling import value_of
from farebox.routing.target import Target
from farebox.wires.call import Call

PERCENT = 95
SAMPLES_MAX = 1_000_000
DELAY_MS_MAX = 600_000
_STATE = ("mcp_servers", "previous_response_id", "conversation", "container", "background")
"""Fields by which a provider acts beside answering, or remembers."""
_CLIENTS = (b'"function"', b'"custom"')
"""Types of tools that the caller runs itself; an answer that only names them does nothing."""


class HedgeError(Exception):
    """Settings that cannot be; `setting` is the one."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"`{setting}`: {problem}")
        self.setting = setting
        self.problem = problem


class Section(Protocol):
    """What `[policies.NAME.hedge]` says."""

    @property
    def samples_min(self) -> int: ...
    @property
    def delay_min_ms(self) -> int: ...
    @property
    def charge(self) -> Literal["winner", "both"]: ...


class Hedge(msgspec.Struct, frozen=True):
    """A policy's rules."""

    samples_min: int
    delay_min_us: int
    charges_both: bool


def compiled(section: Section) -> Hedge:
    """Checked rules. Raises `HedgeError`."""
    if not 1 <= section.samples_min <= SAMPLES_MAX:
        raise HedgeError("samples_min", f"{section.samples_min} is not from 1 to {SAMPLES_MAX}")
    if not 0 <= section.delay_min_ms <= DELAY_MS_MAX:
        raise HedgeError("delay_min_ms", f"{section.delay_min_ms} is not from 0 to {DELAY_MS_MAX}")
    return Hedge(section.samples_min, section.delay_min_ms * 1_000, section.charge == "both")


def stateful(call: Call) -> bool:
    """Whether asking twice may do something twice: a tool that the provider runs, something that it stores."""
    if call.plain:
        return False
    if call.hosted:
        return True
    fields = call.fields
    if any(name in fields and bytes(fields[name]) not in (b"null", b"false", b"[]") for name in _STATE):
        return True
    if bytes(fields.get("store", b"null")) not in (b"null", b"false"):
        return True
    raw = fields.get("tools")
    if raw is None:
        return False
    try:
        tools = _decode_tools(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return any(bytes(tool.type) not in _CLIENTS for tool in tools or () if tool.type)


class _Tool(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw(b"")


_decode_tools = msgspec.json.Decoder(list[_Tool] | None).decode


def tail_us(bins: Mapping[int, int], samples_min: int) -> int | None:
    """The 95th percentile of a histogram of milliseconds, in microseconds; None without enough measurements."""
    total = sum(bins.values())
    if total < max(samples_min, 1):
        return None
    seen, wanted = 0, total * PERCENT // 100
    for number in sorted(bins):
        seen += bins[number]
        if seen > wanted:
            return int(value_of(number) * 1_000)
    return int(value_of(max(bins)) * 1_000)


def delay_us(rules: Hedge, bins: Mapping[int, int]) -> int | None:
    """How long the first provider is waited for alone; None: it is not known what is usual."""
    tail = tail_us(bins, rules.samples_min)
    return None if tail is None else max(tail, rules.delay_min_us)


def partner(targets: tuple[Target, ...], usable: Callable[[Target], bool]) -> int | None:
    """Who is asked beside the first of a plan: the next offer of the same model that is well, at another provider if there is
    one. An index, or None."""
    first = targets[0]
    found: int | None = None
    for index, target in enumerate(targets[1:], 1):
        if target.model is not first.model or target is first or not usable(target):
            continue
        if target.provider.name != first.provider.name:
            return index
        if found is None:
            found = index
    return found


class Outlook(msgspec.Struct, frozen=True):
    """Whether a call would be hedged, seen from its beginning."""

    delay_us: int = 0
    partner: int | None = None
    """A place in the plan."""
    why_not: str = ""
    """`escalates`, `own_key`, `stateful`, `one_attempt`, `not_measured` or `no_second_offer`; empty: it would be."""


def outlook(
    rules: Hedge,
    call: Call,
    targets: tuple[Target, ...],
    *,
    escalates: bool,
    attempts_max: int,
    times: Callable[[Target], Mapping[int, int]],
    usable: Callable[[Target], bool],
) -> Outlook:
    """When a second provider is asked, and which, or why none is. `times` are an offer's measurements in milliseconds."""
    if escalates:
        return Outlook(why_not="escalates")
    if is_own(targets[0]):
        # The provider would bill the customer for both, or the house's dearer answer would win.
        return Outlook(why_not="own_key")
    if attempts_max < 2:
        return Outlook(why_not="one_attempt")
    if stateful(call):
        return Outlook(why_not="stateful")
    other = partner(targets, usable)
    if other is None:
        return Outlook(why_not="no_second_offer")
    after_us = delay_us(rules, times(targets[0]))
    if after_us is None:
        return Outlook(why_not="not_measured")
    return Outlook(after_us, other)


class Waste:
    """What answers that nobody got have cost this worker today, against its share of the day's cap.

    The worst case of a hedge is set aside before it is sent, so no number of them at once comes above the cap.
    """

    __slots__ = ("_zone", "cap_nano", "changed", "reserved_nano", "spent_nano", "until_us")

    def __init__(self, cap_nano: int, zone: str = "UTC") -> None:
        self.cap_nano = cap_nano
        self._zone = zone
        self.until_us = 0
        """When the day that is counted ends."""
        self.spent_nano = 0
        self.reserved_nano = 0
        self.changed = False
        """Since it was last written down."""

    def reserve(self, worst_nano: int, now_us: int) -> bool:
        """Set the worst case of a hedge aside; False: the day's cap leaves no room for it."""
        self._look(now_us)
        if self.spent_nano + self.reserved_nano + worst_nano > self.cap_nano:
            return False
        self.reserved_nano += worst_nano
        return True

    def end(self, worst_nano: int, wasted_nano: int, now_us: int) -> None:
        """A hedge is over, and so much of it was wasted. It counts on the day on which that is known."""
        assert 0 <= worst_nano <= self.reserved_nano, "it was set aside before"
        self._look(now_us)
        self.reserved_nano -= worst_nano
        self.spent_nano += wasted_nano
        self.changed = True

    def restore(self, until_us: int, spent_nano: int) -> None:
        """What an earlier life of this worker has wasted on a day."""
        self.until_us, self.spent_nano = until_us, spent_nano

    def _look(self, now_us: int) -> None:
        if now_us < self.until_us:
            return
        end_us = window_end_us("day", now_us, self._zone)
        assert end_us is not None, "days end"
        self.until_us, self.spent_nano = end_us, 0
        self.changed = True
