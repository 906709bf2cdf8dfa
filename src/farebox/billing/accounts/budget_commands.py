"""Commands on budgets: create, change, remove. `billing.covering` says which of them a call counts against."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, Row, func, insert, select, text, update

from farebox.billing.books import audit, carrying, scopes
from farebox.billing.books.audit import OPERATOR, Actor
from farebox.billing.books.carrying import from_row
from farebox.billing.books.customers import NAME_MAX, CommandRefused, NotFound, lock_account
from farebox.billing.books.scopes import FOR_GOOD_US, bump_version, retarget
from farebox.billing.budgets import EACH, Budget, UnknownZone, Window, zone_named
from farebox.storage.database import Database
from farebox.storage.tables import budgets, keys, projects
from farebox.storage.tables import scopes as scopes_table

BUDGETS_PER_ACCOUNT_MAX = 500
BUDGETS_PER_SUBJECT_MAX = 8
"""On one owner at a time: a call is held in each of them."""
PATTERNS_MAX = 50


def create_budget(
    database: Database, account_id: str, budget: Budget, *, now_us: int, by: Actor = OPERATOR
) -> None:
    """A new budget of an account, or of what belongs to it. It counts the calls that are held from now on."""
    _check(budget)

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        lock_account(connection, account_id)
        _check_subject(connection, account_id, budget)
        in_force = budgets.c.removed_us.is_(None)
        alive = select(func.count()).select_from(budgets).where(budgets.c.account_id == account_id, in_force)
        same = alive.where(budgets.c.kind == budget.kind, budgets.c.subject == budget.subject)
        if connection.execute(alive).scalar_one() >= BUDGETS_PER_ACCOUNT_MAX:
            raise CommandRefused(f"an account has at most {BUDGETS_PER_ACCOUNT_MAX} budgets")
        if connection.execute(same).scalar_one() >= BUDGETS_PER_SUBJECT_MAX:
            raise CommandRefused(f"the same owner has at most {BUDGETS_PER_SUBJECT_MAX} budgets")
        row = _columns(budget)
        connection.execute(insert(budgets).values(**row, account_id=account_id, created_us=now_us, version=version))
        audit.note(connection, by, "budget.create", account_id=account_id, subject=budget.id, after=row, now_us=now_us)

    database.write(work)


def _check(budget: Budget) -> None:
    """Refuse what no budget can be."""
    if budget.amount_nano < 0:
        raise CommandRefused("a budget is not negative")
    if len(budget.name) > NAME_MAX or len(budget.subject) > NAME_MAX:
        raise CommandRefused(f"names have at most {NAME_MAX} characters")
    if (budget.kind == "account") != (not budget.subject):
        raise CommandRefused("a budget says whom it limits: a project, a key, an end user or a tag; or it is the account's own")
    if budget.subject == EACH and budget.kind != "end_user":
        raise CommandRefused("only end users have budgets each (`*`)")
    if len(budget.models) > PATTERNS_MAX or len(budget.providers) > PATTERNS_MAX:
        raise CommandRefused(f"a budget names at most {PATTERNS_MAX} models and as many providers")
    try:
        zone_named(budget.zone)
    except UnknownZone as error:
        raise CommandRefused(str(error)) from None


def _check_subject(connection: Connection, account_id: str, budget: Budget) -> None:
    table = {"project": projects, "key": keys}.get(budget.kind)
    if table is None:
        return
    found = select(table.c.id).where(table.c.id == budget.subject, table.c.account_id == account_id)
    if connection.execute(found).one_or_none() is None:
        raise NotFound(f"the {budget.kind} `{budget.subject}` does not exist in this account")


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to change of a budget; what is left out stays. Whom it limits never changes: that would be another budget."""

    amount_nano: int | UnsetType = UNSET
    window: Window | UnsetType = UNSET
    zone: str | UnsetType = UNSET
    hard: bool | UnsetType = UNSET
    models: tuple[str, ...] | UnsetType = UNSET
    providers: tuple[str, ...] | UnsetType = UNSET
    name: str | UnsetType = UNSET


