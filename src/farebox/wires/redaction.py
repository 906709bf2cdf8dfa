"""Redaction: what a provider says, without the key that it was called with. Pure.

Providers repeat the key that they refuse: whole, cut short, or its two ends with stars between (OpenAI: "Incorrect API key
provided: sk-proj-****…Hs9d"). Whoever reads the sentence, or the record of the call, is not to learn any of it.
"""

import re
from collections.abc import Iterable

REDACTED = "[the key]"
PART_CHARS_MIN = 8
"""So many characters in a row of a key, in any case, are taken for a part of it."""
END_CHARS_MIN = 3
"""Beside stars so many of its beginning or its end suffice."""
_WHOLE_CHARS_MIN = 4
"""What is shorter is no secret, and stands in every other word."""
_MASKED = re.compile(r"([A-Za-z0-9_-]{0,128})(?:[*•]{3,}|…+|\.{3,})([A-Za-z0-9_-]{0,128})")


def without(text: str, secrets: Iterable[str]) -> str:
    """The text without any of these, or parts of them."""
    found = [secret for secret in secrets if len(secret) >= _WHOLE_CHARS_MIN]
    # Whole ones first, all of them: a part of one may be a part of the next.
    for secret in found:
        text = text.replace(secret, REDACTED) if secret in text else text
    for secret in found:
        text = _without_parts(text, secret.lower())
    return text


def _without_parts(text: str, low: str) -> str:
    def masked(found: re.Match[str]) -> str:
        head, tail = found[1].lower(), found[2].lower()
        starts = len(head) >= END_CHARS_MIN and low.startswith(head)
        return REDACTED if starts or (len(tail) >= END_CHARS_MIN and low.endswith(tail)) else found[0]

    return _parts(_MASKED.sub(masked, text), low)


def _parts(text: str, low: str) -> str:
    """Without stretches that are also in the secret."""
    if len(low) < PART_CHARS_MIN:
        return text
    parts = {low[at : at + PART_CHARS_MIN] for at in range(len(low) - PART_CHARS_MIN + 1)}
    # Not `text.lower()`: a few characters change their length with it, and places would not be the same.
    lowered = "".join(one.lower() if one.isascii() else one for one in text)
    out: list[str] = []
    kept = end = 0
    """Up to where the text is in `out`, and up to where what was found reaches."""
    start = -1
    for at in range(len(text) - PART_CHARS_MIN + 1):
        if lowered[at : at + PART_CHARS_MIN] not in parts:
            continue
        if at > end or start < 0:
            if start >= 0:
                out += (text[kept:start], REDACTED)
                kept = end
            start = at
        end = at + PART_CHARS_MIN
    if start < 0:
        return text
    return "".join((*out, text[kept:start], REDACTED, text[end:]))
