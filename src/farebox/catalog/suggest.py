"""Nearest names to one that is unknown, at a bounded cost: a stranger's typing errors must not keep the gateway busy.

An index of letter triples picks a short list; only that is compared letter by letter.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable

NAME_CHARS_MAX = 64
"""Letters of a name that are looked at."""
SHORTLIST_MAX = 40
SUGGESTIONS_MAX = 3
_SIMILARITY_MIN = 0.6
_SIMILARITY_SPREAD = 0.2
"""A name this much further off than the nearest is no help beside it."""
_CALLABLE_BONUS = 0.05
"""Between names about as near, one that can be called now is the better suggestion."""
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def _plain(name: str) -> str:
    """`GPT_4o` and `gpt-4o` are the same to a reader."""
    return _SEPARATORS.sub("", name[:NAME_CHARS_MAX].lower())


def _triples(text: str) -> set[str]:
    padded = f"^{text}$"
    return {padded[index : index + 3] for index in range(len(padded) - 2)}


class Suggester:
    """Suggests slugs for names: each slug may be found by several names."""

    def __init__(self, names: Iterable[tuple[str, str, bool]]) -> None:
        """`names` are (name, slug that it stands for, whether that can be called now)."""
        self._names: list[tuple[str, str, bool]] = []
        self._by_triple: dict[str, list[int]] = {}
        for name, slug, callable_now in names:
            plain = _plain(name)
            for triple in _triples(plain):
                self._by_triple.setdefault(triple, []).append(len(self._names))
            self._names.append((plain, slug, callable_now))

    def nearest(self, name: str) -> list[str]:
        """Up to `SUGGESTIONS_MAX` slugs, the nearest first."""
        wanted = _plain(name)
        shared: Counter[int] = Counter()
        triples = _triples(wanted)
        for triple in triples:
            shared.update(self._by_triple.get(triple, ()))
        # Of two names with as many triples in common, the shorter one has fewer others.
        short = sorted(shared, key=lambda index: (-shared[index], len(self._names[index][0]), index))[:SHORTLIST_MAX]
        matcher = difflib.SequenceMatcher(None, b=wanted, autojunk=False)
        scores: dict[str, float] = {}
        for index in short:
            plain, slug, callable_now = self._names[index]
            matcher.set_seq1(plain)
            score = matcher.ratio()
            if score >= _SIMILARITY_MIN:
                scores[slug] = max(scores.get(slug, 0.0), score + _CALLABLE_BONUS * callable_now)
        least = max(scores.values(), default=0.0) - _SIMILARITY_SPREAD
        near = [slug for slug, score in scores.items() if score >= least]
        return sorted(near, key=lambda slug: (-scores[slug], slug))[:SUGGESTIONS_MAX]
