"""Fibers: coroutines that a turn of the loop drives by itself, for as long as they wait for nothing but each other and pieces of
answers.

A task per call costs a tenth of it: the task, its future, a callback of the loop for every step (docs/decisions/0020). A fiber
is a coroutine in a list. All that are ready go on to their next `STEP` before any goes further, so that a processor does the
same for many calls in a row and has code and data of it at hand; then the turn writes what they have to say.

Whatever else a coroutine waits for, a future of the database or of a timer, turns its fiber into a task, which waits as any task
does. Code that needs a task from the start (`asyncio.timeout`, `asyncio.current_task`) asks for it: `await fibers.as_task()`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

from farebox.step import AS_TASK, NEEDS_TASK


class Waiter(Protocol):
    """What one waits for: a future, or as much of one as is used of it here."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...

    def __await__(self) -> Generator[Any, Any, None]: ...


class Handling(Protocol):
    """Something under way that can be waited for and cut off: a fiber, or a task."""

    def done(self) -> bool: ...

    def cancelled(self) -> bool: ...

    def cancel(self) -> bool: ...


class Pause:
    """What a fiber waits for, as `Waiter`. It ends once; who ends it again changes nothing."""

    __slots__ = ("_error", "_fiber", "_over")

    def __init__(self, fiber: "Fiber") -> None:
        self._fiber = fiber
        self._over: bool = False
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._over

    def set_result(self, result: None, /) -> None:
        if not self._over:
            self._over = True
            self._fiber.go_on(self)

    def set_exception(self, exception: BaseException, /) -> None:
        if not self._over:
            self._error = exception
            self.set_result(None)

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._over:
            yield self
        if self._error is not None:
            raise self._error


class Fiber:
    """A coroutine on its way, driven by its turn or, from some point on, by a task."""

    __slots__ = ("_cancelled", "_coroutine", "_fibers", "_over", "_task", "problem", "send", "waits_for")

    def __init__(
        self,
        fibers: "Fibers",
        coroutine: Coroutine[Any, Any, None],
        send: Callable[[None], object],
        problem: BaseException | None = None,
        waits_for: Pause | None = None,
    ) -> None:
        self._fibers = fibers
        self._coroutine = coroutine
        self.send = send
        """The coroutine's."""
        self.problem = problem
        """What is raised where it waits, as soon as it can be."""
        self.waits_for = waits_for
        self._task: asyncio.Task[None] | None = None
        self._over: bool = False
        self._cancelled: bool = False

    def done(self) -> bool:
        return self._over

    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> bool:
        """Raise `CancelledError` where it waits. False when it is over."""
        if self._over:
            return False
        if self._task is not None:
            return self._task.cancel()
        self.problem = asyncio.CancelledError()
        if self.waits_for is not None:
            self.go_on(self.waits_for)
        return True

    def go_on(self, pause: Pause) -> None:
        """What it waits for has come. Nothing happens if it waits for something else by now."""
        if self.waits_for is pause:
            self.waits_for = None
            self._fibers.add(self)

    def wait(self, awaited: object) -> None:
        """It has yielded `awaited`."""
        if type(awaited) is not Pause:
            self._become_task(awaited)
        elif self.problem is not None or awaited.done():
            self._fibers.add(self)
        else:
            self.waits_for = awaited

    def throw(self) -> object:
        """Raise its problem where it waits; what it waits for then."""
        problem, self.problem = self.problem, None
        assert problem is not None, "asked only where there is one"
        return self._coroutine.throw(problem)

    def ended(self, error: BaseException | None = None) -> None:
        """Its coroutine is over. Nobody waits for it, so an error is the loop's to tell."""
        self._over = True
        if error is None:
            return
        if isinstance(error, asyncio.CancelledError):
            self._cancelled = True
            return
        context = {"message": "a handler failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    def _become_task(self, awaited: object) -> None:
        self._task = asyncio.get_running_loop().create_task(_Rest(self._coroutine, awaited))
        self._task.add_done_callback(self._task_ended)
        if self.problem is not None:
            self.problem = None
            self._task.cancel()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self.ended(asyncio.CancelledError() if task.cancelled() else task.exception())


class _Rest(Coroutine[Any, Any, None]):
    """What is left of a coroutine that has begun and waits for something; a task takes no other kind of it."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: object) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def send(self, value: Any) -> Any:
        awaited = self._awaited
        if awaited is not NEEDS_TASK:
            self._awaited = NEEDS_TASK
            return awaited
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        awaited, self._awaited = self._awaited, NEEDS_TASK
        if isinstance(awaited, asyncio.Future):
            awaited.cancel()  # as a task does that has begun to wait for it
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise RuntimeError("only a task goes on with it")


class Fibers:
    """Those of one event loop."""

    def __init__(self, soon: Callable[[], None]) -> None:
        """`soon` sees to it that `advance` is called, when this turn has read what there is to read."""
        self._soon = soon
        self._ready: list[Fiber] = []
        self.running: Fiber | None = None
        """Whose coroutine is on the stack; None in tasks and callbacks."""

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Fiber:
        fiber = Fiber(self, coroutine, coroutine.send)
        self.add(fiber)
        return fiber

    def add(self, fiber: Fiber) -> None:
        """It can go on."""
        if not self._ready:
            self._soon()
        self._ready.append(fiber)

    def waiter(self) -> Waiter:
        """For whoever runs now: to wait for, once."""
        running = self.running
        return asyncio.get_running_loop().create_future() if running is None else Pause(running)

    async def as_task(self) -> None:
        """From here on the coroutine that runs is a task's; nothing happens if it is already."""
        if self.running is not None:
            await AS_TASK

    def advance(self) -> None:
        """Let everybody go on who can, step by step, until all wait for something from outside, or are over."""
        while ready := self._ready:
            self._ready = []
            for fiber in ready:
                self.running = fiber
                try:
                    awaited = fiber.send(None) if fiber.problem is None else fiber.throw()
                except StopIteration:
                    fiber.ended()
                except (Exception, asyncio.CancelledError) as error:
                    fiber.ended(error)
                else:
                    if awaited is None:
                        self._ready.append(fiber)
                    else:
                        fiber.wait(awaited)
        self.running = None
