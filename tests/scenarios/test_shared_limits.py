"""Rate limits over several workers, real sockets and real signals: exact, told in every answer, and never leaked."""

import http.client
import json
import os
import re
import signal
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from tests.support.callers import Fate, body_for, together
from tests.support.running import Farebox, Reply, model, offer, provider, wait_until

from farebox.gate import limit_file
from farebox.simulator.testing import SimulatorProcess

WORKERS = 2
TIERS = """
[limits]
tier = "narrow"
[tiers.narrow]
concurrent_calls = 6
[tiers.counted]
requests_per_minute = 30
paid = "1000000"
[tiers.metered]
tokens_per_day = 20000
paid = "1000000"
[health]
failures_in_a_row = 1000000
samples_min = 1000000
"""


class Lingering(socketserver.StreamRequestHandler):
    """A provider that does not end its response when it has sent all of its stream."""

    def handle(self) -> None:
        head = self.rfile.readline()
        while (line := self.rfile.readline()) != b"\r\n":
            head += line
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        self.rfile.read(int(length[1]))
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in (
            b'{"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}',
            b'{"id":"x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}',
            b"[DONE]",
        ):
            self.wfile.write(b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event))
        self.rfile.read(1)


@pytest.fixture(scope="module")
def lingering() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Lingering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, lingering: str) -> Iterator[Farebox]:
    folder = tmp_path_factory.mktemp("shared-limits") / "box"
    with SimulatorProcess() as simulator:
        text = TIERS + provider("lab", simulator.base_url, extra="abort_stops_billing = true")
        text += model("t/small", offer("lab", "sim+tokens=20"))
        text += model("t/slow", offer("lab", "sim+tokens=20+delay-first=1500ms"))
        text += model("t/endless", offer("lab", "sim+tokens=4000+delay-chunk=50ms"))
        text += model("t/broken", offer("lab", "sim+status=500"))
        text += provider("late", lingering) + model("t/late", offer("late", "x"))
        with Farebox(folder, config=text, workers=WORKERS, server="drain_s = 0.5") as running:
            wait_until(lambda: len(running.worker_pids()) == WORKERS, "both workers live")
            yield running
            running.wait_posted()
            running.check_books()


def in_flight(box: Farebox) -> int:
    """Calls in flight of everybody, as the workers' shared file has them: each counts for its account and its key."""
    table, lock = limit_file.open_table(box.folder / "run" / limit_file.NAME, workers=WORKERS, worker=0)
    lock.close()
    columns = [column for number in range(WORKERS) for column in table.columns_of(number)[0].tolist()]
    assert min(columns) >= 0
    return -(-sum(columns) // 2)


def at_once(box: Farebox, key: str, name: str, count: int, **more: object) -> list[Fate]:
    body = body_for("chat", name, stream=False, max_tokens=50, **more)
    return together(box.port, key, [(Fate("chat", name, False), body) for _ in range(count)])


def test_places_are_exact_over_workers(box: Farebox) -> None:
    made = box.customer("crowded", credit_nano=10**10)
    for _ in range(3):
        statuses = [fate.status for fate in at_once(box, made.secret, "t/slow", 14)]
        assert sorted(statuses) == [200] * 6 + [429] * 8
        wait_until(lambda: not in_flight(box), "all places are free")


def test_a_place_is_free_when_the_client_has_its_stream_though_the_provider_does_not_end_it(box: Farebox) -> None:
    box.customer("sequential", credit_nano=10**10)
    key = box.cli("keys", "create", "--account", "sequential")
    box.cli("keys", "limits", key["id"], "--concurrent-calls", "1")
    body = body_for("chat", "t/late", stream=True, max_tokens=50)
    wait_until(lambda: not in_flight(box), "all places are free")
    client = http.client.HTTPConnection("127.0.0.1", box.port, timeout=30)
    for _ in range(5):
        client.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {key['key']}"})
        reply = client.getresponse()
        assert reply.read().endswith(b"data: [DONE]\n\n") and reply.status == 200
    client.close()


def test_requests_are_exact_over_workers(box: Farebox) -> None:
    made = box.customer("counted", credit_nano=10**10)
    box.do("accounts", "tier", "counted", "counted")
    wait_until(lambda: "x-ratelimit-limit-requests" in ask(box, made.secret).headers, "the tier has changed within a second")
    began = time.monotonic()
    seen = int(ask(box, made.secret).headers["x-ratelimit-remaining-requests"])
    let_in = sum(fate.status == 200 for _ in range(3) for fate in at_once(box, made.secret, "t/small", 25))
    flown_back = (time.monotonic() - began) / 2
    assert seen <= let_in <= seen + flown_back + 1, "what was left, and what came back meanwhile: half a request a second"


def test_tokens_are_exact_over_workers(box: Farebox) -> None:
    """Calls in flight have reserved theirs: not one of them more than a day's tokens allow, whichever worker it met."""
    made = box.customer("metered", credit_nano=10**10)
    box.do("accounts", "tier", "metered", "metered")
    wait_until(lambda: "x-ratelimit-limit-tokens" in ask(box, made.secret).headers, "the tier has changed")
    left = int(ask(box, made.secret).headers["x-ratelimit-remaining-tokens"])
    fates = together(
        box.port,
        made.secret,
        [(Fate("chat", "t/slow", False), body_for("chat", "t/slow", stream=False, max_tokens=4_000)) for _ in range(12)],
    )
    let_in = sum(fate.status == 200 for fate in fates)
    assert let_in == left // 4_002 == 4, [fate.status for fate in fates]
    refused = next(fate for fate in fates if fate.status == 429).json()["error"]
    assert refused["farebox"]["limit"] == "tokens_per_day" and "the account `metered`" in refused["message"]
    assert int(ask(box, made.secret).headers["x-ratelimit-remaining-tokens"]) > 19_000, "what was not used is back"


def ask(box: Farebox, key: str, name: str = "t/small", path: str = "/v1/chat/completions") -> Reply:
    return box.post(path, {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}, key=key)


def test_places_come_back_when_clients_vanish(box: Farebox) -> None:
    made = box.customer("vanishing", credit_nano=10**10)
    body = body_for("chat", "t/endless", stream=True, max_tokens=1_000)
    for leave_after in (1, 400, 0):
        calls = [(Fate("chat", "t/endless", True, leave_after=leave_after), body) for _ in range(6)]
        assert all(fate.left for fate in together(box.port, made.secret, calls)), "all had a place"
        wait_until(lambda: not in_flight(box), f"places of who left after {leave_after} bytes")


def test_places_come_back_however_a_call_fails(box: Farebox) -> None:
    made = box.customer("unlucky", credit_nano=10**10)
    poor = box.customer("poor")
    assert {ask(box, made.secret, "t/broken").status for _ in range(7)} <= {500, 502, 503}
    assert {ask(box, poor.secret).status for _ in range(7)} == {402}
    assert {ask(box, made.secret, "t/none").status for _ in range(7)} == {404}
    assert box.post("/v1/chat/completions", b"{", key=made.secret).status == 400
    wait_until(lambda: not in_flight(box), "all places are free")


def test_a_killed_workers_places_come_back(box: Farebox) -> None:
    """Every place is taken by a stream; then the workers are killed, one after the other, and nothing stays taken."""
    made = box.customer("bereaved", credit_nano=10**10)
    body = body_for("chat", "t/endless", stream=True, max_tokens=2_000)

    def kill() -> None:
        wait_until(lambda: in_flight(box) == 6, "six streams are under way")
        assert ask(box, made.secret).status == 429
        before = box.worker_pids()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not set(before) & set(box.worker_pids()), "they are gone")

    fates = together(box.port, made.secret, [(Fate("chat", "t/endless", True), body) for _ in range(6)], beside=kill)
    assert not any(fate.complete for fate in fates)
    wait_until(lambda: not in_flight(box), "their places are free")
    box.wait_ready()
    assert [fate.status for fate in at_once(box, made.secret, "t/slow", 6)] == [200] * 6


