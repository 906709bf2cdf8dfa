"""OpenRouter's BYOK: `/v1/byok` and `/v1/byok/{id}`, customers' own keys at providers, for management keys.

A secret comes in and never goes out again: not in an answer, and not in the sentence that refuses it.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, UnsetType

from farebox.billing.accounts import provider_keys
from farebox.billing.accounts.provider_keys import Change, NewProviderKey
from farebox.billing.books.periods import format_moment
from farebox.edge.info import Page, Question
from farebox.edge.key_bodies import Body, refuse_promises
from farebox.edge.key_office import ID_CHARS_MAX, Office
from farebox.edge.openrouter_keys import OFFSET_MAX, whole
from farebox.edge.statements import query_of
from farebox.errors import FareboxError, Kind, invalid
from farebox.gate import provider_secret
from farebox.gate.provider_secret import BadSecret
from farebox.gateway import Gateway
from farebox.storage import provider_key_queries as stored
from farebox.storage.database import Database
from farebox.storage.provider_key_queries import PAGE_MAX, Holder, ProviderKey
from farebox.vault.envelope import CannotOpen
from farebox.vault.master_file import MasterFileError

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_UNKEPT = {
    "is_fallback": "a provider key is tried before the house's or, with `always_use`, instead of it, never behind it",
    "allowed_models": "a provider key is for all models of its provider; limit API keys by `allowed_models` instead",
    "allowed_user_ids": "there are no users here; limit it by `allowed_api_key_hashes` or `workspace_id`",
}
_CHANGES = ("key", "name", "disabled", "always_use", "sort_order", "allowed_api_key_hashes", "workspace_id", *_UNKEPT)
_FIELDS = ("provider", *_CHANGES)


async def list_keys(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/byok?provider=&offset=&limit=`: by provider and order of use."""
    office = await Office.of(gateway, request)
    query = query_of(request, ("provider", "workspace_id", "offset", "limit"))
    holder = _holder(office)
    if query.get("workspace_id"):
        holder = Holder(holder.account_id, office.project_for(query["workspace_id"]))
    offset = whole(query.get("offset", "0"), "offset", 0, OFFSET_MAX)
    limit = whole(query.get("limit", str(PAGE_MAX)), "limit", 1, PAGE_MAX)
    provider = query.get("provider") or None

    def ask(connection: Any) -> tuple[list[dict[str, Any]], int]:
        found, count = stored.page(connection, holder, provider=provider, offset=offset, limit=limit)
        return [_shown(request, key) for key in found], count

    data, count = await request.library.read(ask)
    return Page(200, _encode({"data": data, "total_count": count}))


async def create_key(gateway: Gateway, request: Question) -> Page:
    """`POST /v1/byok`: keep a key. Of its secret the answer has what a list has."""
    office = await Office.of(gateway, request)
    body = Body(request.body, _FIELDS)
    _refuse(body)
    provider = _provider(gateway, body.need_text("provider", "the provider's name, e.g. `openai`"))
    secret = _secret(body)
    new = NewProviderKey(
        id=gateway.ids.new("byok"),
        account_id=office.principal.account,
        provider=provider,
        secret=secret,
        hint=provider_secret.hint(secret),
        name=body.text("name") or "",
        project=office.project_for(body.text("workspace_id") or ""),
        key_ids=_key_ids(body),
        always_use=body.flag("always_use") or False,
        disabled=body.flag("disabled") or False,
        position=_position(body),
    )
    vault = request.library.vault
    await _command(office, lambda database: provider_keys.create(database, vault, new, now_us=office.now_us, by=office.by))
    return Page(201, _encode({"data": await _again(office, new.id)}))


async def get_key(gateway: Gateway, request: Question) -> Page:
    """`GET /v1/byok/{id}`."""
    office = await Office.of(gateway, request)
    return Page(200, _encode({"data": await _again(office, _named(request))}))


async def change_key(gateway: Gateway, request: Question) -> Page:
    """`PATCH /v1/byok/{id}`: fields that are there are set, the others stay; another `key` takes the place of the one before."""
    office = await Office.of(gateway, request)
    id = _named(request)
    await _again(office, id)
    body = Body(request.body, _FIELDS)
    if "provider" in body:
        raise invalid("`provider` cannot be changed; make another and delete this one", param="provider")
    _refuse(body)
    disabled, always_use, position = body.flag("disabled"), body.flag("always_use"), _position(body)
    secret: tuple[str, str] | UnsetType = UNSET
    if body.has("key"):
        text = _secret(body)
        secret = (text, provider_secret.hint(text))
    wanted = Change(
        secret=secret,
        name=UNSET if "name" not in body else body.text("name") or "",
        project=UNSET if "workspace_id" not in body else office.project_for(body.text("workspace_id") or ""),
        key_ids=UNSET if "allowed_api_key_hashes" not in body else _key_ids(body),
        always_use=UNSET if always_use is None else always_use,
        disabled=UNSET if disabled is None else disabled,
        position=UNSET if position is None else position,
    )
    vault, account = request.library.vault, office.principal.account
    await _command(
        office,
        lambda database: provider_keys.change(
            database, vault, id, wanted, now_us=office.now_us, within=account, by=office.by
        ),
    )
    return Page(200, _encode({"data": await _again(office, id)}))


