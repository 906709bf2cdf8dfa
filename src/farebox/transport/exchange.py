"""One request in flight: what its connection and its `Response` share."""

from collections.abc import Callable
from typing import Final, Protocol

from farebox.fiber import Fibers, Waiter

from .errors import TransportError
from .limits import Timeouts
from .reader import ResponseReader

WAKE_ON_HEAD: Final = 0
"""Value of `Exchange.wanted`: wake when the head is there."""
WAKE_ON_DATA: Final = 1
"""Value of `Exchange.wanted`: wake for any piece of body. Greater values wait until so many bytes are buffered."""


class Carrier(Protocol):
    """What an exchange asks of its connection."""

    def abort(self) -> None:
        """Close the socket at once and give up the slot in the pool."""
        ...

    def resume_reading(self) -> None:
        """The reader has room again."""
        ...


class Exchange(ResponseReader):
    """A request, and the answer that is arriving.

    `carrier` is the connection while it works for this exchange and None from the end of the response on. `waiter` is the
    future of the one task that waits for the head or for body, `wanted` what it waits for. `sink`, while it is set, takes the
    body straight from the socket, without waking that task. `error` is why no more bytes will come; bytes that came before
    it are still delivered.
    """

    __slots__ = ("carrier", "error", "fibers", "sink", "timeouts", "waiter", "wanted")

    def __init__(
        self,
        *,
        fibers: Fibers,
        carrier: Carrier | None,
        timeouts: Timeouts,
        waiter: Waiter | None,
        error: TransportError | None = None,
        sink: Callable[[bytes], bool] | None = None,
        wanted: int = WAKE_ON_HEAD,
        head_only: bool = False,
    ) -> None:
        super().__init__(head_only=head_only)
        self.fibers = fibers
        self.carrier = carrier
        self.timeouts = timeouts
        self.waiter = waiter
        self.error = error
        self.sink = sink
        self.wanted = wanted

    def wake(self) -> None:
        """Let the waiting task look."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():  # done: its task was cancelled in this turn of the loop
                waiter.set_result(None)

    def take(self) -> bytes:
        """Everything that is buffered, as one piece."""
        body = self.body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self.buffered = 0
        return data

    def deliver(self) -> None:
        """Give what is buffered to the sink; it ends with False, or with its exception, which the waiting task gets."""
        sink = self.sink
        if sink is None or not self.body:
            return
        try:
            more = sink(self.take())
        except Exception as error:
            self.sink = None
            waiter, self.waiter = self.waiter, None
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
            return
        if not more:
            self.sink = None
            self.wake()

    def finish(self, error: TransportError | None = None) -> None:
        """No more bytes will come: the response is complete, or `error` is why it is not."""
        self.carrier = None
        self.error = error
        self.drop_parser()
        self.wake()

    def abandon(self, error: TransportError) -> None:
        """The owner wants no more. An unfinished response costs the connection, at once."""
        carrier = self.carrier
        if carrier is not None:
            self.finish(error)
            carrier.abort()
