"""The simulated provider as a server: routes, state, start and stop."""

import asyncio
import signal
import sys
from collections.abc import Callable

import msgspec
import uvloop

from farebox.simulator.answer import CREATED_S
from farebox.simulator.bench import BENCH, Prebuilt, prebuilt
from farebox.simulator.bill import FARE_HEADER, BillWriter
from farebox.simulator.config import SimulatorConfig
from farebox.simulator.connection import BenchStream, Connection, Inbound
from farebox.simulator.control import Control
from farebox.simulator.dialects import DIALECTS
from farebox.simulator.directives import NONE, DirectiveError
from farebox.simulator.exchange import JSON, Exchange, check_credential, credential_of
from farebox.simulator.faults import Faults
from farebox.simulator.journal import RequestJournal
from farebox.simulator.outlet import Broken, Hangup, Outlet
from farebox.simulator.prefixes import PrefixCache
from farebox.simulator.read_messages import read_count
from farebox.simulator.refusals import Refusal, Wire

BACKLOG = 4096
_encode = msgspec.json.Encoder().encode
_FARE = FARE_HEADER.encode()


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _BenchCall(msgspec.Struct):
    model: str = ""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_decode_bench = msgspec.json.Decoder(_BenchCall).decode
_BENCH_MARK = f'"{BENCH}'.encode()
_PREBUILT_MAX = 1024


