"""From which address a request comes, and whether it lies in a network. Pure.

`X-Forwarded-For` is believed only as far as proxies that the operator trusts have written it: it is read from its end, and the
first address that is no trusted proxy's is the client's. Whatever stands before it the client may have made up.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from farebox.errors import invalid

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
FORWARDED_FOR = b"x-forwarded-for"
HOPS_MAX = 32
"""Entries of `X-Forwarded-For` that are looked at."""


def network(text: str, path: str) -> Network:
    """A network in CIDR notation, or one address. A 400 says what is wrong with it."""
    try:
        found = ip_network(text.strip())
        # IPv4 networks that are written as mapped into IPv6 are IPv4 networks, as such addresses are IPv4 addresses.
        mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
        return found if mapped is None or found.prefixlen < 96 else IPv4Network((mapped, found.prefixlen - 96))
    except ValueError as error:
        raise invalid(
            f"`{path}`: {text[:64]!r} is not a network such as `10.0.0.0/8` or `2001:db8::/32`: {error}", param=path
        ) from None


def client_address(peer: str, forwarded_for: bytes | None, trusted: Collection[Network]) -> str:
    """The client's address: the connection's own, or what the trusted proxies in front say it was. Empty when unknown."""
    if not trusted or forwarded_for is None or not within(peer, trusted):
        return peer
    hops = forwarded_for[-4096:].decode("latin-1").split(",")[-HOPS_MAX:]
    found = peer
    for hop in reversed(hops):
        parsed = parse(hop)
        if parsed is None:
            # A trusted proxy has passed on something that is no address: nobody vouches for what stands before it.
            return ""
        found = str(parsed)
        if not within(found, trusted):
            return found
    return found


def within(address: str, networks: Collection[Network]) -> bool:
    """Whether an address lies in one of the networks; an unknown one lies in none."""
    parsed = parse(address)
    return parsed is not None and any(parsed in one for one in networks)


def parse(text: str) -> Address | None:
    """An address without port and brackets; an IPv4 address that is mapped into IPv6 is the IPv4 address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped
