"""A customer's story over HTTP, from sign-up to credit note, under a clock that is moved: after each step the books balance, and
what is left is what one would say.
"""

import asyncio
import secrets
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.support.callers import Fate
from tests.support.running import model, offer, provider
from tests.support.town import Town, Vendor, town

from farebox.billing.accounts import adjustments, budget_commands, signups
from farebox.billing.accounts.budget_commands import Change
from farebox.billing.books import customers, ledger
from farebox.billing.budgets import Budget
from farebox.billing.invoicing.credit_notes import credit_note
from farebox.gate import keys
from farebox.pepper import read_pepper
from farebox.storage.tables import accounts, outbox
from farebox.terms import invoice_terms, signup_rules
from farebox.wires.usage import Usage

DOLLAR = 1_000_000_000
MODEL = "l/m"
TEXT = "word " * 300
OUTPUT = 500
USED = {"prompt_tokens": 400, "completion_tokens": OUTPUT}
PRICE = 5_280_000
"""400 × $2 + 500 × $8 per million, and 10 %; nano-dollars."""
FREE = 60_000_000
TIERS = """
[limits]
tier = "free"
[tiers.free]
daily_spend = "0.10"
[tiers.paying]
paid = "5"
daily_spend = "50.00"
[signup]
credit = "0.06"
[invoices]
seller = "Example Ltd"
"""


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


class Customer:
    """Who the story is about."""

    def __init__(self, world: Town) -> None:
        self.world = world
        self.account, self.project = world.ids.new("acc"), world.ids.new("prj")
        self.secret, self.owner = (keys.make(secrets.token_bytes(32)) for _ in range(2))
        """The project's key, and the account's own, which may read all of its books."""
        self.calls: list[str] = []

    def sign_up(self) -> None:
        """As anybody would: an account named by the address, with the free credit of the configuration."""
        world = self.world
        rules = signup_rules(world.loaded)
        made = signups.sign_up(world.database, world.ids, rules, mail="ann+trial@acme.example", now_us=world.now_us)
        assert made.amount_nano == FREE
        self.account = made.account_id
        self.make_keys()

    def without_credit(self) -> None:
        """An account that an operator has made, and nobody has paid for."""
        world = self.world
        customers.create_account(world.database, id=self.account, name="stranger", kind="prepaid", now_us=world.now_us)
        self.make_keys()

    def make_keys(self) -> None:
        world = self.world
        customers.create_project(world.database, id=self.project, account_id=self.account, name="web", now_us=world.now_us)
        pepper = read_pepper(world.loaded)
        for secret, project in ((self.secret, self.project), (self.owner, "")):
            new = customers.NewKey(
                world.ids.new("key"), self.account, "k", keys.digest(secret, pepper), keys.hint(secret), project=project
            )
            customers.create_key(world.database, new, now_us=world.now_us)

    def credit(self, amount_nano: int, *, promo: bool = False) -> None:
        give = ledger.grant if promo else ledger.top_up
        world = self.world
        give(
            world.database, world.ids, command_id=world.ids.new("cmd"), account_id=self.account, amount_nano=amount_nano,
            now_us=world.now_us,
        )  # fmt: skip

    def budget(self, kind: str, amount_nano: int, window: str, **more: object) -> str:
        id = self.world.ids.new("bud")
        made = Budget(id, kind, amount_nano, window, **more)  # pyright: ignore[reportArgumentType]
        budget_commands.create_budget(self.world.database, self.account, made, now_us=self.world.now_us)
        return id

    async def call(self, *, stream: bool = False, surface: str = "chat") -> Fate:
        fate = await self.world.ask(self.secret, MODEL, stream=stream, surface=surface, text=TEXT, max_tokens=OUTPUT)
        if fate.status == 200 and fate.generation:
            self.calls.append(fate.generation)
        return fate

    async def paid(self, price: int = PRICE, *, stream: bool = False, surface: str = "chat") -> None:
        fate = await self.call(stream=stream, surface=surface)
        assert fate.status == 200 and fate.complete, fate.body
        assert Decimal(fate.cost_usd or "") == Decimal(price).scaleb(-9)

    async def soon(self, status: int) -> Fate:
        """A call that ends so, within a second of a change: until then another may."""
        deadline_us = self.world.clock.monotonic_us() + 3_000_000
        while (fate := await self.call()).status != status:
            assert self.world.clock.monotonic_us() < deadline_us, fate.body
            await asyncio.sleep(0.02)
        return fate


def refusal(fate: Fate) -> tuple[str, str, dict[str, object]]:
    error = fate.json()["error"]
    return error["code"], error["message"], error["farebox"]


