"""A receiver of alerts: an HTTP server on the loopback that writes down what it is told, a line of JSON each."""

import asyncio
from pathlib import Path

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 256 * 1024
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """`async with Receiver(path) as receiver: … receiver.url`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Receiver":
        self._path.touch()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None, "it has an address while it listens"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/alerts"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                if length > BODY_BYTES_MAX:
                    return
                self._write_down(await reader.readexactly(length))
                writer.write(_ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    def _write_down(self, body: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(body + b"\n")
