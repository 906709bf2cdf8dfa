"""Fibers: what a turn drives by itself, and what becomes a task."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from farebox.fiber import Fiber, Fibers
from farebox.step import STEP
from farebox.turn import Turn


async def step() -> None:
    await STEP


class World:
    """A turn's fibers, what they did, and what the loop was told."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.fibers: Fibers = self.turn.fibers
        self.story: list[str] = []
        self.told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.told.append(context))

    def start(self, name: str, *parts: Callable[[], Awaitable[object]]) -> Fiber:
        async def coroutine() -> None:
            try:
                for number, part in enumerate(parts):
                    self.story.append(f"{name}{number}")
                    await part()
                self.story.append(f"{name} ends")
            except BaseException as error:
                self.story.append(f"{name}: {type(error).__name__}")
                raise

        return self.fibers.start(coroutine())


@pytest.fixture
async def world() -> World:
    return World()


async def turn_over() -> None:
    await asyncio.sleep(0)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0)


async def test_all_come_as_far_before_any_goes_on_and_it_takes_one_turn(world: World) -> None:
    a, b = world.start("a", step, step), world.start("b", step, step)
    assert world.story == [] and not a.done(), "nothing runs within the callback that starts it"
    await turn_over()
    assert world.story == ["a0", "b0", "a1", "b1", "a ends", "b ends"]
    assert a.done() and b.done() and not a.cancelled() and world.fibers.running is None


async def test_what_it_says_leaves_behind_its_records_in_the_same_turn() -> None:
    story: list[str] = []
    turn = Turn(lambda: story.append("records"), story.append)

    class Sink:
        def is_closing(self) -> bool:
            return False

        def abort(self) -> None: ...

        def write(self, data: bytes) -> None:
            story.append(data.decode())

    async def call() -> None:
        await STEP
        turn.send(Sink(), b"bytes")

    turn.fibers.start(call())
    await turn_over()
    assert story == ["records", "turn.after_commit", "bytes", "turn.after_send"]


async def test_it_waits_for_a_pause_and_for_no_other(world: World) -> None:
    pauses: list[Any] = []

    async def pause() -> None:
        pauses.append(world.fibers.waiter())
        await pauses[-1]

    fiber = world.start("a", pause, pause)
    await turn_over()
    assert world.story == ["a0"]
    pauses[0].set_result(None)
    assert pauses[0].done()
    await turn_over()
    assert world.story == ["a0", "a1"]
    pauses[0].set_result(None)
    pauses[0].set_exception(OSError("late"))
    await turn_over()
    assert world.story == ["a0", "a1"], "a pause ends once, and wakes nobody who waits for another"
    pauses[1].set_exception(OSError("lost"))
    await turn_over()
    assert world.story[-1] == "a: OSError" and fiber.done()
    assert [context["exception"].args for context in world.told] == [("lost",)]


async def test_a_pause_that_is_over_before_anybody_waits_is_not_waited_for(world: World) -> None:
    async def over() -> None:
        pause = world.fibers.waiter()
        pause.set_result(None)
        await pause

    async def failed() -> None:
        pause = world.fibers.waiter()
        pause.set_exception(OSError("at once"))
        with pytest.raises(OSError, match="at once"):
            await pause

    fiber = world.start("a", over, failed)
    await turn_over()
    assert fiber.done() and world.told == []


async def test_what_waits_for_anything_else_becomes_a_task(world: World) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    seen: list[object] = []

    async def wait() -> None:
        seen.append(world.fibers.running)
        seen.append(await future)
        seen.append(world.fibers.running)
        async with asyncio.timeout(5):
            await STEP

    fiber = world.start("a", wait, wait)
    await turn_over()
    await turn_over()
    assert seen == [fiber]
    future.set_result("came")
    await until(fiber.done)
    assert seen == [fiber, "came", None, None, "came", None] and world.story[-1] == "a ends" and world.told == []


