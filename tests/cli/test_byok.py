"""`farebox byok`: customers' own keys at providers at the command line. No secret comes from it, and none is ever shown."""

import io
import sys

import pytest
from tests.support.shell import Ran, Shell

from farebox.billing.accounts import provider_keys
from farebox.storage import provider_key_queries as stored
from farebox.storage.database import Database
from farebox.vault.vault import Vault

SECRET = "sk-customer-own-secret-0001"


class Counter:
    """The command line with something on its standard input."""

    def __init__(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shell, self._monkeypatch = shell, monkeypatch

    def typed(self, text: str, *words: str) -> Ran:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        said = self.shell(*words)
        assert SECRET not in said.out + said.err
        return said

    def secrets(self) -> dict[str, str]:
        """What is in the envelopes, by id."""
        vault = Vault(self.shell.folder / "byok-master.json")
        with Database.open(f"sqlite:///{self.shell.folder}/farebox.db") as database:
            rows = database.read(lambda c: stored.after(c, "", 100))
        return {row.id: vault.open(row.sealed, provider_keys.place(row), row.master) for row in rows}


@pytest.fixture
def counter(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(shell, monkeypatch)


def test_the_life_of_a_customers_key(counter: Counter) -> None:
    shell = counter.shell
    shell("projects", "create", "shop", "--account", "default")
    key = shell.json("keys", "create", "--account", "default", "--project", "shop", "--name", "till")["id"]
    words = ("--name", "work", "--project", "shop", "--key", "till", "--always-use", "--json")
    made = counter.typed(f"{SECRET}\n", "byok", "add", "default", "lab", *words).json()
    id = made["id"]
    assert (made["hint"], made["state"], made["always_use"], made["position"]) == ("…0001", "active", True, 0)
    assert made["keys"] == [key]
    assert counter.secrets() == {id: SECRET}
    second = counter.typed("sk-second-secret-of-the-customer", "byok", "add", "default", "openai", "--secret-file", "-")
    assert "Note: openai is not switched on" in second.out
    listed = counter.typed("", "byok", "list").out
    assert id in listed and "1 API key" in listed and "active, always" in listed and "openai 0" in listed, listed
    assert max(map(len, listed.splitlines())) <= 100
    mine = [one["id"] for one in shell.json("byok", "list", "--account", "default")["keys"]]
    assert mine == [id, *(set(counter.secrets()) - {id})]
    assert shell.json("byok", "disable", id)["state"] == "disabled" and shell.json("byok", "enable", id)["state"] == "active"
    changed = shell.json("byok", "update", id, "--any-key", "--any-project", "--not-always", "--name", "w")
    assert (changed["keys"], changed["project"], changed["always_use"], changed["name"]) == ([], None, False, "w")
    assert counter.typed("sk-another-one-of-theirs-0002", "byok", "update", id, "--replace", "--json").json()["hint"] == "…0002"
    assert counter.secrets()[id] == "sk-another-one-of-theirs-0002"
    assert shell.json("byok", "remove", id) == {"id": id, "state": "removed"} and id not in counter.secrets()
    actions = [one["action"] for one in shell.json("audit", "--subject", id)["entries"]]
    assert sorted(actions) == sorted(f"provider_key.{verb}" for verb in ("create", *["change"] * 3, "rotate", "remove"))
    said = shell("audit", "--json").out
    assert SECRET not in said and "0001" in said


def test_the_master_key_is_rotated_and_doctor_looks_after_it(counter: Counter) -> None:
    shell, path = counter.shell, counter.shell.folder / "byok-master.json"
    assert not [one for one in shell.json("doctor")["findings"] if one["subject"].startswith("byok")], "nothing to say yet"
    id = counter.typed(SECRET, "byok", "add", "default", "lab", "--json").json()["id"]
    first = path.read_bytes()
    prepared = shell.json("byok", "rotate-master", "--prepare")["prepared"]
    said = shell.json("byok", "rotate-master")
    assert said == {"master": prepared, "rewrapped": 1, "broken": [], "dropped": 1} and counter.secrets() == {id: SECRET}

    def findings() -> dict[str, tuple[str, str]]:
        doctored = shell("doctor", "--json")
        import json

        return {one["subject"]: (one["level"], one["text"]) for one in json.loads(doctored.out)["findings"]}

    assert findings()["byok master key"] == ("ok", "present and private; keys in it: 1")
    assert findings()["byok"] == ("ok", "customers' own keys at providers: 1")
    path.chmod(0o644)
    assert findings()["byok master key"][0] == "problem" and "chmod 600" in findings()["byok master key"][1]
    assert "chmod 600" in counter.typed(SECRET, "byok", "add", "default", "lab").refused()
    path.chmod(0o600)
    path.write_bytes(first)
    assert findings()["byok"][0] == "problem" and id in findings()["byok"][1]
    assert [one["state"] for one in shell.json("byok", "list")["keys"]] == ["broken"]
    assert "does not have the master key" in counter.typed(SECRET, "byok", "add", "default", "lab").refused()


@pytest.mark.parametrize(
    ("typed", "words", "said"),
    [
        ("", ("default", "lab"), "the provider's key is empty"),
        ("Bearer sk-abcdefgh", ("default", "lab"), "begins with `Bearer`"),
        ("\x00\x01sk-abcdefgh", ("default", "lab"), "has characters that no key has"),
        (SECRET, ("nobody", "lab"), "there is no account `nobody`"),
        (SECRET, ("default", "opneai"), "there is no provider `opneai`; those that take a key: "),
        (SECRET, ("default", "ollama"), "runs on your own machines"),
        (SECRET, ("default", "lab", "--key", "nokey"), "there is no API key `nokey`"),
        (SECRET, ("default", "lab", "--project", "none"), "there is no project `none`"),
        (SECRET, ("default", "lab", "--secret-file", "/nowhere/secret"), "/nowhere/secret: No such file"),
        (SECRET, ("default", "lab", "--position", "3"), "from 0 to 0 here, not 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(counter: Counter, typed: str, words: tuple[str, ...], said: str) -> None:
    assert said in counter.typed(typed, "byok", "add", *words).refused()
    assert counter.shell.json("byok", "list") == {"keys": []}


def test_a_secret_is_no_argument_and_what_is_unknown_is_told(counter: Counter) -> None:
    assert "unexpected extra argument" in counter.typed("", "byok", "add", "default", "lab", "sk-on-the-command-line").refused(2)
    assert "there is no provider key `byok-1`" in counter.typed("", "byok", "update", "byok-1", "--name", "x").refused()
    assert "the provider key `byok-1` does not exist" in counter.typed("", "byok", "remove", "byok-1").refused()
    assert "one of them" in counter.typed("", "byok", "update", "byok-1", "--key", "x", "--any-key").refused()
