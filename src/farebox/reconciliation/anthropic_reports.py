"""Anthropic's Admin API: the usage report of messages and the cost report.

https://platform.claude.com/docs/en/manage-claude/usage-cost-api: input tokens are reported in disjoint classes, output contains
thinking; buckets are UTC; costs are decimal strings of **cents**, by model only when grouped by description. Costs of the
priority tier are not in the cost report.
"""

from datetime import UTC, datetime

import msgspec

from farebox.reconciliation.figures import StatementError, amount_nano, bucket_day, count, word
from farebox.reconciliation.reports import File, Part
from farebox.reconciliation.statement import Line

INSIDE = {
    "reasoning": "output", "audio_output": "output", "image_output": "output", "audio_input": "input", "image_input": "input",
}  # fmt: skip
CENTS_PER_USD = 100


class _Written(msgspec.Struct, frozen=True):
    ephemeral_1h_input_tokens: int = 0
    ephemeral_5m_input_tokens: int = 0


class _Tools(msgspec.Struct, frozen=True):
    web_search_requests: int = 0


class _Usage(msgspec.Struct, frozen=True):
    uncached_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation: _Written = _Written()
    server_tool_use: _Tools = _Tools()
    model: str | None = None
    api_key_id: str | None = None


class _Cost(msgspec.Struct, frozen=True):
    amount: str
    currency: str
    model: str | None = None
    cost_type: str | None = None
    description: str | None = None


class _Bucket(msgspec.Struct, frozen=True):
    starting_at: str
    ending_at: str
    results: tuple[msgspec.Raw, ...]


class Page(msgspec.Struct, frozen=True):
    """A page of either report."""

    data: tuple[_Bucket, ...]
    has_more: bool = False
    next_page: str | None = None


class _Either(msgspec.Struct, frozen=True):
    amount: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_either = msgspec.json.Decoder(_Either).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_cost = msgspec.json.Decoder(_Cost).decode


def read_page(file: File, page: Page, kind: str | None = None) -> Part:
    """A page of usage or of costs; which, its results say. `kind` says it of one without results."""
    lines: list[Line] = []
    days: set[str] = set()
    rounded = False
    for at, bucket in enumerate(page.data):
        place = f"{file.name}: `data[{at}]`"
        day = bucket_day(_second(bucket.starting_at, place), _second(bucket.ending_at, place), place)
        days.add(day)
        for number, raw in enumerate(bucket.results):
            place = f"{file.name}: `data[{at}].results[{number}]`"
            try:
                one = "usage" if _decode_either(raw).amount is msgspec.UNSET else "costs"
                if one == "usage":
                    lines.append(_usage_line(_decode_usage(raw), day, place))
                else:
                    line, inexact = _cost_line(_decode_cost(raw), day, place)
                    lines.append(line)
                    rounded |= inexact
            except msgspec.DecodeError as error:
                raise StatementError(f"{place}: {error}") from None
            if kind not in (None, one):
                raise StatementError(f"{place}: {one} among {kind}; give them in files of their own")
            kind = one
    return Part(kind or "usage", file.name, frozenset(days), tuple(lines), INSIDE, rounded)


def _second(text: str, place: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise StatementError(f"{place}: {text!r} is not a time such as 2026-11-23T00:00:00Z")
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return elapsed.days * 86_400 + elapsed.seconds


def _usage_line(one: _Usage, day: str, place: str) -> Line:
    counts = {
        "input": one.uncached_input_tokens, "cache_read": one.cache_read_input_tokens, "output": one.output_tokens,
        "cache_write_5m": one.cache_creation.ephemeral_5m_input_tokens,
        "cache_write_1h": one.cache_creation.ephemeral_1h_input_tokens,
        "web_searches": one.server_tool_use.web_search_requests,
    }  # fmt: skip
    units = {name: count(value, f"{place}: {name}") for name, value in counts.items()}
    model, key = word(one.model, f"{place}.model"), word(one.api_key_id, f"{place}.api_key_id")
    return Line(day=day, model=model, key=key, units=units, place=place)


def _cost_line(one: _Cost, day: str, place: str) -> tuple[Line, bool]:
    if one.currency != "USD":
        raise StatementError(f"{place}.currency: {one.currency!r}; only statements in US dollars can be compared")
    nano, rounded = amount_nano(one.amount, f"{place}.amount", per_usd=CENTS_PER_USD)
    model = word(one.model, f"{place}.model")
    if not model and one.cost_type not in (None, "tokens", "web_search"):
        # Of no call that we could have made: told as what it is.
        model = word(one.description, f"{place}.description") or one.cost_type or ""
    return Line(day=day, model=model, cost_nano=nano, place=place), rounded
