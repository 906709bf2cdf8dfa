"""Usage: what a model consumed and made, in disjoint classes, so that nothing is counted twice.

Providers differ in whether cached tokens stand inside the input count and thinking inside the output count
(`farebox.wires.dialect.UsageRules`); a wire's `read_usage` turns a provider's report into these classes once, and prices,
bills and reports use only these.
"""

from typing import ClassVar

import msgspec

COUNT_MAX = 2**40
"""A count above this is an anomaly, not a bill (billing.md §1)."""


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Disjoint counts. Zero means none; a missing report is `None` where a `Usage` is expected, never zeros."""

    input: int = 0
    """Prompt tokens neither cached nor in another class below."""
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    output: int = 0
    """Answer tokens other than reasoning, audio and images."""
    reasoning: int = 0
    audio_output: int = 0
    image_output: int = 0
    web_searches: int = 0
    """Searches that the provider ran on its side and bills one by one."""

    TOKEN_CLASSES: ClassVar[tuple[str, ...]] = (
        "input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input",
        "output", "reasoning", "audio_output", "image_output",
    )  # fmt: skip

    @property
    def prompt_tokens(self) -> int:
        """Everything on the input side, cached or not: OpenAI's `prompt_tokens`, and what price tiers look at."""
        return (
            self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h + self.audio_input + self.image_input
        )

    @property
    def completion_tokens(self) -> int:
        """Everything on the output side, thinking included: OpenAI's `completion_tokens`."""
        return self.output + self.reasoning + self.audio_output + self.image_output


class UsageReport(msgspec.Struct, frozen=True, gc=False):
    """What a provider said about one attempt."""

    usage: Usage | None
    """None when the counts are absent or unusable: the estimate path."""
    anomalies: tuple[str, ...] = ()
    """Why counts were refused or corrected, e.g. `cached>prompt`, `negative:output_tokens`, `total_mismatch`."""
    raw: bytes = b""
    """The usage object as it came, kept as evidence beside the charge."""
    provider_cost_usd: str | None = None
    """The provider's own charge as a decimal string, where it reports one: evidence, not the charge."""
    service_tier: str | None = None
    """The tier that the provider says it served with (`flex`, `priority`…): it decides the price, not the request."""
    openai_totals: bool = False
    """The report's own totals are OpenAI's: it can be shown to a client as it came."""
