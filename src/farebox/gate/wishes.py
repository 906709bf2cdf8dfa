"""Wishes: everything that the headers of a request ask for, read once for all requests with the same head. Pure."""

from collections.abc import Mapping

import msgspec

from farebox.errors import invalid
from farebox.gate.attribution import NOBODY, Attribution, attribution
from farebox.routing.patience import NO_DEMAND, Demand, demand

DROP_HEADER = b"x-farebox-drop-unsupported"
METADATA_HEADER = b"x-farebox-metadata"
TO_BALANCE_HEADER = b"x-farebox-max-output-to-balance"
SESSION_HEADERS = (b"x-session-id", b"x-claude-code-session-id")
SESSION_CHARS_MAX = 256
SHOWN_CHARS_MAX = 32
"""Of a value that is not understood."""


class Wishes(msgspec.Struct, frozen=True):
    """What a head says beside whose it is."""

    demand: Demand = NO_DEMAND
    """Time-outs and retries."""
    whom: Attribution = NOBODY
    """For whom the call is made."""
    session: str = ""
    """The conversation's name, where the client sends one in a header."""
    drops_unsupported: bool = False
    """What the provider's wire cannot express may be left out."""
    tells: bool = False
    """The caller wants to know how its call was routed."""
    to_balance: bool = False
    """A lower output cap is better than a refusal for too little money."""


NO_WISHES = Wishes()


def wishes(headers: Mapping[bytes, bytes]) -> Wishes:
    """Read the headers. `FareboxError` (400) names the one that says what cannot be."""
    return Wishes(
        demand=demand(headers),
        whom=attribution(headers),
        session=_session(headers),
        drops_unsupported=_switch(headers, DROP_HEADER),
        tells=_switch(headers, METADATA_HEADER, on=b"enabled", off=b"disabled"),
        to_balance=_switch(headers, TO_BALANCE_HEADER),
    )


def _switch(headers: Mapping[bytes, bytes], name: bytes, *, on: bytes = b"true", off: bytes = b"false") -> bool:
    """Whether a header is on; absent and empty it is off."""
    value = headers.get(name)
    if value is None:
        return False
    said = value.strip().lower()
    if said not in (on, off, b""):
        shown, field = value[:SHOWN_CHARS_MAX].decode("latin-1"), name.decode()
        raise invalid(f"`{field}` must be `{on.decode()}` or `{off.decode()}`, not `{shown}`", param=field)
    return said == on


def _session(headers: Mapping[bytes, bytes]) -> str:
    for name in SESSION_HEADERS:
        value = headers.get(name)
        if value is not None:
            if len(value) > SESSION_CHARS_MAX:
                raise invalid(f"`{name.decode()}` is longer than {SESSION_CHARS_MAX} characters", param=name.decode())
            return value.decode("latin-1")
    return ""
