"""What a reconciliation may do to the books: each approved difference once, what we owe to the nano-dollar, customers left alone
but for estimates. On both engines."""

import threading
from collections.abc import Sequence

import msgspec
import pytest

from farebox.billing.books.customers import CommandRefused
from farebox.billing.records import Settle
from farebox.catalog.price import Rates
from farebox.reconciliation import runs
from farebox.reconciliation.judging import Refused
from farebox.reconciliation.reports import File
from farebox.reconciliation.statement import Line, Statement
from farebox.storage.database import Database
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
DAY = "2026-11-23"
RATES = Rates(input=2_500_000, cache_read=1_250_000, output=10_000_000, reasoning=10_000_000)
USED = Usage(input=1_000, output=100)
COST = 3_500_000
"""What `USED` costs at `RATES`, in nano-dollars."""


class Month:
    """Calls at one provider, and what it says about them."""

    def __init__(self, world) -> None:
        self.world = world
        self.account = world.account(100 * DOLLAR)
        self.key = world.key(self.account)
        self.worker = world.worker()
        self.lines: list[Line] = []

    def call(self, usage: Usage | None = USED, *, request_id: str = "", hold_nano: int = 10_000_000, **more) -> Settle:
        hold = self.worker.hold(self.key, hold_nano, rates=RATES)
        named = request_id or f"req-{hold.id}"
        attempt = self.worker.attempt(hold, usage, upstream_request_id=named, provider_key="openai#1", **more)
        return self.worker.settle(hold, attempt)

    def line(self, settle: Settle, usage: Usage | None = USED, cost: int | None = COST) -> None:
        (attempt,) = settle.attempts
        units = None if usage is None else {name: getattr(usage, name) for name in ("input", "cache_read", "output", "reasoning")}
        self.lines.append(
            Line(
                day=DAY, model="gpt-4o-2024-08-06", request_id=attempt.upstream_request_id, units=units, cost_nano=cost,
                place=f"line {len(self.lines) + 2}",
            )
        )  # fmt: skip

    def over(self) -> None:
        self.world.post()
        self.world.clock.us += 2 * DAY_US

    def by_day(self) -> list[Line]:
        units: dict[str, int] = {}
        for line in self.lines:
            for name, count in (line.units or {}).items():
                units[name] = units.get(name, 0) + count
        return [Line(day=DAY, model="gpt-4o", units=units, cost_nano=sum(line.cost_nano or 0 for line in self.lines))]

    def compare(self, lines: Sequence[Line] | None = None, **more) -> runs.Run:
        return compare(self.world, self.lines if lines is None else lines, **more)

    @property
    def owed(self) -> int:
        return -self.world.sums().get("provider_payable:openai", 0)


def compare(
    world, lines: Sequence[Line], content: bytes = b"", keys: dict[str, str] | None = None, day: str = DAY, **more
) -> runs.Run:
    statement = Statement(provider="openai", first_day=day, last_day=day, lines=tuple(lines), **more)
    digest = runs.digest_of([File("x.csv", content or repr(lines).encode())], statement)
    return runs.reconcile(
        world.database, world.ids, world.clock, statement, source="x.csv", digest=digest,
        offer_of=lambda name: "gpt-4o" if name.startswith("gpt-4o") else None, keys=keys or {},
    )  # fmt: skip


def kinds(world, run: runs.Run) -> list[str]:
    return [one.finding.kind for one in runs.findings(world.database, run.id)]


def approve(world, run: runs.Run, numbers: Sequence[int] | None = None, **more):
    return runs.approve(world.database, world.ids, world.clock, run.id, numbers, **more)


@pytest.fixture
def month(world) -> Month:
    return Month(world)


def faulty(month: Month) -> dict[str, Settle]:
    """A day with one fault of each kind; nothing is compared yet."""
    made = {
        name: month.call(request_id=f"req-{name}")
        for name in ("right", "units", "drift", "not-there", "twice")
    }
    made["low"] = month.call(USED, request_id="req-low", basis="observed", outcome="ok")
    made["high"] = month.call(USED, request_id="req-high", basis="estimated", outcome="ok")
    made["unknown"] = month.call(None, request_id="req-unknown")
    month.line(made["right"])
    month.line(made["units"], Usage(input=1_000, output=120), COST + 200_000)
    month.line(made["drift"], USED, COST + 70_000)
    month.line(made["twice"])
    month.line(made["twice"])
    month.line(made["low"], Usage(input=1_000, output=150), COST + 500_000)
    month.line(made["high"], Usage(input=900, output=80, reasoning=10), 2_250_000 + 900_000)
    month.line(made["unknown"], Usage(input=10), 25_000)
    month.lines.append(Line(day=DAY, model="gpt-4o", request_id="req-nobody", units={"input": 4, "output": 0}, cost_nano=10_000))
    month.lines.append(Line(day=DAY, model="strange-1", request_id="req-strange", units={"input": 4, "output": 0}, cost_nano=77))
    month.over()
    return made


