"""What a wire cannot express, named as the client named it.

`from_neutral` of each wire appends such names to a list; the caller answers 400 with them or, when the client asked for it,
drops them.
"""

from farebox.wires.dialect import Dialect
from farebox.wires.neutral import Conversation, ModelTraits, WireName

_NAMES: dict[WireName, dict[str, str]] = {
    "anthropic_messages": {
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

ROUTING_FIELDS = frozenset({
    "models", "route", "provider", "fallbacks", "num_retries", "timeout", "max_output_to_balance", "stream_recovery",
})  # fmt: skip
"""What only this gateway answers. To a gateway behind it, routing itself says what concerns it."""
GATEWAY_FIELDS = ROUTING_FIELDS | frozenset({
    "plugins", "transforms", "session_id", "trace", "usage", "debug", "include_reasoning",
})  # fmt: skip
"""Request extensions of gateways: except for `ROUTING_FIELDS`, forwarded to a vendor with `Dialect.extensions`."""


class Target:
    """One request on its way to one target: what the writers of a wire share, and where their complaints go."""

    def __init__(
        self, wire: WireName, conversation: Conversation, dialect: Dialect, traits: ModelTraits, unsupported: list[str]
    ) -> None:
        self.conversation = conversation
        self.dialect = dialect
        self.traits = traits
        self.same_wire = conversation.wire == wire
        """The client speaks the target's wire, so its own words can be used again."""
        self._unsupported = unsupported

    def refuse(self, name: str) -> None:
        """`name` cannot be said to the target. Once is enough."""
        if name not in self._unsupported:
            self._unsupported.append(name)

    def refuse_part(self, path: str, kind: str) -> None:
        self.refuse(f"{path} ({kind})" if path else kind)

    def field(self, name: str) -> str:
        """The client's name for a setting that is called `name` on the OpenAI surface."""
        return _NAMES[self.conversation.wire].get(name, name)

    def reasoning_field(self) -> str:
        asked = self.conversation.params.reasoning
        return asked.field if asked is not None else "reasoning_effort"
