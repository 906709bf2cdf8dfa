"""The control endpoint, the bench model, and the process around it all."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from farebox.simulator import SimulatorConfig, start
from farebox.simulator.testing import SimulatorProcess


@pytest.fixture
def own():
    with SimulatorProcess("--model", "gpt-4o") as process:
        yield process


def test_scoped_faults(own, client_of):
    client = client_of(own.port)
    own.fault("status=503", model="sim", times=2)
    assert [client.ask("sim+tokens=3").status for _ in range(3)] == [503, 503, 200]
    own.fault("status=429+retry-after=2", path="/messages")
    assert client.ask("sim").status == 200
    limited = client.ask("sim", "messages")
    assert limited.status == 429 and limited.headers["retry-after"] == "2"
    own.fault("status=500", credential="other")
    assert client.ask("sim", headers={"authorization": "Bearer other"}).status == 500
    assert client.ask("sim").status == 200
    own.reset()
    assert client.ask("sim", "messages").status == 200
    own.fault("no-done", model="bench")
    assert b"[DONE]" not in client.ask("bench", stream=True).body
    with pytest.raises(Exception, match="400"):
        own.fault("nonsense")


def test_requests_are_seen_without_their_credentials(own, client_of):
    client = client_of(own.port)
    client.ask("sim+status=500", headers={"authorization": "Bearer sk-very-secret", "x-trace": "t1"})
    client.ask("gpt-4o", "messages")
    first, second = own.requests()
    assert (first["status"], first["outcome"], first["path"]) == (500, "refused", "/v1/chat/completions")
    assert ["x-trace", "t1"] in first["headers"] and '"sim+status=500"' in first["body"]
    assert "secret" not in str(first) and first["credential"] != second["credential"]
    assert (second["status"], second["outcome"], second["hung_up"]) == (200, "complete", False)
    assert [seen["number"] for seen in own.requests(since=1)] == [2]


def test_bench_answers_the_same_prebuilt_or_not(own, client_of, tmp_path):
    client = client_of(own.port)
    with SimulatorProcess(bill_path=tmp_path / "bill") as synced:  # a synced bill takes the long way
        other = client_of(synced.port)
        for wire in ("chat", "messages"):
            for stream in (True, False):
                quick, slow = (
                    each.ask("bench+tokens=5", wire, stream=stream) for each in (client, other)
                )
                assert quick.status == slow.status == 200
                skip = quick.body.find(b"n0000")
                assert quick.body[:skip] == slow.body[:skip] and len(quick.body) == len(slow.body)
        assert [attempt.usage.output for attempt in synced.settled_bill(4)] == [5] * 4
    assert own.requests() == []


def test_bench_ids_differ_and_its_bill_is_kept(client_of, tmp_path):
    with SimulatorProcess("--no-bill-sync", bill_path=tmp_path / "bill") as provider:
        client = client_of(provider.port)
        answers = [client.ask("bench", headers={"x-farebox-attempt": f"gen-{n}/1"}).json for n in range(3)]
        streamed = client.ask("bench", stream=True, stream_options={"include_usage": True})
        bill = provider.bill()
    assert [attempt.id for attempt in bill[:3]] == [answer["id"] for answer in answers]
    assert [attempt.farebox_attempt for attempt in bill[:3]] == ["gen-0/1", "gen-1/1", "gen-2/1"]
    assert answers[0]["usage"]["completion_tokens"] == bill[0].usage.output == 16
    assert streamed.headers["x-request-id"] == bill[3].id and b'"completion_tokens":16' in streamed.body


def test_a_limit_below_the_bench_answer_is_kept(client):
    assert client.ask("bench", max_tokens=3).json["usage"]["completion_tokens"] == 3
    assert client.ask("bench+nonsense").status == 400


async def test_in_a_running_loop(tmp_path):
    import asyncio

    running = await start(SimulatorConfig(bill=tmp_path / "bill"))
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
    await running.close()
    writer.close()


def test_it_ends_with_its_parent(tmp_path):
    code = (
        "import time\nfrom farebox.simulator.testing import SimulatorProcess\n"
        "p = SimulatorProcess().start()\nprint(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_unknown_dialect_is_refused_at_the_start():
    from farebox.simulator.server import Simulator

    with pytest.raises(ValueError, match="openai"):
        Simulator(SimulatorConfig(dialect="klingon"))
