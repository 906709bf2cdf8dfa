"""The price book's versions over the catalog: dated prices of an operator's own, by offer. Pure.

A version is immutable; a later one, or one with a later day, takes its place. Calls in flight keep the price of their hold.
"""

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from farebox.catalog.errors import PriceError
from farebox.catalog.model import Model, Offer
from farebox.catalog.price import Price
from farebox.catalog.rates import Reader
from farebox.catalog.record import PriceRecord, price_version

_DIGEST_BYTES = 4


class Version(msgspec.Struct, frozen=True):
    """An approved price of one offer."""

    version: str
    provider: str
    offer_id: str
    variant: str
    record: PriceRecord


def version_name(record: PriceRecord, provider: str, offer_id: str, variant: str) -> str:
    """A stable name by what the price says and from when: `openai/gpt-4o@2026-11-25-1f2e3d4c`."""
    plain = msgspec.structs.replace(record, version=None)
    digest = hashlib.blake2b(msgspec.json.encode(plain), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{price_version(provider, offer_id, variant, record.effective_from)}-{digest}"


def price_of(record: PriceRecord, provider: str, offer_id: str, variant: str) -> Price:
    """The price that a record says. Raises `PriceError` with every finding."""
    reader = Reader(f"{provider}/{offer_id}: ", provider)
    named = msgspec.structs.replace(record, version=version_name(record, provider, offer_id, variant))
    price = reader.price(named, "", offer_id, variant)
    if reader.findings:
        raise PriceError(tuple(reader.findings))
    return price


def overlay(models: Iterable[Model], versions: Iterable[Version]) -> list[Model]:
    """Models with the book's versions added to their offers, given in the order of approval."""
    by_offer: dict[tuple[str, str, str], list[Price]] = {}
    for one in versions:
        key = (one.provider, one.offer_id, one.variant)
        by_offer.setdefault(key, []).append(price_of(one.record, *key))
    if not by_offer:
        return list(models)
    return [_with(model, by_offer) for model in models]


def _with(model: Model, by_offer: Mapping[tuple[str, str, str], list[Price]]) -> Model:
    offers = tuple(_priced(offer, by_offer.get((offer.provider, offer.id, offer.variant))) for offer in model.offers)
    return model if offers == model.offers else msgspec.structs.replace(model, offers=offers)


def _priced(offer: Offer, more: list[Price] | None) -> Offer:
    if not more:
        return offer
    # Stable: of one day's versions the one approved last counts.
    prices = sorted((*offer.prices, *more), key=lambda price: price.effective_from)
    return msgspec.structs.replace(offer, prices=tuple(prices))
