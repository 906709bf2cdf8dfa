"""The stage: the simulator, a gateway's worker, its bookkeeper and their client, in one event loop, under the month's clock.

The worker and the bookkeeper are those of `farebox serve`. What they do now and then by themselves (rounds, looking for changes)
happens here when the month wants it, between two calls: so the same month comes out the same.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import msgspec

from farebox.app import Worker
from farebox.config import Loaded
from farebox.demo.chance import Dice
from farebox.demo.clock import HouseClock, MonthClock
from farebox.outside import Outside, real_outside
from farebox.ports import TimeOrderedIds
from farebox.processes.bookkeeper import BATCH_RECORDS_MAX, Bookkeeper
from farebox.processes.worker import serve
from farebox.simulator import RunningSimulator
from farebox.storage.database import Database
from farebox.transport import Client, Origin, Prepared, prepare

ANSWER_BYTES_MAX = 16 * 1024 * 1024
START_S = 30.0
STOP_S = 60.0
NEVER = 1_000_000


class Stage:
    """Everything that plays."""

    def __init__(
        self, loaded: Loaded, clock: MonthClock, worker: Worker, bookkeeper: Bookkeeper, port: int, provider_port: int
    ) -> None:
        self.loaded = loaded
        self.clock = clock
        self.ids = TimeOrderedIds(clock)
        """For commands; worker and bookkeeper have their own."""
        self.database = Database.open(loaded.database_url)
        self._worker = worker
        self._bookkeeper = bookkeeper
        self._client = Client()
        self._gateway = Origin("http", "127.0.0.1", port)
        self._provider = Origin("http", "127.0.0.1", provider_port)

    @property
    def now_us(self) -> int:
        return self.clock.now_us()

    def way(self, path: str, headers: list[tuple[str, str]]) -> Prepared:
        """A request to the gateway, made once and sent often."""
        return prepare(self._gateway, "POST", path, [("content-type", "application/json"), *headers])

    async def call(self, way: Prepared, body: bytes) -> tuple[int, bytes]:
        """Status and body, whole."""
        response = await self._client.send(way, body)
        return response.status, await response.read(ANSWER_BYTES_MAX)

    async def order(self, path: str, orders: object) -> None:
        """Tell the simulator how to misbehave (`/control/faults`), or to be good again (`/control/reset`)."""
        way = prepare(self._provider, "POST", f"/control/{path}", [("content-type", "application/json")])
        status, body = await self.call(way, msgspec.json.encode(orders))
        assert status == 200, f"the simulator refuses: {body!r}"

    async def post(self) -> None:
        """What was called is in the ledger, and the worker knows of what that changed."""
        while await asyncio.to_thread(self._bookkeeper.round) >= BATCH_RECORDS_MAX:
            pass
        await self.notice()

    async def notice(self) -> None:
        """The worker looks for changes of keys, budgets and prices, which it does twice a second by itself."""
        self._worker.gateway.keyring.forget()
        await self._worker.renew_prices()

    async def close(self) -> None:
        await self._client.aclose()
        self.database.close()


def for_the_month(loaded: Loaded) -> Loaded:
    """The configuration while the month is played: alerts reach the loopback, and no offer is put aside, since how long that
    lasts is measured, and the month passes a hundred thousand times as fast."""
    config = loaded.config
    health = msgspec.structs.replace(config.health, failures_in_a_row=NEVER, samples_min=NEVER)
    alerts = msgspec.structs.replace(config.alerts, allow_private=True)
    return msgspec.structs.replace(loaded, config=msgspec.structs.replace(config, health=health, alerts=alerts))


@asynccontextmanager
async def stage(loaded: Loaded, clock: MonthClock, seed: int, simulator: RunningSimulator) -> AsyncGenerator[Stage]:
    """Everything started; ended again, and what was posted kept, whatever happens."""
    loaded = for_the_month(loaded)
    real = real_outside({})

    def outside(name: str, house: bool = False) -> Outside:
        return msgspec.structs.replace(
            real, clock=HouseClock(clock) if house else clock, ids=TimeOrderedIds(clock), random=Dice(seed, name)
        )

    bookkeeper = Bookkeeper(loaded, outside("bookkeeper", house=True))
    stop, stop_courier = asyncio.Event(), threading.Event()
    courier = bookkeeper.start_courier(stop_courier)
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = int(listening.getsockname()[1])
    ready: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(loaded, listening, 0, None, outside("worker"), ready.set_result, stop=stop))
    try:
        await asyncio.wait((ready, serving), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise await _reason(serving)
        made = Stage(loaded, clock, ready.result(), bookkeeper, port, simulator.port)
        try:
            yield made
        finally:
            await made.close()
    finally:
        stop.set()
        stop_courier.set()
        await asyncio.wait((serving,), timeout=STOP_S)
        if courier is not None:
            await asyncio.to_thread(courier.join, STOP_S)
        # The end of the worker's life, which it has just written, gives back what it held.
        await asyncio.to_thread(_rest, bookkeeper.round)
        bookkeeper.close()


def _rest(work: Callable[[], int]) -> None:
    while work() >= BATCH_RECORDS_MAX:
        pass


async def _reason(serving: "asyncio.Task[None]") -> BaseException:
    if serving.done():
        return serving.exception() or RuntimeError("the worker ended before it served")
    serving.cancel()
    return TimeoutError(f"the worker was not ready within {START_S} s")
