"""Invoices of a running Farebox: a month that is over closes by itself, is read over HTTP, is paid and taken back by commands."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator

import pypdf
import pytest
from tests.support.running import Farebox, wait_until
from tests.support.stripe_site import StripeSite

from farebox.billing.books.periods import month_before, month_bounds, month_of
from farebox.billing.journal import Journal
from farebox.billing.records import Attempt, Closed, Opened, Settle
from farebox.catalog.price import Rates
from farebox.config import load
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.wires.usage import Usage

RATES = Rates(input=2_000_000, output=8_000_000)
INVOICES = """
[invoices]
seller = "Example Ltd"
address = ["1 Some Street"]
tax_percent = "19"
grace_hours = 0
"""


class Case:
    def __init__(self, box: Farebox, month: str, keys: dict[str, str], call: str, site: StripeSite) -> None:
        self.box, self.month, self.keys, self.call, self.site = box, month, keys, call, site


def last_month(folder: Farebox, key: str, account: str, month: str, slot: str = "w7") -> str:
    """A call of the last month, in a journal that was left behind; its id."""
    clock = SystemClock()
    ids = TimeOrderedIds(clock)
    at_us = month_bounds(month)[1] - 3_600_000_000
    used = Usage(input=100_000, output=50_000)
    attempt = Attempt(
        1, "lab", "m", at_us, at_us + 1, "ok", usage=used, basis="reported", rates=RATES, cost_nano=600_000_000,
        markup_bp=1_000, charge_nano=660_000_000, price_version="m@1",
    )  # fmt: skip
    journal = Journal(folder.folder / "journal" / slot, sync="os", segment_bytes_max=64 * 1024)
    life, call = ids.new("life"), ids.new("gen")
    scopes = (f"account:{account}",)
    journal.write(
        Opened(life, at_us),
        Settle(
            call, "settled", at_us + 2, account, key, scopes, 700_000_000, 660_000_000, "chat_completions", "l/m", (attempt,),
            at_us, life,
        ),
        Closed(life, at_us + 3),
    )  # fmt: skip
    journal.close()
    return call


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with StripeSite() as site:
        box = Farebox(tmp_path_factory.mktemp("invoices") / "box", config=INVOICES + site.config())
        month = month_before(month_of(SystemClock().now_us()))
        box.cli("doctor", check=False)
        made: dict[str, tuple[str, str]] = {}
        with box:
            for name in ("acme", "cardco"):
                box.do("accounts", "create", name, "--postpaid", "--credit-limit", "50")
                key = box.do("keys", "create", "--account", name, *(("--scope", "manage") if name == "cardco" else ()))
                made[name] = key["id"], key["key"]
        with Database.open(load(box.config_path, box.environment).database_url) as database:
            accounts = {one.name: one.id for one in database.read(queries.list_accounts)}
        calls = {name: last_month(box, key, accounts[name], month, f"w-{name}") for name, (key, _) in made.items()}
        with box:
            yield Case(box, month, {name: secret for name, (_, secret) in made.items()}, calls["acme"], site)


def test_the_month_is_closed_paid_and_taken_back(case: Case) -> None:
    box, key = case.box, case.keys["acme"]
    (first,) = wait_until(lambda: box.get("/v1/invoices", key=key).json()["data"], "the month is closed", timeout_s=30)
    assert (first["number"], first["month"], first["total_usd"], first["open_usd"], first["state"]) == (
        "INV-000001", case.month, "0.79", "0.79", "open",
    )  # fmt: skip
    document = box.get("/v1/invoices/INV-000001", key=key).json()
    assert [(line["unit"], line["amount"]) for line in document["lines"]] == [
        ("input", "0.20"), ("output", "0.40"), ("gateway_fee", "0.06"),
    ]  # fmt: skip
    assert document["seller"]["name"] == "Example Ltd"
    assert document["tax"] == {"label": "VAT", "percent": "19.00", "amount": "0.13"}
    page = box.get("/v1/invoices/INV-000001?format=html", key=key)
    assert page.headers["content-type"].startswith("text/html") and b"0.79" in page.body
    assert box.get("/v1/invoices/INV-000001").status == 404, "another account's"
    assert box.get("/v1/invoices/INV-000001?format=doc", key=key).status == 400
    assert box.cli("invoices", "close", "--month", case.month, "--account", "acme")["documents"] == [document], "again, the same"
    refused = box.cli("invoices", "close", "--month", month_of(SystemClock().now_us()), check=False)
    assert "can be closed from" in refused["error"]
    file = box.folder / "invoice.pdf"
    done = subprocess.run(
        [sys.executable, "-m", "farebox", "invoices", "show", "INV-000001", "--format", "pdf", "-o", str(file), "--config",
         str(box.config_path)],
        env=box.environment, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0.79" in pypdf.PdfReader(io.BytesIO(file.read_bytes())).pages[0].extract_text()
    assert box.cli("payments", "book", "acme", "0.40", "--command-id", "bank-1")["open"] == "0.39"
    assert box.cli("payments", "book", "acme", "0.40", "--command-id", "bank-1")["open"] == "0.39", "the same payment once"
    assert [one["amount"] for one in box.cli("payments", "list")["payments"]] == ["0.40"]
    note = box.cli("invoices", "credit-note", "INV-000001", "--call", case.call, "--reason", "sent twice")
    assert (note["number"], note["total"]) == ("CN-000001", "-0.79")
    states = {one["number"]: (one["state"], one["open"]) for one in box.cli("invoices", "list", "--account", "acme")["invoices"]}
    assert states == {"INV-000001": ("paid", "0.00"), "CN-000001": ("paid", "0.00")}
    again = box.cli("invoices", "credit-note", "INV-000001", "--call", case.call, "--reason", "twice", check=False)
    assert "nothing of these calls is charged any more" in again["error"]
    box.check_books()
    assert os.path.getsize(file) > 1_000


def test_an_open_invoice_is_paid_by_card(case: Case) -> None:
    """Asked for over HTTP, paid at Stripe, told by a webhook; then it is paid, and nothing is asked for again."""
    box, site, boss = case.box, case.site, case.keys["cardco"]
    reader = box.do("keys", "create", "--account", "cardco")["key"]
    (made,) = wait_until(lambda: box.get("/v1/invoices", key=boss).json()["data"], "the month is closed", timeout_s=30)
    where, once = f"/v1/invoices/{made['number']}/pay", {"idempotency-key": "june"}
    assert box.post(where, {}, key=reader).status == 403
    assert box.post("/v1/invoices/INV-000001/pay", {}, key=boss).status == 404, "another account's"
    assert box.post(f"/v1/invoices/{made['number']}/payed", {}, key=boss).status == 404
    refused = box.post(where, {"amount_usd": "0.10"}, key=boss)
    assert refused.status == 400 and "amount_usd" in refused.json()["error"]["message"]
    asked = box.post(where, {}, key=boss, headers=once)
    assert asked.status == 201, asked.body
    page = asked.json()["data"]
    assert (page["invoice"], page["status"], page["amount_usd"]) == (made["number"], "open", "0.79")
    assert page["url"].startswith("https://checkout.stripe.com/")
    again = box.cli("invoices", "pay", made["number"])
    assert set(again) == {"id", "account", "invoice", "amount", "state", "url", "session", "problem"}
    assert (again["id"], again["url"], again["amount"]) == (page["id"], page["url"], "0.79")
    paid = site.pay(again["session"])
    body = site.event("checkout.session.completed", site.objects[again["session"]])
    assert site.send(f"{box.base}/stripe/webhook", body, signature="t=1,v1=00") == 400, "nobody makes us believe it"
    site.deliver(f"{box.base}/stripe/webhook", paid)
    state = lambda: [one["state"] for one in box.get("/v1/invoices", key=boss).json()["data"]]  # noqa: E731
    wait_until(lambda: state() == ["paid"], "the invoice is paid")
    site.deliver(f"{box.base}/stripe/webhook", paid)
    assert box.post(where, {}, key=boss, headers=once).json()["data"]["status"] == "paid"
    refused = box.post(where, {}, key=boss)
    assert refused.status == 400 and f"nothing is open of `{made['number']}`" in refused.json()["error"]["message"]
    assert "nothing is open" in box.cli("invoices", "pay", made["number"], check=False)["error"]
    assert "there is no invoice `INV-9`" in box.cli("invoices", "pay", "INV-9", check=False)["error"]
    (card,) = box.cli("cards", "list", "--account", "cardco", "--state", "paid")["payments"]
    assert (card["id"], card["kind"], card["amount"], card["account_name"]) == (page["id"], "invoice", "0.79", "cardco")
    mine = box.cli("payments", "list", "--account", "cardco")["payments"]
    assert [one["amount"] for one in mine] == ["0.79"]
    box.check_books()
