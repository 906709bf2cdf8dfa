"""Everything that can go wrong between the gateway and an upstream server.

    TransportError            `.sent`, `.phase`
      ConnectError            no TCP connection to any address, or the name does not resolve
        ConnectTimeout        … within `Timeouts.connect_s`
        TlsError              handshake, certificate or ALPN; also past `Timeouts.tls_s`
        ProxyError            the proxy refused or garbled CONNECT
      PoolFull                `waiters_per_origin_max` calls already wait for a connection
      PoolTimeout             no connection became free within `PoolLimits.acquire_s`
      HeadersTimeout          request sent, no response head within `Timeouts.headers_s`
      ChunkTimeout            nothing moved for `Timeouts.chunk_s`, in the response body or while the request was being written
      TotalTimeout            the exchange lasted longer than `Timeouts.total_s`
      ProtocolError           the response is not strict HTTP/1.1
        HeadersTooLarge       … its head is longer than `HEADER_BYTES_MAX` or has more than `HEADERS_MAX` fields
      Truncated               the server hung up before the response ended
      BodyTooLarge            the body is longer than the caller's `bytes_max`
      GivenUp                 the owner waits no longer, for a reason of its own
      Closed                  the client, or this response, was closed by its owner

Wrong arguments (a header with a line break, a URL without a host) are `ValueError`: they are bugs of the caller.
"""

from typing import Literal

Phase = Literal["pool", "connect", "proxy", "tls", "request", "headers", "body"]
"""How far the exchange had come: waiting for a connection … writing the request, waiting for the head, reading the body."""


class TransportError(Exception):
    """An exchange that failed.

    `sent` is False only when no byte of the request can have reached the server, so that sending it again elsewhere
    cannot run it twice. `phase` says how far the exchange had come.
    """

    def __init__(self, message: str, *, sent: bool, phase: Phase) -> None:
        super().__init__(message)
        self.sent = sent
        self.phase: Phase = phase


class ConnectError(TransportError):
    """No connection: refused, unreachable, unknown name."""


class ConnectTimeout(ConnectError):
    """No TCP connection within `Timeouts.connect_s`."""


class TlsError(ConnectError):
    """The TLS handshake failed or took longer than `Timeouts.tls_s`."""


class ProxyError(ConnectError):
    """The proxy did not open a tunnel."""


class PoolFull(TransportError):
    """Too many calls already wait for a connection to this origin."""


class PoolTimeout(TransportError):
    """No connection became free in time."""


class HeadersTimeout(TransportError):
    """The server did not answer in time."""


class ChunkTimeout(TransportError):
    """The request or response body stalled."""


class TotalTimeout(TransportError):
    """The exchange took too long as a whole."""


class ProtocolError(TransportError):
    """The server's bytes are not a strict HTTP/1.1 response."""


class HeadersTooLarge(ProtocolError):
    """The response head passes `HEADER_BYTES_MAX` or `HEADERS_MAX`."""


class Truncated(TransportError):
    """End of file, or a reset, before the end of the response."""


class BodyTooLarge(TransportError):
    """The response body passes the caller's `bytes_max`."""


class GivenUp(TransportError):
    """The owner of the exchange waits no longer (`Response.give_up`)."""


class Closed(TransportError):
    """The owner closed the client or the response."""
