"""Runs: a statement is compared, its findings are stored, and each is approved or rejected. What is approved is posted, once.

What may be adjusted:

- **what we owe**, always: the difference moves between `provider_cost` and `provider_payable:{name}`, by a transfer whose cause
  is the finding;
- **what a customer was charged**, only where billing.md says so: an attempt that was estimated and that the statement has counts
  for is corrected like any other (`billing.accounts.adjustments`): down at once, up only when asked. What a provider says later
  about an attempt whose usage it had reported is between us and it.

A transaction posts a few findings whole; a process that dies leaves some approved and the rest open, and doing it again goes on
there. Findings stay true as long as the books of their days do: late calls, or another run that was approved, make a run stale.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from farebox.billing.accounts.adjustments import adjust_within
from farebox.billing.books import transfers as entries
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.transfers import Transfer, insert_transfers
from farebox.ports import Clock, Ids
from farebox.reconciliation import records
from farebox.reconciliation.comparison import compare
from farebox.reconciliation.figures import day_in
from farebox.reconciliation.judging import Terms
from farebox.reconciliation.reading import zone_of
from farebox.reconciliation.reports import File
from farebox.reconciliation.statement import Finding, Statement
from farebox.storage.database import Database, RowRefused
from farebox.storage.reconciliation_tables import reconciliation_findings, reconciliations
from farebox.storage.tables import usage

FINDINGS_MAX = 10_000
"""Of one run; more are a sign of the wrong statement."""
AT_ONCE = 50
"""Findings that one transaction posts: calls must not wait long for the writer."""
LISTED_MAX = 1_000
CAUSE = "reconciliation"

State = Literal["open", "approved", "rejected"]
_decode_finding = msgspec.json.Decoder(Finding).decode


class Run(msgspec.Struct, frozen=True):
    """A statement that was compared. Nano-dollars; counts of findings by their state."""

    id: str
    provider: str
    source: str
    digest: str
    reading: int
    first_day: str
    last_day: str
    zone: str
    from_us: int
    until_us: int
    lines: int
    statement_nano: int | None
    taken_us: int
    open: int = 0
    approved: int = 0
    rejected: int = 0


class Stored(msgspec.Struct, frozen=True):
    """A finding of a run, and what became of it."""

    number: int
    finding: Finding
    state: State
    adjusted_nano: int
    """What its own transfer moved."""
    decided_us: int | None


def digest_of(files: Sequence[File], statement: Statement) -> str:
    """What makes two statements the same: their bytes, whatever the files are called and in whatever order, and their days."""
    parts = sorted(hashlib.sha256(file.content).hexdigest() for file in files)
    return hashlib.sha256(" ".join((*parts, statement.first_day, statement.last_day, statement.zone)).encode()).hexdigest()


def known(database: Database, provider: str, digest: str) -> Run | None:
    """The last run over the same statement."""
    same = (reconciliations.c.provider == provider) & (reconciliations.c.digest == digest)
    found = database.read(lambda connection: _runs(connection, same))
    return found[0] if found else None


def reconcile(
    database: Database,
    ids: Ids,
    clock: Clock,
    statement: Statement,
    *,
    source: str,
    digest: str,
    offer_of: Callable[[str], str | None],
    keys: dict[str, str],
) -> Run:
    """Compare, and store what was found. Raises `judging.Refused`, or `CommandRefused` when nearly everything differs."""
    provider = statement.provider
    from_us, until_us = records.bounds_us(statement.first_day, statement.last_day, statement.zone)
    day_of = day_in(zone_of(statement.zone))
    taken_us = clock.now_us()
    if day_of(taken_us) <= statement.last_day:
        raise CommandRefused(f"the day {statement.last_day} is not over yet ({statement.zone}); --until leaves days out")

    def ask(connection: Connection) -> list[Finding]:
        before = records.earlier(connection, provider, statement.first_day, statement.last_day)
        ours = records.attempts(connection, provider, from_us, until_us)
        return compare(statement, ours, Terms(day_of, offer_of, keys, before))

    found = database.read(ask)
    if len(found) > FINDINGS_MAX:
        raise CommandRefused(
            f"{len(found)} differences, more than {FINDINGS_MAX}; is it this provider's statement, with its zone and its keys?"
        )
    costs = [line.cost_nano for line in statement.lines if line.cost_nano is not None]
    same = (reconciliations.c.provider == provider) & (reconciliations.c.digest == digest)
    run_id = ids.new("rec")

    def keep(connection: Connection) -> None:
        reading = connection.execute(select(func.count()).where(same)).scalar_one() + 1
        values = {
            "id": run_id, "provider": provider, "source": source, "digest": digest, "reading": reading,
            "first_day": statement.first_day, "last_day": statement.last_day, "zone": statement.zone, "from_us": from_us,
            "until_us": until_us, "lines": len(statement.lines), "statement_nano": sum(costs) if costs else None,
            "taken_us": taken_us,
        }  # fmt: skip
        connection.execute(insert(reconciliations).values(**values))
        columns = ("run_id", "number", "kind", "subject", "day", "model", "provider_key", "difference_nano", "record")
        rows = [
            (
                run_id, number, one.kind, one.subject, one.day, one.model, one.key, one.difference_nano,
                msgspec.json.encode(one).decode(),
            )
            for number, one in enumerate(found, 1)
        ]  # fmt: skip
        database.insert_rows(connection, reconciliation_findings, columns, rows)

    try:
        database.write(keep)
    except RowRefused:
        raise CommandRefused("the same statement is being compared by somebody else just now") from None
    return run(database, run_id)


def run(database: Database, run_id: str) -> Run:
    """A run by its id. Raises `CommandRefused`."""
    found = database.read(lambda connection: _runs(connection, reconciliations.c.id == run_id))
    if not found:
        raise CommandRefused(f"there is no run `{run_id}`")
    return found[0]


def runs(database: Database, provider: str | None = None) -> list[Run]:
    """The newest runs first."""
    wanted = reconciliations.c.provider == provider if provider is not None else None
    return database.read(lambda connection: _runs(connection, wanted))


def _runs(connection: Connection, wanted: Any) -> list[Run]:
    found = reconciliation_findings.c
    counts = [
        func.count().filter(found.state == state).label(state)
        for state in ("open", "approved", "rejected")
    ]
    query = (
        select(*reconciliations.c, *counts)
        .outerjoin(reconciliation_findings, found.run_id == reconciliations.c.id)
        .group_by(*reconciliations.c)
        .order_by(reconciliations.c.taken_us.desc(), reconciliations.c.id.desc())
        .limit(LISTED_MAX)
    )
    if wanted is not None:
        query = query.where(wanted)
    # An engine may say sums as decimals.
    counted = ("open", "approved", "rejected")
    rows = connection.execute(query).mappings()
    found_rows: list[dict[str, Any]] = [{**row, **{name: int(row[name]) for name in counted}} for row in rows]
    return [Run(**row) for row in found_rows]


def findings(database: Database, run_id: str) -> list[Stored]:
    """Every finding of a run, in order."""
    found = reconciliation_findings.c
    query = select(reconciliation_findings).where(found.run_id == run_id).order_by(found.number)
    return database.read(lambda connection: [_stored(row) for row in connection.execute(query)])


def _stored(row: Any) -> Stored:
    return Stored(row.number, _decode_finding(row.record), row.state, row.adjusted_nano, row.decided_us)


def reject(database: Database, clock: Clock, run_id: str, numbers: Sequence[int] | None = None) -> list[int]:
    """Leave the books as they are about these findings, or all that are open; their numbers."""
    made = run(database, run_id)
    now_us = clock.now_us()

    def work(connection: Connection) -> list[int]:
        _lock(connection, made.provider)
        rows = _chosen(connection, run_id, numbers, "rejected")
        chosen = [row.number for row in rows if row.state == "open"]
        found = reconciliation_findings.c
        connection.execute(
            update(reconciliation_findings)
            .where(found.run_id == run_id, found.number.in_(chosen))
            .values(state="rejected", decided_us=now_us)
        )
        return chosen

    return database.write(work)


def approve(
    database: Database,
    ids: Ids,
    clock: Clock,
    run_id: str,
    numbers: Sequence[int] | None = None,
    *,
    may_raise: bool = False,
    fail_point: Callable[[str], None] = lambda _name: None,
) -> list[Stored]:
    """Post the differences of these findings, or of all that are open and have one; as they are afterwards.

    What was approved before is left as it is. `may_raise`: an estimate's correction may raise its customer's charge, as far as
    its hold goes. Raises `CommandRefused` for a finding that was rejected, or has no amount, and for a run that is stale.
    """
    made = run(database, run_id)
    chosen = database.read(lambda connection: [row.number for row in _chosen(connection, run_id, numbers, "approved")])
    late = database.read(lambda connection: _late(connection, made))
    if late and made.open:
        raise CommandRefused(f"{late} attempts of its days were posted after run `{run_id}` was made")
    done: list[Stored] = []
    for start in range(0, len(chosen), AT_ONCE):
        batch = chosen[start : start + AT_ONCE]
        now_us = clock.now_us()

        def work(connection: Connection, batch: Sequence[int] = batch, now_us: int = now_us) -> list[Stored]:
            posted = _post(database, connection, ids, made, batch, may_raise, now_us)
            fail_point("reconcile.before_commit")
            return posted

        done += database.write(work)
        fail_point("reconcile.after_commit")
    return done


def _lock(connection: Connection, provider: str) -> None:
    """Decisions about one provider come one after another."""
    query = select(reconciliations.c.id).where(reconciliations.c.provider == provider).order_by(reconciliations.c.id)
    connection.execute(query.with_for_update()).all()


def _chosen(connection: Connection, run_id: str, numbers: Sequence[int] | None, state: State) -> list[Any]:
    """The findings meant: those named, or all that can be decided so."""
    found = reconciliation_findings.c
    rows = connection.execute(select(reconciliation_findings).where(found.run_id == run_id).order_by(found.number)).all()
    if numbers is None:
        return [row for row in rows if row.state == "open" and (state == "rejected" or row.difference_nano is not None)]
    by_number = {row.number: row for row in rows}
    for number in numbers:
        if number not in by_number:
            raise CommandRefused(f"run `{run_id}` has no finding {number}")
        row = by_number[number]
        if row.state not in ("open", state):
            raise CommandRefused(f"finding {number} of run `{run_id}` was {row.state}")
        if state == "approved" and row.difference_nano is None:
            raise CommandRefused(f"finding {number} of run `{run_id}` has no amount: the statement does not say what it costs")
    return [by_number[number] for number in sorted(set(numbers))]


def _late(connection: Connection, made: Run) -> int:
    """Attempts of the run's days that were posted since, without the corrections that its own findings have made."""
    found = reconciliation_findings.c
    own = connection.execute(select(found.record).where(found.run_id == made.id, found.state == "approved"))
    corrected = {(one.hold_id, one.attempt) for one in (_decode_finding(row.record) for row in own) if one.exact is not None}
    late = connection.execute(
        select(usage.c.hold_id, usage.c.attempt).where(
            usage.c.provider == made.provider, usage.c.posted_us > made.taken_us, usage.c.attempt > 0,
            usage.c.created_us >= made.from_us, usage.c.created_us < made.until_us,
        )
    )  # fmt: skip
    return len({(row.hold_id, row.attempt) for row in late} - corrected)


