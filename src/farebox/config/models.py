"""The configuration's sections about models, their offers and prices. Read by `farebox.config`."""

from typing import Literal

import msgspec


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class TierSection(_Section, frozen=True):
    """Prices above a prompt size; what is not stated costs as in the offer."""

    above: int
    """The tier applies when the prompt has more tokens than this, and then to the whole call."""
    input: str | None = None
    """USD per million tokens."""
    cached_input: str | None = None
    """USD per million tokens."""
    cache_write: str | None = None
    """USD per million tokens."""
    cache_write_1h: str | None = None
    """USD per million tokens."""
    output: str | None = None
    """USD per million tokens."""
    reasoning: str | None = None
    """USD per million tokens."""
    audio_input: str | None = None
    """USD per million tokens."""
    audio_output: str | None = None
    """USD per million tokens."""


class OfferSection(_Section, frozen=True):
    """A model as one provider sells it. Prices are decimal strings: USD per million tokens, or, for fees, USD each."""

    provider: str
    """A known provider, or one with a section of its own."""
    id: str
    """The model's name at that provider."""
    input: str
    """Input tokens."""
    output: str
    """Output tokens."""
    cached_input: str | None = None
    """Input tokens read from the provider's cache. Unset: as `input`."""
    cache_write: str | None = None
    """Input tokens written to it for five minutes. Unset: as `input`."""
    cache_write_1h: str | None = None
    """The same for an hour. Unset: as `cache_write`; at Anthropic, where `cache_write` is set, twice `input`."""
    reasoning: str | None = None
    """Thinking tokens. Unset: as `output`."""
    audio_input: str | None = None
    """Audio tokens in. Unset: as `input`."""
    audio_output: str | None = None
    """Audio tokens out. Unset: as `output`."""
    image_input: str | None = None
    """Image tokens in. Unset: as `input`."""
    image_output: str | None = None
    """Image tokens out. Unset: as `output`."""
    request: str | None = None
    """A fee per answered call, USD."""
    web_search: str | None = None
    """A fee per search that the provider runs and counts in its report, USD. Of one that always searches: `request`."""
    tiers: tuple[TierSection, ...] = ()
    """Prices by prompt size."""
    effective_from: str = "1970-01-01"
    """The UTC day from which the price applies; before it the offer is not called."""
    context_window: int | None = None
    """Unset: the model's."""
    max_output_tokens: int | None = None
    """Unset: the model's."""
    quantization: Literal["int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32"] | None = None
    """The precision of the weights that it runs."""


class ModelSection(_Section, frozen=True):
    """A model of one's own, or one of the catalog with offers of one's own in place of the catalog's."""

    slug: str
    """The name that callers use: `vendor/model`."""
    context_window: int
    """Tokens; bounds what a call may be held for."""
    max_output_tokens: int
    """Tokens; held, and sent as the cap, when a caller sets none."""
    offers: tuple[OfferSection, ...]
    """Who serves it at which price: at least one. Cheaper ones get more of the calls."""
    name: str | None = None
    """For lists. Unset: the slug."""
    capabilities: tuple[str, ...] | None = None
    """Unset: assume that it can do whatever it is asked."""
    distillable: bool | None = None
    """Whether its vendor allows to train other models on its text."""
