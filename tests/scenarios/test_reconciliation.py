"""A day of real calls, the provider's own bill of it as an invoice with faults, and the books afterwards: what we owe is what it
says, to the nano-dollar, whenever `farebox reconcile approve` was killed."""

import asyncio
import csv
import json
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, call
from tests.support.reconcile import cost, rates
from tests.support.running import model, offer, provider
from tests.support.town import Town, Vendor, town

from farebox.money import format_amount, parse_amount
from farebox.simulator.bill import BilledAttempt
from farebox.simulator.testing import SimulatorProcess

DAY_US = 86_400_000_000
PRICE = {"input": "2.50", "cached_input": "0.25", "output": "10.00"}
RATES = rates(**PRICE)
OFFERS = {
    "r/answers": "sim+tokens=24",
    "r/thinks": "sim+thinking=20+tokens=12",
    "r/cached": "sim+prompt=90+cached=64+tokens=9",
    "r/slow": "sim+tokens=12+delay-chunk=40ms",
    "r/dies": "sim+tokens=40+reset-after=12",
    "r/silent-usage": "sim+tokens=11+usage=missing",
    "r/runs-on": "sim+tokens=60+delay-chunk=3ms+ignore-hangup",
    "r/refuses": "sim+status=503+times=1+tokens=5",
}
COLUMNS = ("day", "model", "key", "request_id", "cost_usd", "input", "cache_read", "output", "reasoning")
Invoice = list[dict[str, Any]]


def configuration(origin: str) -> str:
    text = "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n[attempts]\nbackoff_ms = 10\nbackoff_max_ms = 20\n"
    text += provider("lab", f"{origin}/v1", extra="abort_stops_billing = false")
    return text + "".join(model(slug, offer("lab", id, **PRICE)) for slug, id in OFFERS.items())


