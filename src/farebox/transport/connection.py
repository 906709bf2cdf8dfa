"""One socket to one server: writes a request, reads its response, one exchange at a time.

An `asyncio.Protocol`: the event loop calls it, nothing here waits. Time-outs need no timer per request: whatever happens
only leaves a mark (`_progress`), and the client's sweep (`check`) turns marks into times. So an exchange reads no clock.
"""

import asyncio
import select
from typing import Protocol, cast

from farebox.turn import Turn

from .errors import ChunkTimeout, HeadersTimeout, TotalTimeout, TransportError, Truncated
from .exchange import Exchange
from .limits import JOIN_BYTES_MAX, READ_BUFFER_BYTES_MAX, WRITE_SLICE_BYTES, Timeouts


class Owner(Protocol):
    """What a connection tells its pool."""

    def release(self, connection: "Connection") -> None:
        """Its response ended cleanly; it can carry another request."""
        ...

    def forget(self, connection: "Connection") -> None:
        """It carries no more requests. Called once."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Its socket is closed. Called once, after `forget`."""
        ...


class Connection(asyncio.Protocol):
    """A connection after its handshakes.

    `reused` is True from the second request on: then a lost connection may only mean that the server closed an idle one.
    """

    __slots__ = (
        "_exchange",
        "_loop",
        "_owner",
        "_poll",
        "_progress",
        "_quiet_since_s",
        "_reading_paused",
        "_started",
        "_started_s",
        "_transport",
        "_turn",
        "_turn_started",
        "_unsent",
        "_writing_paused",
        "gone",
        "reused",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, turn: Turn) -> None:
        self._loop = loop
        self._owner = owner
        self._turn = turn
        self._turn_started = 0
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._exchange: Exchange | None = None
        self._unsent: memoryview | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._progress = True
        self._started = False
        self._quiet_since_s = 0.0
        self._started_s = 0.0
        self.gone = False
        self.reused = False

    # Requests.

    def is_usable(self) -> bool:
        """Whether an idle connection is provably still open as of now.

        A server that closed it, or sent something unasked, has made the socket readable even when the event loop has not
        come to see it. Asking the kernel (about 1 µs) keeps a POST from being written to a connection already closed,
        after which nobody could tell whether it ran.
        """
        transport, poll = self._transport, self._poll
        if self.gone or transport is None or poll is None or transport.is_closing():
            return False
        return not poll.poll(0)

    def start(self, head: bytes, body: bytes, timeouts: Timeouts, *, head_only: bool) -> Exchange:
        """Write a request. The waiter of the exchange wakes when the response head is there or the exchange failed."""
        transport = self._transport
        assert transport is not None and self._exchange is None and not self.gone
        turn = self._turn
        self._exchange = exchange = Exchange(
            fibers=turn.fibers, carrier=self, timeouts=timeouts, waiter=turn.fibers.waiter(), head_only=head_only
        )
        self._progress = self._started = True
        self._turn_started = turn.number
        turn.send(transport, head + body if len(body) <= JOIN_BYTES_MAX else head)
        if len(body) > JOIN_BYTES_MAX:
            turn.flush()
            self._unsent = memoryview(body)
            self._write_more()
        return exchange

    def _write_more(self) -> None:
        """Hand slices to the socket while it takes them; `resume_writing` continues."""
        unsent, transport = self._unsent, self._transport
        if unsent is None or transport is None:
            return
        self._progress = True
        while unsent and not self._writing_paused:
            # Advance first: `write` may call `pause_writing`, or lose the connection, before it returns.
            part, unsent = unsent[:WRITE_SLICE_BYTES], unsent[WRITE_SLICE_BYTES:]
            self._unsent = unsent or None
            transport.write(part)
            if self._transport is None:
                return

    def abort(self) -> None:
        """Close the socket without waiting for anything, and give up the slot in the pool. Idempotent."""
        transport = self._transport
        self._exchange = self._unsent = None
        if not self.gone:
            self.gone = True
            self._owner.forget(self)
        if transport is not None:
            transport.abort()

    def fail(self, error: TransportError) -> None:
        """End the exchange with `error` and abort."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.finish(error)
        self.abort()

    # Time.

    def check(self, now_s: float, idle_s: float) -> bool:
        """Compare marks with the limits; called by the sweep with the loop's time. Returns whether an exchange is on."""
        exchange = self._exchange
        if self._progress or self._reading_paused:
            self._progress = False
            self._quiet_since_s = now_s
            if self._started:
                self._started = False
                self._started_s = now_s
        quiet_s = now_s - self._quiet_since_s
        if exchange is None:
            if quiet_s >= idle_s:
                self.abort()
            return False
        limits = exchange.timeouts
        if now_s - self._started_s > limits.total_s:
            phase = exchange.phase
            self.fail(TotalTimeout(f"the exchange took longer than {limits.total_s} s", sent=True, phase=phase))
        elif self._unsent is not None:
            if quiet_s > limits.chunk_s:
                self.fail(ChunkTimeout(f"the server took no request bytes for {limits.chunk_s} s", sent=True, phase="request"))
        elif exchange.head is None:
            if quiet_s > limits.headers_s:
                self.fail(HeadersTimeout(f"no response head within {limits.headers_s} s", sent=True, phase="headers"))
        elif quiet_s > limits.chunk_s:
            self.fail(ChunkTimeout(f"no response bytes for {limits.chunk_s} s", sent=True, phase="body"))
        return True

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(cast(asyncio.Transport, transport))

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over a transport; called by the dialler where TLS was started on an existing one."""
        self._transport = transport
        socket = transport.get_extra_info("socket")
        self._poll = select.poll()
        self._poll.register(socket.fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # bytes nobody asked for
            return
        try:
            exchange.feed(data)
        except TransportError as error:
            self.fail(error)
            return
        if exchange.complete:
            self._complete(exchange)
            return
        if exchange.head is None:
            return
        self._progress = True
        if self._unsent is not None:
            # The answer came before the request was over. It is the answer; the rest of the request is not wanted.
            self._unsent = None
            exchange.reusable = False
        if exchange.sink is not None:
            exchange.deliver()
            return
        if exchange.buffered > READ_BUFFER_BYTES_MAX and not self._reading_paused:
            self._reading_paused = True
            self._transport_now().pause_reading()
        if exchange.buffered >= exchange.wanted:
            exchange.wake()

    def _complete(self, exchange: Exchange) -> None:
        """The response is here: the connection is free before the caller has read it."""
        transport = self._transport_now()
        self._exchange = None
        # With request bytes still unwritten this was an early answer: the server may read them as the next request.
        written = self._unsent is None and not self._writing_paused
        reusable = exchange.reusable and written and not transport.is_closing()
        exchange.finish()
        if not reusable:
            self.abort()
            return
        if self._reading_paused:
            self.resume_reading()
        self._progress = self.reused = True
        self._owner.release(self)

    def resume_reading(self) -> None:
        """The reader has room again."""
        if self._reading_paused:
            self._reading_paused = False
            self._progress = True
            transport = self._transport
            if transport is not None and not transport.is_closing():
                transport.resume_reading()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._write_more()

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._transport = None
        self._poll = None
        self._owner.lost(self)

    def _ended(self, exc: Exception | None) -> None:
        """No more bytes will come from the server."""
        exchange = self._exchange
        if exchange is not None:
            try:
                if self._turn_started == self._turn.number:
                    raise Truncated("the server closed the connection before the request left", sent=False, phase="request")
                if exc is not None:
                    raise Truncated(f"the connection was lost: {exc}", sent=True, phase=exchange.phase)
                exchange.feed_eof()
            except TransportError as error:
                self.fail(error)
                return
            self._exchange = None
            exchange.finish()
        self.abort()

    def _transport_now(self) -> asyncio.Transport:
        transport = self._transport
        assert transport is not None, "the event loop calls only between connection_made and connection_lost"
        return transport