class Simulator:
    """The handler behind every connection of one server."""

    def __init__(self, config: SimulatorConfig) -> None:
        if config.dialect not in DIALECTS:
            raise ValueError(f"dialect `{config.dialect}` is unknown; it is one of {', '.join(DIALECTS)}")
        self._config = config
        self._faults = Faults()
        self._journal = RequestJournal()
        self._cache = PrefixCache(config.cache_tokens_min)
        self._bill = None if config.bill is None else BillWriter(config.bill, config.bill_sync)
        self._number = 0 if self._bill is None else self._bill.attempts_before
        self._control = Control(self._faults, self._journal, self._cache, self._bill)
        self._prebuilt: dict[tuple[bytes, str, bool], Prebuilt] = {}
        self._quick_allowed = self._bill is None or not config.bill_sync

    def close(self) -> None:
        if self._bill is not None:
            self._bill.close()

    # The prebuilt way

    def quick(self, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes | BenchStream | None:
        """A bench answer, unless something about it needs the long way."""
        if _BENCH_MARK not in body or not self._quick_allowed or self._faults.any_scoped:
            return None
        try:
            call = _decode_bench(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        options = call.stream_options
        key = (target, call.model, options is not None and options.include_usage)
        found = self._prebuilt.get(key) or self._prebuild(*key)
        if found is None:
            return None
        limit = call.max_completion_tokens or call.max_tokens
        if limit is not None and limit < found.plan.usage.output:
            return None
        if not call.stream and (found.delay_first_s or found.delay_chunk_s):
            return None
        self._number += 1
        id = found.id(self._number)
        if self._bill is not None:
            fare = next((value.decode("latin-1") for name, value in headers if name.lower() == _FARE), None)
            self._bill.whole(id.decode(), call.model, found.plan.usage, found.plan.prompt, fare)
        return found.stream(id) if call.stream else found.reply(id)

    def _prebuild(self, target: bytes, model: str, include_usage: bool) -> Prebuilt | None:
        """Remembers a new answer; paths with a query are rare enough to go the long way."""
        wire: Wire | None = (
            "chat" if target.endswith(b"/chat/completions") else "messages" if target.endswith(b"/messages") else None
        )
        if wire is None or model.partition("+")[0] != BENCH:
            return None
        try:
            found = prebuilt(wire, model, include_usage, self._config.seed)
        except DirectiveError:
            return None
        if found is not None and len(self._prebuilt) < _PREBUILT_MAX:
            self._prebuilt[target, model, include_usage] = found
        return found

    # The long way

    async def serve(self, inbound: Inbound, connection: Connection) -> bool:
        path = inbound.path
        if "/control/" in path and self._config.control:
            status, body = self._control.answer(inbound)
            return await self._plain(connection, status, body)
        seen = self._journal.record(inbound, credential_of(inbound), connection)
        wire: Wire | None = None
        if path.endswith("/chat/completions"):
            wire = "chat"
        elif path.endswith("/messages"):
            wire = "messages"
        if wire is not None and inbound.method == "POST":
            self._number += 1
            exchange = Exchange(
                self._config, self._faults, self._cache, self._bill, wire, self._number, inbound, connection
            )
            seen.id = exchange.id
            try:
                return await exchange.run()
            finally:
                seen.status = exchange.status
                self._journal.close(seen, exchange.reason or "failed", connection)
        status, body = self._small(inbound, path)
        seen.status = status
        try:
            return await self._plain(connection, status, body)
        finally:
            self._journal.close(seen, "answered", connection)

    def _small(self, inbound: Inbound, path: str) -> tuple[int, bytes]:
        """What is neither generated nor billed: token counts and the list of models."""
        anthropic = inbound.header(b"anthropic-version") is not None
        wire: Wire = "messages" if anthropic or "/messages" in path else "chat"
        try:
            if inbound.method == "POST" and path.endswith("/messages/count_tokens"):
                ordered = self._faults.orders(path, "", "", "", check_credential(inbound, wire)).status
                if ordered is not None:
                    raise Refusal(ordered, f"The simulated provider was ordered to answer {ordered}.")
                return 200, _encode({"input_tokens": read_count(inbound.body).prompt_tokens})
            if inbound.method == "GET" and path.endswith("/models"):
                check_credential(inbound, wire)
                return 200, self._models(wire)
            if path.endswith(("/chat/completions", "/messages", "/models", "/messages/count_tokens")):
                raise Refusal(405, f"Not allowed to {inbound.method} on {path[:200]}", code="method_not_supported")
            raise Refusal(404, f"Invalid URL ({inbound.method} {path[:200]})", code="unknown_url")
        except Refusal as refusal:
            return refusal.status, refusal.body(wire, "req_simulator")

    def _models(self, wire: Wire) -> bytes:
        names = ("sim", BENCH, *self._config.models)
        if wire == "chat":
            rows = [{"id": name, "object": "model", "created": CREATED_S, "owned_by": "farebox-simulator"} for name in names]
            return _encode({"object": "list", "data": rows})
        models = [
            {
                "type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active",
            }
            for name in names
        ]  # fmt: skip
        return _encode({"data": models, "has_more": False, "first_id": names[0], "last_id": names[-1]})

    async def _plain(self, connection: Connection, status: int, body: bytes) -> bool:
        outlet = Outlet(connection, NONE, persist=True, before_break=_never)
        try:
            await outlet.whole(status, JSON, body, {})
        except (Hangup, Broken):
            return False
        return True


async def _never(_: object) -> None:
    raise AssertionError("an undisturbed answer is never broken off")


class RunningSimulator:
    """A started server. `port` is the one that was given or chosen."""

    def __init__(self, server: asyncio.Server, simulator: Simulator, connections: set[Connection], port: int) -> None:
        self._server = server
        self._simulator = simulator
        self._connections = connections
        self.port = port

    async def close(self) -> None:
        """Stops listening, hangs up on everybody, closes the bill."""
        self._server.close()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        self._simulator.close()


async def start(config: SimulatorConfig) -> RunningSimulator:
    """Starts in the running event loop."""
    loop = asyncio.get_running_loop()
    simulator = Simulator(config)
    connections: set[Connection] = set()
    try:
        server = await loop.create_server(
            lambda: Connection(simulator, loop, connections), config.host, config.port, backlog=BACKLOG
        )
    except OSError:
        simulator.close()
        raise
    return RunningSimulator(server, simulator, connections, server.sockets[0].getsockname()[1])


def _say_port(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def serve(config: SimulatorConfig, ready: Callable[[int], None] = _say_port) -> None:
    """Runs until SIGINT or SIGTERM. `ready` is called with the port once connections are accepted; it prints it by default."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        running = await start(config)
        ready(running.port)
        await stop.wait()
        await running.close()

    uvloop.run(run())
