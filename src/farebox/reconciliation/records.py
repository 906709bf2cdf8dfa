"""Our side: what we sent a provider in a period, attempt by attempt, corrections included, and what was adjusted before."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from farebox.billing.accounts.adjustments import CORRECTED_FLAG
from farebox.billing.books import evidence
from farebox.billing.records import Attempt
from farebox.reconciliation.judging import Earlier, Ours
from farebox.storage.queries import UsageRow
from farebox.storage.reconciliation_tables import reconciliation_findings, reconciliations
from farebox.storage.tables import usage

ROWS_AT_ONCE = 1_000
CALL_US_MAX = 86_400_000_000
"""A call's attempts begin no later than this after it."""
SKEW_US = 3_600_000_000
"""By so much a provider's clock may be behind ours: a call that it names is found, whatever day we put it on."""
NOT_COUNTED = ("observed", "estimated")
"""What counts may be based on, beside the provider's own report."""


def bounds_us(first_day: str, last_day: str, zone: str) -> tuple[int, int]:
    """The first microsecond of the first day in a zone, and the one after the last day."""
    where = ZoneInfo(zone)
    start = datetime.fromisoformat(first_day).replace(tzinfo=where)
    end = (datetime.fromisoformat(last_day) + timedelta(days=1)).replace(tzinfo=where)
    return int(start.timestamp()) * 1_000_000, int(end.timestamp()) * 1_000_000


def attempts(connection: Connection, provider: str, from_us: int, until_us: int) -> Iterator[Ours]:
    """Every attempt at the provider that may have been in flight in the period, from one snapshot, streamed."""
    query = (
        select(usage)
        .where(
            usage.c.provider == provider, usage.c.attempt > 0, usage.c.created_us >= from_us - CALL_US_MAX,
            usage.c.created_us < until_us + SKEW_US,
        )
        .order_by(usage.c.hold_id, usage.c.attempt, usage.c.revision)
    )  # fmt: skip
    rows = connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).mappings()
    for (hold_id, number), group in groupby(rows, key=lambda row: (row["hold_id"], row["attempt"])):
        found = [UsageRow(**row) for row in group]
        known = evidence.attempt(found[-1])
        assert known is not None, "only attempt 0 has no attempt record"
        # What a customer's own key was used for is on the customer's bill, not on ours.
        if not known.own_key:
            yield _ours(hold_id, number, known, found)


def _ours(hold_id: str, number: int, known: Attempt, rows: list[UsageRow]) -> Ours:
    costs = [row.cost_nano for row in rows if row.cost_nano is not None]
    cost = sum(costs) if costs else None
    counted = CORRECTED_FLAG in known.flags or known.basis not in NOT_COUNTED
    return Ours(
        hold_id=hold_id,
        attempt=number,
        model=known.upstream_id,
        key=known.provider_key,
        request_id=known.upstream_request_id,
        started_us=known.started_us,
        ended_us=known.ended_us,
        usage=known.usage,
        cost_nano=cost,
        rates=known.rates,
        exact=cost is not None and counted,
    )


def earlier(connection: Connection, provider: str, first_day: str, last_day: str) -> tuple[Earlier, ...]:
    """What approved findings of these days have moved by transfers of their own."""
    found = reconciliation_findings.c
    query = (
        select(found.subject, found.day, found.model, found.provider_key, found.adjusted_nano)
        .join(reconciliations, reconciliations.c.id == found.run_id)
        .where(reconciliations.c.provider == provider, found.adjusted_nano != 0, found.day >= first_day, found.day <= last_day)
        .order_by(found.run_id, found.number)
    )
    return tuple(Earlier(*row) for row in connection.execute(query))
