"""Model ids on a statement → the offers that we know by them. Pure."""

import re
from collections.abc import Callable, Iterable

from farebox.catalog.model import Model

_SNAPSHOT = re.compile(r"(.+?)[-@](?:\d{4}-\d{2}-\d{2}|\d{8})")
"""A model with the date of its snapshot: statements name what was served, not what was asked for."""


def offers_by_name(models: Iterable[Model], provider: str) -> Callable[[str], str | None]:
    """A function from a provider's id to the id of the offer, which may have others and dated snapshots; None if unknown."""
    ids: set[str] = set()
    others: dict[str, str] = {}
    for model in models:
        for offer in model.offers:
            if offer.provider == provider:
                ids.add(offer.id)
                for alias in offer.aliases:
                    others.setdefault(alias, offer.id)

    def offer_of(name: str) -> str | None:
        if name in ids:
            return name
        found = others.get(name)
        if found is None and (dated := _SNAPSHOT.fullmatch(name)) is not None:
            found = dated[1] if dated[1] in ids else others.get(dated[1])
        return found

    return offer_of