async def calls(world: Town) -> None:
    """Calls before, over and after a midnight; some of their callers go away."""
    key = (await asyncio.to_thread(world.box.customer, "acme", credit_nano=100_000_000_000)).secret
    for slug in OFFERS:
        for stream in (True, False):
            await world.ask(key, slug, stream=stream, max_tokens=100)
    for slug in ("r/runs-on", "r/slow"):
        fate = Fate("chat", slug, True, leave_after=400)
        await call(world.port, key, fate, body_for("chat", slug, stream=True, max_tokens=100), {})
    flying = [asyncio.create_task(world.ask(key, "r/slow", stream=True, max_tokens=100)) for _ in range(3)]
    await asyncio.sleep(0.15)
    world.clock.jump_to((world.now_us // DAY_US + 1) * DAY_US)
    await asyncio.gather(*flying)
    for _ in range(6):
        await world.ask(key, "r/answers", max_tokens=100)


def invoice(bill: list[BilledAttempt], day_of: Callable[[str], str]) -> Invoice:
    """The true bill, line by line."""
    lines: Invoice = []
    for one in bill:
        usage = {name: getattr(one.usage, name) for name in one.usage.__struct_fields__ if getattr(one.usage, name)}
        if usage:
            counts = {name: usage.get(name, 0) for name in COLUMNS[5:]}
            lines.append(
                {
                    "day": day_of(one.id), "model": one.model, "key": "key_lab", "request_id": one.id, **counts,
                    "cost_usd": format_amount(cost(usage, RATES)),
                }
            )  # fmt: skip
    return lines


def faults(clean: Invoice) -> tuple[Invoice, dict[str, str]]:
    """The invoice with a fault of each kind, and how each has to be found."""
    lines = [dict(line) for line in clean]
    usual = [line for line in lines if line["model"] == OFFERS["r/answers"]]
    gone, dearer, longer, twice, *_ = usual
    lines.remove(gone)
    dearer["cost_usd"] = format_amount(parse_amount(dearer["cost_usd"]) + 1)
    longer["output"] += 5
    longer["cost_usd"] = format_amount(parse_amount(longer["cost_usd"]) + 50_000)
    lines += [twice, {**twice, "request_id": "req-nobody"}, {**twice, "request_id": "req-strange", "model": "other-9"}]
    random.Random(7).shuffle(lines)
    return lines, {
        gone["request_id"]: "missing_there", dearer["request_id"]: "price_drift", longer["request_id"]: "units_differ",
        twice["request_id"]: "billed_twice", "req-nobody": "missing_here", "req-strange": "unknown_model",
    }  # fmt: skip


def write(path: Path, lines: Invoice) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    return str(path)


def by_day(lines: Invoice) -> list[dict[str, Any]]:
    """The same as OpenAI tells it: usage and costs in buckets of a day."""
    pages: list[dict[str, Any]] = []
    for kind in ("usage", "costs"):
        buckets = []
        for day in sorted({line["day"] for line in lines}):
            start = int(time.mktime(time.strptime(day + " UTC", "%Y-%m-%d %Z"))) - time.timezone
            results: list[Any] = []
            for line in lines:
                if line["day"] != day:
                    continue
                if kind == "usage":
                    results.append(
                        {
                            "object": "organization.usage.completions.result", "input_tokens": line["input"] + line["cache_read"],
                            "input_cached_tokens": line["cache_read"], "output_tokens": line["output"] + line["reasoning"],
                            "num_model_requests": 1, "model": line["model"], "api_key_id": line["key"],
                        }
                    )  # fmt: skip
                else:
                    amount = {"value": float(line["cost_usd"]), "currency": "usd"}
                    results.append(
                        {"object": "organization.costs.result", "amount": amount, "line_item": f"{line['model']}, output"}
                    )
            buckets.append({"start_time": start, "end_time": start + 86_400, "results": results})
        pages.append({"object": "page", "data": buckets, "has_more": False, "next_page": None})
    return pages


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
async def test_what_we_owe_is_what_the_invoice_says(
    tmp_path: Path, fresh_database: Callable[[], str]
) -> None:
    start_us = (time.time_ns() // 1_000 // DAY_US - 2) * DAY_US - 60_000_000
    url, vendor = fresh_database(), Vendor({})
    async with AsyncExitStack() as stack:
        simulator = stack.enter_context(SimulatorProcess(bill_path=tmp_path / "bill.jsonl"))
        config = configuration(simulator.origin)
        world = await stack.enter_async_context(
            town(tmp_path / "box", config, start_us, vendor, database_url=url)
        )
        await calls(world)
        await world.until(lambda: all(one.final for one in simulator.bill()), "the provider has ended every call")
        await world.until(lambda: not world.worker.books.holds.open_count, "every call is settled")
        await world.post()
        rows = {one["id"]: one for one in await days(world)}
        clean = invoice(simulator.bill(), lambda id: rows[id]["day"])
        await compare_and_approve(world, tmp_path, clean)


async def days(world: Town) -> list[dict[str, str]]:
    """The day on which the provider puts each request: where it began, or where it ended."""
    from farebox.reconciliation import records
    from farebox.reconciliation.figures import day_in
    from farebox.reconciliation.reading import zone_of

    day_of, chance = day_in(zone_of("UTC")), random.Random(3)
    found = world.database.read(lambda connection: list(records.attempts(connection, "lab", 0, 2**62)))
    assert len({(day_of(one.started_us), day_of(one.ended_us)) for one in found}) == 3, "two days, and calls over midnight"
    return [{"id": one.request_id, "day": day_of(chance.choice((one.started_us, one.ended_us)))} for one in found]


def owed(world: Town) -> int:
    from sqlalchemy import text

    query = (
        "SELECT COALESCE(SUM(CASE WHEN credit = 'provider_payable:lab' THEN amount_nano ELSE -amount_nano END), 0) "
        "FROM transfers WHERE 'provider_payable:lab' IN (debit, credit)"
    )
    return int(world.database.read(lambda connection: connection.execute(text(query)).scalar_one()))


async def compare_and_approve(world: Town, folder: Path, clean: Invoice) -> None:
    # The true bill: nothing but what our own rows say that they do not know.
    first = await cli(world, "--file", write(folder / "true.csv", clean))
    assert set(first["kinds"]) == {"estimate"}, first["kinds"]
    estimates = {one["request_id"]: "estimate" for one in first["findings"]}
    # The invoice, with faults.
    lines, wanted = faults(clean)
    path = write(folder / "usage.csv", lines)
    made = await cli(world, "--file", path)
    assert {one["request_id"]: one["kind"] for one in made["findings"]} == {**estimates, **wanted}
    total = sum(parse_amount(line["cost_usd"]) for line in lines)
    run = made["run"]["id"]
    assert made["run"]["statement_cost"] == format_amount(total) and owed(world) != total
    # Killed before and after the commit, and done again.
    before = owed(world)
    for point, after in (("reconcile.before_commit", before), ("reconcile.after_commit", total)):
        world.box.environment["FAREBOX_FAILPOINT"] = point
        assert await world.cli("reconcile", "approve", run, check=False) == {"error": ""}, "it was killed"
        assert owed(world) == after
    del world.box.environment["FAREBOX_FAILPOINT"]
    assert (await world.cli("reconcile", "approve", run))["approved"] == []
    assert owed(world) == total and world.problems() == []
    # The same as sums by day, model and key.
    usage, costs = by_day(lines)
    (folder / "usage.json").write_text(json.dumps(usage))
    (folder / "costs.json").write_text(json.dumps(costs))
    summed = await cli(world, "--file", str(folder / "usage.json"), "--file", str(folder / "costs.json"))
    assert [one for one in summed["findings"] if one["kind"] != "rounding"] == []


async def cli(world: Town, *words: str) -> Any:
    return await world.cli("reconcile", "--provider", "lab", "--key", "key_lab=lab#1", *words, check=False)
