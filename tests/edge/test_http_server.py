"""Our HTTP server against raw sockets: valid requests in any split, hostile ones by name, slow and vanishing clients."""

import gc
import json
import resource
import time
from collections.abc import Callable

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.hostile import HOSTILE
from tests.support.http_site import BODY_BYTES_MAX, HELLO, Client, Site, described

from farebox.edge import http
from farebox.edge.body import PIECES_MAX

Connect = Callable[[], Client]
POST = b"POST /echo?a=1 HTTP/1.1\r\nHost: test\r\n"


# --- valid requests ----------------------------------------------------------------------------------------------------------


def as_h11_reads(raw: bytes) -> dict[str, object]:
    """What the oracle knows of a request, in the words of the echo."""
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(raw.removeprefix(b"\r\n"))  # a server should skip it (RFC 9112 §2.2); h11 does not
    head = oracle.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := oracle.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    request = http.Request()
    request.method, request.body = head.method, body
    target, _, request.query = head.target.partition(b"?")
    request.path = target.decode()
    for name, value in head.headers:
        request.headers[name] = request.headers[name] + b", " + value if name in request.headers else value
    return described(request)


TOKENS = st.text("abcdefgh-XYZ!#$'*+.^_`|~0", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=30).map(lambda raw: bytes(32 + byte % 95 for byte in raw).strip())


@st.composite
def valid_requests(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(TOKENS.map(lambda name: b"x-" + name), max_size=6))
    before, behind = st.sampled_from([b"", b" ", b"\t "]), st.sampled_from([b"", b" \t"])
    fields = [b"%b:%b%b%b\r\n" % (name, draw(before), draw(VALUES), draw(behind)) for name in names]
    body = draw(st.binary(max_size=300))
    target = draw(st.sampled_from([b"/echo", b"/echo?x=%20y", b"/a/b?c?d", b"/"]))
    empty_lines = draw(st.sampled_from([b"", b"\r\n"]))
    method = draw(st.sampled_from([b"GET", b"POST", b"DELETE"]))
    head = b"%b%b %b HTTP/1.1\r\nhOsT:test\r\n%b" % (empty_lines, method, target, b"".join(fields))
    if not draw(st.booleans()):
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True) if start < end]
    extension = draw(st.sampled_from([b"", b";a", b';a="b c"']))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailers = draw(st.sampled_from([b"", b"x-trailer: t\r\n", b"authorization: Bearer stolen\r\nx-b: c\r\n"]))
    return b"%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (head, chunks, trailers)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raws=st.lists(valid_requests(), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_valid_requests_are_read_as_h11_reads_them_in_any_split(site: Site, raws: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(raws)
    places = sorted({min(cut, len(stream)) for cut in cuts})
    with Client(site.port) as client:
        for start, end in zip([0, *places], [*places, len(stream)], strict=True):
            client.send(stream[start:end])
        for raw in raws:
            status, _, body = client.answer()
            assert (status, json.loads(body)) == (200, as_h11_reads(raw))


def test_a_request_may_come_byte_by_byte(connect: Connect) -> None:
    raw = POST + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n"
    client = connect()
    for byte in raw:
        client.send(bytes([byte]))
    status, _, body = client.answer()
    assert (status, json.loads(body)) == (200, as_h11_reads(raw))
    assert "t" not in json.loads(body)["headers"], "a trailer must not pass for a field of the head"


def test_a_body_in_more_chunks_than_are_kept_apart_is_whole(connect: Connect) -> None:
    for count in (PIECES_MAX - 1, PIECES_MAX, PIECES_MAX + 1, 5 * PIECES_MAX + 1):
        chunks = b"".join(b"1\r\n%c\r\n" % (65 + n % 26) for n in range(count))
        raw = POST + b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks
        client = connect()
        client.send(raw)
        assert json.loads(client.answer()[2]) == as_h11_reads(raw)


def test_an_absolute_target_of_our_own_host_is_a_path(connect: Connect) -> None:
    client = connect()
    for target, path, query in ((b"http://TEST/a?b", "/a", "b"), (b"https://test", "/", ""), (b"http://test?q", "/", "q")):
        client.send(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % target)
        found = json.loads(client.answer()[2])
        assert (found["path"], found["query"]) == (path, query)
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n")
    assert json.loads(client.answer()[2])["path"] == "*"


def test_percent_escapes_in_paths_are_resolved_once(connect: Connect) -> None:
    client = connect()
    client.send(b"GET /a%2Fb%2525%00%ff?x=%41 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n")
    found = json.loads(client.answer()[2])
    assert (found["path"], found["query"]) == ("/a/b%25\0\ufffd", "x=%41")


def test_head_has_no_body_and_the_connection_goes_on(connect: Connect) -> None:
    client = connect()
    client.send(b"HEAD /hello HTTP/1.1\r\nHost: test\r\n\r\n" + HELLO)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.socket.recv(1)
    assert b"content-length: " in head
    assert client.answer()[0] == 200


