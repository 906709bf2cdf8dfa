"""Own keys (BYOK): customers' keys at providers, and the offers as they are called with them. Pure.

An offer at a provider that the caller has keys of its own for is there several times: once with each of them, in their order,
and last, where the keys allow it, with the house's. Each is a target of its own, so that a key which is refused or limited says
nothing of the others, and the house's troubles nothing of the customer's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from farebox.routing.target import Place, Target

KEY_PREFIX = "byok:"
"""Of the public names of customers' keys in records: `byok:` and the key's id."""
OWN_TARGETS_MAX = 20_000
RANK_HOUSE = 500
"""The house's offers come behind those of the caller's own keys, whatever their order, but before one that is ejected."""
RANK_NEXT_KEY = 2
"""The second key of a provider comes behind the first, and a key on probation behind the next one that is well."""


class OwnKey(msgspec.Struct, frozen=True):
    """A customer's key at a provider."""

    id: str
    provider: str
    secret: str
    """Empty where it cannot be opened: then it is not used, and whoever may use nothing else is told so."""
    always_use: bool = False
    """The house's keys of this provider are not used for the caller, not even where this one fails."""
    name: str = ""
    """What its owner calls it."""

    def __repr__(self) -> str:
        return f"OwnKey({self.id}, {self.provider})"

    @property
    def ref(self) -> str:
        """Its name in records."""
        return KEY_PREFIX + self.id

    @property
    def shown(self) -> str:
        """Its name for its owner."""
        return self.name or self.id


class OwnTargets:
    """Targets made with customers' keys so far, so that what is remembered by target stays with them.

    `forget` is told the provider and the name of a key whose secret is another than before.
    """

    def __init__(self, forget: Callable[[str, str], None]) -> None:
        self._forget = forget
        self._made: dict[tuple[Target, OwnKey], Target] = {}
        self._secrets: dict[str, str] = {}

    def of(self, target: Target, key: OwnKey) -> Target:
        """The same offer, called with a customer's key."""
        found = self._made.get((target, key))
        if found is None:
            if len(self._made) >= OWN_TARGETS_MAX:
                self._made.clear()
                self._secrets.clear()
            if self._secrets.setdefault(key.ref, key.secret) != key.secret:
                self._secrets[key.ref] = key.secret
                self._forget(key.provider, key.ref)
            place = Place(target.provider.name, key.ref, target.model.slug)
            found = self._made[target, key] = replace(
                target, keys=(key.secret,), key_refs=(key.ref,), key_weights=(), places=(place,), quotes={}
            )
        return found

    def over(self) -> "OwnTargets":
        """For other offers: with nothing made yet."""
        other = OwnTargets(self._forget)
        other._secrets = self._secrets
        return other


def keys_for(keys: Sequence[OwnKey], target: Target) -> Sequence[OwnKey]:
    """The caller's keys at an offer's provider, in the order of use."""
    return [key for key in keys if key.provider == target.provider.name]


def is_own(target: Target) -> bool:
    """Whether a target is called with a customer's key."""
    return bool(target.key_refs) and target.key_refs[0].startswith(KEY_PREFIX)