def test_approved_differences_make_what_we_owe_equal_the_statement(world, month):
    made = faulty(month)
    before = world.balance(month.account)
    run = month.compare()
    found = {one.finding.request_id: one.finding.kind for one in runs.findings(world.database, run.id)}
    assert found == {
        "req-units": "units_differ", "req-drift": "price_drift", "req-not-there": "missing_there", "req-twice": "billed_twice",
        "req-low": "estimate", "req-high": "estimate", "req-unknown": "estimate", "req-nobody": "missing_here",
        "req-strange": "unknown_model",
    }  # fmt: skip
    assert world.check() == [] and month.owed != run.statement_nano, "nothing is posted before it is approved"
    approve(world, run)
    assert month.owed == run.statement_nano == sum(line.cost_nano for line in month.lines)
    assert world.check() == []
    # Only the estimate that was too high changes what the customer paid: down to the exact price.
    assert world.balance(month.account).remaining_nano - before.remaining_nano == COST - 3_150_000
    (row, corrected) = world.rows(made["high"])
    assert (corrected.revision, corrected.charge_nano, corrected.reasoning_tokens) == (1, -350_000, 10)
    assert len(world.rows(made["units"])) == 1, "what the provider says later about usage that it reported is not the customer's"
    (row, corrected) = world.rows(made["low"])
    assert (corrected.charge_nano, corrected.loss_nano, corrected.cost_nano) == (0, 500_000, 500_000)


def test_an_estimate_rises_only_when_asked(world, month):
    low = month.call(USED, request_id="req-low", basis="observed", outcome="ok")
    month.line(low, Usage(input=1_000, output=150), COST + 500_000)
    month.over()
    approve(world, month.compare(), may_raise=True)
    assert [row.charge_nano for row in world.rows(low)] == [COST, 500_000] and world.check() == []


@pytest.mark.parametrize("by_day", [False, True])
def test_approved_again_or_compared_again_changes_nothing(world, month, by_day):
    faulty(month)
    lines = month.by_day() if by_day else month.lines
    run = month.compare(lines)
    first = approve(world, run)
    assert len(first) == len(kinds(world, run)) == (1 if by_day else 9)
    sums = world.sums()
    assert approve(world, run) == [] and approve(world, run, [1])[0].state == "approved"
    assert world.sums() == sums and month.owed == run.statement_nano
    again = month.compare(lines)
    assert (again.reading, kinds(world, again)) == (2, [])
    assert runs.run(world.database, run.id).approved == len(first)
    assert world.check() == []


def test_days_that_were_adjusted_as_a_whole_cannot_be_taken_apart(world, month):
    faulty(month)
    approve(world, month.compare(month.by_day()))
    with pytest.raises(Refused, match="2026-11-23 was adjusted as a whole already"):
        month.compare()
    # The other way round sums add up.


def test_requests_that_were_adjusted_add_up_to_their_day(world, month):
    faulty(month)
    lines = [line for line in month.lines if line.model != "strange-1"]
    approve(world, month.compare(lines))
    month.lines = lines
    assert kinds(world, month.compare(month.by_day())) == []
    apart = [msgspec.structs.replace(line, cost_nano=None, key="key_a") for line in month.by_day()]
    apart += [msgspec.structs.replace(line, units=None) for line in month.by_day()]
    assert kinds(world, month.compare(apart, keys={"key_a": "openai#1"})) == []


def test_some_are_approved_and_some_rejected(world, month):
    faulty(month)
    run = month.compare()
    owed = month.owed
    (one,) = approve(world, run, [2])
    assert month.owed == owed + (one.finding.difference_nano or 0)
    assert runs.reject(world.database, world.clock, run.id, [1]) == [1]
    with pytest.raises(CommandRefused, match="finding 1 of run `.*` was rejected"):
        approve(world, run, [1])
    with pytest.raises(CommandRefused, match="finding 2 of run `.*` was approved"):
        runs.reject(world.database, world.clock, run.id, [2])
    with pytest.raises(CommandRefused, match="has no finding 99"):
        approve(world, run, [99])
    assert len(runs.reject(world.database, world.clock, run.id)) == 7
    done = runs.run(world.database, run.id)
    assert (done.open, done.approved, done.rejected) == (0, 1, 8) and world.check() == []


