"""The end of a server: every call under way is waited for, whatever it is waiting for itself."""

import asyncio
import socket

from farebox.edge.answer import HttpAnswer
from farebox.edge.http import Request
from farebox.edge.server import HttpServer
from farebox.ports import SystemClock
from farebox.turn import Turn

REQUEST = b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n"


class Slow:
    """A handler that answers when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let = asyncio.Event()
        self.ends: list[str] = []

    async def handle(self, request: Request, answer: HttpAnswer) -> None:
        self.begun.set()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        answer.whole(200, b"", b"late")
        self.ends.append("answered")


async def started(handler: Slow) -> tuple[HttpServer, asyncio.StreamReader, asyncio.StreamWriter]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(
        handler.handle,
        SystemClock(),
        body_bytes_max=1_000,
        connections_max=10,
        header_s=5.0,
        tell=lambda status, problem, request: (b"", problem.encode()),
        turn=Turn(),
    )
    await server.start(listening)
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(REQUEST)
    await handler.begun.wait()
    server.stop_listening()
    return server, reader, writer


async def test_a_call_that_has_not_reached_its_provider_yet_is_waited_for() -> None:
    """It waited for the database when the worker was told to end, was no flight yet, and its client was hung up on."""
    handler = Slow()
    server, reader, writer = await started(handler)
    draining = asyncio.create_task(server.drain(30.0))
    await asyncio.wait([draining], timeout=0.1)
    assert not draining.done()
    handler.let.set()
    await draining
    await server.close()
    assert (await reader.read()).endswith(b"late")
    writer.close()


async def test_what_takes_too_long_is_cancelled_also_when_its_client_is_gone() -> None:
    for leaves in (False, True):
        handler = Slow()
        server, _, writer = await started(handler)
        if leaves:
            writer.transport.abort()
        await server.drain(0.1)
        assert handler.ends == ["cancelled"], f"client gone: {leaves}"
        await server.close()
        writer.close()
