"""The listening side: accepts connections up to a bound, watches over idle and slow ones, stops gracefully."""

import asyncio
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from farebox.edge.http import Handler, HttpAnswer, HttpConnection, Request
from farebox.fiber import Handling
from farebox.ports import Clock
from farebox.turn import Turn

SWEEP_S: Final = 0.5
IDLE_US: Final = 75_000_000
"""A connection without a request for this long is closed."""
BODY_GRACE_US: Final = 5_000_000
BODY_BYTES_PER_S_MIN: Final = 1024
"""After the grace a body must arrive at this rate (security.md §3)."""
LINGER_US: Final = 5_000_000
"""How long a refused client may take to read why."""
TURNED_AWAY_MAX: Final = 256
"""Connections beyond the bound that are told so; more than these are cut."""
CANCEL_S: Final = 5.0
"""How long calls that were cancelled at the end may take to settle."""
FLUSH_S: Final = 5.0
"""How long the last bytes of answers may take to leave at the end."""
FLUSH_POLL_S: Final = 0.02
BACKLOG: Final = 2048

Tell = Callable[[int, str, Request], tuple[bytes, bytes]]
"""`(status, sentence, what is known of the request) -> (header lines, body)` for requests that could not be read."""


class HttpServer:
    """One worker's HTTP server over an inherited listening socket."""

    def __init__(
        self,
        handler: Handler,
        clock: Clock,
        *,
        body_bytes_max: int,
        connections_max: int,
        header_s: float,
        tell: Tell,
        turn: Turn,
    ) -> None:
        self._handler = handler
        self._clock = clock
        self.body_bytes_max = body_bytes_max
        self._connections_max = connections_max
        self._header_us = int(header_s * 1_000_000)
        self._tell = tell
        self.turn = turn
        self._connections: dict[HttpConnection, None] = {}
        self._left: list[Handling] = []
        """Handlers whose clients are gone."""
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.draining = False
        self.now_us = 0
        """Coarse time, set by the sweep, so that a packet costs no clock call."""
        self.date = b""
        self.ok = b""
        """The beginning of every answer with status 200, up to the date."""

    async def start(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick()
        self._server = await self._loop.create_server(lambda: HttpConnection(self), sock=listening, backlog=BACKLOG)
        self._sweeper = self._loop.create_task(self._sweep())

    def run(self, request: Request, answer: HttpAnswer) -> Handling:
        return self.turn.fibers.start(self._handler(request, answer))

    def refuse(self, answer: HttpAnswer, status: int, problem: str) -> None:
        answer.whole(status, *self._tell(status, problem, answer.request))

    def too_large(self) -> tuple[int, str]:
        return 413, f"the request body is larger than {self.body_bytes_max} bytes; send files by URL, or less text"

    def opened(self, connection: HttpConnection) -> None:
        count = len(self._connections)
        if count >= self._connections_max + TURNED_AWAY_MAX:
            connection.abort()
            return
        self._connections[connection] = None
        if self.draining:
            connection.turn_away(503, "the gateway is shutting down; try again in a moment")
        elif count >= self._connections_max:
            connection.turn_away(503, f"all {self._connections_max} connections are in use; try again in a moment")

    def closed(self, connection: HttpConnection) -> None:
        self._connections.pop(connection, None)
        if connection.handler is not None:
            self._left.append(connection.handler)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._tick()
            self._left = [handling for handling in self._left if not handling.done()]
            for connection in list(self._connections):
                self._judge(connection)

    def _tick(self) -> None:
        self.now_us = self._clock.monotonic_us()
        self.date = formatdate(self._clock.now_us() // 1_000_000, usegmt=True).encode()
        self.ok = b"HTTP/1.1 200 OK\r\ndate: %b\r\n" % self.date

    def _judge(self, connection: HttpConnection) -> None:
        if connection.lingering_us:
            if self.now_us - connection.lingering_us > LINGER_US:
                connection.abort()
        elif connection.answer is not None:
            self._check_handler(connection, connection.answer)
        elif connection.reading:
            if connection.is_slow(
                self.now_us,
                header_us=self._header_us,
                body_grace_us=BODY_GRACE_US,
                body_bytes_per_s=BODY_BYTES_PER_S_MIN,
            ):
                connection.time_out()
        elif self.now_us - connection.since_us > IDLE_US or self.draining:
            connection.abort()

    def _check_handler(self, connection: HttpConnection, answer: HttpAnswer) -> None:
        """A handler that ended without an answer has a bug; its client must not wait for ever."""
        if not connection.forsaken:
            return
        if answer.started:
            connection.abort()
        else:
            answer.keep_alive = False
            self.refuse(answer, 500, "an internal error")

    def stop_listening(self) -> None:
        """No new connections; idle ones end now, the others after their answer."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            if connection.answer is not None:
                connection.answer.keep_alive = False
            elif not connection.reading and not connection.lingering_us:
                connection.hang_up()

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls under way, also those of vanished clients, at most `timeout_s`; then cancel them: each settles
        itself on the way out.
        """
        await self._settled(timeout_s)
        for handling in self._handlers():
            handling.cancel()
        await self._settled(CANCEL_S)

    async def _settled(self, timeout_s: float) -> None:
        """Until no call is under way, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while self._handlers() and loop.time() < deadline_s:
            await asyncio.sleep(FLUSH_POLL_S)

    def _handlers(self) -> list[Handling]:
        found = [connection.handler for connection in self._connections]
        return [handling for handling in (*found, *self._left) if handling is not None and not handling.done()]

    async def close(self) -> None:
        """End every connection, after what is already written has left."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.hang_up()
        for _ in range(int(FLUSH_S / FLUSH_POLL_S)):
            if not self._connections:
                return
            await asyncio.sleep(FLUSH_POLL_S)
        for connection in list(self._connections):
            connection.abort()
