"""Which proxy, if any, stands between the gateway and an origin.

The rules are those of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` as curl reads them
(https://curl.se/docs/manpage.html, "ENVIRONMENT"); the environment is an argument, never read here.
"""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from .origin import Origin, host_ascii, host_check

NO_PROXY_RULES_MAX = 256


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, reached over plain TCP."""

    host: str
    port: int
    authorization: str | None = None
    """Value of `proxy-authorization`, e.g. `Basic dTpw`."""

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """From `http://user:password@proxy.example:3128`, or without the scheme; port 80 by default, as for any http URL.

        Raises `ValueError`; TLS to the proxy itself and SOCKS are not supported, and are refused rather than ignored.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http":
            raise ValueError(f"proxy scheme `{parts.scheme}` is not supported; use `http://host:port`")
        if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("a proxy URL looks like `http://user:password@host:port`")
        host = host_ascii(parts.hostname)
        host_check(host)
        authorization = None
        if parts.username is not None:
            userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(userinfo.encode()).decode("ascii")
        return cls(host, 80 if parts.port is None else parts.port, authorization)


@dataclass(frozen=True, slots=True)
class NoProxyRule:
    """One entry of `NO_PROXY`: a name and its subdomains, an address, a network, or `*`; optionally one port."""

    kind: Literal["any", "name", "network"]
    name: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "NoProxyRule":
        """`example.com`, `.example.com`, `*.example.com`, `example.com:8080`, `10.0.0.0/8`, `[::1]:80`, `*`."""
        if text == "*":
            return cls("any")
        host, port = _split_port(text)
        try:
            return cls("network", network=ipaddress.ip_network(host, strict=False), port=port)
        except ValueError:
            if "/" in host or ":" in host:
                raise ValueError(f"`NO_PROXY` entry {text!r} is no network") from None
        name = host_ascii(host).removeprefix("*").lstrip(".").removesuffix(".")
        host_check(name)
        return cls("name", name=name, port=port)

    def matches(self, host: str, port: int) -> bool:
        """Whether a server at `host` (lower case, no brackets) and `port` is reached directly."""
        if self.port is not None and self.port != port:
            return False
        if self.kind == "any":
            return True
        if self.network is not None:
            try:
                return ipaddress.ip_address(host) in self.network
            except ValueError:
                return False  # a name; networks match literals only, nothing is resolved for this question
        host = host.removesuffix(".")
        return host == self.name or host.endswith(f".{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """A proxy for http, one for https, and the servers that need none."""

    http: Proxy | None = None
    https: Proxy | None = None
    direct: tuple[NoProxyRule, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "ProxySettings":
        """Read the usual variables; the lower-case spelling wins. Raises `ValueError` naming the variable at fault.

        `HTTP_PROXY` in capitals is ignored beside `REQUEST_METHOD`: in a CGI it is a header of the caller
        (https://httpoxy.org).
        """

        def proxy(name: str) -> Proxy | None:
            for variable in (name.lower(), name, "all_proxy", "ALL_PROXY"):
                if variable == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
                    continue
                url = environ.get(variable, "").strip()
                if url:
                    try:
                        return Proxy.parse(url)
                    except ValueError as error:
                        raise ValueError(f"`{variable}`: {error}") from error
            return None

        entries = [part for part in environ.get("no_proxy", environ.get("NO_PROXY", "")).replace(",", " ").split() if part]
        if len(entries) > NO_PROXY_RULES_MAX:
            raise ValueError(f"`NO_PROXY` has more than {NO_PROXY_RULES_MAX} entries")
        return cls(http=proxy("HTTP_PROXY"), https=proxy("HTTPS_PROXY"), direct=tuple(map(NoProxyRule.parse, entries)))

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy to use for `origin`, None for a direct connection."""
        proxy = self.https if origin.scheme == "https" else self.http
        if proxy is None or any(rule.matches(origin.host, origin.port) for rule in self.direct):
            return None
        return proxy


def _split_port(text: str) -> tuple[str, int | None]:
    """`host:port` and `[v6]:port` apart; an unbracketed IPv6 literal has no port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        return text, None
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError(f"`NO_PROXY` entry {text!r} has no valid port")
    return host, int(port) if port else None
