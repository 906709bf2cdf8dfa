"""What readers of provider's reports share: parts that are put together to one statement of whole days.

A report is some files (or pages of an API) of usage and of costs. Days are the ones that their buckets name, empty buckets
included; both kinds have to cover the same days, without a gap.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import msgspec

from farebox.reconciliation.figures import STEP_PICO, StatementError
from farebox.reconciliation.statement import DAYS_MAX, LINES_MAX, Line, Statement


class File(msgspec.Struct, frozen=True):
    """One file, or one page of an API."""

    name: str
    content: bytes


class Part(msgspec.Struct, frozen=True):
    """What a file says."""

    kind: str
    """`usage`, `costs`, or `activity` where one line has both."""
    name: str
    days: frozenset[str]
    lines: tuple[Line, ...]
    inside: Mapping[str, str] = {}
    rounded: bool = False
    """An amount had more decimals than a nano-dollar."""


class Wanted(msgspec.Struct, frozen=True):
    """What the operator says about a statement, in place of what it says itself. Days are inclusive."""

    provider: str
    zone: str = "UTC"
    first_day: str | None = None
    last_day: str | None = None
    step_pico: int | None = None


def put_together(parts: Sequence[Part], wanted: Wanted) -> Statement:
    """One statement of the parts; lines outside of the days wanted are left out."""
    by_kind: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for part in parts:
        by_kind.setdefault(part.kind, set()).update(part.days)
        names.setdefault(part.kind, part.name)
    spans: dict[str, tuple[str, str]] = {}
    for kind, days in by_kind.items():
        kept = {one for one in days if (wanted.first_day or one) <= one <= (wanted.last_day or one)}
        if not kept:
            raise StatementError(f"{names[kind]}: it says nothing about any day from {wanted.first_day} to {wanted.last_day}")
        spans[kind] = min(kept), max(kept)
        span_checked(*spans[kind], names[kind])
        missing = _gap(kept, *spans[kind])
        if missing:
            raise StatementError(f"{names[kind]}: it has no bucket for {missing}, between {spans[kind][0]} and {spans[kind][1]}")
    first, last = next(iter(spans.values()))
    for kind, span in spans.items():
        if span != (first, last):
            begun = next(iter(spans))
            raise StatementError(
                f"{names[begun]} is about {first} to {last}, {names[kind]} about {span[0]} to {span[1]}; "
                "--since and --until choose days that both have"
            )
    asked = (wanted.first_day or first, wanted.last_day or last)
    if asked != (first, last):
        raise StatementError(f"{parts[0].name}: it is about {first} to {last}, asked for were {asked[0]} to {asked[1]}")
    lines = [line for part in parts for line in part.lines if first <= line.day <= last]
    if len(lines) > LINES_MAX:
        raise StatementError(f"{parts[0].name}: more than {LINES_MAX} lines; give fewer days, with --since and --until")
    inside = {name: into for part in parts for name, into in part.inside.items()}
    step = wanted.step_pico if wanted.step_pico is not None else STEP_PICO if any(part.rounded for part in parts) else 0
    return Statement(
        provider=wanted.provider, first_day=first, last_day=last, lines=tuple(lines), zone=wanted.zone, inside=inside,
        step_pico=step,
    )  # fmt: skip


def span_checked(first: str, last: str, name: str) -> None:
    """Raise `StatementError` for more days than are compared at once."""
    if (date.fromisoformat(last) - date.fromisoformat(first)).days >= DAYS_MAX:
        raise StatementError(f"{name}: {first} to {last} are more than {DAYS_MAX} days; --since and --until choose some of them")


def _gap(days: set[str], first: str, last: str) -> str | None:
    one, end = date.fromisoformat(first), date.fromisoformat(last)
    while one <= end:
        if one.isoformat() not in days:
            return one.isoformat()
        one += timedelta(days=1)
    return None
