"""`farebox demo --month`: what it shows has happened, by the books that it leaves and not by its own account, and again alike."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import func, select
from tests.support.running import free_port, program_environment, wait_until

from farebox.billing.books import evidence
from farebox.billing.books.breakdown import breakdown
from farebox.billing.books.periods import format_day, month_bounds, parse_moment
from farebox.billing.invariants import checks
from farebox.billing.invoicing import invoices
from farebox.cli import cli
from farebox.cli.demo_commands import _show
from farebox.cli.setup import first_key
from farebox.config import Loaded, load
from farebox.demo import papers
from farebox.demo.month import Played
from farebox.demo.organisation import KEYS, LIMITED, MODELS, PRICED_UP, PROVIDERS, RUNAWAY
from farebox.demo.traffic import plan
from farebox.money import parse_amount
from farebox.ports import SystemClock
from farebox.storage import tables
from farebox.storage.database import Database
from farebox.storage.queries import UsageRow
from farebox.storage.tables import usage

CALLS = 200
SEED = 5
HOUR_US = 3_600_000_000


def run(*arguments: str, stderr: int = subprocess.PIPE) -> "subprocess.CompletedProcess[bytes]":
    # Real keys, of a provider that the demo simulates and of one that it does not: neither may be used.
    environment = {**os.environ, **program_environment(), "OPENAI_API_KEY": "sk-real", "DEEPINFRA_API_KEY": "real"}
    command = [sys.executable, "-m", "farebox", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, timeout=120)


def demo(folder: Path, stderr: int = subprocess.PIPE) -> dict[str, Any]:
    words = ("demo", "--month", "--calls", str(CALLS), "--seed", str(SEED), "--data", str(folder), "--json")
    done = run(*words, stderr=stderr)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "nobody looks at a bar that is not on a terminal"
    return json.loads(done.stdout)


class Left:
    """What a demo left behind."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.loaded: Loaded = load(Path(said["config"]))
        self.database = Database.open(self.loaded.database_url)
        self.start_us, self.end_us = month_bounds(said["month"])

    def all(self, query: Any) -> list[Any]:
        return self.database.read(lambda connection: list(connection.execute(query)))

    def rows(self, *where: Any) -> list[UsageRow]:
        mine = select(usage).where(usage.c.account_id == self.said["account_id"], *where).order_by(usage.c.created_us)
        return self.database.read(lambda c: [UsageRow(**row) for row in c.execute(mine).mappings()])

    def key(self, index: int) -> Any:
        (found,) = self.all(select(tables.keys).where(tables.keys.c.name == KEYS[index].name))
        return found

    def messages(self, kind: str) -> list[Any]:
        return self.all(select(tables.outbox).where(tables.outbox.c.kind == kind).order_by(tables.outbox.c.created_us))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    found = Left(demo(tmp_path_factory.mktemp("demo") / "data"))
    yield found
    found.database.close()


def test_the_organisation_called_through_the_pipeline_all_month(left: Left) -> None:
    rows = left.rows(usage.c.revision == 0)
    assert {row.model for row in rows} == set(MODELS) and len(MODELS) == 20
    assert len({row.key_id for row in rows}) == 12 and len({row.project for row in rows}) == 3
    assert {row.provider for row in rows} <= set(PROVIDERS), "a real provider was called"
    assert all(left.start_us <= row.created_us < left.end_us for row in rows)
    days = {format_day(row.created_us) for row in rows}
    assert len(days) > 15 and min(days)[-2:] < "06" and max(days)[-2:] > "25"
    assert len({row.hold_id for row in rows}) > CALLS * 9 // 10
    assert sum(row.cached_tokens or 0 for row in rows) > 10_000, "prompt caches were read"
    attempts = [evidence.attempt(row) for row in rows]
    assert sum(attempt is not None and attempt.usage is not None for attempt in attempts) > CALLS * 9 // 10


def test_the_books_balance_and_the_month_is_closed_exactly(left: Left) -> None:
    assert checks.check(left.database, left.loaded.journal_dir) == []
    invoice = json.loads((left.loaded.folder / "invoice.json").read_text())
    assert invoice["month"] == left.said["month"]
    charged = sum(row.charge_nano for row in left.rows(usage.c.revision == 0))
    assert parse_amount(invoice["usage"]) == charged > 0
    assert sum(parse_amount(line["amount"]) for line in invoice["lines"]) == charged - parse_amount(invoice["rounding"])
    assert left.all(select(tables.closed_months.c.month)) == [(left.said["month"],)]
    (frozen,) = left.all(select(tables.invoices).where(tables.invoices.c.kind == "invoice"))
    assert json.loads(frozen.document) == invoice
    assert frozen.issued_us >= left.end_us + 24 * HOUR_US


