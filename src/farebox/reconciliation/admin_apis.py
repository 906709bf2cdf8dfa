"""The administrators' APIs of OpenAI, Anthropic and OpenRouter: which pages make up a statement, and how they are fetched.

Everything is bounded: pages, their bytes, tries and waits. 429 and 5xx are tried again after `Retry-After` or a pause that
doubles; 401 and 403 are not. A key is never part of a message.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from farebox.reconciliation import anthropic_reports, openai_reports, openrouter_activity
from farebox.reconciliation.figures import StatementError
from farebox.reconciliation.reading import days_between
from farebox.reconciliation.reports import File, Part, Wanted, put_together
from farebox.reconciliation.statement import Statement
from farebox.transport import Client, Origin, Prepared, Timeouts, Tls, TransportError, prepare

PAGES_MAX = 1_000
PAGE_BYTES_MAX = 16 * 1024 * 1024
TRIES_MAX = 5
PAUSE_S = 1
"""Before the second try, where the answer does not say; it doubles."""
RETRY_AFTER_S_MAX = 120
"""A longer wait than this is refused: run it again later."""
CURSOR_CHARS_MAX = 2_000
TIMEOUTS = Timeouts(connect_s=10.0, tls_s=10.0, headers_s=60.0, chunk_s=30.0, total_s=120.0)
OPENROUTER_DAYS_MAX = 30

Params = tuple[tuple[str, str], ...]


class _Page(Protocol):
    @property
    def has_more(self) -> bool: ...
    @property
    def next_page(self) -> str | None: ...


T = TypeVar("T")
P = TypeVar("P", bound=_Page)


class AdminApi(msgspec.Struct, frozen=True):
    """Where a provider tells what it bills."""

    env: str
    """The environment variable that has the administrator's key."""
    header: str = "authorization"
    scheme: str = "Bearer "
    headers: tuple[tuple[str, str], ...] = ()
    docs_url: str = ""


APIS: dict[str, AdminApi] = {
    "openai": AdminApi(env="OPENAI_ADMIN_KEY", docs_url="https://platform.openai.com/docs/api-reference/usage"),
    "anthropic": AdminApi(
        env="ANTHROPIC_ADMIN_KEY",
        header="x-api-key",
        scheme="",
        headers=(("anthropic-version", "2023-06-01"),),
        docs_url="https://platform.claude.com/docs/en/manage-claude/usage-cost-api",
    ),
    "openrouter": AdminApi(
        env="OPENROUTER_MANAGEMENT_KEY", docs_url="https://openrouter.ai/docs/api-reference/analytics"
    ),
}


