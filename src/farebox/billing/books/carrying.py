"""Carrying: what a budget counts beside the calls that were held in its scopes, after its window, zone or filter was changed.

Such a change is a new **revision** of the budget, with scopes of its own, since a call settles where it was held. So that the
change loses nothing, the scope of a new revision also counts, in its `carried_nano`:

- what is posted of its window already, summed up by the change (`seed`);
- the calls that were held under an earlier revision, or before the change, when they are posted (`carry`).

Until then such calls lie in slices of the earlier scopes. These have no limit any more, but all of them count against what the
new one may grant (`earlier_nano`), their holders are asked to return what they do not need, and a worker that has not heard of
the change gets no more of an earlier scope than the new one has left. So nothing that is held anew passes the amount. A call
that was under way and counted in no scope of the budget, because a filter is wider now, counts from when it is posted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, or_, select, text, tuple_

from farebox.billing.books.scopes import UNPOST_SQL, make_budget_scope, return_row
from farebox.billing.budgets import EACH, Budget, Scope, budget_scope, window_start_us
from farebox.billing.covering import matches
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import budgets, usage

SUBJECTS_MAX = 10_000
"""End users with charges in the window of a budget of each, when it is changed."""


Held = Mapping[str, Collection[str]]
"""Calls by their hold's id, with the scopes that they were charged in."""


class TooManySubjects(Exception):
    """More end users have spent in the window than one change recounts."""


class Revised(msgspec.Struct, frozen=True):
    """A budget that was changed, and since when it is what it is."""

    budget: Budget
    account_id: str
    since_us: int
    own: tuple[tuple[str, int, int | None], ...] = ()
    """Of a budget of each end user: who had one of their own instead, from when, until when."""


class Charged(msgspec.Struct, frozen=True):
    """What of a call says in which budgets it counts."""

    account: str
    key: str
    project: str
    end_user: str
    tags: tuple[str, ...]
    created_us: int
    scopes: Collection[str]
    paid: frozenset[tuple[str, str]]
    """Provider and model of each attempt that was charged for."""


def from_row(row: queries.Budget | Row[Any]) -> Budget:
    """A budget as the database has it."""
    return Budget(
        id=row.id,
        kind=row.kind,
        amount_nano=row.amount_nano,
        window=row.window,
        subject=row.subject,
        name=row.name,
        zone=row.zone,
        hard=row.hard,
        models=_names(row.models),
        providers=_names(row.providers),
        revision=row.revision,
    )


def _names(words: str) -> tuple[str, ...]:
    return tuple(msgspec.json.decode(words, type=list[str])) if words else ()


def charged(rows: Sequence[UsageRow], scopes_of_call: Collection[str]) -> Charged:
    """The same, of a call's rows."""
    first = rows[0]
    return Charged(
        account=first.account_id,
        key=first.key_id,
        project=first.project,
        end_user=first.end_user,
        tags=_names(first.tags),
        created_us=first.created_us,
        scopes=scopes_of_call,
        paid=frozenset((row.provider, row.model) for row in rows if row.revision == 0 and row.charge_nano > 0),
    )


def scope_carrying(revised: Revised, call: Charged) -> Scope | None:
    """The scope of a changed budget that counts a call although the call was not held in it; None where none does."""
    budget = revised.budget
    if call.account != revised.account_id or not _concerns(revised, call):
        return None
    begun_us = window_start_us(budget.window, revised.since_us, budget.zone)
    if begun_us is not None and call.created_us < begun_us:
        return None
    known = [revision for scope in call.scopes if (revision := revision_of(scope, budget.id)) is not None]
    if budget.revision in known or (not known and call.created_us >= revised.since_us):
        return None
    return budget_scope(budget, call.created_us, call.end_user)


def revision_of(scope_id: str, budget_id: str) -> int | None:
    """The revision in whose scope a call was held; None for a scope of something else."""
    start = f"budget:{budget_id}"
    if not scope_id.startswith(start):
        return None
    rest = scope_id[len(start) :].partition(":")[0]
    if not rest:
        return 0
    return int(rest[1:]) if rest[0] == "." and rest[1:].isdigit() else None


