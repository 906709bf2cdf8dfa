"""What an account reads of its own books over HTTP, and what the operator exports: the same numbers everywhere."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from tests.support.running import Farebox, model, offer, provider

from farebox.simulator.testing import SimulatorProcess


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farebox]:
    with SimulatorProcess() as simulator:
        config = provider("lab", f"{simulator.origin}/v1") + model("l/a", offer("lab", "sim+tokens=20"))
        config += model("l/b", offer("lab", "sim+tokens=10+thinking=4"))
        config += '[display]\ncurrency = "JPY"\nrates = { "2020-01-01" = "149500.5", "2999-01-01" = "7" }\n'
        config += 'source = "the lab\'s own bank"\n'
        folder = tmp_path_factory.mktemp("statements") / "box"
        with Farebox(folder, config=config, billing='markup_percent = "10"') as running:
            for name in ("l/a", "l/b", "l/a"):
                assert running.chat(name, max_tokens=50).status == 200
            stranger = running.customer("stranger", credit_nano=10**9)
            ask = {"model": "l/a", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
            assert running.post("/v1/chat/completions", ask, key=stranger.secret).status == 200
            running.wait_posted()
            yield running


def own_total(box: Farebox) -> Decimal:
    return Decimal(box.do("usage", "--account", "default")["total"]["charge"])


def test_usage_is_told_in_another_currency_by_one_rounding_of_the_total(box: Farebox) -> None:
    total = box.cli("usage", "--account", "default")["total"]
    exact = Fraction(total["charge"]) * Fraction("149500.5")
    assert round(exact) > 10
    assert total["display"] == {"currency": "JPY", "rate": "149500.5", "since": "2020-01-01", "charge": str(round(exact))}


@pytest.mark.parametrize("path", ["/v1/usage?group_by=model,day", "/v1/activity?date={today}"])
def test_rows_have_the_other_currency_beside_us_dollars_and_the_reply_its_dated_rate(box: Farebox, path: str) -> None:
    today = box.get("/v1/usage?group_by=day").json()["data"][0]["day"]
    reply = box.get(path.format(today=today)).json()
    assert reply["display"] == {"currency": "JPY", "rate": "149500.5", "since": "2020-01-01", "source": "the lab's own bank"}
    assert len(reply["data"]) == 2
    for row in reply["data"]:
        assert row["usage_display"] == str(round(Fraction(row["usage_usd"]) * Fraction("149500.5")))
        assert int(row["usage_display"]) > 0 and Decimal(str(row["usage"])) == Decimal(row["usage_usd"])


def test_usage_is_the_accounts_own_in_pages(box: Farebox) -> None:
    whole = box.get("/v1/usage?group_by=model,key,day&since=1d").json()
    assert [(line["model"], line["requests"]) for line in whole["data"]] == [("l/a", 2), ("l/b", 1)]
    assert sum(Decimal(line["usage_usd"]) for line in whole["data"]) == own_total(box)
    assert whole["data"][1]["reasoning_tokens"] == 4 and not whole["has_more"] and whole["next"] is None
    first = box.get("/v1/usage?group_by=model,key,day&since=1d&limit=1").json()
    assert first["has_more"]
    second = box.get(f"/api/v1/usage?group_by=model,key,day&since=1d&limit=1&after={first['next']}").json()
    assert first["data"] + second["data"] == whole["data"] and not second["has_more"]
    assert box.get("/v1/usage?model=l/b").json()["data"][0]["requests"] == 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("group_by=modle", "did you mean `model`?"),
        ("group_by=model,model", "twice"),
        ("group_by=account", "is not a dimension"),
        ("grop_by=model", "did you mean `group_by`?"),
        ("since=yesterday", "write 7d"),
        ("limit=0", "from 1 to 1000"),
        ("limit=1e9", "from 1 to 1000"),
        ("after=x", "`next` of the page before"),
        ("after=WzFd&group_by=model", "`next` of the page before"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(box: Farebox, query: str, words: str) -> None:
    reply = box.get(f"/v1/usage?{query}")
    assert reply.status == 400 and words in reply.json()["error"]["message"]


def test_activity_has_openrouters_shape(box: Farebox) -> None:
    today = box.get("/v1/usage?group_by=day").json()["data"][0]["day"]
    rows = box.get(f"/v1/activity?date={today}").json()["data"]
    assert {row["model"]: row["requests"] for row in rows} == {"l/a": 2, "l/b": 1}
    assert set(rows[0]) >= {
        "date", "model", "model_permaslug", "endpoint_id", "provider_name", "usage", "byok_usage_inference", "requests",
        "prompt_tokens", "completion_tokens", "reasoning_tokens",
    }  # fmt: skip
    assert sum(Decimal(row["usage_usd"]) for row in rows) == own_total(box)
    assert box.get("/v1/activity").json()["data"] == [], "whole days only, as OpenRouter has it"
    assert box.get("/v1/activity", key=None).status == 401


def export(box: Farebox, *arguments: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "farebox", "export", *arguments, "--config", str(box.config_path)],
        capture_output=True, env=box.environment, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exports_from_the_command_line(box: Farebox) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in export(box, "usage", "--format", "jsonl").splitlines()]
    assert len(lines) == 4
    assert sum(Decimal(line["charge_usd"]) for line in lines if line["account"] == "default") == own_total(box)
    assert all(line["requested_model"] == line["model"] and Decimal(line["fee_usd"]) > 0 for line in lines)
    file = box.folder / "focus.csv"
    told = box.cli("export", "focus", "--account", "default", "--output", str(file))
    with file.open() as text:
        focus = list(csv.DictReader(text))
    assert told == {"file": str(file), "format": "csv", "lines": len(focus)}
    assert sum(Decimal(line["EffectiveCost"]) for line in focus if line["ChargeCategory"] == "Usage") == own_total(box)
    box.cli("export", "journal", "--format", "parquet", "--output", str(box.folder / "journal.parquet"))
    assert (box.folder / "journal.parquet").read_bytes()[:4] == b"PAR1"
    refused = box.cli("export", "usage", "--format", "parquet", "--output", str(box.folder / "no" / "file"), check=False)
    assert "No such file" in refused["error"]
    assert not list(box.folder.glob("*.partial"))
    by = box.cli("usage", "--by", "account,model")
    assert {(row["name"], row["calls"]) for row in by["rows"]} == {("default l/a", 2), ("default l/b", 1), ("stranger l/a", 1)}
    assert "did you mean project" in box.cli("usage", "--by", "projct", check=False)["error"]


def test_a_comparison_is_the_same_over_http_and_by_command(box: Farebox) -> None:
    found = box.get("/v1/compare?since=1d").json()
    told = box.cli("compare", "--account", "default", "--since", "1d")
    assert found["data"] == told["models"] and found["total"] == told["total"]
    assert Decimal(found["total"]["here_usd"]) == own_total(box)
    (direct,) = found["total"]["direct"]
    assert (direct["provider"], direct["models"], direct["requests"]) == ("lab", 2, 3)
    assert direct["direct_usd"] == found["total"]["as_served_usd"] == found["total"]["cheapest_usd"]
    assert Decimal(direct["difference_usd"]) < 0, "ten percent on top"
    assert "did you mean `since`?" in box.get("/v1/compare?sinc=1d").json()["error"]["message"]
