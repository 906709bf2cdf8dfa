"""What must hold of secrets: stored only as keyed hashes, shown once, in no log and no error, the same through every header."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.running import Farebox, model, offer, provider

from farebox.gate import keys as secrets
from farebox.gate.keyring import CREDENTIAL_HEADERS, Keyring
from farebox.simulator.testing import SimulatorProcess

CHAT = {"model": "x/one", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
HEADERS = [name.decode() for name in CREDENTIAL_HEADERS]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("safe") / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1")
        text += model("x/one", offer("lab", "sim+tokens=5")) + model("x/two", offer("lab", "sim+tokens=5"))
        with Farebox(tmp_path_factory.mktemp("safe") / "box", config=text, server="access_log = true") as running:
            yield running


def make(box: Farebox, *words: str) -> tuple[str, str]:
    made = box.do("keys", "create", "--account", "default", *words)
    return made["id"], made["key"]


def files(box: Farebox) -> Iterator[tuple[Path, bytes]]:
    """All that the server keeps: database with its log, journals, metrics, its error output. Not what `init` gave its owner."""
    for path in sorted(box.folder.rglob("*")):
        if path.is_file() and path.name not in (".env",):
            yield path, path.read_bytes()


def traces(secret: str) -> tuple[bytes, bytes, bytes]:
    """The secret, the middle of it, and the value that it was made of."""
    return secret.encode(), secret[5:25].encode(), secret[3:46].encode()


def test_secrets_are_nowhere_but_with_their_owner(box: Farebox) -> None:
    """Created, used, asked about by name, rotated, misused: no file of the server has any of it, nor any answer but the first."""
    _, boss = make(box, "--scope", "manage")
    made = box.post("/v1/keys", {"name": "n", "allowed_models": ["x/one"]}, key=boss)
    first, id = made.json()["key"], made.json()["data"]["hash"]
    answers = [
        box.post("/v1/chat/completions", CHAT, key=first),
        box.post("/v1/chat/completions", {**CHAT, "model": "x/two"}, key=first),
        box.post("/v1/chat/completions", {"model": first}, key=first),
        box.post("/v1/keys", {"name": "n"}, key=first),
        box.get(f"/key/info?key={first}", key=boss),
        box.get(f"/key/info?key={first}", key=first),
        box.get(f"/v1/keys/{first}", key=boss),
        box.get(f"/v1/models?key={first}", key=first),
        box.get("/v1/keys?include_disabled=true", key=boss),
        box.get("/key/list?return_full_object=true&size=100", key=boss),
        box.get("/v1/key", key=first),
        box.post("/key/update", {"key": first, "duration": "1d"}, key=boss),
        box.post("/key/block", {"key": first}, key=boss),
        box.post("/v1/chat/completions", CHAT, key=first),
        box.post("/key/unblock", {"key": first}, key=boss),
        box.get("/metrics", key=first),
    ]
    second = box.post("/key/regenerate", {"key": first, "grace_period": "1h"}, key=boss).json()["key"]
    answers += [box.post("/v1/chat/completions", CHAT, key=one) for one in (first, second)]
    answers += [
        box.post("/key/delete", {"keys": [second]}, key=boss),
        box.post("/key/delete", {"keys": [second]}, key=boss),
        box.post("/v1/chat/completions", CHAT, key=second),
    ]
    box.wait_posted()
    assert {answer.status for answer in answers} >= {200, 401, 403, 404}, "good and bad have been asked"
    shown = [*((f"answer {index}", one.body + str(one.headers).encode()) for index, one in enumerate(answers)),
             *((str(path), data) for path, data in files(box)), ("log", str(box.cli("audit", "--limit", "10000")).encode()),
             ("list", str(box.cli("keys", "list")).encode())]  # fmt: skip
    assert any(id.encode() in data for _, data in shown)
    # The call whose model *is* the key gets its own words back; that is not ours to hide.
    own_words = "answer 2"
    for secret in (boss, first, second):
        for name, data in shown:
            for trace in traces(secret):
                assert trace not in data or (name == own_words and secret == first), f"{name} has a trace of a secret"


def test_the_database_has_keyed_hashes_and_without_the_pepper_they_say_nothing(box: Farebox) -> None:
    id, secret = make(box)
    with sqlite3.connect(box.folder / "farebox.db") as connection:
        (digest,) = connection.execute("SELECT digest FROM keys WHERE id = ?", (id,)).fetchone()
    (pepper_file,) = [path for path, _ in files(box) if "pepper" in path.name]
    pepper = bytes.fromhex(pepper_file.read_text().strip())
    assert digest == secrets.digest(secret, pepper) and len(digest) == 32
    assert digest != secrets.digest(secret, bytes(32)), "the same key under another pepper is another digest"
    assert pepper_file.stat().st_mode & 0o077 == 0, "only its owner reads the pepper"


def test_a_credential_is_known_by_all_of_it_not_by_its_beginning() -> None:
    """A memory that went by the first characters would take one caller for another."""
    key = secrets.make(bytes(range(32)))
    marks = {Keyring.mark(key[:cut].encode() + b"x" * (len(key) - cut)) for cut in range(len(key) + 1)}
    assert len(marks) == len(key) + 1 and all(len(mark) == 32 for mark in marks)


def test_checksums_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    key = secrets.make(bytes(32))
    assert secrets.looks_valid(key) and not secrets.looks_valid(key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert len(compared) == 2


def test_unknown_and_misshapen_keys_are_told_the_same(box: Farebox) -> None:
    unknown = secrets.make(b"\x07" * 32)
    tried = (unknown, unknown[:-1] + "-", "sk-x", "a" * 500)
    told = [box.post("/v1/chat/completions", CHAT, key=key).json()["error"] for key in tried]
    for error in told:
        del error["farebox"]["request_id"]
    assert all(error == told[0] for error in told) and told[0]["code"] == "invalid_api_key"


@pytest.mark.parametrize("header", HEADERS)
def test_restrictions_hold_through_every_header(box: Farebox, header: str) -> None:
    def sent(key: str) -> dict[str, str]:
        return {header: f"Bearer {key}" if header == "authorization" else key}

    _, key = make(box, "--allow-model", "x/one")
    for slug, status in (("x/one", 200), ("x/two", 403)):
        for path in ("/v1/chat/completions", "/v1/messages", "/chat/completions", "/api/v1/chat/completions"):
            reply = box.post(path, {**CHAT, "model": slug}, key=None, headers=sent(key))
            assert reply.status == status, (path, reply.body)
    _, boss = make(box, "--scope", "manage")
    assert box.post("/v1/chat/completions", CHAT, key=None, headers=sent(boss)).status == 403
    assert box.get("/v1/keys", key=None, headers=sent(boss)).status == 200
    assert box.get("/v1/keys", key=None, headers=sent(key)).status == 403


def test_two_different_credentials_are_refused(box: Farebox) -> None:
    _, calls = make(box)
    _, boss = make(box, "--scope", "manage")
    for header in HEADERS[1:]:
        reply = box.get("/v1/keys", key=calls, headers={header: boss})
        assert reply.status == 400 and "two different credentials" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "field", ["permissions", "account_id", "account", "digest", "policy", "markup", "tier", "limits", "id", "hash"]
)
def test_what_only_the_operator_sets_is_in_no_body(box: Farebox, field: str) -> None:
    _, boss = make(box, "--scope", "manage")
    id, _ = make(box)
    for method, path in (("POST", "/v1/keys"), ("PATCH", f"/v1/keys/{id}")):
        body = b'{"name": "x", "%b": "manage"}' % field.encode()
        reply = box.request(method, path, body, key=boss)
        assert reply.status == 400 and reply.json()["error"]["param"] == field
