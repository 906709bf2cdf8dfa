"""Nearest: examples of messages by tier, and the tier whose examples a message is most alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

COUNTED = 3
"""A tier's likeness is the mean of its so many nearest examples."""
ALIKE_PERCENT = 25
"""What is less alike than this to every tier is like none of them."""
REMEMBERED_MAX = 1_024

Embed = Callable[[str], Any]


class Likeness(msgspec.Struct, frozen=True):
    """What a message is alike."""

    tier: str
    """Empty: it is like no example."""
    percent: int
    example: str
    """The nearest one of the tier."""


class Examples:
    """One policy's examples. They are embedded when first asked for: some hundredths of a second each, then kept."""

    def __init__(self, embed: Embed, texts: Mapping[str, Sequence[str]]) -> None:
        self._embed = embed
        self._texts = {tier: tuple(examples) for tier, examples in texts.items() if examples}
        self._vectors: dict[str, list[Any]] = {}
        self._remembered: dict[str, Likeness] = {}

    def warm(self) -> None:
        """Embed the examples, unless that is done."""
        if not self._vectors:
            self._vectors = {tier: [self._embed(one) for one in examples] for tier, examples in self._texts.items()}

    def likeness(self, text: str) -> Likeness:
        """The tier of a message. For one thread at a time."""
        known = self._remembered.get(text)
        if known is not None:
            return known
        self.warm()
        mine = self._embed(text)
        best = Likeness("", 0, "")
        for tier, vectors in self._vectors.items():
            ranked = sorted(((float(vector @ mine), index) for index, vector in enumerate(vectors)), reverse=True)
            near = ranked[:COUNTED]
            percent = round(100 * sum(value for value, _ in near) / len(near))
            if percent > best.percent:
                best = Likeness(tier, percent, self._texts[tier][ranked[0][1]])
        if best.percent < ALIKE_PERCENT:
            best = Likeness("", best.percent, best.example)
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[text] = best
        return best
