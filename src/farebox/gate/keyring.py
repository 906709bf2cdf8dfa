"""The keyring: a credential → the account and key behind it, remembered in memory until something changes."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from farebox.errors import FareboxError, Kind, invalid
from farebox.gate import keys
from farebox.gate.addresses import within
from farebox.gate.permissions import address_refused, scope_missing
from farebox.gate.principal import Principal

REMEMBERED_MAX: Final = 50_000
UNKNOWN_REMEMBERED_MAX: Final = 10_000
CREDENTIAL_HEADERS: Final = (b"authorization", b"x-api-key", b"api-key", b"x-litellm-api-key", b"x-goog-api-key")
CREDENTIAL_BYTES_MAX: Final = 512


_NO_KEY: Final = (
    "no API key was sent; put it into `Authorization: Bearer fb-…` (or `x-api-key`); "
    "`farebox keys create --account NAME` makes one"
)
_BAD_KEY: Final = "the API key is not valid; check that it was copied whole, or make another with `farebox keys create`"


def credential(headers: Mapping[bytes, bytes]) -> bytes:
    """The one credential of a request. Two different ones are a 400, none is a 401."""
    found: bytes | None = None
    for name in CREDENTIAL_HEADERS:
        value = headers.get(name)
        if value is None:
            continue
        if name == b"authorization":
            scheme, _, value = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise FareboxError(Kind.AUTHENTICATION, "`Authorization` must be `Bearer` and an API key", should_retry=False)
        value = value.strip()
        if not value:
            continue
        if found is not None and found != value:
            raise invalid("the request carries two different credentials; send one of them")
        found = value
    if found is None:
        raise FareboxError(Kind.AUTHENTICATION, _NO_KEY)
    if len(found) > CREDENTIAL_BYTES_MAX:
        raise FareboxError(Kind.AUTHENTICATION, _BAD_KEY)
    return found


Lookup = Callable[[bytes], Principal | None]
"""A key's digest → its principal, from the database; called in a thread."""


class Keyring:
    """The memory of credentials. Looked up by a digest of the whole credential, so the keys themselves are not kept."""

    def __init__(self, lookup: Lookup, pepper: bytes, run: Callable[..., "asyncio.Future[object]"]) -> None:
        self._lookup = lookup
        self._pepper = pepper
        self._run = run
        self._known: dict[bytes, Principal] = {}
        self._unknown: set[bytes] = set()
        self._generation = 0
        self.used: dict[str, int] = {}
        """When keys were used since somebody last wrote it down, by id, in microseconds."""

    def forget(self) -> None:
        """Something changed in the database: ask anew."""
        self._generation += 1
        self._known.clear()
        self._unknown.clear()

    def digest(self, secret: str) -> bytes:
        """What the database stores of a secret."""
        return keys.digest(secret, self._pepper)

    @staticmethod
    def mark(secret: bytes) -> bytes:
        """What stands for a credential in memory."""
        return hashlib.blake2b(secret, digest_size=32).digest()

    def remembered(self, mark: bytes) -> Principal | None:
        """The principal without any I/O, if it is known."""
        return self._known.get(mark)

    async def find(self, secret: bytes) -> Principal:
        """The principal of a credential, asking the database at most once. An unknown key is a 401."""
        mark = self.mark(secret)
        found = self._known.get(mark)
        if found is not None:
            return found
        text = secret.decode("latin-1")
        if mark in self._unknown or not keys.looks_valid(text):
            raise FareboxError(Kind.AUTHENTICATION, _BAD_KEY)
        generation = self._generation
        principal = await self._run(self._lookup, keys.digest(text, self._pepper))
        current = generation == self._generation
        if principal is None:
            if current and len(self._unknown) < UNKNOWN_REMEMBERED_MAX:
                self._unknown.add(mark)
            raise FareboxError(Kind.AUTHENTICATION, _BAD_KEY)
        assert isinstance(principal, Principal)
        if current:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[mark] = principal
        return principal


def check(principal: Principal, now_us: int) -> None:
    """Refuse what a known key may not do any more; its owner is told which key it was and why."""
    shown = principal.key_hint
    if principal.revoked:
        raise FareboxError(Kind.AUTHENTICATION, f"the API key `{shown}` was revoked; use another", code="revoked_key")
    if principal.expires_us is not None and principal.expires_us <= now_us:
        raise FareboxError(Kind.AUTHENTICATION, f"the API key `{shown}` has expired; use another", code="expired_key")
    if principal.disabled:
        raise FareboxError(
            Kind.PERMISSION, f"{principal.disabled} of `{shown}` is disabled; ask who manages it", code="disabled_key"
        )
    if not principal.active:
        raise FareboxError(Kind.PERMISSION, f"the account `{principal.account_name}` is suspended; ask its operator")


def permitted(principal: Principal, needed: str, address: str) -> None:
    """Refuse what a key is not for, and what comes from where it may not be used. Managing keys includes reading usage; an empty
    `needed` is anybody's who has a key.
    """
    permit = principal.permit
    if permit.networks and not within(address, permit.networks):
        raise address_refused(principal.key_hint, address, permit.networks)
    if needed and needed not in permit.scopes and not (needed == "read_usage" and "manage" in permit.scopes):
        raise scope_missing(principal.key_hint, permit.scopes, needed)
