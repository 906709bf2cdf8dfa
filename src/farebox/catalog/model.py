"""Models and offers: what can be called, where, and what it can do."""

import msgspec

from farebox.catalog.price import Price


class Offer(msgspec.Struct, frozen=True):
    """A model as one provider sells it: provider × upstream id × dated prices × capabilities."""

    provider: str
    id: str
    """The id that is sent upstream."""
    wire: str
    """How this offer is called: `openai_chat` or `anthropic_messages`."""
    prices: tuple[Price, ...]
    """Ascending by `effective_from`; empty means not priced, and then never called."""
    context_window: int
    max_output_tokens: int
    capabilities: frozenset[str] = frozenset()
    """Names from `CAPABILITIES`."""
    aliases: tuple[str, ...] = ()
    """Other ids of the same provider at the same price, such as dated snapshots."""
    variant: str = ""
    """What tells two offers of one provider apart: region scope, speed (`global`, `us`, `fast`…)."""
    max_input_tokens: int | None = None
    retires: str | None = None
    """Announced or earliest shutdown, `YYYY-MM-DD`."""
    reasoning_efforts: tuple[str, ...] = ()
    quantization: str = ""
    """The precision of the weights that it runs: `fp8`, `bf16`…; empty: not stated."""

    def price_on(self, day: str) -> Price | None:
        """The version in force on a UTC day `YYYY-MM-DD`, or None when the offer has no price then."""
        found: Price | None = None
        for price in self.prices:
            if price.effective_from <= day:
                found = price
        return found


class Model(msgspec.Struct, frozen=True):
    """One canonical model and all its offers; offers of one model may stand in for one another."""

    slug: str
    name: str
    context_window: int
    max_output_tokens: int
    offers: tuple[Offer, ...]
    capabilities: frozenset[str] = frozenset()
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    released: str | None = None
    knowledge_cutoff: str | None = None
    open_weights: bool | None = None
    distillable: bool | None = None
    """Whether its vendor allows to train other models on its text; None: not stated."""


CAPABILITIES = (
    "tools", "parallel_tools", "tool_choice", "vision", "pdf", "audio_input", "audio_output", "video_input", "json_mode",
    "json_schema", "reasoning", "prompt_caching", "web_search", "temperature", "streaming", "assistant_prefill",
)  # fmt: skip
"""What a request may need of a model; a request feature that is not listed is never a reason to refuse an offer."""
