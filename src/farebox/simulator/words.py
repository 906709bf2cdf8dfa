"""What the model says: words of one token each, drawn by a seed. Pure."""

from collections.abc import Iterator
from hashlib import blake2b

VOCABULARY: tuple[str, ...] = (
    "the", "fare", "is", "counted", "in", "small", "coins", "and", "every", "rider", "pays", "for", "one", "ride", "a",
    "tram", "leaves", "at", "dawn", "with", "bright", "windows", "over", "old", "bridges", "while", "rain", "falls", "on",
    "quiet", "streets", "near", "harbour", "lights", "some", "travel", "far", "others", "stay", "until", "evening", "then",
    "walk", "home", "under", "plane", "trees", "tickets", "fold", "like", "paper", "birds", "of", "nine", "colours", "café",
    "naïve", "東京", "Straße", "🚋", "to", "be", "kept", "safe",
)  # fmt: skip
"""64 words, a few of them outside ASCII, so that a reader which splits characters is found out."""

_MASK = (1 << 64) - 1
_STEP = 6364136223846793005
_ODD = 1442695040888963407


def digest(seed: int, *parts: bytes) -> int:
    """64 bits from a seed and byte strings; the strings' borders count."""
    state = blake2b(seed.to_bytes(16, "big", signed=True), digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return int.from_bytes(state.digest(), "big")


def numbers(key: int) -> Iterator[int]:
    """An endless run of 32-bit numbers (Knuth's 64-bit congruential generator, upper half): cheap, and no secret."""
    state = key & _MASK
    while True:
        state = (state * _STEP + _ODD) & _MASK
        yield state >> 32


def words(key: int, count: int) -> list[str]:
    """`count` tokens that join to a text: each after the first begins with a space."""
    draw = numbers(key)
    size = len(VOCABULARY)
    tokens = [" " + VOCABULARY[next(draw) % size] for _ in range(count)]
    if tokens:
        tokens[0] = tokens[0][1:]
    return tokens


def words_of(text: str) -> tuple[str, ...]:
    """A text of such words as its tokens."""
    return tuple(word if at == 0 else " " + word for at, word in enumerate(text.split(" "))) if text else ()


def pieces(text: str, characters: int = 4) -> list[str]:
    """A text cut into tokens of a few characters: JSON and tool arguments."""
    return [text[start : start + characters] for start in range(0, len(text), characters)]
