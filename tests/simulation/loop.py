"""Virtual time: one scheduler, and an event loop for each simulated process.

Every process (a worker, the bookkeeper, the providers, the clients) has a loop of its own, so that killing one is forgetting
its loop: nothing that waits there ever runs again. The scheduler runs what is ready, in an order drawn by the seed, then jumps
to the next timer. No thread, no socket, no clock.
"""

import asyncio
import asyncio.events
import heapq
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from farebox.fiber import Fibers

STEP_US = 1
"""What running one callback takes; so no two records have the same moment."""
TURNS_AT_ONCE_MAX = 200_000
"""Callbacks without time passing; more is an endless loop."""


class Crash(BaseException):
    """The process that was running has been killed at this very statement."""


class Stuck(AssertionError):
    """The world does not come to rest."""


class Scheduler:
    """The clock and the queue of everything that happens."""

    def __init__(self, seed: int, *, shuffled: bool = True) -> None:
        self.random = random.Random(seed)
        self.now_us = 0
        self.leapt_us = 0
        self.turns = 0
        self._shuffled = shuffled
        self._ready: list[tuple[ProcessLoop, asyncio.Handle]] = []
        self._timers: list[tuple[int, int, ProcessLoop, asyncio.Handle]] = []
        self._count = 0

    def soon(self, loop: "ProcessLoop", handle: asyncio.Handle) -> None:
        self._ready.append((loop, handle))

    def at(self, when_us: int, loop: "ProcessLoop", handle: asyncio.Handle) -> None:
        self._count += 1
        heapq.heappush(self._timers, (when_us, self._count, loop, handle))

    def run(self, done: Callable[[], bool], *, until_us: int) -> bool:
        """Go on until `done`, asked each time before the clock moves; False when `until_us` came first."""
        while True:
            self._drain()
            if done():
                return True
            while self._timers and (self._timers[0][3].cancelled() or self._timers[0][2].dead):
                heapq.heappop(self._timers)
            if not self._timers or self._timers[0][0] > until_us:
                self.now_us = max(self.now_us, until_us)
                return False
            self.now_us = max(self.now_us, self._timers[0][0])
            while self._timers and self._timers[0][0] <= self.now_us:
                _, _, loop, handle = heapq.heappop(self._timers)
                self._ready.append((loop, handle))

    def leap(self, length_us: int) -> None:
        """Time in which nothing runs: every timer that became due meanwhile fires once, late."""
        self.now_us += length_us
        self.leapt_us += length_us

    @property
    def awake_us(self) -> int:
        """The time without those leaps."""
        return self.now_us - self.leapt_us

    def _drain(self) -> None:
        ready, draw, shuffled = self._ready, self.random.random, self._shuffled
        turns = 0
        current: ProcessLoop | None = None
        try:
            while ready:
                turns += 1
                if turns > TURNS_AT_ONCE_MAX:
                    raise Stuck(f"{turns} callbacks and no time passes; the last is {ready[-1]}")
                if shuffled and len(ready) > 1:
                    index = int(draw() * len(ready))
                    ready[index], ready[-1] = ready[-1], ready[index]
                    loop, handle = ready.pop()
                else:
                    loop, handle = ready.pop(0)
                if loop.dead or handle.cancelled():
                    continue
                if loop is not current:
                    asyncio.events._set_running_loop(loop)
                    current = loop
                self.now_us += STEP_US
                handle._run()
        finally:
            asyncio.events._set_running_loop(None)
            self.turns += turns


