"""Holds in memory against the allotments of a database that counts."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farebox.billing import holds as holds_module
from farebox.billing.budgets import Scope, account_scope, tier_scope
from farebox.billing.holds import IDLE_RETURN_US, REFUSED_MEMORY_US, Holds, Insufficient, Reserved
from farebox.billing.taken import Taken


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

    def grant_of(self, scope_id: str) -> int:
        return self.granted

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


def made(limit: int, kind: type[Counting] = Counting) -> tuple[Holds, Counting, StandingClock]:
    store, clock = kind(limit), StandingClock()

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


async def test_who_comes_to_a_higher_tier_may_spend_more_on_the_same_day() -> None:
    """The limit of a tier comes with the scope, and a purse kept the one that it was made with."""

    class Tiers(Counting):
        def take(self, scope: Scope, need_nano: int, wish_nano: int) -> Taken:
            assert scope.limit_nano is not None
            self.limit = scope.limit_nano
            return super().take(scope, need_nano, wish_nano)

    holds, store, _ = made(0, Tiers)
    free, paying = (tier_scope("acc-1", daily, 0) for daily in (1_000, 5_000))
    assert free.id == paying.id
    holds.settle(await holds.reserve((free,), 900), 900)
    store.posted = 900
    with pytest.raises(Insufficient):
        await holds.reserve((free,), 900)
    holds.settle(await holds.reserve((paying,), 900), 900)


# --- two processes ----------------------------------------------------------------------------------------------------------


class Shared:
    """Several scopes that two processes hold slices of."""

    def __init__(self, **limits: int) -> None:
        self.limits = limits
        self.grants: dict[tuple[str, str], int] = {}
        self.wishes: set[str] = set()

    def allotted(self, scope: str) -> int:
        return sum(amount for (_, one), amount in self.grants.items() if one == scope)


class Side:
    """One process's view of it."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name, self.shared = name, shared

    def take(self, scope: Scope, need_nano: int, wish_nano: int) -> Taken:
        allotted, limit = self.shared.allotted(scope.id), self.shared.limits[scope.id]
        got = need_nano if allotted + need_nano <= limit else 0
        if got:
            self.shared.grants[self.name, scope.id] = self.shared.grants.get((self.name, scope.id), 0) + got
        return Taken(got, limit, 0, allotted + got)

    def give_back(self, scope_id: str, granted_nano: int) -> None:
        self.shared.grants[self.name, scope_id] = min(self.shared.grants.get((self.name, scope_id), 0), granted_nano)

    def grant_of(self, scope_id: str) -> int:
        return self.shared.grants.get((self.name, scope_id), 0)

    def want(self, scope_id: str, until_us: int) -> None:
        self.shared.wishes.add(scope_id)

    def wanted(self) -> Sequence[str]:
        return sorted(scope for name, scope in self.shared.grants if name == self.name and scope in self.shared.wishes)


class LoopClock:
    def now_us(self) -> int:
        return int(asyncio.get_running_loop().time() * 1_000_000)

    monotonic_us = now_us


async def at_once(function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


async def both(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Holds], "asyncio.Task[None]"]:
    """Two processes that return what is wanted, as workers do."""
    monkeypatch.setattr(holds_module, "RECLAIM_POLL_S", 0.002)
    monkeypatch.setattr(holds_module, "RECLAIM_WAIT_S", 0.2)
    sides = [Holds(Side(name, shared), LoopClock(), at_once) for name in ("a", "b")]  # pyright: ignore[reportArgumentType]

    async def keep_house() -> None:
        while True:
            await asyncio.sleep(0.001)
            for side in sides:
                await side.return_wanted()

    return sides, asyncio.create_task(keep_house())


async def left_with(side: Holds, scope: Scope, free: int) -> None:
    """Let a process sit on a slice of so much."""
    side.settle(await side.reserve((scope,), free), 0)


async def test_of_two_that_wait_for_each_others_slices_one_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has too little for a call, both together have enough: both used to wait with their own slice in hand, and refuse."""
    scope = Scope("s", "account", "s")
    (a, b), house = await both(Shared(s=1_200), monkeypatch)
    await left_with(a, scope, 600)
    await left_with(b, scope, 600)
    await a.close()
    await b.close()
    answers = await asyncio.gather(a.reserve((scope,), 1_000), b.reserve((scope,), 1_000), return_exceptions=True)
    assert sum(isinstance(answer, Reserved) for answer in answers) == 1, answers
    assert sum(isinstance(answer, Insufficient) for answer in answers) == 1, answers
    house.cancel()


async def test_waiting_in_one_scope_keeps_no_other_from_being_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a process waits for more of one scope, what it has of another goes to who asks for it."""
    empty, other = Scope("empty", "account", "empty"), Scope("other", "budget", "other")
    (a, b), house = await both(Shared(empty=1_100, other=1_000), monkeypatch)
    held = await b.reserve((empty,), 1_000)
    await left_with(a, empty, 100)
    await left_with(a, other, 1_000)
    await a.close()
    waiting = asyncio.create_task(a.reserve((empty,), 600))
    await asyncio.sleep(0)
    reserved = await asyncio.wait_for(b.reserve((other,), 1_000), 0.1)
    assert reserved.open and not waiting.done(), "it did not have to wait for the other to give up"
    b.settle(held, 0)
    assert (await waiting).open
    house.cancel()


