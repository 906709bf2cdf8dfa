"""Reading: files in any of the forms that are known → one statement. What a file is, its content says."""

from collections.abc import Sequence
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import msgspec

from farebox.reconciliation import anthropic_reports, openai_reports, openrouter_activity
from farebox.reconciliation.csv_files import read_csv
from farebox.reconciliation.figures import StatementError
from farebox.reconciliation.reports import File, Part, Wanted, put_together, span_checked
from farebox.reconciliation.statement import Statement

FILE_BYTES_MAX = 256 * 1024 * 1024
FILES_MAX = 1_000
FORMS = "OpenAI's usage and costs, Anthropic's usage and cost reports, OpenRouter's activity, or CSV"


class _Item(msgspec.Struct, frozen=True):
    start_time: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    starting_at: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    date: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Any(msgspec.Struct, frozen=True):
    data: tuple[_Item, ...]


def read_files(files: Sequence[File], wanted: Wanted) -> Statement:
    """One statement out of one or more files. Raises `StatementError`, which names file, line or path, and value."""
    if not files or len(files) > FILES_MAX:
        raise StatementError(f"{len(files)} files; give between 1 and {FILES_MAX}")
    parts: list[Part] = []
    for file in files:
        if len(file.content) > FILE_BYTES_MAX:
            raise StatementError(f"{file.name}: larger than {FILE_BYTES_MAX} bytes; give fewer days")
        head = file.content.lstrip()[:1]
        if head in (b"{", b"["):
            parts += [_whole_span(part, wanted) for part in _read_json(file, head == b"[")]
        else:
            parts.append(_whole_span(read_csv(file, wanted.zone), wanted))
    if not any(part.lines for part in parts):
        raise StatementError(f"{files[0].name}: it has no line")
    return put_together(parts, wanted)


def _read_json(file: File, several: bool) -> list[Part]:
    """A page, or a list of pages, of one of the APIs; the last one has to be the last."""
    try:
        pages = msgspec.json.decode(file.content, type=list[msgspec.Raw]) if several else [msgspec.Raw(file.content)]
        parts: list[Part] = []
        more = False
        for number, raw in enumerate(pages):
            one = File(f"{file.name}, page {number + 1}" if several else file.name, bytes(raw))
            part, more = read_page(one)
            parts.append(part)
    except msgspec.DecodeError as error:
        raise StatementError(f"{file.name}: it is not what {FORMS} look like: {error}") from None
    if more:
        raise StatementError(f"{file.name}: more pages follow (`has_more`); give all of them, as a list, or read them with --api")
    return parts


def read_page(file: File, kind: str | None = None) -> tuple[Part, bool]:
    """One page, and whether more follow. Raises `msgspec.DecodeError` for what is not JSON of a known shape."""
    first = next(iter(msgspec.json.decode(file.content, type=_Any).data), None)
    if first is None or first.start_time is not msgspec.UNSET:
        page = msgspec.json.decode(file.content, type=openai_reports.Page)
        return openai_reports.read_page(file, page, kind), page.has_more
    if first.starting_at is not msgspec.UNSET:
        report = msgspec.json.decode(file.content, type=anthropic_reports.Page)
        return anthropic_reports.read_page(file, report, kind), report.has_more
    if first.date is not msgspec.UNSET:
        activity = msgspec.json.decode(file.content, type=openrouter_activity.Activity)
        return openrouter_activity.read_activity(file, activity), False
    raise StatementError(f"{file.name}: `data[0]` has neither start_time, starting_at nor date; it is not one of {FORMS}")


def _whole_span(part: Part, wanted: Wanted) -> Part:
    """Files without buckets name the days on which something was used: the others in between had nothing."""
    if part.kind not in ("lines", "activity") or not part.days:
        return part
    first, last = wanted.first_day or min(part.days), wanted.last_day or max(part.days)
    if not any(first <= day <= last for day in part.days):
        return part  # about other days than those that are wanted: not a statement that they had nothing
    span_checked(first, last, part.name)
    return msgspec.structs.replace(part, days=part.days | days_between(first, last))


def days_between(first: str, last: str) -> frozenset[str]:
    """Every day from the first to the last."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return frozenset((start + timedelta(days=number)).isoformat() for number in range((end - start).days + 1))


def zone_of(name: str) -> ZoneInfo:
    """A zone by its name. Raises `StatementError`."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise StatementError(f"{name!r} is not a time zone such as UTC or America/Los_Angeles") from None