def _concerns(revised: Revised, call: Charged) -> bool:
    budget, subject = revised.budget, revised.budget.subject
    if budget.kind == "end_user" and subject == EACH:
        concerned = bool(call.end_user) and not any(
            user == call.end_user and begun_us <= call.created_us and (ended_us is None or call.created_us < ended_us)
            for user, begun_us, ended_us in revised.own
        )
    else:
        concerned = {
            "account": True,
            "project": call.project == subject,
            "key": call.key == subject,
            "end_user": call.end_user == subject,
            "tag": subject in call.tags,
        }[budget.kind]
    if not concerned or not (budget.models or budget.providers):
        return concerned
    return any(_filtered(budget, provider, model) for provider, model in call.paid)


def _filtered(budget: Budget, provider: str, model: str) -> bool:
    return (not budget.providers or provider in budget.providers) and matches(model, budget.models)


def revised(connection: Connection, accounts: Collection[str] | None = None) -> list[Revised]:
    """Budgets in force that were changed, of some accounts or of all."""
    found = connection.execute(_REVISED).all()
    if accounts is not None:
        found = [row for row in found if row.account_id in accounts]
    own: dict[str, list[tuple[str, int, int | None]]] = {}
    if any(row.kind == "end_user" and row.subject == EACH for row in found):
        for row in connection.execute(_OWN):
            own.setdefault(row.account_id, []).append((row.subject, row.created_us, row.removed_us))
    return [Revised(from_row(row), row.account_id, row.revised_us, tuple(own.get(row.account_id, ()))) for row in found]


_REVISED = select(budgets).where(budgets.c.revision > 0, budgets.c.removed_us.is_(None)).order_by(budgets.c.id)
_OWN = select(budgets).where(budgets.c.kind == "end_user", budgets.c.subject != EACH).order_by(budgets.c.id)


def seed(database: Database, connection: Connection, account_id: str, budget: Budget, now_us: int) -> int:
    """Make the scopes of a new revision's window, with what is posted of it already; the sum. The caller has the locks."""
    begun_us = window_start_us(budget.window, now_us, budget.zone)
    where = [usage.c.account_id == account_id, usage.c.created_us >= (begun_us or 0), *_of(budget, account_id)]
    each = budget.subject == EACH
    whose = (usage.c.end_user, usage.c.tags) if budget.kind == "tag" else (usage.c.end_user,) if each else ()
    if budget.models or budget.providers:
        offers = connection.execute(select(usage.c.provider, usage.c.model).where(*where).distinct())
        wanted = [(row.provider, row.model) for row in offers if _filtered(budget, row.provider, row.model)]
        paid = select(usage.c.hold_id).where(
            *where, usage.c.revision == 0, usage.c.charge_nano > 0, tuple_(usage.c.provider, usage.c.model).in_(wanted)
        )
        where.append(usage.c.hold_id.in_(paid))
    query = select(func.sum(usage.c.charge_nano).label("posted"), *whose).where(*where).group_by(*whose)
    carried: dict[str, int] = {}
    for row in connection.execute(query):
        if budget.kind == "tag" and budget.subject not in _names(row.tags):
            continue
        user = row.end_user if each else ""
        carried[user] = carried.get(user, 0) + int(row.posted or 0)
        if len(carried) > SUBJECTS_MAX:
            raise TooManySubjects(f"more than {SUBJECTS_MAX} end users have spent in this window")
    add(database, connection, [(budget_scope(budget, now_us, user), amount) for user, amount in carried.items() if amount])
    return sum(carried.values())


def _of(budget: Budget, account_id: str) -> list[ColumnElement[bool]]:
    match budget.kind:
        case "project":
            return [usage.c.project == budget.subject]
        case "key":
            return [usage.c.key_id == budget.subject]
        case "end_user" if budget.subject == EACH:
            own = exists().where(
                budgets.c.account_id == account_id,
                budgets.c.kind == "end_user",
                budgets.c.subject == usage.c.end_user,
                budgets.c.created_us <= usage.c.created_us,
                or_(budgets.c.removed_us.is_(None), budgets.c.removed_us > usage.c.created_us),
            )
            return [and_(usage.c.end_user != "", ~own)]
        case "end_user":
            return [usage.c.end_user == budget.subject]
        case "tag":
            return [usage.c.tags != ""]
        case _:
            return []


