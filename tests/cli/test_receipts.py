"""The receipt commands: sentences for what goes wrong, and files of any shape."""

import json

import msgspec
import pytest
from tests.support.chains import SIGNER
from tests.support.shell import Shell

from farebox.billing.sealing import receipts
from farebox.billing.sealing.receipts import START, canonical
from farebox.billing.sealing.signatures import key_set


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    path.write_bytes(msgspec.json.encode(key_set([SIGNER.public])))
    return str(path)


HEAD = canonical(
    SIGNER.signed("head", receipts.head(account="acc-1", day="2026-11-23", count=2, opening=START, last=START, final=True))
)


def test_what_goes_wrong_is_one_sentence(shell: Shell, tmp_path, keys) -> None:
    assert "--key FILE" in shell.plain("receipt", "verify", "x", "--config", str(tmp_path / "none.toml")).refused()
    assert "there is no file" in shell("receipt", "verify", str(tmp_path / "none")).refused()
    assert "/.well-known/farebox-keys.json" in shell("receipt", "verify", keys, "--key", str(tmp_path / "none")).refused()
    (tmp_path / "bad").write_text("{}")
    assert "no Ed25519 key" in shell("receipt", "verify", keys, "--key", str(tmp_path / "bad")).refused()
    assert "there is no receipt of `gen-1`" in shell("receipt", "show", "gen-1").refused()
    assert "not a day" in shell("receipt", "export", "--account", "default", "--day", "monday").refused()
    assert "--output" in shell("receipt", "export", "--account", "default", "--day", "2026-11-23", "--json").refused()


def test_a_key_file_that_others_may_read_is_not_used(shell: Shell) -> None:
    assert shell("receipt", "keys").status == 0
    path = shell.folder / "receipt-keys.json"
    path.chmod(0o644)
    assert "chmod 600" in shell("receipt", "keys").refused()
    doctor = json.loads(shell("doctor", "--json").out)["findings"]
    (found,) = (one for one in doctor if one["subject"] == "receipts")
    assert found["level"] == "problem" and "chmod 600" in found["text"], found
    path.chmod(0o600)
    found = json.loads(path.read_text())
    path.write_text(json.dumps({"keys": [{**found["keys"][0], "private": "AA"}]}))
    assert "damaged" in shell("receipt", "keys").refused()
    path.with_name("receipt-keys.json.new").touch()
    path.write_text(json.dumps(found))
    assert "another rotation" in shell("receipt", "rotate").refused()


def test_an_empty_day_is_exported_and_verified(shell: Shell, tmp_path) -> None:
    file = tmp_path / "empty.jsonl"
    said = shell("receipt", "export", "--account", "default", "--day", "2026-11-23", "--output", str(file))
    assert said.status == 0 and json.loads(file.read_text())["head"]["receipts"] == 0
    ran = shell("receipt", "verify", str(file))
    assert ran.status == 1 and ran.out == "There is no receipt in it.\n"


@pytest.mark.parametrize("spaced", [HEAD, HEAD + b"\n\n", json.dumps({"receipts": [json.loads(HEAD)]}, indent=4).encode()])
def test_a_file_may_have_any_shape(shell: Shell, tmp_path, keys, spaced: bytes) -> None:
    (tmp_path / "file").write_bytes(spaced)
    ran = shell("receipt", "verify", str(tmp_path / "file"), "--key", keys)
    assert ran.status == 1 and ran.out == "receipts 1 to 2 are missing from the day\n", "the head was read"


def test_a_file_of_nonsense_is_told_line_by_line(shell: Shell, tmp_path, keys) -> None:
    (tmp_path / "file").write_bytes(b"x" * 300_000 + b"\nnonsense\n" + HEAD + b"\n")
    found = shell("receipt", "verify", str(tmp_path / "file"), "--key", keys, "--json")
    assert found.status == 1
    problems = [one["problem"] for one in json.loads(found.out)["findings"]]
    assert any("more than" in one for one in problems) and any("not JSON" in one for one in problems)
