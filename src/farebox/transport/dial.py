"""Opening a connection: TCP, then the proxy's tunnel, then TLS. Each step has its own time-out and its own error."""

import asyncio
import ssl
from collections.abc import Callable

from .connection import Connection
from .errors import ConnectError, ConnectTimeout, ProxyError, TlsError
from .limits import Timeouts
from .origin import Origin
from .proxy import Proxy
from .reader import ResponseReader
from .tcp import connect_tcp
from .tls import ALPN


async def dial(
    origin: Origin,
    *,
    proxy: Proxy | None,
    context: ssl.SSLContext | None,
    timeouts: Timeouts,
    make: Callable[[], Connection],
    may_connect: Callable[[str], bool] | None = None,
) -> Connection:
    """A connection ready for its first request; `make` builds it once there is a socket.

    For http a proxy is just the peer; for https it is asked for a tunnel first. `context` is required for https.
    Raises the members of `ConnectError`, all with `sent=False`; closes everything it opened when it fails or is cancelled.
    """
    host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
    peer = f"{host}:{port}"
    try:
        async with asyncio.timeout(timeouts.connect_s):
            sock = await connect_tcp(host, port, may_connect)
    except TimeoutError as error:
        raise ConnectTimeout(f"no TCP connection to {peer} within {timeouts.connect_s} s", sent=False, phase="connect") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a label the resolver's IDNA codec refuses
        raise ConnectError(f"cannot connect to {peer}: {error}", sent=False, phase="connect") from error
    loop = asyncio.get_running_loop()
    if context is None:
        _, connection = await loop.create_connection(make, sock=sock)
        return connection
    transport, raw = await loop.create_connection(_Raw, sock=sock)
    try:
        if proxy is not None:
            await _open_tunnel(transport, raw, origin, proxy, timeouts)
        return await _start_tls(transport, origin, context, timeouts, make)
    except BaseException:
        transport.abort()
        raise


class _Raw(asyncio.Protocol):
    """A socket before TLS. Only a tunnel's answer may come on it."""

    def __init__(self) -> None:
        self.reader: ResponseReader | None = None
        self.answered: asyncio.Future[None] | None = None
        self.error: Exception | None = None

    def data_received(self, data: bytes) -> None:
        # A 2xx answer to CONNECT has no body, whatever its headers say (RFC 9112 §6.3): read it as that of a HEAD.
        # What a proxy sends behind it is dropped here, so it cannot pass for the server's: the handshake then fails.
        reader = self.reader
        if reader is None:
            self.error = ConnectionError("the server spoke before the handshake")
            return
        try:
            reader.feed(data)
        except Exception as error:
            self.error = error
        if reader.head is not None or self.error is not None:
            self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = self.error or exc or ConnectionError("the connection was closed")
        self._answer()

    def _answer(self) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(None)


async def _open_tunnel(transport: asyncio.Transport, raw: _Raw, origin: Origin, proxy: Proxy, timeouts: Timeouts) -> None:
    """CONNECT (RFC 9110 §9.3.6)."""
    raw.reader = reader = ResponseReader(head_only=True)
    raw.answered = asyncio.get_running_loop().create_future()
    request = f"CONNECT {origin.authority} HTTP/1.1\r\nhost: {origin.authority}\r\n"
    if proxy.authorization is not None:
        request += f"proxy-authorization: {proxy.authorization}\r\n"
    transport.write(request.encode("ascii") + b"\r\n")
    try:
        async with asyncio.timeout(timeouts.connect_s):
            await raw.answered
    except TimeoutError as error:
        message = f"the proxy {proxy.host}:{proxy.port} did not answer CONNECT within {timeouts.connect_s} s"
        raise ProxyError(message, sent=False, phase="proxy") from error
    finally:
        reader.drop_parser()
    head = reader.head
    if raw.error is not None or head is None:
        raise ProxyError(f"the proxy {proxy.host}:{proxy.port} failed: {raw.error}", sent=False, phase="proxy") from raw.error
    if not 200 <= head.status < 300:
        message = f"the proxy {proxy.host}:{proxy.port} refused a tunnel to {origin.authority} with status {head.status}"
        raise ProxyError(message, sent=False, phase="proxy")


async def _start_tls(
    transport: asyncio.Transport, origin: Origin, context: ssl.SSLContext, timeouts: Timeouts, make: Callable[[], Connection]
) -> Connection:
    connection = make()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeouts.tls_s):
            # The loop's own handshake time-out must not strike first: its error would look like a refusal.
            secured = await loop.start_tls(
                transport, connection, context, server_hostname=origin.host, ssl_handshake_timeout=timeouts.tls_s + 1
            )
    except TimeoutError as error:
        message = f"no TLS handshake with {origin.authority} within {timeouts.tls_s} s"
        raise TlsError(message, sent=False, phase="tls") from error
    except (OSError, ssl.SSLError, ssl.CertificateError) as error:
        raise TlsError(f"TLS handshake with {origin.authority} failed: {error}", sent=False, phase="tls") from error
    if secured is None or connection.gone:
        raise TlsError(f"{origin.authority} hung up during the TLS handshake", sent=False, phase="tls")
    chosen = secured.get_extra_info("ssl_object").selected_alpn_protocol()
    if chosen not in (None, ALPN):
        raise TlsError(f"{origin.authority} chose the protocol {chosen!r}", sent=False, phase="tls")
    connection.attach(secured)
    return connection
