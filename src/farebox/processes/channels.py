"""What people want to be told of, and where: the configuration's alert channels and the database's."""

from farebox.billing.accounts.alerts import Watch
from farebox.config import ConfigError, Loaded
from farebox.control import channels
from farebox.control.channels import Channel, ChannelError
from farebox.money import parse_amount
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
