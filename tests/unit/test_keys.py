"""Keys: recognisable, checked, stored only under the pepper."""

import os

from hypothesis import given
from hypothesis import strategies as st

from farebox.gate import keys

PEPPER = b"p" * 32


@given(st.binary(min_size=32, max_size=32))
def test_every_key_has_the_same_shape_and_checks(secret: bytes) -> None:
    key = keys.make(secret)
    assert len(key) == keys.KEY_LENGTH and key.startswith("fb-")
    assert keys.looks_valid(key)


@given(st.integers(3, keys.KEY_LENGTH - 1))
def test_a_changed_character_is_noticed(place: int) -> None:
    key = keys.make(os.urandom(32))
    other = "A" if key[place] != "A" else "B"
    assert not keys.looks_valid(key[:place] + other + key[place + 1 :])


@given(st.text(max_size=80))
def test_nothing_else_looks_like_a_key(text: str) -> None:
    assert not keys.looks_valid(text)


def test_the_digest_depends_on_every_character_and_on_the_pepper() -> None:
    key = keys.make(b"k" * 32)
    assert keys.digest(key, PEPPER) != keys.digest(key[:-1], PEPPER)
    assert keys.digest(key, PEPPER) != keys.digest(key, b"q" * 32)
    assert key.encode() not in keys.digest(key, PEPPER)


def test_the_hint_gives_the_secret_away_to_nobody() -> None:
    key = keys.make(b"k" * 32)
    assert len(set(keys.hint(key)) & set(key)) < 9 and key[5:-4] not in keys.hint(key)