async def test_from_sign_up_to_credit_note(tmp_path: Path) -> None:
    config = provider("lab", "{origin}/v1") + model(MODEL, offer("lab", "m", input="2.00", output="8.00"))
    vendor = Vendor(USED)
    start_us = at("2026-11-16T08:00")
    async with town(tmp_path / "box", config + TIERS, start_us, vendor, billing='markup_percent = "10"') as world:
        await tell(world, vendor, Customer(world))


async def tell(world: Town, vendor: Vendor, acme: Customer) -> None:
    given = 0

    async def step(spent: int) -> None:
        """The books balance, and what is left is what was given less what was spent."""
        await world.post()
        assert world.problems() == []
        assert world.left_nano(acme.account) == given - spent
        credits = (await world.get(acme.owner, "/v1/credits"))["data"]
        assert Decimal(str(credits["total_credits"])) - Decimal(str(credits["total_usage"])) == Decimal(given - spent).scaleb(-9)

    # Without a sign-up there is nothing without credit.
    stranger = Customer(world)
    stranger.without_credit()
    code, _, details = refusal(await stranger.call())
    assert code == "insufficient_quota"
    worst = int(Decimal(str(details["needed_usd"])).scaleb(9))

    # Sign-up: free credit, once an address however it is written.
    acme.sign_up()
    given += FREE
    await step(0)
    with pytest.raises(signups.SignupRefused, match="`ann@acme.example` has signed up before"):
        Customer(world).sign_up()
    await step(0)
    await acme.paid()
    await acme.paid(surface="messages")
    await acme.paid(stream=True)
    spent = len(acme.calls) * PRICE
    await step(spent)

    # A burst: as many calls as their worst cases fit, and everybody else is told what would.
    vendor.gate.clear()
    fits = (given - spent) // worst
    burst = [asyncio.create_task(acme.call(stream=n % 2 == 0)) for n in range(20)]
    await world.until(lambda: sum(task.done() for task in burst) == 20 - fits and vendor.waiting == fits, "the burst is sorted")
    vendor.gate.set()
    fates = await asyncio.gather(*burst)
    assert sorted(fate.status or 0 for fate in fates) == [200] * fits + [402] * (20 - fits)
    for code, message, details in (refusal(fate) for fate in fates if fate.status == 402):
        assert code == "insufficient_quota" and "the account `ann@acme.example`" in message
        assert "is only held by calls in flight" in message
        assert int(str(details["affordable_output_tokens"])) < OUTPUT
    spent += fits * PRICE
    await step(spent)

    # A top-up; then the free tier's day is used up.
    given += 10 * DOLLAR
    acme.credit(10 * DOLLAR)
    await acme.soon(200)
    full = await acme.soon(402)
    code, message, details = refusal(full)
    assert code == "budget_exceeded" and "the tier of the account `ann@acme.example`" in message
    assert details["resets_at"] == "2026-11-17T00:00:00Z"
    spent = len(acme.calls) * PRICE
    assert 100_000_000 - worst < spent <= 100_000_000, "to the last call that fits"
    # Whoever has paid so much is in a higher tier by the bookkeeper's next look.
    await step(spent)
    tier = world.database.read(lambda c: c.execute(select(accounts.c.tier).where(accounts.c.id == acme.account)).scalar_one())
    assert tier == "paying"
    await acme.soon(200)
    spent = len(acme.calls) * PRICE
    await step(spent)

    # A soft budget: each threshold is told once, and nobody is refused.
    soft = acme.budget("account", 10 * PRICE, "day", hard=False, name="eye")
    world.clock.jump_to(at("2026-11-17T08:00"))
    eye = f"budget:{soft}:2026-11-17"
    told: list[list[int]] = []
    while (thresholds(world, eye) or [0])[-1] < 100 and len(told) < 500:
        await acme.paid()
        await world.post()
        told.append(thresholds(world, eye))
    await acme.paid()
    await world.post()
    assert [seen for seen in ([50], [50, 80], [50, 80, 100]) if seen in told] == [[50], [50, 80], [50, 80, 100]]
    assert thresholds(world, eye) == [50, 80, 100], "each once"
    spent = len(acme.calls) * PRICE
    await step(spent)

    # A hard one, by the week of Berlin: the stop is exact, and ends with the week.
    hard = acme.budget("project", 3 * worst, "week", subject=acme.project, zone="Europe/Berlin")
    code, message, details = refusal(await acme.soon(402))
    assert code == "budget_exceeded" and "the project `web` for 2026-W47 in Europe/Berlin" in message
    assert details["resets_at"] == "2026-11-22T23:00:00Z" and details["zone"] == "Europe/Berlin"
    spent = len(acme.calls) * PRICE
    await step(spent)
    world.clock.jump_to(at("2026-11-22T22:59"))
    assert (await acme.call()).status == 402
    world.clock.jump_to(at("2026-11-22T23:00"))
    await acme.paid()
    budget_commands.change_budget(world.database, hard, Change(amount_nano=DOLLAR), now_us=world.now_us)
    spent += PRICE
    await step(spent)

    # A refund: the provider says that half of one answer was not counted right.
    refunded = acme.calls[-1]
    adjustments.adjust(
        world.database, world.ids, hold_id=refunded, attempt=1, exact=Usage(input=400, output=250), now_us=world.now_us
    )
    spent -= 2_200_000
    await step(spent)

    # A price that changes while a stream runs: the stream keeps its own.
    await world.cli("prices", "set", MODEL, "--provider", "lab", "--input", "4.00", "--output", "16.00", "--from", "2026-11-29")
    world.clock.jump_to(at("2026-11-28T23:59"))
    vendor.gate.clear()
    streaming = asyncio.create_task(acme.paid(PRICE, stream=True))
    await world.until(lambda: vendor.waiting == 1, "the stream runs")
    await step(spent)
    world.clock.jump_to(at("2026-11-29T00:00"))
    vendor.gate.set()
    await streaming
    # Calls that begin within a second may still have the old price; from the first with the new one on, all have it.
    deadline_us = world.clock.monotonic_us() + 3_000_000
    paid = Decimal(0)
    while paid != 2 * PRICE:
        fate = await acme.call()
        assert fate.status == 200 and world.clock.monotonic_us() < deadline_us, fate.body
        paid = Decimal(fate.cost_usd or "").scaleb(9)
        assert paid in (PRICE, 2 * PRICE)
        spent += int(paid)
        await asyncio.sleep(0.05)  # a quick machine would spend the project's dollar in this second
    await acme.paid(2 * PRICE)
    spent += PRICE + 2 * PRICE
    await step(spent)

    # The month closes while a call is under way: what it costs is late.
    november = spent
    vendor.gate.clear()
    late = asyncio.create_task(acme.paid(2 * PRICE, stream=True))
    await world.until(lambda: vendor.waiting == 1, "the late call is under way")
    world.clock.jump_to(at("2026-12-01T23:00"))
    await step(spent)
    assert (await world.get(acme.owner, "/v1/invoices"))["data"] == [], "within the grace nothing is closed"
    world.clock.jump_to(at("2026-12-02T00:01"))
    await step(spent)
    (first,) = (await world.get(acme.owner, "/v1/invoices"))["data"]
    document = await world.get(acme.owner, "/v1/invoices/INV-000001")
    assert (first["number"], first["month"], first["state"]) == ("INV-000001", "2026-11", "paid")
    assert Decimal(document["usage"]) == Decimal(november).scaleb(-9)
    lines = sum(Decimal(line["amount"]) for line in document["lines"])
    assert lines + Decimal(document["rounding"]) == Decimal(document["usage"])

    # Late usage goes to the next invoice, as what it is.
    vendor.gate.set()
    await late
    spent += 2 * PRICE
    await step(spent)
    assert await world.get(acme.owner, "/v1/invoices/INV-000001") == document, "what is closed stays as it is"
    await acme.paid(2 * PRICE)
    spent += 2 * PRICE
    world.clock.jump_to(at("2027-01-02T00:01"))
    await step(spent)
    second = await world.get(acme.owner, "/v1/invoices/INV-000002")
    assert {line["month"] for line in second["lines"]} == {"2026-11", "2026-12"}
    assert Decimal(second["usage"]) == Decimal(4 * PRICE).scaleb(-9)

    # A credit note takes one call back; the money is there again.
    note = credit_note(
        world.database, world.ids, number="INV-000001", calls=[acme.calls[0]], reason="a wrong answer",
        terms=invoice_terms(world.loaded), now_us=world.now_us,
    )  # fmt: skip
    assert (note.number, note.corrects, Decimal(note.usage)) == ("CN-000001", "INV-000001", -Decimal(PRICE).scaleb(-9))
    spent -= PRICE
    await step(spent)
    await acme.paid(2 * PRICE)
    spent += 2 * PRICE
    await step(spent)
    documents = (await world.get(acme.owner, "/v1/invoices"))["data"]
    assert sorted(one["number"] for one in documents) == ["CN-000001", "INV-000001", "INV-000002"]


def thresholds(world: Town, scope: str) -> list[int]:
    """Those that the outbox has of a scope, in the order in which they were told."""
    query = (
        select(outbox.c.threshold)
        .where(outbox.c.kind == "budget_threshold", outbox.c.subject == scope)
        .order_by(outbox.c.created_us, outbox.c.threshold)
    )
    return list(world.database.read(lambda c: c.execute(query).scalars().all()))
