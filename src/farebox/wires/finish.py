"""Why an answer ended: every vendor's word → one of six reasons, and back. The table is providers.md §1.3.

An unknown word never fails: it counts as `stop` and travels on as the native reason.
"""

from farebox.wires.neutral import FinishReason

FROM_OPENAI: dict[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "length": "length", "model_length": "length", "max_tokens": "length",
    "tool_calls": "tool_calls", "function_call": "tool_calls", "tool_use": "tool_calls",
    "content_filter": "content_filter", "sensitive": "content_filter",
    "error": "error", "network_error": "error",
}  # fmt: skip

FROM_ANTHROPIC: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "compaction": "length", "tool_use": "tool_calls", "refusal": "content_filter", "pause_turn": "pause",
}  # fmt: skip

TO_OPENAI: dict[FinishReason, str] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter",
    "pause": "stop", "error": "error",
}  # fmt: skip

TO_ANTHROPIC: dict[FinishReason, str] = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal",
    "pause": "pause_turn", "error": "end_turn",
}  # fmt: skip
"""`error` has no word here: a failed answer is an error event, and its writer never asks."""


def from_openai(native: str | None, *, with_tools: bool) -> FinishReason:
    """Tool calls decide where the word does not: xAI and Snowflake send "", Ollama and Gemini "stop"."""
    reason = FROM_OPENAI.get(native or "", "stop")
    return "tool_calls" if with_tools and reason == "stop" else reason


def from_anthropic(native: str | None, *, with_tools: bool) -> FinishReason:
    reason = FROM_ANTHROPIC.get(native or "", "stop")
    return "tool_calls" if with_tools and not native else reason


def refused(reason: FinishReason) -> FinishReason:
    """Of an answer that is a refusal in words, which OpenAI marks in the message, not in the reason."""
    return "content_filter" if reason == "stop" else reason


def to_anthropic(reason: FinishReason, native: str | None, stop_sequence: str | None) -> str:
    """The native word when it is one of this wire's, else the nearest."""
    if native in FROM_ANTHROPIC:
        return native
    return "stop_sequence" if stop_sequence is not None else TO_ANTHROPIC[reason]
