"""Our HTTP server and clients that are slow, vanish, or are many; handlers with bugs; the end."""

import gc
import resource
import socket
import struct
import time
from collections.abc import Callable

import pytest
from tests.support.http_site import HELLO, STREAM_PIECE, Client, Site
from tests.support.running import wait_until

Connect = Callable[[], Client]
POST = b"POST /echo?a=1 HTTP/1.1\r\nHost: test\r\n"


# --- slow clients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"P", POST, POST + b"X-Slow: y", b"\r\nGET / HTTP/1.1\r\n"])
def test_a_head_that_does_not_come_is_a_408(connect: Connect, first: bytes) -> None:
    client = connect()
    started = time.monotonic()
    client.send(first)
    assert client.answer()[0] == 408
    assert 0.4 < time.monotonic() - started < 2.6


def test_a_dripping_body_is_a_408(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.edge.server.BODY_GRACE_US", 500_000)
    client = connect()
    client.send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100)
    assert client.answer()[0] == 408


def test_idle_connections_end_quietly_even_when_they_drip_empty_lines(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox.edge.server.IDLE_US", 300_000)
    quiet, dripping = connect(), connect()
    deadline = time.monotonic() + 5
    with pytest.raises(OSError):
        while time.monotonic() < deadline:
            dripping.send(b"\r\n")
            dripping.socket.settimeout(0.05)
            try:
                if not dripping.receive():
                    raise ConnectionResetError
            except TimeoutError:
                pass
    assert time.monotonic() < deadline
    assert quiet.until_closed() == b""


def test_a_slow_reader_stops_the_stream_and_then_gets_all_of_it(site: Site, connect: Connect) -> None:
    client = connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    before = site.sent_bytes
    client.send(b"GET /flood HTTP/1.1\r\nHost: test\r\n\r\n")
    sent = 0

    def stalled() -> bool:
        nonlocal sent
        last, sent = sent, site.sent_bytes - before
        return sent > 0 and sent == last

    wait_until(stalled, "the stream waits for its reader")
    assert sent < 8_000_000, "what the kernel buffers, and no more"
    wanted = sent + 20 * len(STREAM_PIECE)
    got = 0
    while got < wanted:
        got += len(client.receive())
    assert site.sent_bytes - before > sent


def test_a_whole_answer_is_sent_to_its_end_before_the_connection_closes(connect: Connect) -> None:
    client = connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.send(b"GET /big HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert len(client.answer()[2]) == 4_000_000


# --- clients that vanish -----------------------------------------------------------------------------------------------------


def reset(client: Client) -> None:
    """Close with RST."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


REFERENCE = POST + b"X-Field: value\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nT: u\r\n\r\n"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_may_vanish_at_every_byte_of_a_request(site: Site, how: str) -> None:
    seen = len(site.requests)
    for length in range(len(REFERENCE)):
        client = Client(site.port)
        client.send(REFERENCE[:length])
        client.socket.close() if how == "fin" else reset(client)
    with Client(site.port) as healthy:
        healthy.send(HELLO)
        assert healthy.answer()[0] == 200
    wait_until(lambda: not site.server._connections, "every connection is forgotten")
    assert len(site.requests) == seen + 1, "an unfinished request reaches no handler"
    assert not site.failures


@pytest.mark.parametrize("behind", [b"", HELLO, HELLO * 30, b"POST / HT", b"garbage"])
@pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
@pytest.mark.parametrize("path", ["/wait", "/flood"])
def test_a_handler_is_told_once_that_its_client_is_gone(site: Site, how: str, path: str, behind: bytes) -> None:
    site.gone.clear()
    with Client(site.port) as client:
        client.send(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode() + behind)
        wait_until(lambda: site.running == 1, "the handler runs")
        if how == "half-close":
            client.socket.shutdown(socket.SHUT_WR)
        elif how == "rst":
            reset(client)
        else:
            client.socket.close()
        wait_until(lambda: site.running == 0, "the handler ends")
    assert site.gone == [path]


def test_a_client_that_takes_its_whole_answer_was_never_gone(site: Site, connect: Connect) -> None:
    site.gone.clear()
    client = connect()
    client.send(HELLO)
    client.answer()
    client.socket.close()
    wait_until(lambda: not site.server._connections, "the connection is forgotten")
    assert site.gone == []


def test_a_client_may_vanish_at_every_byte_of_an_answer(site: Site) -> None:
    request = b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n"
    with Client(site.port) as client:
        client.send(request)
        client.answer()
    for length in range(0, 220, 3):
        client = Client(site.port)
        client.send(request)
        if length:
            client.socket.recv(length, socket.MSG_WAITALL)
        reset(client)
    wait_until(lambda: not site.server._connections and site.running == 0, "every handler ends")
    assert not site.failures


# --- handlers with bugs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/raise", "/forget"])
def test_a_handler_that_fails_without_an_answer_is_a_500(site: Site, connect: Connect, path: str) -> None:
    client = connect()
    client.send(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode())
    status, fields, _ = client.answer()
    assert (status, fields["connection"]) == (500, "close")
    assert [str(failure["exception"]) for failure in site.failures] == (["a bug"] if path == "/raise" else [])
    site.failures.clear()


def test_a_handler_that_fails_in_its_stream_cuts_the_connection(site: Site, connect: Connect) -> None:
    client = connect()
    client.send(b"GET /raise-late HTTP/1.1\r\nHost: test\r\n\r\n")
    assert client.until_closed().endswith(b"4\r\nhalf\r\n"), "no last chunk: the client can tell"
    site.failures.clear()


# --- many connections, and the end -------------------------------------------------------------------------------------------


def test_a_thousand_idle_connections_cost_little_and_are_let_go(site: Site) -> None:
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clients = [Client(site.port) for _ in range(1_000)]
    wait_until(lambda: len(site.server._connections) >= 1_000, "all are accepted")
    started = time.monotonic()
    with Client(site.port) as healthy:
        healthy.send(HELLO)
        assert healthy.answer()[0] == 200
    assert time.monotonic() - started < 1.0
    for client in clients:
        client.socket.close()
    wait_until(lambda: not site.server._connections, "all are forgotten")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000, "kilobytes, both ends"


def test_beyond_the_bound_a_connection_is_told_so_and_served_again_when_there_is_room() -> None:
    with Site(connections_max=2) as site:
        holding = [Client(site.port), Client(site.port)]
        for client in holding:
            client.send(HELLO)
            assert client.answer()[0] == 200
        with Client(site.port) as refused:
            refused.send(HELLO)
            status, fields, _ = refused.answer()
            assert (status, fields["connection"]) == (503, "close")
            assert refused.until_closed() == b""
        holding[0].socket.close()
        wait_until(lambda: len(site.server._connections) == 1, "there is room")
        with Client(site.port) as late:
            late.send(HELLO)
            assert late.answer()[0] == 200
        holding[1].socket.close()


def test_stopping_ends_idle_connections_finishes_answers_and_sends_every_byte() -> None:
    with Site() as site, Client(site.port) as idle, Client(site.port) as waiting, Client(site.port) as reading:
        idle.send(HELLO)
        assert idle.answer()[0] == 200
        waiting.send(b"GET /flood HTTP/1.1\r\nHost: test\r\n\r\n")
        assert waiting.receive()
        reading.send(POST + b"Content-Length: 3\r\n\r\n")
        wait_until(lambda: sum(c.reading for c in site.server._connections) == 1, "one request is half read")
        site.call(site.server.stop_listening)
        assert idle.until_closed() == b""
        with pytest.raises(ConnectionRefusedError):
            Client(site.port)
        reading.send(b"abc")
        assert reading.answer()[0] == 200 and reading.until_closed() == b""
        assert waiting.receive(), "an answer under way goes on"


def test_the_last_bytes_of_an_answer_leave_before_the_server_ends() -> None:
    with Site() as site, Client(site.port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.receive()
        site.stop()
        total = 0
        while data := client.receive():
            total += len(data)
        assert total > 3_900_000
