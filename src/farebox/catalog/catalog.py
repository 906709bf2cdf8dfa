"""The catalog at work: a frozen snapshot that turns the name in a request into a model and the offers that can serve it.

Everything is worked out when the snapshot is made, so that resolving a known name is one look-up in a dict.
"""

from collections.abc import Collection, Iterator, Mapping

import msgspec

from farebox.catalog import missing, retired
from farebox.catalog.errors import CatalogError
from farebox.catalog.model import Model, Offer
from farebox.catalog.names import Meaning, folded, meanings
from farebox.catalog.suggest import Suggester

NAME_CHARS_MAX = 256
"""Longer names are unknown without looking further."""


class AliasError(CatalogError):
    """An alias of the configuration leads nowhere or in a circle."""


class Resolved(msgspec.Struct, frozen=True):
    """A model and its offers that are switched on; with a day given to `resolve`, only those that have a price then.

    The order is the catalog's: which offer to try first is for routing to say.
    """

    model: Model
    offers: tuple[Offer, ...]
    priced_from: str
    """The first day on which every one of `offers` has a price."""


_NEVER = "9999-12-31"
AUTO = "auto"
POLICY_PREFIX = "policy/"
"""Names that the router takes before any alias is looked up."""


def _first_day(offer: Offer) -> str:
    """The day from which the offer has a price; `_NEVER` without one."""
    return min((price.effective_from for price in offer.prices), default=_NEVER)


class Catalog:
    """Models by every name they go by, with the operator's aliases over them. Nothing changes after it is made."""

    def __init__(
        self, models: Collection[Model], aliases: Mapping[str, str], enabled_providers: Collection[str]
    ) -> None:
        self._models = {model.slug: model for model in sorted(models, key=lambda model: model.slug)}
        self._enabled = frozenset(enabled_providers)
        self._names = meanings(self._models.values())
        self._folded = folded(self._names)
        self._retired = retired.load()
        self._suggester = Suggester(self._suggestable())
        whole: dict[Meaning, Resolved] = {}
        self._resolved: dict[str, Resolved] = {}
        for name, meaning in self._names.items():
            resolved = whole.get(meaning) or self._serve(meaning)
            if resolved is not None:
                self._resolved[name] = whole[meaning] = resolved
        self._aliases = self._follow(aliases)
        # An alias is the operator's will and comes before every other meaning of its name.
        for alias, target in self._aliases.items():
            found = self._find(target)
            assert found is not None, "aliases are checked when followed"
            resolved = whole.get(found) or self._serve(found)
            if resolved is None:
                self._resolved.pop(alias, None)
            else:
                self._resolved[alias] = resolved

    def _suggestable(self) -> Iterator[tuple[str, str, bool]]:
        """Names that are worth suggesting a slug for: slugs, their tails, and the ids of every offer."""
        for model in self._models.values():
            callable_now = any(offer.provider in self._enabled for offer in model.offers)
            names = {model.slug, model.slug.partition("/")[2] or model.slug, *(offer.id for offer in model.offers)}
            for name in sorted(names):
                yield name, model.slug, callable_now

    def _serve(self, meaning: Meaning) -> Resolved | None:
        """The offers switched on for a meaning, or None when there is no single model or no such offer."""
        if len(meaning.slugs) != 1:
            return None
        model = self._models[meaning.slugs[0]]
        offers = tuple(offer for offer in model.offers if offer.provider in self._enabled and meaning.includes(offer))
        if not offers:
            return None
        return Resolved(model, offers, max(_first_day(offer) for offer in offers))

    def _find(self, name: str) -> Meaning | None:
        return self._names.get(name) or self._folded.get(name.lower())

    def _follow(self, aliases: Mapping[str, str]) -> dict[str, str]:
        """Aliases → the catalog names they end at. Circles and dead ends are refused here, before any call."""
        found: dict[str, str] = {}
        for alias in aliases:
            if alias == AUTO:
                raise AliasError(
                    "`aliases.auto`: `auto` is built in and would never mean this; write `[policies.auto]` to say which models "
                    "it chooses among, or give the alias another name"
                )
            if alias.startswith(POLICY_PREFIX):
                raise AliasError(f"`aliases.{alias}`: `{POLICY_PREFIX}…` means a policy; give the alias another name")
            path = [alias]
            target = aliases[alias]
            while target in aliases:
                if target in path:
                    raise AliasError(f"`aliases`: {' → '.join([*path, target])} goes in a circle; let one of them name a model")
                path.append(target)
                target = aliases[target]
            meaning = self._find(target)
            if meaning is None:
                raise AliasError(f"`aliases.{alias}`: {self._missing(target).message}")
            if len(meaning.slugs) > 1:
                raise AliasError(f"`aliases.{alias}`: {missing.ambiguous(target, meaning.slugs).message}")
            found[alias] = target
        return found

    def resolve(self, name: str, day: str | None = None) -> Resolved:
        """The model that a request names. Raises `ModelNotFound`, which says why and what to write instead.

        With `day` (UTC, `YYYY-MM-DD`), offers without a price on it are left out, perhaps all of them: what has no price is
        routing's to refuse.
        """
        resolved = self._resolved.get(name)
        if resolved is None:
            resolved = self._resolve_slowly(name)
        if day is None or day >= resolved.priced_from:
            return resolved
        priced = tuple(offer for offer in resolved.offers if offer.price_on(day) is not None)
        return Resolved(resolved.model, priced, resolved.priced_from)

    def _resolve_slowly(self, name: str) -> Resolved:
        """Another spelling of a known name, or the reason why there is nothing to call."""
        meaning = self._meaning(name)
        resolved = self._serve(meaning)
        if resolved is None:
            model = self._models[meaning.slugs[0]]
            providers = [offer.provider for offer in model.offers if meaning.includes(offer)]
            raise missing.switched_off(name, model, list(dict.fromkeys(providers)))
        return resolved

    def knows(self, name: str) -> bool:
        """Whether a model or an alias goes by this name, in any spelling, callable or not."""
        return self._find(name) is not None or name in self._aliases or self._folded_alias(name) is not None

    def slug_of(self, name: str) -> str:
        """The slug of the model that a name means, whether or not it can be called. Raises `ModelNotFound`."""
        return self._meaning(name).slugs[0]

    def _meaning(self, name: str) -> Meaning:
        if len(name) > NAME_CHARS_MAX:
            raise missing.unknown(name, ())
        meaning = self._find(self._aliases.get(name) or self._folded_alias(name) or name)
        if meaning is None:
            raise self._missing(name)
        if len(meaning.slugs) != 1:
            raise missing.ambiguous(name, meaning.slugs)
        return meaning

    def _folded_alias(self, name: str) -> str | None:
        lowered = name.lower()
        return next((target for alias, target in self._aliases.items() if alias.lower() == lowered), None)

    def _missing(self, name: str) -> missing.ModelNotFound:
        entry = self._retired.get(name.lower())
        if entry is not None:
            return missing.retired(name, entry, entry.successor in self._models)
        return missing.unknown(name, self._suggester.nearest(name))

    def get(self, slug: str) -> Model | None:
        """The model with exactly this slug."""
        return self._models.get(slug)

    def list_models(self) -> tuple[Model, ...]:
        """Every model known, by slug, whether or not it can be called."""
        return tuple(self._models.values())

    def callable_models(self, day: str) -> tuple[Model, ...]:
        """Models with an offer that is switched on and has a price on a UTC day, by slug."""
        return tuple(
            model
            for model in self._models.values()
            if any(offer.provider in self._enabled and offer.price_on(day) is not None for offer in model.offers)
        )
