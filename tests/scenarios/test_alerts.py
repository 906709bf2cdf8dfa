"""Alerts through a whole gateway: each threshold told once, whoever is killed when; and the commands about them."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.support.receiver import Receiver, verify
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.config import load
from farebox.control.deliveries import LEASE_US
from farebox.simulator.testing import SimulatorProcess
from farebox.storage.database import Database


def configuration(origin: str) -> str:
    alerts = "[alerts]\nallow_private = true\nretries_s = [1, 1, 1]\nlow_balance = \"0\"\nrunway_days = 0\nforecast = false\n"
    return alerts + provider("sim", origin) + model("sim/echo", offer("sim", "sim+tokens=100"))


@pytest.mark.parametrize(
    "point",
    [
        "alert.after_send",
        "poster.before_commit",
        pytest.param("alert.after_claim", marks=pytest.mark.full),
        pytest.param("poster.after_commit", marks=pytest.mark.full),
    ],
)
def test_thresholds_are_told_once_whoever_is_killed(tmp_path: Path, point: str) -> None:
    with SimulatorProcess() as simulator, Receiver() as receiver:
        with Farebox(tmp_path, config=configuration(simulator.base_url)) as box:
            made = box.do("alerts", "add", "--webhook", receiver.url(), "--event", "budget.threshold")
            customer = box.customer("acme", credit_nano=10**9, budget_nano=20_000_000, window="month")
            box.kill()
            deaths = box.log_text().count("bookkeeper ended with status -9")
            box.start(environment={"FAREBOX_FAILPOINT": f"{point}:1"})
            for _ in range(16):
                # A little more than 0.001 each, so that sixteen pass 80 % of the budget and not 100.
                body = {"model": "sim/echo", "max_tokens": 110, "messages": [{"role": "user", "content": "hello"}]}
                box.post("/v1/chat/completions", body, key=customer.secret)
            wait_until(
                lambda: box.log_text().count("bookkeeper ended with status -9") > deaths, f"the bookkeeper dies at {point}"
            )
            box.kill()
            box.start()
            box.wait_posted()

            def all_ended() -> bool:
                found = box.do("alerts", "deliveries")["deliveries"]
                return len(found) >= 2 and all(one["state"] == "delivered" for one in found)

            if point.startswith("alert."):
                # The lease of the try that was killed is two minutes; this lets them pass.
                with Database.open(load(box.config_path, box.environment).database_url) as database:
                    database.write(
                        lambda connection: connection.exec_driver_sql(
                            f"UPDATE deliveries SET next_us = next_us - {LEASE_US} WHERE state = 'pending'"
                        )
                    )
            wait_until(all_ended, f"everything is delivered: {box.log()}")
            found = box.do("alerts", "deliveries")["deliveries"]
            box.check_books()
        for request in receiver.requests:
            verify(made["secret"], request)
        ids = Counter(request.headers["webhook-id"] for request in receiver.requests)
        percents = {request.headers["webhook-id"]: json.loads(request.body)["data"]["percent"] for request in receiver.requests}
        assert sorted(percents.values())[:2] == [50, 80] and len(set(percents.values())) == len(percents), percents
        assert set(ids) == {one["message_id"] for one in found}
        assert max(ids.values()) <= (2 if point == "alert.after_send" else 1), "only a killed sender repeats, under the same id"


def _finding(box: Farebox) -> tuple[str, str]:
    """What `doctor` says about alerts."""
    (found,) = [one for one in box.cli("doctor", check=False)["findings"] if one["subject"] == "alerts"]
    return found["level"], found["text"]


def test_the_commands(tmp_path: Path) -> None:
    with Receiver() as receiver:
        box = Farebox(tmp_path, config="[alerts]\nallow_private = true\n")
        made = box.cli("alerts", "add", "--webhook", receiver.url("/secret-path"), "--account", "default")
        assert made["secret"].startswith("whsec_")
        (listed,) = box.cli("alerts", "list")["channels"]
        assert listed["id"] == made["id"] and "secret-path" not in listed["target"]
        assert box.cli("alerts", "test", made["id"])["status"] == 200
        verify(made["secret"], receiver.requests[0])
        assert json.loads(receiver.requests[0].body)["type"] == "test"
        rotated = box.cli("alerts", "rotate", made["id"])["secret"]
        assert rotated != made["secret"]
        box.cli("alerts", "test", made["id"])
        verify(rotated, receiver.requests[1])
        verify(made["secret"], receiver.requests[1])
        receiver.answers = [500]
        assert "answered 500" in box.cli("alerts", "test", made["id"], check=False)["error"]
        assert box.cli("alerts", "set", "default", "--low-balance", "7.50", "--runway-days", "0")["low_balance"] == "7.50"
        assert box.cli("alerts", "deliveries") == {"deliveries": []}
        assert box.cli("alerts", "redeliver", "--dead") == {"redelivered": 0}
        assert "farebox alerts deliveries" in box.cli("alerts", "redeliver", "dlv", check=False)["error"]
        assert _finding(box) == ("ok", "channels: 1")
        with Database.open(load(box.config_path, box.environment).database_url) as database:
            columns = "id, message_id, channel_id, state, next_us, created_us"
            dead = f"INSERT INTO deliveries ({columns}) VALUES ('d', 'm', 'c', 'dead', 0, 0)"
            database.write(lambda connection: connection.exec_driver_sql(dead))
        level, said = _finding(box)
        assert level == "problem" and said.startswith("deliveries given up: 1;")
        box.cli("alerts", "remove", made["id"])
        assert box.cli("alerts", "list") == {"channels": []}
        assert "alerts.smtp" in box.cli("alerts", "add", "--email", "a@example.com", check=False)["error"]
        assert "known" in box.cli("alerts", "add", "--slack", receiver.url(), "--event", "nonsense", check=False)["error"]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('[alerts.channels.ops]\nkind = "webhook"\ntarget = "https://example.com/"\n', "`secret`"),
        ('[alerts.channels.ops]\nkind = "webhook"\ntarget = "https://example.com/"\nsecret = "whsec_AA=="\n', "24 to 64"),
        ('[alerts.channels.ops]\nkind = "slack"\ntarget = "http://example.com/"\n', "allow_private"),
        ('[alerts.channels.ops]\nkind = "slack"\ntarget = "https://example.com/"\nevents = ["budget"]\n', "budget.threshold"),
        ('[alerts.channels.ops]\nkind = "email"\ntarget = "a@example.com"\n', "`alerts.smtp`"),
        ('[alerts.channels.ops]\nkind = "slack"\ntarget = "https://example.com/"\nevent = []\n', "did you mean `events`"),
        ("[alerts]\nthresholds_percent = [0]\n", "thresholds_percent"),
        ('[alerts]\nlow_balance = "5.0000000001"\n', "low_balance"),
        ("[alerts]\nspike_factor = 1\n", "spike_factor"),
        ("[alerts]\nretries_s = [-1]\n", "retries_s"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_at_the_start(tmp_path: Path, config: str, problem: str) -> None:
    box = Farebox(tmp_path, config=config)
    box.start(wait=False)
    assert box.process is not None and box.process.wait(30) == 1
    box.kill()
    assert problem in box.log(), box.log()
