"""Nobody's memory grows because the other side is slow."""

import asyncio

from farebox.transport import Client
from farebox.transport.limits import READ_BUFFER_BYTES_MAX

SIZE = 32 * 1024 * 1024
SOCKET_READ_BYTES_MAX = 256 * 1024  # what an event loop reads at once


def test_slow_reader_stops_the_server(run, listen):
    async def scenario():
        sent = 0

        async def script(peer):
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
            while sent < SIZE:
                await peer.send(bytes(65536))
                sent += 65536

        async def stalled():
            """Until the server has not been able to write for a while."""
            quiet, last = 0, -1
            while quiet < 20:
                await asyncio.sleep(0.005)
                quiet, last = (quiet + 1, last) if sent == last else (0, sent)

        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare())
            await stalled()
            assert sent < SIZE
            first = await response.next_chunk()
            assert READ_BUFFER_BYTES_MAX < len(first) <= READ_BUFFER_BYTES_MAX + SOCKET_READ_BYTES_MAX
            got = len(first)
            while chunk := await response.next_chunk():
                assert len(chunk) <= READ_BUFFER_BYTES_MAX + SOCKET_READ_BYTES_MAX
                got += len(chunk)
            assert got == SIZE
            await client.aclose()

    run(scenario())


def test_paused_connection_reads_again_for_the_next_response(run, listen):
    async def scenario():
        size = 3 * READ_BUFFER_BYTES_MAX

        async def script(peer):
            while True:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
                await peer.send(bytes(size))

        async with listen(script) as server:
            client = Client()
            for _ in range(3):
                response = await client.send(server.prepare())
                await asyncio.sleep(0.02)  # let it fill
                assert len(await response.read(size)) == size
            assert len(server.peers) == 1
            await client.aclose()

    run(scenario())


def test_slow_server_stops_the_upload(run, listen):
    """The body stays one object of the caller's: the transport's buffer holds at most a slice and its own mark."""

    async def scenario():
        async def script(peer):
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.writer.transport.pause_reading()
            arrived.set()
            await go_on.wait()
            peer.writer.transport.resume_reading()
            await peer.reader.readexactly(SIZE)
            await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")

        arrived, go_on = asyncio.Event(), asyncio.Event()
        async with listen(script) as server:
            client = Client()
            body = bytes(SIZE)
            written = []
            loop = asyncio.get_running_loop()
            create = loop.create_connection

            async def watched(*args, **kwargs):
                transport, protocol = await create(*args, **kwargs)
                written.append(transport)
                return transport, protocol

            loop.create_connection = watched
            task = asyncio.create_task(client.send(server.prepare(), body))
            await arrived.wait()
            await asyncio.sleep(0.05)
            assert written[0].get_write_buffer_size() <= 2 * 65536
            go_on.set()
            assert (await task).status == 204
            await client.aclose()

    run(scenario())


def test_stream_is_delivered_as_it_comes(run, listen):
    """Each piece reaches the caller before the server sends the next."""

    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(50):
                await peer.send(b"3\r\n%03d\r\n" % number)
                await turns.get()
            await peer.send(b"0\r\n\r\n")

        turns = asyncio.Queue(1)
        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare())
            for number in range(50):
                assert await response.next_chunk() == b"%03d" % number
                await turns.put(None)
            assert await response.next_chunk() == b""
            assert await response.next_chunk() == b""
            await client.aclose()

    run(scenario())


def test_buffered_pieces_come_joined_and_without_waiting(run, listen):
    async def scenario():
        async def script(peer):
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n")
            await peer.gone()

        async with listen(script) as server:
            client = Client()
            response = await client.send(server.prepare())
            step = response.next_chunk()
            try:
                step.send(None)
            except StopIteration as done:
                assert done.value == b"abcd"
            else:
                raise AssertionError("next_chunk waited although data was there")
            response.close()
            await client.aclose()

    run(scenario())
