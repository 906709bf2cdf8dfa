"""Envelopes and the file of master keys: what opens, what does not, and what is said of it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.gate import keys, provider_secret
from farebox.gate.provider_secret import BadSecret
from farebox.vault import envelope, master_file
from farebox.vault.envelope import CannotOpen, Master, Place
from farebox.vault.master_file import MasterFileError

PLACE = Place("pk-1", "acc-1", "openai")
MASTER, OTHER = Master(b"m" * 32), Master(b"o" * 32)


@given(st.text(max_size=200))
def test_what_is_sealed_opens_in_its_place_and_never_twice_alike(secret: str) -> None:
    sealed = envelope.seal(secret, PLACE, MASTER)
    assert envelope.open_sealed(sealed, PLACE, MASTER) == secret
    assert envelope.seal(secret, PLACE, MASTER) != sealed
    assert envelope.open_sealed(envelope.rewrapped(sealed, PLACE, MASTER, OTHER), PLACE, OTHER) == secret


@pytest.mark.parametrize(
    "place",
    [
        Place("pk-2", "acc-1", "openai"), Place("pk-1", "acc-2", "openai"), Place("pk-1", "acc-1", "x"),
        Place("pk-1acc-1", "", "openai"),
    ],
)  # fmt: skip
def test_in_another_place_it_does_not_open(place: Place) -> None:
    sealed = envelope.seal("sk-secret", PLACE, MASTER)
    with pytest.raises(CannotOpen):
        envelope.open_sealed(sealed, place, MASTER)
    with pytest.raises(CannotOpen):
        envelope.rewrapped(sealed, place, MASTER, OTHER)


def test_no_byte_of_it_may_change_and_none_be_missing() -> None:
    sealed = envelope.seal("sk-secret", PLACE, MASTER)
    for index in range(len(sealed)):
        with pytest.raises(CannotOpen):
            envelope.open_sealed(sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :], PLACE, MASTER)
        with pytest.raises(CannotOpen):
            envelope.open_sealed(sealed[:index], PLACE, MASTER)
    with pytest.raises(CannotOpen):
        envelope.open_sealed(sealed, PLACE, OTHER)
    mixed = envelope.seal("sk-one", PLACE, MASTER)[:73] + envelope.seal("sk-two", PLACE, MASTER)[73:]
    with pytest.raises(CannotOpen):
        envelope.open_sealed(mixed, PLACE, MASTER)


def test_the_file_is_made_once_private_and_refused_when_others_may_read_it_or_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "byok-master.json"
    assert master_file.read(path) == ()
    made = master_file.read_or_make(path, 1)
    assert master_file.read_or_make(path, 2) == made and os.stat(path).st_mode & 0o777 == 0o600
    added = master_file.add(path, 3)
    assert master_file.read(path) == (added, *made) and os.stat(path).st_mode & 0o777 == 0o600
    assert master_file.keep(path, frozenset({added.id})) == 1 and master_file.read(path) == (added,)
    assert sorted(tmp_path.iterdir()) == [path], "nothing is left behind"
    path.chmod(0o640)
    with pytest.raises(MasterFileError, match="chmod 600"):
        master_file.read(path)
    path.chmod(0o600)
    whole = path.read_bytes()
    longer, misspelt = whole.replace(b'"secret": "', b'"secret": "AAAA'), whole.replace(b"keys", b"kyes")
    for damaged in (b"", whole[:-20], b'{"keys":[]}', longer, misspelt):
        path.write_bytes(damaged)
        with pytest.raises(MasterFileError, match="damaged; restore the file from a backup") as refused:
            master_file.read(path)
        assert "AAAA" not in str(refused.value)


def test_of_two_changes_at_once_one_is_refused_and_the_number_of_keys_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "byok-master.json"
    for _ in range(master_file.KEYS_MAX - 1):
        master_file.add(path, 1)
    with pytest.raises(MasterFileError, match="has 16 keys"):
        master_file.add(path, 1)
    (tmp_path / "byok-master.json.new").touch()
    with pytest.raises(MasterFileError, match="another rotation is under way"):
        master_file.keep(path, frozenset())
    assert len(master_file.read(path)) == master_file.KEYS_MAX


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"), (" \n", "is empty"), ("Bearer sk-abcdefgh", "begins with `Bearer`"),
        ("sk-abc defgh", "characters that no"),
        ("sk-abc\ndefgh", "characters that no"), ("sk-abc\x00defgh", "characters that no"),
        ("sk-ábcdefgh", "characters that no"),
        ("sk-abc", "shorter than 8"), ("s" * 1025, "longer than 1024"), (keys.make(b"k" * 32), "is a Farebox key"),
    ],
)  # fmt: skip
def test_what_is_no_providers_key_is_refused_without_repeating_it(text: str, said: str) -> None:
    with pytest.raises(BadSecret, match=said) as refused:
        provider_secret.checked(text)
    assert text.strip() == "" or text.strip() not in str(refused.value)


def test_a_hint_shows_the_end_of_a_long_key_and_nothing_of_a_short_one() -> None:
    assert provider_secret.checked(" sk-abcdefgh\n") == "sk-abcdefgh"
    assert provider_secret.hint("sk-proj-0123456789-AbCd") == "…AbCd" and provider_secret.hint("sk-01234567") == "…"
