"""The file format of the catalog: one model per line, as JSON, sorted by slug.

Prices are decimal strings in USD: per million tokens for token classes, per single unit for `web_search` and `request`. A
field at its default is left out, so a line stays short and a change of one price is a diff of one line. What a source does
not price stays out of the file too; `farebox.catalog.rates` fills it in when reading.
"""

from typing import Literal

import msgspec

ALWAYS = "1970-01-01"
"""`from` of the oldest price known of an offer: it counts for every earlier day too, so that a clock set back finds a price."""

TEXT_ONLY = ("text",)
"""The one object that an absent modality list stands for."""


class RatesRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices by class, as published."""

    input: str
    output: str
    cache_read: str | None = None
    cache_write: str | None = None
    """The shortest lifetime on offer: five minutes at Anthropic."""
    cache_write_1h: str | None = None
    reasoning: str | None = None
    audio_input: str | None = None
    audio_output: str | None = None
    image_input: str | None = None
    image_output: str | None = None
    web_search: str | None = None
    request: str | None = None


class TierRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    above: int
    rates: RatesRecord


class ScheduleRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    rates: RatesRecord
    tiers: tuple[TierRecord, ...] = ()


class OffPeakRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Cheaper outside `peak_utc` (`01:00-04:00`) and, unless said otherwise, all weekend."""

    peak_utc: tuple[str, ...]
    rates: RatesRecord
    tiers: tuple[TierRecord, ...] = ()
    weekends: bool = True


class PriceRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    rates: RatesRecord
    tiers: tuple[TierRecord, ...] = ()
    service_tiers: dict[str, ScheduleRecord] = {}
    off_peak: OffPeakRecord | None = None
    multipliers: dict[str, str] = {}
    effective_from: str = msgspec.field(default=ALWAYS, name="from")
    checked: str | None = None
    source: tuple[str, ...] = ()
    confidence: Literal["agreed", "single", "single-plus-older", "conflict", "conflict-majority", "operator"] = "operator"
    version: str | None = None
    """Only where it differs from the usual `provider/id@checked`."""


class OfferRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An offer; context window and output cap only where they differ from the model's."""

    provider: str
    id: str
    prices: tuple[PriceRecord, ...]
    wire: str = "openai_chat"
    aliases: tuple[str, ...] = ()
    variant: str = ""
    context: int | None = None
    max_input: int | None = None
    max_output: int | None = None
    lacks: tuple[str, ...] = ()
    """Capabilities of the model that this offer does not have."""
    adds: tuple[str, ...] = ()
    efforts: tuple[str, ...] = ()
    retires: str | None = None


class ModelRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    slug: str
    name: str
    context: int
    max_output: int
    offers: tuple[OfferRecord, ...]
    capabilities: tuple[str, ...] = ()
    input: tuple[str, ...] = TEXT_ONLY
    output: tuple[str, ...] = TEXT_ONLY
    released: str | None = None
    cutoff: str | None = None
    open_weights: bool | None = None


def shared(modalities: tuple[str, ...]) -> tuple[str, ...]:
    """`TEXT_ONLY` itself when equal to it: msgspec leaves a tuple out of the line only when it is the default object."""
    return TEXT_ONLY if modalities == TEXT_ONLY else modalities


def price_version(provider: str, offer_id: str, variant: str, day: str) -> str:
    """The usual name of a price version: which offer, and when its source was read or it came into force."""
    return f"{provider}/{offer_id}{'#' + variant if variant else ''}@{day}"


def encode(records: list[ModelRecord]) -> bytes:
    """The file: sorted by slug, one line per model, so that two runs over the same facts give the same bytes."""
    encoder = msgspec.json.Encoder()
    ordered = sorted(records, key=lambda record: record.slug)
    return b"".join(encoder.encode(record) + b"\n" for record in ordered)
