"""The queue: which message goes to which channel, when it is tried again, and how it ended.

    outbox (not routed) ──route──► a delivery per channel that wants it: pending ──claim, send, end──► delivered | dead

Each step is a transaction of its own, none holds one while something is sent. A claim counts the try and puts the next one off by
a lease, so a sender that is killed in between is followed by another; the receiver then sees the same `webhook-id` twice. What is
exact is the message: one per condition, whoever is killed when.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select, text, update

from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.periods import format_second
from farebox.control.channels import Channel
from farebox.control.messages import EVENTS, Letter, letter
from farebox.storage.database import Database
from farebox.storage.tables import accounts, deliveries, outbox

ROUTED_AT_ONCE = 200
CLAIMED_AT_ONCE = 16
CLAIMED_PER_CHANNEL = 2
"""So that a channel that hangs does not keep the others waiting."""
LEASE_US = 120_000_000
"""Longer than any try may take."""
ERROR_CHARACTERS_MAX = 500
KEPT_US = 30 * 86_400_000_000
"""How long an ended delivery is kept, for `alerts deliveries` and `alerts redeliver`."""
LISTED_MAX = 200


class Due(msgspec.Struct, frozen=True):
    """A claimed delivery."""

    id: str
    attempt: int
    """1 for the first try."""
    channel_id: str
    letter: Letter


class Delivery(msgspec.Struct, frozen=True):
    """A delivery as `alerts deliveries` shows it."""

    id: str
    message_id: str
    kind: str
    channel_id: str
    state: str
    attempts: int
    next_us: int
    status: int | None
    error: str
    created_us: int
    ended_us: int | None


_UNROUTED = text("SELECT id, kind, payload FROM outbox WHERE sent_us IS NULL ORDER BY created_us, id LIMIT :most")
_PUT = (
    "INSERT INTO deliveries (id, message_id, channel_id, next_us, created_us) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (message_id, channel_id) DO NOTHING"
)


def route(database: Database, channels: Sequence[Channel], now_us: int) -> int:
    """Make the deliveries of messages that have none yet; how many messages there were."""
    if not database.read(lambda connection: connection.execute(_UNROUTED, {"most": 1}).all()):
        return 0

    def work(connection: Connection) -> int:
        rows = connection.execute(_UNROUTED, {"most": ROUTED_AT_ONCE}).all()
        made: list[tuple[int | str | None, ...]] = []
        for row in rows:
            event = EVENTS.get(row.kind)
            account = msgspec.json.decode(row.payload).get("account")
            for channel in channels:
                if event is not None and channel.wants(event, account):
                    made.append((_id(row.id, channel.id), row.id, channel.id, now_us, now_us))
        database.execute_many(connection, _PUT, made)
        routed = "UPDATE outbox SET sent_us = ? WHERE id = ? AND sent_us IS NULL"
        database.execute_many(connection, routed, [(now_us, row.id) for row in rows])
        return len(rows)

    return database.write(work)


def _id(message_id: str, channel_id: str) -> str:
    return f"{message_id}:{channel_id}"


_DUE = text(
    "SELECT id, message_id, channel_id, attempts FROM ("
    "SELECT d.*, ROW_NUMBER() OVER (PARTITION BY channel_id ORDER BY next_us, id) AS place FROM deliveries AS d "
    "WHERE state = 'pending' AND next_us <= :now) AS due WHERE place <= :each "
    "ORDER BY next_us, id LIMIT :most"
)
_CLAIM = text(
    "UPDATE deliveries SET attempts = attempts + 1, next_us = :lease "
    "WHERE id = :id AND state = 'pending' AND attempts = :attempts"
)


def claim(database: Database, now_us: int) -> list[Due]:
    """Take deliveries that are due; nobody else takes them before the lease ends."""
    marks = {"now": now_us, "each": CLAIMED_PER_CHANNEL, "most": CLAIMED_AT_ONCE}
    if not database.read(lambda connection: connection.execute(_DUE, marks).all()):
        return []

    def work(connection: Connection) -> list[Due]:
        taken: list[Due] = []
        for row in connection.execute(_DUE, marks).all():
            claimed = {"lease": now_us + LEASE_US, "id": row.id, "attempts": row.attempts}
            if connection.execute(_CLAIM, claimed).rowcount:
                taken.append(Due(row.id, row.attempts + 1, row.channel_id, load_letter(connection, row.message_id)))
        return taken

    return database.write(work)


def load_letter(connection: Connection, message_id: str) -> Letter:
    """A message of the outbox with the names that people know."""
    row = connection.execute(select(outbox).where(outbox.c.id == message_id)).one()
    payload: dict[str, Any] = msgspec.json.decode(row.payload)
    named = select(accounts.c.id, accounts.c.name).where(accounts.c.id == str(payload.get("account", "")))
    return letter(
        message_id=row.id,
        kind=row.kind,
        payload=payload,
        window=row.window_name,
        created_at=format_second(row.created_us),
        names={found.id: found.name for found in connection.execute(named)},
    )


def delivered(database: Database, due: Due, status: int | None, now_us: int) -> None:
    """It has arrived."""
    _end(database, due, {"state": "delivered", "status": status, "error": "", "ended_us": now_us})


def failed(database: Database, due: Due, status: int | None, error: str, next_us: int | None, now_us: int) -> None:
    """It has not; it is tried again at `next_us`, or, without one, given up."""
    values: dict[str, Any] = {"status": status, "error": error[:ERROR_CHARACTERS_MAX]}
    values |= {"state": "dead", "ended_us": now_us} if next_us is None else {"next_us": next_us}
    _end(database, due, values)


def _end(database: Database, due: Due, values: dict[str, Any]) -> None:
    # Only as the one who claimed this try: a slow sender does not overwrite what a later one found.
    mine = (deliveries.c.id == due.id) & (deliveries.c.attempts == due.attempt) & (deliveries.c.state == "pending")
    database.write(lambda connection: connection.execute(update(deliveries).where(mine).values(**values)))


def redeliver(database: Database, *, delivery_id: str | None, now_us: int) -> int:
    """Send a delivery again from the start, or all dead ones; how many. The message's id stays."""
    which = deliveries.c.state == "dead" if delivery_id is None else deliveries.c.id == delivery_id
    values = {"state": "pending", "attempts": 0, "next_us": now_us, "ended_us": None}
    changed = database.write(
        lambda connection: connection.execute(
            update(deliveries).where(which, deliveries.c.state != "pending").values(**values)
        ).rowcount
    )
    if not changed and delivery_id is not None:
        raise CommandRefused(f"there is no ended delivery `{delivery_id}`; `farebox alerts deliveries` shows them")
    return changed


def listed(connection: Connection, *, state: str | None = None) -> list[Delivery]:
    """The newest deliveries."""
    columns = [deliveries.c[name] for name in Delivery.__struct_fields__ if name != "kind"]
    query = select(*columns, outbox.c.kind).join(outbox, outbox.c.id == deliveries.c.message_id)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    query = query.order_by(deliveries.c.created_us.desc(), deliveries.c.id).limit(LISTED_MAX)
    return [Delivery(**row) for row in connection.execute(query).mappings()]


def count_dead(connection: Connection) -> int:
    """Deliveries that were given up and not asked for again."""
    return int(connection.execute(text("SELECT COUNT(*) FROM deliveries WHERE state = 'dead'")).scalar_one())


def forget(database: Database, now_us: int) -> None:
    """Remove deliveries that ended long ago. Messages stay: they are what keeps a condition from being told twice."""
    old = text("DELETE FROM deliveries WHERE created_us < :before AND state <> 'pending'")
    database.write(lambda connection: connection.execute(old, {"before": now_us - KEPT_US}))
