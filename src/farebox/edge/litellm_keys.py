"""LiteLLM's key management: `/key/generate|info|list|update|delete|block|unblock|regenerate`. A key's `token` is its id here.

Fields that promise something which is not kept here are refused by name, unless they ask for nothing; `team_id` and `project_id`
mean a project, `user_id` is kept among the metadata.
"""

import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from farebox.billing.books.customers import KeyChange
from farebox.billing.books.periods import format_moment
from farebox.billing.budgets import Window
from farebox.edge.info import Page, Question, identified
from farebox.edge.key_bodies import Body, refuse_promises, unkept
from farebox.edge.key_office import Office, Seen, restrictions_before, shared
from farebox.edge.library import dollars
from farebox.edge.openrouter_keys import whole
from farebox.edge.statements import query_of
from farebox.errors import FareboxError, Kind, invalid
from farebox.gate.keyring import credential
from farebox.gate.limits import LIMIT_MAX
from farebox.gate.limits import restored as restored_limits
from farebox.gate.limits import stored as stored_limits
from farebox.gate.permissions import scope_missing, stored
from farebox.gateway import Gateway
from farebox.storage.key_queries import PAGE_MAX
from farebox.storage.queries import Key
from farebox.wires import reading

_encode = msgspec.json.Encoder().encode
KEYS_AT_ONCE_MAX = 100
PAGES_MAX = 100_000
EVERY_MODEL = ("all-proxy-models", "all-team-models")
_WINDOWS: dict[str, Window] = {
    "1h": "hour", "60m": "hour", "1d": "day", "24h": "day", "7d": "week", "1w": "week", "30d": "month", "1mo": "month",
    "hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month",
}  # fmt: skip
_DURATIONS: dict[Window, str | None] = {"none": None, "hour": "1h", "day": "1d", "week": "7d", "month": "1mo"}
_SCOPES = {"default": "", "llm_api": "inference read_usage", "read_only": "read_usage"}
_RESTRICTIONS = {
    "models": "models", "providers": "allowed_providers", "max_price": "max_price", "ips": "allowed_ips",
}  # fmt: skip
_KEPT = (
    "key_alias", "duration", "models", "max_budget", "budget_duration", "team_id", "project_id", "organization_id", "user_id",
    "metadata", "tags", "blocked", "key_type", "allowed_providers", "max_price", "allowed_ips",
)  # fmt: skip
_LIMITS = {
    "rpm_limit": "requests_per_minute", "tpm_limit": "tokens_per_minute", "tpd_limit": "tokens_per_day",
    "max_parallel_requests": "concurrent_calls",
}  # fmt: skip
_MODEL_LIMITS = "a key's limits are for all its models: `rpm_limit`, `tpm_limit`; those of single models belong to tiers"
_ELSEWHERE: dict[str, str] = {
    "soft_budget": "budgets that only warn are made with `farebox budgets`",
    "budget_limits": "a key has one budget, `max_budget`; more are made with `farebox budgets`",
    "budget_id": "a key has one budget, `max_budget`; more are made with `farebox budgets`",
    "model_max_budget": "budgets for single models are made with `farebox budgets`",
    "aliases": "aliases are those of the configuration",
    "key": "keys are made here, so that nobody can choose a weak one; leave it out",
    "permissions": "say what a key is for with `key_type`",
    "object_permission": "say what a key may use with `models` and `allowed_providers`",
    "allowed_routes": "say what a key is for with `key_type`",
    "guardrails": "there are none here",
    "auto_rotate": "keys are rotated with `/key/regenerate`",
    "rotation_interval": "keys are rotated with `/key/regenerate`",
    "router_settings": "routing is set by policies of the configuration",
    **dict.fromkeys(
        ("model_rpm_limit", "model_tpm_limit", "rpm_limit_type", "tpm_limit_type"), _MODEL_LIMITS,
    ),
    **dict.fromkeys(
        ("config", "spend", "permission_overrides", "enforced_params", "prompts", "policies", "access_group_ids",
         "allowed_cache_controls", "allowed_passthrough_routes", "allowed_vector_store_indexes", "temp_budget_increase",
         "temp_budget_expiry", "throttle_on_budget_exceeded", "agent_id"), "it is not kept here; leave it out",
    ),
}  # fmt: skip
_IGNORED = ("send_invite_email",)
"""What asks for nothing that a caller would miss."""
_FIELDS = (*_KEPT, *_LIMITS, *_ELSEWHERE, *_IGNORED)


async def generate(gateway: Gateway, request: Question) -> Page:
    """`POST /key/generate`: the key is in the answer, and never again."""
    office = await Office.of(gateway, request)
    body = Body(request.body, _FIELDS, empty=True)
    refuse_promises(body, _ELSEWHERE, _ELSEWHERE)
    seen, secret = await office.create(_change(office, body, None))
    return Page(200, _encode({**_shown(seen), "key": secret}))


