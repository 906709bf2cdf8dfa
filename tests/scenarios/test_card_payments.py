"""Payments by card through the whole server: page, webhook, credit; forged and repeated webhooks; SIGKILL in between."""

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.support.running import Farebox, model, offer, provider, wait_until
from tests.support.stripe_site import StripeSite

from farebox.billing.books import customers
from farebox.cli.setup import make_key
from farebox.config import load
from farebox.failpoints import POINTS
from farebox.money import format_amount
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.simulator.testing import SimulatorProcess
from farebox.storage import queries
from farebox.storage.database import Database

CARD_POINTS = [point for point in POINTS if point.startswith("card.")]
NAMES = {
    "id", "account", "account_name", "kind", "amount", "state", "url", "session", "intent", "grant", "problem", "created_at",
}  # fmt: skip
"""Of a payment in JSON; only ever added to."""


@pytest.fixture
def site() -> Iterator[StripeSite]:
    with StripeSite() as made:
        yield made


def manager(box: Farebox, name: str) -> str:
    """A new account's management key."""
    loaded, clock = load(box.config_path, box.environment), SystemClock()
    account = TimeOrderedIds(clock).new("acc")
    with Database.open(loaded.database_url) as database:
        customers.create_account(database, id=account, name=name, kind="prepaid", now_us=clock.now_us())
        return make_key(database, read_pepper(loaded), account_id=account, name="boss", permissions="manage").secret


def hook(box: Farebox) -> str:
    return f"{box.base}/stripe/webhook"


def remaining(box: Farebox, name: str) -> str:
    with Database.open(f"sqlite:///{box.folder}/farebox.db") as database:

        def ask(connection: Connection) -> int:
            account = queries.account(connection, name)
            assert account is not None
            balance = queries.balance(connection, account.id)
            assert balance is not None
            return balance.remaining_nano

        return format_amount(database.read(ask))


def test_a_top_up_by_card(site: StripeSite, tmp_path: Path) -> None:
    """Asked for over HTTP and at the command line, paid at Stripe, told by webhooks; what is forged or stale is nothing."""
    with Farebox(tmp_path, config=site.config()) as box:
        boss, stranger = manager(box, "acme"), manager(box, "other")
        once = {"idempotency-key": "order-1"}
        asked = box.post("/v1/topups", {"amount_usd": "25.00"}, key=boss, headers=once)
        assert asked.status == 201, asked.body
        made = asked.json()["data"]
        assert made["status"] == "open" and made["url"].startswith("https://checkout.stripe.com/")
        assert made["amount_usd"] == "25.00"
        assert box.post("/v1/topups", {"amount_usd": "25.00"}, key=boss, headers=once).json()["data"]["id"] == made["id"]
        where = f"/v1/topups/{made['id']}"
        assert box.get(where, key=stranger).status == 404 and box.get(where, key=boss).json()["data"]["status"] == "open"
        for body, said in (
            ({"amount_usd": "1.00"}, "from 5.00 to 1000.00"),
            ({"amount_usd": "25.001"}, "whole cents"),
            ({}, "amount_usd"),
            ({"amount_usd": "25", "currency": "eur"}, "currency"),
        ):
            refused = box.post("/v1/topups", body, key=boss)
            assert refused.status == 400 and said in refused.json()["error"]["message"], refused.body
        (session,) = [one for one in site.objects.values() if one["object"] == "checkout.session"]

        # Nobody has paid yet, and nobody makes us believe it.
        forged = site.event("checkout.session.completed", session, payment_status="paid", status="complete")
        body = json.dumps(forged, indent=2).encode()
        for signature in (
            "t=1,v1=00",
            site.signature(body, secret=""),
            site.signature(body, secret="whsec_" + "0" * 32),
            site.signature(body, at=int(time.time()) - 400),
            site.signature(body + b" "),
        ):
            assert site.send(hook(box), forged, signature=signature) == 400
        assert site.send(hook(box), forged) == 200, "even signed, it only says where to look"
        listed = box.cli("cards", "list")["payments"]
        assert [(one["state"], one["amount"], one["account_name"]) for one in listed] == [("open", "25.00", "acme")]
        assert set(listed[0]) == NAMES
        assert remaining(box, "acme") == "0.00"

        paid = site.pay(session["id"])
        paid["data"]["object"] = {**paid["data"]["object"], "amount_total": 99_999_900, "client_reference_id": "pay-other"}
        for _ in range(3):
            assert site.send(hook(box), paid) == 200
        wait_until(lambda: box.get(where, key=boss).json()["data"]["status"] == "credited", "the credit")
        assert remaining(box, "acme") == "25.00" and remaining(box, "other") == "0.00"

        assert box.get("/v1/topups/auto", key=boss).status == 404
        wish = {"below_usd": "5", "amount_usd": "25", "month_cap_usd": 100}
        for body, said in (({**wish, "month_cap_usd": "20"}, "cap"), ({"below_usd": "5"}, "amount_usd"), ({"off": True}, "off")):
            refused = box.post("/v1/topups/auto", body, key=boss)
            assert refused.status == 400 and said in refused.json()["error"]["message"], refused.body
        auto = box.post("/v1/topups/auto", wish, key=boss)
        assert auto.status == 200 and auto.json()["data"]["url"].startswith("https://checkout.stripe.com/"), auto.body
        (setup,) = [one["id"] for one in site.objects.values() if one.get("mode") == "setup"]
        site.deliver(hook(box), site.save_card(setup))
        wait_until(lambda: box.get("/v1/topups/auto", key=boss).json()["data"]["card_saved"], "the card")
        off = box.post("/v1/topups/auto", {"enabled": False}, key=boss).json()["data"]
        assert (off["enabled"], off["below_usd"], off["month_cap_usd"], off["url"]) == (False, "5.00", "100.00", None)
        assert box.get("/v1/topups/auto", key=stranger).status == 404

        page = box.cli("topup", "other", "10", "--stripe")
        assert page["state"] == "open" and page["url"].startswith("https://checkout.stripe.com/")
        site.deliver(hook(box), site.pay(page["session"]))
        wait_until(lambda: remaining(box, "other") == "10.00", "the other's credit")
        box.check_books()
        assert any(one["subject"] == "stripe" and one["level"] == "ok" for one in box.cli("doctor", check=False)["findings"])


