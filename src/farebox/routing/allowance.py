"""Allowance: the models, providers and prices that an API key may use. Pure; what it forbids is a 403, not a wish of the call's.

A pattern is a name in which `*` stands for any characters: `openai/*`, `*/gpt-4o*`. Models are matched by their slug, whatever
name the call used for them; providers by their name, or by name and variant.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from farebox.billing.quotes import Quote
from farebox.catalog.price import Rates
from farebox.errors import FareboxError, Kind
from farebox.routing.filters import Exclusion, too_dear
from farebox.routing.preferences import PriceCap
from farebox.routing.target import Target

RULE_PREFIX = "key."
"""Of the rules in `left_out` by which a key's allowance excludes an offer."""


class Allowance(msgspec.Struct, frozen=True):
    """What a key may use; an empty list is no restriction."""

    models: tuple[str, ...] = ()
    """Patterns, in lower case."""
    providers: tuple[str, ...] = ()
    price_max: PriceCap | None = None
    """The most per million tokens, markup included."""

    def allows_model(self, slug: str) -> bool:
        return not self.models or means(self.models, slug)

    def forbids(self, target: Target) -> tuple[str, str] | None:
        """The rule by which the key may not use an offer, whatever it costs, and why in words."""
        if not self.allows_model(target.model.slug):
            return "key.models", f"the API key may only call {quoted_list(self.models)}"
        provider = target.provider.name
        variant = f"{provider}/{target.offer.variant}"
        if self.providers and not means(self.providers, provider) and not means(self.providers, variant):
            return "key.providers", f"the API key may only use {quoted_list(self.providers)}"
        return None

    def too_dear(self, reachable: Sequence[Rates], quoted: Quote) -> tuple[str, str] | None:
        """The price cap of the key that one of these rate vectors exceeds."""
        found = None if self.price_max is None else too_dear(self.price_max, reachable, quoted)
        return None if found is None else (RULE_PREFIX + found[0].removeprefix("provider."), found[1])


class NotAllowed(FareboxError):
    """The 403 of a key that may not do what it asks for. Routing knows no keys: whoever does calls `for_key`."""

    def __init__(self, said: str, *, code: str, param: str | None = None, **details: object) -> None:
        super().__init__(Kind.PERMISSION, f"the API key {said}", code=code, param=param, should_retry=False, details=details)
        self._said = said

    def for_key(self, hint: str) -> "NotAllowed":
        """The same, naming the key."""
        return NotAllowed(f"`{hint}` {self._said}", code=self.code, param=self.param, **self.details)


def model_refused(slug: str, allowance: Allowance) -> NotAllowed:
    """A model that is not on the key's list."""
    return NotAllowed(
        f"may not call `{slug}`; it may call {quoted_list(allowance.models)}",
        code="model_not_allowed",
        param="model",
        allowed_models=list(allowance.models),
    )


def offers_refused(model: str, excluded: Sequence[Exclusion]) -> NotAllowed | None:
    """The refusal when nothing but the key's own restrictions stands against every offer; None when something else does."""
    if not excluded or not all(item.rule.startswith(RULE_PREFIX) for item in excluded):
        return None
    reasons = "; ".join(
        f"`{item.provider}/{item.id}`: {item.reason.removeprefix('the API key ')}" for item in excluded[:_REASONS_MAX]
    )
    return NotAllowed(
        f"may not use any offer of `{model}`: {reasons}",
        code="offer_not_allowed",
        param="model",
        excluded=[msgspec.structs.asdict(item) for item in excluded],
    )


_REASONS_MAX = 8


def quoted_list(patterns: Sequence[str]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def means(patterns: Sequence[str], name: str) -> bool:
    """Whether one of the patterns, in lower case, means the name."""
    lowered = name.lower()
    return any(fnmatchcase(lowered, pattern) for pattern in patterns)
