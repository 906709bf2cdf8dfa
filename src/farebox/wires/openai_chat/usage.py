"""Usage as OpenAI chat and its clones report it, turned into disjoint classes once.

The rules of one vendor are data (`UsageRules`, providers.md §1.2); the judgement is here and the same for all:

1. A count that is negative, fractional, no number or above 2⁴⁰ is refused: no usage, an anomaly names the field.
2. The report is complete only with both `prompt_tokens` and `completion_tokens`; a missing one is not zero. An object of
   nulls says nothing at all and is no anomaly.
3. If there is a total, the parts must add up to it under the vendor's declared rule. When they do not but do under exactly
   one other known rule (reasoning beside the output, audio beside the input), that rule is taken and named
   (`reasoning_outside`, `audio_outside`). Otherwise the explicit counts stand and the report carries `total_mismatch`.
4. More cached tokens than prompt tokens: grok on Azure really says so (373 of 235). When the total confirms the prompt
   count, the whole prompt was cached: `cached>prompt` is flagged and the subtraction stops at zero. Likewise for reasoning
   and audio that overlap in a confirmed completion (`parts>completion`). Without a total to confirm the whole, or for
   reasoning above the completion, the report is unusable.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec

from farebox.wires import counts
from farebox.wires.dialect import UsageRules
from farebox.wires.openai_chat.shapes import CompletionDetails, PromptDetails, ToolCounts, UsageBody
from farebox.wires.usage import Usage, UsageReport


class _Counts:
    """What was found, before judgement. None is absent."""

    __slots__ = (
        "audio_in", "audio_out", "cached", "completion", "image_out", "prompt", "reasoning", "searches", "service_tier",
        "total", "written",
    )

    def __init__(
        self,
        prompt: int | None,
        completion: int | None,
        total: int | None,
        cached: int | None,
        written: int | None,
        audio_in: int | None,
        reasoning: int | None,
        audio_out: int | None,
        image_out: int | None,
        searches: int | None,
        service_tier: str | None,
    ) -> None:
        self.prompt = prompt
        self.completion = completion
        self.total = total
        self.cached = cached
        self.written = written
        self.audio_in = audio_in
        self.reasoning = reasoning
        self.audio_out = audio_out
        self.image_out = image_out
        self.searches = searches
        self.service_tier = service_tier

_decode: Final = msgspec.json.Decoder(UsageBody).decode
_NO_PROMPT_DETAILS: Final = PromptDetails()
_NO_COMPLETION_DETAILS: Final = CompletionDetails()
_NO_TOOLS: Final = ToolCounts()
_OPENAI: Final = UsageRules()


@lru_cache(maxsize=256)
def _typed_paths(paths: tuple[tuple[str, ...], ...]) -> tuple[tuple[bool, str], ...] | None:
    """Each path as (inside `prompt_tokens_details`?, name); None when a path is not in the typed struct."""
    found: list[tuple[bool, str]] = []
    for path in paths:
        inside = len(path) == 2 and path[0] == "prompt_tokens_details"
        if not (inside or len(path) == 1):
            return None
        if path[-1] not in (PromptDetails if inside else UsageBody).__struct_fields__:
            return None
        found.append((inside, path[-1]))
    return tuple(found)


def _first(body: UsageBody, details: PromptDetails, paths: tuple[tuple[bool, str], ...]) -> int | None:
    for inside, name in paths:
        value: int | None = getattr(details if inside else body, name)
        if value is not None:
            return value
    return None


def _typed(raw: bytes, rules: UsageRules) -> _Counts | None:
    """The quick reading; None when the object is odd and must be looked at closely."""
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    details = body.prompt_tokens_details or _NO_PROMPT_DETAILS
    made = body.completion_tokens_details or _NO_COMPLETION_DETAILS
    if rules.cache_read_paths == _OPENAI.cache_read_paths and rules.cache_write_paths == _OPENAI.cache_write_paths:
        cached, written = details.cached_tokens, details.cache_write_tokens
    else:
        read_paths, write_paths = _typed_paths(rules.cache_read_paths), _typed_paths(rules.cache_write_paths)
        if read_paths is None or write_paths is None:
            return None
        cached, written = _first(body, details, read_paths), _first(body, details, write_paths)
    reasoning = made.reasoning_tokens
    return _Counts(
        body.prompt_tokens,
        body.completion_tokens,
        body.total_tokens,
        cached,
        written,
        details.audio_tokens,
        body.reasoning_tokens if reasoning is None else reasoning,
        made.audio_tokens,
        made.image_tokens,
        (body.server_tool_use or _NO_TOOLS).web_search_requests,
        body.service_tier,
    )


def _tolerant(fields: dict[str, Any], rules: UsageRules, anomalies: list[str]) -> _Counts:
    def at(*paths: tuple[str, ...]) -> int | None:
        for path in paths:
            value = counts.find(fields, path)
            if value is not None:
                return counts.count(value, ".".join(path), anomalies)
        return None

    tier = fields.get("service_tier")
    return _Counts(
        prompt=at(("prompt_tokens",)),
        completion=at(("completion_tokens",)),
        total=at(("total_tokens",)),
        cached=at(*rules.cache_read_paths),
        written=at(*rules.cache_write_paths),
        audio_in=at(("prompt_tokens_details", "audio_tokens")),
        reasoning=at(("completion_tokens_details", "reasoning_tokens"), ("reasoning_tokens",)),
        audio_out=at(("completion_tokens_details", "audio_tokens")),
        image_out=at(("completion_tokens_details", "image_tokens")),
        searches=at(("server_tool_use", "web_search_requests")),
        service_tier=tier if isinstance(tier, str) else None,
    )


def read(raw: bytes, rules: UsageRules) -> UsageReport:
    """The usage object `raw` as a report. Never raises; see the module's rules for what becomes an anomaly."""
    raw = bytes(raw)
    if rules == _OPENAI:
        plain = _plain(raw)
        if plain is not None:
            return plain
    anomalies: list[str] = []
    found = _typed(raw, rules)
    if found is None:
        fields = counts.members(raw)
        if fields is None:
            return UsageReport(None, () if raw in (b"", b"null") else ("not_an_object",), raw)
        found = _tolerant(fields, rules, anomalies)
    usage = None if anomalies else _judge(found, rules, anomalies)
    cost = _cost(raw, rules, anomalies) if rules.cost_field is not None else None
    return UsageReport(usage, tuple(anomalies), raw, cost, found.service_tier or None)


