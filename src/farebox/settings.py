"""What the gateway as a whole is set to; one set of values per process."""

import msgspec

from farebox.gate.addresses import Network


class Settings(msgspec.Struct, frozen=True):
    """The few numbers that the data path reads."""

    keepalive_us: int
    drain_us: int
    drains_max: int
    body_bytes_max: int
    stream_recovery: bool = True
    """Unless the caller says otherwise."""
    metrics_public: bool = True
    trusted_proxies: tuple[Network, ...] = ()