_ADD = (
    "UPDATE scopes SET posted_nano = posted_nano + ?, carried_nano = carried_nano + ?, "
    "limit_nano = CASE WHEN posted_nano + ? + allotted_nano > limit_nano THEN posted_nano + ? + allotted_nano "
    "ELSE limit_nano END, "
    "wanted_limit_nano = CASE WHEN posted_nano + ? + allotted_nano > limit_nano THEN COALESCE(wanted_limit_nano, limit_nano) "
    "ELSE wanted_limit_nano END WHERE id = ?"
)
"""What was spent is counted even beyond the limit, as when a limit is lowered: the lower one is wanted from then on."""


def add(database: Database, connection: Connection, amounts: Iterable[tuple[Scope, int]]) -> list[str]:
    """Count amounts in scopes, which are made where they are not there yet; their ids."""
    sums: dict[str, int] = {}
    for scope, amount_nano in amounts:
        assert amount_nano >= 0, "what is taken off again has a statement of its own"
        if scope.id not in sums:
            make_budget_scope(connection, scope)
        sums[scope.id] = sums.get(scope.id, 0) + amount_nano
    rows = [(amount, amount, amount, amount, amount, id) for id, amount in sorted(sums.items())]
    changed = database.execute_many(connection, _ADD, rows)
    assert changed == len(rows), "the scopes were made"
    return sorted(sums)


def take_off(database: Database, connection: Connection, carried: Sequence[Scope], amount_nano: int) -> None:
    """Count less of a call that was corrected."""
    changed = database.execute_many(connection, UNPOST_SQL, [return_row(scope.id, amount_nano) for scope in carried])
    changed += database.execute_many(connection, _UNCARRY, [(amount_nano, scope.id, amount_nano) for scope in carried])
    assert changed == 2 * len(carried), "what was charged is counted in every scope that carries it (I2)"


_UNCARRY = "UPDATE scopes SET carried_nano = carried_nano - ? WHERE id = ? AND carried_nano >= ?"


def carry(
    database: Database, connection: Connection, found: Sequence[Revised], rows: Iterable[Sequence[UsageRow]], held: Held
) -> list[str]:
    """Count calls that are posted, each with its rows, in the scopes that carry them; the ids of these."""
    amounts: list[tuple[Scope, int]] = []
    for of_call in rows:
        charge_nano = sum(row.charge_nano for row in of_call)
        if not charge_nano:
            continue
        call = charged(of_call, held[of_call[0].hold_id])
        amounts += [(scope, charge_nano) for one in found if (scope := scope_carrying(one, call)) is not None]
    return add(database, connection, amounts)


def carrying(connection: Connection, call: Charged) -> list[Scope]:
    """The scopes that carry a posted call."""
    found = revised(connection, {call.account})
    return [scope for one in found if (scope := scope_carrying(one, call)) is not None]


def earlier_nano(connection: Connection, scope: Scope) -> int:
    """What is held, or may be, in the scopes of a budget's earlier revisions for the same subject."""
    if scope.kind != "budget" or not scope.revision:
        return 0
    marks = {"id": scope.owner, "revision": scope.revision, "subject": scope.subject}
    return int(connection.execute(_EARLIER, marks).scalar_one())


_EARLIER = text(
    "SELECT CAST(COALESCE(SUM(allotted_nano), 0) AS BIGINT) FROM scopes "
    "WHERE budget_id = :id AND revision < :revision AND subject = :subject"
)


def successor(connection: Connection, scope: Scope, now_us: int) -> Scope | None:
    """The scope that counts now what this one did; None where it is the budget's last revision itself."""
    row = connection.execute(select(budgets).where(budgets.c.id == scope.owner)).one_or_none()
    if row is None or row.revision <= scope.revision or row.removed_us is not None:
        return None
    return budget_scope(from_row(row), now_us, scope.subject)
