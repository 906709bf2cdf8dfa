"""OpenAI: organization usage of completions and organization costs, as pages of the API and as the dashboard's CSV exports.

https://platform.openai.com/docs/api-reference/usage: `input_tokens` contains cached and cache-written tokens and every modality,
`output_tokens` thinking; buckets are UTC. Costs come as JSON numbers with the noise of a sum of floats, by line item
(`gpt-4o-2024-08-06, cached input`); without `group_by` a line item is null, and then only whole days can be compared.
"""

from collections.abc import Mapping, Sequence

import msgspec

from farebox.reconciliation.figures import StatementError, amount_nano, bucket_day, count, word
from farebox.reconciliation.reports import File, Part
from farebox.reconciliation.statement import Line

INSIDE = {
    "reasoning": "output", "audio_output": "output", "image_output": "output", "cache_write_5m": "input",
    "cache_write_1h": "input", "audio_input": "input", "image_input": "input", "web_searches": "",
}  # fmt: skip
NOT_OF_A_MODEL = "web search"
"""Line items that begin so are calls' costs, too, but of no model: then costs are compared by day."""


class _Usage(msgspec.Struct, frozen=True, rename={"kind": "object"}):
    input_tokens: int
    output_tokens: int
    num_model_requests: int
    input_cached_tokens: int = 0
    model: str | None = None
    api_key_id: str | None = None
    kind: str = ""


class _Amount(msgspec.Struct, frozen=True):
    value: msgspec.Raw
    currency: str


class _Cost(msgspec.Struct, frozen=True):
    amount: _Amount
    line_item: str | None = None
    api_key_id: str | None = None


class _Bucket(msgspec.Struct, frozen=True):
    start_time: int
    end_time: int
    results: tuple[msgspec.Raw, ...]


class Page(msgspec.Struct, frozen=True):
    """A page of either endpoint."""

    data: tuple[_Bucket, ...]
    has_more: bool = False
    next_page: str | None = None


class _Kind(msgspec.Struct, frozen=True):
    object: str


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_cost = msgspec.json.Decoder(_Cost).decode


def read_page(file: File, page: Page, kind: str | None = None) -> Part:
    """A page of usage or of costs; which, its results say. `kind` says it of one without results."""
    lines: list[Line] = []
    days: set[str] = set()
    rounded = False
    for at, bucket in enumerate(page.data):
        place = f"{file.name}: `data[{at}]`"
        day = bucket_day(bucket.start_time, bucket.end_time, place)
        days.add(day)
        for number, raw in enumerate(bucket.results):
            place = f"{file.name}: `data[{at}].results[{number}]`"
            try:
                said = _decode_kind(raw).object
                if said == "organization.usage.completions.result":
                    one = "usage"
                    lines.append(_usage_line(_decode_usage(raw), day, place))
                elif said == "organization.costs.result":
                    one = "costs"
                    line, inexact = _cost_line(_decode_cost(raw), day, place)
                    lines.append(line)
                    rounded |= inexact
                else:
                    raise StatementError(f"{place}: `object` {said!r} is neither usage of completions nor costs")
            except msgspec.DecodeError as error:
                raise StatementError(f"{place}: {error}") from None
            if kind not in (None, one):
                raise StatementError(f"{place}: {one} among {kind}; give them in files of their own")
            kind = one
    return Part(kind or "usage", file.name, frozenset(days), tuple(lines), INSIDE, rounded)


def _usage_line(one: _Usage, day: str, place: str) -> Line:
    total = count(one.input_tokens, f"{place}.input_tokens")
    cached = count(one.input_cached_tokens, f"{place}.input_cached_tokens")
    return Line(
        day=day,
        model=word(one.model, f"{place}.model"),
        key=word(one.api_key_id, f"{place}.api_key_id"),
        requests=count(one.num_model_requests, f"{place}.num_model_requests"),
        units=_units(total, cached, count(one.output_tokens, f"{place}.output_tokens"), place),
        place=place,
    )


def _units(total: int, cached: int, output: int, place: str) -> Mapping[str, int]:
    if cached > total:
        raise StatementError(f"{place}: {cached} cached of {total} input tokens cannot be")
    return {"input": total - cached, "cache_read": cached, "output": output}


def _cost_line(one: _Cost, day: str, place: str) -> tuple[Line, bool]:
    _dollars(one.amount.currency, f"{place}.amount.currency")
    nano, rounded = amount_nano(bytes(one.amount.value).decode().strip('"'), f"{place}.amount.value")
    model = _model(word(one.line_item, f"{place}.line_item"))
    key = word(one.api_key_id, f"{place}.api_key_id")
    return Line(day=day, model=model, key=key, cost_nano=nano, place=place), rounded


def _dollars(currency: str, place: str) -> None:
    if currency.lower() != "usd":
        raise StatementError(f"{place}: {currency!r}; only statements in US dollars can be compared")


def _model(line_item: str) -> str:
    """`gpt-4o-2024-08-06, cached input` → the model."""
    return "" if line_item.lower().startswith(NOT_OF_A_MODEL) else line_item.partition(", ")[0]


USAGE_COLUMNS = ("start_time", "end_time", "num_model_requests", "input_tokens", "output_tokens", "input_cached_tokens")
_EXPORTED = ("input_tokens", "input_cached_tokens", "output_tokens")
COST_COLUMNS = ("start_time", "end_time", "amount_value", "amount_currency", "line_item")


def read_export(file: File, rows: Sequence[tuple[str, Mapping[str, str]]], columns: Sequence[str]) -> Part:
    """The dashboard's CSV: a row per bucket and group, with empty figures where a bucket has none."""
    costs = "amount_value" in columns
    lines: list[Line] = []
    days: set[str] = set()
    rounded = False
    for place, row in rows:
        start, end = (count(row[name], f"{place}, column {name}") for name in ("start_time", "end_time"))
        day = bucket_day(start, end, place)
        days.add(day)
        figure = row["amount_value" if costs else "num_model_requests"]
        if not figure:
            continue
        key = row.get("api_key_id", "")
        if costs:
            _dollars(row["amount_currency"], f"{place}, column amount_currency")
            nano, inexact = amount_nano(figure, f"{place}, column amount_value")
            rounded |= inexact
            lines.append(Line(day=day, model=_model(row["line_item"]), key=key, cost_nano=nano, place=place))
            continue
        total, cached, output = (count(row[name], f"{place}, column {name}") for name in _EXPORTED)
        requests = count(figure, f"{place}, column num_model_requests")
        units = _units(total, cached, output, place)
        lines.append(Line(day=day, model=row.get("model", ""), key=key, requests=requests, units=units, place=place))
    return Part("costs" if costs else "usage", file.name, frozenset(days), tuple(lines), INSIDE, rounded)
