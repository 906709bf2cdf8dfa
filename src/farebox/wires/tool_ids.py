"""Tool call ids that a vendor accepts, mapped one to one within a request, so that calls and results still meet.

Mistral takes nine alphanumerics, Anthropic `[a-zA-Z0-9_-]+`, OpenAI at most 40 or 64 characters (providers.md §3, 13). An id
that fits stays as it is, so an answer's own ids need no map on the way back.
"""

import hashlib
import re

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = 9
_TRIES_MAX = 1000


class ToolIds:
    """A reversible map for one request. `pattern` None accepts everything."""

    __slots__ = ("_mapped", "_originals", "_pattern")

    def __init__(self, pattern: str | None) -> None:
        self._pattern = None if pattern is None else re.compile(pattern)
        self._mapped: dict[str, str] = {}
        self._originals: dict[str, str] = {}

    def mapped(self, original: str) -> str:
        """The id to send. The same original always gives the same id; two originals never share one."""
        known = self._mapped.get(original)
        if known is not None:
            return known
        candidate = original
        tries = 0
        while (self._pattern and not self._pattern.fullmatch(candidate)) or candidate in self._originals:
            if tries == _TRIES_MAX:
                raise ValueError(f"no tool call id of nine alphanumerics fits the pattern {self._pattern}")
            candidate = _nine(f"{original}#{tries}")
            tries += 1
        self._mapped[original] = candidate
        self._originals[candidate] = original
        return candidate

    def original(self, mapped: str) -> str:
        """The client's id for one that the vendor repeats; ids not of this request are returned as they are."""
        return self._originals.get(mapped, mapped)


def _nine(text: str) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    digits: list[str] = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