@pytest.mark.parametrize(
    "point",
    [point if point == "card.after_event" else pytest.param(point, marks=pytest.mark.full)
     for point in CARD_POINTS],
)  # fmt: skip
def test_kill_at_a_point_of_a_payment(site: StripeSite, tmp_path: Path, point: str) -> None:
    """Worker or bookkeeper dies at a named place; Stripe repeats its webhook until somebody takes it; one credit.

    All places on both engines, without processes: `tests/billing/test_card_payments.py`."""
    box = Farebox(tmp_path, config=site.config())
    boss = manager(box, "acme")
    victim = "worker 0" if point == "card.after_event" else "bookkeeper"
    early = point in ("card.before_call", "card.after_call")

    def die() -> None:
        wait_until(lambda: f"{victim} ended with status -9" in box.log_text(), f"{victim} dies at {point}", timeout_s=45)
        box.kill()
        box.start()

    try:
        box.start(environment={"FAREBOX_FAILPOINT": f"{point}:1"})
        asked = box.post("/v1/topups", {"amount_usd": "5.00"}, key=boss)
        assert asked.status in (201, 202), asked.body
        if early:
            die()
        where = f"/v1/topups/{asked.json()['data']['id']}"
        wait_until(lambda: box.get(where, key=boss).json()["data"]["status"] == "open", "a page", timeout_s=45)
        (session,) = [one["id"] for one in site.objects.values() if one["object"] == "checkout.session"]
        paid = site.pay(session)
        try:
            site.send(hook(box), paid)
        except OSError:
            assert point == "card.after_event", "only there the worker dies with the webhook in its hands"
        if not early:
            die()
        for _ in range(2):
            site.deliver(hook(box), paid)
        wait_until(lambda: remaining(box, "acme") == "5.00", f"one credit after {point}", timeout_s=45)
        site.deliver(hook(box), paid)
        (listed,) = box.cli("cards", "list")["payments"]
        assert listed["state"] == "credited" and remaining(box, "acme") == "5.00"
        box.check_books()
    finally:
        box.kill()
    assert len([one for one in site.objects if one.startswith("cs_")]) == 1, "no page was made twice"


