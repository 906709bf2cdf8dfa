"""Holds in memory against the allotments of a database that counts."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from farebox.billing.budgets import Scope, account_scope
from farebox.billing.holds import IDLE_RETURN_US, REFUSED_MEMORY_US, Holds, Insufficient, Taken


class Counting:
    """One scope, one life: grants what is asked while it lasts, and refuses books that are wrong."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.granted = self.posted = self.questions = 0

    def take(self, scope: Scope, need_nano: int, wish_nano: int) -> Taken:
        self.questions += 1
        room = self.limit - self.granted
        got = 0 if need_nano > room else max(need_nano, min(wish_nano, room // 4))
        self.granted += got
        return Taken(got, self.limit, self.posted, self.granted - self.posted)

    def give_back(self, scope_id: str, granted_nano: int) -> None:
        assert granted_nano >= self.posted, f"{granted_nano} is less than the {self.posted} posted"
        self.granted = min(self.granted, granted_nano)

    def want(self, scope_id: str, until_us: int) -> None:
        raise AssertionError("there is no other process")

    def wanted(self) -> Sequence[str]:
        return ()


class StandingClock:
    def __init__(self) -> None:
        self.us = 0

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us


SCOPE = account_scope("acc-1")


def made(limit: int) -> tuple[Holds, Counting, StandingClock]:
    store, clock = Counting(limit), StandingClock()

    def run(function: Callable[..., object], *arguments: object) -> "asyncio.Future[object]":
        future = asyncio.get_running_loop().create_future()
        future.set_result(function(*arguments))
        return future

    return Holds(store, clock, run), store, clock


async def test_a_forgotten_purse_remembers_what_was_spent() -> None:
    """Idle purses are dropped; what their calls were charged stays granted, or the database's books are set too low."""
    holds, store, clock = made(1_000_000)
    for charge in (300, 500, 700):
        reserved = await holds.reserve((SCOPE,), 1_000)
        holds.settle(reserved, charge)
        await holds.close()
        store.posted += charge
        clock.us += IDLE_RETURN_US + 1
        await holds.return_idle()
        assert store.granted == store.posted
    await holds.return_idle(everything=True)
    assert store.granted == store.posted == 1_500


async def test_a_refusal_stands_for_a_moment_without_another_question() -> None:
    holds, store, clock = made(1_000)
    with pytest.raises(Insufficient):
        await holds.reserve((SCOPE,), 1_001)
    asked = store.questions
    for _ in range(100):
        with pytest.raises(Insufficient) as refused:
            await holds.reserve((SCOPE,), 1_500)
        assert refused.value.available_nano == 1_000
    assert store.questions == asked
    holds.settle(await holds.reserve((SCOPE,), 1_000), 0)
    store.limit = 2_000
    clock.us += REFUSED_MEMORY_US
    holds.settle(await holds.reserve((SCOPE,), 1_500), 1_500)


async def test_money_that_comes_back_ends_a_refusal() -> None:
    holds, _, _ = made(1_000)
    held = await holds.reserve((SCOPE,), 1_000)
    with pytest.raises(Insufficient):
        await holds.reserve((SCOPE,), 600)
    holds.settle(held, 100)
    holds.settle(await holds.reserve((SCOPE,), 600), 0)
