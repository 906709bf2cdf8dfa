"""What each fault does to the bytes on the socket, and to the bill."""

import gzip
import json
import time
import zlib

import pytest


def data(event: bytes) -> bytes:
    return event.partition(b"data: ")[2]


@pytest.fixture
def stream(client):
    """A streamed answer of ten tokens under some faults."""

    def ask(faults, wire="chat", **options):
        if wire == "chat":
            options.setdefault("stream_options", {"include_usage": True})
        return client.ask(f"sim+tokens=10{faults}", wire, stream=True, **options)

    return ask


def test_an_undisturbed_stream(stream):
    answer = stream("")
    assert answer.complete and data(answer.events[-1]) == b"[DONE]"
    # role, ten words, finish, usage, [DONE]
    assert len(answer.events) == 14
    assert len(stream("", "messages").events) == 2 + 1 + 10 + 1 + 2


def test_reset_before_headers(client, billed, provider):
    answer = client.ask("sim+reset-before-headers")
    assert (answer.received, answer.ended) == (b"", "rst")
    seen = provider.requests()[-1]
    assert billed(seen["id"]).reason == "refused" and billed(seen["id"]).usage.prompt_tokens == 0


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_reset_after_events(stream, billed, provider, wire):
    answer = stream("+reset-after=4", wire)
    assert answer.ended == "rst" and len(answer.events) == 4
    bill = billed(provider.requests()[-1]["id"])
    # one event of opening on the chat wire; three (start, ping, block start) on the other
    assert bill.reason == "reset" and bill.usage.output == (4 if wire == "chat" else 2)


def test_reset_after_bytes_of_a_whole_answer(client, billed, provider):
    answer = client.ask("sim+tokens=10+reset-after=20")
    assert (answer.ended, len(answer.body)) == ("rst", 20)
    bill = billed(provider.requests()[-1]["id"])
    assert (bill.reason, bill.usage.output) == ("complete", 10)


@pytest.mark.parametrize("byte", [0, 1, 7, 250, 1000])
def test_cut_at_byte(stream, byte):
    whole = stream("").body
    cut = stream(f"+cut-at-byte={byte}")
    assert cut.ended == "fin" and not cut.complete
    assert len(cut.body) == byte
    same = min(byte, whole.index(b"n0"))
    assert cut.body[:same] == whole[:same]


def test_cut_of_a_whole_answer_leaves_the_length_as_it_was(client):
    answer = client.ask("sim+tokens=10+cut-at-byte=5")
    assert answer.ended == "fin" and len(answer.body) == 5 < int(answer.headers["content-length"])


def test_cut_bills_what_was_generated(stream, billed, provider):
    answer = stream("+cut-at-byte=900")
    words = sum(1 for event in answer.events if b'"content":' in event) - 1
    bill = billed(provider.requests()[-1]["id"])
    assert bill.reason == "cut" and words <= bill.usage.output <= words + 1


def test_stall(client, billed, provider):
    with client.connect() as connection:
        connection.sendall(client.request("sim+tokens=10+stall-after=3", stream=True))
        answer = client.read(connection, timeout=0.3)
    assert answer.ended == "open" and len(answer.events) == 3
    bill = billed(provider.requests()[-1]["id"])
    assert (bill.reason, bill.usage.output) == ("client_gone", 3)
    assert provider.requests()[-1]["hung_up"]


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_malformed_event_and_no_done(stream, wire):
    broken = stream("+malformed-event=3", wire).events
    bad = []
    for at, event in enumerate(broken, 1):
        try:
            json.loads(data(event))
        except json.JSONDecodeError:
            bad.append(at)
    assert bad == ([3, len(broken)] if wire == "chat" else [3])
    whole = stream("", wire).events
    undone = stream("+no-done", wire)
    assert undone.complete and len(undone.events) == len(whole) - 1


