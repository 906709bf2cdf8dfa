"""Planning among eight offers is quick: it is on the way of every call."""

import time

from tests.routing.conftest import DAY, NOW_US, call, model, offer, planned, router

from farebox.ports import SystemRandom
from farebox.routing.router import Router

OFFERS = 8
PLAN_US = 10
"""What it may take on a machine of today that does nothing else."""
SLOWER = 5
"""So much slower a machine may be, or so busy, before this is called a failure."""


def eight(**more: object) -> Router:
    return router(model("v/m", *(offer(f"p{n}", **more) for n in range(OFFERS))), attempts_max=6)


def best_us(made: Router, **fields: object) -> float:
    """The best of many stretches, in µs per plan."""
    asked, random = call(max_tokens=256, text="hello " * 200, **fields), SystemRandom()
    best = 1e9
    for _ in range(40):
        began = time.perf_counter_ns()
        for _ in range(50):
            made.plan(asked, now_us=NOW_US, day=DAY, random=random)
        best = min(best, (time.perf_counter_ns() - began) / 50_000)
    return best


def test_eight_offers_are_planned_in_microseconds() -> None:
    made = eight()
    assert len(planned(made, call()).candidates) == 6, "six tries, so six candidates are priced"
    by_chance = best_us(made)
    by_price = best_us(made, provider={"sort": "price"})
    print(f"planning of {OFFERS} offers: {by_chance:.1f} µs by chance, {by_price:.1f} µs by price")
    assert by_chance < PLAN_US * SLOWER and by_price < 2 * PLAN_US * SLOWER