@pytest.mark.parametrize(
    "point",
    ["card.after_call", *(pytest.param(one, marks=pytest.mark.full) for one in ("card.before_call", "card.before_credit"))],
)
def test_kill_at_a_point_of_an_automatic_top_up(site: StripeSite, tmp_path: Path, point: str) -> None:
    """A card is saved, the account is below its threshold, and the bookkeeper dies around the charge: one charge, one credit."""
    box = Farebox(tmp_path, config=site.config())
    try:
        manager(box, "acme")
        box.do("topup", "acme", "6")
        made = box.cli("cards", "auto", "acme", "--below", "10", "--amount", "25", "--month-cap", "100")
        assert set(made) == {
            "account", "enabled", "below", "amount", "month_cap", "card_saved", "declines", "problem", "url",
        } and made["url"].startswith("https://checkout.stripe.com/") and not made["card_saved"]  # fmt: skip
        (session,) = [one["id"] for one in site.objects.values() if one["object"] == "checkout.session"]
        box.start(environment={"FAREBOX_FAILPOINT": f"{point}:1"})
        site.deliver(hook(box), site.save_card(session))
        wait_until(lambda: "bookkeeper ended with status -9" in box.log_text(), f"it dies at {point}", timeout_s=45)
        box.kill()
        box.start()
        wait_until(lambda: remaining(box, "acme") == "31.00", "one credit", timeout_s=45)
        assert site.charges() == [2_500] and box.cli("cards", "auto", "acme")["card_saved"]
        box.check_books()
    finally:
        box.kill()


@pytest.mark.full
def test_below_zero_calls_are_refused_until_it_is_topped_up(site: StripeSite, tmp_path: Path) -> None:
    """A payment is spent, disputed, and lost; calls are a 402 in between, and the next payment pays what is owed first."""
    with SimulatorProcess(bill_path=tmp_path / "bill.jsonl") as simulator:
        text = provider("lab", f"{simulator.origin}/v1") + model("t/one", offer("lab", "sim+tokens=5"))
        with Farebox(tmp_path / "box", config=text + site.config('min_amount = "0.50"')) as box:
            manager(box, "acme")
            key = box.do("keys", "create", "--account", "acme")["key"]

            def buy(usd: str) -> str:
                page = box.cli("topup", "acme", usd, "--stripe")
                before = remaining(box, "acme")
                site.deliver(hook(box), site.pay(page["session"]))
                wait_until(lambda: remaining(box, "acme") != before, "the credit")
                return str(site.objects[page["session"]]["payment_intent"])

            def call() -> int:
                body = {"model": "t/one", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
                return box.post("/v1/chat/completions", body, key=key).status

            intent = buy("0.50")
            assert call() == 200
            box.wait_posted()
            spent = Decimal("0.50") - Decimal(remaining(box, "acme"))
            assert spent > 0
            event = site.dispute(intent, 50)
            site.deliver(hook(box), event)
            wait_until(lambda: Decimal(remaining(box, "acme")) == -spent, "the credit is withdrawn, what is spent is owed")
            wait_until(lambda: call() == 402, "workers have given back what they held")
            # What a worker held already may still be spent, for a second; it is owed, too.
            box.wait_posted()
            spent = -Decimal(remaining(box, "acme"))
            site.deliver(hook(box), site.move(event["data"]["object"]["id"], "lost"))
            buy("1.00")
            assert Decimal(remaining(box, "acme")) == 1 - spent
            wait_until(lambda: call() == 200, "it is served again")
            (bought, _) = reversed(box.cli("cards", "list", "--account", "acme")["payments"])
            (gone,) = box.cli("cards", "reversals", bought["id"])["reversals"]
            assert (gone["kind"], gone["amount"], gone["state"]) == ("dispute", "0.50", "done")
            box.wait_posted()
            newest = box.cli("cards", "list", "--account", "acme")["payments"][0]["id"]
            made = box.cli("cards", "refund", newest, "0.10")
            assert set(made) == {"id", "kind", "payment", "account", "amount", "state", "stripe", "problem"}
            assert made["state"] == "done"
            refused = box.cli("cards", "refund", newest, "0.90", check=False)["error"]
            assert "--below-zero" in refused and refused.count("\n") == 1
            box.check_books()