def change_budget(
    database: Database,
    budget_id: str,
    change: Change,
    *,
    now_us: int,
    within: str | None = None,
    by: Actor = OPERATOR,
) -> Budget:
    """Change a budget. Windows already begun follow, as far as what is spent and held lets them.

    With another window, zone or filter it counts anew, from what is posted and held already (`billing.books.carrying`).
    """
    given = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    if not given:
        raise CommandRefused("nothing is to be changed")

    def work(connection: Connection) -> Budget:
        if not database.is_sqlite:
            # What is being posted counts as posted: the posters move positions first, so none is halfway here.
            connection.execute(text("LOCK TABLE journal_positions IN EXCLUSIVE MODE"))
        version = bump_version(connection)
        account_id = connection.execute(select(budgets.c.account_id).where(budgets.c.id == budget_id)).scalar_one_or_none()
        if account_id is not None:
            lock_account(connection, account_id)
        found = _lock_budget(connection, budget_id, within)
        before = from_row(found)
        after = msgspec.structs.replace(before, **given)
        _check(after)
        if _counted(after) != _counted(before):
            after = msgspec.structs.replace(after, revision=before.revision + 1)
        row: dict[str, Any] = _columns(after)
        if after.revision != before.revision:
            row["revised_us"] = now_us
        connection.execute(update(budgets).where(budgets.c.id == budget_id).values(**row, version=version))
        if after.revision != before.revision:
            _retire(connection, budget_id)
            try:
                carrying.seed(database, connection, found.account_id, after, now_us)
            except carrying.TooManySubjects as error:
                raise CommandRefused(f"{error}; remove it and create another, which counts from then on") from None
        else:
            limits = (after.amount_nano, None) if after.hard else (None, after.amount_nano)
            _retarget(connection, budget_id, *limits, after.revision)
        _note(connection, by, "budget.change", found, {name: row[name] for name in (*given, *UNASKED) if name in row}, now_us)
        return after

    return database.write(work)


UNASKED = ("revision",)
"""Columns of the audit log's entry beside those that were asked for."""


def _counted(budget: Budget) -> tuple[object, ...]:
    """What a budget counts. Hours are UTC's and a life has no zone."""
    return budget.window, budget.zone if budget.window in ("day", "week", "month") else "", budget.models, budget.providers


def _retire(connection: Connection, budget_id: str) -> None:
    """The scopes until now: no limit any more, and all that is free of them is asked back."""
    _retarget(connection, budget_id, None, None)
    connection.execute(update(scopes_table).where(scopes_table.c.budget_id == budget_id).values(wanted_until_us=FOR_GOOD_US))


def _columns(budget: Budget) -> dict[str, Any]:
    row = msgspec.structs.asdict(budget)
    for name in ("models", "providers"):
        row[name] = msgspec.json.encode(row[name]).decode() if row[name] else ""
    return row


def remove_budget(
    database: Database, budget_id: str, *, now_us: int, within: str | None = None, by: Actor = OPERATOR
) -> None:
    """From now on the budget limits nothing. Calls in flight end in its scopes as they were held."""

    def work(connection: Connection) -> None:
        version = bump_version(connection)
        found = _lock_budget(connection, budget_id, within)
        connection.execute(update(budgets).where(budgets.c.id == budget_id).values(removed_us=now_us, version=version))
        _retarget(connection, budget_id, None, None)
        _note(connection, by, "budget.remove", found, {"removed_us": now_us}, now_us)

    database.write(work)


def _lock_budget(connection: Connection, budget_id: str, within: str | None) -> Row[Any]:
    """The row of a budget that is in force, locked."""
    query = select(budgets).where(budgets.c.id == budget_id, budgets.c.removed_us.is_(None))
    found = connection.execute(query.with_for_update()).one_or_none()
    if found is None or (within is not None and found.account_id != within):
        raise NotFound(f"the budget `{budget_id}` does not exist")
    return found


def _note(connection: Connection, by: Actor, action: str, before: Row[Any], values: dict[str, Any], now_us: int) -> None:
    was = {name: getattr(before, name) for name in values}
    audit.note(
        connection, by, action, account_id=before.account_id, subject=before.id, before=was, after=values, now_us=now_us
    )


def _retarget(
    connection: Connection, budget_id: str, limit_nano: int | None, soft_nano: int | None, revision: int | None = None
) -> None:
    """New limits of a budget's scopes, or of those of one revision."""
    target = scopes.UNLIMITED_NANO if limit_nano is None else limit_nano
    begun = select(scopes_table).where(scopes_table.c.budget_id == budget_id).order_by(scopes_table.c.id).with_for_update()
    if revision is not None:
        begun = begun.where(scopes_table.c.revision == revision)
    for scope in connection.execute(begun).mappings().all():
        if scopes.target_nano(scope) != target or scope["soft_limit_nano"] != soft_nano:
            retarget(connection, scope, target)
            connection.execute(
                update(scopes_table).where(scopes_table.c.id == scope["id"]).values(soft_limit_nano=soft_nano)
            )