class ProcessLoop(asyncio.AbstractEventLoop):
    """One process's event loop: as much of the interface as the gateway, the simulated provider and asyncio itself use."""

    def __init__(self, scheduler: Scheduler, network: Any, name: str) -> None:
        self.scheduler = scheduler
        self.network = network
        self.name = name
        self.dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.handlers: list[Coroutine[Any, Any, None]] = []
        self.errors: list[str] = []
        self.transports: dict[Any, None] = {}
        self.executor_delay_us: Callable[[], int] = lambda: 0
        self._executors: dict[int, int] = {}
        self._signals: dict[int, Callable[[], object]] = {}

    def __repr__(self) -> str:
        return f"<loop of {self.name}>"

    # Time and callbacks.

    def time(self) -> float:
        return self.scheduler.now_us / 1_000_000

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self.scheduler._ready.append((self, handle))
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            self.scheduler.at(-int(-when * 1_000_000 // 1), self, handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def after(self, delay_us: int, callback: Callable[..., Any], *args: Any) -> None:
        """`call_later` for the simulation itself."""
        if not self.dead:
            self.scheduler.at(self.scheduler.now_us + delay_us, self, asyncio.Handle(callback, args, self))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks[task] = None
        task.add_done_callback(self._task_ended)
        return task

    def look_after(self, fibers: Fibers, *, as_tasks: bool) -> None:
        """Know of every coroutine that a fiber drives; or let tasks drive them, which run in any order."""
        start = fibers.start

        def started(coroutine: Coroutine[Any, Any, None]) -> Any:
            if as_tasks:
                return self.create_task(coroutine)
            self.handlers.append(coroutine)
            return start(coroutine)

        fibers.start = started

    def _task_ended(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.pop(task, None)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            error = context.get("exception")
            self.errors.append(f"{self.name}: {context.get('message')}: {error!r}")

    def doing(self) -> list[str]:
        """The coroutines of its tasks, by name: of a fiber that has become a task, the fiber's."""
        coroutines = (task.get_coro() for task in self.tasks)
        return [getattr(getattr(one, "_coroutine", one), "__qualname__", "") for one in coroutines]

    # Threads, signals: both at a moment of virtual time.

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """One call after the other, as on the single thread that each executor of the gateway has."""
        future = self.create_future()
        key = id(executor)
        start_us = max(self._executors.get(key, 0), self.scheduler.now_us) + self.executor_delay_us()
        self._executors[key] = start_us
        # The answer comes back a moment later: other callbacks run between.
        self.after(start_us - self.scheduler.now_us, self._execute, future, func, args)
        return future

    def _execute(self, future: "asyncio.Future[Any]", func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # The thread's work happens whether or not anybody still waits for it.
        try:
            result = func(*args)
        except Crash:
            return
        except Exception as error:
            self.call_soon(_fail, future, error)
        else:
            self.call_soon(_succeed, future, result)

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        self._signals[sig] = lambda: callback(*args)

    def signal(self, sig: int) -> None:
        """Deliver a signal to the process."""
        self.call_soon(self._signals[sig])

    # Network: `network` decides when anything arrives.

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        return await self.network.resolve(self, host, port)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.network.connect(self, sock, address)

    async def create_connection(self, protocol_factory: Callable[[], Any], *args: Any, sock: Any = None, **_: Any) -> Any:
        return self.network.open(self, protocol_factory, sock)

    async def create_server(self, protocol_factory: Callable[[], Any], *args: Any, sock: Any = None, **_: Any) -> Any:
        return self.network.listen(self, protocol_factory, sock)

    # The end.

    def kill(self) -> None:
        """SIGKILL: nothing here runs again. What its coroutines do while they are taken apart finds a dead world."""
        if self.dead:
            return
        self.dead = True
        self.network.process_died(self)

    def bury(self) -> None:
        """Take the coroutines of a killed process apart, once nothing of it is on the stack."""
        assert self.dead
        for task in self.tasks:
            task._log_destroy_pending = False
        coroutines: list[Any] = [*(task.get_coro() for task in self.tasks), *self.handlers]
        self.tasks.clear()
        self.handlers.clear()
        for coroutine in coroutines:
            for _ in range(50):  # a `finally` may await once more
                try:
                    coroutine.close()
                except (Exception, Crash):
                    continue
                break


def _succeed(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
