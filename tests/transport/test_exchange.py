"""Single exchanges against scripted servers: framing on the wire, keep-alive, early answers, lost connections."""

import asyncio
import os
import socket

import pytest

from farebox.transport import Client, HeadersTooLarge, ProtocolError, TransportError, Truncated, prepare

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_request_bytes_are_one_head_and_the_body(run, listen):
    async def scenario():
        seen = []

        async def script(peer):
            seen.append(await peer.request())
            await peer.send(OK)

        async with listen(script) as server:
            client = Client()
            prepared = server.prepare("POST", "/v1/chat?x=1", (("Authorization", "Bearer k"),))
            response = await client.send(prepared, b"{}", extra_headers=[(b"x-request-id", b"7")])
            assert (response.status, await response.read(10)) == (200, b"ok")
            host = b"host: 127.0.0.1:%d\r\n" % server.port
            assert seen == [
                (
                    b"POST /v1/chat?x=1 HTTP/1.1\r\n" + host + b"Authorization: Bearer k\r\naccept-encoding: identity\r\n"
                    b"x-request-id: 7\r\ncontent-length: 2\r\n\r\n",
                    b"{}",
                )
            ]
            await client.aclose()

    run(scenario())


def test_connection_is_reused_while_responses_end_cleanly(run, listen):
    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")

        async with listen(script) as server:
            client = Client()
            for _ in range(5):
                response = await client.send(server.prepare(), b"x")
                assert await response.read(10) == b"ok"
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


def test_connection_is_free_before_the_body_is_read(run, listen):
    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(OK)

        async with listen(script) as server:
            client = Client()
            first = await client.send(server.prepare())
            second = await client.send(server.prepare())
            assert await first.read(10) == await second.read(10) == b"ok"
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK + b"\r\n", id="an empty line behind a length"),
        pytest.param(OK + OK, id="a second response behind the first"),
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), id="connection close"),
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive, Close\r\n\r\n"), id="close among options"),
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nconnection: x\r\nconnection: close\r\n\r\n"), id="close in a second field"),
        pytest.param(OK.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n", id="an empty line behind chunks"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + OK, id="a response behind chunks"
        ),
    ],
)
def test_connection_is_not_reused_after(answer, run, listen, wait_until):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(answer)
            await peer.gone()  # the client must hang up by itself
            closed.append(peer.index)

        closed = []
        async with listen(script) as server:
            client = Client()
            for _ in range(2):
                response = await client.send(server.prepare())
                assert await response.read(10) == b"ok"
            await wait_until(lambda: sorted(closed) == [0, 1])
            await client.aclose()

    run(scenario())


def test_bytes_on_an_idle_connection_close_it(run, listen, wait_until):
    """An attacker who gets a server to send one response too many must not answer the next caller."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(OK)
            if peer.index == 0:
                await asked.wait()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
                await peer.gone()
                closed.set()
            await peer.gone()

        asked, closed = asyncio.Event(), asyncio.Event()
        async with listen(script) as server:
            client = Client()
            assert await (await client.send(server.prepare())).read(10) == b"ok"
            asked.set()
            await closed.wait()
            assert await (await client.send(server.prepare())).read(10) == b"ok"
            assert len(server.peers) == 2
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n"),
        ("POST", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ],
)
def test_responses_without_a_body_keep_the_connection(method, head, run, listen):
    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(head)

        async with listen(script) as server:
            client = Client()
            for _ in range(3):
                response = await client.send(server.prepare(method))
                assert await response.next_chunk() == b""
                assert await response.read(0) == b""
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


def test_body_that_ends_with_the_connection(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall ")
            await peer.send(b"of it")

        async with listen(script) as server:
            client = Client()
            assert await (await client.send(server.prepare())).read(100) == b"all of it"
            await client.aclose()

    run(scenario())


def test_interim_responses_are_skipped(run, listen):
    async def scenario():
        async def script(peer):
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
                await peer.send(OK)

        async with listen(script) as server:
            client = Client()
            for _ in range(2):
                response = await client.send(server.prepare())
                assert response.status == 200
                assert response.headers == [(b"content-length", b"2")]
                assert await response.read(2) == b"ok"
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + OK, ProtocolError),
        (b"SSH-2.0-OpenSSH_9.7\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\nx: y\n\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 65536, HeadersTooLarge),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 129 + b"\r\n", HeadersTooLarge),
    ],
)
def test_malformed_head_is_an_error_at_once(answer, error, run, listen):
    """At once: the scripts keep the connection open, so waiting for more would hang."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(answer)
            await peer.gone()

        async with listen(script) as server:
            client = Client()
            with pytest.raises(error) as caught:
                await client.send(server.prepare())
            assert (caught.value.sent, caught.value.phase) == (True, "headers")
            await client.aclose()

    run(scenario())


