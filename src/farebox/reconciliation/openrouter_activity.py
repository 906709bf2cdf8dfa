"""OpenRouter's activity: usage and cost by day, model and vendor, for the last thirty whole UTC days.

https://openrouter.ai/docs/api-reference/analytics: `usage` is what the account was charged, in dollars; what keys of one's own
cost at their vendor (`byok_usage_inference`) is not owed to OpenRouter and is left out. `prompt_tokens` contains cached tokens,
`completion_tokens` thinking. It does not tell keys apart.
"""

import msgspec

from farebox.reconciliation.figures import StatementError, amount_nano, count, day, word
from farebox.reconciliation.reports import File, Part
from farebox.reconciliation.statement import Line

INSIDE = {
    "reasoning": "output", "audio_output": "output", "image_output": "output", "cache_read": "input", "cache_write_5m": "input",
    "cache_write_1h": "input", "audio_input": "input", "image_input": "input", "web_searches": "",
}  # fmt: skip


class _Item(msgspec.Struct, frozen=True):
    date: str
    model: str
    usage: msgspec.Raw
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Activity(msgspec.Struct, frozen=True):
    """The whole answer."""

    data: tuple[msgspec.Raw, ...]


_decode_item = msgspec.json.Decoder(_Item).decode


def read_activity(file: File, activity: Activity, days: frozenset[str] = frozenset()) -> Part:
    """Its items. `days`: those that were asked for, with items or without."""
    lines: list[Line] = []
    found = set(days)
    rounded = False
    for number, raw in enumerate(activity.data):
        place = f"{file.name}: `data[{number}]`"
        try:
            one = _decode_item(raw)
        except msgspec.DecodeError as error:
            raise StatementError(f"{place}: {error}") from None
        on = day(one.date, f"{place}.date")
        found.add(on)
        nano, inexact = amount_nano(bytes(one.usage).decode(), f"{place}.usage")
        rounded |= inexact
        units = {
            "input": count(one.prompt_tokens, f"{place}.prompt_tokens"),
            "output": count(one.completion_tokens, f"{place}.completion_tokens"),
        }
        requests = count(one.requests, f"{place}.requests")
        model = word(one.model, f"{place}.model")
        lines.append(Line(day=on, model=model, requests=requests, units=units, cost_nano=nano, place=place))
    return Part("activity", file.name, frozenset(found), tuple(lines), INSIDE, rounded)
