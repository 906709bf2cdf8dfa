"""Scopes in the database: one limit each, and how a limit changes while calls are under way.

For every scope, at every moment, **posted + allotted ≤ limit** (I7): posted is charged, allotted is in the hands of gateways.

    account:{id}          limit = Σ grants − expired + credit line + payments
    key:{id}:{window}     limit = the key's budget; the row is made when the first gateway asks for the window
    budget:{id}:{window}  likewise of a budget (`storage.tables.budgets`), and one each for the end users of a budget of every one
    budget:{id}.2:{window}  of its second revision (`billing.books.carrying`)
    tier:{id}:{day}       what the account's tier lets it spend in a day; the gateway knows the limit from the configuration

A scope counts the calls that were held under it: a budget given to a key counts from then on.

**Raising** a limit holds at once. **Lowering** it cannot take back what is already posted or allotted: the wish is kept in
`wanted_limit_nano`, the limit goes down as far as posted + allotted allows, nothing more is granted above the wish, and every
returned allotment brings the limit nearer, in the same statement that returns it.

Locks are taken in one order everywhere: position, lives, account, key, grants, scopes by id, allotments by scope.
"""

from sqlalchemy import Connection, RowMapping, select, text

from farebox.billing.budgets import Scope
from farebox.storage.tables import budgets, control_version, keys, scopes

UNLIMITED_NANO = 2**62
"""The limit of a key scope whose key has no budget (any more). Half of 64 bits, so that sums of amounts cannot overflow."""

FOR_GOOD_US = 2**62
"""Until when slices are asked back of a scope that nothing is to be held in any more."""

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
    key = connection.execute(
        select(keys.c.account_id, keys.c.budget_nano).where(keys.c.id == key_id).with_for_update(read=True)
    ).one_or_none()
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


def make_budget_scope(connection: Connection, scope: Scope) -> None:
    """The row of a budget's window. Does nothing when it exists, or the budget does not. A removed budget limits nothing, nor do
    the scopes of what it counted before it was changed: what they hold is to be returned."""
    budget = connection.execute(select(budgets).where(budgets.c.id == scope.owner).with_for_update(read=True)).one_or_none()
    if budget is None:
        return
    earlier = scope.revision < budget.revision
    limits = budget.removed_us is None and not earlier
    hard = budget.hard and limits
    connection.execute(
        text(
            "INSERT INTO scopes "
            "(id, kind, account_id, budget_id, subject, window_name, limit_nano, soft_limit_nano, revision, wanted_until_us) "
            "VALUES (:id, 'budget', :account, :budget, :subject, :window, :limit, :soft, :revision, :until) "
            "ON CONFLICT (id) DO NOTHING"
        ),
        {
            "id": scope.id,
            "account": budget.account_id,
            "budget": budget.id,
            "subject": scope.subject,
            "window": scope.window,
            "limit": budget.amount_nano if hard else UNLIMITED_NANO,
            "soft": budget.amount_nano if limits and not hard else None,
            "revision": scope.revision,
            "until": FOR_GOOD_US if earlier else 0,
        },
    )


def make_tier_scope(connection: Connection, scope: Scope) -> None:
    """The row of an account's day, with the limit of its tier; changed when the tier has changed since."""
    assert scope.limit_nano is not None, "the limit of a tier comes with its scope"
    connection.execute(
        text(
            "INSERT INTO scopes (id, kind, account_id, window_name, limit_nano) "
            "SELECT :id, 'tier', id, :window, :limit FROM accounts WHERE id = :account ON CONFLICT (id) DO NOTHING"
        ),
        {"id": scope.id, "window": scope.window, "limit": scope.limit_nano, "account": scope.owner},
    )


def make(connection: Connection, scope: Scope) -> RowMapping | None:
    """The locked row of a scope that is made when it is first asked for; None when its owner does not exist."""
    match scope.kind:
        case "key":
            make_key_scope(connection, scope.id, scope.owner, scope.window)
        case "budget":
            make_budget_scope(connection, scope)
        case "tier":
            make_tier_scope(connection, scope)
        case "account":
            return None
    return lock(connection, scope.id)


def bump_version(connection: Connection) -> int:
    """The next control version; holds the row until the commit, so that versions appear in their order."""
    connection.execute(text("UPDATE control_version SET version = version + 1 WHERE id = 1"))
    return connection.execute(select(control_version.c.version)).scalar_one()