def test_malformed_body_fails_after_the_bytes_before_it(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")
            await peer.gone()

        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare())
            assert await response.next_chunk() == b"ok"
            with pytest.raises(ProtocolError) as caught:
                await response.next_chunk()
            assert caught.value.phase == "body"
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_hang_up_inside_the_body_is_truncated(answer, reset, run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(answer)
            await received.wait()
            if reset:
                peer.writer.transport.abort()

        received = asyncio.Event()
        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare())
            assert await response.next_chunk() == b"short"
            received.set()
            for _ in range(2):  # the failure stays
                with pytest.raises(Truncated) as caught:
                    await response.next_chunk()
                assert (caught.value.sent, caught.value.phase) == (True, "body")
            await client.aclose()

    run(scenario())


def test_early_answer_is_delivered_and_stops_the_upload(run, listen):
    """A server that refuses a large body need not read it."""

    async def scenario():
        async def script(peer):
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nbig!")
            received.append(len(await peer.reader.read(1)))
            try:
                while part := await peer.reader.read(65536):
                    received.append(len(part))
            except ConnectionError:
                pass
            closed.set()

        received, closed = [], asyncio.Event()
        body = bytes(64 * 1024 * 1024)
        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare(), body)
            assert (response.status, await response.read(10)) == (413, b"big!")
            await closed.wait()
            assert sum(received) < len(body)
            await client.aclose()

    run(scenario())


def test_large_body_arrives_whole(run, listen):
    async def scenario():
        async def script(peer):
            while True:
                _, body = await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
                await peer.send(body)

        body = bytes(range(256)) * 16384
        async with listen(script) as server:
            client = Client()
            for size in (16 * 1024, 16 * 1024 + 1, 64 * 1024, 64 * 1024 + 1, len(body)):
                response = await client.send(server.prepare(), body[:size])
                assert await response.read(len(body)) == body[:size]
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


def test_idempotent_request_is_repeated_once_on_a_fresh_connection(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(OK)
            await peer.request()  # read, then hang up without a word
            requests.append(peer.index)

        requests = []
        async with listen(script) as server:
            client = Client()
            assert await (await client.send(server.prepare("GET"))).read(10) == b"ok"
            assert await (await client.send(server.prepare("GET"))).read(10) == b"ok"
            assert (requests, len(server.peers)) == ([0], 2)
            await client.aclose()

    run(scenario())


def test_post_that_was_written_is_never_repeated(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(OK)
            await peer.request()

        async with listen(script) as server:
            client = Client()
            assert await (await client.send(server.prepare())).read(10) == b"ok"
            with pytest.raises(Truncated) as caught:
                await client.send(server.prepare())
            assert (caught.value.sent, caught.value.phase, len(server.peers)) == (True, "headers", 1)
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_first_request_of_a_connection_is_never_repeated(method, run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()

        async with listen(script) as server:
            client = Client()
            with pytest.raises(Truncated):
                await client.send(server.prepare(method))
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


def test_connection_closed_while_idle_is_not_used_for_a_post(run, listen):
    """The server's FIN waits in the kernel: the event loop gets no chance to see it before the second POST."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(OK)
            await peer.gone()

        async with listen(script) as server:
            client = Client()
            for count in range(1, 20):
                # `send` runs up to its write without giving the loop a turn.
                assert await (await client.send(server.prepare())).read(10) == b"ok"
                assert len(server.peers) == count
                with socket.socket(fileno=os.dup(server.peers[-1].writer.get_extra_info("socket").fileno())) as end:
                    end.shutdown(socket.SHUT_WR)
            await client.aclose()

    run(scenario())


def test_no_address_answers(run, listen):
    async def scenario():
        async def script(peer):
            pass

        async with listen(script) as server:
            prepared = server.prepare()
        client = Client()
        with pytest.raises(TransportError) as caught:
            await client.send(prepared)
        assert (type(caught.value).__name__, caught.value.sent, caught.value.phase) == ("ConnectError", False, "connect")
        await client.aclose()

    run(scenario())


def test_name_with_several_addresses_falls_back(run, listen):
    """As `localhost` often has ::1 and 127.0.0.1, and a server listens on one of them."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(OK)
            await peer.gone()

        async with listen(script) as server:
            real = asyncio.get_running_loop().getaddrinfo

            async def resolve(host, port, **hints):
                if host != "several.test":
                    return await real(host, port, **hints)
                return [(10, 1, 6, "", ("::1", port, 0, 0)), (2, 1, 6, "", ("127.0.0.1", port))]

            origin = type(server.origin)("http", "several.test", server.port)
            client = Client()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
                response = await client.send(prepare(origin, "GET", "/"))
            assert await response.read(10) == b"ok"
            await client.aclose()

    run(scenario())
