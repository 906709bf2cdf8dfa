"""A budget for exactly m of 500 concurrent calls admits exactly m, in one process or two, to the nano-dollar."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.postgres import own_database
from tests.support.reconcile import read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.money import format_amount
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
    folder = tmp_path_factory.mktemp("box") / "box"
    with (
        own_database(postgres_server, "overshoot") as url,
        Farebox(folder, config=configuration(simulator.origin), workers=2, database_url=url) as running,
    ):
        yield running


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


def try_all(
    box: Farebox,
    key: str,
    scope: str,
    code: str,
    limit: int,
    m: int,
    headers: Mapping[str, str] | None = None,
    count: int = CONCURRENT,
) -> None:
    """500 at once: exactly m answers, everybody else is told why not, and not a nano-dollar too much."""
    fates = together(box.port, key, [ask() for _ in range(count)], headers)
    answered = [fate for fate in fates if fate.status == 200]
    refused = [fate for fate in fates if fate.status == 402]
    assert len(answered) + len(refused) == count, {(fate.status, fate.error, fate.body[:200]) for fate in fates}
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


@pytest.mark.parametrize(
    ("whose", "headers"),
    [
        ((), {}),
        (("--project", "web"), {}),
        pytest.param(("--end-user", "ann"), {"x-farebox-end-user": "ann"}, marks=pytest.mark.full),
        (("--end-user", "*"), {"x-openwebui-user-id": "u-7"}),
        (("--tag", "night"), {"x-farebox-tags": "batch, night"}),
        (("--model", "t/*"), {}),
        pytest.param(("--provider", "lab"), {}, marks=pytest.mark.full),
    ],
    ids=["account", "project", "end-user", "each-end-user", "tag", "models", "providers"],
)
def test_a_budget_for_m_calls_of_whatever_kind(
    box: Farebox, one_call: int, whose: tuple[str, ...], headers: dict[str, str], request: pytest.FixtureRequest
) -> None:
    """The same guarantee in every scope, beside two wider budgets that count every call, too."""
    if box.workers == 2 and not (os.environ.get("FAREBOX_FULL") or "*" in whose):
        pytest.skip("with two workers one kind is enough here; the full run has all")
    m = 3
    name = request.node.callspec.id.replace("[", "-")
    made = box.customer(name, credit_nano=1000 * one_call)
    key = made.secret
    if "--project" in whose:
        box.do("projects", "create", "web", "--account", name)
        key = box.do("keys", "create", "--account", name, "--project", "web")["key"]
    usd = format_amount(m * one_call + one_call // 10)
    box.do("budgets", "create", format_amount(900 * one_call), "--account", name, "--window", "none")
    box.do("budgets", "create", format_amount(900 * one_call), "--account", name, "--window", "day", "--zone", "Asia/Kolkata")
    budget = box.do("budgets", "create", usd, "--account", name, "--window", "week", "--name", "narrow", *whose)["id"]
    try_all(box, key, f"budget:{budget}", "budget_exceeded", m * one_call + one_call // 10, m, headers, count=120)
    listed = {one["id"]: one for one in box.do("budgets", "list", "--account", name)["budgets"]}
    spent = {nano(one["spent"]) for one in listed.values()}
    assert len(listed) == 3 and len(spent) == 1 and spent != {0}, "all three counted the same calls"
    if headers:
        for usual in ({}, {"x-farebox-end-user": "bob", "x-farebox-tags": "day"}):
            (fate,) = together(box.port, key, [ask()], usual)
            assert fate.status == 200, "who is somebody else, or nobody, is not limited by it"
    told = box.post("/v1/chat/completions", ask()[1], key=key, headers=headers).json()["error"]
    assert told["code"] == "budget_exceeded" and "the budget `narrow` of the" in told["message"], told


def test_a_soft_budget_refuses_nothing(box: Farebox, one_call: int) -> None:
    made = box.customer("soft", credit_nano=10 * one_call)
    box.do("budgets", "create", "0.01", "--account", "soft", "--soft")
    for _ in range(2):
        assert box.post("/v1/chat/completions", ask()[1], key=made.secret).status == 200


def test_a_budget_follows_its_owner_within_a_second(box: Farebox, one_call: int) -> None:
    made = box.customer("changing", credit_nano=10 * one_call)
    budget = box.do("budgets", "create", "0.001", "--account", "changing")["id"]

    def status() -> int:
        return box.post("/v1/chat/completions", ask()[1], key=made.secret).status

    assert status() == 402
    box.cli("budgets", "update", budget, format_amount(2 * one_call))
    wait_until(lambda: status() == 200, "a raised budget lets calls through", timeout_s=3)
    box.cli("budgets", "update", budget, "0.001")
    wait_until(lambda: status() == 402, "a lowered one refuses them", timeout_s=3)
    box.cli("budgets", "remove", budget)
    wait_until(lambda: status() == 200, "a removed one limits nothing", timeout_s=3)


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