def _post(
    database: Database, connection: Connection, ids: Ids, made: Run, numbers: Sequence[int], may_raise: bool, now_us: int
) -> list[Stored]:
    _lock(connection, made.provider)
    found = reconciliation_findings.c
    other = connection.execute(
        select(reconciliations.c.id)
        .join(reconciliation_findings, found.run_id == reconciliations.c.id)
        .where(
            reconciliations.c.provider == made.provider, reconciliations.c.id != made.id, found.state == "approved",
            found.decided_us > made.taken_us, found.day >= made.first_day, found.day <= made.last_day,
        )
        .limit(1)
    ).scalar_one_or_none()  # fmt: skip
    done: list[Stored] = []
    for row in connection.execute(
        select(reconciliation_findings).where(found.run_id == made.id, found.number.in_(numbers)).order_by(found.number)
    ).all():
        if row.state != "open":
            done.append(_stored(row))
            continue
        if other is not None:
            raise CommandRefused(f"run `{other}` about the same days was approved after run `{made.id}` was made")
        one = _decode_finding(row.record)
        rest = one.difference_nano
        assert rest is not None, "what has no amount is not chosen"
        if one.exact is not None:
            try:
                rest -= adjust_within(
                    database, connection, ids, one.hold_id, one.attempt, one.exact, None, may_raise, now_us
                ).cost_nano
            except CommandRefused:
                pass  # it cannot be corrected by itself any more; what we owe is adjusted all the same
        if rest:
            insert_transfers(database, connection, [_transfer(ids, made, row.number, rest, now_us)])
        values = {"state": "approved", "adjusted_nano": rest, "decided_us": now_us}
        connection.execute(
            update(reconciliation_findings).where(found.run_id == made.id, found.number == row.number).values(**values)
        )
        done.append(Stored(row.number, one, "approved", rest, now_us))
    return done


def _transfer(ids: Ids, made: Run, number: int, rest: int, now_us: int) -> Transfer:
    """We owe more: cost to payable; less: the other way round."""
    debit, credit = entries.PROVIDER_COST, entries.provider_payable(made.provider)
    if rest < 0:
        debit, credit = credit, debit
    return Transfer(ids.new("trf"), now_us, debit, credit, abs(rest), None, CAUSE, f"{made.id}:{number}")
