"""Sign-ups over the network: a key that works, limits that hold for whoever comes at once, refusals that tell nothing."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.support.running import Farebox, Reply

from farebox.storage import tables
from farebox.storage.database import Database

SERVER = 'trusted_proxies = ["127.0.0.0/8"]'
SIGNUP = """
[signup]
endpoint = true
credit = "2.50"
per_day = 12
per_network_per_day = 2
tries_per_network_per_hour = 6
"""
BAD_BODIES = (
    (b"{}", "email"), (b'{"email":3}', "email"), (b'{"email":"ann"}', "email"), (b'{"mail":"a@b.example"}', "mail"), (b"[", None),
)  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Farebox]:
    with Farebox(tmp_path / "box", config=SIGNUP, server=SERVER) as made:
        yield made


def come(box: Farebox, email: object, address: str = "192.0.2.1", **headers: str) -> Reply:
    sent = {"x-forwarded-for": address, **headers}
    return box.post("/v1/signup", {"email": email}, key=None, headers=sent)


def accounts(box: Farebox) -> int:
    with Database.open(f"sqlite:///{box.folder / 'farebox.db'}") as database:
        return database.read(lambda c: c.execute(select(func.count()).select_from(tables.signups)).scalar_one())


def told(reply: Reply) -> tuple[int, object]:
    """Status and error, without what is of each request."""
    error = reply.json()["error"]
    error["farebox"].pop("request_id")
    return reply.status, error


def test_a_stranger_gets_a_key_that_works_and_a_refusal_tells_nothing(box: Farebox) -> None:
    reply = come(box, " Ann+trial@Shop.example ")
    assert reply.status == 201 and reply.headers["cache-control"] == "no-store", reply.body
    made = reply.json()["data"]
    assert set(made) == {"account", "credit_usd", "credit_expires_at", "key_id", "key"} and made["credit_usd"] == "2.50"
    assert box.get("/v1/credits", key=made["key"]).json()["data"]["total_credits_usd"] == "2.50"
    shown = box.get("/v1/key", key=made["key"]).json()["data"]
    assert shown["name"] == "first key" and not shown["is_management_key"]
    assert made["key"] not in box.log_text()

    # Known, however it is written; a network that had its share; a client whose address nobody vouches for: one answer.
    known = told(come(box, "ANN@shop.example", "198.51.100.1"))
    assert known[0] == 403 and come(box, "bob@shop.example").status == 201
    full = told(come(box, "cid@shop.example"))
    unknown = told(come(box, "dan@shop.example", "nobody"))
    assert known == full == unknown
    assert accounts(box) == 2
    box.check_books()
    audit = box.cli("audit", "--subject", made["key_id"])["entries"]
    assert [entry["action"] for entry in audit] == ["key.create"] and made["key"] not in json.dumps(audit)


def test_however_many_come_at_once_no_more_than_a_day_gets_in(box: Farebox) -> None:
    statuses: list[int] = []

    def one(number: int) -> None:
        statuses.append(come(box, f"user{number}@mail{number}.example", f"203.0.{number}.9").status)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] * 12 + [403] * 12 and accounts(box) == 12
    box.check_books()


def test_a_network_may_not_try_addresses_one_after_the_other(box: Farebox) -> None:
    statuses = [come(box, f"user{number}@one.example", f"192.0.2.{number}").status for number in range(8)]
    assert statuses == [201, 201, 403, 403, 403, 403, 429, 429]
    reply = come(box, "user9@one.example")
    assert 0 < int(reply.headers["retry-after"]) <= 3_601 and reply.json()["error"]["code"] == "signup_tries"
    assert come(box, "user9@one.example", "192.0.3.1").status == 201, "another network is not concerned"


def test_a_token_is_asked_for_before_anything_else(tmp_path: Path) -> None:
    config = SIGNUP + 'token = "${SIGNUP_TOKEN}"\n'
    secret = "a-secret-of-the-operator"
    with Farebox(tmp_path / "box", config=config, server=SERVER, environment={"SIGNUP_TOKEN": secret}) as box:
        for headers in ({}, {"x-farebox-signup-token": "a-guess"}):
            reply = come(box, "not even an address", **headers)
            assert (reply.status, reply.json()["error"]["code"]) == (403, "signup_token")
        trusted = {"x-farebox-signup-token": secret}
        assert accounts(box) == 0 and come(box, "ann@shop.example", **trusted).status == 201
        for body, param in BAD_BODIES:
            reply = box.post("/v1/signup", body, key=None, headers={**trusted, "x-forwarded-for": "192.0.9.1"})
            assert (reply.status, reply.json()["error"]["param"]) == (400, param), body
        assert accounts(box) == 1
