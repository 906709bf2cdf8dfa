"""What a wire cannot express, named as the client named it.

`from_neutral` of each wire appends such names to a list; the caller answers 400 with them or, when the client asked for it,
drops them.
"""

from farebox.wires.neutral import Conversation

_NAMES: dict[str, dict[str, str]] = {
    "anthropic_messages": {
        "max_tokens": "max_tokens",
        "stop": "stop_sequences",
        "response_format": "output_config.format",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "user": "metadata.user_id",
    },
    "openai_chat": {},
}

CACHE_HINTS = frozenset({
    "cache_control", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier", "store",
})  # fmt: skip
"""Fields that change neither the answer nor what it means: hints for a vendor's cache, its logs and its abuse desk. Left out
where the vendor has no such field."""

GATEWAY_FIELDS = frozenset({
    "models", "route", "provider", "plugins", "transforms", "session_id", "trace", "usage", "debug", "include_reasoning",
    "max_output_to_balance",
})  # fmt: skip
"""Request extensions that the gateway itself answers (compat.md §1): forwarded only to a vendor with `Dialect.extensions`."""


def field(conversation: Conversation, neutral_name: str) -> str:
    """The client's name for a setting that is called `neutral_name` on the OpenAI surface."""
    return _NAMES[conversation.wire].get(neutral_name, neutral_name)


def reasoning_field(conversation: Conversation) -> str:
    asked = conversation.params.reasoning
    return asked.field if asked is not None else "reasoning_effort"


def add(unsupported: list[str], name: str) -> None:
    if name not in unsupported:
        unsupported.append(name)


def part(path: str, kind: str) -> str:
    return f"{path} ({kind})" if path else kind
