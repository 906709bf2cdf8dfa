"""Which path is what, and how an error leaves. The data path's entry is `App.handle`; everything else is read-only."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from farebox import metering, pipeline
from farebox.billing.journal import JournalError
from farebox.edge import info
from farebox.edge.compression import decompress
from farebox.edge.count_tokens import count_tokens
from farebox.edge.explain import explain
from farebox.edge.http import HttpAnswer, Request
from farebox.edge.routes import Route, below_version, routes_of
from farebox.edge.surfaces import CHAT_COMPLETIONS, COUNT_TOKENS, MESSAGES
from farebox.errors import FareboxError, Kind
from farebox.exchange import Exchange
from farebox.gateway import Gateway
from farebox.storage.database import StoreError
from farebox.surface import Surface

GENERATE: Final[dict[str, Surface]] = {"/chat/completions": CHAT_COMPLETIONS, "/messages": MESSAGES}
_PREFLIGHT: Final = (
    b"access-control-allow-origin: *\r\naccess-control-allow-methods: GET, POST, PATCH, DELETE, OPTIONS\r\n"
    # The asterisk stands for every field but `authorization` (https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name).
    b"access-control-allow-headers: authorization, *\r\naccess-control-max-age: 86400\r\n"
)
JSON: Final = b"content-type: application/json\r\n"
PATH_CHARACTERS_MAX: Final = 256
EXPLAIN: Final = "/route/explain"
CALLS: Final = (*GENERATE, "/messages/count_tokens", EXPLAIN)
"""What takes a call in its body, with POST."""


class App:
    """One worker's surfaces."""

    def __init__(self, gateway: Gateway, library: info.Library) -> None:
        self._gateway = gateway
        self._library = library
        self._generate: dict[str, Surface] = {}
        # The same tree under `/v1` and `/api/v1`, and, for clients that leave it out, without a version.
        for prefix in ("", "/v1", "/api/v1"):
            for path, surface in GENERATE.items():
                self._generate[prefix + path] = surface
                self._generate[f"{prefix}{path}/"] = surface

    def handle(self, request: Request, answer: HttpAnswer) -> Coroutine[Any, Any, None]:
        """Answers one request; every error in its surface's shape, never a traceback."""
        surface = self._generate.get(request.path)
        if surface is not None and request.method == b"POST":
            return self._run(request, answer, surface, None)
        return self._other(request, answer)

    async def _run(self, request: Request, answer: HttpAnswer, surface: Surface, route: Route | None) -> None:
        gateway = self._gateway
        request_id = gateway.ids.new("req")
        exchange: Exchange | None = None
        try:
            body = request.body
            encoding = request.headers.get(b"content-encoding")
            if encoding is not None:
                body = decompress(body, encoding, gateway.settings.body_bytes_max)
            if route is not None:
                question = info.Question(
                    request.path, request.query, request.headers, self._library, route.needs, body, answer.peer
                )
                page = await route.answer(gateway, question)
                answer.whole(page.status, page.headers + surface.head(request_id.encode()), page.body)
                return
            exchange = Exchange(surface, request.headers, body, answer, request_id, request.notes)
            if surface is COUNT_TOKENS:
                await count_tokens(gateway, exchange)
            elif request.path.endswith(EXPLAIN):
                await explain(gateway, exchange)
            else:
                await pipeline.answer(gateway, exchange)
        except FareboxError as error:
            self._tell(answer, surface, error, request_id, exchange)
        except asyncio.CancelledError:
            # Only the end of the server cancels a call. What is told of a stream that has begun is its early end.
            if not answer.started and not answer.gone:
                ending = FareboxError(Kind.UNAVAILABLE, "the gateway is shutting down; try again in a moment", retry_after_s=1)
                self._tell(answer, surface, ending, request_id)
            raise
        except (JournalError, StoreError) as error:
            # Without its books the gateway answers nothing that costs money.
            refused = FareboxError(Kind.UNAVAILABLE, f"the gateway's books cannot be written: {error}", retry_after_s=5)
            self._tell(answer, surface, refused, request_id)
        except Exception as error:
            gateway.metrics.crashed(request_id, error)
            internal = FareboxError(Kind.INTERNAL, f"an internal error; quote `{request_id}` when you report it")
            self._tell(answer, surface, internal, request_id)

    def _tell(
        self, answer: HttpAnswer, surface: Surface, error: FareboxError, request_id: str, exchange: Exchange | None = None
    ) -> None:
        self._gateway.metrics.refused(surface.name, error.code)
        if answer.started:
            if not answer.ended:
                answer.end()
            return
        head = error_head(error) + surface.head(request_id.encode())
        if exchange is not None:
            head += metering.standing(self._gateway, exchange)
        answer.whole(error.status, head, _body(surface, error, request_id))

    def refuse(self, status: int, problem: str, request: Request) -> tuple[bytes, bytes]:
        """What the server tells a client whose request could not be read."""
        kinds = {408: Kind.REQUEST_TIMEOUT, 413: Kind.TOO_LARGE, 500: Kind.INTERNAL, 503: Kind.UNAVAILABLE}
        error = FareboxError(kinds.get(status, Kind.INVALID_REQUEST), problem)
        request_id = self._gateway.ids.new("req")
        self._gateway.metrics.refused("http", error.code)
        surface = MESSAGES if below_version(request.path).startswith("/messages") else CHAT_COMPLETIONS
        return JSON + surface.head(request_id.encode()), _body(surface, error, request_id)

    async def _other(self, request: Request, answer: HttpAnswer) -> None:
        """Everything but a generation."""
        path, method = request.path, request.method
        if method == b"OPTIONS":
            answer.whole(204, _PREFLIGHT, b"")
            return
        short = below_version(path)
        anthropic = short.startswith("/messages") or b"anthropic-version" in request.headers
        surface = MESSAGES if anthropic else CHAT_COMPLETIONS
        if short == "/messages/count_tokens" and method == b"POST":
            await self._run(request, answer, COUNT_TOKENS, None)
            return
        if short == EXPLAIN and method == b"POST":
            await self._run(request, answer, surface, None)
            return
        routes = routes_of(path)
        route = routes.get("GET" if method == b"HEAD" else method.decode("latin-1"))
        if route is not None:
            await self._run(request, answer, surface, route)
            return
        refusal = _no_such_route(path, method, routes, generates=short in CALLS and method != b"POST")
        self._tell(answer, surface, refusal, self._gateway.ids.new("req"))


