"""How vendors report usage on the chat wire: a row per vendor, and the writer of the usage object. Pure.

The rows restate providers' documented behaviour independently of `farebox.wires.dialect`, so that a wrong fact there is
found by comparing its charge with the true bill.
"""

from typing import Any, Literal

import msgspec

from farebox.simulator.directives import UsageFault
from farebox.wires.usage import Usage

HUGE = 2**62

_encode = msgspec.json.Encoder().encode


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are OpenAI."""

    reasoning: Literal["inside", "outside", "hidden"] = "inside"
    """Thinking is part of `completion_tokens`; stands beside it; or appears only in the total."""
    cached: Literal["details", "hit_and_miss", "top_level"] = "details"
    stream_usage: Literal["extra_chunk", "last_chunk", "every_chunk", "choice", "twice"] = "extra_chunk"
    """Where a stream reports: a chunk of its own when asked for; on the finishing chunk, on every chunk, inside the choice,
    or both in a chunk of its own and in `x_groq` — those four always."""
    audio_inside: bool = True
    reasoning_shown: bool = True
    """False: thinking that the caller asked for by effort is billed, not shown (`thinking=N` always shows it)."""
    echo_required: bool = False
    """An assistant turn with tool calls must carry `reasoning_content` while thinking is on."""
    strict: bool = False
    """Unknown request fields are refused."""


DIALECTS: dict[str, Dialect] = {
    "openai": Dialect(reasoning_shown=False, strict=True),
    "xai": Dialect(reasoning="outside", stream_usage="last_chunk"),
    "deepseek": Dialect(cached="hit_and_miss", stream_usage="last_chunk", echo_required=True),
    "mistral": Dialect(stream_usage="last_chunk", audio_inside=False),
    "groq": Dialect(stream_usage="twice"),
    "together": Dialect(cached="top_level", stream_usage="last_chunk"),
    "moonshot": Dialect(cached="top_level", stream_usage="choice"),
    "perplexity": Dialect(stream_usage="every_chunk"),
    "gemini": Dialect(reasoning="hidden", reasoning_shown=False),
}


def chat_usage(usage: Usage, dialect: Dialect) -> dict[str, Any]:
    """Disjoint classes → the vendor's usage object."""
    reasoning_in = usage.reasoning if dialect.reasoning == "inside" else 0
    audio_in = usage.audio_input if dialect.audio_inside else 0
    prompt = usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h + audio_in
    completion = usage.output + reasoning_in
    total = prompt + usage.audio_input - audio_in + usage.output + usage.reasoning
    report: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    details: dict[str, int] = {"cached_tokens": usage.cache_read, "audio_tokens": usage.audio_input}
    writes = usage.cache_write_5m + usage.cache_write_1h
    if writes:
        details["cache_write_tokens"] = writes
    match dialect.cached:
        case "details":
            pass
        case "hit_and_miss":
            report["prompt_cache_hit_tokens"] = usage.cache_read
            report["prompt_cache_miss_tokens"] = prompt - usage.cache_read
        case "top_level":
            report["cached_tokens"] = details.pop("cached_tokens")
    report["prompt_tokens_details"] = details
    if dialect.reasoning != "hidden":
        report["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning, "audio_tokens": 0}
    return report


def anthropic_usage(usage: Usage, output: bool = True) -> dict[str, Any]:
    """Disjoint classes → the usage object of the Messages wire; `output=False` as a stream begins, with one token out."""
    report: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output + usage.reasoning if output else min(1, usage.output + usage.reasoning),
        "service_tier": "standard",
    }
    if output and usage.reasoning:
        report["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return report


def spoil(report: dict[str, Any], fault: UsageFault | None) -> bytes | None:
    """The usage object as bytes, bent as ordered; None leaves it out. `duplicate` is the business of the caller."""
    if fault is None or fault == "duplicate":
        return _encode(report)
    if fault == "missing":
        return None
    if fault == "null":
        return b"null"
    return _encode({name: _spoilt(value, fault) if name in _COUNTS else value for name, value in report.items()})


_COUNTS = frozenset(("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"))


def _spoilt(count: int, fault: Literal["negative", "huge", "string", "nan", "fractional"]) -> Any:
    match fault:
        case "negative":
            return -count - 1
        case "huge":
            return HUGE
        case "string":
            return str(count)
        case "fractional":
            return count + 0.5
        case "nan":
            return msgspec.Raw(b"NaN")