def test_a_stale_run_is_refused(world, month):
    faulty(month)
    run, other = month.compare(), month.compare(content=b"another file")
    world.clock.us += 1
    approve(world, other)
    with pytest.raises(CommandRefused, match="attempts of its days were posted after|about the same days was approved after"):
        approve(world, run)
    assert month.owed == run.statement_nano and world.check() == []


def test_a_request_is_found_on_the_other_side_of_midnight(world, month):
    """The provider's clock is a little behind ours, or ahead of it."""
    world.clock.us += DAY_US + 500_000
    month.line(month.call())
    world.post()
    world.clock.us += 2 * DAY_US
    assert kinds(world, month.compare()) == []
    month.lines = [msgspec.structs.replace(line, day="2026-11-25") for line in month.lines]
    assert kinds(world, compare(world, month.lines, day="2026-11-25")) == []


def test_two_runs_about_the_same_days_are_not_both_posted(world, month):
    month.line(month.call(), USED, COST + 70_000)
    month.over()
    run, other = month.compare(), month.compare(content=b"another file")
    world.clock.us += 1
    approve(world, other)
    with pytest.raises(CommandRefused, match=f"run `{other.id}` about the same days was approved after run `{run.id}` was made"):
        approve(world, run)
    assert month.owed == COST + 70_000 and world.check() == []


def test_calls_that_were_posted_later_make_a_run_stale(world, month):
    settled = month.call(request_id="req-1")
    month.line(settled, USED, COST + 1)
    month.over()
    world.clock.us -= 2 * DAY_US
    month.call(request_id="req-late")
    world.clock.us += 2 * DAY_US
    run = month.compare()
    world.clock.us += 1
    world.post()
    with pytest.raises(CommandRefused, match="1 attempts of its days were posted after"):
        approve(world, run)
    assert sorted(kinds(world, month.compare())) == ["missing_there", "price_drift"]


def test_many_who_approve_at_once_post_it_once(world, month):
    faulty(month)
    run = month.compare()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with Database.open(world.url) as database:
                runs.approve(database, type(world.ids)(world.clock), world.clock, run.id)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and month.owed == run.statement_nano and world.check() == []


def test_a_statement_without_costs_has_nothing_to_approve_but_its_estimates(world, month):
    wrong, high = month.call(request_id="req-wrong"), month.call(USED, request_id="req-high", basis="estimated", outcome="ok")
    month.line(wrong, Usage(input=1_000, output=120), None)
    month.line(high, Usage(input=1_000, output=90), None)
    month.over()
    run = month.compare()
    found = {one.finding.kind: one.finding.difference_nano for one in runs.findings(world.database, run.id)}
    assert found == {"units_differ": 200_000, "estimate": -100_000}, "by the price of the attempt"
    days = month.compare(
        [Line(day=DAY, model="gpt-4o", units={"input": 2_000, "output": 210}, requests=2)], inside={"reasoning": "output"}
    )
    (one,) = runs.findings(world.database, days.id)
    assert (one.finding.kind, one.finding.difference_nano) == ("estimate", None)
    assert approve(world, days) == []
    with pytest.raises(CommandRefused, match="has no amount"):
        approve(world, days, [1])


def test_a_day_that_is_not_over_is_refused(world, month):
    month.line(month.call())
    world.post()
    with pytest.raises(CommandRefused, match="the day 2026-11-23 is not over yet"):
        month.compare()


def test_the_check_sees_a_finding_without_its_transfer(world, month):
    from sqlalchemy import text

    faulty(month)
    run = month.compare()
    approve(world, run)
    done = {"run": run.id}
    world.database.write(
        lambda c: c.execute(text("UPDATE reconciliation_findings SET adjusted_nano = adjusted_nano + 1 WHERE number = 1"), done)
    )
    assert [(one.invariant, one.subject) for one in world.check()] == [("I5", f"{run.id}:1")]


def test_a_thousand_differences_are_posted_in_parts(world, month, monkeypatch):
    monkeypatch.setattr(runs, "AT_ONCE", 2)
    faulty(month)
    run = month.compare()
    points: list[str] = []
    approve(world, run, fail_point=points.append)
    assert points.count("reconcile.after_commit") == 5 and month.owed == run.statement_nano
    monkeypatch.setattr(runs, "FINDINGS_MAX", 3)
    with pytest.raises(CommandRefused, match="differences, more than 3; is it this provider's statement"):
        compare(world, [Line(day=DAY, model="gpt-4o", request_id=f"other-{number}", cost_nano=5) for number in range(4)])
