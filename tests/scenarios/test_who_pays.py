"""Who pays for what (billing.md §4): a story per row, with the caller's whole answer, the provider's attempts and the bill."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import reconcile
from tests.support.callers import Fate, body_for, call
from tests.support.reconcile import Books, Row, Truth, price, read_bill, read_books
from tests.support.running import Farebox, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

PRICES = reconcile.rates(cached_input="1.25")
CHEAP = reconcile.rates(input="0.50", output="2.00")
"""The offer that is tried first, where there are two."""
MARKUP_BP = 550

ONE: dict[str, str] = {
    # model → what its only offer does
    "w/plain": "sim+tokens=10+thinking=4+cached=3",
    "w/bad-request": "sim+status=400",
    "w/unauthorised": "sim+status=401",
    "w/limited": "sim+status=429",
    "w/limited-once": "sim+tokens=5+status=429+retry-after=1+times=1",
    "w/limited-long": "sim+status=429+retry-after=600",
    "w/overloaded-twice": "sim+tokens=5+status=503+times=2",
    "w/no-retry": "sim+status=503+should-retry=false",
    "w/slow": "sim+tokens=200+delay-chunk=20ms",
    "w/dies": "sim+tokens=30+reset-after=7",
    "w/error-in-stream": "sim+tokens=30+error-in-stream=7",
    "w/error-in-200": "sim+error-in-200",
    "w/base-resp": "sim+error-in-200=base-resp",
    "w/html": "sim+html",
    "w/no-done": "sim+tokens=6+no-done",
    "w/malformed": "sim+tokens=12+malformed-event=4",
    "w/stalls": "sim+tokens=30+stall-after=6",
    "w/stalls-at-once": "sim+tokens=30+stall-after=0",
    "w/cut": "sim+tokens=30+cut-at-byte=900",
    "w/usage-missing": "sim+tokens=20+usage=missing",
    "w/usage-null": "sim+tokens=20+usage=null",
    "w/usage-duplicate": "sim+tokens=20+usage=duplicate",
    "w/usage-negative": "sim+tokens=20+usage=negative",
    "w/usage-huge": "sim+tokens=20+usage=huge",
    "w/usage-string": "sim+tokens=20+usage=string",
    "w/usage-nan": "sim+tokens=20+usage=nan",
    "w/usage-fractional": "sim+tokens=20+usage=fractional",
    "w/content-filter": "sim+tokens=20+content-filter",
}
STUBBORN = {"w/runs-on": "sim+tokens=60+delay-chunk=10ms+ignore-hangup"}
TWO: dict[str, str] = {
    # model → what its first, cheaper offer does; the second one answers
    "w/early-error": "sim+error-before-content",
    "w/first-down": "sim+status=503",
    "w/first-refuses-us": "sim+status=401",
    "w/first-resets": "sim+reset-before-headers",
    "w/first-garbage": "sim+html",
    "w/first-dies": "sim+tokens=30+reset-after=5",
}


def configuration(origin: str) -> str:
    chat = f"{origin}/v1"
    text = provider("lab", chat, extra="abort_stops_billing = true") + provider("cheap", chat)
    text += provider("cheap-stranger", chat)  # refuses our key, which is then left alone for all its models
    text += provider("stubborn", chat, extra="abort_stops_billing = false")
    text += "[health]\nfailures_in_a_row = 1000000\nsamples_min = 1000000\n"  # every story begins with a well provider
    text += "[attempts]\nbackoff_ms = 20\nbackoff_max_ms = 50\nchunk_s = 1.0\nheaders_s = 5.0\n"
    text += '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    price_of = {"input": "2.50", "cached_input": "1.25", "output": "10.00"}
    for slug, id in ONE.items():
        text += model(slug, offer("lab", id, **price_of))
    text += model("w/dear", offer("lab", "sim", input="2.50", output="999999"))
    for slug, id in STUBBORN.items():
        text += model(slug, offer("stubborn", id, **price_of))
    for slug, id in TWO.items():
        first = "cheap-stranger" if slug == "w/first-refuses-us" else "cheap"
        text += model(slug, offer(first, id, input="0.50", output="2.00"), offer("lab", "sim+tokens=9", **price_of))
    return text


class World:
    """A gateway, a provider, and one call at a time."""

    def __init__(self, box: Farebox, provider: SimulatorProcess) -> None:
        self.box = box
        self.provider = provider
        self.url = f"sqlite:///{box.folder / 'farebox.db'}"

    def ask(self, slug: str, *, stream: bool = True, leave_after: int | None = None, **fields: Any) -> Fate:
        fields.setdefault("max_tokens", 300)
        fate = Fate("chat", slug, stream, leave_after)
        return asyncio.run(call(self.box.port, self.box.key, fate, body_for("chat", slug, stream=stream, **fields)))

    def rows(self, fate: Fate) -> list[Row]:
        """The call's usage rows, once they are posted. A refused call has its id only in the request id."""
        hold = fate.generation or "gen" + str(fate.header("x-request-id"))[3:]

        def posted() -> list[Row]:
            return read_books(self.url).call(hold)

        return wait_until(posted, f"{hold} is posted")

    def truths(self, rows: list[Row]) -> list[Truth]:
        """What the provider saw of each attempt, once it has finished with it."""

        def finished() -> list[Truth] | None:
            bill = read_bill(self.provider.bill_path)
            found = [bill[row.name] for row in rows if row.name in bill]
            return found if all(truth.reason != "unfinished" for truth in found) else None

        return wait_until(finished, "the provider has finished")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("who-pays")
    with (
        SimulatorProcess(bill_path=folder / "bill.jsonl") as running,
        Farebox(folder / "box", config=configuration(running.origin), billing='markup_percent = "5.5"\ndrain_s = 10.0') as box,
    ):
        yield World(box, running)