async def test_an_error_of_what_it_waits_for_reaches_it(world: World) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    fiber = world.start("a", lambda: future)
    await turn_over()
    future.set_exception(OSError("gone"))
    await until(fiber.done)
    assert world.story == ["a0", "a: OSError"] and len(world.told) == 1 and not fiber.cancelled()


async def test_a_task_is_made_on_request_and_only_then(world: World) -> None:
    async def bounded() -> None:
        await world.fibers.as_task()
        await world.fibers.as_task()
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        assert world.fibers.running is None

    fiber = world.start("a", bounded)
    other = world.start("b", step)
    await turn_over()
    assert other.done() and not fiber.done()
    await until(fiber.done)
    assert world.story == ["a0", "b0", "b ends", "a ends"] and world.told == []


@pytest.mark.parametrize("where", ["pause", "future", "step", "begun", "itself"])
async def test_a_fiber_is_cut_off_wherever_it_waits(world: World, where: str) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    fibers: list[Fiber] = []

    async def cut_itself() -> None:
        fibers[0].cancel()
        await world.fibers.waiter()

    async def cut_the_first() -> None:
        if where == "step":
            fibers[0].cancel()

    async def pause() -> None:
        await world.fibers.waiter()

    parts: dict[str, Any] = {"pause": pause, "future": lambda: future, "step": step, "begun": step, "itself": cut_itself}
    fibers.append(world.start("a", parts[where]))
    world.start("b", cut_the_first)
    if where == "begun":
        assert fibers[0].cancel()
    await turn_over()
    if where in ("pause", "future"):
        assert fibers[0].cancel()
    await until(fibers[0].done)
    assert fibers[0].cancelled() and not fibers[0].cancel() and world.told == []
    assert [line for line in world.story if line.startswith("a")] == ([] if where == "begun" else ["a0", "a: CancelledError"])
    assert where != "future" or future.cancelled()


async def test_cut_off_between_its_yield_and_its_task(world: World) -> None:
    """The task has not begun, but the coroutine has, and has to learn of it."""
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    fiber = world.start("a", lambda: future)
    world.fibers.advance()
    assert fiber.cancel() and world.story == ["a0"]
    await until(fiber.done)
    assert world.story == ["a0", "a: CancelledError"] and fiber.cancelled()


async def test_cut_off_by_itself_before_it_waits_for_a_future(world: World) -> None:
    """Its task begins with what the fiber has not been told yet."""
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    fibers: list[Fiber] = []

    async def cut_itself() -> None:
        fibers[0].cancel()
        await future

    fibers.append(world.start("a", cut_itself))
    await until(fibers[0].done)
    assert world.story == ["a0", "a: CancelledError"] and fibers[0].cancelled() and future.cancelled()


async def test_who_does_not_mind_goes_on(world: World) -> None:
    async def stubborn() -> None:
        with pytest.raises(asyncio.CancelledError):
            await world.fibers.waiter()

    fiber = world.start("a", stubborn, step)
    await turn_over()
    fiber.cancel()
    await turn_over()
    assert world.story == ["a0", "a1", "a ends"] and fiber.done() and not fiber.cancelled()


async def test_one_that_fails_keeps_nobody_up(world: World) -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    failed, other = world.start("a", fail), world.start("b", step)
    await turn_over()
    assert failed.done() and other.done() and world.story == ["a0", "a: ValueError", "b0", "b ends"]
    assert [str(context["exception"]) for context in world.told] == ["a bug"]


async def test_outside_of_fibers_one_waits_for_futures(world: World) -> None:
    waiter = world.fibers.waiter()
    assert isinstance(waiter, asyncio.Future)
    waiter.set_result(None)
    await waiter
    await world.fibers.as_task()


async def test_a_fiber_started_by_a_fiber_runs_in_the_same_turn(world: World) -> None:
    async def start() -> None:
        world.start("b", step)

    world.start("a", start)
    await turn_over()
    assert world.story == ["a0", "a ends", "b0", "b ends"]