class Fetcher:
    """Pages of one provider. `pause` waits so many seconds."""

    def __init__(
        self,
        client: Client,
        base_url: str,
        api: AdminApi,
        key: str,
        pause: Callable[[float], Awaitable[None]],
        tls: Tls | None = None,
    ) -> None:
        self._client = client
        self._origin, self._path = Origin.parse(base_url.rstrip("/"), tls)
        self._api = api
        self._headers = [(api.header, api.scheme + key), ("user-agent", "farebox"), *api.headers]
        self._pause = pause
        self.pages: list[File] = []
        """Everything that was read, in order."""

    async def statement(self, wanted: Wanted) -> Statement:
        """What the provider says about the days wanted. Raises `StatementError`, which says what to do."""
        assert wanted.first_day is not None and wanted.last_day is not None, "an API is asked for certain days"
        if self._api is APIS["openai"]:
            parts = await self._openai(wanted.first_day, wanted.last_day)
        elif self._api is APIS["anthropic"]:
            parts = await self._anthropic(wanted.first_day, wanted.last_day)
        else:
            parts = await self._openrouter(wanted.first_day, wanted.last_day)
        return put_together(parts, wanted)

    async def _openai(self, first: str, last: str) -> list[Part]:
        span = (("start_time", str(_second(first))), ("end_time", str(_second(last) + 86_400)), ("bucket_width", "1d"))
        usage: Params = (*span, ("limit", "31"), ("group_by", "model"), ("group_by", "api_key_id"))
        costs: Params = (*span, ("limit", "31"), ("group_by", "line_item"))
        parts: list[Part] = []
        for path, params, kind in (("/organization/usage/completions", usage, "usage"), ("/organization/costs", costs, "costs")):
            async for file, page in self._paged(path, params, openai_reports.Page):
                parts.append(openai_reports.read_page(file, page, kind))
        return parts

    async def _anthropic(self, first: str, last: str) -> list[Part]:
        end = (date.fromisoformat(last) + timedelta(days=1)).isoformat()
        span = (("starting_at", f"{first}T00:00:00Z"), ("ending_at", f"{end}T00:00:00Z"), ("bucket_width", "1d"), ("limit", "31"))
        usage: Params = (*span, ("group_by[]", "model"), ("group_by[]", "api_key_id"))
        costs: Params = (*span, ("group_by[]", "description"))
        version = "" if self._path.endswith("/v1") else "/v1"
        parts: list[Part] = []
        for name, params, kind in (("usage_report/messages", usage, "usage"), ("cost_report", costs, "costs")):
            async for file, page in self._paged(f"{version}/organizations/{name}", params, anthropic_reports.Page):
                parts.append(anthropic_reports.read_page(file, page, kind))
        return parts

    async def _openrouter(self, first: str, last: str) -> list[Part]:
        days = sorted(days_between(first, last))
        if len(days) > OPENROUTER_DAYS_MAX:
            raise StatementError(f"{first} to {last}: OpenRouter tells about the last {OPENROUTER_DAYS_MAX} whole days only")
        parts: list[Part] = []
        for day in days:
            file = await self._get("/activity", (("date", day),))
            activity = _decoded(file, openrouter_activity.Activity)
            parts.append(openrouter_activity.read_activity(file, activity, frozenset((day,))))
        return parts

    async def _paged(self, path: str, params: Params, shape: type[P]) -> AsyncIterator[tuple[File, P]]:
        cursor = ""
        seen: set[str] = set()
        while True:
            file = await self._get(path, (*params, ("page", cursor)) if cursor else params)
            page = _decoded(file, shape)
            yield file, page
            if not page.has_more:
                return
            cursor = page.next_page or ""
            if not cursor or cursor in seen or len(cursor) > CURSOR_CHARS_MAX:
                raise StatementError(f"{file.name}: more pages follow, and `next_page` {cursor[:40]!r} does not lead to them")
            seen.add(cursor)

    async def _get(self, path: str, params: Params) -> File:
        if len(self.pages) >= PAGES_MAX:
            raise StatementError(f"{path}: more than {PAGES_MAX} pages; ask for fewer days")
        target = f"{self._path}{path}?{urlencode(params, quote_via=quote, safe='[]:')}"
        prepared = prepare(self._origin, "GET", target, self._headers)
        for number in range(1, TRIES_MAX + 1):
            status, wait_s, body = await self._try(prepared, path)
            if status == 200:
                file = File(f"{path}, page {len(self.pages) + 1}", body)
                self.pages.append(file)
                return file
            if status in (401, 403):
                raise StatementError(
                    f"{path}: the provider refused the key in {self._api.env} ({status}); it has to be an administrator's: "
                    f"{self._api.docs_url}"
                )
            if not (status == 429 or status >= 500) or number == TRIES_MAX:
                said = body[:200].decode("utf-8", "replace")
                said = "".join(character if character.isprintable() else " " for character in said)
                raise StatementError(f"{path}: the provider answered {status}: {said}")
            wait_s = PAUSE_S * 2 ** (number - 1) if wait_s is None else wait_s
            if wait_s > RETRY_AFTER_S_MAX:
                raise StatementError(f"{path}: the provider asks to wait {wait_s} seconds ({status}); run it again then")
            await self._pause(wait_s)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _try(self, prepared: Prepared, path: str) -> tuple[int, int | None, bytes]:
        try:
            response = await self._client.send(prepared, timeouts=TIMEOUTS)
            try:
                body = await response.read(PAGE_BYTES_MAX)
            finally:
                response.close()
        except TransportError as error:
            raise StatementError(f"{path}: {error}") from None
        after = (response.header(b"retry-after") or b"").strip()
        return response.status, int(after) if after.isdigit() and len(after) < 9 else None, body


def _decoded(file: File, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(file.content, type=shape)
    except msgspec.DecodeError as error:
        raise StatementError(f"{file.name}: {error}") from None


def _second(day: str) -> int:
    return (datetime.fromisoformat(day).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400
