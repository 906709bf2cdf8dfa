"""What a caller gets for a request: the head, and the body as it arrives."""

from collections.abc import Callable
from typing import Final

from .errors import BodyTooLarge, Closed, GivenUp
from .exchange import WAKE_ON_DATA, Exchange
from .head import Head
from .limits import READ_BUFFER_BYTES_MAX

NEVER: Final = 2**62
"""More bytes than are ever buffered: wait for the end only."""


class Response:
    """A response whose head has arrived.

    Read the body to its end, or `close`: until then the response occupies a connection. Not for two tasks at once.
    """

    __slots__ = ("_exchange", "_head", "_left", "status")

    def __init__(self, exchange: Exchange, head: Head, status: int) -> None:
        self._exchange = exchange
        self._head = head
        self.status = status
        """100 to 999; never an interim one."""
        self._left: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All fields in order, names in lower case; a new list at every call. For a few fields `header` is cheaper."""
        return self._head.fields()

    def header(self, name: bytes) -> bytes | None:
        """The first field of that lower-case name, None when there is none."""
        return self._head.get(name)

    async def next_chunk(self) -> bytes:
        """Everything that arrived since the last call, waiting only when that is nothing; `b""` at the end of the body.

        Raises `ChunkTimeout`, `TotalTimeout`, `ProtocolError`, `Truncated` or `Closed`, after the bytes that came before
        the failure were returned. A cancelled wait closes the response.
        """
        exchange = self._exchange
        body = exchange.body
        if not body:
            if exchange.complete:
                return b""
            await self._wait(WAKE_ON_DATA)
            if not body:
                return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        # The consumer takes everything, so what remains, nothing, is below any mark for resuming.
        exchange.buffered = 0
        carrier = exchange.carrier
        if carrier is not None:
            carrier.resume_reading()
        return data

    def at_once(self, bytes_max: int) -> bytes | None:
        """The whole body, if it is here in one piece and no larger; else None, and `read` gets it."""
        exchange = self._exchange
        body = exchange.body
        if exchange.complete and len(body) == 1 and len(body[0]) <= bytes_max:
            return body.pop()
        return None

    async def read(self, bytes_max: int) -> bytes:
        """The rest of the body, to its end.

        Raises `BodyTooLarge` as soon as more than `bytes_max` bytes are certain to come, and closes the response;
        otherwise as `next_chunk`.
        """
        exchange = self._exchange
        parts: list[bytes] = []
        size = 0
        while not exchange.complete:
            if size + (exchange.missing or 0) > bytes_max:
                self._refuse(bytes_max)
            # One waking for the whole body, or for half a buffer of it: well before reading would pause.
            await self._wait(READ_BUFFER_BYTES_MAX // 2)
            if exchange.complete:
                break
            part = await self.next_chunk()
            size += len(part)
            if size > bytes_max:
                self._refuse(bytes_max)
            parts.append(part)
        rest = exchange.body
        data = rest[0] if len(rest) == 1 and not parts else b"".join(parts + rest)
        rest.clear()
        if len(data) > bytes_max:
            self._refuse(bytes_max)
        return data

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """Give every piece of the body to `sink` as it arrives, without a switch of tasks, until it returns False.

        True when the sink stopped it (call again to go on), False at the end of the body. Raises as `next_chunk`, and what the
        sink raises. A cancelled wait closes the response.
        """
        exchange = self._exchange
        while True:
            if exchange.body:
                data = exchange.take()
                carrier = exchange.carrier
                if carrier is not None:
                    carrier.resume_reading()
                if not sink(data):
                    return True
            if exchange.complete:
                return False
            if exchange.error is not None:
                raise exchange.error
            exchange.sink = sink
            try:
                await self._wait(NEVER)
            finally:
                stopped = exchange.sink is None
                exchange.sink = None
            if stopped:
                return True

    def give_up(self, message: str) -> None:
        """End it in its owner's name: whoever waits for the rest gets `GivenUp`. Nothing happens to a complete response."""
        exchange = self._exchange
        if exchange.carrier is not None:
            exchange.abandon(GivenUp(message, sent=True, phase="body"))

    def leave_to_end(self) -> None:
        """Nothing is wanted any more but the end of the body: when it comes, its connection can be used again. Nobody waits
        for it; a byte before it, or a time-out, costs the connection. `close` does nothing from here on.
        """
        self._left = True
        exchange = self._exchange
        carrier = exchange.carrier
        if carrier is None:
            return

        def cut(_data: bytes) -> bool:
            carrier.abort()
            return False

        if exchange.body:
            carrier.abort()
        else:
            exchange.sink = cut

    def close(self) -> None:
        """Give up the rest of the body. Idempotent.

        A connection whose response had fully arrived is back in the pool already; any other is aborted at once.
        """
        if self._exchange.carrier is not None and not self._left:
            self._exchange.abandon(Closed("the response was closed by its owner", sent=True, phase="body"))

    async def _wait(self, wanted: int) -> None:
        """Until `wanted` bytes are buffered or no more will come. Raises the failure when nothing is buffered."""
        exchange = self._exchange
        if exchange.error is None and exchange.buffered < wanted:
            if exchange.waiter is not None:
                raise RuntimeError("two tasks read one response")
            waiter = exchange.waiter = exchange.fibers.waiter()
            exchange.wanted = wanted
            try:
                await waiter
            except BaseException:
                exchange.waiter = None
                self.close()
                raise
        if exchange.error is not None and not exchange.body:
            raise exchange.error

    def _refuse(self, bytes_max: int) -> None:
        self._exchange.body.clear()
        self.close()
        raise BodyTooLarge(f"the response body is longer than {bytes_max} bytes", sent=True, phase="body")
