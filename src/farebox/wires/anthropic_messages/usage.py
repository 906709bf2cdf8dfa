"""Usage as Anthropic messages report it: cached tokens stand beside `input_tokens`, thinking inside `output_tokens`.

A stream reports twice: `message_start` with the input side, `message_delta` with cumulative counts that may raise the
input again (server tools add to it during the turn). So reports are merged, last present value per field, null as
absent, and never summed (providers.md §2.3). Judgement:

1. A count that is negative, fractional, no number or above 2⁴⁰ is refused: no usage, an anomaly names the field.
2. Both `input_tokens` and `output_tokens` must be known; a missing one is not zero.
3. Cache writes not covered by the `cache_creation` split are five-minute ones, the default lifetime; when the provider
   sent a split that leaves them out, `cache_write_unsplit` is flagged. A split larger than its sum is unusable.
"""

from typing import Annotated, Any

import msgspec

from farebox.wires import counts
from farebox.wires.dialect import UsageRules
from farebox.wires.usage import COUNT_MAX, Usage, UsageReport

_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)] | None


class _Writes(msgspec.Struct):
    ephemeral_5m_input_tokens: _Count = None
    ephemeral_1h_input_tokens: _Count = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: _Count = None


class _ServerTools(msgspec.Struct):
    web_search_requests: _Count = None


class _Body(msgspec.Struct):
    input_tokens: _Count = None
    output_tokens: _Count = None
    cache_read_input_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    cache_creation: _Writes | None = None
    output_tokens_details: _OutputDetails | None = None
    server_tool_use: _ServerTools | None = None
    service_tier: str | None = None


_decode = msgspec.json.Decoder(_Body).decode
_NO_WRITES, _NO_DETAILS, _NO_TOOLS = _Writes(), _OutputDetails(), _ServerTools()

_PATHS: tuple[tuple[str, ...], ...] = (
    ("input_tokens",), ("output_tokens",), ("cache_read_input_tokens",), ("cache_creation_input_tokens",),
    ("cache_creation", "ephemeral_5m_input_tokens"), ("cache_creation", "ephemeral_1h_input_tokens"),
    ("output_tokens_details", "thinking_tokens"), ("server_tool_use", "web_search_requests"),
)  # fmt: skip
_Found = list[int | None]
"""A count per path of `_PATHS`, None where absent."""


def _typed(raw: bytes) -> tuple[_Found, str | None] | None:
    """The quick reading; None when the object is odd and must be looked at closely."""
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    writes = body.cache_creation or _NO_WRITES
    return [
        body.input_tokens,
        body.output_tokens,
        body.cache_read_input_tokens,
        body.cache_creation_input_tokens,
        writes.ephemeral_5m_input_tokens,
        writes.ephemeral_1h_input_tokens,
        (body.output_tokens_details or _NO_DETAILS).thinking_tokens,
        (body.server_tool_use or _NO_TOOLS).web_search_requests,
    ], body.service_tier


def _tolerant(raw: bytes, anomalies: list[str]) -> tuple[_Found, str | None] | None:
    fields = counts.members(raw)
    if fields is None:
        if raw not in (b"", b"null"):
            anomalies.append("not_an_object")
        return None
    tier = fields.get("service_tier")
    found = [counts.count(counts.find(fields, path), ".".join(path), anomalies) for path in _PATHS]
    return found, tier if isinstance(tier, str) else None


class Accumulator:
    """The usage of one answer: `merge` what comes, ask `report` at any time."""

    __slots__ = ("_anomalies", "_found", "_raws", "_rules", "_tier")

    def __init__(self, rules: UsageRules) -> None:
        self._rules = rules
        self._found: _Found = [None] * len(_PATHS)
        self._tier: str | None = None
        self._anomalies: list[str] = []
        self._raws: list[bytes] = []

    def merge(self, raw: bytes) -> bool:
        """Takes a usage object; true when it said anything. Never raises. Only the first and the latest are kept as evidence."""
        raw = bytes(raw)
        odd: list[str] = []
        read = _typed(raw) or _tolerant(raw, odd)
        self._anomalies.extend(a for a in odd if a not in self._anomalies)
        if read is None:
            return bool(odd)
        found, tier = read
        self._found = [old if new is None else new for old, new in zip(self._found, found, strict=True)]
        self._tier = tier or self._tier
        self._raws = [*self._raws[:1], raw]
        return True

    def report(self) -> UsageReport:
        anomalies = list(self._anomalies)
        usage = None if anomalies else _judge(self._found, anomalies)
        raw = self._raws[0] if len(self._raws) == 1 else b"[" + b",".join(self._raws) + b"]" if self._raws else b""
        cost = _cost(self._raws[-1], self._rules, anomalies) if self._rules.cost_field and self._raws else None
        return UsageReport(usage, tuple(anomalies), raw, cost, self._tier)


def _judge(found: _Found, anomalies: list[str]) -> Usage | None:
    input_tokens, output, read, written, written_5m, written_1h, thinking, searches = found
    if input_tokens is None or output is None:
        if any(value is not None for value in found):
            anomalies.append("missing:output_tokens" if output is None else "missing:input_tokens")
        return None
    thinking = thinking or 0
    if thinking > output:
        anomalies.append("reasoning>completion")
        return None
    split = (written_5m or 0) + (written_1h or 0)
    rest = 0 if written is None else written - split
    if rest < 0:
        anomalies.append("cache_write_split>total")
        return None
    if rest and (written_5m is not None or written_1h is not None):
        anomalies.append("cache_write_unsplit")
    return Usage(
        input=input_tokens, cache_read=read or 0, cache_write_5m=(written_5m or 0) + rest, cache_write_1h=written_1h or 0,
        output=output - thinking, reasoning=thinking, web_searches=searches or 0,
    )  # fmt: skip


def _cost(raw: bytes, rules: UsageRules, anomalies: list[str]) -> str | None:
    value = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get(rules.cost_field or "")
    return None if value is None else counts.cost_usd(bytes(value), rules.cost_divisor, anomalies)


def read(raw: bytes, rules: UsageRules) -> UsageReport:
    """The usage object of a whole answer as a report. Never raises.

    `rules` says only where a vendor's own charge stands: on this wire, cached tokens are beside the input by definition.
    """
    raw = bytes(raw)
    anomalies: list[str] = []
    found = _typed(raw) or _tolerant(raw, anomalies)
    if found is None:
        return UsageReport(None, tuple(anomalies), raw)
    usage = None if anomalies else _judge(found[0], anomalies)
    cost = None if rules.cost_field is None else _cost(raw, rules, anomalies)
    return UsageReport(usage, tuple(anomalies), raw, cost, found[1])


def write(usage: Usage, extra: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """The usage object of this surface: `input_tokens` excludes cached and written ones. `extra` goes beside the counts."""
    body: dict[str, Any] = {
        "input_tokens": usage.input + usage.audio_input + usage.image_input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if usage.web_searches:
        # The SDKs want both counts; fetching is not billed by the request and has no class of its own.
        body["server_tool_use"] = {"web_search_requests": usage.web_searches, "web_fetch_requests": 0}
    return body | extra
