"""From a host name to a connected socket, over whichever of its addresses answers first (RFC 8305, simplified)."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any

from .limits import ADDRESS_DELAY_S, ADDRESSES_MAX

Address = tuple[int, Any]
"""Address family, and the address as `socket.connect` takes it."""


async def connect_tcp(host: str, port: int, may_connect: Callable[[str], bool] | None = None) -> socket.socket:
    """A connected, non-blocking socket with TCP_NODELAY. Raises `OSError`: the first address's when all fail.

    Each address gets `ADDRESS_DELAY_S` before the next is tried beside it; the losers are closed. Cancelling closes all.
    `may_connect` says which addresses may be reached; with none of them it is a `PermissionError`.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = interleave([(int(family), address) for family, _, _, _, address in found])[:ADDRESSES_MAX]
    if not addresses:
        raise OSError(f"no address for `{host}`")
    if may_connect is not None:
        addresses = [address for address in addresses if may_connect(address[1][0])]
        if not addresses:
            raise PermissionError(f"`{host}` has only addresses that must not be reached")
    if len(addresses) == 1:
        return await _connect(loop, addresses[0])
    return await _race(loop, addresses)


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between the families, the resolver's first choice first, without repeats (RFC 8305 §4)."""
    unique = list(dict.fromkeys(addresses))
    first = [address for address in unique if address[0] == unique[0][0]]
    other = [address for address in unique if address[0] != unique[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, other)) if address is not None]


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, address[1])
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(loop: asyncio.AbstractEventLoop, addresses: Sequence[Address]) -> socket.socket:
    attempts: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        waiting = list(addresses)
        running: set[asyncio.Task[socket.socket]] = set()
        while waiting or running:
            if waiting:
                attempt = loop.create_task(_connect(loop, waiting.pop(0)))
                attempts.append(attempt)
                running.add(attempt)
            delay_s = ADDRESS_DELAY_S if waiting else None
            done, running = await asyncio.wait(running, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                if attempt.exception() is None:
                    winner = attempt
                    return attempt.result()
        error = attempts[0].exception()
        assert error is not None, "every attempt failed"
        raise error
    finally:
        for attempt in attempts:
            if attempt is not winner:
                attempt.cancel()
                attempt.add_done_callback(_discard)


def _discard(attempt: "asyncio.Task[socket.socket]") -> None:
    """Close the socket of an attempt that came too late; an error it had has been answered by the winner's success."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
