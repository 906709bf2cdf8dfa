"""A budget for exactly m of 500 concurrent calls admits exactly m, in one process or two, to the nano-dollar."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.reconcile import read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

CONCURRENT = 500
MANY = (0, 1, 7, 37)
OUTPUT = 6000
"""Every call asks for so many tokens at most and gets them all: what its settlement frees is so little, the bound of its input
less what was counted, that all of them together free less than one more call needs."""
MODEL = "t/slow"


def configuration(origin: str) -> str:
    text = (
        provider("lab", f"{origin}/v1", extra="output_limit_field = 'max_tokens'") + "[limits]\nrequests_per_minute = 1000000\n"
    )
    # The answer takes a moment: every call that is admitted holds its money while the others ask.
    return text + model(MODEL, offer("lab", f"sim+tokens={OUTPUT}+delay-first=1s"), output=OUTPUT)


def ask(surface: str = "chat") -> tuple[Fate, dict[str, Any]]:
    return Fate(surface, MODEL, False), body_for(surface, MODEL, stream=False, max_tokens=OUTPUT)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(bill_path=tmp_path_factory.mktemp("overshoot") / "bill.jsonl") as running:
        yield running


def many(box: Farebox, *by_two_workers: int) -> tuple[int, ...]:
    """Every m with one worker, some (in the full run all) with two."""
    return MANY if box.workers == 1 or os.environ.get("FAREBOX_FULL") else by_two_workers


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"], scope="module")
def box(
    request: pytest.FixtureRequest, simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farebox]:
    """With one worker on SQLite, and two of them."""
    folder = tmp_path_factory.mktemp("box") / "box"
    with Farebox(folder, config=configuration(simulator.origin), workers=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def postgres_box(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory, postgres_server: str
) -> Iterator[Farebox]:
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE overshoot TEMPLATE farebox_template")
    url = postgres_server.replace("/postgres?", "/overshoot?")
    folder = tmp_path_factory.mktemp("box") / "box"
    with Farebox(folder, config=configuration(simulator.origin), workers=2, database_url=url) as running:
        yield running
        running.kill()
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE overshoot WITH (FORCE)")


def books_url(box: Farebox) -> str:
    line = next(line for line in box.config_path.read_text().splitlines() if line.startswith("url = "))
    url = line.split('"')[1]
    return f"sqlite:///{box.folder / 'farebox.db'}" if url.startswith("sqlite") else url


def nano(usd_text: str) -> int:
    whole, _, fraction = usd_text.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0") or 0)


def hold_of_one_call(box: Farebox) -> int:
    """What one call's worst case comes to: told by the refusal of somebody who has nothing."""
    _, body = ask()
    reply = box.post("/v1/chat/completions", body, key=box.customer("penniless").secret)
    assert reply.status == 402
    return nano(reply.json()["error"]["farebox"]["needed_usd"])


def try_all(box: Farebox, key: str, scope: str, code: str, limit: int, m: int) -> None:
    """500 at once: exactly m answers, everybody else is told why not, and not a nano-dollar too much."""
    fates = together(box.port, key, [ask() for _ in range(CONCURRENT)])
    answered = [fate for fate in fates if fate.status == 200]
    refused = [fate for fate in fates if fate.status == 402]
    assert len(answered) + len(refused) == CONCURRENT, {(fate.status, fate.error, fate.body[:200]) for fate in fates}
    assert len(answered) == m
    for fate in refused:
        error = fate.json()["error"]
        details = error["farebox"]
        assert error["code"] == code
        assert fate.header("x-should-retry") == "false"
        assert details["scope"].startswith(scope)
        assert 0 <= details["affordable_output_tokens"] < OUTPUT
        assert nano(details["spent_usd"]) + nano(details["held_usd"]) <= limit
    url = books_url(box)
    generations = {fate.generation for fate in answered}
    wait_until(lambda: generations <= {row.hold for row in read_books(url).rows}, "the answered calls are posted")
    books = read_books(url)
    charged = [row.charge for row in books.rows if row.hold in generations]
    assert sum(charged) == sum(nano(fate.cost_usd or "") for fate in answered) <= limit
    for id, (bound, posted, allotted) in books.scopes.items():
        assert posted + allotted <= bound, f"{id}: {posted} + {allotted} of {bound}"


@pytest.fixture(scope="module")
def one_call(box: Farebox) -> int:
    return hold_of_one_call(box)


def test_an_account_with_credit_for_m_calls(box: Farebox, one_call: int) -> None:
    for m in many(box, 7, 37):
        limit = m * one_call + one_call // 10 if m else one_call - 1
        key = box.customer(f"account-{m}", credit_nano=limit).secret
        try_all(box, key, "account:", "insufficient_quota", limit, m)


def test_a_key_with_a_budget_for_m_calls(box: Farebox, one_call: int) -> None:
    """Exactly m holds, to the nano-dollar; the account has plenty."""
    for m in many(box, 1, 7):
        limit = m * one_call if m else one_call - 1
        made = box.customer(f"key-{m}", credit_nano=1000 * one_call, budget_nano=limit)
        try_all(box, made.secret, f"key:{made.id}", "budget_exceeded", limit, m)


def test_two_workers_on_postgresql(postgres_box: Farebox) -> None:
    box = postgres_box
    one = hold_of_one_call(box)
    key = box.customer("shared", credit_nano=7 * one).secret
    try_all(box, key, "account:", "insufficient_quota", 7 * one, 7)
    box.check_books()


def test_the_books_after_it_all(box: Farebox) -> None:
    assert box.stop() == 0, box.log()
    books = read_books(books_url(box))
    assert books.allotted == 0
    assert {kind for kind, _ in books.outbox} <= {"budget_threshold"}, "the poster refused or reduced nothing"
    box.check_books()
