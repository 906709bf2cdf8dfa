"""One simulated provider for the folder, and a client that sees bytes instead of meanings."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from farebox.simulator.testing import SimulatorProcess

HELLO = [{"role": "user", "content": "hello there"}]


class Raw:
    """What came over the socket for one request: head, de-chunked or plain body, and how the connection ended."""

    def __init__(self, received: bytes, ended: str) -> None:
        self.received = received
        self.ended = ended
        """`open`, `fin` or `rst`."""
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1]) if received else 0
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        self.rest = rest
        self.complete = True
        self.body = self._dechunked() if self.headers.get("transfer-encoding") == "chunked" else rest

    def _dechunked(self) -> bytes:
        body, rest = b"", self.rest
        while True:
            size, line_end, rest = rest.partition(b"\r\n")
            if not line_end:
                self.complete = False
                return body
            if int(size, 16) == 0:
                self.trailers = rest.removesuffix(b"\r\n\r\n")
                return body
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        return self.body.split(b"\n\n")[:-1]


class Client:
    """Sends one request per connection and reads until the answer, or the connection, ends."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, model: str, wire: str = "chat", *, headers: dict[str, str] | None = None, **fields: Any) -> bytes:
        fields = {"model": model, "messages": HELLO, **fields}
        if wire == "messages":
            fields.setdefault("max_tokens", 1000)
            known = {"x-api-key": "key", "anthropic-version": "2023-06-01"}
        else:
            known = {"authorization": "Bearer key"}
        body = json.dumps(fields).encode()
        path = "/v1/chat/completions" if wire == "chat" else "/v1/messages"
        lines = [f"POST {path} HTTP/1.1", "host: sim", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (known | (headers or {})).items() if value]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def exchange(self, request: bytes, timeout: float = 5.0) -> Raw:
        with self.connect() as connection:
            connection.sendall(request)
            return self.read(connection, timeout)

    def read(self, connection: socket.socket, timeout: float = 5.0) -> Raw:
        received, ended = b"", "open"
        connection.settimeout(timeout)
        while not self._whole(received):
            try:
                data = connection.recv(65536)
            except TimeoutError:
                break
            except ConnectionResetError:
                ended = "rst"
                break
            if not data:
                ended = "fin"
                break
            received += data
        return Raw(received, ended)

    @staticmethod
    def _whole(received: bytes) -> bool:
        head, found, rest = received.partition(b"\r\n\r\n")
        if not found:
            return False
        if b"transfer-encoding: chunked" in head:
            return rest.endswith((b"0\r\n\r\n", b"0\r\nx-sim-trailer: end\r\n\r\n"))
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return len(rest) >= length

    def ask(
        self, model: str, wire: str = "chat", *, timeout: float = 5.0, headers: dict[str, str] | None = None, **fields: Any
    ) -> Raw:
        return self.exchange(self.request(model, wire, headers=headers, **fields), timeout)


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    bill: Path = tmp_path_factory.mktemp("simulator") / "bill.jsonl"
    with SimulatorProcess(bill_path=bill) as process:
        yield process


@pytest.fixture
def client(provider: SimulatorProcess) -> Client:
    return Client(provider.port)


@pytest.fixture(scope="session")
def chat(provider: SimulatorProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.base_url, api_key="key", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def messages(provider: SimulatorProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider.origin, api_key="key", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def hello() -> list[Any]:
    return [dict(message) for message in HELLO]


@pytest.fixture
def billed(provider: SimulatorProcess):
    """The final bill of one attempt, by its id; waits for a provider that has yet to notice a hang-up."""
    import time

    def find(id: str):
        end = time.monotonic() + 5
        while True:
            found = [attempt for attempt in provider.bill() if attempt.id == id]
            if found and found[0].final:
                return found[0]
            assert time.monotonic() < end, f"{id} is not settled: {found}"
            time.sleep(0.01)

    return find


@pytest.fixture
def client_of():
    """A byte-level client of another provider."""
    return Client
