"""The key office: what a management key may do to its account's keys, whichever API it speaks.

It sees the keys of its account, or, in a project, of that project; whatever else there is does not exist for it (404). It makes
keys that call and read, never keys that manage: those come from the command line, and only there are they changed, so that one
that has leaked cannot lock out the others.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from farebox.billing.books import customers
from farebox.billing.books.audit import Actor
from farebox.billing.books.customers import CommandRefused, KeyChange, NewKey, NotFound
from farebox.billing.budgets import key_scope, window_start_us
from farebox.edge.info import Question, address_of, identified
from farebox.errors import FareboxError, Kind, invalid
from farebox.gate import keys as secrets
from farebox.gate.permissions import UNRESTRICTED, Restrictions, permit, restored, scope_words, shown
from farebox.gate.principal import Principal
from farebox.gateway import Gateway
from farebox.storage import key_queries
from farebox.storage.database import Database
from farebox.storage.key_queries import Owner
from farebox.storage.queries import Balance, Key, KeyUsage

ID_CHARS_MAX = 128


class Seen(msgspec.Struct, frozen=True):
    """A key with what it has used."""

    key: Key
    usage: KeyUsage
    own_key_costs: KeyUsage
    """What providers billed the customer itself for its calls by own keys."""
    balance: Balance | None
    """Of its own budget's current window; None when no call has used that yet."""

    @property
    def remaining_nano(self) -> int | None:
        """What is left of its own budget; None without one."""
        if self.key.budget_nano is None:
            return None
        return max(self.key.budget_nano if self.balance is None else self.balance.remaining_nano, 0)


