"""Models of the operator's own: entries of the configuration → offers with prices, by the same rules as the catalog's."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from farebox.catalog.errors import CatalogError, PriceError, PriceFinding
from farebox.catalog.model import CAPABILITIES, Model, Offer
from farebox.catalog.price import Price
from farebox.catalog.rates import CONFIG_NAMES, DAY, Reader
from farebox.catalog.record import ALWAYS, RatesRecord, TierRecord

_DIGEST_BYTES = 4
"""Of the name of a configured price: enough to tell an operator's price changes apart."""


class TierEntry(Protocol):
    """Prices above a prompt size; what it does not state bills by the rules of `farebox.catalog.rates`."""

    @property
    def above(self) -> int: ...
    @property
    def input(self) -> str | None: ...
    @property
    def cached_input(self) -> str | None: ...
    @property
    def cache_write(self) -> str | None: ...
    @property
    def cache_write_1h(self) -> str | None: ...
    @property
    def output(self) -> str | None: ...
    @property
    def reasoning(self) -> str | None: ...
    @property
    def audio_input(self) -> str | None: ...
    @property
    def audio_output(self) -> str | None: ...


class OfferEntry(Protocol):
    """What `farebox.config.OfferSection` says."""

    @property
    def provider(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def input(self) -> str: ...
    @property
    def output(self) -> str: ...
    @property
    def cached_input(self) -> str | None: ...
    @property
    def cache_write(self) -> str | None: ...
    @property
    def cache_write_1h(self) -> str | None: ...
    @property
    def reasoning(self) -> str | None: ...
    @property
    def audio_input(self) -> str | None: ...
    @property
    def audio_output(self) -> str | None: ...
    @property
    def image_input(self) -> str | None: ...
    @property
    def image_output(self) -> str | None: ...
    @property
    def request(self) -> str | None: ...
    @property
    def web_search(self) -> str | None: ...
    @property
    def tiers(self) -> Sequence[TierEntry]: ...
    @property
    def effective_from(self) -> str: ...
    @property
    def context_window(self) -> int | None: ...
    @property
    def max_output_tokens(self) -> int | None: ...
    @property
    def quantization(self) -> str | None: ...


class ModelEntry(Protocol):
    """What `farebox.config.ModelSection` says."""

    @property
    def slug(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def context_window(self) -> int: ...
    @property
    def max_output_tokens(self) -> int: ...
    @property
    def capabilities(self) -> tuple[str, ...] | None: ...
    @property
    def distillable(self) -> bool | None: ...


def offer_from_config(entry: OfferEntry, model: ModelEntry, *, wire: str) -> Offer:
    """One `offers` entry. Raises `PriceError` naming the setting that is wrong."""
    price = price_from_config(entry)
    return Offer(
        provider=entry.provider,
        id=entry.id,
        wire=wire,
        prices=(price,),
        context_window=entry.context_window or model.context_window,
        max_output_tokens=entry.max_output_tokens or model.max_output_tokens,
        capabilities=_capabilities(model),
        quantization=entry.quantization or "",
    )


def price_from_config(entry: OfferEntry) -> Price:
    """The price of an `offers` entry, named after what it says: a changed price is a new version."""
    rates = RatesRecord(
        input=entry.input,
        output=entry.output,
        cache_read=entry.cached_input,
        cache_write=entry.cache_write,
        cache_write_1h=entry.cache_write_1h,
        reasoning=entry.reasoning,
        audio_input=entry.audio_input,
        audio_output=entry.audio_output,
        image_input=entry.image_input,
        image_output=entry.image_output,
        web_search=entry.web_search,
        request=entry.request,
    )
    # A class that a tier does not price keeps the price that the offer states for it.
    tiers = tuple(
        TierRecord(
            tier.above,
            msgspec.structs.replace(
                rates,
                input=tier.input or rates.input,
                output=tier.output or rates.output,
                cache_read=tier.cached_input or rates.cache_read,
                cache_write=tier.cache_write or rates.cache_write,
                cache_write_1h=tier.cache_write_1h or rates.cache_write_1h,
                reasoning=tier.reasoning or rates.reasoning,
                audio_input=tier.audio_input or rates.audio_input,
                audio_output=tier.audio_output or rates.audio_output,
            ),
        )
        for tier in entry.tiers
    )
    reader = Reader("", entry.provider, CONFIG_NAMES)
    schedule = reader.schedule(rates, tiers, "")
    day = entry.effective_from
    findings = list(reader.findings)
    if DAY.fullmatch(day) is None:
        findings.append(PriceFinding("`effective_from`", day, f"{day!r} is not a date such as `2026-11-23`"))
    if findings:
        raise PriceError(tuple(findings))
    digest = hashlib.blake2b(msgspec.json.encode((day, schedule)), digest_size=_DIGEST_BYTES).hexdigest()
    since = "" if day == ALWAYS else f"{day}-"
    return Price(
        version=f"{entry.provider}/{entry.id}@{since}config-{digest}",
        effective_from=day,
        standard=schedule,
        source=("configuration",),
        confidence="operator",
    )


def _capabilities(model: ModelEntry) -> frozenset[str]:
    """Unstated: whatever it is asked, since a wrong guess would refuse a call that the model could answer."""
    if model.capabilities is None:
        return frozenset(CAPABILITIES)
    unknown = sorted(set(model.capabilities) - set(CAPABILITIES))
    if unknown:
        raise CatalogError(f"model `{model.slug}`: unknown capability {', '.join(unknown)}; known: {', '.join(CAPABILITIES)}")
    return frozenset(model.capabilities)


_INPUTS = (("image", "vision"), ("file", "pdf"), ("audio", "audio_input"), ("video", "video_input"))


def model_from_config(entry: ModelEntry, offers: tuple[Offer, ...]) -> Model:
    """A `[[models]]` entry with the offers already made from it."""
    stated = frozenset[str]() if entry.capabilities is None else _capabilities(entry)
    return Model(
        slug=entry.slug,
        name=entry.name or entry.slug,
        context_window=entry.context_window,
        max_output_tokens=entry.max_output_tokens,
        offers=offers,
        capabilities=_capabilities(entry),
        input_modalities=("text", *(modality for modality, needs in _INPUTS if needs in stated)),
        output_modalities=("text", "audio") if "audio_output" in stated else ("text",),
        distillable=entry.distillable,
    )
