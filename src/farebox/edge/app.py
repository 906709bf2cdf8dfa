"""The ASGI application: which path is what, and how an error leaves. The data path's entry is `generate`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from farebox import pipeline
from farebox.billing.journal import JournalError
from farebox.edge import info
from farebox.edge.asgi import CORS, AsgiAnswer, ClientLeft, Receive, Send, read_body
from farebox.edge.count_tokens import count_tokens
from farebox.edge.surfaces import CHAT_COMPLETIONS, MESSAGES
from farebox.errors import FareboxError, Kind
from farebox.exchange import Exchange, Header, Surface
from farebox.gateway import Gateway

Scope = Mapping[str, Any]
Reader = Callable[[Gateway, "info.Request"], Awaitable["info.Page"]]

GENERATE: dict[str, Surface] = {"/chat/completions": CHAT_COMPLETIONS, "/messages": MESSAGES}
READ: dict[str, Reader] = {
    "/models": info.models,
    "/generation": info.generation,
    "/key": info.key,
    "/credits": info.credits,
}
ROOT_READ: dict[str, Reader] = {"/healthz": info.healthz, "/readyz": info.readyz, "/metrics": info.metrics}
_PREFLIGHT: list[Header] = [
    CORS,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
]
PATH_CHARACTERS_MAX = 512


class App:
    """One worker's application."""

    def __init__(self, gateway: Gateway, books: "info.Library") -> None:
        self._gateway = gateway
        self._library = books
        self._generate: dict[str, Surface] = {}
        # The same tree under `/v1` and `/api/v1`, and, for clients that leave it out, without a version.
        for prefix in ("", "/v1", "/api/v1"):
            for path, surface in GENERATE.items():
                self._generate[prefix + path] = surface
                self._generate[f"{prefix}{path}/"] = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            path: str = scope["path"]
            surface = self._generate.get(path)
            if surface is not None and scope["method"] == "POST":
                await self._run(scope, receive, send, surface, None)
            else:
                await self._other(scope, receive, send, path)
        elif kind == "lifespan":
            await _lifespan(receive, send)
        elif kind == "websocket":
            # Refused at once, so that clients which try this first fall back to HTTP.
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _run(self, scope: Scope, receive: Receive, send: Send, surface: Surface, reader: Reader | None) -> None:
        """One exchange, with every error in its surface's shape and no traceback."""
        gateway = self._gateway
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = gateway.ids.new("req")
        encoded_id = request_id.encode()
        base: list[Header] = [(b"x-request-id", encoded_id), CORS]
        if surface.request_id_header != b"x-request-id":
            base.append((surface.request_id_header, encoded_id))
        answer = AsgiAnswer(receive, send, base)
        try:
            if reader is not None:
                page = await reader(gateway, info.Request(scope["path"], scope["query_string"], headers, self._library))
                await answer.whole(page.status, page.headers, page.body)
                return
            body = await read_body(receive, headers, gateway.settings.body_bytes_max)
            exchange = Exchange(surface, headers, body, answer, request_id=request_id, started_us=gateway.clock.monotonic_us())
            if surface is COUNT_TOKENS:
                await count_tokens(gateway, exchange)
            else:
                await pipeline.answer(gateway, exchange)
        except FareboxError as error:
            await self._tell(answer, surface, error, request_id)
        except ClientLeft:
            return
        except JournalError as error:
            refused = FareboxError(Kind.UNAVAILABLE, f"records cannot be written: {error}", retry_after_s=5)
            await self._tell(answer, surface, refused, request_id)
        except Exception as error:
            gateway.metrics.crashed(request_id, error)
            internal = FareboxError(Kind.INTERNAL, f"an internal error; quote `{request_id}` when you report it")
            await self._tell(answer, surface, internal, request_id)

    async def _tell(self, answer: AsgiAnswer, surface: Surface, error: FareboxError, request_id: str) -> None:
        self._gateway.metrics.refused(surface.name, error.code, error.status)
        if answer.started:
            if not answer.ended:
                await answer.end()
            return
        headers: list[Header] = []
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        if error.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await answer.whole(error.status, headers, surface.write_error(error, request_id=request_id))

    async def _other(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Everything but a generation."""
        method: str = scope["method"]
        if method == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT})
            await send({"type": "http.response.body"})
            return
        short = _below_version(path)
        surface = MESSAGES if short.startswith("/messages") or _is_anthropic(scope) else CHAT_COMPLETIONS
        if short == "/messages/count_tokens" and method == "POST":
            await self._run(scope, receive, send, COUNT_TOKENS, None)
            return
        reader = ROOT_READ.get(path) or READ.get(short) or (info.model if short.startswith("/models/") else None)
        if reader is not None and method in ("GET", "HEAD"):
            await self._run(scope, receive, send, surface, reader)
            return

        async def refuse(_gateway: Gateway, _request: "info.Request") -> "info.Page":
            if reader is not None or short in GENERATE or short == "/messages/count_tokens":
                allowed = "GET" if reader is not None else "POST"
                raise FareboxError(Kind.METHOD_NOT_ALLOWED, f"`{path[:PATH_CHARACTERS_MAX]}` takes {allowed}, not {method[:16]}")
            raise FareboxError(
                Kind.NOT_FOUND,
                f"there is no `{path[:PATH_CHARACTERS_MAX]}` here; calls go to `/v1/chat/completions` or `/v1/messages`",
            )

        await self._run(scope, receive, send, surface, refuse)


COUNT_TOKENS = Surface(
    name="count_tokens",
    wire=MESSAGES.wire,
    read_call=MESSAGES.read_call,
    write_error=MESSAGES.write_error,
    request_id_header=MESSAGES.request_id_header,
)


def _below_version(path: str) -> str:
    """The path without `/api`, `/v1` and a trailing slash."""
    short = path.removeprefix("/api").removeprefix("/v1")
    return short.rstrip("/") or "/"


def _is_anthropic(scope: Scope) -> bool:
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


async def _lifespan(receive: Receive, send: Send) -> None:
    """The worker starts and stops its services itself; the server only needs its answers."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
