"""Classify: from a request's excerpt to features, points, a score and a tier, with the reasons. Pure, and quick: no network, no
model; well below 200 µs. What the points are is `farebox.routing.complexity.weights`."""

import re

import msgspec

from farebox.routing.complexity import excerpt
from farebox.routing.complexity.excerpt import Excerpt
from farebox.routing.complexity.lexicon import search
from farebox.routing.complexity.weights import BASE, HARD_FROM, MEDIUM_FROM, SCORE_MAX, TIERS, WEIGHTS
from farebox.wires.call import Call

LENGTH_FROM = 40
"""Characters from which on half doublings count."""
VOLUME_FROM = 8 * 2**10
CJK_CHARS_EACH = 3
"""A Chinese character says about as much as three Latin letters."""
PASTED_CHARS_EACH = 5
"""So many characters of a quotation or of code weigh as much as one that the user wrote: they are what the task is about."""
BRIEF_TOKENS = 64
SHOWN_WORDS = 6
"""Words that a reason quotes."""
CODE_LINES_EACH = 10

_CODE_LINE = re.compile(
    r"^[ \t]*(?:def |class |import |from \w+ import|return\b|if ?\(|for ?\(|while ?\(|else\b|try\b|catch\b|public |private "
    r"|const |let |var |function |async |await |#include|SELECT\b|INSERT\b|UPDATE\b|FROM\b|WHERE\b|@\w+|[})\]]|</?\w+"
    r"|\w+\(.*\);?$|.*[{;]$)",
    re.MULTILINE,
)
# One leading class of characters, so that the search skips what cannot begin a match.
_FORMULA = re.compile(
    r"[\^=∑∫√≤≥≠∞∈∀∃→∂π\\(_](?:(?<![\\(_])|(?<=\\)(?:frac|sum|int|sqrt|lim|infty)|(?<=\()[a-z]\)|(?<=\b[a-z]_)[a-z0-9{])"
)
_QUOTED = re.compile(r"[\"“„«「]([^\"”“»」]{80,})[\"”“»」]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_EFFORTS = {"medium": 1, "high": 2, "xhigh": 2, "max": 2}


class Reason(msgspec.Struct, frozen=True):
    """One feature's part of the score."""

    feature: str
    units: int
    points: int
    words: tuple[str, ...] = ()
    """Some of the words that were found."""


class Assessment(msgspec.Struct, frozen=True):
    """How hard a request is thought to be."""

    score: int
    """0 to 100."""
    tier: str
    reasons: tuple[Reason, ...]
    """The features that counted, the weightiest first."""


def assess(call: Call) -> Assessment:
    """The assessment of a request on either wire. Never raises; the time is bounded, whatever the size."""
    return judge(excerpt.read(call))


def judge(seen: Excerpt) -> Assessment:
    """The assessment of an excerpt."""
    units, words = features(seen)
    score = BASE
    reasons: list[Reason] = []
    for name, weight in WEIGHTS.items():
        count = units.get(name, 0)
        if count:
            counted = min(count, weight.most)
            points = counted * weight.points
            score += points
            reasons.append(Reason(name, count, points, words.get(name, ())[:SHOWN_WORDS]))
    score = min(max(score, 0), SCORE_MAX)
    reasons.sort(key=_weightiest)
    return Assessment(score, tier_of(score), tuple(reasons))


def tier_of(score: int) -> str:
    return TIERS[(score >= MEDIUM_FROM) + (score >= HARD_FROM)]


def _weightiest(reason: Reason) -> int:
    return -abs(reason.points)


def features(seen: Excerpt) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    """The features that occur, in units, and the words that stand for them."""
    text = seen.text
    if seen.before:
        text = f"{seen.before}\n{text}"
    lowered = text.lower()
    words = search(lowered)
    units = {kind: len(found) for kind, found in words.items()}
    prose = text
    if "\n" in text:
        units["code"] = -(-len(_CODE_LINE.findall(text)) // CODE_LINES_EACH)
        if "```" in text:
            prose = "".join(text.split("```")[::2])
    pasted = len(text) - len(prose) + sum(map(len, _QUOTED.findall(prose)))
    wide = 0
    if not prose.isascii() and _CJK.search(prose) is not None:
        # Most Chinese characters have three bytes in UTF-8: quicker than counting them.
        wide = (len(prose.encode("utf-8", "replace")) - len(prose)) // 2
    chars = seen.text_chars + len(seen.before) + wide * (CJK_CHARS_EACH - 1)
    chars -= pasted * (PASTED_CHARS_EACH - 1) // PASTED_CHARS_EACH
    # Half doublings are doublings of the square.
    units["length"] = doublings(chars * chars, LENGTH_FROM * LENGTH_FROM)
    units["questions"] = max(text.count("?") + text.count("？") - 1, 0)
    units["formula"] = len(_FORMULA.findall(prose))
    if seen.turns > 1:
        units["follow_up"] = seen.turns - 1
    units["volume"] = doublings(seen.request_bytes, VOLUME_FROM)
    units["tools"] = (seen.tools + 1).bit_length() - 1
    units["images"] = seen.images
    units["documents"] = seen.documents
    units["schema"] = int(seen.schema)
    units["effort"] = _EFFORTS.get(seen.effort, 0)
    units["brief"] = int(seen.output_cap is not None and seen.output_cap <= BRIEF_TOKENS)
    return units, words


def doublings(size: int, start: int) -> int:
    """How often `size` is twice `start` again: 0 below twice."""
    return max((size // start).bit_length() - 1, 0)