def usage_of(event: bytes) -> bytes | None:
    _, found, rest = data(event).partition(b'"usage":')
    return rest if found else None


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("negative", b'"prompt_tokens":-'),
        ("huge", b'"prompt_tokens":4611686018427387904'),
        ("string", b'"prompt_tokens":"'),
        ("nan", b'"prompt_tokens":NaN'),
        ("fractional", b".5"),
        ("null", b"null}"),
    ],
)
def test_usage_faults(stream, client, fault, seen):
    streamed = stream(f"+usage={fault}").events[-2]
    assert seen in usage_of(streamed)
    assert seen in client.ask(f"sim+usage={fault}").body
    anthropic = stream(f"+usage={fault}", "messages").events[-2]
    assert seen.replace(b"prompt", b"input") in usage_of(anthropic)


def test_usage_missing_and_duplicate(stream, client):
    assert b"total_tokens" not in stream("+usage=missing").body
    assert "usage" not in client.ask("sim+usage=missing").json
    twice = stream("+usage=duplicate").events
    assert twice[-2] == twice[-3] and b"total_tokens" in twice[-2]
    assert client.ask("sim+usage=duplicate").body.count(b'"usage":') == 2
    anthropic = stream("+usage=duplicate", "messages").events
    assert anthropic[-2] == anthropic[-3]
    assert b"output_tokens" not in stream("+usage=missing", "messages").body


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_error_in_stream_is_invoiced(stream, billed, provider, wire):
    answer = stream("+error-in-stream=4", wire)
    assert answer.complete and b"Overloaded" in answer.events[-1]
    bill = billed(provider.requests()[-1]["id"])
    assert (bill.reason, bill.usage.output) == ("error_mid_stream", 4 if wire == "chat" else 3)


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_error_before_content_is_not_invoiced(stream, billed, provider, wire):
    answer = stream("+error-before-content", wire)
    assert len(answer.events) == (1 if wire == "chat" else 3) and b"error" in answer.events[-1]
    bill = billed(provider.requests()[-1]["id"])
    assert bill.reason == "refused" and bill.usage.prompt_tokens == 0


def test_errors_within_success(client):
    assert client.ask("sim+error-in-200").json["error"]["type"] == "server_error"
    assert client.ask("sim+error-in-200=base-resp").json["base_resp"]["status_code"] == 1002
    assert client.ask("sim+error-in-200", "messages").json["type"] == "error"
    assert client.ask("sim+error-in-200").status == 200


def test_html(client):
    assert client.ask("sim+html+status=502").status == 502
    page = client.ask("sim+html", stream=True)
    assert page.status == 200 and page.body.startswith(b"<!DOCTYPE html>")
    assert page.headers["content-type"].startswith("text/html")


def test_lying_length(client):
    short = client.ask("sim+lying-length=50")
    assert short.ended == "fin" and len(short.body) == int(short.headers["content-length"]) - 50
    long = client.ask("sim+lying-length=-10")
    assert len(long.body) == int(long.headers["content-length"]) + 10
    assert client.ask("sim+lying-length=100000", stream=True).headers["content-length"] == "100000"


def test_truncated_chunked(client, stream):
    answer = stream("+truncated-chunked")
    assert answer.ended == "fin" and not answer.complete and data(answer.events[-1]) == b"[DONE]"
    plain = client.ask("sim+truncated-chunked")
    assert plain.ended == "fin" and plain.json["object"] == "chat.completion"


def test_gzip(client, stream):
    plain = client.ask("sim+gzip")
    assert plain.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(plain.body))["object"] == "chat.completion"
    streamed = stream("+gzip")
    assert zlib.decompressobj(wbits=31).decompress(streamed.body).endswith(b"data: [DONE]\n\n")


def test_trailers_and_big_header(client):
    answer = client.ask("sim+trailers", stream=True)
    assert answer.trailers == b"x-sim-trailer: end" and answer.headers["trailer"] == "x-sim-trailer"
    assert len(client.ask("sim+big-header=70000").headers["x-sim-padding"]) == 70000


