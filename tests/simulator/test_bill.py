"""The true bill: what was received is what is invoiced, whoever leaves or dies when."""

import json
import threading
import time

import pytest

from farebox.simulator import bill
from farebox.simulator.bill import BilledAttempt, BillWriter
from farebox.simulator.testing import SimulatorProcess
from farebox.wires.usage import Usage


def test_complete_calls_are_billed_as_reported(chat, messages, hello, billed):
    whole = chat.chat.completions.create(model="sim+thinking=5+cached=4", messages=hello)
    attempt = billed(whole.id)
    assert (attempt.reason, attempt.model) == ("complete", "sim+thinking=5+cached=4")
    assert attempt.usage.prompt_tokens == whole.usage.prompt_tokens
    assert attempt.usage.cache_read == whole.usage.prompt_tokens_details.cached_tokens == 4
    assert attempt.usage.completion_tokens == whole.usage.completion_tokens
    assert attempt.usage.reasoning == 5
    with messages.messages.stream(model="sim+cache-write=3+cache-write-1h=2", max_tokens=100, messages=hello) as stream:
        final = stream.get_final_message()
    usage = billed(final.id).usage
    reported = final.usage
    assert (usage.input, usage.cache_write_5m, usage.cache_write_1h) == (reported.input_tokens, 3, 2)
    assert usage.completion_tokens == reported.output_tokens


def test_a_usage_fault_does_not_touch_the_bill(client, billed):
    for fault in ("missing", "huge", "negative", "duplicate"):
        answer = client.ask(f"sim+tokens=6+usage={fault}")
        assert billed(json.loads(answer.body.replace(b"NaN", b"0"))["id"]).usage.output == 6


def test_ids_and_the_callers_own_attempt(client, billed):
    answer = client.ask("sim", headers={"x-farebox-attempt": "gen-abc/2"})
    assert answer.json["id"] == answer.headers["x-request-id"]
    assert billed(answer.json["id"]).farebox_attempt == "gen-abc/2"
    refused = client.ask("sim+status=500", headers={"x-farebox-attempt": "gen-abc/1"})
    attempt = billed(refused.headers["x-request-id"])
    assert (attempt.farebox_attempt, attempt.reason, attempt.usage) == ("gen-abc/1", "refused", Usage())


def test_final_line_stands_before_the_last_bytes(client, provider):
    """Whoever has read [DONE], or a whole body, finds the bill settled without waiting."""
    for stream in (True, False):
        for _ in range(20):
            answer = client.ask("sim", stream=stream)
            id = answer.headers["x-request-id"]
            assert next(attempt for attempt in provider.bill() if attempt.id == id).final


def hang_up_after(client, model, events, **fields):
    with client.connect() as connection:
        connection.sendall(client.request(model, stream=True, **fields))
        received = b""
        while received.count(b"\n\n") < events:
            received += connection.recv(4096)
    return received


def test_a_vanished_client_pays_for_what_was_generated(client, billed, provider):
    received = hang_up_after(client, "sim+tokens=200+delay-chunk=5ms", 20)
    attempt = billed(provider.requests()[-1]["id"])
    words = received.count(b'"content":"') - 1
    assert attempt.reason == "client_gone" and words <= attempt.usage.output < 60


def test_a_provider_may_ignore_it(client, billed, provider, tmp_path, client_of):
    hang_up_after(client, "sim+tokens=60+delay-chunk=2ms+ignore-hangup", 5)
    attempt = billed(provider.requests()[-1]["id"])
    assert (attempt.reason, attempt.usage.output) == ("complete", 60)
    with SimulatorProcess("--bill-to-the-end", bill_path=tmp_path / "bill") as stubborn:
        hang_up_after(client_of(stubborn.port), "sim+tokens=60+delay-chunk=2ms", 5)
        assert stubborn.settled_bill(1)[0].usage.output == 60


def test_a_whole_answer_is_abandoned_too(client, billed, provider):
    with client.connect() as connection:
        connection.sendall(client.request("sim+tokens=100+delay-chunk=10ms"))
        time.sleep(0.15)
    attempt = billed(provider.requests()[-1]["id"])
    assert attempt.reason == "client_gone" and 1 <= attempt.usage.output < 100


def test_a_killed_provider_leaves_its_progress(tmp_path, client_of):
    path = tmp_path / "bill.jsonl"
    provider = SimulatorProcess(bill_path=path, seed=4).start()
    client = client_of(provider.port)
    client.ask("sim+tokens=5")
    with client.connect() as connection:
        connection.sendall(client.request("sim+tokens=2000+delay-chunk=1ms", stream=True))
        received = b""
        while received.count(b"\n\n") < 50:
            received += connection.recv(4096)
        provider.kill()
        while data := connection.recv(65536):
            received += data
    words = received.count(b'"content":"') - 1
    done, killed = provider.bill()
    assert done.final and not killed.final and killed.reason == "unfinished"
    assert killed.usage.output % 16 == 0 and words - 16 <= killed.usage.output <= words + 1
    assert killed.usage.prompt_tokens > 0
    provider.start()
    later = client_of(provider.port).ask("sim+tokens=5")
    provider.stop()
    third = provider.bill()[2]
    assert third.id == later.json["id"] and third.id not in (done.id, killed.id)


def test_many_at_once_share_syncs(provider, client, billed):
    before = len(provider.bill())
    threads = [threading.Thread(target=client.ask, args=("sim+tokens=40",), kwargs={"stream": True}) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh = provider.settled_bill(before + 24)[before:]
    assert [attempt.usage.output for attempt in fresh] == [40] * 24


def test_a_torn_line_is_ignored_and_repaired(tmp_path):
    path = tmp_path / "bill"
    writer = BillWriter(path, False)
    writer.start("a", "sim", Usage(input=3), None)
    writer.tokens("a", 16, 2)
    writer.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"line":"final","id":"a","rea')
    expected = [BilledAttempt("a", None, "sim", Usage(input=3, output=16, reasoning=2), False, "unfinished")]
    assert bill.read(path) == expected
    writer = BillWriter(path, False)
    assert writer.attempts_before == 1 and path.read_bytes() == whole
    writer.close()


def test_an_attempt_ends_once(tmp_path):
    writer = BillWriter(tmp_path / "bill", False)
    writer.start("a", "sim", Usage(), None)
    writer.final("a", "complete", Usage())
    writer.final("a", "cut", Usage())
    with pytest.raises(AssertionError, match="ends twice"):
        writer.read()
    writer.close()
