"""Allotments: slices of a scope's headroom in the hands of one gateway process, taken and returned in the database.

The statement that takes is guarded by the scope's limit, so no number of processes can pass it. When headroom is
plentiful a slice is as large as wished, so that one statement serves many calls; when it is scarce, or somebody else has been
refused, exactly the need is granted, so that nobody sits on the rest.

A worker writes `Opened` into its journal before its first `take`; the slices of a life end when the poster reads the
next `Opened` or the `Closed` of its slot, and an ended life takes nothing any more.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, RowMapping, select, text

from farebox.billing.books import carrying, scopes
from farebox.billing.budgets import Scope
from farebox.billing.taken import Taken
from farebox.ports import Clock
from farebox.storage.database import Database
from farebox.storage.tables import allotments, lives

SHARE = 4
"""A slice is at most a quarter of what is left (or the need, if that is more): several processes start on the same budget."""
REQUESTS_MAX = 16
"""Scopes of one call."""


class AllotmentError(Exception):
    """An allotment that cannot be: an unknown scope, an ended life, a return of what is already spent."""


class ScopeRequest(msgspec.Struct, frozen=True):
    """What one scope is asked for: at least the need, at best the wish. Nano-dollars."""

    scope: Scope
    need_nano: int
    wish_nano: int


def slice_nano(headroom_nano: int, need_nano: int, wish_nano: int, *, contended: bool) -> int:
    """How much to grant: nothing if the need does not fit, the need when headroom is scarce, up to the wish otherwise."""
    if need_nano > headroom_nano:
        return 0
    if contended:
        return need_nano
    return max(need_nano, min(wish_nano, headroom_nano // SHARE))


def take(database: Database, requests: Sequence[ScopeRequest], *, life: str, now_us: int) -> list[Taken]:
    """Take from every scope, or from none. The answers come in the order of the requests.

    `granted_nano` is what this call added; when one need does not fit, it is 0 everywhere and the figures tell which. Raises
    `AllotmentError` for a scope whose owner does not exist and for an ended life. After `OutcomeUnknown`, give back to the last
    known grant.
    """
    assert 0 < len(requests) <= REQUESTS_MAX, "a call has between one and sixteen scopes"
    assert all(0 < request.need_nano <= request.wish_nano for request in requests), "0 < need ≤ wish"
    assert len({request.scope.id for request in requests}) == len(requests), "each scope once"
    return database.write(lambda connection: _take(database, connection, requests, life, now_us))


def _take(database: Database, connection: Connection, requests: Sequence[ScopeRequest], life: str, now_us: int) -> list[Taken]:
    _be_alive(connection, life)
    order = sorted(range(len(requests)), key=lambda index: requests[index].scope.id)
    rows: dict[int, RowMapping] = {}
    for index in order:
        scope = requests[index].scope
        row = scopes.lock(connection, scope.id)
        if row is None:
            row = scopes.make(connection, scope)
        elif scope.limit_nano is not None and scopes.target_nano(row) != scope.limit_nano:
            scopes.retarget(connection, row, scope.limit_nano)
            row = scopes.lock(connection, scope.id)
        if row is None:
            raise AllotmentError(f"the scope `{scope.id}` does not exist")
        rows[index] = row
    earlier = [_earlier_nano(connection, request.scope, rows[index], now_us) for index, request in enumerate(requests)]
    granted = [
        slice_nano(
            scopes.headroom_nano(rows[index]) - earlier[index],
            request.need_nano,
            request.wish_nano,
            contended=rows[index]["wanted_until_us"] > now_us,
        )
        for index, request in enumerate(requests)
    ]
    if not all(granted):
        granted = [0] * len(requests)
    for index in order if any(granted) else ():
        scope_id, amount = requests[index].scope.id, granted[index]
        # The guard stands in the statement although the row is locked: the promise does not hang on the lock.
        changed = connection.execute(_TAKE, {"amount": amount, "id": scope_id}).rowcount
        assert changed == 1, "a locked scope has the headroom that was read from it (I7)"
        connection.execute(_ALLOT, {"id": scope_id, "life": life, "amount": amount})
    return [
        Taken(
            granted[index],
            scopes.target_nano(rows[index]),
            rows[index]["posted_nano"],
            rows[index]["allotted_nano"] + earlier[index] + granted[index],
        )
        for index in range(len(requests))
    ]


def _earlier_nano(connection: Connection, scope: Scope, row: RowMapping, now_us: int) -> int:
    """What is not to be had of a budget's scope because of others of the same budget, where what it counts was changed: slices
    of earlier ones, or, for whoever asks in an earlier one still, all but what the scope of today has left."""
    if scope.kind != "budget":
        return 0
    today = carrying.successor(connection, scope, now_us)
    if today is None:
        return carrying.earlier_nano(connection, scope)
    there = scopes.lock(connection, today.id) or scopes.make(connection, today)
    assert there is not None, "the budget exists"
    left = scopes.headroom_nano(there) - carrying.earlier_nano(connection, today)
    return scopes.headroom_nano(row) - max(left, 0)


_TAKE = text(
    "UPDATE scopes SET allotted_nano = allotted_nano + :amount "
    "WHERE id = :id AND posted_nano + allotted_nano + :amount <= limit_nano"
)
_ALLOT = text(
    "INSERT INTO allotments (scope_id, life, granted_nano) VALUES (:id, :life, :amount) "
    "ON CONFLICT (scope_id, life) DO UPDATE SET granted_nano = allotments.granted_nano + excluded.granted_nano"
)


def _be_alive(connection: Connection, life: str) -> None:
    """Refuse an ended life, and keep it from ending before this transaction does."""
    seen = select(lives.c.ended_us).where(lives.c.life == life).with_for_update(read=True)
    row = connection.execute(seen).one_or_none()
    if row is None:
        connection.execute(text("INSERT INTO lives (life) VALUES (:life) ON CONFLICT (life) DO NOTHING"), {"life": life})
        row = connection.execute(seen).one()
    if row.ended_us is not None:
        raise AllotmentError(f"the life `{life}` has ended; its allotments were released")


def give_back(database: Database, scope_id: str, *, life: str, granted_nano: int) -> None:
    """Set a life's grant to `granted_nano`: what the process has spent and still needs. Never raises it; repeating is harmless.

    Raises `AllotmentError` when less than what is already posted would remain: the caller's books are wrong.
    """
    assert granted_nano >= 0, "a grant is never negative"

    def work(connection: Connection) -> None:
        scopes.lock(connection, scope_id)
        row = connection.execute(
            select(allotments.c.granted_nano, allotments.c.posted_nano, allotments.c.released)
            .where(allotments.c.scope_id == scope_id, allotments.c.life == life)
            .with_for_update()
        ).one_or_none()
        if row is None or row.released or granted_nano >= row.granted_nano:
            return
        if granted_nano < row.posted_nano:
            raise AllotmentError(f"{granted_nano} nano-dollars of `{scope_id}` would be less than the {row.posted_nano} posted")
        connection.execute(
            text("UPDATE allotments SET granted_nano = :granted WHERE scope_id = :scope AND life = :life"),
            {"granted": granted_nano, "scope": scope_id, "life": life},
        )
        returned = scopes.return_row(scope_id, row.granted_nano - granted_nano)
        assert database.execute_many(connection, scopes.RETURN_SQL, [returned]) == 1, "what is allotted is in the scope (I2)"

    database.write(work)


def want(database: Database, scope_id: str, *, until_us: int) -> None:
    """Ask every holder of this scope to return what it does not need, until a moment; slices stay small as long."""
    database.write(
        lambda connection: connection.execute(
            text("UPDATE scopes SET wanted_until_us = :until WHERE id = :id AND wanted_until_us < :until"),
            {"until": until_us, "id": scope_id},
        )
    )


def wanted(database: Database, *, life: str, now_us: int) -> list[str]:
    """Scopes of which this life holds a slice that somebody asks for, or whose limit is to be lower: what is free of it is to be
    returned, so that who lowers a budget need not wait until a busy worker has used up its slice."""
    return database.read(
        lambda connection: list(
            connection.execute(
                text(
                    "SELECT s.id FROM allotments a JOIN scopes s ON s.id = a.scope_id WHERE a.life = :life "
                    "AND NOT a.released AND a.granted_nano > a.posted_nano "
                    "AND (s.wanted_until_us > :now OR s.wanted_limit_nano IS NOT NULL) ORDER BY s.id"
                ),
                {"life": life, "now": now_us},
            ).scalars()
        )
    )


def release(database: Database, life: str, *, at_us: int) -> None:
    """End a life by hand, e.g. of a machine that is gone. What its journal still brings is charged as far as it fits."""
    database.write(lambda connection: release_lives(database, connection, [life], at_us))


def release_lives(database: Database, connection: Connection, ended: Sequence[str], at_us: int) -> int:
    """End lives within a transaction: all that they hold and have not spent returns to its scopes. Repeating is harmless."""
    end_lives(database, connection, ended, at_us)
    return return_slices(database, connection, ended)


def end_lives(database: Database, connection: Connection, ended: Sequence[str], at_us: int) -> None:
    """From here on these lives take nothing; what they hold is theirs until `return_slices`."""
    end = "INSERT INTO lives (life, ended_us) VALUES (?, ?) ON CONFLICT (life) DO UPDATE SET ended_us = excluded.ended_us"
    database.execute_many(connection, end + " WHERE lives.ended_us IS NULL", [(life, at_us) for life in sorted(ended)])


def return_slices(database: Database, connection: Connection, ended: Sequence[str]) -> int:
    """Return to their scopes what ended lives have not spent; the number of allotments that were released."""
    if not ended:
        return 0
    held = connection.execute(
        select(allotments.c.scope_id, allotments.c.life)
        .where(allotments.c.life.in_(ended), allotments.c.released.is_(False))
        .order_by(allotments.c.scope_id, allotments.c.life)
    ).all()
    for scope_id in sorted({row.scope_id for row in held}):
        scopes.lock(connection, scope_id)
    returned: dict[str, int] = {}
    for row in held:
        rest = connection.execute(_RELEASE, {"scope": row.scope_id, "life": row.life}).scalar_one_or_none()
        if rest:
            returned[row.scope_id] = returned.get(row.scope_id, 0) + rest
    changed = database.execute_many(
        connection, scopes.RETURN_SQL, [scopes.return_row(scope_id, amount) for scope_id, amount in sorted(returned.items())]
    )
    assert changed == len(returned), "what is allotted is in its scope (I2)"
    return len(held)


_RELEASE = text(
    "UPDATE allotments SET released = true WHERE scope_id = :scope AND life = :life AND NOT released "
    "RETURNING granted_nano - posted_nano"
)


class Allotments:
    """One worker life's allotments: what `billing.holds` asks of the database."""

    def __init__(self, database: Database, life: str, clock: Clock) -> None:
        self._database = database
        self._life = life
        self._clock = clock

    def take(self, scope: Scope, need_nano: int, wish_nano: int) -> Taken:
        request = ScopeRequest(scope, need_nano, max(need_nano, wish_nano))
        return take(self._database, [request], life=self._life, now_us=self._clock.now_us())[0]

    def give_back(self, scope_id: str, granted_nano: int) -> None:
        give_back(self._database, scope_id, life=self._life, granted_nano=granted_nano)

    def grant_of(self, scope_id: str) -> int:
        query = select(allotments.c.granted_nano).where(allotments.c.scope_id == scope_id, allotments.c.life == self._life)
        return self._database.read(lambda connection: connection.execute(query).scalar_one_or_none()) or 0

    def want(self, scope_id: str, until_us: int) -> None:
        want(self._database, scope_id, until_us=until_us)

    def wanted(self) -> list[str]:
        return wanted(self._database, life=self._life, now_us=self._clock.now_us())