@pytest.mark.parametrize("fault", ["close", "silent-close"])
def test_closing(client, fault):
    with client.connect() as connection:
        connection.sendall(client.request(f"sim+{fault}"))
        answer = client.read(connection)
        assert answer.json and (answer.headers.get("connection") == "close") == (fault == "close")
        assert connection.recv(1) == b""


def test_connections_are_kept(client):
    with client.connect() as connection:
        for model in ("sim", "sim+status=500", "bench"):
            connection.sendall(client.request(model))
            assert client.read(connection).json
        connection.sendall(client.request("sim", stream=True) + client.request("bench"))
        received = b""
        while b'"chat.completion"' not in received:
            received += connection.recv(65536)
        assert received.index(b"[DONE]") < received.index(b'"chat.completion"')


def test_a_stream_that_ends_in_an_error_keeps_its_connection(client):
    """Its head did not say that it closes: who used it again a moment later was reset."""
    with client.connect() as connection:
        for _ in range(2):
            connection.sendall(client.request("sim+error-in-stream=2", stream=True))
            answer = client.read(connection)
            assert b"Overloaded" in answer.events[-1] and answer.complete and answer.ended == "open"


def test_split_writes_byte_by_byte(stream):
    whole, split = stream(""), stream("+split=1")
    assert len(split.body) == len(whole.body) + len("+split=1") * 13  # the model's name stands in each event


def test_big_event(stream):
    answer = stream("+big-event=1000000")
    assert max(len(event) for event in answer.events) > 1_000_000
    assert b'"completion_tokens":10' in answer.body


@pytest.mark.parametrize(
    ("form", "mark"),
    [
        ("crlf", b"\r\n\r\ndata: "),
        ("cr", b"\r\rdata: "),
        ("comments", b": SIMULATOR PROCESSING\n\ndata: "),
        ("bom", b"\xef\xbb\xbfdata: "),
        ("no-space", b"\n\ndata:{"),
        ("multi-line", b"data: {\ndata: "),
        ("no-final-newline", b"data: [DONE]"),
    ],
)
def test_forms_of_events(stream, form, mark):
    body = stream(f"+sse={form}").body
    assert mark in body
    assert form != "no-final-newline" or body.endswith(mark)


def timed(client, model, **fields):
    begin = time.monotonic()
    answer = client.ask(model, **fields)
    return answer, time.monotonic() - begin


def test_delays(client):
    assert timed(client, "sim+delay-first=150ms")[1] >= 0.15
    assert timed(client, "sim+delay-first=150ms", stream=True)[1] >= 0.15
    assert timed(client, "sim+delay-headers=100ms+status=500")[1] >= 0.1
    assert timed(client, "sim+tokens=10+delay-chunk=15ms", stream=True)[1] >= 0.15
    assert timed(client, "sim+tokens=10+delay-chunk=15ms")[1] >= 0.15
    answer, seconds = timed(client, "sim+slow-headers=1ms")
    assert seconds >= 0.001 * 100 and answer.json
    assert timed(client, "bench+tokens=10+delay-chunk=15ms", stream=True)[1] >= 0.15


def test_times_counts_requests_of_one_name(client):
    model = "sim+tokens=4+status=503+times=2"
    assert [client.ask(model).status for _ in range(4)] == [503, 503, 200, 200]
    assert client.ask(model + "+retry-after=1").status == 503


def test_an_unknown_path_and_method(client):
    request = client.request("sim").replace(b"/v1/chat/completions", b"/v1/embeddings")
    assert client.exchange(request).status == 404
    assert client.exchange(client.request("sim").replace(b"POST", b"PUT")).status == 405
    assert client.exchange(b"nonsense\r\n\r\n").status == 400
    broken = client.request("sim").replace(b'{"model"', b'{+model"')
    assert "could not parse the JSON body" in client.exchange(broken).json["error"]["message"]
