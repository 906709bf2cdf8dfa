"""Targets: offers that can be called by this gateway now, with what a call needs of them worked out once."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from farebox.billing.markup import MarkupPlan, Terms
from farebox.billing.pricing import quote
from farebox.billing.quotes import Quote
from farebox.catalog.model import Model, Offer
from farebox.providers.base import Provider, Speaks
from farebox.routing.patience import Patience

DEARER_TIERS: Final = frozenset({"priority", "fast", "ultrafast"})
"""Tiers that cost more than the standard one wherever they exist: without a price for them an offer is not called."""
QUOTES_MAX: Final = 64


class Place(NamedTuple):
    """Where a call goes."""

    provider: str
    key: str
    """The key's public name, such as `openai#1`; empty where none is needed."""
    model: str


@dataclass(frozen=True, eq=False, repr=False)
class Target:
    """One offer at one enabled provider."""

    model: Model
    offer: Offer
    provider: Provider
    wire: str
    """The wire on which this target is called; the provider may speak others, too."""
    speaks: Speaks
    base_url: str
    keys: tuple[str, ...]
    """The provider's credentials, in the order of use; empty where none is needed."""
    key_refs: tuple[str, ...]
    """Their public names for records: `openai#1`."""
    key_weights: tuple[int, ...]
    """Their shares of the calls; empty: all alike."""
    upstream_id_json: bytes
    head: bytes
    """Header lines that tell a client who answered."""
    markup: MarkupPlan
    """The plan of accounts that have none of their own."""
    patience: Patience | None
    """The provider's own time-outs."""
    forward_headers: tuple[bytes, ...]
    """Names of the client's fields that go along."""
    places: tuple[Place, ...]
    """One for each key, or the one without a key."""
    house: bool
    """Anybody may be served by it; else those alone who have a key of their own at the provider."""
    quotes: dict[tuple[str, str | None, str], Quote]
    """Quotes made so far, by UTC day, service tier and markup: prices change by the day."""

    def __repr__(self) -> str:
        """Without its keys: what is shown in a trace is read by others."""
        return f"Target({self.offer.provider}, {self.model.slug}, {', '.join(self.key_refs)})"

    def key_weight(self, index: int) -> int:
        """The share of the key at a place, against the others'."""
        return self.key_weights[index] if self.key_weights else 1

    @property
    def listed(self) -> Terms:
        """The markup in public lists: nobody's own plan, no volume yet."""
        return self.markup.terms(self.model.slug, self.offer.provider)

    def quote_at(self, now_us: int, day: str, service_tier: str | None, terms: Terms) -> Quote | None:
        """The price frozen for a call that starts now; None when the offer has no price today, or not for a dearer tier."""
        found = self.quotes.get((day, service_tier, terms.plan))
        if found is not None:
            return found
        price = self.offer.price_on(day)
        if price is None or (service_tier in DEARER_TIERS and service_tier not in price.service_tiers):
            return None
        if price.off_peak is not None:
            return quote(price, terms=terms, service_tier=service_tier, now_us=now_us)
        tier = service_tier if service_tier in price.service_tiers else None
        if len(self.quotes) >= QUOTES_MAX:
            self.quotes.clear()
        found = self.quotes[day, service_tier, terms.plan] = quote(price, terms=terms, service_tier=tier, now_us=now_us)
        return found


def target(
    model: Model,
    offer: Offer,
    provider: Provider,
    *,
    wire: str,
    base_url: str,
    keys: tuple[str, ...],
    key_weights: tuple[int, ...] = (),
    markup: MarkupPlan,
    patience: Patience | None = None,
    house: bool = True,
) -> Target:
    """Put an offer and its provider together, on one of the wires that the provider speaks."""
    key_refs = tuple(f"{provider.name}#{index + 1}" for index in range(len(keys)))
    return Target(
        model=model,
        offer=offer,
        provider=provider,
        wire=wire,
        speaks=provider.speaks[wire],
        base_url=base_url,
        keys=keys,
        key_refs=key_refs,
        key_weights=key_weights,
        upstream_id_json=msgspec.json.encode(offer.id),
        head=_line(b"x-farebox-provider", provider.name) + _line(b"x-farebox-model", model.slug),
        markup=markup,
        patience=patience,
        forward_headers=tuple(name.encode() for name in provider.speaks[wire].forward_headers),
        places=tuple(Place(provider.name, ref, model.slug) for ref in key_refs or ("",)),
        house=house,
        quotes={},
    )


def _line(name: bytes, value: str) -> bytes:
    """One header line; what is not printable ASCII becomes `?`, so that no name can end the line."""
    safe = "".join(character if " " <= character <= "~" else "?" for character in value)
    return b"%b: %b\r\n" % (name, safe.encode("ascii"))