async def delete_key(gateway: Gateway, request: Question) -> Page:
    """`DELETE /v1/byok/{id}`: nothing of its secret is left."""
    office = await Office.of(gateway, request)
    id = _named(request)
    await _again(office, id)
    account = office.principal.account
    await _command(
        office, lambda database: provider_keys.remove(database, id, now_us=office.now_us, within=account, by=office.by)
    )
    return Page(200, b'{"deleted":true}')


# --- what is asked ------------------------------------------------------------------------------------------------------------


def _holder(office: Office) -> Holder:
    return Holder(office.principal.account, office.principal.project)


def _named(request: Question) -> str:
    return unquote(request.path.partition("/byok/")[2]).rstrip("/")[:ID_CHARS_MAX]


def _refuse(body: Body) -> None:
    for name in _UNKEPT:
        if name == "is_fallback":
            body.flag(name)
        elif body.has(name):
            body.texts(name)
    refuse_promises(body, _UNKEPT, _UNKEPT)


def _secret(body: Body) -> str:
    """The provider's key; what is wrong with it is said without it."""
    value = body.fields.get("key")
    if not isinstance(value, str):
        problem = "is missing" if value is None else "is not a string"
        raise invalid(f"`key` {problem}; send the provider's key as it shows it", param="key")
    try:
        return provider_secret.checked(value)
    except BadSecret as error:
        raise invalid(f"`key` {error}", param="key") from None


def _provider(gateway: Gateway, name: str) -> str:
    """A provider that can be called here and takes a key."""
    known = {target.provider.name: target.provider for found in gateway.market.targets.values() for target in found}
    row = known.get(name)
    taking = sorted(one.name for one in known.values() if one.takes_key)
    if row is None:
        raise invalid(
            f"`provider`: {name[:64]!r} cannot be called here; those that take a key of yours: {', '.join(taking) or 'none'}",
            param="provider",
        )
    if not row.takes_key:
        raise invalid(f"`provider`: `{name}` runs on the operator's own machines and takes no key of yours", param="provider")
    return name


def _key_ids(body: Body) -> tuple[str, ...]:
    if not body.has("allowed_api_key_hashes"):
        return ()
    found = body.texts("allowed_api_key_hashes")
    if not found:
        raise invalid(
            "`allowed_api_key_hashes` is empty, so nobody could use the key; name API keys, or send null for all",
            param="allowed_api_key_hashes",
        )
    return tuple(found)


def _position(body: Body) -> int | None:
    value = body.fields.get("sort_order")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < provider_keys.PER_PROVIDER_MAX:
        most = provider_keys.PER_PROVIDER_MAX - 1
        raise invalid(f"`sort_order` must be a whole number from 0 to {most}: 0 is tried first", param="sort_order")
    return value


# --- what is done and shown --------------------------------------------------------------------------------------------------


async def _command(office: Office, work: Callable[[Database], None]) -> None:
    try:
        await office.command(work)
    except MasterFileError as error:
        # Where the file lies is the operator's to know.
        office.request.library.vault.log(f"farebox: a provider key cannot be sealed: {error}")
        problem = "provider keys cannot be sealed at the moment; the operator's `farebox doctor` says why"
        raise FareboxError(Kind.UNAVAILABLE, problem) from None


async def _again(office: Office, id: str) -> dict[str, Any]:
    """A provider key of the caller's as it is shown. What is not the caller's is a 404."""

    def ask(connection: Any) -> dict[str, Any] | None:
        found = stored.by_id(connection, _holder(office), id)
        return None if found is None else _shown(office.request, found)

    seen = await office.request.library.read(ask)
    if seen is None:
        raise FareboxError(Kind.NOT_FOUND, f"there is no provider key `{id}`", param="id")
    return seen


def _shown(request: Question, key: ProviderKey) -> dict[str, Any]:
    """Runs off the event loop: whether it opens is tried."""
    try:
        request.library.vault.open(key.sealed, provider_keys.place(key), key.master)
        broken = False
    except CannotOpen:
        broken = True
    return {
        "id": key.id,
        "provider": key.provider,
        "name": key.name or None,
        "label": key.hint,
        "disabled": key.disabled_us is not None,
        "is_fallback": False,
        "always_use": key.always_use,
        "sort_order": key.position,
        "broken": broken,
        "allowed_models": None,
        "allowed_user_ids": None,
        "allowed_api_key_hashes": key.key_list or None,
        "workspace_id": key.project or None,
        "created_at": format_moment(key.created_us),
        "updated_at": format_moment(key.changed_us),
    }