def _no_such_route(path: str, method: bytes, routes: Mapping[str, Route], *, generates: bool) -> FareboxError:
    shown = path[:PATH_CHARACTERS_MAX]
    if routes or generates:
        allowed = "POST" if generates else ", ".join(sorted(routes))
        return FareboxError(
            Kind.METHOD_NOT_ALLOWED,
            f"`{shown}` takes {allowed}, not {method[:16].decode('latin-1')}",
            details={"allow": allowed},
        )
    return FareboxError(Kind.NOT_FOUND, f"there is no `{shown}` here; calls go to `/v1/chat/completions` or `/v1/messages`")


def _body(surface: Surface, error: FareboxError, request_id: str) -> bytes:
    return surface.write_error(error, request_id=request_id)


def error_head(error: FareboxError) -> bytes:
    """The header lines that go with an error."""
    lines = [JSON]
    if error.retry_after_s is not None:
        lines.append(b"retry-after: %d\r\n" % error.retry_after_s)
    if error.should_retry is not None:
        lines.append(b"x-should-retry: true\r\n" if error.should_retry else b"x-should-retry: false\r\n")
    if error.status == 401:
        lines.append(b"www-authenticate: Bearer\r\n")
    if error.kind is Kind.METHOD_NOT_ALLOWED:
        lines.append(b"allow: %b\r\n" % str(error.details["allow"]).encode())
    return b"".join(lines)