def _plain(raw: bytes) -> UsageReport | None:
    """The usual report by OpenAI's own rules, whose parts add up, without audio or searches; None for what needs a judgement."""
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    prompt, completion = body.prompt_tokens, body.completion_tokens
    if prompt is None or completion is None or body.total_tokens != prompt + completion or body.reasoning_tokens is not None:
        return None
    if body.server_tool_use is not None:
        return None
    cached = written = reasoning = 0
    details = body.prompt_tokens_details
    if details is not None:
        if details.audio_tokens:
            return None
        cached, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    made = body.completion_tokens_details
    if made is not None:
        if made.audio_tokens or made.image_tokens:
            return None
        reasoning = made.reasoning_tokens or 0
    if cached + written > prompt or reasoning > completion:
        return None
    return UsageReport(
        Usage(
            input=prompt - cached - written,
            cache_read=cached,
            cache_write_5m=written,
            output=completion - reasoning,
            reasoning=reasoning,
        ),
        (),
        raw,
        None,
        body.service_tier or None,
        True,
    )


def _judge(found: _Counts, rules: UsageRules, anomalies: list[str]) -> Usage | None:
    prompt, completion, total = found.prompt, found.completion, found.total
    if prompt is None or completion is None:
        if not (prompt is None and completion is None and not total):
            anomalies.append("missing:completion_tokens" if completion is None else "missing:prompt_tokens")
        return None
    reasoning, audio_in = found.reasoning or 0, found.audio_in or 0
    cached, written = found.cached or 0, found.written or 0
    reasoning_outside, audio_outside = rules.reasoning == "outside", not rules.audio_inside_input
    confirmed = False  # whether the total agrees with the parts
    if rules.reasoning == "hidden":
        # Only the total knows of it: what is neither prompt nor answer is thinking.
        reasoning_outside = True
        if total is not None and total >= prompt + completion:
            reasoning = total - prompt - completion
        elif total is not None:
            anomalies.append("total_mismatch")
    elif total is not None:
        confirmed = total == prompt + completion + reasoning_outside * reasoning + audio_outside * audio_in
        if not confirmed:
            fit = _other_rule(total - prompt - completion, reasoning, audio_in, reasoning_outside, audio_outside, anomalies)
            if fit is not None:
                (reasoning_outside, audio_outside), confirmed = fit, True

    input_tokens = prompt if audio_outside else prompt - audio_in
    if rules.cache_inside_input:
        input_tokens -= cached + written
    if input_tokens < 0:
        anomalies.append("cached>prompt" if cached > prompt else "parts>prompt")
        if not confirmed or written or audio_in:
            return None
        cached, input_tokens = prompt, 0
    audio_out, image_out = found.audio_out or 0, found.image_out or 0
    output = completion - audio_out - image_out
    if not reasoning_outside:
        output -= reasoning
    if output < 0:
        anomalies.append("reasoning>completion" if reasoning > completion else "parts>completion")
        if not confirmed or reasoning > completion or audio_out + image_out > completion:
            return None
        # The parts overlap, but their whole is sure: what is left beside the dearer ones is reasoning.
        reasoning, output = completion - audio_out - image_out, 0
    return Usage(
        input=input_tokens, cache_read=cached, cache_write_5m=written, audio_input=audio_in,
        output=output, reasoning=reasoning, audio_output=audio_out, image_output=image_out, web_searches=found.searches or 0,
    )  # fmt: skip


