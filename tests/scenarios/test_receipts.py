"""Receipts from a real server: what a customer fetches is checked with the public key alone, offline, and tampering is named."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.billing.sealing.receipts import canonical
from farebox.simulator.testing import SimulatorProcess


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("receipts")
    with SimulatorProcess(bill_path=folder / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1") + model("t/one", offer("lab", "sim+tokens=5"))
        text += provider("down", f"{simulator.origin}/v1")
        text += model("t/two", offer("down", "sim+status=503", input="0.01", output="0.01"), offer("lab", "sim+tokens=7"))
        with Farebox(folder / "box", config=text, billing='markup_percent = "5.5"') as made:
            yield made


def verified(folder: Path, file: Path, *words: str) -> tuple[int, Any]:
    """`farebox receipt verify` in a folder with nothing in it: no configuration, no database."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAREBOX")}
    done = subprocess.run(
        [sys.executable, "-m", "farebox", "receipt", "verify", str(file), "--json", *words],
        cwd=folder, env=environment, capture_output=True, timeout=60,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr.decode()


def sealed(box: Farebox, call: str) -> Any:
    """A call's receipts, once they are there."""
    return wait_until(lambda: box.get(f"/v1/receipts?id={call}").json().get("data"), "the call is sealed")


def test_a_customer_audits_the_operator(box: Farebox, tmp_path: Path) -> None:
    calls = [box.chat("t/one" if number % 3 else "t/two", max_tokens=50).headers["x-generation-id"] for number in range(6)]
    receipts = [sealed(box, call) for call in calls]
    assert [len(one) for one in receipts] == [2, 1, 1, 2, 1, 1], "each attempt has its own"
    (tmp_path / "elsewhere").mkdir()
    keys = tmp_path / "keys.json"
    keys.write_bytes(box.get("/.well-known/farebox-keys.json", key=None).body)
    trust = ("--key", str(keys))

    # One call, as the API answers it, and printed as people print things.
    last = receipts[0][1]["receipt"]
    assert last["model"] == "t/two" and last["provider"] == "lab" and last["markup"]["percent"] == "5.5"
    assert [one["provider"] for one in last["attempts"]] == ["down", "lab"] and last["units"]["output"] == 7
    charged = box.get(f"/v1/generation?id={calls[0]}").json()["data"]["total_cost_usd"]
    assert last["amount_usd"] == charged and receipts[0][0]["receipt"]["amount_usd"] == "0.00"
    one = tmp_path / "one.json"
    one.write_text(json.dumps({"object": "list", "data": receipts[0]}, indent=2))
    status, said = verified(tmp_path / "elsewhere", one, *trust)
    assert (status, said["ok"], said["receipts"], said["whole"], said["amount"]) == (0, True, 2, False, charged)

    # The day, in pages, with its head at the end.
    day = last["chain"]["day"]
    lines: list[bytes] = []
    while not lines or b'"head"' not in lines[-1]:
        after = json.loads(lines[-1])["receipt"]["chain"]["number"] if lines else 0
        page = box.get(f"/v1/receipts/{day}?after={after}&limit=3")
        assert page.status == 200 and page.headers["content-type"] == "application/jsonl"
        lines += page.body.splitlines()
    assert len(lines) == 9
    file = tmp_path / "day.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    status, said = verified(tmp_path / "elsewhere", file, *trust)
    assert (status, said["receipts"], said["findings"], said["days"]) == (0, 8, [], [day])

    # What somebody did to it is named.
    removed, swapped, altered = list(lines), list(lines), list(lines)
    del removed[4]
    swapped[2], swapped[3] = swapped[3], swapped[2]
    altered[5] = altered[5].replace(b'"amount_usd":"', b'"amount_usd":"1')
    for changed, number, word in ((removed, 5, "missing"), (swapped, 3, "swapped"), (altered, 6, "changed")):
        file.write_bytes(b"\n".join(changed))
        status, said = verified(tmp_path / "elsewhere", file, *trust)
        (finding,) = said["findings"]
        assert status == 1 and finding["number"] == number and word in finding["problem"], finding

    # The operator's export has the same bytes; it is checked against the keys beside the configuration.
    exported = tmp_path / "exported.jsonl"
    told = box.cli("receipt", "export", "--account", "default", "--day", day, "--output", str(exported))
    assert told["receipts"] == 8 and exported.read_bytes().splitlines() == lines
    assert box.cli("receipt", "verify", str(exported))["ok"]
    shown = box.cli("receipt", "show", calls[0])["receipts"]
    assert shown == receipts[0]


def test_a_rotated_key_leaves_old_receipts_good(box: Farebox, tmp_path: Path) -> None:
    call = box.chat("t/one", max_tokens=50).headers["x-generation-id"]
    (before,) = sealed(box, call)
    old = box.get("/.well-known/farebox-keys.json", key=None).json()["keys"]
    assert box.cli("receipt", "rotate")["keys"] == len(old) + 1
    new = box.get("/.well-known/farebox-keys.json", key=None).json()["keys"]
    assert new[1:] == old and box.cli("receipt", "keys")["keys"] == new
    (after,) = sealed(box, call)
    assert after["receipt"] == before["receipt"] and after["kid"] == new[0]["kid"] != before["kid"]
    file, keys = tmp_path / "both.jsonl", tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": new}))
    for envelope in (before, after):
        file.write_bytes(canonical(envelope))
        assert verified(tmp_path, file, "--key", str(keys))[0] == 0
    keys.write_text(json.dumps({"keys": old}))
    status, said = verified(tmp_path, file, "--key", str(keys))
    assert status == 1 and "not among the public keys" in said["findings"][0]["problem"]
    stored = json.loads((box.folder / "receipt-keys.json").read_text())["keys"]
    assert ["private" in one for one in stored] == [True] + [False] * len(old)
    assert (box.folder / "receipt-keys.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/v1/receipts", 400, "id"), ("/v1/receipts?id=gen-none", 404, "id"), ("/v1/receipts?id=x&days=1", 400, "days"),
        ("/v1/receipts/yesterday", 400, "day"), ("/v1/receipts/2026-02-30", 400, "day"),
        ("/v1/receipts/2026-11-23?after=-1", 400, "after"), ("/v1/receipts/2026-11-23?limit=501", 400, "limit"),
    ],
)  # fmt: skip
def test_bad_questions_are_answered_by_name(box: Farebox, path: str, status: int, param: str) -> None:
    said = box.get(path)
    assert (said.status, said.json()["error"]["param"]) == (status, param), said.body


def test_a_day_without_receipts_has_a_head(box: Farebox) -> None:
    (line,) = box.get("/v1/receipts/2020-01-01?limit=0").body.splitlines()
    head = json.loads(line)["head"]
    assert (head["receipts"], head["final"], head["opening"] == head["last"]) == (0, True, True)
