"""Holds: money set aside in memory, out of allotments that the database has already set aside for this process.

A **purse** is this process's allotment of one scope: granted − held − spent is free. A call's hold is taken from the purse of
every scope that applies, all or nothing, without I/O. When a purse runs low it is refilled in the background; when it is
too small for a call, the call waits for one database statement. So a budget is exact over any number of processes, and the
hot path touches no database.

When nothing more is to be had, other processes may still sit on unused slices: they are asked once to return them
(`want`), for at most `RECLAIM_WAIT_S`, before the call is refused.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from farebox.billing.budgets import Scope
from farebox.billing.taken import Taken
from farebox.ports import Clock

WISH_HOLDS: Final = 32
"""A refill asks for this many holds of the size at hand, so that one statement serves many calls."""
WISH_HOLDS_MAX: Final = 1024
"""Each refill within `QUICK_US` of the one before asks for twice as many, up to this."""
QUICK_US: Final = 500_000
REFILL_BELOW_HOLDS: Final = 8
"""Free money for fewer holds than this starts a refill in the background."""
RECLAIM_WAIT_S: Final = 1.0
RECLAIM_POLL_S: Final = 0.1
REFUSED_MEMORY_US: Final = 200_000
"""How long a refusal that the database gave stands for calls that lack at least as much, unless money comes back: a thousand
calls of somebody without money cost the database a few questions a second."""
IDLE_RETURN_US: Final = 5_000_000
"""A purse not touched for this long returns what is free."""
PURSES_MAX: Final = 200_000
SPENT_MAX: Final = 50_000
"""Forgotten purses of which it is remembered what was spent in them; of those before them the database is asked when they come
again, which every budget's window of every end user seldom does."""


class AllotmentStore(Protocol):
    """The database's side; each method is one transaction, called in a thread."""

    def take(self, scope: Scope, need_nano: int, wish_nano: int) -> Taken: ...

    def give_back(self, scope_id: str, granted_nano: int) -> None:
        """Set this life's grant to an absolute value; what is above it returns to the scope."""
        ...

    def grant_of(self, scope_id: str) -> int:
        """This life's grant; 0 where it has taken nothing."""
        ...

    def want(self, scope_id: str, until_us: int) -> None: ...

    def wanted(self) -> Sequence[str]:
        """Scopes of this life that another process asks to be returned."""
        ...


class Insufficient(Exception):
    """A scope cannot cover the hold. All amounts in nano-dollars."""

    def __init__(self, scope: Scope, need_nano: int, limit_nano: int, posted_nano: int, held_nano: int) -> None:
        super().__init__(scope.id)
        self.scope = scope
        self.need_nano = need_nano
        self.limit_nano = limit_nano
        self.posted_nano = posted_nano
        self.held_nano = held_nano

    @property
    def available_nano(self) -> int:
        return max(self.limit_nano - self.posted_nano - self.held_nano, 0)


class Purse:
    """This process's allotment of one scope."""

    __slots__ = (
        "asking", "filling", "granted", "held", "known", "refill_after_us", "refilled_us", "refilling", "refusal",
        "refused_missing", "refused_until_us", "scope", "spent", "touched_us", "unsure", "wish_holds",
    )  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.granted = 0
        self.held = 0
        self.spent = 0
        self.known = True
        """False: this life may have spent in the scope before, and it is not remembered how much."""
        self.unsure = False
        """The database may have granted more than is known here: an answer was lost."""
        self.touched_us = 0
        self.refilling = False
        self.refill_after_us = 0
        self.refilled_us = 0
        self.wish_holds = WISH_HOLDS
        self.refusal: Taken | None = None
        """What the database said when it last refused; stands until `refused_until_us` for calls that lack as much."""
        self.refused_missing = 0
        self.refused_until_us = 0
        self.filling = asyncio.Lock()
        """One call at a time looks for more money; the others wait for what it finds."""
        self.asking = asyncio.Lock()
        """One statement at a time changes the grant. Not held while a call waits for what other processes return: of two that
        wait for each other's slices each must be able to return its own."""

    @property
    def free(self) -> int:
        return self.granted - self.held - self.spent


class Reserved:
    """An open hold. Settled exactly once; a second settlement is a bug and asserts."""

    __slots__ = ("amount_nano", "open", "purses")

    def __init__(self, amount_nano: int, purses: tuple[Purse, ...], open: bool = True) -> None:
        self.amount_nano = amount_nano
        self.purses = purses
        self.open = open

def _nothing() -> None:
    return


