"""The administrators' APIs of OpenAI, Anthropic and OpenRouter on a real socket, strict and in pages."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "sk-admin-secret"
AUTHORIZATION = {"authorization": f"Bearer {KEY}"}
ENDPOINTS: dict[str, tuple[dict[str, str], dict[str, list[str]]]] = {
    "/v1/organization/usage/completions": (AUTHORIZATION, {"group_by": ["model", "api_key_id"], "bucket_width": ["1d"]}),
    "/v1/organization/costs": (AUTHORIZATION, {"group_by": ["line_item"], "bucket_width": ["1d"]}),
    "/v1/organizations/usage_report/messages": (
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        {"group_by[]": ["model", "api_key_id"], "bucket_width": ["1d"]},
    ),
    "/v1/organizations/cost_report": (
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"}, {"group_by[]": ["description"], "bucket_width": ["1d"]},
    ),
    "/api/v1/activity": (AUTHORIZATION, {}),
}  # fmt: skip
"""Path → the headers it wants, and the parameters."""


class AdminSite:
    """What it will answer, and what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, list[dict[str, Any]]] = {}
        """By path, in order; `page-1` is the cursor of the second one."""
        self.failures: list[tuple[int, dict[str, str]]] = []
        """Answered first, one each: status and headers."""
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.base_url = ""

    def answer(self, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        parts = urlsplit(target)
        query = parse_qs(parts.query, strict_parsing=True)
        wanted = ENDPOINTS.get(parts.path)
        if wanted is None:
            return 404, {}, {"error": {"message": f"no {parts.path}"}}
        if any(headers.get(name) != value for name, value in wanted[0].items()):
            return 401, {}, {"error": {"message": "invalid admin key"}}
        if any(query.get(name) != value for name, value in wanted[1].items()):
            return 400, {}, {"error": {"message": f"bad parameters: {query}"}}
        self.asked.append((parts.path, query))
        if self.failures:
            status, more = self.failures.pop(0)
            return status, more, {"error": {"message": "not now"}}
        pages = self.pages[parts.path]
        if parts.path.endswith("/activity"):
            day = query["date"][0]
            return 200, {}, {"data": [item for page in pages for item in page["data"] if item["date"] == day]}
        number = int(query["page"][0].removeprefix("page-")) if "page" in query else 0
        more = number + 1 < len(pages)
        return 200, {}, {**pages[number], "has_more": more, "next_page": f"page-{number + 1}" if more else None}


@contextmanager
def admin_site(context: ssl.SSLContext | None = None) -> Iterator[AdminSite]:
    """With a context it speaks TLS, and shows its certificate."""
    site = AdminSite()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, value = site.answer(self.path, {name.lower(): text for name, text in self.headers.items()})
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.base_url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
