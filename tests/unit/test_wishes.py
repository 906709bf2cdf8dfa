"""What the headers of a request ask for."""

import pytest

from farebox.errors import FareboxError, Kind
from farebox.gate.wishes import NO_WISHES, wishes


@pytest.mark.parametrize("value", [b"true", b"TRUE", b" true "])
def test_a_switch_is_on(value: bytes) -> None:
    found = wishes({b"x-farebox-drop-unsupported": value, b"x-farebox-max-output-to-balance": value})
    assert found.drops_unsupported and found.to_balance
    assert wishes({b"x-farebox-metadata": b"Enabled"}).tells


def test_a_switch_is_off() -> None:
    assert wishes({}) == NO_WISHES
    off = {b"x-farebox-drop-unsupported": b"false", b"x-farebox-max-output-to-balance": b"", b"x-farebox-metadata": b"disabled"}
    assert wishes(off) == NO_WISHES


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("x-farebox-drop-unsupported", "1", "must be `true` or `false`, not `1`"),
        ("x-farebox-max-output-to-balance", "yes", "must be `true` or `false`, not `yes`"),
        ("x-farebox-metadata", "true", "must be `enabled` or `disabled`, not `true`"),
        ("x-farebox-metadata", "\xff" * 999, "must be `enabled` or `disabled`, not `" + "\xff" * 32 + "`"),
    ],
)
def test_a_wish_that_is_not_understood_is_not_passed_over(name: str, value: str, words: str) -> None:
    with pytest.raises(FareboxError) as refused:
        wishes({name.encode(): value.encode("latin-1")})
    assert (refused.value.kind, refused.value.param) == (Kind.INVALID_REQUEST, name)
    assert refused.value.message == f"`{name}` {words}"