def test_one_afternoon_is_a_spike_and_is_told_of(left: Left) -> None:
    spike_us = plan(left.said["month"], CALLS, SEED).spike_us
    (told,) = left.messages("spend_spike")
    assert json.loads(told.payload)["hour"] == format_day(spike_us) + "T14:00:00Z"
    in_hour = left.rows(usage.c.created_us >= spike_us, usage.c.created_us < spike_us + HOUR_US, usage.c.revision == 0)
    assert sum(row.key_id == left.key(RUNAWAY).id for row in in_hour) >= 25
    assert spike_us <= told.created_us < spike_us + HOUR_US, "within its hour"
    delivered = select(tables.deliveries.c.state).where(tables.deliveries.c.message_id == told.id)
    assert left.all(delivered) == [("delivered",)]
    lines = (left.loaded.folder / "alerts.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["type"] == "spend.spike" for line in lines) == 1


def test_a_price_changed_in_the_middle_of_the_month(left: Left) -> None:
    versions = left.all(select(tables.price_versions))
    changed_us = left.start_us + 15 * 24 * HOUR_US
    assert versions and all(one.effective_from == format_day(changed_us) for one in versions)
    assert all(left.start_us < one.approved_us < changed_us for one in versions)
    found: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for row in left.rows(usage.c.model == PRICED_UP, usage.c.charge_nano > 0, usage.c.revision == 0):
        attempt = evidence.attempt(row)
        assert attempt is not None and attempt.rates is not None
        found[row.created_us >= changed_us].add((attempt.rates.input, attempt.rates.output))
    ((old_input, old_output),), ((new_input, new_output),) = found[False], found[True]
    assert (new_input * 100, new_output * 100) == (old_input * 120, old_output * 120)
    assert len(left.messages("margin_alarm")) == len(versions), "until it was approved, such a call would have lost money"


def test_a_budget_stopped_one_key(left: Left) -> None:
    key = left.key(LIMITED)
    spent = sum(row.charge_nano for row in left.rows(usage.c.key_id == key.id))
    assert 0 < spent <= key.budget_nano
    planned = sum(one.key == LIMITED for one in plan(left.said["month"], CALLS, SEED).calls)
    made = len({row.hold_id for row in left.rows(usage.c.key_id == key.id)})
    assert 0 < made < planned and left.said["statuses"]["402"] == planned - made
    assert any(message.subject.startswith(f"key:{key.id}") for message in left.messages("budget_threshold"))


def test_an_outage_was_not_noticed_by_callers(left: Left) -> None:
    # A stream that broke off after content was no outage, and may have been there, too.
    failed = {row.hold_id for row in left.rows(usage.c.provider == "anthropic", usage.c.outcome == "http_error")}
    answered = {row.hold_id: row.provider for row in left.rows(usage.c.hold_id.in_(failed), usage.c.charge_nano > 0)}
    assert failed and set(answered) == failed and set(answered.values()) == {"openrouter"}


def test_a_part_of_the_invoice_was_taken_back_and_the_rest_is_paid(left: Left) -> None:
    (note,) = left.all(select(tables.invoices).where(tables.invoices.c.kind == "credit_note"))
    assert note.corrects == left.said["invoice"]["number"]
    taken_back = left.rows(usage.c.revision > 0)
    assert len({row.hold_id for row in taken_back}) == 2
    assert sum(row.charge_nano for row in taken_back) == note.usage_nano < 0
    done = run("invoices", "list", "--json", "--config", left.said["config"])
    standing = json.loads(done.stdout)["invoices"]
    assert len(standing) == 2 and {one["open"] for one in standing} == {"0.00"}


def test_a_volume_step_was_passed(left: Left) -> None:
    rows = [row for row in left.rows(usage.c.charge_nano > 0, usage.c.revision == 0) if row.model != PRICED_UP]
    fees: set[int] = set()
    for row in rows:
        attempt = evidence.attempt(row)
        assert attempt is not None
        fees.add(round(breakdown(attempt, row.charge_nano).fee_nano * 1_000 / row.charge_nano))
    assert {57, 43} <= fees, "per mille of the charge: 6 percent at first, 4.5 after the step"


def test_the_papers_are_there(left: Left) -> None:
    folder = left.loaded.folder
    assert (folder / "invoice.pdf").read_bytes().startswith(b"%PDF") and (folder / "credit-note.pdf").stat().st_size > 1_000
    assert left.said["invoice"]["number"] in (folder / "invoice.html").read_text()
    assert {Path(name).name for name in left.said["files"]} == {
        f"{name}.{form}" for name in ("invoice", "credit-note") for form in ("pdf", "html", "json")
    }


def played_again(left: Left, folder: Path) -> Played:
    """What `play` gave, put together from what it left, beside a configuration of its own."""
    path = folder / "farebox.toml"
    path.write_text(left.loaded.path.read_text().replace("sqlite:///farebox.db", left.loaded.database_url))
    invoice, note = (
        invoices.decode((left.loaded.folder / f"{name}.json").read_text()) for name in ("invoice", "credit-note")
    )
    statuses = {int(status): count for status, count in left.said["statuses"].items()}
    port = int(left.said["next"][1].split()[3])
    return Played(load(path), left.said["account_id"], left.said["month"], port, statuses, invoice, note)


def test_without_typst_there_is_html_and_a_sentence(left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    files, missing = papers.write(played_again(left, tmp_path))
    assert {path.suffix for path in files} == {".html", ".json"}
    assert missing is not None and "pip install 'farebox[pdf]'" in missing


def test_people_get_tables_and_the_next_command(left: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _show(click.Context(cli), played_again(left, tmp_path), [tmp_path / "invoice.html"], "no PDF")
    lines = capsys.readouterr().out.splitlines()
    assert "The books balance: I1 to I10 hold." in lines and "no PDF" in lines
    assert f"Next: farebox serve --config {tmp_path}/farebox.toml" in lines
    assert any(line.startswith("in all ") for line in lines) and any(line.startswith("research ") for line in lines)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100


def test_the_same_seed_is_the_same_month(left: Left, tmp_path: Path) -> None:
    terminal, ours = os.openpty()
    shown: list[bytes] = []
    watching = threading.Thread(target=_watch, args=(terminal, shown))
    watching.start()
    try:
        again = demo(tmp_path / "again", stderr=ours)
    finally:
        os.close(ours)
        watching.join(10)
    assert b"playing the month" in b"".join(shown) and b"closing the month" in b"".join(shown), "a bar on a terminal"
    assert again["invoice"]["usage"] == left.said["invoice"]["usage"]
    for name in ("month", "statuses", "usage", "invoice", "credit_note", "compare"):
        assert again[name] == left.said[name], name


def _watch(terminal: int, shown: list[bytes]) -> None:
    try:
        while data := os.read(terminal, 65_536):
            shown.append(data)
    except OSError:
        pass  # the last writer has closed it
    os.close(terminal)


def test_the_folder_goes_on_under_the_real_clock(left: Left) -> None:
    port = free_port()
    serving = subprocess.Popen(
        [sys.executable, "-m", "farebox", "serve", "--config", left.said["config"], "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **program_environment()},
    )  # fmt: skip
    # As the demo says: on the port that the configuration names.
    provider = left.said["next"][1].split()
    simulating = subprocess.Popen([sys.executable, "-m", *provider], stdout=subprocess.DEVNULL)
    try:
        key = first_key(left.loaded.folder)

        def answered() -> bool:
            body = json.dumps({"model": PRICED_UP, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]})
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body.encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_until(answered, "a call is answered", timeout_s=45)
        new = select(func.count()).select_from(usage).where(usage.c.created_us > SystemClock().now_us() - HOUR_US)
        wait_until(lambda: left.all(new)[0][0], "it is in the books")
    finally:
        serving.terminate()
        simulating.terminate()
        serving.communicate(timeout=60)
        simulating.wait(10)
    assert checks.check(left.database, left.loaded.journal_dir) == []


def test_a_used_folder_is_refused(left: Left) -> None:
    done = run("demo", "--month", "--data", str(left.loaded.folder))
    assert done.returncode == 1 and b"has something in it already" in done.stderr and b"--data" in done.stderr


@pytest.mark.parametrize(("arguments", "said"), [((), "--month"), (("--month", "--calls", "9"), "--calls 9 is not from 150")])
def test_bad_words_are_told(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run("demo", *arguments, "--data", str(tmp_path / "none"))
    assert done.returncode == 1 and said in done.stderr.decode() and not (tmp_path / "none").exists()


@pytest.mark.parametrize("month", ["2024-02", "2026-10", "2027-01"])
def test_traffic_stays_in_its_month_and_office(month: str) -> None:
    start_us, end_us = month_bounds(month)
    found = plan(month, 1_000, 3)
    times = [one.at_us for one in found.calls]
    assert times == sorted(times) and start_us <= times[0] and times[-1] < end_us and len(times) == 1_000
    weekend = sum((one // (24 * HOUR_US) + 3) % 7 > 4 for one in times)
    assert 10 < weekend < 120, "few on two days of seven"
    assert (found.spike_us // (24 * HOUR_US) + 3) % 7 == 2 and parse_moment(f"{month}-15", 0) <= found.spike_us
