"""The network in memory: ordered bytes with latency, pieces of any size, back-pressure, hang-ups and resets.

What the kernel has taken is delivered although its sender dies; what arrives at a dead process is answered with a reset.
"""

import asyncio
import os
import random
import socket
from collections.abc import Callable
from typing import Any, cast

from tests.simulation.loop import ProcessLoop

LATENCY_US = 150
LATENCY_SPAN_US = 700
NEVER_S = 1e9
KERNEL_BYTES = 16 * 1024
"""What is on its way or unread and does not count as unsent."""
BUFFER_DIVISOR = 16
"""The gateway's buffers are made smaller by this, so that short answers fill them."""


class HostPath:
    """How the way to a host is at the moment."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.fault = ""
        """`""`, `dns`, `refuse` or `silent` (packets are lost)."""
        self.until_us = 0
        self.down = False
        """Nobody is at home: connections are refused."""


class Listener:
    """A process that accepts connections."""

    def __init__(self, network: "Network", host: str, loop: ProcessLoop, factory: Callable[[], Any]) -> None:
        self.network = network
        self.host = host
        self.loop = loop
        self.factory = factory

    def close(self) -> None:
        listeners = self.network.host(self.host).listeners
        if self in listeners:
            listeners.remove(self)


class ListeningSocket:
    """What a server is given to listen on: the host's name."""

    def __init__(self, host: str) -> None:
        self.host = host


class PeerSocket:
    """The little that is asked of a connected socket: whether it is readable (`poll`), and to be reset on close."""

    def __init__(self, transport: "MemoryTransport") -> None:
        self._transport = transport

    def fileno(self) -> int:
        return self._transport.descriptor()

    def setsockopt(self, *_: object) -> None:
        self._transport.resets = True


class MemoryTransport(asyncio.Transport):
    """One end of a connection. `unread` holds the bytes on their way to it."""

    def __init__(self, network: "Network", loop: ProcessLoop) -> None:
        super().__init__()
        self.network = network
        self.loop = loop
        self.peer: MemoryTransport = cast("MemoryTransport", None)
        self.protocol: Any = None
        self.ready = False
        """`connection_made` has been called."""
        self.closing = False
        self.shut = False
        """Nothing more is written; reading goes on."""
        self.lost = False
        self.paused = False
        self.resets = False
        self.unread: list[bytes] = []
        self.unread_bytes = 0
        self.coming = False
        """A delivery is scheduled."""
        self.end: str = ""
        """How the stream to here ends behind the unread bytes: `eof` or `reset`."""
        self.full = False
        self.high = 64 * 1024
        self._fd = -1
        loop.transports[self] = None

    # The owner's side.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return PeerSocket(self) if name == "socket" else default

    def descriptor(self) -> int:
        if self._fd < 0:
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._fd

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = (high or 64 * 1024) // BUFFER_DIVISOR

    def get_write_buffer_size(self) -> int:
        return max(0, self.peer.unread_bytes - KERNEL_BYTES)

    def write(self, data: Any) -> None:
        if self.closing or self.shut or self.loop.dead or not data:
            return
        peer = self.peer
        if peer.lost or peer.loop.dead:
            self.network.reset(self)
            return
        peer.unread.append(bytes(data))
        peer.unread_bytes += len(data)
        if not peer.coming and not peer.paused and peer.ready:
            peer.coming = True
            peer.loop.after(self.network.latency_us(), peer.arrive)
        if not self.full and peer.unread_bytes > self.high + KERNEL_BYTES:
            self.full = True
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            self._expect()

    def write_eof(self) -> None:
        """FIN behind what is written; what comes is read on."""
        if not self.closing and not self.shut and not self.loop.dead:
            self.shut = True
            self.peer.be_told("eof")

    def close(self) -> None:
        """FIN behind what is written."""
        self._end("reset" if self.resets else "eof")

    def abort(self) -> None:
        """At once; what is unread here makes it a reset, as in TCP."""
        self._end("reset" if self.resets or self.unread or self.network.random.random() < 0.5 else "eof")

    def _end(self, how: str) -> None:
        if self.closing or self.loop.dead:
            return
        self.closing = True
        self.peer.be_told(how)
        self.loop.call_soon(self.lose, None)

    # The network's side.

    def be_told(self, how: str) -> None:
        """The other end has closed."""
        if not self.end:
            self.end = how
        if how == "reset" and self.network.random.random() < 0.5:
            self.unread.clear()
            self.unread_bytes = 0
        self._expect(always=True)

    def _expect(self, *, always: bool = False) -> None:
        if self.ready and not self.coming and (self.unread or self.end) and (always or not self.paused):
            self.coming = True
            self.loop.after(self.network.latency_us(), self.arrive)

    def begin(self, protocol: Any) -> None:
        """The connection is made."""
        self.protocol = protocol
        protocol.connection_made(self)
        self.ready = True
        self._expect()

    def arrive(self) -> None:
        """Something has come; the loop of this process sees it."""
        self.coming = False
        if self.lost or self.loop.dead:
            return
        if self.unread and not self.paused and not self.closing:
            data = self._take()
            if self._fd >= 0 and self.network.random.random() < 0.2:
                # Arrived, and not yet seen.
                self._mark()
            try:
                self.protocol.data_received(data)
            except Exception as error:
                self.loop.call_exception_handler({"message": "a protocol failed", "exception": error})
                self.abort()
                return
            peer = self.peer
            if peer.full and self.unread_bytes <= peer.high // 4 + KERNEL_BYTES:
                peer.full = False
                if not peer.lost:
                    peer.loop.call_soon(peer.resume)
        if self.unread and not self.end:
            self._expect()
        elif self.end == "reset" or (self.end and (not self.unread or self.closing)):
            # The kernel knows first, the process a moment later.
            self._mark()
            self.loop.call_soon(self._see_end)
        else:
            self._expect()

    def _take(self) -> bytes:
        data = self.unread[0] if len(self.unread) == 1 else b"".join(self.unread)
        split = self.network.split_bytes
        if split and len(data) > split and self.network.random.random() < 0.5:
            size = 1 + int(self.network.random.random() * split)
            self.unread = [data[size:]]
            self.unread_bytes = len(data) - size
            return data[:size]
        self.unread.clear()
        self.unread_bytes = 0
        return data

    def resume(self) -> None:
        if not self.lost and self.protocol is not None:
            self.protocol.resume_writing()

    def _see_end(self) -> None:
        if self.lost or self.closing:
            return
        if self.end == "reset":
            self.closing = True
            self.lose(ConnectionResetError("the connection was reset by the peer"))
            return
        if self.paused or self.unread:
            # Read first, then the end.
            self._expect()
            return
        if not self.protocol.eof_received():
            self.close()

    def lose(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = self.closing = True
        self.forget()
        if self.protocol is not None:
            self.protocol.connection_lost(error)
        peer = self.peer
        if not peer.lost and not peer.end:
            peer.be_told("reset")

    def forget(self) -> None:
        self.loop.transports.pop(self, None)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _mark(self) -> None:
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)


