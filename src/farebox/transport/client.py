"""The HTTP/1.1 client: sends prepared requests over pooled connections.

One client per event loop. Its only timer is the sweep: every `SWEEP_S` while an exchange is in flight, every
`QUIET_SWEEP_S` while connections are idle, off when there are none.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from farebox.turn import Turn

from .connection import Connection
from .dial import dial
from .errors import Closed, TlsError, Truncated
from .limits import CLOSE_S, QUIET_SWEEP_S, SWEEP_S, PoolLimits, Timeouts
from .origin import Tls
from .pool import OriginPool
from .prepared import Prepared
from .proxy import ProxySettings
from .response import Response
from .tls import make_context

DEFAULT_LIMITS: Final = PoolLimits()
DEFAULT_TIMEOUTS: Final = Timeouts()
NO_PROXIES: Final = ProxySettings()


class Client:
    """Connections to any number of origins. Must be made and used inside one running event loop, and closed there."""

    def __init__(
        self,
        *,
        limits: PoolLimits = DEFAULT_LIMITS,
        proxies: ProxySettings | None = None,
        may_connect: Callable[[str], bool] | None = None,
        turn: Turn | None = None,
    ) -> None:
        """Requests leave at the end of a `turn` of the loop; one of its own, if none is given.

        `may_connect` is asked about each IP address between its look-up and the connection, so that what was checked is what
        is reached. A client that asks has no proxies: they look names up by themselves."""
        if may_connect is not None and proxies is not None:
            raise ValueError("a proxy looks names up by itself: `may_connect` could not be asked about the server's address")
        self._may_connect = may_connect
        self._turn = turn or Turn()
        self._limits = limits
        self._proxies = NO_PROXIES if proxies is None else proxies
        self._pools: dict[str, OriginPool] = {}  # by `Prepared.pool_key`
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping = False
        self._closed = False

    async def send(
        self,
        prepared: Prepared,
        body: bytes = b"",
        *,
        extra_headers: Sequence[tuple[bytes, bytes]] = (),
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        lines: bytes = b"",
    ) -> Response:
        """Send a request; returns when the head of the final response is there.

        The caller reads the response to its end or closes it. Cancelling aborts the connection at once.

        A request is repeated by itself once at most, and only when the first attempt cannot have run: the connection was
        a reused one, it was lost before any byte of a response, and the request had not left or is idempotent. A POST is never
        repeated once it left: instead, an idle connection is proved open before each use (`Connection.is_usable`); when it is
        lost after the request left, the error says `sent=True` and the caller decides.

        `lines` are encoded fields of the caller's own making, see `Prepared.head`.

        Raises `TransportError`, or `ValueError` for `extra_headers` that `prepare` would refuse.
        """
        repeated = False
        while True:
            pool = self._pools.get(prepared.pool_key)
            if pool is None:
                pool = self._open_pool(prepared)
            head = prepared.head(len(body), extra_headers, pool.forward, lines)
            connection = pool.take()
            if connection is None:
                self._start_sweep()  # for the wait
                await self._turn.fibers.as_task()  # its time-outs need one
                connection = await pool.acquire(timeouts)
            if not self._sweeping:
                self._start_sweep()
            reused = connection.reused
            exchange = connection.start(head, body, timeouts, head_only=prepared.head_only)
            waiter = exchange.waiter
            assert waiter is not None, "the loop calls back later, never from within `write`"
            try:
                await waiter
            except BaseException:
                exchange.abandon(Closed("the request was cancelled", sent=True, phase="headers"))
                raise
            answered = exchange.head
            if answered is not None:
                return Response(exchange, answered, answered.status)
            error = exchange.error
            assert error is not None, "an exchange wakes with a head or an error"
            lost = isinstance(error, Truncated) and not exchange.touched
            if not (lost and reused and (prepared.idempotent or not error.sent)) or repeated:
                raise error
            repeated = True

    async def aclose(self) -> None:
        """Abort every exchange and connection; waits up to `CLOSE_S` for the sockets to be closed. Idempotent."""
        self._closed = True
        self._sweeping = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closing = [pool.close() for pool in self._pools.values()]
        self._pools.clear()
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_S)

    def _open_pool(self, prepared: Prepared) -> OriginPool:
        if self._closed:
            raise Closed("the client is closed", sent=False, phase="pool")
        origin = prepared.origin
        proxy = self._proxies.proxy_for(origin)

        async def dial_origin(pool: OriginPool, timeouts: Timeouts) -> Connection:
            context = await self._context(origin.tls) if origin.scheme == "https" else None
            loop = asyncio.get_running_loop()
            return await dial(
                origin,
                proxy=proxy,
                context=context,
                timeouts=timeouts,
                make=lambda: Connection(loop, pool, self._turn),
                may_connect=self._may_connect,
            )

        pool = OriginPool(self._limits, proxy if origin.scheme == "http" else None, dial_origin)
        self._pools[prepared.pool_key] = pool
        return pool

    async def _context(self, tls: Tls) -> ssl.SSLContext:
        context = self._contexts.get(tls)
        if context is None:
            try:
                context = await asyncio.get_running_loop().run_in_executor(None, make_context, tls)
            except (OSError, ssl.SSLError) as error:
                raise TlsError(f"TLS settings cannot be loaded: {error}", sent=False, phase="tls") from error
            self._contexts[tls] = context
        return context

    def _start_sweep(self) -> None:
        if self._sweeping:
            return
        if self._timer is not None:
            self._timer.cancel()  # the quiet one
        self._sweeping = True
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        active = False
        for key, pool in tuple(self._pools.items()):
            active |= pool.sweep(now_s)
            if pool.is_empty:
                del self._pools[key]
        self._sweeping = active
        if active:
            self._timer = loop.call_later(SWEEP_S, self._sweep)
        elif self._pools:
            self._timer = loop.call_later(QUIET_SWEEP_S, self._sweep)
        else:
            self._timer = None
