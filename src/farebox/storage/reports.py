"""Usage reports: sums of usage rows by any of their dimensions, in pages. The surfaces' and the command line's question.

A page follows its predecessor by key (`after`, the last line's groups), never by offset: lines that come in between shift
nothing, and the tenth page costs as much as the first.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, cast, func, literal_column, select, true, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.selectable import TableValuedAlias

from farebox.storage.tables import own_key_usage, usage

US_PER_HOUR = 3_600_000_000
US_PER_DAY = 24 * US_PER_HOUR
LINES_MAX = 10_000
"""The most lines of one answer."""

Group = Literal["model", "provider", "key", "project", "user", "account", "tag", "day", "hour"]
GROUPS: tuple[Group, ...] = ("model", "provider", "key", "project", "user", "account", "tag", "day", "hour")

_COLUMNS: dict[Group, ColumnElement[Any]] = {
    "model": usage.c.model,
    "provider": usage.c.provider,
    "key": usage.c.key_id,
    "project": usage.c.project,
    "user": usage.c.end_user,
    "account": usage.c.account_id,
    "day": usage.c.created_us // literal_column(str(US_PER_DAY), BigInteger),
    "hour": usage.c.created_us // literal_column(str(US_PER_HOUR), BigInteger),
}


class UsageLine(msgspec.Struct, frozen=True):
    """One line. Amounts in nano-dollars; calls count by their start; `unknown_costs` are attempts whose cost nobody knows yet."""

    groups: tuple[str | int, ...]
    """In the order asked for; days and hours are counted from the epoch (`shown` writes them)."""
    calls: int
    attempts: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    charge_nano: int
    cost_nano: int
    unknown_costs: int


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage is meant: calls that started in [since, until), of some account, key, project…"""

    since_us: int
    until_us: int | None = None
    account_id: str | None = None
    key_id: str | None = None
    project: str | None = None
    model: str | None = None
    provider: str | None = None
    end_user: str | None = None

    def apply(self, query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        query = query.where(usage.c.created_us >= self.since_us)
        if self.until_us is not None:
            query = query.where(usage.c.created_us < self.until_us)
        for name in ("account_id", "key_id", "project", "model", "provider", "end_user"):
            value = getattr(self, name)
            if value is not None:
                query = query.where(usage.c[name] == value)
        return query


def usage_lines(
    connection: Connection,
    by: Sequence[Group],
    narrow: Narrow,
    *,
    dearest_first: bool = False,
    after: Sequence[str | int] | None = None,
    lines_max: int = LINES_MAX,
) -> list[UsageLine]:
    """Sums by one or more dimensions, in the order of the groups (from behind `after`), or the dearest first (one page only)."""
    assert by and len(set(by)) == len(by), "a report has at least one dimension, each once"
    assert after is None or (len(after) == len(by) and not dearest_first), "pages follow the order of the groups"
    tagged = _tags(connection) if "tag" in by else None
    plain = [_COLUMNS[name] if name != "tag" or tagged is None else tagged.c.value for name in by]
    columns = [column.label(f"group_{name}") for name, column in zip(by, plain, strict=True)]
    query = select(
        *columns,
        func.count().filter(usage.c.final),
        func.count().filter((usage.c.revision == 0) & (usage.c.attempt > 0)),
        func.coalesce(func.sum(usage.c.prompt_tokens), 0),
        func.coalesce(func.sum(usage.c.cached_tokens), 0),
        func.coalesce(func.sum(usage.c.completion_tokens), 0),
        func.coalesce(func.sum(usage.c.reasoning_tokens), 0),
        func.sum(usage.c.charge_nano),
        func.coalesce(func.sum(usage.c.cost_nano), 0),
        func.count().filter(_unknown()),
    )
    if tagged is not None:
        query = query.select_from(usage.join(tagged, true()))
    query = narrow.apply(query)
    if after is not None:
        query = query.where(tuple_(*plain) > tuple_(*after))
    query = query.group_by(*columns).limit(min(lines_max, LINES_MAX))
    query = query.order_by(func.sum(usage.c.charge_nano).desc(), *columns) if dearest_first else query.order_by(*columns)
    width = len(by)
    return [
        UsageLine(tuple(row[:width]), *(int(value) for value in row[width:])) for row in connection.execute(query)
    ]


def own_key_lines(connection: Connection, by: Sequence[Group], narrow: Narrow) -> dict[tuple[str | int, ...], int]:
    """What providers billed customers themselves, nano-dollars, by the same groups."""
    tagged = _tags(connection) if "tag" in by else None
    plain = [_COLUMNS[name] if name != "tag" or tagged is None else tagged.c.value for name in by]
    columns = [column.label(f"group_{name}") for name, column in zip(by, plain, strict=True)]
    beside = own_key_usage.c
    same = (beside.hold_id == usage.c.hold_id) & (beside.attempt == usage.c.attempt) & (beside.revision == usage.c.revision)
    rows = own_key_usage.join(usage, same)
    query = select(*columns, func.sum(beside.provider_nano))
    query = query.select_from(rows if tagged is None else rows.join(tagged, true()))
    query = narrow.apply(query).group_by(*columns).limit(LINES_MAX)
    return {tuple(row[:-1]): int(row[-1]) for row in connection.execute(query)}


def _tags(connection: Connection) -> TableValuedAlias:
    """A row's tags, one after the other; empty for a row without any. A call with several counts in each of them."""
    tags = case((usage.c.tags == "", '[""]'), else_=usage.c.tags)
    if connection.dialect.name == "sqlite":
        return func.json_each(tags).table_valued("value", name="tagged")
    return func.jsonb_array_elements_text(cast(tags, JSONB)).table_valued("value", name="tagged").render_derived()


def _unknown() -> ColumnElement[bool]:
    """First rows of attempts whose cost no correction has named."""
    corrected = usage.alias("corrected")
    known_later = (
        select(corrected.c.hold_id)
        .where(
            corrected.c.hold_id == usage.c.hold_id,
            corrected.c.attempt == usage.c.attempt,
            corrected.c.revision > 0,
            corrected.c.cost_nano.is_not(None),
        )
        .exists()
    )
    return usage.c.cost_nano.is_(None) & (usage.c.revision == 0) & ~known_later


def shown(group: Group, value: str | int) -> str:
    """A group's value as people read it: days `2026-11-23`, hours `2026-11-23T07` (UTC)."""
    if group == "day":
        return datetime.fromtimestamp(int(value) * 86_400, UTC).strftime("%Y-%m-%d")
    if group == "hour":
        return datetime.fromtimestamp(int(value) * 3_600, UTC).strftime("%Y-%m-%dT%H")
    return str(value)
