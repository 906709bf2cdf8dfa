"""Comparison request by request: where each line of the statement names the request that it bills. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from farebox.billing.pricing import cost_pico
from farebox.money import PICO_PER_NANO, divide_half_even
from farebox.reconciliation.judging import Ours, Refused, Terms, classed, whole_usage, within_rounding
from farebox.reconciliation.statement import Finding, Kind, Line, Statement


def by_request(statement: Statement, ours: Iterable[Ours], terms: Terms) -> list[Finding]:
    """Every difference. Raises `Refused` when whole days were adjusted already: nobody knows for which requests."""
    for one in terms.earlier:
        if one.subject.startswith("day:"):
            raise Refused(f"{one.day} was adjusted as a whole already; a statement by day can be compared with what is there now")
    adjusted: dict[str, int] = defaultdict(int)
    for one in terms.earlier:
        adjusted[one.subject] += one.amount_nano
    waiting: dict[str, list[Line]] = defaultdict(list)
    for line in statement.lines:
        waiting[line.request_id].append(line)
    times = Counter(line.request_id for line in statement.lines)
    found: list[Finding | None] = []
    for attempt in ours:
        lines = waiting.get(attempt.request_id) if attempt.request_id else None
        if lines:
            found.append(_judged(statement, terms, lines.pop(0), attempt, adjusted))
        else:
            found.append(_not_on_statement(statement, terms, attempt, adjusted))
    for request_id, lines in waiting.items():
        for number, line in enumerate(lines, times[request_id] - len(lines) + 1):
            kind: Kind = "billed_twice" if number > 1 else _stranger(terms, line)
            subject = f"request:{request_id}" if number == 1 else f"again:{number}:{request_id}"
            found.append(_on_statement(statement, terms, line, kind, subject, adjusted.get(subject, 0)))
    return [finding for finding in found if finding is not None]


def _stranger(terms: Terms, line: Line) -> Kind:
    return "unknown_model" if line.model and terms.offer_of(line.model) is None else "missing_here"


def _on_statement(statement: Statement, terms: Terms, line: Line, kind: Kind, subject: str, booked: int) -> Finding | None:
    """A line without an attempt; settled when what it costs was booked already."""
    if line.cost_nano == booked:
        return None
    return Finding(
        kind=kind,
        subject=subject,
        day=line.day,
        model=terms.offer_of(line.model) or line.model,
        key=terms.keys.get(line.key, line.key),
        request_id=line.request_id,
        ours_nano=booked,
        theirs_nano=line.cost_nano,
        theirs_units=None if line.units is None else statement.folded(line.units),
        place=line.place,
    )


def _not_on_statement(statement: Statement, terms: Terms, one: Ours, adjusted: Mapping[str, int]) -> Finding | None:
    """An attempt without a line: nothing when it costs nothing, or lies outside of the statement's days, or partly so."""
    first, last = terms.day_of(one.started_us), terms.day_of(one.ended_us)
    subject = _subject(one)
    ours = (one.cost_nano or 0) + adjusted.get(subject, 0)
    if first < statement.first_day or last > statement.last_day or ours == 0:
        return None
    return Finding(
        kind="missing_there" if one.exact else "estimate",
        subject=subject,
        day=first,
        model=terms.offer_of(one.model) or one.model,
        key=one.key,
        request_id=one.request_id,
        hold_id=one.hold_id,
        attempt=one.attempt,
        ours_nano=ours,
        theirs_nano=0,
        ours_units=statement.folded(one.units),
    )


def _subject(one: Ours) -> str:
    return f"request:{one.request_id}" if one.request_id else f"attempt:{one.hold_id}/{one.attempt}"


def _judged(statement: Statement, terms: Terms, line: Line, one: Ours, adjusted: Mapping[str, int]) -> Finding | None:
    subject = _subject(one)
    booked = adjusted.get(subject, 0)
    ours, theirs = (one.cost_nano or 0) + booked, line.cost_nano
    mine = statement.folded(one.units)
    units = None if line.units is None else statement.folded(line.units)
    if theirs is None and line.units is not None and one.rates is not None:
        # It says no cost: what its counts cost at the price of the attempt.
        told = whole_usage(statement, line.units, one.rates)
        theirs = None if told is None else divide_half_even(cost_pico(told, one.rates), PICO_PER_NANO)
    kind = classed(
        one.exact,
        units_agree=None if units is None else units == mine,
        difference_nano=None if theirs is None else theirs - ours,
        rounded=theirs is not None and within_rounding(theirs - ours, lines=1, step_pico=statement.step_pico, attempts=1),
        settled=bool(booked),
    )
    if kind is None:
        return None
    told = whole_usage(statement, line.units, one.rates) if line.units is not None and one.rates is not None else None
    return Finding(
        kind=kind,
        subject=subject,
        day=line.day,
        model=terms.offer_of(one.model) or one.model,
        key=one.key,
        request_id=one.request_id,
        hold_id=one.hold_id,
        attempt=one.attempt,
        ours_nano=None if one.cost_nano is None and not booked else ours,
        theirs_nano=theirs,
        ours_units=mine,
        theirs_units=units,
        place=line.place,
        exact=told if kind == "estimate" else None,
    )
