"""The small read-only endpoints: models, one generation, the key, credits, health, metrics.

OpenRouter's shapes (compat.md §1) with money as exact numbers made from integers; `GET /v1/models` speaks three dialects on
one path, by what the client sends (clients.md §1).
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from sqlalchemy import Connection

from farebox.billing.invoicing.invoices import Terms
from farebox.billing.payments.card_payments import CardTerms
from farebox.billing.sealing.receipt_keys import Keys
from farebox.catalog.missing import unknown
from farebox.edge.model_lists import anthropic_list, anthropic_model, codex_list, openai_list, openai_model
from farebox.edge.providers import endpoints_page, providers_page
from farebox.edge.signup_desk import Desk
from farebox.errors import FareboxError, Kind, invalid
from farebox.gate.addresses import FORWARDED_FOR, client_address
from farebox.gate.keyring import CREDENTIAL_HEADERS, check, credential, permitted
from farebox.gate.principal import Principal
from farebox.gateway import Gateway
from farebox.routing.shown import Overview, keys_json, offers_json, places_json
from farebox.routing.target import Target
from farebox.storage.database import Database
from farebox.telemetry import TEXT_TYPE
from farebox.vault.vault import Vault

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")
QUERY_BYTES_MAX = 4096


class Library(Protocol):
    """What the read-only endpoints ask of the database; each call runs off the event loop."""

    async def generation(self, principal: Principal, generation: str) -> dict[str, Any] | None: ...

    async def key(self, principal: Principal, now_us: int) -> dict[str, Any]: ...

    async def credits(self, account: str) -> dict[str, Any]: ...

    terms: Terms
    """How this operator invoices."""
    cards: CardTerms | None
    """What is paid by card; None: nothing."""
    signup: Desk | None
    """Sign-ups over the network; None: there are none."""
    vault: Vault
    """Seals customers' own keys at providers."""
    waiting: int
    """Requests that wait for a page to pay on."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Ask the database on one snapshot."""
        ...

    async def command(self, work: Callable[[Database], T]) -> T:
        """Change something, on a thread of its own."""
        ...

    async def receipt_keys(self, now_us: int) -> Keys:
        """What receipts are signed with; raises `KeyFileError`."""
        ...

    async def ready(self) -> str | None:
        """None when calls can be served, else why not."""
        ...

    async def health(self) -> Overview:
        """What all gateway workers of this machine know of their providers."""
        ...

    async def metrics(self) -> bytes:
        """The exposition of all processes of this machine."""
        ...


class Question(msgspec.Struct, frozen=True):
    """A read-only request."""

    path: str
    query_string: bytes
    headers: Mapping[bytes, bytes]
    library: Library
    needs: str = "key"
    """What the caller's key must be for (`farebox.edge.routes`)."""
    body: bytes = b""
    peer: str = ""
    """The address at the other end of the connection."""

    def query(self) -> dict[str, str]:
        if len(self.query_string) > QUERY_BYTES_MAX:
            raise invalid(f"the query string is longer than {QUERY_BYTES_MAX} bytes")
        return dict(parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True))


