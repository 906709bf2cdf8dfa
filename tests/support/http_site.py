"""Our HTTP server on a loop of its own in a thread, as in production, and clients that are plain sockets."""

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvloop

from farebox.edge.http import HttpAnswer, Request
from farebox.edge.server import HttpServer
from farebox.ports import SystemClock
from farebox.turn import Turn

BODY_BYTES_MAX = 1_000_000
HEADER_S = 1.0
CONNECTIONS_MAX = 1_200
WAIT_S = 10.0
JSON = b"content-type: application/json\r\n"
STREAM_PIECE = b"x" * 65_536
HELLO = b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"


class Site:
    """The server and what its handler saw."""

    def __init__(self, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.requests: list[Request] = []
        self.gone: list[str] = []
        """Paths whose `on_gone` was called, once per call."""
        self.sent_bytes = 0
        """Of `/flood`, handed to the connection."""
        self.failures: list[dict[str, Any]] = []
        self.running = 0
        self.server = HttpServer(
            self.handle,
            SystemClock(),
            body_bytes_max=BODY_BYTES_MAX,
            connections_max=connections_max,
            header_s=HEADER_S,
            tell=self.tell,
            turn=Turn(),
        )
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listening.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))

    @staticmethod
    def tell(status: int, problem: str, _request: Request) -> tuple[bytes, bytes]:
        return JSON, json.dumps({"status": status, "problem": problem}).encode()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.failures.append(context))
        await self.server.start(self._listening)
        self._started.set()
        await self._stop.wait()
        await self.server.close()

    def call(self, function: Callable[[], None]) -> None:
        """Run on the server's loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def stop(self) -> None:
        self.call(self._stop.set)

    def __enter__(self) -> "Site":
        self._thread.start()
        assert self._started.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    async def handle(self, request: Request, answer: HttpAnswer) -> None:
        self.requests.append(request)
        path = request.path
        answer.on_gone = lambda: self.gone.append(path)
        self.running += 1
        try:
            await self._answer(path, request, answer)
        finally:
            self.running -= 1

    async def _answer(self, path: str, request: Request, answer: HttpAnswer) -> None:
        if path == "/raise":
            raise ValueError("a bug")
        if path == "/forget":
            return
        if path == "/raise-late":
            answer.start(b"")
            answer.send(b"half")
            raise ValueError("a bug")
        if path == "/stream":
            answer.start(b"content-type: text/event-stream\r\n")
            for _ in range(3):
                answer.send(b"data: x\n\n")
                await asyncio.sleep(0)
            answer.end(b"data: end\n\n")
        elif path == "/flood":
            answer.start(b"")
            while not answer.gone:
                self.sent_bytes += len(STREAM_PIECE)
                if answer.send(STREAM_PIECE):
                    await answer.drain()
                else:
                    await asyncio.sleep(0)
        elif path == "/wait":
            gone = asyncio.Event()
            seen = answer.on_gone
            answer.on_gone = lambda: (gone.set(), seen() if seen is not None else None)[0]
            await gone.wait()
        elif path == "/big":
            answer.whole(200, JSON, b"z" * 4_000_000)
        else:
            answer.whole(200, JSON, json.dumps(described(request)).encode())


def described(request: Request) -> dict[str, Any]:
    """What a handler can know of a request."""
    return {
        "method": request.method.decode(),
        "path": request.path,
        "query": request.query.decode(),
        "headers": {name.decode("latin-1"): items(value) for name, value in request.headers.items()},
        "body": hashlib.sha256(request.body).hexdigest(),
        "size": len(request.body),
    }


def items(value: bytes) -> list[str]:
    """A field's value as the list that repeated lines make of it."""
    return [item.strip(" \t") for item in value.decode("latin-1").split(",")]


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        return self.socket.recv(65_536)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next final answer of the connection: status, fields, body."""
        while True:
            while b"\r\n\r\n" not in self._rest:
                self._more()
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            if status >= 200:
                break
        fields = dict(line.split(": ", 1) for line in lines[1:])
        if fields.get("transfer-encoding") == "chunked":
            return status, fields, self._chunks()
        size = int(fields.get("content-length", "0"))
        while len(self._rest) < size:
            self._more()
        body, self._rest = self._rest[:size], self._rest[size:]
        return status, fields, body

    def _more(self) -> None:
        data = self.receive()
        if not data:
            raise ConnectionResetError(f"closed after {self._rest!r}")
        self._rest += data

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._rest:
                self._more()
            size_text, _, self._rest = self._rest.partition(b"\r\n")
            size = int(size_text, 16)
            while len(self._rest) < size + 2:
                self._more()
            body += self._rest[:size]
            self._rest = self._rest[size + 2 :]
            if size == 0:
                return body

    def until_closed(self) -> bytes:
        """Everything until the server's end is closed, by FIN or RST."""
        data, self._rest = self._rest, b""
        try:
            while piece := self.receive():
                data += piece
        except ConnectionError:
            pass
        return data