# --- a bound on what is remembered ----------------------------------------------------------------------------------------------


class AnswerLost(Exception):
    """The database has done it, and nobody heard."""


class Many:
    """Several scopes of one life, as the database keeps them; an answer may be lost, and a question not be heard."""

    def __init__(self, limit: int, clock: StandingClock) -> None:
        self.limit = limit
        self.clock = clock
        self.grants: dict[str, int] = {}
        self.posted: dict[str, int] = {}
        self.lose: str | None = None

    def take(self, scope: Scope, need_nano: int, wish_nano: int) -> Taken:
        lost, self.lose = self.lose, None
        if lost == "question":
            raise AnswerLost
        granted = self.grants.get(scope.id, 0)
        room = self.limit - granted
        got = 0 if need_nano > room else max(need_nano, min(wish_nano, room // 4))
        self.grants[scope.id] = granted + got
        if lost == "answer":
            raise AnswerLost
        return Taken(got, self.limit, self.posted.get(scope.id, 0), granted + got - self.posted.get(scope.id, 0))

    def give_back(self, scope_id: str, granted_nano: int) -> None:
        assert granted_nano >= self.posted.get(scope_id, 0), "the database refuses to take back what is posted"
        self.grants[scope_id] = min(self.grants.get(scope_id, 0), granted_nano)

    def grant_of(self, scope_id: str) -> int:
        return self.grants.get(scope_id, 0)

    def want(self, scope_id: str, until_us: int) -> None:
        """What an answer that was lost has taken looks like another's: nobody returns it, and the time for it passes."""
        self.clock.us += int(holds_module.RECLAIM_WAIT_S * 1_000_000)

    def wanted(self) -> Sequence[str]:
        return ()


STEPS = ("hold", "hold", "hold", "settle", "settle", "post", "idle", "lose answer", "lose question")


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_however_few_are_remembered_each_scope_is_charged_exactly_and_never_beyond_its_limit(seed: int) -> None:
    """What was spent in a forgotten purse is in the database's grant: lost memory must not become lost money, or money twice."""
    chance = random.Random(seed)
    plan = [(chance.choice(STEPS), chance.randrange(6), chance.randint(1, 200)) for _ in range(80)]

    async def play() -> None:
        clock = StandingClock()
        store = Many(1_000, clock)

        async def run(function: Callable[..., object], *arguments: object) -> object:
            return function(*arguments)

        holds = Holds(store, clock, run)  # pyright: ignore[reportArgumentType]
        spent: dict[str, int] = {}
        held: list[tuple[str, int, Reserved]] = []
        for what, which, amount in plan:
            scope = account_scope(f"acc-{which}")
            clock.us += 300_000
            if what == "hold":
                with contextlib.suppress(Insufficient, AnswerLost):
                    held.append((scope.id, amount, await holds.reserve((scope,), amount)))
            elif what == "settle" and held:
                id, most, reserved = held.pop(which % len(held))
                charge = amount % (most + 1)
                holds.settle(reserved, charge)
                spent[id] = spent.get(id, 0) + charge
            elif what == "post":
                store.posted = dict(spent)
            elif what == "idle":
                clock.us += IDLE_RETURN_US + 1
                await holds.return_idle()
                assert holds.remembered <= 2
            elif what.startswith("lose"):
                store.lose = what.removeprefix("lose ")
            await holds.close()
            for id, granted in store.grants.items():
                under_way = sum(most for one, most, _ in held if one == id)
                assert spent.get(id, 0) + under_way <= granted <= store.limit
        for _, _, reserved in held:
            holds.settle(reserved, 0)
        store.lose = None
        store.posted = dict(spent)
        for _ in range(2):
            await holds.return_idle(everything=True)
        assert {id: granted for id, granted in store.grants.items() if granted} == {id: all for id, all in spent.items() if all}
        # And each of them goes on from there, to its last nano-dollar.
        for which in range(6):
            scope = account_scope(f"acc-{which}")
            rest = store.limit - spent.get(scope.id, 0)
            with pytest.raises(Insufficient):
                await holds.reserve((scope,), rest + 1)
            if rest:
                await holds.reserve((scope,), rest)
            assert store.grants.get(scope.id, 0) <= store.limit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holds_module, "SPENT_MAX", 2)
        patch.setattr(holds_module, "RECLAIM_POLL_S", 0)
        asyncio.run(play())


async def test_as_many_as_are_remembered_cost_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds_module, "SPENT_MAX", 3)
    asked: list[str] = []

    class Asked(Many):
        def grant_of(self, scope_id: str) -> int:
            asked.append(scope_id)
            return super().grant_of(scope_id)

    clock = StandingClock()
    store = Asked(10_000, clock)
    holds = Holds(store, clock, at_once)  # pyright: ignore[reportArgumentType]

    async def spend(*names: str) -> None:
        for name in names:
            holds.settle(await holds.reserve((account_scope(name),), 10), 7)
            await holds.close()
        clock.us += IDLE_RETURN_US + 1
        await holds.return_idle()

    await spend("a", "b", "c")
    await spend("a", "b", "c")
    assert asked == [] and holds.remembered == 3
    await spend("d")
    await spend("b", "a")
    assert asked == ["account:a"]
    assert store.grants == {"account:a": 21, "account:b": 21, "account:c": 14, "account:d": 7}