class Page(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    headers: bytes = b"content-type: application/json\r\n"
    """Header lines, each ended by CR LF."""


async def identified(gateway: Gateway, request: Question) -> Principal:
    """The caller behind the credential, allowed to ask."""
    secret = credential(request.headers)
    principal = await gateway.keyring.find(secret)
    now_us = gateway.clock.now_us()
    check(principal, now_us)
    permitted(principal, "" if request.needs in ("public", "key") else request.needs, address_of(gateway, request))
    gateway.keyring.used[principal.key] = now_us
    return principal


def address_of(gateway: Gateway, request: Question) -> str:
    """Where the request comes from, as far as that can be believed."""
    return client_address(request.peer, request.headers.get(FORWARDED_FOR), gateway.settings.trusted_proxies)


async def whole_account(gateway: Gateway, request: Question) -> Principal:
    """The same for what belongs to the account as a whole: not for a key that is in a project."""
    principal = await identified(gateway, request)
    if principal.project:
        raise FareboxError(
            Kind.PERMISSION,
            f"the API key `{principal.key_hint}` belongs to a project, and this is its whole account's; "
            "use a key of the account that is in no project",
            code="project_key",
            should_retry=False,
        )
    return principal


async def _targets(gateway: Gateway, request: Question) -> Mapping[str, tuple[Target, ...]]:
    """What can be called, by slug. Lists are public, but a client that sends a key learns whether it is good, and what it may
    call."""
    targets = gateway.market.targets
    if not any(name in request.headers for name in CREDENTIAL_HEADERS):
        return targets
    allowance = (await identified(gateway, request)).permit.allowance
    if allowance is None:
        return targets
    allowed = {slug: tuple(one for one in found if allowance.forbids(one) is None) for slug, found in targets.items()}
    return {slug: found for slug, found in allowed.items() if found}


async def models(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/models`: Anthropic's list with `anthropic-version`, Codex's with `client_version`, else OpenAI's with prices."""
    targets = await _targets(gateway, request)
    day = gateway.today(gateway.clock.now_us())
    query = request.query()
    if b"anthropic-version" in request.headers:
        return Page(200, _encode(anthropic_list(targets, day, query)))
    if "client_version" in query:
        body = _encode(codex_list(targets, day))
        return Page(200, body, b'content-type: application/json\r\netag: W/"%x"\r\n' % zlib.crc32(body))
    return Page(200, _encode(openai_list(targets, day)))


async def model(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/models/{slug}`, and its offers below `/endpoints`; any name that resolves in a call resolves here."""
    allowed = await _targets(gateway, request)
    name = unquote(request.path.partition("/models/")[2]).rstrip("/")
    endpoints = name.endswith("/endpoints")
    name = name.removesuffix("/endpoints")
    found = gateway.market.catalog.resolve(name).model
    day = gateway.today(gateway.clock.now_us())
    targets = allowed.get(found.slug, ())
    if not targets:
        raise unknown(name, ())
    if endpoints:
        return Page(200, _encode(endpoints_page(found, targets, day, await request.library.health())))
    make = anthropic_model if b"anthropic-version" in request.headers else openai_model
    return Page(200, _encode(make(found, targets, day)))


async def providers(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/providers`: who can be called, and how they have done lately."""
    await identified(gateway, request)
    return Page(200, _encode(providers_page(await _targets(gateway, request), await request.library.health())))


async def generation(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/generation?id=`: one call's record, as soon as it is posted (a fraction of a second after the call)."""
    principal = await identified(gateway, request)
    wanted = request.query().get("id")
    if not wanted:
        raise invalid("`id` is missing: `GET /v1/generation?id=gen-…`", param="id")
    found = await request.library.generation(principal, wanted[:128])
    if found is None:
        raise FareboxError(
            Kind.NOT_FOUND, f"there is no generation `{wanted[:128]}` on this account; records appear within a second", param="id"
        )
    return Page(200, _encode({"data": found}))


async def key(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/key`: the calling key, its budget and its usage."""
    principal = await identified(gateway, request)
    return Page(200, _encode({"data": await request.library.key(principal, gateway.clock.now_us())}))


async def credits(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/credits`: what was bought and what is used."""
    principal = await whole_account(gateway, request)
    return Page(200, _encode({"data": await request.library.credits(principal.account)}))


async def healthz(_gateway: Gateway, _request: Question) -> Page:
    """The process lives."""
    return Page(200, b'{"status":"ok"}')


async def readyz(gateway: Gateway, request: Question) -> Page:
    """Calls can be served: not draining, the journal can be written, the database answers."""
    problem = "shutting down" if gateway.draining else None
    if problem is None and gateway.books.unwritten:
        problem = "the journal cannot be written"
    problem = problem or await request.library.ready()
    if problem is None:
        return Page(200, b'{"status":"ready"}')
    return Page(503, _encode({"status": "not ready", "reason": problem}), b"content-type: application/json\r\nretry-after: 2\r\n")


async def health(gateway: Gateway, request: Question) -> Page:
    """`GET /healthz/providers`: offers, and the operator's keys by their public names; seen by whoever may see `/metrics`."""
    if not gateway.settings.metrics_public:
        await identified(gateway, request)
    seen = await request.library.health()
    return Page(200, _encode({"offers": offers_json(seen), "keys": keys_json(seen), "places": places_json(seen)}))


async def metrics(gateway: Gateway, request: Question) -> Page:
    """Prometheus' text format."""
    if not gateway.settings.metrics_public:
        await identified(gateway, request)
    return Page(200, await request.library.metrics(), TEXT_TYPE)
