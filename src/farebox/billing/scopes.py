"""Scopes in the database: one limit each, and how a limit changes while calls are under way.

For every scope, at every moment, **posted + allotted ≤ limit** (I7): posted is charged, allotted is in the hands of gateways.

    account:{id}          limit = Σ grants − expired + credit line + payments
    key:{id}:{window}     limit = the key's budget; the row is made when the first gateway asks for the window

A scope counts the calls that were held under it: a budget given to a key counts from then on.

**Raising** a limit holds at once. **Lowering** it cannot take back what is already posted or allotted: the wish is kept in
`wanted_limit_nano`, the limit goes down as far as posted + allotted allows, nothing more is granted above the wish, and every
returned allotment brings the limit nearer, in the same statement that returns it.

Locks are taken in one order everywhere: position, lives, account, key, grants, scopes by id, allotments by scope.
"""

from sqlalchemy import Connection, RowMapping, select, text

from farebox.storage.tables import control_version, keys, scopes

UNLIMITED_NANO = 2**62
"""The limit of a key scope whose key has no budget (any more). Half of 64 bits, so that sums of amounts cannot overflow."""

_RETARGET = text(
    "UPDATE scopes SET limit_nano = :limit_nano, wanted_limit_nano = :wanted_nano, epoch = epoch + 1, alerted_percent = 0 "
    "WHERE id = :id"
)

RETURN_SQL = (
    "UPDATE scopes SET allotted_nano = allotted_nano - ?, "
    "limit_nano = CASE WHEN wanted_limit_nano IS NULL THEN limit_nano "
    "WHEN posted_nano + allotted_nano - ? > wanted_limit_nano THEN posted_nano + allotted_nano - ? ELSE wanted_limit_nano END, "
    "wanted_limit_nano = CASE WHEN posted_nano + allotted_nano - ? <= wanted_limit_nano THEN NULL ELSE wanted_limit_nano END "
    "WHERE id = ? AND allotted_nano >= ?"
)
"""Return part of what is allotted, and let the limit follow a lower wish (`return_row` makes the tuple)."""

UNPOST_SQL = RETURN_SQL.replace("SET allotted_nano = allotted_nano - ?", "SET posted_nano = posted_nano - ?").replace(
    "AND allotted_nano >= ?", "AND posted_nano >= ?"
)
"""The same for what a correction takes off the posted charges."""


def return_row(scope_id: str, amount_nano: int) -> tuple[int | str, ...]:
    """The marks of `RETURN_SQL` and `UNPOST_SQL`."""
    return (amount_nano, amount_nano, amount_nano, amount_nano, scope_id, amount_nano)


def lock(connection: Connection, scope_id: str) -> RowMapping | None:
    """The scope's row, locked until the end of the transaction."""
    return connection.execute(select(scopes).where(scopes.c.id == scope_id).with_for_update()).mappings().one_or_none()


def headroom_nano(scope: RowMapping) -> int:
    """What may still be granted: up to the limit, or up to a lower one that is wanted."""
    limit = scope["limit_nano"] if scope["wanted_limit_nano"] is None else scope["wanted_limit_nano"]
    return max(limit - scope["posted_nano"] - scope["allotted_nano"], 0)


def target_nano(scope: RowMapping) -> int:
    """The limit as it was last asked for, whether or not it is reached yet."""
    return scope["limit_nano"] if scope["wanted_limit_nano"] is None else scope["wanted_limit_nano"]


def retarget(connection: Connection, scope: RowMapping, target: int) -> None:
    """Ask for a new limit of a locked scope: at once when it fits what is posted and allotted, else as far as that allows."""
    # Below zero it is when tax is owed beyond the credit line: nothing more is granted, and payments come first.
    assert abs(target) <= UNLIMITED_NANO, "limits are sums of amounts"
    effective = max(target, scope["posted_nano"] + scope["allotted_nano"])
    wanted = target if target < effective else None
    connection.execute(_RETARGET, {"limit_nano": effective, "wanted_nano": wanted, "id": scope["id"]})


def shift_account_limit(connection: Connection, account_id: str, delta_nano: int) -> None:
    """Raise or lower the limit of an account's own scope."""
    scope = lock(connection, f"account:{account_id}")
    assert scope is not None, "an account is created with its scope"
    retarget(connection, scope, target_nano(scope) + delta_nano)


def make_key_scope(connection: Connection, scope_id: str, key_id: str, window: str) -> None:
    """The row of a key's window, with the budget that the key has now. Does nothing when it exists, or the key does not."""
    key = connection.execute(select(keys.c.account_id, keys.c.budget_nano).where(keys.c.id == key_id)).one_or_none()
    if key is None:
        return
    connection.execute(
        text(
            "INSERT INTO scopes (id, kind, account_id, key_id, window_name, limit_nano) "
            "VALUES (:id, 'key', :account, :key, :window, :limit) ON CONFLICT (id) DO NOTHING"
        ),
        {
            "id": scope_id,
            "account": key.account_id,
            "key": key_id,
            "window": window,
            "limit": UNLIMITED_NANO if key.budget_nano is None else key.budget_nano,
        },
    )


def bump_version(connection: Connection) -> int:
    """The next control version; holds the row until the commit, so that versions appear in their order."""
    connection.execute(text("UPDATE control_version SET version = version + 1 WHERE id = 1"))
    return connection.execute(select(control_version.c.version)).scalar_one()
