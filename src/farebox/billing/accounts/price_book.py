"""The price book: proposals of prices, their approval, and the dated versions that are in force for good.

A proposal says what would change and what about it asks for confirmation. Approving it writes the version, which is never changed
again, and bumps the control version, so that running gateways price calls that begin a second later by it.
"""

from typing import Literal

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.outbox import Message, put
from farebox.billing.books.scopes import bump_version
from farebox.catalog.book import Version, price_of, version_name
from farebox.catalog.changes import Change, changes, passed
from farebox.catalog.model import Model, Offer
from farebox.catalog.record import PriceRecord
from farebox.ports import Ids
from farebox.storage.database import Database
from farebox.storage.tables import price_proposals, price_versions

PROPOSALS_MAX = 20_000
State = Literal["proposed", "approved", "rejected"]


class NeedsConfirmation(CommandRefused):
    """A proposal has findings, and nobody has confirmed them."""


class Proposal(msgspec.Struct, frozen=True):
    """A price that somebody proposes for an offer."""

    id: str
    model: str
    version: Version
    source: str
    changes: tuple[Change, ...]
    passed: tuple[str, ...]
    """Classes for which the provider asks more than customers pay now: until it is approved, each such call loses money."""
    state: State = "proposed"
    created_us: int = 0

    @property
    def findings(self) -> list[str]:
        """What asks for confirmation."""
        return [f"{change.place}: {change.finding}" for change in self.changes if change.finding]


def versions(connection: Connection) -> list[Version]:
    """Every approved version, in the order of approval."""
    query = select(price_versions).order_by(price_versions.c.approved_us, price_versions.c.version)
    return [_version(row.version, row) for row in connection.execute(query)]


def _version(name: str, row: object) -> Version:
    record = msgspec.json.decode(getattr(row, "record"), type=PriceRecord)  # noqa: B009 - rows have no type
    return Version(
        name, getattr(row, "provider"), getattr(row, "offer_id"), getattr(row, "variant"), record  # noqa: B009
    )


def revision(connection: Connection) -> int:
    """Grows with every version."""
    return connection.execute(select(func.count()).select_from(price_versions)).scalar_one()


def proposals(connection: Connection, state: State = "proposed") -> list[Proposal]:
    """Proposals in one state, oldest first."""
    query = select(price_proposals).where(price_proposals.c.state == state)
    rows = connection.execute(query.order_by(price_proposals.c.created_us, price_proposals.c.id).limit(PROPOSALS_MAX))
    return [
        Proposal(
            row.id,
            row.model,
            _version(row.version, row),
            row.source,
            msgspec.json.decode(row.changes, type=tuple[Change, ...]),
            msgspec.json.decode(row.passed, type=tuple[str, ...]),
            row.state,
            row.created_us,
        )
        for row in rows
    ]


def compare(model: Model, offer: Offer, record: PriceRecord, *, bp: int, source: str) -> Proposal | None:
    """What a record would change about an offer; None when nothing. `bp` is the usual markup. Raises `PriceError`. Pure."""
    key = (offer.provider, offer.id, offer.variant)
    new = price_of(record, *key)
    current = offer.price_on(record.effective_from)
    if current is None:
        changed = [Change("price", "", "listed", "the offer had no price")]
    else:
        changed = changes(current, new)
        if not changed:
            return None
    over = passed(current, new, bp) if current is not None else []
    return Proposal("", model.slug, Version(version_name(record, *key), *key, record), source, tuple(changed), tuple(over))


def propose(database: Database, ids: Ids, found: list[Proposal], *, now_us: int) -> list[Proposal]:
    """Store proposals that are not waiting already; an alarm goes to the outbox for each that passes our own prices."""

    def work(connection: Connection) -> list[Proposal]:
        waiting = {one.version.version: one for one in proposals(connection)}
        made: list[Proposal] = []
        for one in found:
            known = waiting.get(one.version.version)
            if known is not None:
                made.append(known)
                continue
            stored = msgspec.structs.replace(one, id=ids.new("prop"), created_us=now_us)
            connection.execute(insert(price_proposals).values(**_row(stored)))
            made.append(stored)
            if stored.passed:
                payload: dict[str, str | int] = {
                    "model": stored.model, "provider": stored.version.provider, "classes": " ".join(stored.passed),
                    "proposal": stored.id,
                }  # fmt: skip
                put(database, connection, ids, [Message("margin_alarm", stored.version.version, payload)], now_us)
        return made

    return database.write(work)


def _row(one: Proposal) -> dict[str, object]:
    return {
        "id": one.id, "version": one.version.version, "model": one.model, "provider": one.version.provider,
        "offer_id": one.version.offer_id, "variant": one.version.variant, "source": one.source, "state": one.state,
        "record": msgspec.json.encode(one.version.record).decode(), "changes": msgspec.json.encode(one.changes).decode(),
        "passed": msgspec.json.encode(one.passed).decode(), "created_us": one.created_us,
    }  # fmt: skip


def decide(
    database: Database, ids: Ids, proposal_id: str, state: Literal["approved", "rejected"], *, confirmed: bool, now_us: int
) -> Proposal:
    """Approve or reject a proposal. One with findings is approved only when they are confirmed."""

    def work(connection: Connection) -> Proposal:
        if connection.dialect.name == "postgresql":
            connection.execute(select(price_proposals.c.id).where(price_proposals.c.id == proposal_id).with_for_update())
        found = next((one for one in proposals(connection) if one.id == proposal_id), None)
        if found is None:
            raise CommandRefused(f"there is no proposal `{proposal_id}` that waits for a decision")
        if state == "approved":
            if found.findings and not confirmed:
                raise NeedsConfirmation(f"{found.model} at {found.version.provider}: {'; '.join(found.findings)}")
            _approve(database, connection, ids, found, now_us)
        connection.execute(
            update(price_proposals).where(price_proposals.c.id == proposal_id).values(state=state, decided_us=now_us)
        )
        return msgspec.structs.replace(found, state=state)

    return database.write(work)


def _approve(database: Database, connection: Connection, ids: Ids, found: Proposal, now_us: int) -> None:
    one = found.version
    known = connection.execute(select(price_versions.c.version).where(price_versions.c.version == one.version)).one_or_none()
    if known is not None:
        raise CommandRefused(f"the version `{one.version}` was approved before; a version is never reused: choose another day")
    bump_version(connection)
    last = connection.execute(select(func.coalesce(func.max(price_versions.c.approved_us), 0))).scalar_one()
    connection.execute(
        insert(price_versions).values(
            version=one.version, provider=one.provider, offer_id=one.offer_id, variant=one.variant,
            effective_from=one.record.effective_from, record=msgspec.json.encode(one.record).decode(), source=found.source,
            # The order of approval decides between versions of one day, also when the clock was set back.
            approved_us=max(now_us, last + 1),
        )
    )  # fmt: skip
    payload: dict[str, str | int] = {"model": found.model, "provider": one.provider, "version": one.version}
    put(database, connection, ids, [Message("price_changed", one.version, payload)], now_us)
