"""Every path beside the calls themselves: who answers it, and what its caller's key must be for.

A path that is not here does not exist, and a row says what it takes: there is no way to add one without saying. The same tree
is served under `/v1`, `/api/v1` and without a version, but for rows with `root`, which are exactly where they say.
"""

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from farebox.edge import byok, info, litellm_keys, newapi, openrouter_keys, receipts, signup, statements, stripe_webhook, topups
from farebox.gateway import Gateway

Reader = Callable[[Gateway, info.Question], Awaitable[info.Page]]
Needs = Literal["public", "key", "read_usage", "manage"]
"""Nothing; any key that is valid; a key for reading usage (or for managing); a key for managing keys."""


class Route(msgspec.Struct, frozen=True):
    """One method of one path. `*` at the end of a path is the rest of it, and not empty."""

    method: str
    path: str
    answer: Reader
    needs: Needs
    root: bool = False


ROUTES: tuple[Route, ...] = (
    Route("GET", "/healthz", info.healthz, "public", root=True),
    Route("GET", "/readyz", info.readyz, "public", root=True),
    Route("GET", "/healthz/providers", info.health, "public", root=True),
    Route("GET", "/metrics", info.metrics, "public", root=True),
    Route("GET", "/models", info.models, "public"),
    Route("GET", "/models/*", info.model, "public"),
    Route("GET", "/providers", info.providers, "key"),
    Route("GET", "/generation", info.generation, "key"),
    Route("GET", "/key", info.key, "key"),
    Route("GET", "/credits", info.credits, "read_usage"),
    Route("GET", "/activity", statements.activity, "read_usage"),
    Route("GET", "/usage", statements.usage, "read_usage"),
    Route("GET", "/compare", statements.compare, "read_usage"),
    Route("GET", "/invoices", statements.invoices, "read_usage"),
    Route("GET", "/invoices/*", statements.invoice, "read_usage"),
    Route("POST", "/invoices/*", topups.pay_invoice, "manage"),
    Route("GET", "/receipts", receipts.of_call, "read_usage"),
    Route("GET", "/receipts/*", receipts.of_day, "read_usage"),
    Route("GET", "/.well-known/farebox-keys.json", receipts.keys, "public", root=True),
    Route("GET", "/keys", openrouter_keys.list_keys, "manage"),
    Route("POST", "/keys", openrouter_keys.create_key, "manage"),
    Route("GET", "/keys/*", openrouter_keys.get_key, "manage"),
    Route("PATCH", "/keys/*", openrouter_keys.change_key, "manage"),
    Route("DELETE", "/keys/*", openrouter_keys.delete_key, "manage"),
    Route("GET", "/byok", byok.list_keys, "manage"),
    Route("POST", "/byok", byok.create_key, "manage"),
    Route("GET", "/byok/*", byok.get_key, "manage"),
    Route("PATCH", "/byok/*", byok.change_key, "manage"),
    Route("DELETE", "/byok/*", byok.delete_key, "manage"),
    Route("POST", "/key/generate", litellm_keys.generate, "manage"),
    Route("GET", "/key/info", litellm_keys.info, "key"),
    Route("GET", "/key/list", litellm_keys.list_keys, "manage"),
    Route("POST", "/key/update", litellm_keys.update, "manage"),
    Route("POST", "/key/delete", litellm_keys.delete, "manage"),
    Route("POST", "/key/block", litellm_keys.block, "manage"),
    Route("POST", "/key/unblock", litellm_keys.unblock, "manage"),
    Route("POST", "/key/regenerate", litellm_keys.regenerate, "manage"),
    Route("POST", "/key/*", litellm_keys.regenerate, "manage"),
    Route("GET", "/dashboard/billing/subscription", newapi.subscription, "key"),
    Route("GET", "/dashboard/billing/usage", newapi.usage, "key"),
    Route("GET", "/usage/token", newapi.token, "key"),
    Route("POST", "/signup", signup.sign_up, "public"),
    Route("POST", "/topups", topups.create, "manage"),
    Route("GET", "/topups/auto", topups.get_auto, "manage"),
    Route("POST", "/topups/auto", topups.set_auto, "manage"),
    Route("GET", "/topups/*", topups.get, "manage"),
    Route("POST", "/stripe/webhook", stripe_webhook.webhook, "public", root=True),
)


def _by_path() -> dict[tuple[bool, str], dict[str, Route]]:
    found: dict[tuple[bool, str], dict[str, Route]] = {}
    for route in ROUTES:
        found.setdefault((route.root, route.path), {})[route.method] = route
    return found


_BY_PATH = _by_path()
_BELOW = tuple(path[:-1] for _, path in _BY_PATH if path.endswith("/*"))


def routes_of(path: str) -> dict[str, Route]:
    """The routes of a path by method; empty for a path that does not exist."""
    found = _BY_PATH.get((True, path))
    if found is not None:
        return found
    short = below_version(path)
    found = _BY_PATH.get((False, short))
    if found is not None:
        return found
    for prefix in _BELOW:
        if short.startswith(prefix):
            return _BY_PATH[False, prefix + "*"]
    return {}


def below_version(path: str) -> str:
    """The path without `/api`, `/v1` and a trailing slash."""
    short = path.removeprefix("/api").removeprefix("/v1")
    return short.rstrip("/") or "/"