def told_nano(fate: Fate) -> int:
    whole, _, fraction = (fate.cost_usd or "").partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


def events(fate: Fate) -> list[Any]:
    lines = [line[6:] for line in fate.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(fate: Fate) -> str:
    if not fate.stream:
        return fate.json()["choices"][0]["message"]["content"]
    choices = [choice for event in events(fate) for choice in event.get("choices") or ()]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def error_of(fate: Fate) -> Any:
    """The error object of a refused call, or of a stream's last event."""
    return fate.json()["error"] if fate.status != 200 else events(fate)[-1]["error"]


def assert_exact(fate: Fate, rows: list[Row], truths: list[Truth], *flags: str) -> None:
    """One attempt, everything reported, the exact price, and the caller was told it."""
    assert fate.complete and len(rows) == len(truths) == 1
    row, truth = rows[0], truths[0]
    assert (row.state, row.outcome, row.basis, row.flags) == ("settled", "ok", "reported", flags)
    assert row.usage == truth.usage
    assert row.cost == reconcile.cost(truth.usage, PRICES)
    assert row.charge == price(truth.usage, PRICES, MARKUP_BP) == told_nano(fate)
    assert row.loss == 0


def assert_free(fate: Fate, rows: list[Row]) -> None:
    assert not fate.complete
    assert [row.charge for row in rows] == [0] * len(rows)
    assert rows[-1].state == "voided" and rows[-1].final


# --- finished -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_finished_with_usage_is_charged_exactly(world: World, stream: bool) -> None:
    fate = world.ask("w/plain", stream=stream)
    rows = world.rows(fate)
    assert_exact(fate, rows, world.truths(rows))
    assert rows[0].usage is not None and rows[0].usage["reasoning"] == 4 and rows[0].usage["cache_read"] == 3
    assert len(text_of(fate).split()) == 10
    assert fate.header("x-farebox-attempts") == "1"
    assert fate.header("x-farebox-provider") == "lab" and fate.header("x-farebox-model") == "w/plain"
    if not stream:
        assert fate.header("x-farebox-cost-usd") == fate.cost_usd


def test_a_filtered_answer_is_a_finished_one(world: World) -> None:
    fate = world.ask("w/content-filter", stream=False)
    rows = world.rows(fate)
    assert_exact(fate, rows, world.truths(rows))
    assert fate.json()["choices"][0]["finish_reason"] == "content_filter"


# --- refused ------------------------------------------------------------------------------------------------------------


def test_a_bad_request_costs_nobody_anything(world: World) -> None:
    fate = world.ask("w/bad-request")
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 400 and error_of(fate)["code"] == "invalid_request"
    assert [(row.outcome, row.cost, row.words["status"]) for row in rows] == [("http_error", 0, 400)], "it is not tried again"


def test_a_provider_that_refuses_us_is_our_problem(world: World) -> None:
    fate = world.ask("w/unauthorised")
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 502 and [row.words["status"] for row in rows] == [401], "its callers are not to blame"
    assert fate.header("x-should-retry") == "false"


def test_a_limited_provider_is_asked_three_times_at_most(world: World) -> None:
    fate = world.ask("w/limited")
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 429 and error_of(fate)["code"] == "provider_rate_limited"
    assert [(row.attempt, row.cost) for row in rows] == [(1, 0), (2, 0), (3, 0)]
    assert [attempt["status"] for attempt in error_of(fate)["farebox"]["attempts"]] == [429] * 3
    assert [truth.reason for truth in world.truths(rows)] == ["refused"] * 3


def test_retry_after_is_honoured(world: World) -> None:
    fate = world.ask("w/limited-once", stream=False)
    rows = world.rows(fate)
    assert fate.status == 200 and fate.header("x-farebox-attempts") == "2"
    assert [(row.outcome, row.charge > 0) for row in rows] == [("http_error", False), ("ok", True)]
    waited_us = rows[1].words["started_us"] - rows[0].words["ended_us"]
    assert waited_us > 990_000, "the second attempt came before the provider allowed it"
    truth = world.truths(rows)[1]
    assert rows[1].charge == price(truth.usage, PRICES, MARKUP_BP) == told_nano(fate)


def test_a_long_retry_after_is_handed_on(world: World) -> None:
    fate = world.ask("w/limited-long")
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 429 and len(rows) == 1 and fate.header("retry-after") == "600"


def test_two_failures_and_an_answer(world: World) -> None:
    fate = world.ask("w/overloaded-twice", stream=False)
    rows = world.rows(fate)
    assert fate.header("x-farebox-attempts") == "3"
    assert [(row.outcome, row.charge, row.cost) for row in rows[:2]] == [("http_error", 0, 0)] * 2
    assert rows[2].charge == price(world.truths(rows)[2].usage, PRICES, MARKUP_BP) == told_nano(fate)


def test_a_provider_that_says_do_not_retry_is_not_asked_again(world: World) -> None:
    fate = world.ask("w/no-retry")
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 503 and len(rows) == 1


# --- the client leaves --------------------------------------------------------------------------------------------------


def test_client_gone_and_the_provider_honours_that(world: World) -> None:
    fate = world.ask("w/slow", leave_after=1_500)
    rows = world.rows(fate)
    assert [(row.state, row.outcome, row.basis) for row in rows] == [("settled", "client_gone", "observed")]
    (truth,) = world.truths(rows)
    assert truth.reason == "client_gone" and truth.usage["output"] < 200, "we hung up, so the provider stopped"
    row = rows[0]
    assert "estimated" in row.flags and row.usage is not None
    assert 0 < row.usage["output"] < 200
    assert row.charge == price(row.usage, PRICES, MARKUP_BP) and row.cost == reconcile.cost(row.usage, PRICES)


def test_client_gone_and_the_provider_runs_on(world: World) -> None:
    """Read to its end, unsent: exact."""
    fate = world.ask("w/runs-on", leave_after=1_500)
    rows = world.rows(fate)
    (truth,) = world.truths(rows)
    assert [(row.state, row.outcome, row.basis, row.flags) for row in rows] == [("settled", "ok", "reported", ("drained",))]
    assert rows[0].usage == truth.usage and truth.usage["output"] == 60
    assert rows[0].cost == reconcile.cost(truth.usage, PRICES)
    assert rows[0].charge == price(truth.usage, PRICES, MARKUP_BP)


# --- failures before the content ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "outcome", "cost"),
    [
        ("w/early-error", "error_event", None),
        ("w/first-down", "http_error", 0),
        ("w/first-refuses-us", "http_error", 0),
        ("w/first-resets", "broken", None),
        ("w/first-garbage", "garbage", None),
    ],
)
def test_before_content_another_offer_takes_over(world: World, slug: str, outcome: str, cost: int | None) -> None:
    fate = world.ask(slug)
    rows = world.rows(fate)
    assert fate.complete and fate.header("x-farebox-attempts") == "2" and fate.header("x-farebox-provider") == "lab"
    first, second = rows
    assert first.provider.startswith("cheap")
    assert (first.outcome, first.charge, first.cost) == (outcome, 0, cost)
    assert (second.provider, second.outcome, second.basis) == ("lab", "ok", "reported")
    usage = world.truths(rows)[-1].usage
    assert usage["output"] == 9
    assert second.charge == price(usage, PRICES, MARKUP_BP) == told_nano(fate), "the winning attempt, at its own price"
    assert second.cost == reconcile.cost(usage, PRICES)
    assert b"error" not in fate.body, "the caller does not notice"


