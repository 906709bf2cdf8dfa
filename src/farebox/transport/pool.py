"""The connections to one origin: reuse, bounds, and the queue when they are all busy.

A *slot* is the right to one open connection; there are `connections_per_origin_max`. A slot is taken before dialling and
given back when the connection is gone, at which moment the first waiter gets it. A connection whose response ended goes to
the first waiter too, else on the stack of idle ones: the most recently used is the most likely to be still open.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from .connection import Connection
from .errors import Closed, ConnectError, PoolFull, PoolTimeout
from .limits import PoolLimits, Timeouts
from .proxy import Proxy

_Waiter = asyncio.Future[Connection | None]
"""Resolves to a connection to use, or to None: a slot, already taken, to dial with."""


class OriginPool:
    """An owner of connections. Its calls come from one event loop; only `acquire` waits.

    `forward` is the proxy to write absolute-form requests for, if there is one.
    """

    def __init__(
        self,
        limits: PoolLimits,
        forward: Proxy | None,
        dial: Callable[["OriginPool", Timeouts], Awaitable[Connection]],
    ) -> None:
        self.forward = forward
        self._limits = limits
        self._dial = dial
        self._slots = 0
        self._open: dict[Connection, None] = {}
        self._idle: list[Connection] = []
        self._waiters: deque[tuple[float, _Waiter]] = deque()
        self._closing: set[Connection] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._closed = False

    # For requests.

    def take(self) -> Connection | None:
        """The most recently used idle connection that is provably open, or None; never waits."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.abort()
        return None

    async def acquire(self, timeouts: Timeouts) -> Connection:
        """A connection: idle, new, or the next to become free.

        Raises `PoolFull`, `PoolTimeout`, `Closed`, and what dialling raises; all with `sent=False`.
        """
        while True:
            if self._closed:
                raise Closed("the client is closed", sent=False, phase="pool")
            connection = self.take()
            if connection is not None:
                return connection
            if self._slots < self._limits.connections_per_origin_max:
                self._slots += 1
            else:
                connection = await self._wait()
                if connection is not None:
                    if connection.is_usable():
                        return connection
                    connection.abort()  # closed between hand-over and now; its slot is free again
                    continue
            return await self._connect(timeouts)

    async def _connect(self, timeouts: Timeouts) -> Connection:
        """Dial with a slot already taken; give it back on failure."""
        try:
            connection = await self._dial(self, timeouts)
        except BaseException:
            self._give_back()
            raise
        if self._closed or connection.gone:
            self._give_back()
            connection.abort()
            if self._closed:
                raise Closed("the client is closed", sent=False, phase="pool")
            raise ConnectError("the server hung up before the request", sent=False, phase="connect")
        self._open[connection] = None
        return connection

    async def _wait(self) -> Connection | None:
        if len(self._waiters) >= self._limits.waiters_per_origin_max:
            raise PoolFull(f"{len(self._waiters)} calls already wait for a connection", sent=False, phase="pool")
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        self._waiters.append((loop.time() + self._limits.acquire_s, waiter))
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It was served in the same turn of the loop: pass the gift on.
                connection = waiter.result()
                if connection is None:
                    self._give_back()
                else:
                    self.release(connection)
            raise

    def _next_waiter(self) -> _Waiter | None:
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _give_back(self) -> None:
        """A slot is free: hand it to the first waiter."""
        waiter = self._next_waiter()
        if waiter is None:
            self._slots -= 1
        else:
            waiter.set_result(None)

    # For connections.

    def release(self, connection: Connection) -> None:
        """Its response ended cleanly; it can carry another request."""
        if self._waiters:
            waiter = self._next_waiter()
            if waiter is not None:
                waiter.set_result(connection)
                return
        if self._closed or connection.gone or len(self._idle) >= self._limits.idle_per_origin_max:
            connection.abort()
        else:
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """It carries no more requests."""
        if connection in self._open:
            del self._open[connection]
            self._closing.add(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._give_back()

    def lost(self, connection: Connection) -> None:
        """Its socket is closed."""
        self._closing.discard(connection)
        if self._emptied is not None and not self._closing and not self._emptied.done():
            self._emptied.set_result(None)

    # For the client.

    def sweep(self, now_s: float) -> bool:
        """Apply the time-outs. Returns whether any call is waiting or in flight."""
        active = False
        for connection in tuple(self._open):
            active |= connection.check(now_s, self._limits.idle_s)
        while self._waiters and (self._waiters[0][1].done() or self._waiters[0][0] < now_s):
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                message = f"no connection became free within {self._limits.acquire_s} s"
                waiter.set_exception(PoolTimeout(message, sent=False, phase="pool"))
        return active or bool(self._waiters)

    @property
    def is_empty(self) -> bool:
        """No connection, none being opened or closed, nobody waiting."""
        return not (self._slots or self._waiters or self._closing)

    def close(self) -> "asyncio.Future[None]":
        """Abort every connection and fail every call. The future resolves when the sockets are closed."""
        self._closed = True
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(Closed("the client was closed", sent=False, phase="pool"))
        for connection in tuple(self._open):
            connection.fail(Closed("the client was closed", sent=True, phase="body"))
        self._emptied = asyncio.get_running_loop().create_future()
        if not self._closing:
            self._emptied.set_result(None)
        return self._emptied