class Office:
    """One request's way to the keys it may manage."""

    def __init__(self, gateway: Gateway, request: Question, principal: Principal) -> None:
        self.gateway = gateway
        self.request = request
        self.principal = principal
        self.owner = Owner(principal.account, principal.project)
        self.now_us = gateway.clock.now_us()

    @classmethod
    async def of(cls, gateway: Gateway, request: Question) -> "Office":
        """The office for whoever asks; what that takes is said by the route."""
        return cls(gateway, request, await identified(gateway, request))

    # --- looking ------------------------------------------------------------------------------------------------------------

    async def seen(self, found: Sequence[Key]) -> list[Seen]:
        """Keys with what they have used, in the same order."""
        starts = {f"{window}_us": window_start_us(window, self.now_us) or 0 for window in ("day", "week", "month")}
        scopes = {key.id: key_scope(key.id, key.budget_window, self.now_us).id for key in found if key.budget_nano is not None}

        ids = [key.id for key in found]

        def ask(connection: Connection) -> tuple[dict[str, KeyUsage], dict[str, KeyUsage], dict[str, Balance]]:
            spent = key_queries.spent(connection, ids, **starts)
            own = key_queries.own_key_costs(connection, ids, **starts)
            return spent, own, key_queries.balances(connection, list(scopes.values()))

        spent, own, balances = await self.request.library.read(ask)
        nothing = KeyUsage(0, 0, 0, 0)
        return [
            Seen(key, spent.get(key.id, nothing), own.get(key.id, nothing), balances.get(scopes.get(key.id, "")))
            for key in found
        ]

    async def page(
        self, *, offset: int, limit: int, disabled: bool = True, name: str | None = None
    ) -> tuple[list[Seen], int]:
        found, count = await self.request.library.read(
            lambda c: key_queries.page(c, self.owner, offset=offset, limit=limit, disabled=disabled, name=name)
        )
        return await self.seen(found), count

    async def find(self, name: str, param: str) -> Key:
        """A key by its id or by its secret. What is not this caller's is a 404."""
        if secrets.looks_valid(name):
            digest = self.gateway.keyring.digest(name)
            found = await self.request.library.read(lambda c: key_queries.by_digest(c, self.owner, digest))
            shown = secrets.hint(name)
        else:
            shown = name[:ID_CHARS_MAX]
            found = await self.request.library.read(lambda c: key_queries.by_id(c, self.owner, shown))
        if found is None:
            raise _absent(shown, param)
        return found

    async def find_named(self, names: Sequence[str], param: str) -> list[Key]:
        """Keys by their names, each of which must be there and be one key's only."""
        found = await self.request.library.read(lambda c: key_queries.by_names(c, self.owner, names))
        for name in names:
            count = sum(key.name == name for key in found)
            if count != 1:
                problem = "there is no key" if not count else f"there are {count} keys"
                raise FareboxError(Kind.NOT_FOUND, f"{problem} named `{name[:ID_CHARS_MAX]}`; name them by id", param=param)
        return found

    # --- doing --------------------------------------------------------------------------------------------------------------

    async def create(self, wanted: KeyChange) -> tuple[Seen, str]:
        """Make a key; its secret, for this one time."""
        secret = secrets.make(os.urandom(secrets.SECRET_BYTES))
        budget, window = (None, "none") if wanted.budget is UNSET else wanted.budget
        new = NewKey(
            id=self.gateway.ids.new("key"),
            account_id=self.principal.account,
            name=wanted.name or "",
            digest=self.gateway.keyring.digest(secret),
            hint=secrets.hint(secret),
            project=self.project_for(wanted.project or ""),
            expires_us=wanted.expires_us or None,
            budget_nano=budget,
            budget_window=window,
            permissions=wanted.permissions or customers.DEFAULT_PERMISSIONS,
            restrictions=wanted.restrictions or "",
            limits=wanted.limits or "",
            tags=wanted.tags or "",
            metadata=wanted.metadata or "",
            disabled_us=self.now_us if wanted.disabled else None,
        )
        await self.command(lambda database: customers.create_key(database, new, now_us=self.now_us, by=self.by))
        return await self._again(new.id), secret

    async def change(self, key: Key, change: KeyChange) -> Seen:
        self._may_change(key)
        if change.project is not UNSET:
            change = msgspec.structs.replace(change, project=self.project_for(change.project))
        await self.command(
            lambda database: customers.change_key(
                database, key.id, change, now_us=self.now_us, within=self.principal.account, by=self.by
            )
        )
        return await self._again(key.id)

    async def rotate(self, key: Key, overlap_us: int) -> tuple[Seen, str]:
        """Give a key a new secret, shown this one time; the one before works on for the overlap."""
        self._may_change(key)
        secret = secrets.make(os.urandom(secrets.SECRET_BYTES))
        await self.command(
            lambda database: customers.rotate_key(
                database,
                key.id,
                digest=self.gateway.keyring.digest(secret),
                hint=secrets.hint(secret),
                overlap_us=overlap_us,
                now_us=self.now_us,
                within=self.principal.account,
                by=self.by,
            )
        )
        return await self._again(key.id), secret

    async def remove(self, found: Sequence[Key]) -> None:
        """Revoke keys for good; all of them may be removed, or none is."""
        for key in found:
            self._may_change(key)

        def work(database: Database) -> None:
            for key in found:
                customers.revoke_key(database, key.id, now_us=self.now_us, within=self.principal.account, by=self.by)

        await self.command(work)

    @property
    def by(self) -> Actor:
        return Actor(f"key:{self.principal.key}", address_of(self.gateway, self.request))

    def project_for(self, project: str) -> str:
        """Where a key may be put: a caller in a project puts it there, and nowhere else."""
        own = self.principal.project
        if own and project not in ("", own):
            raise FareboxError(Kind.NOT_FOUND, f"the project `{project[:ID_CHARS_MAX]}` does not exist", param="project")
        return own or project

    def _may_change(self, key: Key) -> None:
        if "manage" in scope_words(key.permissions):
            raise FareboxError(
                Kind.PERMISSION,
                f"the key `{key.id}` is for managing keys: such keys are changed at the command line only, `farebox keys`",
                should_retry=False,
            )

    async def command(self, work: Callable[[Database], None]) -> None:
        try:
            await self.request.library.command(work)
        except NotFound as error:
            raise FareboxError(Kind.NOT_FOUND, str(error)) from None
        except CommandRefused as error:
            raise invalid(str(error)) from None
        # This worker knows at once, the others within a second.
        self.gateway.keyring.forget()

    async def _again(self, key_id: str) -> Seen:
        found = await self.find(key_id, "key")
        return (await self.seen([found]))[0]


def _absent(shown: str, param: str) -> FareboxError:
    return FareboxError(Kind.NOT_FOUND, f"there is no key `{shown}`", param=param)


def shared(seen: Seen) -> dict[str, Any]:
    """What every API shows beside its own fields."""
    return shown(permit(seen.key.permissions, seen.key.restrictions))


def restrictions_before(key: Key | None) -> Restrictions:
    return UNRESTRICTED if key is None else restored(key.restrictions)
