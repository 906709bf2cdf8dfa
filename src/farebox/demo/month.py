"""The month, from the first call to the payment of its invoice."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select

from farebox.billing.books.periods import month_before, month_bounds, month_of
from farebox.billing.invoicing.invoices import Document
from farebox.config import Loaded
from farebox.control import channels, deliveries
from farebox.demo import happenings
from farebox.demo.clock import MonthClock
from farebox.demo.founding import Founded, found, make_folder
from farebox.demo.organisation import KEYS
from farebox.demo.receiver import Receiver
from farebox.demo.stage import Stage, stage
from farebox.demo.traffic import DAY_US, Planned, Traffic, briefing, plan
from farebox.ports import Clock
from farebox.simulator import SimulatorConfig, start
from farebox.storage.tables import outbox
from farebox.transport import Prepared

ALERTS_NAME = "alerts.jsonl"
ANSWER_TOKENS_MAX = 1_200
HOUR_US = 3_600_000_000
TOLD_S = 20.0
"""How long is waited for alerts that are on their way."""
_TOOL = {"name": "find_ticket", "description": "Look a ticket up."}
_TOOL_PARAMETERS = {"type": "object", "properties": {"number": {"type": "integer"}, "line": {"type": "string"}}}

Tell = Callable[[str, int, int], None]
"""What is being done, calls made, calls in all."""


class Played(msgspec.Struct, frozen=True):
    """What came of it. Everything else stands in the books."""

    loaded: Loaded
    account: str
    month: str
    provider_port: int
    statuses: dict[int, int]
    """How many calls ended with which. What was refused (over budget, a mistyped model, a prompt too long) cost nothing."""
    invoice: Document
    credit_note: Document


def month_to_play(clock: Clock) -> str:
    """The last month whose whole story, its payment included, is in the past."""
    return month_before(month_of(clock.now_us() - happenings.LAST_DAY * DAY_US))


async def play(folder: Path, environment: dict[str, str], *, real: Clock, calls: int, seed: int, tell: Tell) -> Played:
    """Play the month into a fresh folder; the gateway has ended when it returns."""
    month = month_to_play(real)
    start_us = month_bounds(month)[0]
    traffic = plan(month, calls, seed)
    clock = MonthClock(real, start_us)
    simulator = await start(
        SimulatorConfig(seed=seed % 2**63, any_model=True, bill_sync=False, answer_tokens_max=ANSWER_TOKENS_MAX)
    )
    try:
        loaded = await asyncio.to_thread(make_folder, folder, environment, simulator.port, calls)
        async with Receiver(folder / ALERTS_NAME) as receiver, stage(loaded, clock, seed, simulator) as on:
            founded = found(on, traffic, receiver.url)
            await on.notice()
            counts = await _call_all(on, traffic, founded, seed, start_us, tell)
            tell("closing the month", calls, calls)
            invoice = await happenings.close(on, founded, month)
            note = happenings.take_back(on, founded, invoice, month)
            happenings.pay(on, founded, invoice, note, month)
            await on.post()
            await _told(on)
            channels.remove_channel(on.database, founded.channel, now_us=on.now_us)
    finally:
        await simulator.close()
    return Played(loaded, founded.account, month, simulator.port, counts, invoice, note)


async def _call_all(
    on: Stage, traffic: Traffic, founded: Founded, seed: int, start_us: int, tell: Tell
) -> dict[int, int]:
    """Every call at its time, and what happens between them; how many had which status."""
    faults = happenings.plan_faults(traffic, start_us)
    script = _script(on, start_us)
    due_us, act = next(script)
    ways = [_way(on, index, secret) for index, secret in enumerate(founded.secrets)]
    briefings = [briefing(index, seed) for index in range(len(KEYS))]
    counts: dict[int, int] = {}
    hour = 0
    for at, one in enumerate(traffic.calls):
        if hour != one.at_us // HOUR_US:
            # Before the hour is left: what it came to is looked at while it is this hour.
            await on.post()
            hour = one.at_us // HOUR_US
        while due_us <= one.at_us:
            on.clock.move_to(due_us)
            act()
            await on.notice()
            due_us, act = next(script)
        on.clock.move_to(one.at_us)
        if at == faults.outage[0]:
            await happenings.outage(on)
        elif at == faults.outage[1]:
            await happenings.recovery(on)
        if at in faults.once:
            await happenings.hiccup(on, faults.once[at])
        status, _ = await on.call(ways[one.key], _body(one, briefings[one.key], seed))
        counts[status] = counts.get(status, 0) + 1
        tell("playing the month", at + 1, len(traffic.calls))
    await on.post()
    return counts


def _script(on: Stage, start_us: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """What happens between calls, with its time."""
    proposals: list[str] = []

    def announce() -> None:
        proposals.extend(happenings.announce(on, start_us))

    yield start_us + happenings.PROPOSED_DAY * DAY_US + 9 * HOUR_US, announce
    yield start_us + happenings.APPROVED_DAY * DAY_US + 10 * HOUR_US, lambda: happenings.approve(on, tuple(proposals))
    while True:
        yield 2**63, lambda: None


def _way(on: Stage, key: int, secret: str) -> Prepared:
    if KEYS[key].surface == "messages":
        return on.way("/v1/messages", [("x-api-key", secret), ("anthropic-version", "2023-06-01")])
    return on.way("/v1/chat/completions", [("authorization", f"Bearer {secret}")])


def _body(one: Planned, instructions: str, seed: int) -> bytes:
    key = KEYS[one.key]
    question = {"role": "user", "content": one.text(seed)}
    body: dict[str, object] = {"model": one.model_sent, "max_tokens": key.answer_max}
    if one.stream:
        body["stream"] = True
    if key.surface == "messages":
        body["messages"] = [question]
        if instructions:
            body["system"] = [{"type": "text", "text": instructions, "cache_control": {"type": "ephemeral"}}]
        if one.tools:
            body["tools"] = [{**_TOOL, "input_schema": _TOOL_PARAMETERS}]
        if one.end_user:
            body["metadata"] = {"user_id": one.end_user}
        return msgspec.json.encode(body)
    body["messages"] = [{"role": "system", "content": instructions}, question] if instructions else [question]
    if one.tools:
        body["tools"] = [{"type": "function", "function": {**_TOOL, "parameters": _TOOL_PARAMETERS}}]
    if one.end_user:
        body["user"] = one.end_user
    return msgspec.json.encode(body)


async def _told(on: Stage) -> None:
    """Wait until the courier has told everything, or for so long: what it has not told by then is in the outbox all the same."""
    waiting = select(outbox.c.id).where(outbox.c.sent_us.is_(None)).limit(1)

    def left(connection: Connection) -> bool:
        unrouted = connection.execute(waiting).one_or_none() is not None
        return unrouted or bool(deliveries.listed(connection, state="pending"))

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TOLD_S):
            while on.database.read(left):
                await asyncio.sleep(0.05)
