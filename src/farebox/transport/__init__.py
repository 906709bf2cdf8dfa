"""The only package that opens upstream connections: a small, strict HTTP/1.1 client on asyncio protocols.

Read it in this order: `client` (send), `pool` (which connection), `dial` (a new one), `connection` (write and read),
`reader` (bytes to a response), `response` (what the caller sees). `origin`, `proxy` and `prepared` are the values that go
in, `errors` and `limits` the words used everywhere.
"""

from .client import Client
from .errors import (
    BodyTooLarge,
    ChunkTimeout,
    Closed,
    ConnectError,
    ConnectTimeout,
    GivenUp,
    HeadersTimeout,
    HeadersTooLarge,
    PoolFull,
    PoolTimeout,
    ProtocolError,
    ProxyError,
    TlsError,
    TotalTimeout,
    TransportError,
    Truncated,
)
from .limits import PoolLimits, Timeouts
from .origin import Origin, Tls
from .prepared import Prepared, prepare
from .proxy import Proxy, ProxySettings
from .response import Response

__all__ = [
    "BodyTooLarge",
    "ChunkTimeout",
    "Client",
    "Closed",
    "ConnectError",
    "ConnectTimeout",
    "GivenUp",
    "HeadersTimeout",
    "HeadersTooLarge",
    "Origin",
    "PoolFull",
    "PoolLimits",
    "PoolTimeout",
    "Prepared",
    "ProtocolError",
    "Proxy",
    "ProxyError",
    "ProxySettings",
    "Response",
    "Timeouts",
    "Tls",
    "TlsError",
    "TotalTimeout",
    "TransportError",
    "Truncated",
    "prepare",
]