async def info(gateway: Gateway, request: Question) -> Page:
    """`GET /key/info?key=`: a key by id or secret; without `key`, the calling one, which needs no right for it."""
    principal = await identified(gateway, request)
    office = Office(gateway, request, principal)
    name = query_of(request, ("key",)).get("key")
    secret = credential(request.headers).decode("latin-1")
    own = name is None or name == principal.key or hmac.compare_digest(name.encode(), secret.encode())
    if not own and "manage" not in principal.permit.scopes:
        raise scope_missing(principal.key_hint, principal.permit.scopes, "manage")
    key = await office.find(principal.key if own else name or "", "key")
    (seen,) = await office.seen([key])
    return Page(200, _encode({"key": key.id, "info": _shown(seen)}))


async def list_keys(gateway: Gateway, request: Question) -> Page:
    """`GET /key/list?page=1&size=10`: ids, or with `return_full_object=true` all about them."""
    office = await Office.of(gateway, request)
    query = query_of(request, ("page", "size", "return_full_object", "key_alias"))
    page = whole(query.get("page", "1"), "page", 1, PAGES_MAX)
    size = whole(query.get("size", "10"), "size", 1, PAGE_MAX)
    full = query.get("return_full_object", "false").lower()
    if full not in ("true", "false"):
        raise invalid(f"`return_full_object` must be true or false, not {full[:32]!r}", param="return_full_object")
    found, count = await office.page(offset=(page - 1) * size, limit=size, name=query.get("key_alias"))
    listed = [_shown(seen) if full == "true" else seen.key.id for seen in found]
    pages = -(-count // size)
    return Page(200, _encode({"keys": listed, "total_count": count, "current_page": page, "total_pages": pages}))


async def update(gateway: Gateway, request: Question) -> Page:
    """`POST /key/update`: `key` names it, the other fields are set."""
    office = await Office.of(gateway, request)
    body = Body(request.body, _FIELDS)
    key = await office.find(body.need_text("key", "a key's id or the key itself"), "key")
    refuse_promises(body, [name for name in _ELSEWHERE if name != "key"], _ELSEWHERE)
    seen = await office.change(key, _change(office, body, key))
    return Page(200, _encode({"key": key.id, **_shown(seen)}))


async def delete(gateway: Gateway, request: Question) -> Page:
    """`POST /key/delete`: `keys` (ids or keys) or `key_aliases`; all of them or none."""
    office = await Office.of(gateway, request)
    body = Body(request.body, ("keys", "key_aliases"))
    names, aliases = body.texts("keys"), body.texts("key_aliases")
    if bool(names) == bool(aliases):
        raise invalid("send either `keys` or `key_aliases`, a list of at least one", param="keys")
    if len(names) + len(aliases) > KEYS_AT_ONCE_MAX:
        raise invalid(f"at most {KEYS_AT_ONCE_MAX} keys are deleted at once", param="keys" if names else "key_aliases")
    found = [await office.find(name, "keys") for name in names] if names else await office.find_named(aliases, "key_aliases")
    await office.remove(found)
    return Page(200, _encode({"deleted_keys": [key.id for key in found]}))


async def block(gateway: Gateway, request: Question) -> Page:
    """`POST /key/block`: it admits no call until it is unblocked; doing so twice is harmless."""
    return await _block(gateway, request, blocked=True)


async def unblock(gateway: Gateway, request: Question) -> Page:
    """`POST /key/unblock`."""
    return await _block(gateway, request, blocked=False)


async def _block(gateway: Gateway, request: Question, *, blocked: bool) -> Page:
    office = await Office.of(gateway, request)
    key = await office.find(Body(request.body, ("key",)).need_text("key", "a key's id or the key itself"), "key")
    return Page(200, _encode(_shown(await office.change(key, KeyChange(disabled=blocked)))))


async def regenerate(gateway: Gateway, request: Question) -> Page:
    """`POST /key/regenerate`, `/key/{key}/regenerate`: a new secret for the same key, shown once; with `grace_period: "24h"` the
    one before works on for so long.
    """
    office = await Office.of(gateway, request)
    body = Body(request.body, ("grace_period", "new_key", *_FIELDS), empty=True)
    name = _in_path(request.path) or body.text("key")
    if not name:
        raise invalid("`key` is missing; send a key's id or the key itself", param="key")
    if body.has("new_key"):
        raise unkept("new_key", _ELSEWHERE["key"])
    refuse_promises(body, [name for name in _ELSEWHERE if name != "key"], _ELSEWHERE)
    key = await office.find(name, "key")
    change = _change(office, body, key)
    if change != KeyChange():
        await office.change(key, change)
    seen, secret = await office.rotate(key, body.span_us("grace_period") or 0)
    return Page(200, _encode({**_shown(seen), "key": secret}))


def _in_path(path: str) -> str:
    """`key-1` of `/key/key-1/regenerate`; empty for `/key/regenerate`. Anything else below `/key/` does not exist."""
    rest = path.rstrip("/").rpartition("/key/")[2]
    name, slash, verb = rest.rpartition("/")
    if verb != "regenerate":
        raise FareboxError(Kind.NOT_FOUND, f"there is no `/key/{rest[:64]}` here; did you mean `/key/{{key}}/regenerate`?")
    return name if slash else ""


def _change(office: Office, body: Body, key: Key | None) -> KeyChange:
    _check_owner(office, body)
    for name in ("team_id", "project_id"):
        if body.has(name) and body.has("team_id" if name == "project_id" else "project_id"):
            raise invalid("`team_id` and `project_id` both mean a project here; send one of them", param="project_id")
    project = next((name for name in ("team_id", "project_id") if name in body), None)
    blocked = body.flag("blocked")
    return KeyChange(
        name=UNSET if not body.has("key_alias") else body.text("key_alias") or "",
        project=UNSET if project is None else body.text(project) or "",
        expires_us=UNSET if "duration" not in body else body.expiry_us("duration", office.now_us),
        permissions=_scopes(body),
        restrictions=_restrictions(office, body, key),
        tags=UNSET if "tags" not in body else body.tags("tags"),
        metadata=_metadata(body, key),
        disabled=UNSET if blocked is None else blocked,
        limits=_limits(body, key),
        budget=_budget(body, key),
    )


def _check_owner(office: Office, body: Body) -> None:
    organization = body.text("organization_id")
    if organization and organization != office.principal.account:
        raise FareboxError(Kind.NOT_FOUND, f"there is no organization `{organization[:64]}`", param="organization_id")


def _scopes(body: Body) -> Any:
    kind = body.text("key_type")
    if kind is None:
        return UNSET
    if kind not in _SCOPES:
        raise unkept(
            "key_type",
            f"send one of {', '.join(_SCOPES)}; keys for managing keys are made with `farebox keys create --scope manage`",
        )
    return _SCOPES[kind] or UNSET


def _restrictions(office: Office, body: Body, key: Key | None) -> Any:
    if not any(name in body for name in _RESTRICTIONS.values()):
        return UNSET
    if any(word in EVERY_MODEL for word in body.texts("models")):
        body.fields["models"] = []
    return stored(body.restrictions(office.gateway, restrictions_before(key), _RESTRICTIONS))


def _metadata(body: Body, key: Key | None) -> Any:
    user = body.text("user_id")
    if "metadata" not in body and user is None:
        return UNSET
    if "metadata" not in body and key is not None and key.metadata:
        body = Body(b'{"metadata":%b}' % key.metadata.encode(), ("metadata",))
    return body.metadata("metadata", **({} if user is None else {"user_id": user}))


def _limits(body: Body, key: Key | None) -> Any:
    """The key's own rate limits; null lifts one."""
    if not any(name in body for name in _LIMITS):
        return UNSET
    limits = restored_limits("" if key is None else key.limits)
    for name, ours in _LIMITS.items():
        if name in body:
            value = body.fields[name]
            expected = f"a whole number from 1 to {LIMIT_MAX}, or null for no limit"
            count = None if value is None else reading.integer(value, name, expected)
            if count is not None and not 1 <= count <= LIMIT_MAX:
                raise reading.wrong(name, value, expected)
            limits = msgspec.structs.replace(limits, **{ours: count})
    return stored_limits(limits)


def _budget(body: Body, key: Key | None) -> Any:
    if "max_budget" not in body and "budget_duration" not in body:
        return UNSET
    amount = body.budget_nano("max_budget") if "max_budget" in body else None if key is None else key.budget_nano
    window: Window = "none" if key is None else key.budget_window
    if "budget_duration" in body:
        window = body.window("budget_duration", _WINDOWS)
    if amount is None and body.has("budget_duration"):
        raise invalid("`budget_duration` needs a `max_budget` in dollars", param="budget_duration")
    return amount, "none" if amount is None else window


def _shown(seen: Seen) -> Mapping[str, Any]:
    key = seen.key
    metadata: dict[str, Any] = msgspec.json.decode(key.metadata) if key.metadata else {}
    ours = shared(seen)
    return {
        "token": key.id,
        "token_id": key.id,
        "key_name": key.hint,
        "key_alias": key.name or None,
        "spend": dollars(seen.usage.total_nano),
        "max_budget": None if key.budget_nano is None else dollars(key.budget_nano),
        "budget_duration": None if key.budget_nano is None else _DURATIONS[key.budget_window],
        "models": ours["allowed_models"],
        "blocked": key.disabled_us is not None,
        "expires": None if key.expires_us is None else format_moment(key.expires_us),
        "created_at": format_moment(key.created_us),
        "updated_at": None,
        "last_active": None if key.last_used_us is None else format_moment(key.last_used_us),
        "user_id": metadata.get("user_id"),
        "team_id": key.project or None,
        "project_id": key.project or None,
        "organization_id": key.account_id,
        "metadata": metadata,
        "tags": msgspec.json.decode(key.tags) if key.tags else [],
        "aliases": {},
        **{name: getattr(restored_limits(key.limits), ours) for name, ours in _LIMITS.items()},
        **ours,
    }
