"""The bookkeeper's courier: the configuration's and the database's alert channels, served in a thread with a loop of its own."""

import asyncio
import threading
from collections.abc import Callable

import msgspec
import uvloop

from farebox.billing.alerts import Watch
from farebox.config import ConfigError, Loaded
from farebox.config_control import SmtpSection
from farebox.control import channels
from farebox.control.channels import Channel, ChannelError
from farebox.control.courier import Courier
from farebox.control.senders import Senders
from farebox.money import parse_amount
from farebox.outside import Outside
from farebox.pepper import read_pepper
from farebox.ports import Clock
from farebox.storage.database import Database


def watch_of(loaded: Loaded) -> Watch:
    """What the configuration wants to be told of."""
    alerts = loaded.config.alerts
    return Watch(
        forecast=alerts.forecast,
        low_balance_nano=parse_amount(alerts.low_balance),
        runway_days=alerts.runway_days,
        spike_factor=alerts.spike_factor,
        spike_min_nano=parse_amount(alerts.spike_min),
    )


def configured_channels(loaded: Loaded, database: Database | None) -> list[Channel]:
    """The channels of the configuration. Raises `ConfigError`; accounts' names are looked up where there is a database."""
    alerts = loaded.config.alerts
    wanted = any(entry.account for entry in alerts.channels.values())
    ids = database.read(channels.account_ids) if wanted and database is not None else {}
    try:
        return channels.configured(alerts.channels, ids, allow_private=alerts.allow_private)
    except ChannelError as error:
        raise ConfigError(f"{loaded.path}: {error}") from None


def all_channels(loaded: Loaded, database: Database, clock: Clock) -> list[Channel]:
    """Every channel there is now. Raises `ConfigError` and `StoreError`."""
    pepper = read_pepper(loaded)
    stored = database.read(lambda connection: channels.stored(connection, pepper, clock.now_us()))
    return [*configured_channels(loaded, database), *stored]


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
