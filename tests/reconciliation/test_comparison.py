"""Every difference between a provider's invoice and our records is found and rightly classed; a clean month is silent."""

import random
from collections import defaultdict

import msgspec
import pytest
from tests.support.months import (
    BY_DAY,
    BY_REQUEST,
    DAY_US,
    DAYS,
    FIRST,
    LAST,
    START_US,
    TERMS,
    Invoice,
    clean_month,
    cost_of,
    day_of,
    offer_of,
    plant,
    quiet,
)

from farebox.reconciliation.comparison import compare
from farebox.reconciliation.figures import day_in
from farebox.reconciliation.judging import Ours, Terms, within_rounding
from farebox.reconciliation.reading import zone_of
from farebox.reconciliation.records import bounds_us
from farebox.reconciliation.statement import Line, Statement
from farebox.wires.usage import Usage

FAULTS = 500
SEEDS = (0, 1, 2, 115)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clean_month_gives_no_finding(seed: int) -> None:
    month = clean_month(seed, 2_500)
    assert compare(Invoice(month, seed).by_request(), month, TERMS) == []
    assert compare(Invoice(month, seed).by_day(), month, TERMS) == []
    assert compare(Invoice(month, seed).by_day(apart=True), month, TERMS) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_costs_in_whole_cents_leave_rounding_and_no_fault(seed: int) -> None:
    month = clean_month(seed, 2_500)
    statement = Invoice(month, seed).by_day(step_pico=10_000_000_000)
    found = compare(statement, month, TERMS)
    assert len(found) > 300 and {one.kind for one in found} == {"rounding"}
    assert all(abs(one.difference_nano or 0) <= 2 * 5_000_000 + 20 for one in found), "half a cent for each of two lines"


@pytest.mark.parametrize("seed", SEEDS)
def test_500_faults_by_request_are_each_found_and_classed(seed: int) -> None:
    month = clean_month(seed, 2_500)
    invoice = Invoice(month, seed)
    chance = random.Random(seed + 2)
    books = {one.hold_id: one for one in month}
    wanted: dict[str, str] = {}
    for number, one in enumerate(chance.sample(quiet(month), FAULTS)):
        kind = BY_REQUEST[number % len(BY_REQUEST)]
        found_as = plant(kind, one, books, invoice, chance)
        wanted[f"other-{one.request_id}" if kind == "unknown_model" else one.request_id] = found_as
    found = compare(invoice.by_request(), books.values(), TERMS)
    assert {one.request_id: one.kind for one in found} == wanted and len(found) == len(wanted) == FAULTS
    # What all of them come to is what the invoice differs by.
    owed = sum(line.cost_nano or 0 for line in invoice.entries)
    outside = {one.request_id for one in month} - {line.request_id for line in Invoice(month, seed).entries}
    booked = sum(one.cost_nano or 0 for one in books.values() if one.request_id not in outside)
    assert sum(one.difference_nano or 0 for one in found) == owed - booked


def places(one: Ours, by_key: bool = True) -> list[tuple[str, str, str]]:
    """The days on which an attempt may stand, each with its model and key."""
    return [(day, one.model, one.key if by_key else "") for day in sorted({day_of(one.started_us), day_of(one.ended_us)})]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_500_faults_by_day_are_each_found_and_classed(seed: int, apart: bool) -> None:
    """One fault for a day, model and key, where several would be found as one; beside them estimates and calls over midnight.

    `apart`: usage by key, and costs, which are not by key, in lines of their own."""
    month = clean_month(seed, 3_500)
    invoice = Invoice(month, seed)
    chance = random.Random(seed + 2)
    books = {one.hold_id: one for one in month}
    assert sum(len(places(one)) > 1 for one in month) > 50
    taken = {place for one in month if not one.exact for place in places(one, not apart)}
    # At a period's end nobody can say what of a fault is a call that stands outside.
    taken |= {place for one in month if len(places(one)) > 1 for place in places(one, not apart) if place[0] in (FIRST, LAST)}
    joined: dict[tuple[str, str, str], set[tuple[str, str, str]]] = defaultdict(set)
    for one in month:
        for place in places(one, not apart):
            joined[place] |= set(places(one, not apart)) - {place}
    wanted: dict[tuple[str, str, str], str] = {}
    for one in chance.sample(quiet(month), len(quiet(month))):
        (place,) = places(one, not apart)
        if place in taken or ({place} | joined[place]) & wanted.keys():
            continue
        kind = BY_DAY[len(wanted) % len(BY_DAY)]
        found_as = plant(kind, one, books, invoice, chance)
        wanted[(place[0], invoice.entries[-1].model, place[2]) if kind == "unknown_model" else place] = found_as
        if len(wanted) == FAULTS:
            break
    found = compare(invoice.by_day(apart=apart), books.values(), TERMS)
    assert len(wanted) == FAULTS
    assert {(one.day, one.model, one.key): one.kind for one in found} == wanted and len(found) == FAULTS


