"""Check: what is wrong with an answer, by a policy's rules. Pure.

The reasons, in the order in which they are looked for: `empty`, `refusal`, `truncation`, `schema`, `confidence`, `rule`; and,
where none of them is found, `rating` (`quality.rating`).
"""

from math import exp, isfinite
from typing import Any, cast

import msgspec

from farebox.quality.refusals import declines
from farebox.quality.rules import Rules, found
from farebox.quality.schema import invalid
from farebox.wires.neutral import Choice, Completion, Refusal, ResponseFormat, Text, ToolUse

RATING = "rating"
"""The reason that costs a request to find."""
LOGPROBS_MAX = 100_000
"""Tokens whose probabilities are looked at."""


def problem(rules: Rules, answer: Completion, wanted: ResponseFormat | None, *, room: bool) -> str:
    """Why an answer will not do; empty when it will. `wanted` is the format that the caller asked for, `room` says whether
    another model may write more than this one, so that an answer that was cut off can get better."""
    for choice in answer.choices:
        reason = _choice(rules, choice, wanted, room)
        if reason:
            return reason
    return "" if answer.choices else "empty"


def _choice(rules: Rules, choice: Choice, wanted: ResponseFormat | None, room: bool) -> str:
    refused = choice.finish == "content_filter" or any(isinstance(part, Refusal) for part in choice.parts)
    if rules.refused and refused:
        return "refusal"
    if rules.truncated and choice.finish == "length" and room:
        return "truncation"
    if any(isinstance(part, ToolUse) for part in choice.parts):
        # The turn is the tool's: there is no text to judge yet.
        return ""
    text = "".join(part.text for part in choice.parts if isinstance(part, Text))
    if not text.strip() and choice.finish == "stop" and not refused:
        return "empty"
    formatted = wanted is not None and wanted.kind != "text"
    if rules.refused and not formatted and declines(text):
        return "refusal"
    if rules.schema and wanted is not None and formatted and choice.finish == "stop" and invalid(text, wanted.schema):
        return "schema"
    if rules.confidence_percent is not None and choice.logprobs is not None:
        percent = confidence_percent(choice.logprobs)
        if percent is not None and percent < rules.confidence_percent:
            return "confidence"
    if rules.must_match is not None and found(rules.must_match, text) is False:
        return "rule"
    if rules.must_not_match is not None and found(rules.must_not_match, text):
        return "rule"
    return ""


class _Token(msgspec.Struct):
    logprob: Any = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


_decode = msgspec.json.Decoder(_Logprobs).decode


def confidence_percent(logprobs: bytes) -> float | None:
    """The geometric mean of the tokens' probabilities, in percent; None where there are none."""
    try:
        tokens = _decode(logprobs).content or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    values = [cast("float", one.logprob) for one in tokens[:LOGPROBS_MAX] if isinstance(one.logprob, int | float)]
    if not values:
        return None
    mean = sum(values) / len(values)
    return exp(min(mean, 0.0)) * 100 if isfinite(mean) else None
