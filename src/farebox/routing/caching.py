"""How much of a later turn's prompt an offer finds in its cache, as it turned out lately. Pure; one worker's memory.

It only makes estimates better: nothing is ordered by it, or a conversation would move when the number does.
"""

from farebox.routing.target import Target

PRIOR_BP = 5_000
"""Assumed before anything was seen."""
WEIGHT_NEW = 8
"""An average over about so many turns: each new one counts for 1/8."""
BASIS_POINTS = 10_000


class Caching:
    """The share of cached tokens in later turns, by offer."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str, str], int] = {}

    def share_bp(self, target: Target) -> int:
        """Basis points of the prompt that is probably cached."""
        return self._shares.get(_key(target), PRIOR_BP)

    def learn(self, target: Target, *, prompt_tokens: int, cached_tokens: int) -> None:
        """A later turn was answered; its provider reported these counts."""
        if prompt_tokens <= 0:
            return
        seen = min(cached_tokens, prompt_tokens) * BASIS_POINTS // prompt_tokens
        key = _key(target)
        old = self._shares.get(key, PRIOR_BP)
        self._shares[key] = old + (seen - old) // WEIGHT_NEW


def _key(target: Target) -> tuple[str, str, str]:
    return (target.provider.name, target.offer.id, target.offer.variant)
