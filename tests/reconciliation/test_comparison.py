"""Every difference between a provider's invoice and our records is found and rightly classed; a clean month is silent."""

import random
from collections import defaultdict

import pytest
from tests.support.months import BY_DAY, BY_REQUEST, FIRST, LAST, TERMS, Invoice, clean_month, day_of, plant, quiet

from farebox.reconciliation.comparison import compare
from farebox.reconciliation.judging import Ours, within_rounding

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


def places(one: Ours) -> list[tuple[str, str, str]]:
    """The days on which an attempt may stand, each with its model and key."""
    return [(day, one.model, one.key) for day in sorted({day_of(one.started_us), day_of(one.ended_us)})]


@pytest.mark.parametrize("seed", SEEDS)
def test_500_faults_by_day_are_each_found_and_classed(seed: int) -> None:
    """One fault for a day, model and key, where several would be found as one; beside them estimates and calls over midnight."""
    month = clean_month(seed, 5_000)
    invoice = Invoice(month, seed)
    chance = random.Random(seed + 2)
    books = {one.hold_id: one for one in month}
    assert sum(len(places(one)) > 1 for one in month) > 50
    taken = {place for one in month if not one.exact for place in places(one)}
    # At a period's end nobody can say what of a fault is a call that stands outside.
    taken |= {place for one in month if len(places(one)) > 1 for place in places(one) if place[0] in (FIRST, LAST)}
    joined: dict[tuple[str, str, str], set[tuple[str, str, str]]] = defaultdict(set)
    for one in month:
        for place in places(one):
            joined[place] |= set(places(one)) - {place}
    wanted: dict[tuple[str, str, str], str] = {}
    for one in chance.sample(quiet(month), len(quiet(month))):
        (place,) = places(one)
        if place in taken or ({place} | joined[place]) & wanted.keys():
            continue
        kind = BY_DAY[len(wanted) % len(BY_DAY)]
        found_as = plant(kind, one, books, invoice, chance)
        wanted[(place[0], invoice.entries[-1].model, place[2]) if kind == "unknown_model" else place] = found_as
        if len(wanted) == FAULTS:
            break
    found = compare(invoice.by_day(), books.values(), TERMS)
    assert len(wanted) == FAULTS
    assert {(one.day, one.model, one.key): one.kind for one in found} == wanted and len(found) == FAULTS


def test_rounding_is_half_a_step_per_line_and_half_a_nano_per_attempt() -> None:
    assert within_rounding(0, lines=1, step_pico=0, attempts=1)
    assert not within_rounding(1, lines=1, step_pico=0, attempts=1), "an exact line about one attempt is exact"
    assert within_rounding(2, lines=1, step_pico=0, attempts=4) and not within_rounding(3, lines=1, step_pico=0, attempts=4)
    assert within_rounding(-5_000_000, lines=1, step_pico=10_000_000_000, attempts=0)
    assert not within_rounding(5_000_001, lines=1, step_pico=10_000_000_000, attempts=0)
