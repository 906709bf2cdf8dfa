"""The courier: routes messages to channels and sends them, a bounded number at a time. One per bookkeeper, in its own thread.

It shares nothing with the posting of calls but the database, so a receiver that hangs delays nobody's bill.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence

from farebox.control import deliveries
from farebox.control.channels import Channel
from farebox.control.deliveries import Due
from farebox.control.senders import Outcome, Senders
from farebox.ports import Clock, Random
from farebox.storage.database import Database, StoreError

IDLE_S = 0.5
RETRY_S = 2.0
"""After the database did not answer."""
FORGET_US = 3_600_000_000


class Courier:
    """`round` once, or `run` until told to stop."""

    def __init__(
        self,
        database: Database,
        senders: Senders,
        clock: Clock,
        random: Random,
        *,
        find_channels: Callable[[], Sequence[Channel]],
        retries_s: Sequence[int],
        fail_point: Callable[[str], None],
    ) -> None:
        """`retries_s` are the pauses after the first, second… try; after the last one a delivery is dead."""
        self._database = database
        self._senders = senders
        self._clock = clock
        self._random = random
        self._find_channels = find_channels
        self._retries_s = tuple(retries_s)
        self._fail_point = fail_point
        self._forgot_us = clock.monotonic_us()

    async def run(self, stop: threading.Event, tell: Callable[[object], None]) -> None:
        """Until told to stop. What is not sent by then is sent by the next one."""
        while not stop.is_set():
            pause_s = IDLE_S
            try:
                if await self.round():
                    continue
            except StoreError as error:
                tell(error)
                pause_s = RETRY_S
            await asyncio.to_thread(stop.wait, pause_s)

    async def round(self) -> int:
        """Route what is new, send what is due; how many of both. Raises `StoreError`."""
        now_us = self._clock.now_us()
        channels = await asyncio.to_thread(self._find_channels)
        routed = await asyncio.to_thread(deliveries.route, self._database, channels, now_us)
        due = await asyncio.to_thread(deliveries.claim, self._database, now_us)
        if due:
            self._fail_point("alert.after_claim")
            known = {channel.id: channel for channel in channels}
            await asyncio.gather(*(self._deliver(one, known.get(one.channel_id)) for one in due))
        if self._clock.monotonic_us() - self._forgot_us > FORGET_US:
            self._forgot_us = self._clock.monotonic_us()
            await asyncio.to_thread(deliveries.forget, self._database, now_us)
        return routed + len(due)

    async def _deliver(self, due: Due, channel: Channel | None) -> None:
        if channel is None:
            outcome = Outcome(False, error="its channel was removed", final=True)
        else:
            outcome = await self._senders.send(channel, due.letter)
        self._fail_point("alert.after_send")
        now_us = self._clock.now_us()
        if outcome.ok:
            await asyncio.to_thread(deliveries.delivered, self._database, due, outcome.status, now_us)
            return
        next_us = self._next_us(due.attempt, outcome, now_us)
        await asyncio.to_thread(
            deliveries.failed, self._database, due, outcome.status, outcome.error, next_us, now_us
        )

    def _next_us(self, attempt: int, outcome: Outcome, now_us: int) -> int | None:
        if outcome.final or attempt > len(self._retries_s):
            return None
        pause_us = self._retries_s[attempt - 1] * 1_000_000
        # A tenth more by chance, so that many that failed together do not come back together.
        pause_us += int(pause_us * self._random.uniform()) // 10
        return now_us + max(pause_us, (outcome.retry_after_s or 0) * 1_000_000)
