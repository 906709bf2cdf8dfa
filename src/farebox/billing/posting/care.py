"""Care: what to do with each call of a batch that the database refused as a whole.

    final already                 refused: never posted twice (I3, I10)
    a record that cannot be true  refused
    an account that is not there  refused
    no allotment covers it        charged against the free headroom of its scopes; what does not fit is our loss

The last one is a journal that comes back after its life was ended by hand, or a gateway whose books are wrong: the customer
still never overshoots. Each decision is put into the outbox, with the record's own words, for somebody to look at.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from farebox.billing.books import scopes
from farebox.billing.books.outbox import Message
from farebox.billing.posting.batch import Care, fault
from farebox.billing.settled import Settled
from farebox.storage.tables import accounts, allotments, usage

LOOKUP_MAX = 500
"""Values in one `IN` list."""


def judge(connection: Connection, calls: Sequence[tuple[Settled, str]]) -> tuple[Care, list[Message]]:
    """Decide call by call, within the transaction that posts; locks the scopes it decides about."""
    care = Care()
    messages: list[Message] = []
    final = _final(connection, [call.id for call, _ in calls])
    known = set(connection.execute(select(accounts.c.id).where(accounts.c.id.in_({call.account for call, _ in calls}))).scalars())
    headroom = _headroom(connection, calls)
    free = _free(connection, calls)
    for index, (call, text) in enumerate(calls):
        reason = "its hold is settled already" if call.id in final else fault(call)
        if reason is None and call.account not in known:
            reason = "its account does not exist"
        if reason is not None:
            care.refused[index] = reason
            messages.append(Message("settle_refused", call.id, {"hold": call.id, "reason": reason, "record": text}))
            continue
        final.add(call.id)
        if not call.charge_nano:
            continue
        wanted = sorted({*call.scopes, f"account:{call.account}"})
        uncovered = [scope for scope in wanted if free.get((scope, call.life), 0) < call.charge_nano]
        allowed = min([call.charge_nano, *(headroom.get(scope, 0) for scope in uncovered)])
        for scope in wanted:
            if scope in uncovered:
                headroom[scope] = headroom.get(scope, 0) - allowed
            else:
                free[scope, call.life] -= allowed
        if uncovered:
            care.uncovered[index] = uncovered
        if allowed < call.charge_nano:
            care.allowed_nano[index] = allowed
            messages.append(
                Message(
                    "settle_reduced",
                    call.id,
                    {"hold": call.id, "charge_nano": call.charge_nano, "allowed_nano": allowed, "scopes": " ".join(uncovered)},
                )
            )
    return care, messages


def _final(connection: Connection, hold_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(hold_ids), LOOKUP_MAX):
        part = hold_ids[start : start + LOOKUP_MAX]
        found.update(connection.execute(select(usage.c.hold_id).where(usage.c.hold_id.in_(part), usage.c.final)).scalars())
    return found


def _headroom(connection: Connection, calls: Sequence[tuple[Settled, str]]) -> dict[str, int]:
    """What each scope's limit leaves beyond posted and allotted."""
    found: dict[str, int] = {}
    for scope_id in sorted({scope for call, _ in calls for scope in (*call.scopes, f"account:{call.account}")}):
        row = scopes.lock(connection, scope_id)
        if row is not None:
            found[scope_id] = row["limit_nano"] - row["posted_nano"] - row["allotted_nano"]
    return found


def _free(connection: Connection, calls: Sequence[tuple[Settled, str]]) -> dict[tuple[str, str], int]:
    """What each living allotment has left, by scope and life."""
    rows = connection.execute(
        select(allotments.c.scope_id, allotments.c.life, allotments.c.granted_nano, allotments.c.posted_nano)
        .where(allotments.c.life.in_({call.life for call, _ in calls}), allotments.c.released.is_(False))
        .order_by(allotments.c.scope_id, allotments.c.life)
        .with_for_update()
    )
    return {(row.scope_id, row.life): row.granted_nano - row.posted_nano for row in rows}