def test_use_that_moved_from_one_key_to_another_is_found_where_the_costs_agree() -> None:
    month = clean_month(3, 400)
    invoice = Invoice(month, 3)
    one = next(one for one in quiet(month) if one.key == "lab#1" and one.usage is not None)
    index = next(index for index, line in enumerate(invoice.entries) if line.request_id == one.request_id)
    invoice.entries[index] = msgspec.structs.replace(invoice.entries[index], key="key_b")
    found = compare(invoice.by_day(apart=True), month, TERMS)
    assert all(one.difference_nano is None for one in found) and {one.key for one in found} == {"lab#1", "lab#2"}
    assert len(found) == 2 and {(one.day, one.model) for one in found} == {(day_of(one.started_us), one.model)}


@pytest.mark.parametrize("latency_us", [0, 1_500_000, 10**12], ids=["start", "later", "end"])
def test_many_calls_over_every_midnight(latency_us: int) -> None:
    """Some twenty calls of one model and key are in flight over each midnight, at the ends of the period, too. The provider
    counts each at one moment of it."""
    chance = random.Random(latency_us)
    month = [
        Ours(
            hold_id=f"gen-{number}", attempt=1, model="model-1", key="lab#1", started_us=start, ended_us=start + 6_000_000,
            usage=used, cost_nano=cost_of(used), exact=True,
        )
        for number, (start, used) in enumerate(
            (
                START_US + DAY_US * (number % (DAYS + 1)) + chance.randrange(-8_000_000, 2_000_000),
                Usage(input=chance.randrange(1, 9_999), output=chance.randrange(1, 999)),
            )
            for number in range(900)
        )
    ]  # fmt: skip

    def counted(one: Ours) -> str:
        return day_of(min(one.started_us + latency_us, one.ended_us))

    lines = [Line(day=counted(one), model="model-1", key="key_a", units=one.units, cost_nano=one.cost_nano) for one in month]
    statement = Statement(
        provider="lab", first_day=FIRST, last_day=LAST, lines=tuple(line for line in lines if FIRST <= line.day <= LAST)
    )
    assert compare(statement, month, TERMS) == []
    more = Line(day="2026-11-15", model="model-1", key="key_a", units={"output": 7}, cost_nano=70_000)
    (found,) = compare(msgspec.structs.replace(statement, lines=(*statement.lines, more)), month, TERMS)
    assert (found.kind, found.day, found.difference_nano) == ("units_differ", "2026-11-15", 70_000)


def test_rounding_is_half_a_step_per_line_and_half_a_nano_per_attempt() -> None:
    assert within_rounding(0, lines=1, step_pico=0, attempts=1)
    assert not within_rounding(1, lines=1, step_pico=0, attempts=1), "an exact line about one attempt is exact"
    assert within_rounding(2, lines=1, step_pico=0, attempts=4) and not within_rounding(3, lines=1, step_pico=0, attempts=4)
    assert within_rounding(-5_000_000, lines=1, step_pico=10_000_000_000, attempts=0)
    assert not within_rounding(5_000_001, lines=1, step_pico=10_000_000_000, attempts=0)


def test_a_statement_that_says_little_is_compared_by_what_it_says() -> None:
    month = [msgspec.structs.replace(one, exact=number > 0) for number, one in enumerate(quiet(clean_month(1, 50))[:4])]
    costs = [one.cost_nano or 0 for one in month]
    lines = [
        Line(day=day_of(one.started_us), request_id=one.request_id, cost_nano=cost + more)
        for one, cost, more in zip(month, costs, (5, 7, 0, -9), strict=True)
    ]
    lines.append(Line(day=FIRST, request_id="req-nobody", cost_nano=3))
    statement = Statement(provider="lab", first_day=FIRST, last_day=LAST, lines=tuple(lines))
    found = {one.request_id: (one.kind, one.difference_nano) for one in compare(statement, month, TERMS)}
    ids = [one.request_id for one in month]
    assert found == {
        ids[0]: ("estimate", 5), ids[1]: ("cost_differs", 7), ids[3]: ("cost_differs", -9), "req-nobody": ("missing_here", 3),
    }  # fmt: skip
    by_day = [msgspec.structs.replace(line, request_id="") for line in lines]
    summed = compare(msgspec.structs.replace(statement, lines=tuple(by_day)), month, TERMS)
    assert all(one.model == "" and one.ours_units is None for one in summed)
    assert sum(one.difference_nano or 0 for one in summed) == 5 + 7 - 9 + 3


def test_days_are_those_of_the_statements_zone() -> None:
    start, end = bounds_us("2026-10-25", "2026-10-25", "Europe/Berlin")
    assert end - start == 25 * 3_600_000_000, "the clocks go back"
    day_of_berlin = day_in(zone_of("Europe/Berlin"))
    assert {day_of_berlin(start), day_of_berlin(end - 1)} == {"2026-10-25"} and day_of_berlin(end) == "2026-10-26"
    one = msgspec.structs.replace(quiet(clean_month(1, 50))[0], started_us=start, ended_us=start + 1)
    line = Line(day="2026-10-25", model=one.model, cost_nano=one.cost_nano, units=one.units)
    statement = Statement(provider="lab", first_day=line.day, last_day=line.day, lines=(line,), zone="Europe/Berlin")
    assert day_of(start) == "2026-10-24" and compare(statement, [one], Terms(day_of_berlin, offer_of)) == []
