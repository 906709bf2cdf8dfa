"""The sign-up desk: what a stranger on the network may have, and how often a network may ask.

How many get an account is counted in the database (`billing.accounts.signups`). Here, in each worker's memory, only how often a
network has asked in this hour, so that nobody tries out addresses one after the other.
"""

import hmac

import msgspec

from farebox.billing.accounts.signups import Rules, network_of
from farebox.gate.addresses import parse

HOUR_US = 3_600_000_000
NETWORKS_MAX = 10_000
"""Networks whose tries are remembered; when more come within an hour, all of them begin anew."""


class Terms(msgspec.Struct, frozen=True):
    """What the configuration says."""

    rules: Rules
    token: bytes
    """What a request must bring; empty: nothing."""
    tries_per_network_per_hour: int


class Desk:
    """One worker's."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._hour = -1
        self._tries: dict[str, int] = {}

    def trusts(self, token: bytes) -> bool:
        """Whether a request brings what the operator asks for."""
        return not self.terms.token or hmac.compare_digest(token, self.terms.token)

    def admit(self, network: str, now_us: int) -> int:
        """Count a try of a network: 0, or the seconds until it may try again."""
        hour = now_us // HOUR_US
        if hour != self._hour or (len(self._tries) >= NETWORKS_MAX and network not in self._tries):
            self._hour = hour
            self._tries = {}
        tries = self._tries.get(network, 0)
        if tries >= self.terms.tries_per_network_per_hour:
            return ((hour + 1) * HOUR_US - now_us) // 1_000_000 + 1
        self._tries[network] = tries + 1
        return 0


def network(address: str) -> str:
    """The network that an address counts for; empty when it is unknown."""
    found = parse(address)
    return "" if found is None else network_of(str(found))
