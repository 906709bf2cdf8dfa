"""CSV statements: OpenAI's exports by their header, and a form of our own that anything can be brought into.

Our own form, in docs/money.md: `day` (in the provider's zone) or `time` (with its offset), `model`, and as far as they are known
`key`, `request_id`, `requests`, `cost_usd`, and counts in columns named like the classes of usage. A class without a column is
inside `input` or `output`; an empty field is unknown, never zero.
"""

import csv
import difflib
from collections.abc import Iterator, Mapping, Sequence
from zoneinfo import ZoneInfo

from farebox.reconciliation import openai_reports
from farebox.reconciliation.figures import TEXT_MAX, StatementError, amount_nano, count, day, moment_day, word
from farebox.reconciliation.reports import File, Part
from farebox.reconciliation.statement import LINES_MAX, Line
from farebox.wires.usage import Usage

COUNTS = tuple(Usage.__struct_fields__)
COLUMNS = ("day", "time", "model", "key", "request_id", "requests", "cost_usd", *COUNTS)
_INPUT_SIDE = frozenset({"cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input"})
Row = tuple[str, Mapping[str, str]]
"""The place, and the fields by column."""


def read_csv(file: File, zone: str) -> Part:
    """A CSV file, with commas or tabs."""
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StatementError(f"{file.name}: byte {error.start} is not UTF-8") from None
    lines = text.splitlines(keepends=True)
    if not lines:
        raise StatementError(f"{file.name} is empty")
    reader = csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ",", strict=True)
    try:
        columns = [name.strip() for name in next(reader)]
        if len(set(columns)) != len(columns):
            raise StatementError(f"{file.name}, line 1: a column is named twice")
        rows = list(_rows(file.name, reader, columns))
    except csv.Error as error:
        raise StatementError(f"{file.name}, line {reader.line_num}: {error}") from None
    for wanted in (openai_reports.USAGE_COLUMNS, openai_reports.COST_COLUMNS):
        if set(wanted) <= set(columns):
            return openai_reports.read_export(file, rows, columns)
    return _own(file, rows, columns, zone)


def _rows(name: str, reader: Iterator[list[str]], columns: Sequence[str]) -> Iterator[Row]:
    number = 1
    for fields in reader:
        number = getattr(reader, "line_num", number + 1)
        if not fields:
            continue
        place = f"{name}, line {number}"
        if len(fields) != len(columns):
            raise StatementError(f"{place}: {len(fields)} fields, the header has {len(columns)}")
        if number > LINES_MAX + 1:
            raise StatementError(f"{name}: more than {LINES_MAX} lines")
        for column, field in zip(columns, fields, strict=True):
            if len(field) > TEXT_MAX:
                raise StatementError(f"{place}, column {column}: a field of {len(field)} characters; at most {TEXT_MAX}")
        yield place, dict(zip(columns, (field.strip() for field in fields), strict=True))


def _own(file: File, rows: Sequence[Row], columns: Sequence[str], zone: str) -> Part:
    for name in columns:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COLUMNS)}"
            raise StatementError(f"{file.name}, line 1: column {name!r} is not known; {hint}")
    if ("day" in columns) == ("time" in columns):
        raise StatementError(f"{file.name}, line 1: it needs one of the columns day and time")
    counted = [name for name in COUNTS if name in columns]
    if "cost_usd" not in columns and not counted:
        raise StatementError(f"{file.name}, line 1: it needs cost_usd, or counts such as input and output")
    if counted and not {"input", "output"} <= set(counted):
        raise StatementError(f"{file.name}, line 1: counts need the columns input and output")
    where = ZoneInfo(zone)
    lines: list[Line] = []
    rounded = False
    named = None
    for place, row in rows:
        on = day(row["day"], f"{place}, column day") if "day" in row else moment_day(row["time"], where, f"{place}, column time")
        cost = None
        if row.get("cost_usd"):
            cost, inexact = amount_nano(row["cost_usd"], f"{place}, column cost_usd")
            rounded |= inexact
        units = _counts(row, counted, place)
        if cost is None and units is None:
            raise StatementError(f"{place}: it has neither a cost nor counts")
        request_id = word(row.get("request_id"), f"{place}, column request_id")
        if named is not None and named != bool(request_id):
            raise StatementError(f"{place}, column request_id: some lines have one, some have none; compare them apart")
        named = bool(request_id)
        lines.append(
            Line(
                day=on, model=row.get("model", ""), key=row.get("key", ""), request_id=request_id, place=place, units=units,
                requests=count(row["requests"], f"{place}, column requests") if row.get("requests") else None, cost_nano=cost,
            )
        )  # fmt: skip
    inside = {name: "" if name == "web_searches" else "input" if name in _INPUT_SIDE else "output" for name in COUNTS}
    inside = {name: into for name, into in inside.items() if name not in (*counted, "input", "output")}
    return Part("lines", file.name, frozenset(line.day for line in lines), tuple(lines), inside if counted else {}, rounded)


def _counts(row: Mapping[str, str], counted: Sequence[str], place: str) -> Mapping[str, int] | None:
    given = [name for name in counted if row[name]]
    if not given:
        return None
    missing = next((name for name in counted if not row[name]), None)
    if missing is not None:
        raise StatementError(f"{place}, column {missing}: empty, while {given[0]} has a count; write 0 where there were none")
    return {name: count(row[name], f"{place}, column {name}") for name in counted}
