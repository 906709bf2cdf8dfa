"""Exports and reports: their sums are the ledger's, to the nano-dollar, in every format."""

import csv
import importlib
import io
import json
import sys
import tracemalloc
from contextlib import contextmanager
from decimal import Decimal

import pytest
from sqlalchemy import insert, select

from farebox.billing.accounts import adjustments
from farebox.billing.invoicing import export_files, exports, focus
from farebox.billing.invoicing.export_files import writer
from farebox.billing.markup import Fees
from farebox.billing.pricing import charge_nano, cost_pico
from farebox.storage import queries, reports
from farebox.storage.reports import Narrow
from farebox.storage.tables import transfers, usage
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
DAY_US = 86_400_000_000
EVER = Narrow(since_us=0)
LONG = 3_000
PEAK_BYTES_MAX = {"usage": 4 * 2**20, "focus": 4 * 2**20, "journal": 3 * 2**19}
"""Of a thousand rows at a time; all of `LONG` are half as many again."""
ARROW_BYTES_MAX = 16 * 2**20


@pytest.fixture
def books(world):
    """Two accounts, two days, a failover, a markup with fees, a correction, promotional credit."""
    world.prepaid, world.postpaid = world.account(DOLLAR), world.account(kind="postpaid", line_nano=DOLLAR)
    world.top_up(world.prepaid, DOLLAR // 2, promo=True)
    keys = [world.key(world.prepaid), world.key(world.prepaid), world.key(world.postpaid)]
    worker = world.worker()
    for number in range(30):
        usage = Usage(input=1_000 + number, cache_read=number * 7, output=300, reasoning=number % 3)
        worker.call(keys[number % 3], usage, markup_bp=(0, 550)[number % 2], hold_nano=50_000_000)
        if number == 15:
            world.clock.us += DAY_US
    hold = worker.hold(keys[0], 100_000_000, markup_bp=700)
    fees = Fees(per_call_nano=2_500)
    usage = Usage(input=77, output=5)
    price = charge_nano(cost_pico(usage, hold.rates), 700, fees)
    failed = worker.attempt(hold, None, status=503, outcome="http_error", provider="azure")
    answered = worker.attempt(hold, usage, n=2, fees=fees, plan="shop", charge_nano=price, basis="estimated")
    settle = worker.settle(hold, failed, answered)
    world.post()
    adjustments.adjust(
        world.database, world.ids, hold_id=settle.id, attempt=2, exact=Usage(input=70, output=3), now_us=world.clock.us
    )
    assert world.check() == []
    return world


def charged(world):
    return sum(line.charge_nano for line in world.database.read(lambda c: reports.usage_lines(c, ("account",), EVER)))


def write(world, form, columns, table):
    file = io.BytesIO()

    def work(connection):
        into = writer(form, columns, file)
        into.write(table(connection))
        into.close()

    world.database.read(work)
    return file.getvalue()


def nano(text):
    return int(Decimal(text).scaleb(9)) if text else 0


def test_usage_adds_up_in_every_format(books):
    def table(connection):
        return exports.usage_table(connection, EVER)

    as_csv = list(csv.DictReader(io.StringIO(write(books, "csv", exports.USAGE_COLUMNS, table).decode())))
    as_json = [json.loads(line) for line in write(books, "jsonl", exports.USAGE_COLUMNS, table).splitlines()]
    import pyarrow.parquet

    data = write(books, "parquet", exports.USAGE_COLUMNS, table)
    parquet = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    assert len(as_csv) == len(as_json) == parquet.num_rows == 33
    total = charged(books)
    assert sum(nano(line["charge_usd"]) for line in as_csv) == sum(nano(line["charge_usd"]) for line in as_json) == total
    assert sum(nano(value) for value in parquet["charge_usd"].to_pylist()) == total
    assert str(parquet.schema.field("charge_usd").type) == "decimal128(19, 9)"
    assert parquet["created_at"].to_pylist()[0].isoformat() == "2026-11-23T00:00:00+00:00"
    first = next(line for line in as_json if line["outcome"] == "http_error")
    assert first["cost_usd"] is None and first["charge_usd"] == "0.00", "an unknown cost is empty, not zero"
    for line in as_json:
        if line["revision"] == 0 and line["outcome"] == "ok":
            assert nano(line["list_usd"]) + nano(line["fee_usd"]) == nano(line["charge_usd"])
            assert line["list_usd"] == line["cost_usd"]
    (correction,) = [line for line in as_json if line["revision"] == 1]
    assert nano(correction["charge_usd"]) < 0 and correction["input"] == 70
    assert [line["id"] for line in as_csv] == [line["id"] for line in as_json] == parquet["id"].to_pylist()


def test_focus_adds_up_by_day_and_price_line(books):
    columns = focus.columns("1.3")
    data = write(books, "csv", columns, lambda c: focus.focus_table(c, EVER, "1.3"))
    lines = list(csv.DictReader(io.StringIO(data.decode())))
    used = [line for line in lines if line["ChargeCategory"] == "Usage"]
    total = charged(books)
    assert sum(nano(line["ContractedCost"]) for line in used) == total
    assert sum(nano(line["EffectiveCost"]) for line in lines) == total - DOLLAR // 2, "less the credit given"
    by_account = {line["BillingAccountId"]: 0 for line in lines}
    for line in lines:
        by_account[line["BillingAccountId"]] += nano(line["BilledCost"])
    postpaid = reports.Narrow(since_us=0, account_id=books.postpaid)
    (owed,) = books.database.read(lambda c: reports.usage_lines(c, ("account",), postpaid))
    assert by_account == {books.prepaid: DOLLAR, books.postpaid: owed.charge_nano}
    quantities = sum(int((line["ConsumedQuantity"] or "0").removesuffix(".0")) for line in used if line["SkuMeter"] == "output")
    assert quantities == 30 * 300 + 5, "the correction has no consumed quantity of its own"
    assert {line["ChargePeriodStart"] for line in used} == {"2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"}
    (corrected, *_) = [line for line in used if line["ChargeClass"] == "Correction"]
    assert nano(corrected["BilledCost"]) <= 0
    assert sum(nano(line["ListCost"]) for line in used) < total, "the fee is on top"
    assert set(lines[0]) == {column.name for column in columns}
    assert {"ServiceProviderName", "HostProviderName"} == set(lines[0]) - {column.name for column in focus.columns("1.2")}


def test_focus_lines_keep_the_rules_no_validator_checks(world):
    """Of the specification: one price per price id, own properties begin with `x_`, valueless tags are `true`, a credit's
    contracted and list cost are its billed cost."""
    owed = world.account(kind="postpaid", line_nano=DOLLAR)
    world.top_up(owed, DOLLAR // 4, promo=True)
    paid = world.account(DOLLAR)
    worker, key = world.worker(), world.key(paid)
    for tags in ((), ("red", "blue")):
        hold = worker.hold(key, 100_000_000)
        attempt = worker.attempt(hold, Usage(input=100, output=10), price_version="openai/gpt-4o@2026-08-01")
        worker.settle(hold, attempt, tags=tags)
    world.post()
    data = write(world, "csv", focus.columns("1.3"), lambda c: focus.focus_table(c, EVER, "1.3"))
    lines = list(csv.DictReader(io.StringIO(data.decode())))
    used = [line for line in lines if line["ChargeCategory"] == "Usage"]
    prices = {(line["SkuPriceId"], line["SkuId"], line["SkuMeter"], line["ListUnitPrice"]) for line in used}
    assert len(prices) == len({price[0] for price in prices}) > 1, "a price id stands for one price"
    assert all(key.startswith("x_") for line in used for key in json.loads(line["SkuPriceDetails"]))
    assert {line["Tags"] for line in used} == {"{}", '{"red":true,"blue":true}'}
    assert all(line["SkuPriceId"] for line in lines if line["ChargeCategory"] in ("Usage", "Purchase"))
    (credit,) = [line for line in lines if line["ChargeCategory"] == "Credit"]
    assert nano(credit["BilledCost"]) == nano(credit["ContractedCost"]) == nano(credit["ListCost"]) == -DOLLAR // 4


def test_journal_entries_balance(books):
    data = write(books, "jsonl", exports.JOURNAL_COLUMNS, lambda c: exports.journal_table(c, EVER))
    lines = [json.loads(line) for line in data.splitlines()]
    sums = {}
    for line in lines:
        amount = nano(line["debit_usd"]) - nano(line["credit_usd"])
        sums[line["ledger_account"]] = sums.get(line["ledger_account"], 0) + amount
        sums[line["entry"]] = sums.get(line["entry"], 0) + amount
    assert {name: amount for name, amount in sums.items() if amount and not name.startswith("trf-")} == {
        name: amount for name, amount in books.sums().items() if amount
    }
    assert not any(amount for name, amount in sums.items() if name.startswith("trf-"))
    narrow = Narrow(since_us=0, account_id=books.postpaid)
    own = books.database.read(lambda c: list(exports.journal_table(c, narrow)))
    assert len(own) == 2 * books.database.read(lambda c: exports.count_journal(c, narrow)) > 0


def test_a_call_counts_in_each_of_its_tags(books):
    from sqlalchemy import text

    names = ", ".join(column.name for column in usage.c if column.name not in ("hold_id", "final", "tags"))
    copy = (
        f"INSERT INTO usage (hold_id, final, tags, {names}) SELECT hold_id || :mark, final, :tags, {names} FROM usage "
        "WHERE key_id = :key AND revision = 0 AND attempt = 1 AND charge_nano > 0 AND tags = ''"
    )
    key = books.database.read(lambda c: reports.usage_lines(c, ("key",), EVER))[0].groups[0]
    (one,) = books.database.read(lambda c: reports.usage_lines(c, ("account",), Narrow(since_us=0, key_id=key)))
    for mark, tags in (("-a", '["red"]'), ("-b", '["blue","red"]')):
        books.database.write(lambda c, m=mark, t=tags: c.execute(text(copy), {"mark": m, "tags": t, "key": key}))
    lines = books.database.read(lambda c: reports.usage_lines(c, ("key", "tag"), Narrow(since_us=0, key_id=key)))
    calls = {line.groups: line.calls for line in lines}
    assert calls[key, ""] >= calls[key, "blue"] > 0 and calls[key, "red"] == 2 * calls[key, "blue"]
    after = books.database.read(
        lambda c: reports.usage_lines(c, ("key", "tag"), Narrow(since_us=0, key_id=key), after=lines[0].groups)
    )
    assert after == lines[1:] and one.charge_nano == lines[0].charge_nano


def test_pages_by_key_are_the_whole_report(books):
    by = ("provider", "hour", "key", "model")
    whole = books.database.read(lambda c: reports.usage_lines(c, by, EVER))
    assert len(whole) > 6
    pages, after = [], None
    while True:
        page = books.database.read(lambda c, after=after: reports.usage_lines(c, by, EVER, after=after, lines_max=2))
        pages += page
        if len(page) < 2:
            break
        after = page[-1].groups
    assert pages == whole
    (day, _) = books.database.read(lambda c: reports.usage_lines(c, ("day",), EVER))
    assert reports.shown("day", day.groups[0]) == "2026-11-23"
    assert day.cached_tokens == sum(7 * number for number in range(16)) and day.reasoning_tokens == 15
    assert reports.shown("hour", whole[0].groups[1]) in ("2026-11-23T00", "2026-11-24T00")


class Sink(io.RawIOBase):
    """A file that keeps nothing; what Arrow has in memory, at most, when something is written."""

    lines = arrow_bytes = 0

    def writable(self):
        return True

    def write(self, data):
        self.lines += bytes(data).count(b"\n")
        if pyarrow := sys.modules.get("pyarrow"):
            self.arrow_bytes = max(self.arrow_bytes, pyarrow.total_allocated_bytes())
        return len(data)


@contextmanager
def peak():
    """The most bytes of Python's that were in use meanwhile."""
    found = []
    importlib.import_module("pyarrow.parquet")  # Its own code is no part of what an export needs.
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def copied(connection, many, **more):
    """A usage row many times; each value of `more` is called with the copy's number."""
    row = dict(connection.execute(select(usage).where(usage.c.final).limit(1)).mappings().one())
    for start in range(0, many, 1_000):
        rows = [
            {**row, "hold_id": f"gen-copy-{n}", **{name: value(n) for name, value in more.items()}}
            for n in range(start, start + 1_000)
        ]
        connection.execute(insert(usage), rows)


def transferred(connection, many):
    row = dict(connection.execute(select(transfers).limit(1)).mappings().one())
    for start in range(0, many, 1_000):
        connection.execute(
            insert(transfers), [{**row, "id": f"trf-{n}", "cause_id": f"copy-{n}"} for n in range(start, start + 1_000)]
        )


TABLES = {
    "usage": (exports.USAGE_COLUMNS, lambda c: exports.usage_table(c, EVER), copied),
    "focus": (focus.columns("1.3"), lambda c: focus.focus_table(c, EVER, "1.3"), copied),
    "journal": (exports.JOURNAL_COLUMNS, lambda c: exports.journal_table(c, EVER), transferred),
}


def exported(world, form, name, many):
    """The lines and the peak of one export of many rows."""
    columns, table, fill = TABLES[name]
    world.database.write(lambda c: fill(c, many))
    sink = Sink()

    def work(connection):
        into = writer(form, columns, sink)
        into.write(table(connection))
        into.close()

    with peak() as found:
        world.database.read(work)
    return sink, found[0]


@pytest.mark.parametrize("name", TABLES)
def test_a_long_export_takes_no_more_memory_than_a_short_one(books, name):
    sink, most = exported(books, "csv", name, LONG)
    assert name == "focus" or sink.lines > LONG
    assert most < PEAK_BYTES_MAX[name], f"{most} bytes for {LONG} rows"


@pytest.mark.full
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", TABLES)
def test_a_very_long_export_does_not_either(books, name, form):
    sink, most = exported(books, form, name, 10 * LONG)
    assert most < PEAK_BYTES_MAX[name] + 2 * 2**20, f"{most} bytes"
    assert sink.arrow_bytes < ARROW_BYTES_MAX


@pytest.mark.full
def test_a_day_of_very_many_lines_does_not_either(books):
    books.database.write(lambda c: copied(c, 30_000, tags=lambda n: f'["tag-{n}"]'))
    sink = Sink()

    def work(connection):
        into = writer("csv", focus.columns("1.3"), sink)
        into.write(focus.focus_table(connection, EVER, "1.3"))
        into.close()

    with peak() as found:
        books.database.read(work)
    assert sink.lines > 30_000
    assert found[0] < 16 * 2**20, f"{found[0]} bytes for 30,000 lines of one day"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_format_is_written_as_it_comes(form, monkeypatch):
    monkeypatch.setattr(export_files, "GROUP_ROWS", 2_000)
    many, sink = 12_000, Sink()
    values = {"text": "some words of a line", "time": 1_795_392_000_000_001}

    def rows():
        for number in range(many):
            yield tuple(values.get(column.kind, number) for column in exports.USAGE_COLUMNS)

    with peak() as found:
        into = writer(form, exports.USAGE_COLUMNS, sink)
        into.write(rows())
        into.close()
    assert found[0] < 4 * 2**20, f"{found[0]} bytes; all the lines are five times as many"
    assert form == "parquet" or sink.lines >= many
    assert sink.arrow_bytes < ARROW_BYTES_MAX


def test_row_groups_are_full_and_the_last_one_is_what_is_left(books, monkeypatch):
    monkeypatch.setattr(export_files, "GROUP_ROWS", 20)
    monkeypatch.setattr(export_files, "PACKED_ROWS", 5)
    data = write(books, "parquet", exports.USAGE_COLUMNS, lambda c: exports.usage_table(c, EVER))
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [20, 13]


def test_a_day_of_more_lines_than_are_summed_up_at_a_time_is_written_in_parts(books, monkeypatch):
    whole = list(books.database.read(lambda c: list(focus.focus_table(c, EVER, "1.3"))))
    monkeypatch.setattr(focus, "LINES_OPEN_MAX", 3)
    parts = list(books.database.read(lambda c: list(focus.focus_table(c, EVER, "1.3"))))
    assert len(parts) > len(whole)
    assert sum(line[0] for line in parts) == sum(line[0] for line in whole)


def test_accounts_beyond_the_most_that_one_answer_lists_are_exported_as_what_they_are(books, monkeypatch):
    """FOCUS looked accounts up in a list of at most so many, and broke off, or billed prepaid usage, where one was not in it."""
    whole = books.database.read(lambda c: list(focus.focus_table(c, EVER, "1.3")))
    monkeypatch.setattr(queries, "ROWS_MAX", 1)
    monkeypatch.setattr(exports, "OWNERS_MAX", 1)
    assert books.database.read(lambda c: list(focus.focus_table(c, EVER, "1.3"))) == whole
    assert {line[1] for line in whole} == {books.prepaid, books.postpaid}