def test_http_1_0_gets_its_answer_and_the_end_of_the_connection(connect: Connect) -> None:
    for path, shown in ((b"/hello", b'"path": "/hello"'), (b"/stream", b"data: x\n\ndata: x\n\ndata: x\n\ndata: end\n\n")):
        client = connect()
        client.send(b"GET %b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % path)
        data = client.until_closed()
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"connection: close" in head and b"chunked" not in head and shown in body


def test_a_stream_is_chunked_and_the_connection_goes_on(connect: Connect) -> None:
    client = connect()
    client.send(b"POST /stream HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n" + HELLO)
    assert client.answer()[2] == b"data: x\n\n" * 3 + b"data: end\n\n"
    assert client.answer()[0] == 200


def test_close_is_said_and_done(connect: Connect) -> None:
    client = connect()
    client.send(b"GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert client.answer()[1]["connection"] == "close" and client.until_closed() == b""


def test_continue_is_said_when_it_is_waited_for(connect: Connect) -> None:
    head = POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    client = connect()
    client.send(head)
    assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert json.loads(client.answer()[2])["size"] == 3
    # Behind another request, it is said when that one's answer is out.
    client.send(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n" + head)
    assert client.answer()[2].endswith(b"end\n\n")
    while b"100 Continue" not in client._rest:
        client._more()
    client.send(b"abc")
    assert json.loads(client.answer()[2])["size"] == 3


def test_an_expected_body_that_is_too_large_is_refused_before_it_is_sent(connect: Connect) -> None:
    client = connect()
    client.send(POST + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
    assert client.until_closed().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("body", [b"", b"three"])
def test_an_upgrade_that_is_no_websocket_is_ignored(connect: Connect, body: bytes) -> None:
    client = connect()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    client.send(b"%b%bX: y\r\nContent-Length: %d\r\n\r\n%b" % (POST, upgrade, len(body), body[:2]))
    client.send(body[2:] + HELLO)
    found = json.loads(client.answer()[2])
    assert (found["size"], found["path"], found["query"], found["headers"]["x"]) == (len(body), "/echo", "a=1", ["y"])
    assert client.answer()[0] == 200


def test_a_websocket_is_refused_at_once_with_426(connect: Connect) -> None:
    client = connect()
    client.send(b"GET /v1/responses HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
    assert client.answer()[0] == 426 and client.until_closed() == b""


# --- hostile requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_at_once_and_the_next_client_is_served(site: Site, connect: Connect, name: str) -> None:
    seen = len(site.requests)
    client = connect()
    started = time.monotonic()
    try:
        client.send(HOSTILE[name])
    except ConnectionError:
        pass
    answers = client.until_closed()
    assert time.monotonic() - started < 1.0
    assert answers == b"" or answers.startswith(b"HTTP/1.1 4"), answers[:200]
    assert answers.count(b"HTTP/1.1 ") <= 1
    assert not any(request.path == "/smuggled" for request in site.requests[seen:])
    assert len(site.requests) == seen, "no handler ran"
    healthy = connect()
    healthy.send(HELLO)
    assert healthy.answer()[0] == 200
    assert not site.failures


@pytest.mark.parametrize(
    "name", ["space_before_colon", "length_and_chunked", "host_missing", "chunk_plus", "websocket", "body_too_large"]
)
def test_what_stands_before_a_hostile_request_is_answered_first(connect: Connect, name: str) -> None:
    client = connect()
    client.send(HELLO + b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n" + HOSTILE[name])
    assert client.answer()[0] == 200
    assert client.answer()[2].endswith(b"data: end\n\n")
    status, fields, _ = client.answer()
    assert 400 <= status < 500 and fields["connection"] == "close"
    assert client.until_closed() == b""


def test_a_refusal_reaches_a_client_that_is_still_sending(connect: Connect) -> None:
    """Closing with unread bytes would reset the connection, and the 413 would be lost."""
    for declared in (b"Content-Length: 30000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % 30_000_000):
        client = connect()
        client.send(POST + declared)
        for _ in range(400):
            client.send(b"x" * 65_536)
        status, fields, body = client.answer()
        assert (status, fields["connection"]) == (413, "close") and str(BODY_BYTES_MAX) in json.loads(body)["problem"]


def test_many_requests_in_one_packet_are_answered_in_order_and_bounded(site: Site, connect: Connect) -> None:
    """Sixteen may wait; the last of them is told that the connection ends, so that the others can be sent again."""
    client = connect()
    seen = len(site.requests)
    client.send(b"".join(b"GET /n%d HTTP/1.1\r\nHost: test\r\n\r\n" % n for n in range(5_000)))
    found = []
    while True:
        _, fields, body = client.answer()
        found.append(json.loads(body)["path"])
        if fields.get("connection") == "close":
            break
    assert found == [f"/n{n}" for n in range(1 + http.PIPELINE_MAX)]
    assert client.until_closed() == b"" and len(site.requests) == seen + len(found)


def test_big_pipelines_cost_little_memory(site: Site, connect: Connect) -> None:
    request = POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000
    wait = b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n"
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        client = connect()
        client.send(wait)
        for _ in range(200):
            client.send(request)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000, "kilobytes, of 400 MB offered"
