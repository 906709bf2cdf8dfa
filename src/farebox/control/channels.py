"""To whom: the channels that alerts go through, from the configuration and from the database.

A channel of an account is told of that account's events, one without an account of everything, the operator's events included.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec
from sqlalchemy import Connection, RowMapping, func, insert, select, update

from farebox.billing.books.customers import CommandRefused
from farebox.control.messages import EVENT_TYPES, Event
from farebox.control.signing import derived_secret, secret_bytes
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.tables import accounts, alert_channels
from farebox.transport import Origin

Kind = Literal["webhook", "slack", "email"]
CHANNELS_PER_OWNER_MAX = 10
TARGET_CHARACTERS_MAX = 2_000
ROTATION_US = 24 * 3_600_000_000
"""How long a webhook is signed with the secret before, too."""
CONFIGURED = "config:"
_MAIL = re.compile(r"[^@\s<>,;:\"]{1,64}@[A-Za-z0-9.-]{1,253}")


class Channel(msgspec.Struct, frozen=True):
    """One address. `secrets` sign a webhook, the one in force first."""

    id: str
    """`ch-…`, or `config:NAME` for one of the configuration."""
    kind: Kind
    target: str
    """A URL, or a mail address."""
    account_id: str | None = None
    events: tuple[str, ...] = ()
    """Types, empty for all."""
    secrets: tuple[bytes, ...] = ()

    def wants(self, event: Event, account_id: str | None) -> bool:
        """Whether it is told of an event about an account (None: about none)."""
        if self.account_id is not None and (event.audience != "customer" or self.account_id != account_id):
            return False
        return not self.events or event.type in self.events

    @property
    def shown_target(self) -> str:
        """The target without what is secret in it: of a URL only the origin, since the path may be the credential."""
        if self.kind == "email":
            return self.target
        return "/".join(self.target.split("/", 3)[:3]) + "/…"


class ChannelEntry(Protocol):
    """A `[alerts.channels.NAME]` table."""

    @property
    def kind(self) -> Kind: ...
    @property
    def target(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def events(self) -> tuple[str, ...]: ...
    @property
    def secret(self) -> str: ...
    @property
    def previous_secret(self) -> str: ...


class ChannelError(ValueError):
    """A channel that cannot be; the first argument says which setting."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"`{setting}`: {problem}")


def check_channel(kind: Kind, target: str, events: Sequence[str], *, allow_private: bool) -> None:
    """Raise `ChannelError` unless a channel can be told anything. Addresses are looked at again when it is reached."""
    if kind == "email":
        if _MAIL.fullmatch(target) is None:
            raise ChannelError("target", f"{target!r} is not a mail address such as `ops@example.com`")
    else:
        if len(target) > TARGET_CHARACTERS_MAX:
            raise ChannelError("target", f"a URL has at most {TARGET_CHARACTERS_MAX} characters")
        try:
            origin, _ = Origin.parse(target)
        except ValueError as error:
            raise ChannelError("target", str(error)) from None
        if origin.scheme != "https" and not allow_private:
            raise ChannelError("target", "must be an `https` URL; `alerts.allow_private` allows others for a network of your own")
    for event in events:
        if event not in EVENT_TYPES:
            raise ChannelError("events", f"there is no event `{event}`; known: {', '.join(EVENT_TYPES)}")


def configured(entries: Mapping[str, ChannelEntry], account_ids: Mapping[str, str], *, allow_private: bool) -> list[Channel]:
    """The configuration's channels; `account_ids` are ids by name. Raises `ChannelError`."""
    found: list[Channel] = []
    for name, entry in entries.items():
        try:
            check_channel(entry.kind, entry.target, entry.events, allow_private=allow_private)
            secrets: list[bytes] = []
            if entry.kind == "webhook":
                if not entry.secret:
                    raise ChannelError("secret", "is missing: a receiver could not tell our events from a stranger's")
                secrets = [_secret("secret", entry.secret)]
                secrets += [_secret("previous_secret", entry.previous_secret)] if entry.previous_secret else []
        except ChannelError as error:
            raise ChannelError(f"alerts.channels.{name}", str(error)) from None
        account = None
        if entry.account:
            account = account_ids.get(entry.account, entry.account)
        found.append(Channel(CONFIGURED + name, entry.kind, entry.target, account, entry.events, tuple(secrets)))
    return found


