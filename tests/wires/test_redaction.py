"""What a provider says of a key is passed on without the key: whole, in part, or masked as providers mask it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.wires.redaction import PART_CHARS_MIN, REDACTED, without

KEY = "sk-proj-Zx81kQpLw0aVnT3mYb6cRe2uHs9d"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: [the key]."),
        (f"got `Bearer {KEY}` and {KEY}", "got `Bearer [the key]` and [the key]"),
        # OpenAI: its ends and stars; https://platform.openai.com/docs/guides/error-codes
        ("Incorrect API key provided: sk-proj-****************Hs9d. See", "Incorrect API key provided: [the key]. See"),
        ("Incorrect API key provided: sk-pro***.", "Incorrect API key provided: [the key]."),
        ("the key ****Hs9d was refused", "the key [the key] was refused"),
        ("key sk-p…Hs9d is unknown", "key [the key] is unknown"),
        ("key Zx81kQpLw0... is unknown", "key [the key]... is unknown"),
        ("key ending in 6cRe2uHs9d expired", "key ending in [the key] expired"),
        (f"authorization: {KEY.lower()}", "authorization: [the key]"),
        (f"cut off at {KEY[:30]}", "cut off at [the key]"),
        ("Rate limit reached; retry in 20ms... or later", "Rate limit reached; retry in 20ms... or later"),
        ("use **bold** and ***both***", "use **bold** and ***both***"),
        ("the model `sk-1` does not exist", "the model `sk-1` does not exist"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_key_is_taken_out(text: str, wanted: str) -> None:
    assert without(text, [KEY]) == wanted


def test_several_secrets_and_none() -> None:
    assert without("a first-secret-1 and second-secret-2", ["first-secret-1", "", "second-secret-2"]) == (
        "a [the key] and [the key]"
    )
    said = "nothing of it"
    assert without(said, [KEY]) is said and without(said, []) is said
    assert without("EMPTY is the key of many a local server, not a secret", ["EMPTY", "x"]) == (
        "[the key] is the key of many a local server, not a secret"
    )


@given(st.text(max_size=80), st.text(max_size=80), st.text("abcdefghijklmnopqrstuvwxyz0123456789-_/+=.", min_size=8, max_size=80))
def test_no_part_of_a_key_is_left_wherever_it_stands(before: str, after: str, key: str) -> None:
    said = without(f"{before}{key}{after}", [key]).replace(REDACTED, "\n")
    assert not any(key[at : at + PART_CHARS_MIN] in said for at in range(len(key) - PART_CHARS_MIN + 1))
