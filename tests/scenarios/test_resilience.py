"""What health learns from attempts, over real sockets: dead keys, limited keys, failing offers, and what callers notice."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.reconcile import read_books
from tests.support.running import Farebox, free_port, model, offer, provider, wait_until

from farebox.simulator.faults import credential_hash
from farebox.simulator.testing import SimulatorProcess

KEYS = ("key-one", "key-two", "key-three")
GOOD = "sim+tokens=5"
STREAMS = "sim+tokens=80+status=503+times=5"
CALLS = 12


class World:
    """A gateway before one simulated provider, with three keys there."""

    def __init__(self, box: Farebox, simulator: SimulatorProcess) -> None:
        self.box = box
        self.simulator = simulator

    def ask(self, slug: str) -> tuple[int, str | None, float]:
        """Status, number of attempts, seconds."""
        began = time.monotonic()
        reply = self.box.chat(slug, max_tokens=20)
        return reply.status, reply.headers.get("x-farebox-attempts"), time.monotonic() - began

    def asked(self) -> Counter[str]:
        """How often the provider saw each key."""
        names = {credential_hash(key): key for key in KEYS}
        return Counter(names.get(one["credential"], "other") for one in self.simulator.requests())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with SimulatorProcess() as simulator:
        base = simulator.base_url
        three = "api_keys = [" + ", ".join(f'"{key}"' for key in KEYS) + "]"
        config = "[attempts]\nbackoff_ms = 10\nbackoff_max_ms = 20\n" + "[routing]\npolicy = \"cheapest\"\n"
        config += "[health]\nejection_s = 1\n[policies.cheapest]\nsort = \"price\"\n"
        config += provider("lab", base, extra=three).replace('api_key = "', '# ')
        config += provider("spare", base) + provider("broken", base)
        config += model("r/keys", offer("lab", GOOD))
        config += model("r/fails", offer("broken", "sim+status=503", input="0.10", output="0.10"), offer("spare", GOOD))
        recovers = offer("broken", "sim+tokens=4+status=503+times=5", input="0.10", output="0.10")
        config += model("r/recovers", recovers, offer("spare", GOOD))
        streams = offer("broken", STREAMS, input="0.10", output="0.10")
        config += model("r/streams", streams, offer("spare", GOOD))
        heals = "sim+tokens=4+status=503+times="
        config += model("r/panic", offer("broken", f"{heals}6", input="0.10", output="0.10"), offer("spare", f"{heals}7"))
        with Farebox(tmp_path, config=config) as box:
            yield World(box, simulator)
            box.wait_posted()
            box.check_books()


@pytest.mark.parametrize("refusal", ["status=401", "status=403"])
def test_one_dead_key_of_three_is_asked_once(world: World, refusal: str) -> None:
    world.simulator.fault(refusal, credential="key-two")
    found = [world.ask("r/keys") for _ in range(CALLS)]
    assert [status for status, _, _ in found] == [200] * CALLS
    asked = world.asked()
    assert asked["key-two"] == 1 and asked["key-one"] + asked["key-three"] == CALLS
    assert sorted(attempts for _, attempts, _ in found) == ["1"] * (CALLS - 1) + ["2"]


def test_a_limited_key_is_left_alone_for_as_long_as_it_says(world: World) -> None:
    world.simulator.fault("status=429+retry-after=600", credential="key-one")
    found = [world.ask("r/keys") for _ in range(CALLS)]
    assert [status for status, _, _ in found] == [200] * CALLS
    assert world.asked()["key-one"] == 1
    assert max(seconds for _, _, seconds in found) < 5, "nobody waited for the ten minutes"


def test_an_offer_that_keeps_failing_is_taken_out_and_costs_nobody(world: World) -> None:
    found = [world.ask("r/fails") for _ in range(CALLS)]
    assert [status for status, _, _ in found] == [200] * CALLS
    assert [attempts for _, attempts, _ in found] == ["2"] * 5 + ["1"] * (CALLS - 5), "five in a row open the circuit"
    world.box.wait_posted()
    rows = read_books(f"sqlite:///{world.box.folder / 'farebox.db'}").rows
    paid = Counter((row.provider, row.charge > 0) for row in rows)
    assert paid == {("broken", False): 5, ("spare", True): CALLS}


def test_an_offer_that_is_well_again_is_found_again(world: World) -> None:
    for _ in range(6):
        world.ask("r/recovers")
    assert world.ask("r/recovers")[1] == "1", "out: the other one is asked first"
    wait_until(lambda: world.box.chat("r/recovers", max_tokens=20).headers["x-farebox-provider"] == "broken", "it is tried again")
    assert world.ask("r/recovers")[:2] == (200, "1")


def test_an_offer_is_in_again_as_soon_as_its_stream_begins(world: World) -> None:
    """The call that tries it may take minutes; the others need not wait for its end."""

    def planned() -> list[tuple[str, str]]:
        body = {"model": "r/streams", "messages": [{"role": "user", "content": "hello"}]}
        return [(one["provider"], one["health"]["state"]) for one in world.box.post("/v1/route/explain", body).json()["offers"]]

    for _ in range(5):
        world.ask("r/streams")
    assert planned() == [("spare", "healthy"), ("broken", "ejected")]
    wait_until(lambda: planned()[0] == ("broken", "healthy"), "it is due")
    world.simulator.fault("delay-chunk=50ms", model=STREAMS)
    seen = len(world.simulator.requests())
    stream = threading.Thread(target=lambda: world.box.chat("r/streams", max_tokens=200, stream=True))
    stream.start()
    try:
        wait_until(lambda: len(world.simulator.requests()) > seen, "it is asked")
        wait_until(lambda: planned()[0] == ("broken", "healthy"), "it is in again")
        assert stream.is_alive() and world.ask("r/streams")[1] == "1"
    finally:
        stream.join()


def test_one_of_many_calls_that_come_at_once_tries_what_is_out(world: World) -> None:
    """They are all planned in one turn, before the first of them has left."""
    for _ in range(5):
        world.ask("r/fails")
    body = json.dumps({"model": "r/fails", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}).encode()
    key, size = world.box.key, len(body)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {size}\r\n\r\n"
    (worker,) = world.box.worker_pids()
    with ExitStack() as opened:
        port = world.box.port
        callers = [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(CALLS)]

        def all_call() -> int:
            """How often the broken one is asked when all call before the worker reads the first."""
            world.simulator.reset()
            os.kill(worker, signal.SIGSTOP)
            for caller in callers:
                caller.sendall(head.encode() + body)
            os.kill(worker, signal.SIGCONT)
            for caller in callers:
                assert caller.recv(65536).startswith(b"HTTP/1.1 200")
            return len(world.simulator.requests()) - CALLS

        all_call()  # their heads are known from now on
        assert wait_until(all_call, "the offer is tried again") == 1


def test_when_all_are_out_they_are_tried_all_the_same_and_heal(world: World) -> None:
    def circuits() -> dict[str, str]:
        places = world.box.get("/healthz/providers", key=None).json()["places"]
        return {one["provider"]: one["circuit"] for one in places if one["model"] == "r/panic"}

    found = [world.ask("r/panic") for _ in range(5)]
    assert found[0][0] == 503 and found[-1][0] == 200, "both are out for a second, and yet somebody is asked"
    assert max(seconds for _, _, seconds in found) < 5
    wait_until(
        lambda: world.box.chat("r/panic", max_tokens=20).headers["x-farebox-provider"] == "broken"
        and circuits().get("broken") == "closed",
        "the cheaper one is first again",
    )


def test_when_all_are_out_all_are_tried(tmp_path: Path) -> None:
    """Panic: every offer is out for an hour, and the first call after they are well again needs one try."""
    port = free_port()
    config = "[attempts]\nbackoff_ms = 1\nbackoff_max_ms = 1\n[health]\nejection_s = 3600\nejection_max_s = 3600\n"
    config += "".join(provider(name, f"http://127.0.0.1:{port}/v1") for name in ("one", "two"))
    config += model("r/panic", offer("one", GOOD), offer("two", GOOD))
    with Farebox(tmp_path, config=config) as box:

        def states() -> list[str]:
            return [one["state"] for one in box.get("/healthz/providers", key=None).json()["offers"]]

        def all_out() -> bool:
            assert box.chat("r/panic", max_tokens=20).status == 502
            return states() == ["ejected", "ejected"]

        wait_until(all_out, "five failures in a row of each", timeout_s=20)
        with SimulatorProcess(port=port):
            reply = box.chat("r/panic", max_tokens=20)
            assert (reply.status, reply.headers["x-farebox-attempts"]) == (200, "1"), states()
            box.wait_posted()
            box.check_books()
