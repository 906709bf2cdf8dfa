"""Nearest names to one that is unknown, at a bounded cost: a stranger's typing errors must not keep the gateway busy.

An index of letter triples picks a short list; only that is compared letter by letter.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable

import msgspec

NAME_CHARS_MAX = 64
"""Letters of a name that are looked at."""
SHORTLIST_MAX = 40
SUGGESTIONS_MAX = 3
_SIMILARITY_MIN = 0.6
_SIMILARITY_SPREAD = 0.2
"""A name this much further off than the nearest is no help beside it."""
_PART_SIMILARITY = 0.7
"""How near a name is at least when what was asked for is a part of it: `sonnet`, `smollm2`."""
_PART_BONUS = 0.1
_PART_CHARS_MIN = 4
_CALLABLE_BONUS = 0.05
"""Between names about as near, one that can be called now is the better suggestion."""
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def _plain(name: str) -> str:
    """`GPT_4o` and `gpt-4o` are the same to a reader."""
    return _SEPARATORS.sub("", name[:NAME_CHARS_MAX].lower())


def _in_order(name: str) -> str:
    """`claude-4.5-sonnet` and `claude-sonnet-4.5` have the same words."""
    return "".join(sorted(_SEPARATORS.split(name[:NAME_CHARS_MAX].lower())))


def _triples(text: str) -> set[str]:
    padded = f"^{text}$"
    return {padded[index : index + 3] for index in range(len(padded) - 2)}


class _Name(msgspec.Struct, frozen=True):
    plain: str
    in_order: str
    slug: str
    callable_now: bool


class Suggester:
    """Suggests slugs for names: each slug may be found by several names."""

    def __init__(self, names: Iterable[tuple[str, str, bool]]) -> None:
        """`names` are (name, slug that it stands for, whether that can be called now)."""
        self._names: list[_Name] = []
        self._by_triple: dict[str, list[int]] = {}
        for name, slug, callable_now in names:
            plain = _plain(name)
            for triple in _triples(plain):
                self._by_triple.setdefault(triple, []).append(len(self._names))
            self._names.append(_Name(plain, _in_order(name), slug, callable_now))

    def nearest(self, name: str) -> list[str]:
        """Up to `SUGGESTIONS_MAX` slugs, the nearest first."""
        wanted = _plain(name)
        shared: Counter[int] = Counter()
        triples = _triples(wanted)
        for triple in triples:
            shared.update(self._by_triple.get(triple, ()))
        # Of two names with as many triples in common, the shorter one has fewer others.
        short = sorted(shared, key=lambda index: (-shared[index], len(self._names[index].plain), index))[:SHORTLIST_MAX]
        as_written = difflib.SequenceMatcher(None, b=wanted, autojunk=False)
        in_order = difflib.SequenceMatcher(None, b=_in_order(name), autojunk=False)
        scores: dict[str, float] = {}
        for index in short:
            entry = self._names[index]
            as_written.set_seq1(entry.plain)
            in_order.set_seq1(entry.in_order)
            score = max(as_written.ratio(), in_order.ratio())
            if len(wanted) >= _PART_CHARS_MIN and wanted in entry.plain:
                score = max(score, _PART_SIMILARITY) + _PART_BONUS
            if score >= _SIMILARITY_MIN:
                scores[entry.slug] = max(scores.get(entry.slug, 0.0), score + _CALLABLE_BONUS * entry.callable_now)
        least = max(scores.values(), default=0.0) - _SIMILARITY_SPREAD
        near = [slug for slug, score in scores.items() if score >= least]
        return sorted(near, key=lambda slug: (-scores[slug], slug))[:SUGGESTIONS_MAX]
