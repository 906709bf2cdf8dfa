"""Time-outs and bounds: what a caller may set, and the fixed sizes of every buffer in this package."""

from dataclasses import dataclass

HEADER_BYTES_MAX = 64 * 1024
"""Of a response head; also of the trailers, and of chunk framing between two pieces of body."""
HEADERS_MAX = 128
"""Header fields in a response."""
INTERIM_MAX = 8
"""Interim responses (1xx) before the final one."""
READ_BUFFER_BYTES_MAX = 256 * 1024
"""Response bytes nobody has fetched yet; above it the socket is not read. One socket read may pass the bound once."""
JOIN_BYTES_MAX = 16 * 1024
"""A request body up to this size is copied behind its head, so that both leave in one write."""
WRITE_SLICE_BYTES = 64 * 1024
"""Larger bodies are handed to the socket in slices of this size, and only while the socket takes them."""
SWEEP_S = 0.2
"""Resolution of the time-outs of an exchange: they fire never early and at most two sweeps late."""
QUIET_SWEEP_S = 1.0
"""The same for idle connections while nothing is in flight."""
ADDRESSES_MAX = 8
"""Addresses of one host name that are tried."""
ADDRESS_DELAY_S = 0.25
"""Head start of an address before the next is tried beside it (RFC 8305 §5, "Connection Attempt Delay")."""
CLOSE_S = 1.0
"""How long `Client.aclose` waits for the sockets to be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds each step of an exchange may take; every step has a bound.

    `connect_s` and `tls_s` hold to the millisecond, the others to the resolution `SWEEP_S`.
    """

    connect_s: float = 3.0
    """Name look-up and TCP; again for a proxy's answer to CONNECT."""
    tls_s: float = 5.0
    headers_s: float = 600.0
    """From the last byte of the request to the response head; interim responses do not extend it."""
    chunk_s: float = 60.0
    """Without progress of a body, in either direction. Not counted while our own reader is the slow one."""
    total_s: float = 900.0
    """From the first byte of the request to the last of the response."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value: float = getattr(self, name)
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds of the connections kept to one origin."""

    connections_per_origin_max: int = 256
    """Open or being opened."""
    idle_per_origin_max: int = 64
    idle_s: float = 30.0
    """Age at which an unused connection is closed, to the resolution `QUIET_SWEEP_S`."""
    waiters_per_origin_max: int = 1024
    acquire_s: float = 5.0
    """Longest wait for a free connection, to the resolution `SWEEP_S`."""

    def __post_init__(self) -> None:
        if self.connections_per_origin_max < 1:
            raise ValueError("`connections_per_origin_max` must be at least 1")
        if self.idle_per_origin_max < 0 or self.waiters_per_origin_max < 0:
            raise ValueError("`idle_per_origin_max` and `waiters_per_origin_max` must not be negative")
        if not (self.idle_s > 0 and self.acquire_s > 0):
            raise ValueError("`idle_s` and `acquire_s` must be positive")
