"""Servers that follow a script, on both event loops, and a check that nothing is left open."""

import asyncio
import gc
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme
import uvloop

from farebox.transport import Origin, Prepared, Tls, prepare

SYSTEM = Tls()
WAIT_S = 10.0
"""Longest any scenario may take; reached only when something hangs."""


@dataclass
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    index: int

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head and body. Raises `IncompleteReadError` at the end of the connection."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
        return head, await self.reader.readexactly(int(length[1]) if length else 0)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Until the client's end is closed, whether by FIN or RST."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    """A listening socket whose connections all follow one script."""

    port: int
    tls: Tls
    scheme: str
    peers: list[Peer] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    @property
    def origin(self) -> Origin:
        return Origin.parse(f"{self.scheme}://127.0.0.1:{self.port}", self.tls)[0]

    def prepare(self, method: str = "POST", target: str = "/", headers: tuple[tuple[str, str], ...] = ()) -> Prepared:
        return prepare(self.origin, method, target, headers)


@asynccontextmanager
async def listening(script: Script, *, context: ssl.SSLContext | None = None, tls: Tls = SYSTEM) -> AsyncIterator[Server]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(reader, writer, len(server.peers))
        server.peers.append(peer)
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        except BaseException as error:
            server.failures.append(error)
        finally:
            if writer.get_extra_info("ssl_object"):
                writer.transport.abort()  # closing would wait for the client's part of the farewell
            else:
                writer.close()
            tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    server = Server(port, tls, "http" if context is None else "https")
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        while tasks:
            await asyncio.sleep(0)
        for peer in server.peers:
            peer.writer.transport.abort()
        assert server.failures == []


def socket_count() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return count


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds; the scenario's own time-out ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.002)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run one scenario on each event loop; afterwards no task and no socket may be left."""

    async def guarded(scenario: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        before = socket_count()
        async with asyncio.timeout(WAIT_S):
            await scenario
            me = asyncio.current_task()
            await until(lambda: asyncio.all_tasks() <= {me})
            await until(lambda: socket_count() <= before)
        gc.collect()  # futures and transports that complain do so when collected
        assert problems == []

    def runner(scenario: Coroutine[Any, Any, None]) -> None:
        if request.param == "uvloop":
            uvloop.run(guarded(scenario))
        else:
            asyncio.run(guarded(scenario))

    return runner


@pytest.fixture
def listen() -> Callable[..., Any]:
    """`async with listen(script) as server`: the script is run for every connection."""
    return listening


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return until


@dataclass(frozen=True)
class Certificates:
    """A CA with a server certificate for 127.0.0.1 and a client certificate, as files."""

    ca_file: str
    server_file: str
    client_file: str
    other_ca_file: str

    def server_context(self, *, client_required: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if client_required:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        return context

    @property
    def trust(self) -> Tls:
        return Tls(ca_file=self.ca_file)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    client.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
    names = [str(folder / name) for name in ("ca.pem", "server.pem", "client.pem", "other.pem")]
    return Certificates(*names)