def _secret(setting: str, text: str) -> bytes:
    try:
        return secret_bytes(text)
    except ValueError as error:
        raise ChannelError(setting, str(error)) from None


def _channel(values: RowMapping, pepper: bytes, now_us: int) -> Channel:
    secrets: tuple[bytes, ...] = ()
    if values["kind"] == "webhook":
        generation = values["generation"]
        kept = (generation, generation - 1) if values["previous_until_us"] > now_us else (generation,)
        secrets = tuple(derived_secret(pepper, values["id"], number) for number in kept)
    return Channel(
        values["id"], values["kind"], values["target"], values["account_id"], tuple(values["events"].split()), secrets
    )


def stored(connection: Connection, pepper: bytes, now_us: int) -> list[Channel]:
    """Every channel of the database that was not removed."""
    rows = connection.execute(select(alert_channels).where(alert_channels.c.removed_us.is_(None)).order_by(alert_channels.c.id))
    return [_channel(row, pepper, now_us) for row in rows.mappings()]


def account_ids(connection: Connection) -> dict[str, str]:
    """Accounts' ids by name."""
    return {row.name: row.id for row in connection.execute(select(accounts.c.id, accounts.c.name))}


def add_channel(
    database: Database,
    ids: Ids,
    *,
    kind: Kind,
    target: str,
    account_id: str | None,
    events: Sequence[str],
    allow_private: bool,
    now_us: int,
) -> str:
    """A new channel; its id. Raises `CommandRefused`."""
    try:
        check_channel(kind, target, events, allow_private=allow_private)
    except ChannelError as error:
        raise CommandRefused(str(error)) from None
    made = ids.new("ch")

    def work(connection: Connection) -> None:
        if account_id is not None:
            # Locked, so that two commands do not both find room for one more.
            owner = select(accounts.c.id).where(accounts.c.id == account_id).with_for_update()
            if connection.execute(owner).one_or_none() is None:
                raise CommandRefused(f"the account `{account_id}` does not exist")
        mine = alert_channels.c.account_id.is_(None) if account_id is None else alert_channels.c.account_id == account_id
        count = select(func.count()).select_from(alert_channels).where(mine, alert_channels.c.removed_us.is_(None))
        if connection.execute(count).scalar_one() >= CHANNELS_PER_OWNER_MAX:
            raise CommandRefused(f"there are {CHANNELS_PER_OWNER_MAX} channels already; remove one first")
        row = {"id": made, "account_id": account_id, "kind": kind, "target": target, "events": " ".join(events)}
        connection.execute(insert(alert_channels).values(**row, created_us=now_us))

    database.write(work)
    return made


def remove_channel(database: Database, channel_id: str, *, now_us: int) -> None:
    """From now on nothing is sent there; what was on its way is given up."""
    _change(database, channel_id, {"removed_us": now_us})


def rotate_secret(database: Database, channel_id: str, *, now_us: int) -> None:
    """A new signing secret; the one before signs along for a day."""

    def work(connection: Connection) -> None:
        row = connection.execute(select(alert_channels).where(alert_channels.c.id == channel_id).with_for_update()).one_or_none()
        if row is None or row.removed_us is not None:
            raise CommandRefused(_unknown(channel_id))
        if row.kind != "webhook":
            raise CommandRefused(f"`{channel_id}` is a {row.kind} channel: only webhooks are signed")
        values = {"generation": row.generation + 1, "previous_until_us": now_us + ROTATION_US}
        connection.execute(update(alert_channels).where(alert_channels.c.id == channel_id).values(**values))

    database.write(work)


def _change(database: Database, channel_id: str, values: dict[str, int]) -> None:
    def work(connection: Connection) -> None:
        alive = (alert_channels.c.id == channel_id) & alert_channels.c.removed_us.is_(None)
        if not connection.execute(update(alert_channels).where(alive).values(**values)).rowcount:
            raise CommandRefused(_unknown(channel_id))

    database.write(work)


def _unknown(channel_id: str) -> str:
    if channel_id.startswith(CONFIGURED):
        return f"`{channel_id}` stands in the configuration; change it there"
    return f"there is no channel `{channel_id}`; `farebox alerts list` shows them"
