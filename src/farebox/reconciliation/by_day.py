"""Comparison by day, and by model and key as far as the statement tells them apart. Pure.

Midnight: an attempt in flight over it belongs to the day of its start, unless the days do not agree like this: then some of those
attempts may stand on the next day, at the ends of the period outside of it. It must be certain ones, the same in counts and cost:
of a few, any; of more than `OVER_MIDNIGHT_MAX`, those that began, or ended, last, since a provider counts a call at some moment
of it, and a moment divides them in their order.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import combinations

import msgspec

from farebox.reconciliation.judging import Ours, Refused, Terms, classed, within_rounding
from farebox.reconciliation.statement import Finding, Kind, Line, Statement

OVER_MIDNIGHT_MAX = 8
"""So many attempts over one midnight are tried in every combination."""
IN_ORDER_MAX = 300
"""So many are tried in their order; of more, all or none."""

Vector = dict[str, int]
"""Units by class, `cost` in nano-dollars, and `requests`."""
_NOT_UNITS = {"cost", "requests"}
_ANY = "*"
Place = tuple[str, str, str]
"""Day, model, key; empty where the statement does not tell them apart."""


class _Cell(msgspec.Struct):
    """Both sides of one place."""

    ours: Vector = msgspec.field(default_factory=dict[str, int])
    theirs: Vector = msgspec.field(default_factory=dict[str, int])
    attempts: int = 0
    """That cost something; on the day of their start."""
    unknown: int = 0
    """Whose cost nobody knows."""
    inexact: int = 0
    """Of `attempts`."""
    earlier: bool = False
    cost_lines: int = 0
    requests: int | None = None
    lines: int = 0
    place: str = ""
    over: list[tuple[int, int, Vector]] = msgspec.field(default_factory=list[tuple[int, int, Vector]])
    """Attempts that end on a later day: when they began and ended, and what they came to."""


class _Grain(msgspec.Struct, frozen=True):
    """What a table of cells tells apart, and compares."""

    model: bool
    key: bool
    units: bool
    costs: bool

    def place(self, day: str, model: str, key: str) -> Place:
        return day, model if self.model else "", key if self.key else ""


def _add(into: Vector, more: Mapping[str, int], sign: int = 1) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, 0) + sign * amount


def _days(first: str, last: str) -> list[str]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=number)).isoformat() for number in range((end - start).days + 1)]


def by_day(statement: Statement, ours: Iterable[Ours], terms: Terms) -> list[Finding]:
    """Every difference. Raises `Refused` when coarser adjustments stand in the way."""
    counted = [line for line in statement.lines if line.units is not None]
    priced = [line for line in statement.lines if line.cost_nano is not None]
    units = _Grain(_all_have(counted, "model"), bool(terms.keys) and _all_have(counted, "key"), True, False)
    costs = _Grain(_all_have(priced, "model"), bool(terms.keys) and _all_have(priced, "key"), bool(counted), True)
    if not priced:
        tables = [_Table(statement, terms, units)]
    elif not counted:
        tables = [_Table(statement, terms, costs)]
    else:
        shared = _Grain(units.model and costs.model, units.key and costs.key, True, True)
        # Usage that is told by more than the costs are is looked at once more by itself: a fault may cancel out in the sums.
        finer = (units.model, units.key) != (shared.model, shared.key)
        tables = [_Table(statement, terms, shared)] + ([_Table(statement, terms, units)] if finer else [])
    for one in ours:
        for table in tables:
            table.take(one)
    found = tables[0].findings()
    if len(tables) > 1:
        coarse = {tables[0].grain.place(one.day, one.model, one.key) for one in found}
        found += [one for one in tables[1].findings() if tables[0].grain.place(one.day, one.model, one.key) not in coarse]
    return found


def _all_have(lines: Sequence[Line], name: str) -> bool:
    return all(getattr(line, name) for line in lines)


class _Table:
    """The cells of one grain."""

    def __init__(self, statement: Statement, terms: Terms, grain: _Grain) -> None:
        self.grain = grain
        self._statement = statement
        self._terms = terms
        self._days = _days(statement.first_day, statement.last_day)
        self._before = (date.fromisoformat(statement.first_day) - timedelta(days=1)).isoformat()
        self._cells: dict[Place, _Cell] = defaultdict(_Cell)
        self._models: set[str] = set()
        """Models that our records have."""
        for line in statement.lines:
            self._take_line(line)
        for one in terms.earlier:
            if grain.costs and ((grain.model and not one.model) or (grain.key and not one.key)):
                raise Refused(
                    f"{one.day} was adjusted already by a statement that does not tell models or keys apart; compare a statement "
                    "of that kind with what is there now"
                )
            if grain.costs and statement.first_day <= one.day <= statement.last_day:
                _add(self._cells[grain.place(one.day, one.model, one.key)].ours, {"cost": one.amount_nano})

    def _take_line(self, line: Line) -> None:
        model = self._terms.offer_of(line.model) or line.model
        cell = self._cells[self.grain.place(line.day, model, self._terms.keys.get(line.key, line.key))]
        cell.lines += 1
        cell.place = cell.place or line.place
        if line.units is not None and self.grain.units:
            _add(cell.theirs, self._statement.folded(line.units))
            if line.requests is not None:
                cell.requests = (cell.requests or 0) + line.requests
        if line.cost_nano is not None and self.grain.costs:
            cell.cost_lines += 1
            _add(cell.theirs, {"cost": line.cost_nano})

    def take(self, one: Ours) -> None:
        """An attempt into the cell of the day on which it started."""
        vector: Vector = self._statement.folded(one.units) if self.grain.units else {}
        if self.grain.costs and one.cost_nano:
            vector["cost"] = one.cost_nano
        if vector:
            vector["requests"] = 1
        elif one.cost_nano is not None:
            return
        first, last = self._terms.day_of(one.started_us), self._terms.day_of(one.ended_us)
        if last < self._statement.first_day or first > self._statement.last_day:
            return
        model = self._terms.offer_of(one.model) or one.model
        self._models.add(model)
        cell = self._cells[self.grain.place(max(first, self._before), model, one.key)]
        if one.cost_nano is None:
            cell.unknown += 1
        else:
            cell.attempts += 1
            cell.inexact += not one.exact
        _add(cell.ours, vector)
        if last > first:
            cell.over.append((one.started_us, one.ended_us, vector))

    def findings(self) -> list[Finding]:
        adjusted = {
            (one.day, model, key) for one in self._terms.earlier for model in (one.model, _ANY) for key in (one.key, _ANY)
        }
        for (day, model, key), cell in self._cells.items():
            # Counts that differ where something was adjusted are known, and done with.
            models, keys = (model, "") if model else (_ANY,), (key, "") if key else (_ANY,)
            cell.earlier = any((day, one, other) in adjusted for one in models for other in keys)
        series = {place[1:] for place in self._cells}
        return [finding for one in sorted(series) for finding in self._series(*one)]

    def _series(self, model: str, key: str) -> Iterator[Finding]:
        """A model and key, day by day; what was in flight over a midnight is carried to where it agrees."""
        places = [(day, model, key) for day in self._days]
        cells = [self._cells.get(place) or _Cell() for place in places]
        before = self._cells.get((self._before, model, key)) or _Cell()
        brought = next((one for one in _choices(before.over) if self._settled(cells[0], _plus(cells[0].ours, one))), Vector())
        for index, (place, cell) in enumerate(zip(places, cells, strict=True)):
            after = cells[index + 1] if index + 1 < len(cells) else None
            mine = _plus(cell.ours, brought)
            brought = self._carried(cell, mine, after)
            mine = _plus(mine, brought, -1)
            if not self._agrees(mine, cell):
                kind = self._class(place, cell, mine)
            else:
                kind = "rounding" if mine.get("cost", 0) != cell.theirs.get("cost", 0) else None
            if kind is not None:
                yield self._finding(kind, place, cell, mine)

    def _settled(self, cell: _Cell, mine: Vector) -> bool:
        """Whether a day agrees, perhaps with some of its attempts over midnight on the next."""
        return any(self._agrees(_plus(mine, gone, -1), cell) for gone in _choices(cell.over))

    def _carried(self, cell: _Cell, mine: Vector, after: _Cell | None) -> Vector:
        """What of a day's attempts over midnight stands on the next: so that this day agrees, or if it cannot, the next does."""
        choices = list(_choices(cell.over))
        for gone in choices:
            if self._agrees(_plus(mine, gone, -1), cell):
                return gone
        if after is None:
            return {}
        return next((gone for gone in choices if self._settled(after, _plus(after.ours, gone))), Vector())

    def _rounded(self, cost: int, cell: _Cell) -> bool:
        step = self._statement.step_pico
        attempts = cell.attempts + cell.unknown
        return within_rounding(cost, lines=cell.cost_lines, step_pico=step, attempts=attempts)

    def _agrees(self, mine: Vector, cell: _Cell) -> bool:
        delta = _plus(mine, cell.theirs, -1)
        if self.grain.units and not cell.earlier and any(_units(delta).values()):
            return False
        return self._rounded(delta.get("cost", 0), cell)

    def _class(self, place: Place, cell: _Cell, mine: Vector) -> Kind | None:
        theirs = any(cell.theirs.values()) or bool(cell.requests)
        ours = any(amount for name, amount in mine.items() if name != "requests")
        model = place[1]
        if not theirs and not ours:
            return None
        if self.grain.model and model not in self._models and self._terms.offer_of(model) is None:
            return "unknown_model"
        if not ours and not cell.unknown:
            return "missing_here"
        if not theirs:
            return "estimate" if cell.inexact and cell.inexact == cell.attempts else "missing_there"
        delta = _plus(mine, cell.theirs, -1)
        agree = not any(_units(delta).values()) if self.grain.units else None
        if agree is not True and cell.requests is not None and not cell.earlier:
            if cell.requests > mine.get("requests", 0) + cell.unknown:
                return "missing_here"
            if cell.requests < mine.get("requests", 0) - cell.inexact:
                return "missing_there"
        cost = delta.get("cost", 0)
        return classed(
            not (cell.inexact or cell.unknown),
            units_agree=agree,
            difference_nano=-cost if self.grain.costs else None,
            rounded=self._rounded(cost, cell),
            settled=cell.earlier,
        )

    def _finding(self, kind: Kind, place: Place, cell: _Cell, mine: Vector) -> Finding:
        day, model, key = place
        known = self.grain.costs and not (cell.unknown and not mine.get("requests") and not cell.earlier)
        return Finding(
            kind=kind,
            subject=f"day:{day}/{model}/{key}",
            day=day,
            model=model,
            key=key,
            ours_nano=mine.get("cost", 0) if known else None,
            theirs_nano=cell.theirs.get("cost", 0) if self.grain.costs else None,
            ours_units=_units(mine) if self.grain.units else None,
            theirs_units=_units(cell.theirs) if self.grain.units else None,
            ours_requests=mine.get("requests", 0) + cell.unknown,
            theirs_requests=cell.requests,
            place=cell.place,
        )


def _plus(one: Mapping[str, int], other: Mapping[str, int], sign: int = 1) -> Vector:
    total = dict(one)
    _add(total, other, sign)
    return total


def _units(vector: Vector) -> Vector:
    return {name: amount for name, amount in vector.items() if name not in _NOT_UNITS and amount}


def _choices(over: Sequence[tuple[int, int, Vector]]) -> Iterator[Vector]:
    """What the attempts that move may come to: nothing first. Of a few any combination, of many the last ones by some order."""
    yield {}
    if len(over) <= OVER_MIDNIGHT_MAX:
        for size in range(1, len(over) + 1):
            for chosen in combinations(over, size):
                yield _sum(chosen)
        return
    yield _sum(over)
    if len(over) > IN_ORDER_MAX:
        return
    begun = sorted(over, key=lambda one: one[0], reverse=True)
    ended = sorted(over, key=lambda one: one[1], reverse=True)
    for ordered in (begun, ended):
        total: Vector = {}
        for _, _, vector in ordered[:-1]:
            total = _plus(total, vector)
            yield total


def _sum(attempts: Iterable[tuple[int, int, Vector]]) -> Vector:
    total: Vector = {}
    for _, _, vector in attempts:
        _add(total, vector)
    return total
