"""Changes of prices: what differs between two versions, and what about it asks for a second look. Pure.

An import is a proposal, since lists err: a price that more than doubles or halves, becomes zero, moves by a factor of a thousand
(another unit), or loses a class or tier that it had, is taken over only when somebody confirms it.
"""

from collections.abc import Callable, Iterator

import msgspec

from farebox.catalog.price import Price, Rates, Schedule
from farebox.money import format_rate, format_unit_rate

UNIT_JUMP = 1_000
FEES = ("web_searches", "request")
_PARENTS = {
    "cache_read": "input", "cache_write_5m": "input", "cache_write_1h": "cache_write_5m", "audio_input": "input",
    "image_input": "input", "reasoning": "output", "audio_output": "output", "image_output": "output",
}  # fmt: skip
"""What a class without a price of its own bills as (`farebox.catalog.rates`)."""


class Change(msgspec.Struct, frozen=True):
    """One rate that differs. Prices are decimal strings as in the file."""

    place: str
    """`input`, `above 200000: output`, `flex: input`…"""
    old: str
    new: str
    finding: str = ""
    """Why it asks for confirmation; empty when it is an ordinary change."""


def changes(old: Price, new: Price) -> list[Change]:
    """Everything that differs between two versions of an offer's price."""
    found = [*_schedule(old.standard, new.standard, "")]
    for name in sorted({*old.service_tiers, *new.service_tiers}):
        before, after = old.service_tiers.get(name), new.service_tiers.get(name)
        if before is None or after is None:
            lost = f"the service tier `{name}` is lost" if after is None else ""
            found.append(Change(f"service tier {name}", _there(before), _there(after), lost))
            continue
        found += _schedule(before, after, f"{name}: ")
    was, now = old.off_peak, new.off_peak
    if was is not None and now is not None:
        found += _schedule(was.schedule, now.schedule, "off peak: ")
        if (was.peak_minutes_utc, was.weekends_off_peak) != (now.peak_minutes_utc, now.weekends_off_peak):
            found.append(Change("off peak hours", "listed", "others"))
    elif was is not now:
        found.append(Change("off peak", _there(was), _there(now), "the cheaper hours are lost" if now is None else ""))
    return found


def _there(part: object) -> str:
    return "" if part is None else "listed"


def _schedule(old: Schedule, new: Schedule, place: str) -> Iterator[Change]:
    yield from _rates(old.rates, new.rates, place)
    before = {tier.above: tier.rates for tier in old.tiers}
    after = {tier.above: tier.rates for tier in new.tiers}
    for above in sorted({*before, *after}):
        at = f"{place}above {above}: "
        if above not in after:
            yield Change(at.rstrip(": "), "listed", "", "the tier is lost: large prompts would bill at the base price")
        elif above not in before:
            yield Change(at.rstrip(": "), "", "listed")
        else:
            yield from _rates(before[above], after[above], at)


def _rates(old: Rates, new: Rates, place: str) -> Iterator[Change]:
    for name in Rates.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        parent = _PARENTS.get(name)
        lost = parent is not None and before != getattr(old, parent) and after == getattr(new, parent) and before != after
        if before == after:
            continue
        if parent is not None and not lost and before == getattr(old, parent) and after == getattr(new, parent):
            continue  # it has no price of its own and follows its parent, which is told of
        write: Callable[[int], str] = format_unit_rate if name in FEES else format_rate
        finding = f"its own price is lost: it would bill as `{parent}`" if lost else _jump(before, after)
        yield Change(place + name, write(before), write(after), finding)


def _jump(before: int, after: int) -> str:
    if not after:
        return "becomes free"
    if not before:
        return "was free"
    low, high = min(before, after), max(before, after)
    if high >= UNIT_JUMP * low:
        return f"changes by a factor of {high // low}: is it the same unit?"
    return "more than doubles" if after > 2 * before else "is less than half" if 2 * after < before else ""


def passed(ours: Price, theirs: Price, bp: int) -> list[str]:
    """Classes for which a provider now asks more than customers pay: our list price with a markup of `bp` basis points."""
    found: list[str] = []
    for name in Rates.__struct_fields__:
        paid = getattr(ours.standard.rates, name) * (10_000 + bp)
        asked = getattr(theirs.standard.rates, name) * 10_000
        if asked > paid:
            found.append(name)
    return found