@pytest.mark.parametrize(
    ("slug", "outcome"), [("w/error-in-200", "error_in_body"), ("w/base-resp", "error_in_body"), ("w/html", "garbage")]
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_success_status_with_no_answer_in_it(world: World, slug: str, outcome: str, stream: bool) -> None:
    fate = world.ask(slug, stream=stream)
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status is not None and fate.status >= 429
    if slug == "w/base-resp" and not stream:
        outcome = "garbage"  # one vendor's way of failing, and this provider is not said to be that vendor
    assert len(rows) == 3 and {row.outcome for row in rows} == {outcome}


def test_silence_from_the_start_is_told_as_a_timeout(world: World) -> None:
    fate = world.ask("w/stalls-at-once")
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 504 and error_of(fate)["code"] == "timeout"
    assert [(row.outcome, row.cost) for row in rows] == [("timeout", None)], "not asked twice; its cost is unknown, not zero"


# --- failures in the middle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "outcome"),
    [("w/dies", "truncated"), ("w/error-in-stream", "error_event"), ("w/stalls", "timeout"), ("w/cut", "truncated"),
     ("w/first-dies", "truncated")],
)  # fmt: skip
def test_dead_in_mid_stream_is_free_and_said_so(world: World, slug: str, outcome: str) -> None:
    fate = world.ask(slug)
    rows = world.rows(fate)
    assert fate.status == 200 and b"[DONE]" not in fate.body
    assert text_of(fate), "what came before went on to the caller"
    assert error_of(fate)["type"] in ("server_error", "api_error") and error_of(fate)["message"]
    row = rows[-1]
    assert len(rows) == 1, "after content nobody takes over"
    assert (row.outcome, row.basis, row.charge) == (outcome, "observed", 0)
    assert {"upstream_truncated", "estimated"} <= set(row.flags)
    assert row.usage is not None
    assert row.cost == reconcile.cost(row.usage, CHEAP if row.provider.startswith("cheap") else PRICES) > 0


