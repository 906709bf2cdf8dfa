"""Where a server lives: scheme, host, port, and how its certificate is checked."""

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Trust and identity for https. The default trusts the system's authorities and presents no certificate."""

    ca_file: str | None = None
    """PEM file of the only authorities to trust."""
    client_cert_file: str | None = None
    """PEM chain presented to the server (mutual TLS)."""
    client_key_file: str | None = None
    """PEM key of that chain; None: the key is in `client_cert_file`."""
    verify: bool = True
    """False accepts any certificate: for laboratories only."""

    def __post_init__(self) -> None:
        if self.client_key_file is not None and self.client_cert_file is None:
            raise ValueError("`client_key_file` needs `client_cert_file`")


@dataclass(frozen=True, slots=True)
class Origin:
    """One server. Connections are shared by equal origins, so the TLS settings are part of it."""

    scheme: Literal["http", "https"]
    host: str
    """Lower case, without brackets: `api.openai.com`, `127.0.0.1`, `::1`."""
    port: int
    tls: Tls = Tls()

    def __post_init__(self) -> None:
        if self.scheme not in DEFAULT_PORT:
            raise ValueError(f"scheme must be `http` or `https`, not {self.scheme!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port {self.port} is not between 1 and 65535")
        host_check(self.host)

    @classmethod
    def parse(cls, url: str, tls: Tls | None = None) -> "tuple[Origin, str]":
        """Split a base URL: `https://api.openai.com/v1` → the origin and `/v1`.

        The path comes back as written, with its query and without a default: `""` when the URL has none. Raises
        `ValueError` for other schemes, user names, fragments, blanks, and hosts that cannot exist.
        """
        if not url.isprintable() or " " in url:
            raise ValueError(f"URL {url!r} contains a blank or a control character")
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORT:
            raise ValueError(f"URL {url!r} must start with `http://` or `https://`")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"URL for host {parts.hostname!r} must not carry a user name; use the credential setting")
        if parts.fragment:
            raise ValueError(f"URL {url!r} must not have a fragment")
        if not parts.hostname:
            raise ValueError(f"URL {url!r} has no host")
        scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
        port = parts.port  # raises ValueError when it is no number
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        origin = cls(scheme, host_ascii(parts.hostname), DEFAULT_PORT[scheme] if port is None else port, tls or Tls())
        return origin, path

    @property
    def authority(self) -> str:
        """`host:port` with brackets around IPv6, for CONNECT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The authority without the scheme's default port (RFC 9110 §7.2)."""
        if self.port == DEFAULT_PORT[self.scheme]:
            return self.authority.rpartition(":")[0]
        return self.authority


def host_ascii(host: str) -> str:
    """A host name as DNS wants it: lower case, IDNA-encoded. Raises `ValueError` when it has no such form."""
    host = host.lower()
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"host {host!r} is no valid international name") from error


def host_check(host: str) -> None:
    """Raises `ValueError` unless `host` is an IP literal or made of the characters of a DNS name (RFC 1123, plus `_`)."""
    if ":" in host:
        ipaddress.IPv6Address(host.partition("%")[0])
        if "%" in host:
            raise ValueError(f"host {host!r}: zone identifiers are not supported")
        return
    labels = host.removesuffix(".").split(".")
    valid = all(0 < len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum() for label in labels)
    if not (valid and len(host) <= 253 and host.isascii() and host == host.lower()):
        raise ValueError(f"host {host!r} is no valid name")