class Network:
    """Hosts, the ways to them, and every connection."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.hosts: dict[str, HostPath] = {}
        self.split_bytes = 0
        """Arriving bytes are cut into pieces of up to so many; 0: as they were sent."""
        self._dialled: dict[Any, str] = {}

    def latency_us(self) -> int:
        return LATENCY_US + int(self.random.random() * LATENCY_SPAN_US)

    def host(self, name: str) -> HostPath:
        path = self.hosts.get(name)
        if path is None:
            path = self.hosts[name] = HostPath()
        return path

    def disturb(self, name: str, fault: str, until_us: int) -> None:
        path = self.host(name)
        path.fault, path.until_us = fault, until_us

    def _fault(self, name: str, now_us: int) -> str:
        path = self.host(name)
        if path.down:
            return "refuse"
        return path.fault if now_us < path.until_us else ""

    async def resolve(self, loop: ProcessLoop, host: str, port: int) -> list[Any]:
        await asyncio.sleep(self.latency_us() / 1e6)
        if self._fault(host, loop.scheduler.now_us) == "dns":
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    async def connect(self, loop: ProcessLoop, sock: Any, address: Any) -> None:
        fault = self._fault(address[0], loop.scheduler.now_us)
        if fault == "silent":
            await asyncio.sleep(NEVER_S)
        await asyncio.sleep(self.latency_us() / 1e6)
        if fault == "refuse" or not self._living(address[0]):
            raise ConnectionRefusedError(111, f"{address[0]} refused")
        self._dialled[sock] = address[0]

    def _living(self, name: str) -> list[Listener]:
        return [listener for listener in self.host(name).listeners if not listener.loop.dead]

    def open(self, loop: ProcessLoop, factory: Callable[[], Any], sock: Any) -> tuple[MemoryTransport, Any]:
        """Both ends of a connection to where the socket was connected."""
        name = self._dialled.pop(sock)
        sock.close()
        return self.pair(loop, factory, name)

    def pair(self, loop: ProcessLoop, factory: Callable[[], Any], name: str) -> tuple[MemoryTransport, Any]:
        """A connection to a host, or `ConnectionError`."""
        listeners = self._living(name)
        if not listeners:
            raise ConnectionResetError(104, f"{name} hung up")
        listener = listeners[int(self.random.random() * len(listeners))]
        near, far = MemoryTransport(self, loop), MemoryTransport(self, listener.loop)
        near.peer, far.peer = far, near
        protocol = factory()
        near.begin(protocol)
        listener.loop.after(self.latency_us(), self._accept, listener, far)
        return near, protocol

    @staticmethod
    def _accept(listener: Listener, far: MemoryTransport) -> None:
        far.begin(listener.factory())

    def listen(self, loop: ProcessLoop, factory: Callable[[], Any], sock: ListeningSocket) -> Listener:
        listener = Listener(self, sock.host, loop, factory)
        self.host(sock.host).listeners.append(listener)
        return listener

    def reset(self, transport: MemoryTransport) -> None:
        """Somebody wrote to a closed end: it is told so."""
        if not transport.end:
            transport.be_told("reset")

    def process_died(self, loop: ProcessLoop) -> None:
        """Its kernel closes its sockets."""
        for path in self.hosts.values():
            path.listeners = [listener for listener in path.listeners if listener.loop is not loop]
        for transport in list(loop.transports):
            peer = transport.peer
            transport.lost = transport.closing = True
            transport.forget()
            if not peer.lost and not peer.loop.dead:
                peer.be_told("reset" if transport.unread or self.random.random() < 0.3 else "eof")