def test_a_worker_that_ends_gives_its_places_back(box: Farebox) -> None:
    """SIGTERM to a worker alone: its calls are cancelled after the drain, and leave on their way out."""
    made = box.customer("drained", credit_nano=10**10)
    body = body_for("chat", "t/endless", stream=True, max_tokens=2_000)

    def end() -> None:
        wait_until(lambda: in_flight(box) == 4, "four streams are under way")
        for pid in box.worker_pids():
            os.kill(pid, signal.SIGTERM)

    together(box.port, made.secret, [(Fate("chat", "t/endless", True), body) for _ in range(4)], beside=end)
    wait_until(lambda: not in_flight(box), "their places are free")
    wait_until(lambda: len(box.worker_pids()) == WORKERS, "both workers live again")
    box.wait_ready()


def test_keys_and_projects_have_limits_beneath_their_accounts(box: Farebox) -> None:
    box.customer("parted", credit_nano=10**10)
    box.do("projects", "create", "web", "--account", "parted")
    first, second = (box.do("keys", "create", "--account", "parted", "--project", "web") for _ in range(2))
    box.cli("projects", "limits", "web", "--account", "parted", "--concurrent-calls", "3")
    box.cli("keys", "limits", first["id"], "--requests-per-minute", "5")
    assert ask(box, first["key"]).headers["x-ratelimit-limit-requests"] == "5"
    statuses = [ask(box, first["key"]).status for _ in range(6)]
    assert statuses.count(429) >= 1 and statuses.index(429) >= 4
    refused = ask(box, first["key"]).json()["error"]
    assert refused["farebox"]["whose"] == f"the key `{first['hint']}`" and refused["farebox"]["maximum"] == 5
    fates = at_once(box, second["key"], "t/slow", 5)
    assert sorted(fate.status or 0 for fate in fates) == [200] * 3 + [429] * 2
    refused = next(fate for fate in fates if fate.status == 429).json()["error"]
    assert "the project `web`" in refused["message"] and refused["farebox"]["limit"] == "concurrent_calls"
    box.cli("keys", "limits", first["id"], "--requests-per-minute", "70000")
    wait_until(
        lambda: ask(box, first["key"]).headers["x-ratelimit-limit-requests"] == "60000",
        "no key is above what every key may do",
        timeout_s=3,
    )
    wait_until(lambda: not in_flight(box), "all places are free")


def test_every_answer_says_what_is_left(box: Farebox) -> None:
    """Also those that are errors, and also where a key has only the usual limits."""
    made = box.customer("told", credit_nano=10**10)
    poor = box.customer("told-poor")
    answers = {
        200: ask(box, made.secret),
        402: ask(box, poor.secret),
        404: ask(box, made.secret, "t/none"),
        400: box.post("/v1/chat/completions", b"{", key=made.secret),
    }
    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["x-ratelimit-limit-requests"] == "60000", status
        assert 59_000 < int(answer.headers["x-ratelimit-remaining-requests"]) <= 60_000
        assert re.fullmatch(r"\d+ms", answer.headers["x-ratelimit-reset-requests"])
    for status, key, name in ((200, made.secret, "t/small"), (402, poor.secret, "t/small"), (404, made.secret, "t/none")):
        answer = ask(box, key, name, "/v1/messages")
        assert answer.status == status and answer.headers["anthropic-ratelimit-requests-limit"] == "60000"
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.headers["anthropic-ratelimit-requests-reset"])
    assert "x-ratelimit-limit-requests" not in ask(box, "fb-nobody").headers
