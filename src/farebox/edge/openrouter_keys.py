"""OpenRouter's key management: `/v1/keys` and `/v1/keys/{hash}`. A key's `hash` is its id here."""

from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import UNSET

from farebox.billing.books.customers import KeyChange
from farebox.billing.books.periods import format_moment
from farebox.billing.budgets import Window
from farebox.edge.info import Page, Question
from farebox.edge.key_bodies import Body
from farebox.edge.key_office import Office, Seen, restrictions_before, shared
from farebox.edge.library import RESETS, dollars
from farebox.edge.statements import query_of
from farebox.errors import invalid
from farebox.gate.permissions import stored
from farebox.gateway import Gateway
from farebox.storage.key_queries import PAGE_MAX
from farebox.storage.queries import Key

_encode = msgspec.json.Encoder().encode
OFFSET_MAX = 1_000_000
_WINDOWS: dict[str, Window] = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
_OURS = ("scopes", "allowed_models", "allowed_providers", "max_price", "allowed_ips", "tags", "metadata")
_RESTRICTIONS = {
    "models": "allowed_models", "providers": "allowed_providers", "max_price": "max_price", "ips": "allowed_ips",
}  # fmt: skip
_FIELDS = ("name", "limit", "limit_reset", "include_byok_in_limit", "expires_at", "disabled", "workspace_id", *_OURS)


async def list_keys(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/keys?offset=&include_disabled=`: a hundred keys, oldest first."""
    office = await Office.of(gateway, request)
    query = query_of(request, ("offset", "include_disabled", "workspace_id"))
    disabled = query.get("include_disabled", "false")
    if disabled not in ("true", "false"):
        raise invalid(f"`include_disabled` must be true or false, not {disabled[:32]!r}", param="include_disabled")
    found, count = await office.page(offset=whole(query.get("offset", "0"), "offset", 0, OFFSET_MAX), limit=PAGE_MAX,
                                     disabled=disabled == "true")  # fmt: skip
    return Page(200, _encode({"data": [_shown(seen) for seen in found], "total_count": count}))


async def create_key(gateway: Gateway, request: Question) -> Page:
    """`POST /v1/keys`: the key is in the answer, and never again."""
    office = await Office.of(gateway, request)
    body = Body(request.body, _FIELDS)
    body.need_text("name", "what the key is for")
    seen, secret = await office.create(_change(office, body, None))
    return Page(201, _encode({"data": _shown(seen), "key": secret}))


async def get_key(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/keys/{hash}`."""
    office = await Office.of(gateway, request)
    return _one((await office.seen([await _named(office, request)]))[0])


async def change_key(gateway: Gateway, request: Question) -> Page:
    """`PATCH /v1/keys/{hash}`: fields that are there are set, the others stay."""
    office = await Office.of(gateway, request)
    key = await _named(office, request)
    return _one(await office.change(key, _change(office, Body(request.body, _FIELDS), key)))


async def delete_key(gateway: Gateway, request: Question) -> Page:
    """`DELETE /v1/keys/{hash}`: it admits no call any more; its usage stays in the books."""
    office = await Office.of(gateway, request)
    await office.remove([await _named(office, request)])
    return Page(200, b'{"deleted":true}')


async def _named(office: Office, request: Question) -> Key:
    return await office.find(unquote(request.path.partition("/keys/")[2]).rstrip("/"), "hash")


def _change(office: Office, body: Body, key: Key | None) -> KeyChange:
    now_us = office.now_us
    budget = UNSET
    if "limit" in body or "limit_reset" in body:
        amount = body.budget_nano("limit") if "limit" in body else key.budget_nano if key is not None else None
        window: Window = "none" if key is None or "limit_reset" in body else key.budget_window
        if "limit_reset" in body:
            window = body.window("limit_reset", _WINDOWS)
        if amount is None and body.has("limit_reset"):
            raise invalid("`limit_reset` needs a `limit` in dollars", param="limit_reset")
        budget = (amount, "none" if amount is None else window)
    if body.flag("include_byok_in_limit"):
        raise invalid(
            "`include_byok_in_limit` cannot be true: a limit counts what is charged here, of calls by own keys the fee",
            param="include_byok_in_limit",
        )
    given = any(name in body for name in _RESTRICTIONS.values())
    disabled = body.flag("disabled")
    return KeyChange(
        name=body.text("name") or UNSET,
        project=UNSET if "workspace_id" not in body else body.text("workspace_id") or "",
        expires_us=UNSET if "expires_at" not in body else body.moment_us("expires_at", now_us),
        permissions=UNSET if not body.has("scopes") else body.scopes("scopes"),
        restrictions=(
            UNSET if not given else stored(body.restrictions(office.gateway, restrictions_before(key), _RESTRICTIONS))
        ),
        tags=UNSET if "tags" not in body else body.tags("tags"),
        metadata=UNSET if "metadata" not in body else body.metadata("metadata"),
        disabled=UNSET if disabled is None else disabled,
        budget=budget,
    )


def whole(text: str, param: str, least: int, most: int) -> int:
    """A whole number from a query."""
    if not text.isdecimal() or not text.isascii() or not least <= int(text[:9]) <= most:
        raise invalid(f"`{param}` must be a whole number from {least} to {most}, not {text[:32]!r}", param=param)
    return int(text[:9])


def _one(seen: Seen) -> Page:
    return Page(200, _encode({"data": _shown(seen)}))


def _shown(seen: Seen) -> dict[str, Any]:
    key, usage, own = seen.key, seen.usage, seen.own_key_costs
    remaining = seen.remaining_nano
    return {
        "hash": key.id,
        "name": key.name,
        "label": key.hint,
        "disabled": key.disabled_us is not None,
        "limit": None if key.budget_nano is None else dollars(key.budget_nano),
        "limit_remaining": None if remaining is None else dollars(remaining),
        "limit_reset": None if key.budget_nano is None else RESETS[key.budget_window],
        "include_byok_in_limit": False,
        "usage": dollars(usage.total_nano),
        "usage_daily": dollars(usage.day_nano),
        "usage_weekly": dollars(usage.week_nano),
        "usage_monthly": dollars(usage.month_nano),
        "byok_usage": dollars(own.total_nano),
        "byok_usage_daily": dollars(own.day_nano),
        "byok_usage_weekly": dollars(own.week_nano),
        "byok_usage_monthly": dollars(own.month_nano),
        "created_at": format_moment(key.created_us),
        "updated_at": None,
        "expires_at": None if key.expires_us is None else format_moment(key.expires_us),
        "last_used_at": None if key.last_used_us is None else format_moment(key.last_used_us),
        "creator_user_id": None,
        "workspace_id": key.project or None,
        **shared(seen),
        "tags": msgspec.json.decode(key.tags) if key.tags else [],
        "metadata": msgspec.json.decode(key.metadata) if key.metadata else {},
    }
