"""Active probes over real sockets: a provider that is down is out before a call has failed, and in again when it is well."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.running import Farebox, free_port, model, offer, provider, wait_until

from farebox.simulator.testing import SimulatorProcess

HEALTH = "[health]\nprobe_s = 1\nfailures_in_a_row = 2\nejection_s = 3600\nejection_max_s = 3600\n"
NOTICED_S = 20.0
"""Two probes, and what a busy machine adds; the time out itself is an hour."""


@pytest.fixture
def far() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as simulator:
        yield simulator


def states(box: Farebox) -> dict[str, Any]:
    return {one["provider"]: one["state"] for one in box.get("/healthz/providers", key=None).json()["offers"]}


def test_a_provider_is_out_before_a_call_has_failed_and_in_again_within_a_probe(
    tmp_path: Path, far: SimulatorProcess
) -> None:
    port = free_port()
    text = HEALTH + '[routing]\npolicy = "cheapest"\n[policies.cheapest]\nsort = "price"\n'
    text += provider("near", f"http://127.0.0.1:{port}/v1", extra='probe = "/models"') + provider("far", far.base_url)
    text += model("p/m", offer("near", "sim+tokens=5", input="0.10"), offer("far", "sim+tokens=5"))
    with Farebox(tmp_path / "box", config=text) as box:
        wait_until(lambda: states(box).get("near") == "ejected", "the probes have failed", timeout_s=NOTICED_S)
        reply = box.chat("p/m", max_tokens=20)
        assert reply.status == 200
        assert (reply.headers["x-farebox-provider"], reply.headers["x-farebox-attempts"]) == ("far", "1")
        with SimulatorProcess(port=port):

            def back() -> bool:
                again = box.chat("p/m", max_tokens=20)
                assert (again.status, again.headers["x-farebox-attempts"]) == (200, "1"), "nobody waits for a dead one"
                return again.headers["x-farebox-provider"] == "near"

            wait_until(back, "the first probe that succeeds ends the time out", timeout_s=NOTICED_S)
            wait_until(lambda: states(box)["near"] == "healthy", "the worker has written what it knows")
