"""The audit log: who changed which customer, project, key or budget, when, from where; in the transaction of the change itself.

Append-only, numbered without gaps, and chained: each entry's digest covers the one before it, so that an entry that was changed,
removed or put in later shows (`verify`). Entries hold no secret: of a key they have its hint, and of settings what changed.
Commands write after `bump_version`, whose row lock lets one transaction at a time append.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from farebox.storage.tables import audit

ENTRIES_MAX = 10_000
"""The most entries of one answer."""
SECRET_COLUMNS = frozenset({"digest", "previous_digest", "sealed"})
UNTOLD = frozenset({"version", "last_used_us"})
"""Columns that change with everything, or mean nothing."""


class Actor(msgspec.Struct, frozen=True):
    """Who changes something."""

    name: str
    """`operator`, or `key:` and the id of a management key."""
    address: str = ""
    """Where a request came from; empty at the command line."""


OPERATOR = Actor("operator")
"""Whoever has the configuration and the command line."""


class Entry(msgspec.Struct, frozen=True):
    """One change."""

    seq: int
    at_us: int
    account_id: str
    actor: str
    address: str
    action: str
    """`key.create`, `key.change`, `key.rotate`, `key.revoke`, `account.change`, `budget.create`,
    `provider_key.create`…"""
    subject: str
    """The id of what was changed."""
    before: str
    """JSON of the columns that changed, as they were; empty where it was made."""
    after: str
    digest: bytes


def note(
    connection: Connection,
    by: Actor,
    action: str,
    *,
    account_id: str,
    subject: str,
    before: Mapping[Any, Any] | None = None,
    after: Mapping[Any, Any],
    now_us: int,
) -> None:
    """Write down a change; `before` and `after` are rows or parts of them. What did not change is left out."""
    now = _told(after)
    if before is None:
        was, changed = "", {name: value for name, value in now.items() if value is not None}
    else:
        then = _told(before)
        changed = {name: value for name, value in now.items() if then.get(name) != value}
        was = _text({name: then.get(name) for name in changed})
        if not changed:
            return
    last = connection.execute(select(audit.c.seq, audit.c.digest).order_by(audit.c.seq.desc()).limit(1)).one_or_none()
    entry = Entry(
        seq=1 if last is None else last.seq + 1,
        at_us=now_us,
        account_id=account_id,
        actor=by.name,
        address=by.address,
        action=action,
        subject=subject,
        before=was,
        after=_text(changed),
        digest=b"",
    )
    values = msgspec.structs.asdict(entry) | {"digest": digest(b"" if last is None else last.digest, entry)}
    connection.execute(insert(audit).values(**values))


def _told(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What may be written down, by name; an empty text is nothing."""
    found = {name: value for name, value in row.items() if name not in SECRET_COLUMNS and name not in UNTOLD}
    assert not any(isinstance(value, bytes) for value in found.values()), "digests are no business of a log"
    return {name: None if value == "" else value for name, value in found.items()}


def _text(values: Mapping[str, Any]) -> str:
    return msgspec.json.encode(dict(sorted(values.items()))).decode()


def digest(previous: bytes, entry: Entry) -> bytes:
    """The link from one entry to the next."""
    words = [entry.seq, entry.at_us, entry.account_id, entry.actor, entry.address, entry.action, entry.subject]
    return hashlib.sha256(previous + msgspec.json.encode([*words, entry.before, entry.after])).digest()


def entries(
    connection: Connection, *, account_id: str | None = None, subject: str | None = None, limit: int = ENTRIES_MAX
) -> list[Entry]:
    """The newest entries, newest first."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(min(limit, ENTRIES_MAX))
    if account_id is not None:
        query = query.where(audit.c.account_id == account_id)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    return [Entry(**row) for row in connection.execute(query).mappings()]


def verify(connection: Connection) -> int | None:
    """The number of the first entry that does not follow from the one before it, or None."""
    before, number = b"", 0
    while True:
        page = _page(connection, number)
        for entry in page:
            number += 1
            if entry.seq != number or entry.digest != digest(before, entry):
                return number
            before = entry.digest
        if not page:
            return None


def _page(connection: Connection, after: int) -> Sequence[Entry]:
    query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(ENTRIES_MAX)
    return [Entry(**row) for row in connection.execute(query).mappings()]