# --- unusable usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["missing", "null"])
def test_usage_that_is_missing_is_estimated_and_flagged(world: World, fault: str, stream: bool) -> None:
    fate = world.ask(f"w/usage-{fault}", stream=stream)
    assert_estimated(world, fate, "usage_missing")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["negative", "huge", "string", "fractional"])
def test_usage_that_cannot_be_is_estimated_and_flagged(world: World, fault: str, stream: bool) -> None:
    fate = world.ask(f"w/usage-{fault}", stream=stream)
    assert_estimated(world, fate, "usage_anomaly")


def test_usage_that_is_not_even_json(world: World) -> None:
    """`NaN` breaks the JSON around it: of a stream, one event; of a whole answer, all of it."""
    assert_estimated(world, world.ask("w/usage-nan"), "usage_missing")
    fate = world.ask("w/usage-nan", stream=False)
    rows = world.rows(fate)
    assert_free(fate, rows)
    assert fate.status == 502 and {(row.outcome, row.cost) for row in rows} == {("garbage", None)}


def assert_estimated(world: World, fate: Fate, flag: str) -> None:
    rows = world.rows(fate)
    assert fate.complete and len(rows) == 1
    row = rows[0]
    assert (row.state, row.outcome, row.basis) == ("settled", "ok", "estimated")
    assert {"estimated", flag} <= set(row.flags), row.flags
    assert row.usage is not None and 0 < row.usage["output"] <= 60, "near the truth of 20"
    assert row.charge == price(row.usage, PRICES, MARKUP_BP) == told_nano(fate)
    assert b'"estimated":true' in fate.body


@pytest.mark.parametrize("stream", [True, False])
def test_usage_that_comes_twice_counts_once(world: World, stream: bool) -> None:
    fate = world.ask("w/usage-duplicate", stream=stream)
    rows = world.rows(fate)
    assert_exact(fate, rows, world.truths(rows))


# --- odd streams --------------------------------------------------------------------------------------------------------


def test_a_stream_without_its_end_marker_is_finished_by_us(world: World) -> None:
    fate = world.ask("w/no-done")
    rows = world.rows(fate)
    assert_exact(fate, rows, world.truths(rows))
    assert fate.body.endswith(b"data: [DONE]\n\n")


def test_a_malformed_event_does_not_end_the_stream(world: World) -> None:
    fate = world.ask("w/malformed")
    rows = world.rows(fate)
    assert_exact(fate, rows, world.truths(rows), "malformed_events")
    assert 0 < len(text_of(fate).split()) <= 12


# --- before dispatch ----------------------------------------------------------------------------------------------------


def test_refused_before_dispatch_leaves_no_trace(world: World) -> None:
    before = len(read_books(world.url).rows)
    seen = len(world.provider.requests())
    fate = world.ask("w/nobody-knows-it")
    assert fate.status == 404 and error_of(fate)["code"] == "model_not_found"
    fate = world.ask("w/plain", max_tokens=10**9)
    assert fate.status == 400 and error_of(fate)["farebox"]["excluded"][0]["rule"] == "max_tokens"
    fate = world.ask("w/dear")
    assert fate.status == 402 and fate.header("x-should-retry") == "false"
    assert error_of(fate)["farebox"]["affordable_output_tokens"] > 0
    assert len(world.provider.requests()) == seen and len(read_books(world.url).rows) == before


def test_the_books_after_it_all(world: World) -> None:
    """The last test: a clean stop, nothing held, the invariants."""
    assert world.box.stop() == 0, world.box.log()
    books: Books = read_books(world.url)
    assert books.allotted == 0 and not books.outbox
    report = reconcile.reconcile(
        books,
        read_bill(world.provider.bill_path),
        {
            (row.provider, row.words["upstream_id"]): CHEAP if row.provider.startswith("cheap") else PRICES
            for row in books.rows
            if row.attempt
        },
        MARKUP_BP,
    )
    assert not report.problems, report.problems
    world.box.check_books()
