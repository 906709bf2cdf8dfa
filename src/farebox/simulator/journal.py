"""What the provider saw: a bounded ring of requests, for tests that ask what was really sent."""

from collections import deque

import msgspec

from farebox.simulator.connection import Connection, Inbound
from farebox.simulator.faults import credential_hash

REQUESTS_MAX = 1_000
BODY_BYTES_KEPT = 1_048_576
_SECRETS = frozenset((b"authorization", b"x-api-key", b"proxy-authorization", b"cookie", b"api-key"))


class Seen(msgspec.Struct, kw_only=True):
    """One request, in the order of arrival. `prebuilt` answers of the `bench` model are not recorded."""

    number: int
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    """As sent, names in lower case; credentials replaced by `sha256:` and a hash."""
    credential: str | None
    """`farebox.simulator.faults.credential_hash` of the key."""
    body: str
    body_bytes: int
    id: str | None = None
    """The provider's request id, where one was given."""
    status: int | None = None
    """None while no answer has been begun."""
    outcome: str | None = None
    """A reason as on the bill, or `answered`; None while it is being answered."""
    hung_up: bool = False
    """The caller left before the end of its answer."""


class RequestJournal:
    """The ring. `number` goes on counting when old requests are dropped."""

    def __init__(self) -> None:
        self._ring: deque[tuple[Seen, Connection]] = deque(maxlen=REQUESTS_MAX)
        self._number = 0

    def record(self, inbound: Inbound, credential: str, connection: Connection) -> Seen:
        self._number += 1
        seen = Seen(
            number=self._number,
            method=inbound.method,
            path=inbound.path,
            query=inbound.query,
            headers=[
                (name.decode("latin-1"), f"sha256:{credential_hash(value.decode('latin-1'))}")
                if name in _SECRETS
                else (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in inbound.headers
            ],
            credential=credential_hash(credential) if credential else None,
            body=inbound.body[:BODY_BYTES_KEPT].decode(errors="replace"),
            body_bytes=len(inbound.body),
        )
        self._ring.append((seen, connection))
        return seen

    def close(self, seen: Seen, outcome: str, connection: Connection) -> None:
        seen.outcome = outcome
        seen.hung_up = seen.hung_up or connection.gone

    def since(self, number: int) -> list[Seen]:
        """Requests after `number`; those still being answered say whether their caller has left by now."""
        found: list[Seen] = []
        for seen, connection in self._ring:
            if seen.number > number:
                if seen.outcome is None and connection.gone:
                    seen.hung_up = True
                found.append(seen)
        return found

    def reset(self) -> None:
        self._ring.clear()