class Holds:
    """Every purse of this process. Lives on the event loop; the store is called in a thread."""

    def __init__(
        self,
        store: AllotmentStore,
        clock: Clock,
        run: Callable[..., "asyncio.Future[object]"],
        commit: Callable[[], None] = _nothing,
    ) -> None:
        """`run(function, *arguments)` runs a store call off the loop, e.g. `loop.run_in_executor` bound to one thread;
        `commit` puts the records on the file that say why money is free."""
        self._store = store
        self._commit = commit
        self._clock = clock
        self._run = run
        self._purses: dict[str, Purse] = {}
        self._spent: dict[str, int] = {}
        """What this life has spent in scopes whose purses were forgotten: the database's grant still counts it. At most
        `SPENT_MAX`, the latest."""
        self._all_remembered = True
        self._tasks: set[asyncio.Task[None]] = set()
        self.open_nano = 0
        self.open_count = 0

    def try_reserve(self, scopes: Sequence[Scope], amount_nano: int) -> Reserved | None:
        """Take the amount from every scope's purse at once, or take nothing. No I/O."""
        purses: list[Purse] = []
        for scope in scopes:
            purse = self._purses.get(scope.id)
            if purse is None or purse.granted - purse.held - purse.spent < amount_nano:
                return None
            purses.append(purse)
        for purse in purses:
            purse.held += amount_nano
            if not purse.refilling and purse.granted - purse.held - purse.spent < amount_nano * REFILL_BELOW_HOLDS:
                self._refill(purse, amount_nano)
        self.open_nano += amount_nano
        self.open_count += 1
        return Reserved(amount_nano, tuple(purses))

    async def reserve(self, scopes: Sequence[Scope], amount_nano: int) -> Reserved:
        """Take the amount, asking the database as far as needed. Raises `Insufficient` for the first scope that cannot."""
        assert amount_nano >= 0, "a hold is never negative"
        while True:
            reserved = self.try_reserve(scopes, amount_nano)
            if reserved is not None:
                return reserved
            for scope in scopes:
                await self._fill(self._purse(scope), amount_nano)

    def settle(self, reserved: Reserved, charge_nano: int, charged: Sequence[str] | None = None) -> None:
        """End a hold: the charge is spent, the rest is free again, here, at once. `charged`: only these scopes are charged."""
        assert reserved.open, "a hold is settled exactly once (I3)"
        assert 0 <= charge_nano <= reserved.amount_nano, "a charge never exceeds its hold"
        reserved.open = False
        now_us = self._clock.monotonic_us()
        for purse in reserved.purses:
            purse.held -= reserved.amount_nano
            if charged is None or purse.scope.id in charged:
                purse.spent += charge_nano
            purse.touched_us = now_us
            purse.refused_until_us = purse.refill_after_us = 0
        self.open_nano -= reserved.amount_nano
        self.open_count -= 1

    def _purse(self, scope: Scope) -> Purse:
        purse = self._purses.get(scope.id)
        if purse is None:
            assert len(self._purses) < PURSES_MAX, "idle purses are dropped by `return_idle`"
            purse = self._purses[scope.id] = Purse(scope)
            spent = self._spent.pop(scope.id, None)
            purse.granted = purse.spent = spent or 0
            purse.known = self._all_remembered or spent is not None
        elif purse.scope.limit_nano != scope.limit_nano:
            # The account has come to another tier: the database hears of it with the next question.
            purse.scope = scope
            purse.refused_until_us = purse.refill_after_us = 0
        return purse

    async def _fill(self, purse: Purse, need_nano: int) -> None:
        """Bring a purse's free money up to the need, or raise `Insufficient`."""
        async with purse.filling:
            missing = need_nano - purse.free
            if missing <= 0:
                return
            stands = purse.refusal
            if (
                stands is not None
                and missing >= purse.refused_missing
                and self._clock.monotonic_us() < purse.refused_until_us
            ):
                raise Insufficient(purse.scope, need_nano, stands.limit_nano, stands.posted_nano, stands.allotted_nano)
            taken = await self._take(purse, need_nano)
            if taken is None or taken.granted_nano:
                return
            ours = purse.granted - purse.spent
            elsewhere = taken.allotted_nano - ours
            if elsewhere > 0 and taken.posted_nano + need_nano <= taken.limit_nano:
                taken = await self._reclaim(purse, need_nano)
                if taken is None or taken.granted_nano:
                    return
            missing = need_nano - purse.free
            if missing <= 0:
                return
            purse.refusal = taken
            purse.refused_missing = missing
            purse.refused_until_us = self._clock.monotonic_us() + REFUSED_MEMORY_US
            raise Insufficient(purse.scope, need_nano, taken.limit_nano, taken.posted_nano, taken.allotted_nano)

    async def _take(self, purse: Purse, need_nano: int, *, on_top: bool = False) -> Taken | None:
        """Ask the database for what is missing to the need (`on_top`: for all of it). None: nothing is missing any more."""
        async with purse.asking:
            missing = need_nano if on_top else need_nano - purse.free
            if missing <= 0:
                return None
            now_us = self._clock.monotonic_us()
            quick = now_us - purse.refilled_us < QUICK_US
            purse.wish_holds = min(purse.wish_holds * 2, WISH_HOLDS_MAX) if quick else WISH_HOLDS
            purse.refilled_us = now_us
            if not purse.known:
                await self._remember(purse)
            unsure, purse.unsure = purse.unsure, True
            taken = await self._run(self._store.take, purse.scope, missing, max(missing, need_nano * purse.wish_holds))
            assert isinstance(taken, Taken)
            purse.unsure = unsure
            purse.granted += taken.granted_nano
            purse.touched_us = self._clock.monotonic_us()
            return taken

    async def _remember(self, purse: Purse) -> None:
        """Ask for what was spent in a scope by a purse that was forgotten: all of its grant, or it would not have been."""
        assert not purse.granted and not purse.held and not purse.spent, "nothing is held before it is known"
        granted = await self._run(self._store.grant_of, purse.scope.id)
        assert isinstance(granted, int)
        purse.granted = purse.spent = granted
        purse.known = True

    async def _reclaim(self, purse: Purse, need_nano: int) -> Taken | None:
        """Ask other processes for their unused slices and wait a little for them."""
        deadline_us = self._clock.monotonic_us() + int(RECLAIM_WAIT_S * 1_000_000)
        while True:
            until_us = self._clock.now_us() + int(2 * RECLAIM_WAIT_S * 1_000_000)
            await self._run(self._store.want, purse.scope.id, until_us)
            await asyncio.sleep(RECLAIM_POLL_S)
            taken = await self._take(purse, need_nano)
            if taken is None or taken.granted_nano or self._clock.monotonic_us() >= deadline_us:
                return taken

    def _refill(self, purse: Purse, size_nano: int) -> None:
        """Top a purse up in the background, so that calls seldom wait."""
        if self._clock.monotonic_us() < purse.refill_after_us:
            return
        purse.refilling = True

        async def refill() -> None:
            try:
                taken = await self._take(purse, size_nano, on_top=True)
                if taken is None or not taken.granted_nano:
                    purse.refill_after_us = self._clock.monotonic_us() + REFUSED_MEMORY_US
            except Exception:
                # A background refill only saves time: the call that needs the money asks again and reports the failure.
                purse.refill_after_us = self._clock.monotonic_us() + REFUSED_MEMORY_US
            finally:
                purse.refilling = False

        task = asyncio.get_running_loop().create_task(refill())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def return_wanted(self) -> None:
        """Give back what other processes ask for; called a few times a second. Who has nothing does not ask."""
        if not self._purses:
            return
        scopes = await self._run(self._store.wanted)
        assert isinstance(scopes, (list, tuple))
        for scope_id in scopes:  # pyright: ignore[reportUnknownVariableType]
            purse = self._purses.get(str(scope_id))  # pyright: ignore[reportUnknownArgumentType]
            if purse is not None:
                await self._return(purse)

    async def return_idle(self, *, everything: bool = False) -> None:
        """Give back what lies idle, and forget purses with nothing in them; called now and then and at shutdown."""
        before_us = self._clock.monotonic_us() - IDLE_RETURN_US
        for scope_id, purse in list(self._purses.items()):
            if not everything and purse.touched_us > before_us:
                continue
            await self._return(purse)
            idle = not purse.refilling and not purse.filling.locked() and not purse.asking.locked()
            if idle and not purse.held and not purse.free and not purse.unsure:
                if purse.spent:
                    self._spent[scope_id] = purse.spent
                del self._purses[scope_id]
        while len(self._spent) > SPENT_MAX:
            del self._spent[next(iter(self._spent))]
            self._all_remembered = False

    @property
    def remembered(self) -> int:
        """Forgotten purses of which it is known what was spent in them."""
        return len(self._spent)

    async def _return(self, purse: Purse) -> None:
        async with purse.asking:
            free = purse.free
            if free <= 0 and not purse.unsure:
                return
            # After a crash a hold whose end is not on the file would be charged, from money that others have by now.
            self._commit()
            # Less in memory before less in the database: whatever happens to the statement, nothing is spent twice.
            purse.granted -= free
            await self._run(self._store.give_back, purse.scope.id, purse.granted)
            purse.unsure = False

    async def close(self) -> None:
        """Wait for refills under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
