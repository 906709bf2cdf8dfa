"""What every name of a model means, worked out once. Meaning never depends on which providers are switched on.

In order, first found wins: the canonical slug; `provider/id`, which pins that provider's offer; a provider's own id or another
id of the same offer; the slug without its vendor. An id that two providers use for different models means the one of its
maker; if no maker is among them, the name is ambiguous and refused with the candidates.
"""

from collections.abc import Iterable

import msgspec

from farebox.catalog.model import Model, Offer
from farebox.providers.registry import PROVIDERS


class Meaning(msgspec.Struct, frozen=True):
    """One model, or several candidates; `provider` and `id` are set when the name pins one provider's offer."""

    slugs: tuple[str, ...]
    provider: str = ""
    id: str = ""

    def includes(self, offer: Offer) -> bool:
        """Whether the offer may serve this name."""
        return not self.provider or (offer.provider == self.provider and offer.id == self.id)


def _made_by(model: Model, provider: str) -> bool:
    row = PROVIDERS.get(provider)
    return row is not None and model.slug.partition("/")[0] in row.makes


class _Claims(msgspec.Struct):
    """Who uses a bare name: models by slug, apart those whose own maker does."""

    makers: set[str] = msgspec.field(default_factory=set[str])
    others: set[str] = msgspec.field(default_factory=set[str])

    def meaning(self) -> Meaning:
        return Meaning(tuple(sorted(self.makers or self.others)))


def meanings(models: Iterable[Model]) -> dict[str, Meaning]:
    """Every name → its meaning."""
    slugs: dict[str, Meaning] = {}
    pinned: dict[str, Meaning] = {}
    bare: dict[str, _Claims] = {}
    for model in models:
        slugs[model.slug] = Meaning((model.slug,))
        _vendor, slash, tail = model.slug.partition("/")
        if slash:
            bare.setdefault(tail, _Claims()).others.add(model.slug)
        for offer in model.offers:
            own = _made_by(model, offer.provider)
            for name in (offer.id, *offer.aliases):
                claims = bare.setdefault(name, _Claims())
                (claims.makers if own else claims.others).add(model.slug)
                # An id wins over an alias that some other offer of the provider has.
                key = f"{offer.provider}/{name}"
                if name == offer.id or key not in pinned:
                    pinned[key] = Meaning((model.slug,), offer.provider, offer.id)
    return {**{name: claims.meaning() for name, claims in bare.items()}, **pinned, **slugs}


def folded(names: dict[str, Meaning]) -> dict[str, Meaning]:
    """The same in lower case, for names that were found in no other spelling."""
    found: dict[str, Meaning] = {}
    for name, meaning in names.items():
        key = name.lower()
        other = found.get(key)
        if other is None or other == meaning:
            found[key] = meaning
        else:
            found[key] = Meaning(tuple(sorted({*other.slugs, *meaning.slugs})))
    return found
