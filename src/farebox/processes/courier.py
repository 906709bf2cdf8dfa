"""The bookkeeper's courier: the configuration's and the database's alert channels, served in a thread with a loop of its own."""

import asyncio
import threading
from collections.abc import Callable

import msgspec
import uvloop

from farebox.config import Loaded
from farebox.config.control import SmtpSection
from farebox.control.courier import Courier
from farebox.control.senders import Senders
from farebox.outside import Outside
from farebox.pepper import read_pepper
from farebox.ports import Clock
from farebox.processes.channels import all_channels, configured_channels
from farebox.storage.database import Database


def make_senders(loaded: Loaded, clock: Clock) -> Senders:
    """On the running event loop."""
    alerts = loaded.config.alerts
    smtp: SmtpSection | None = alerts.smtp
    if smtp is not None and smtp.ca_file is not None:
        smtp = msgspec.structs.replace(smtp, ca_file=str(loaded.folder / smtp.ca_file))
    return Senders(clock, smtp=smtp, allow_private=alerts.allow_private)


def start(
    loaded: Loaded, outside: Outside, database: Database, stop: threading.Event, tell: Callable[[object], None]
) -> threading.Thread:
    """Run the courier until `stop` is set. Raises `ConfigError` when a channel or the pepper cannot be used."""
    read_pepper(loaded)
    configured_channels(loaded, None)

    async def work() -> None:
        senders = make_senders(loaded, outside.clock)
        try:
            courier = Courier(
                database,
                senders,
                outside.clock,
                outside.random,
                find_channels=lambda: all_channels(loaded, database, outside.clock),
                retries_s=loaded.config.alerts.retries_s,
                fail_point=outside.fail_point,
            )
            await courier.run(stop, tell)
        finally:
            await senders.close()

    def main() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())

    thread = threading.Thread(target=main, name="courier", daemon=True)
    thread.start()
    return thread