def _other_rule(
    rest: int, reasoning: int, audio_in: int, reasoning_outside: bool, audio_outside: bool, anomalies: list[str]
) -> tuple[bool, bool] | None:
    """The one rule under which `rest`, the total without prompt and completion, is explained: (reasoning, audio) outside."""
    fits = [
        (r, a)
        for r in ((False, True) if reasoning else (reasoning_outside,))
        for a in ((False, True) if audio_in else (audio_outside,))
        if rest == r * reasoning + a * audio_in
    ]
    if len(fits) != 1:
        anomalies.append("total_mismatch")
        return None
    if fits[0][0] != reasoning_outside:
        anomalies.append("reasoning_outside" if fits[0][0] else "reasoning_inside")
    if fits[0][1] != audio_outside:
        anomalies.append("audio_outside" if fits[0][1] else "audio_inside")
    return fits[0]


def _cost(raw: bytes, rules: UsageRules, anomalies: list[str]) -> str | None:
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    value = fields.get(rules.cost_field or "")
    return None if value is None else counts.cost_usd(bytes(value), rules.cost_divisor, anomalies)


class Accumulator:
    """The usage of a stream, where a report may come in every chunk: the last complete one wins, nothing is summed."""

    __slots__ = ("_report", "_rules")

    def __init__(self, rules: UsageRules) -> None:
        self._rules = rules
        self._report = UsageReport(None)

    def merge(self, raw: bytes) -> bool:
        """Takes a usage object; true when it told something new. One that lacks counts never erases what is known."""
        raw = bytes(raw)
        if raw == self._report.raw:
            return False
        report = read(raw, self._rules)
        lacking = report.usage is None and all(a.startswith("missing:") for a in report.anomalies)
        if lacking and (self._report.usage is not None or not report.anomalies):
            return False
        same = msgspec.structs.replace(report, raw=self._report.raw) == self._report
        self._report = report
        return not same

    def report(self) -> UsageReport:
        return self._report


def write(usage: Usage, extra: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """The usage object of this surface: totals include cached, written and reasoning tokens. `extra` goes beside them."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h,
            "audio_tokens": usage.audio_input,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_output},
    }
    if usage.image_output:
        body["completion_tokens_details"]["image_tokens"] = usage.image_output
    if usage.web_searches:
        body["server_tool_use"] = {"web_search_requests": usage.web_searches}
    return body | extra
