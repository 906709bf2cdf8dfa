"""WordPiece: a text as the tokens of BERT's uncased vocabulary. Pure.

Lower case, without accents, split at spaces, punctuation and around each Chinese character; then each word into the longest known
pieces (https://arxiv.org/abs/1810.04805).
"""

import re
import unicodedata

WORD_CHARS_MAX = 100
"""A longer word is unknown."""
UNKNOWN, BEGIN, END = "[UNK]", "[CLS]", "[SEP]"

_SPACED = re.compile(r"([!-/:-@\[-`{-~]|[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


def words(text: str) -> list[str]:
    """The text's words and signs."""
    text = text.lower()
    if not text.isascii():
        plain = unicodedata.normalize("NFD", text)
        text = "".join(_separate(character) for character in plain)
    return _SPACED.sub(r" \1 ", text).split()


def _separate(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Mn" or (kind in ("Cc", "Cf") and character not in "\t\n\r"):
        return ""
    return f" {character} " if kind[0] == "P" else character


class Vocabulary:
    """The known pieces, by number."""

    def __init__(self, lines: list[str]) -> None:
        self._ids = {piece: index for index, piece in enumerate(lines)}
        self._unknown, self._begin, self._end = self._ids[UNKNOWN], self._ids[BEGIN], self._ids[END]

    def tokens(self, text: str, tokens_max: int) -> list[int]:
        """The text's tokens between the marks of its beginning and end; what is beyond `tokens_max` in all is left out."""
        found = [self._begin]
        for word in words(text):
            found += self._pieces(word)
            if len(found) >= tokens_max:
                break
        return [*found[: tokens_max - 1], self._end]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > WORD_CHARS_MAX:
            return [self._unknown]
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = self._ids.get(word[start:end] if not start else f"##{word[start:end]}")
                if piece is not None:
                    found.append(piece)
                    start = end
                    break
            else:
                return [self._unknown]
        return found
