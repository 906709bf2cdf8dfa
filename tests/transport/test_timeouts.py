"""Every step has its own time-out and its own error, never early; each closes the socket."""

import asyncio
import socket

import pytest

from farebox.transport import (
    ChunkTimeout,
    Client,
    ConnectTimeout,
    HeadersTimeout,
    Origin,
    ProxyError,
    ProxySettings,
    Timeouts,
    Tls,
    TlsError,
    TotalTimeout,
    prepare,
)

LIMIT_S = 0.1
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"


async def expect(error, awaitable, *, sent, phase):
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(error) as caught:
        await awaitable
    assert LIMIT_S * 0.99 <= loop.time() - started < 3
    assert (type(caught.value), caught.value.sent, caught.value.phase) == (error, sent, phase)


def story(answer):
    async def script(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)
        await peer.gone()
        gone.set()

    gone = asyncio.Event()
    return script, gone


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nx:"])
def test_headers_timeout(answer, run, listen):
    """Neither an interim response nor half a head is an answer."""

    async def scenario():
        script, gone = story(answer)
        async with listen(script) as server:
            client = Client()
            call = client.send(server.prepare(), b"x", timeouts=Timeouts(headers_s=LIMIT_S))
            await expect(HeadersTimeout, call, sent=True, phase="headers")
            await gone.wait()
            await client.aclose()

    run(scenario())


@pytest.mark.parametrize("whole", [False, True], ids=["next_chunk", "read"])
def test_chunk_timeout(whole, run, listen):
    async def scenario():
        script, gone = story(HEAD)
        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare(), timeouts=Timeouts(chunk_s=LIMIT_S))
            call = response.read(1000) if whole else response.next_chunk()
            await expect(ChunkTimeout, call, sent=True, phase="body")
            await gone.wait()
            await client.aclose()

    run(scenario())


def test_chunks_within_the_limit_may_go_on_for_longer(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(12):
                await asyncio.sleep(0.05)  # the pace of a stream
                await peer.send(b"1\r\nx\r\n")
            await peer.send(b"0\r\n\r\n")

        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare(), timeouts=Timeouts(chunk_s=0.3, headers_s=0.3))
            assert await response.read(100) == b"x" * 12
            await client.aclose()

    run(scenario())


def test_slow_consumer_is_not_a_slow_server(run, listen):
    """While our side pauses reading, silence is our own."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + bytes(4_000_000))

        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare(), timeouts=Timeouts(chunk_s=LIMIT_S))
            await asyncio.sleep(0.7)  # several sweeps past the limit
            assert len(await response.read(4_000_000)) == 4_000_000
            await client.aclose()

    run(scenario())


def test_stalled_upload_times_out(run, listen):
    async def scenario():
        async def script(peer):
            peer.writer.transport.pause_reading()
            await done.wait()

        done = asyncio.Event()
        async with listen(script) as server:
            client = Client()
            call = client.send(server.prepare(), bytes(64_000_000), timeouts=Timeouts(chunk_s=LIMIT_S))
            await expect(ChunkTimeout, call, sent=True, phase="request")
            done.set()
            await client.aclose()

    run(scenario())


def test_total_timeout(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await peer.send(b"x")
                await asyncio.sleep(0.01)  # the pace of a stream that never ends

        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare(), timeouts=Timeouts(total_s=LIMIT_S))
            await expect(TotalTimeout, response.read(1000), sent=True, phase="body")
            await client.aclose()

    run(scenario())


def test_connect_timeout(run):
    """A listener whose queue is full drops the SYN, as a dead host does."""

    async def scenario():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = listener.getsockname()
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            client = Client()
            prepared = prepare(Origin("http", "127.0.0.1", address[1]), "GET", "/")
            call = client.send(prepared, timeouts=Timeouts(connect_s=LIMIT_S))
            await expect(ConnectTimeout, call, sent=False, phase="connect")
            for filler in fillers:
                filler.close()
            await client.aclose()

    run(scenario())


def test_tls_timeout(run, listen):
    async def scenario():
        async def script(peer):
            await peer.gone()
            gone.set()

        gone = asyncio.Event()
        async with listen(script) as server:
            client = Client()
            prepared = prepare(Origin("https", "127.0.0.1", server.port, Tls(verify=False)), "GET", "/")
            await expect(TlsError, client.send(prepared, timeouts=Timeouts(tls_s=LIMIT_S)), sent=False, phase="tls")
            await gone.wait()
            await client.aclose()

    run(scenario())


def test_proxy_timeout(run, listen):
    async def scenario():
        script, gone = story(b"")
        async with listen(script) as server:
            client = Client(proxies=ProxySettings.from_env({"HTTPS_PROXY": f"127.0.0.1:{server.port}"}))
            prepared = prepare(Origin("https", "origin.test", 443), "GET", "/")
            await expect(ProxyError, client.send(prepared, timeouts=Timeouts(connect_s=LIMIT_S)), sent=False, phase="proxy")
            await gone.wait()
            await client.aclose()

    run(scenario())
