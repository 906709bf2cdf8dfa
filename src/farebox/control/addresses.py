"""Which addresses a webhook may reach. Pure.

A URL that a customer chose must not make this machine knock at its own network (SSRF, CWE-918): loopback, private, link-local
with the clouds' metadata services, carrier NAT, multicast, reserved, and IPv6 forms that carry such an IPv4 address inside.
"""

import ipaddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")  # RFC 3879


def is_public(address: str) -> bool:
    """Whether an IP address, as a resolver gives it, is one of the open internet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return _is_open(inner)
        return _is_open(found) and found not in _SITE_LOCAL
    return _is_open(found)


def _is_open(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified
