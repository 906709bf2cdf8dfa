"""Models → the catalog's file format: `loads(dump(models))` gives the same models."""

from collections.abc import Iterable

from farebox.catalog.model import Model, Offer
from farebox.catalog.rates import write_price
from farebox.catalog.record import ModelRecord, OfferRecord, encode, shared


def _offer(offer: Offer, model: Model) -> OfferRecord:
    return OfferRecord(
        provider=offer.provider,
        id=offer.id,
        prices=tuple(write_price(price, offer.provider, offer.id, offer.variant) for price in offer.prices),
        wire=offer.wire,
        aliases=offer.aliases,
        variant=offer.variant,
        context=None if offer.context_window == model.context_window else offer.context_window,
        max_input=offer.max_input_tokens,
        max_output=None if offer.max_output_tokens == model.max_output_tokens else offer.max_output_tokens,
        lacks=tuple(sorted(model.capabilities - offer.capabilities)),
        adds=tuple(sorted(offer.capabilities - model.capabilities)),
        efforts=offer.reasoning_efforts,
        retires=offer.retires,
    )


def record(model: Model) -> ModelRecord:
    """One line of the file."""
    return ModelRecord(
        slug=model.slug,
        name=model.name,
        context=model.context_window,
        max_output=model.max_output_tokens,
        offers=tuple(_offer(offer, model) for offer in model.offers),
        capabilities=tuple(sorted(model.capabilities)),
        input=shared(model.input_modalities),
        output=shared(model.output_modalities),
        released=model.released,
        cutoff=model.knowledge_cutoff,
        open_weights=model.open_weights,
    )


def dump(models: Iterable[Model]) -> bytes:
    """The file, sorted by slug."""
    return encode([record(model) for model in models])
