"""`route explain`: where a call would go, and why."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec
from sqlalchemy import Connection

from farebox import bridge
from farebox.billing.markup import MarkupPlan
from farebox.cli.arguments import check_policy, find_account, find_key
from farebox.cli.output import (
    CliError,
    book_of,
    config_option,
    database_of,
    json_option,
    load_config,
    local_url,
    print_json,
    print_table,
)
from farebox.config import ConfigError, Loaded
from farebox.configured_routing import make_router, make_sorter
from farebox.edge.library import own_keys
from farebox.edge.surfaces import CHAT_COMPLETIONS, MESSAGES
from farebox.errors import FareboxError
from farebox.gate.permissions import permit
from farebox.market import make_market
from farebox.ports import SystemClock, SystemRandom
from farebox.routing import explain as explaining
from farebox.routing.allowance import Allowance, NotAllowed
from farebox.routing.market import Market
from farebox.routing.measured import NothingMeasured
from farebox.routing.own_keys import OwnKey
from farebox.storage import provider_key_queries, queries
from farebox.storage.database import Database
from farebox.storage.provider_key_queries import ProviderKey
from farebox.vault.vault import Vault
from farebox.wires.call import Call

BODY_BYTES_MAX = 32 * 2**20


@click.group()
def route() -> None:
    """Routing: explain."""


@route.command("explain")
@click.argument("model", required=False)
@click.option(
    "--file", "file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="A request body, as it would be sent."
)
@click.option("--messages", is_flag=True, help="The file is a request of Anthropic's messages.")
@click.option("--policy", default="", help="As if the key had this routing policy.")
@click.option("--account", "account_name", help="As a call of this account: its policy, markup, volume, own provider keys.")
@click.option("--key", "key_name", help="With --account: by this API key, by name or id; its policy and restrictions hold.")
@config_option
@json_option
def explain(
    model: str | None,
    file: Path | None,
    messages: bool,
    policy: str,
    account_name: str | None,
    key_name: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Show where a call would go by configuration and prices: farebox route explain openai/gpt-4o.

    A running gateway also knows how its offers are doing: ask it by POST /v1/route/explain.
    """
    if (model is None) == (file is None):
        raise CliError("write a model or --file FILE, one of them, e.g. `farebox route explain openai/gpt-4o`")
    if key_name is not None and account_name is None:
        raise CliError("--key names an API key of an account: say which with --account NAME")
    loaded = load_config(config_path)
    check_policy(loaded, policy)
    surface = MESSAGES if messages else CHAT_COMPLETIONS
    if file is not None:
        if file.stat().st_size > BODY_BYTES_MAX:
            raise CliError(f"{file} is larger than a request may be ({BODY_BYTES_MAX} bytes)")
        body = file.read_bytes()
    else:
        said = {"model": model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 512}
        body = msgspec.json.encode(said)
    now_us = SystemClock().now_us()
    caller = _Caller()
    if account_name is not None:
        with database_of(config_path) as (_, database):
            caller = _caller(loaded, database, account_name, key_name, now_us)
    if policy:
        caller = msgspec.structs.replace(caller, policy=policy)
    try:
        told = _explained(loaded, surface.read_call(body), caller, now_us)
    except NotAllowed as refused:
        raise CliError(refused.for_key(caller.key_hint).message) from None
    except FareboxError as error:
        raise CliError(error.message) from None
    except ConfigError as error:
        raise CliError(str(error)) from None
    if as_json:
        print_json(told)
        return
    _print(told)


class _Caller(msgspec.Struct, frozen=True):
    """What of a caller decides where its calls go; nobody's: as calls of an account without wishes of its own."""

    account: str = ""
    policy: str = ""
    markup: str = ""
    volume_nano: int = 0
    own_keys: tuple[OwnKey, ...] = ()
    own_key_calls: int = 0
    key_hint: str = ""
    allowance: Allowance | None = None


def _caller(loaded: Loaded, database: Database, account_name: str, key_name: str | None, now_us: int) -> _Caller:
    """An account, or one of its keys, as the gate would admit it."""
    found = find_account(database, account_name)
    if found.status != "active":
        raise CliError(f"the account `{found.name}` is suspended, so none of its calls is answered")
    key = None if key_name is None else find_key(database, found.id, key_name)
    project, key_id = ("", "") if key is None else (key.project, key.id)
    if key is not None:
        _check_usable(database, key, now_us)

    def ask(connection: Connection) -> tuple[tuple[int, int], tuple[ProviderKey, ...]]:
        standing = queries.volume(connection, found.id, _date(now_us)[:7])
        return standing, provider_key_queries.for_key(connection, found.id, project, key_id)

    (charged_nano, own_key_calls), sealed = database.read(ask)
    return _Caller(
        account=found.name,
        policy=found.policy if key is None else key.policy or found.policy,
        markup=found.markup,
        volume_nano=charged_nano,
        own_keys=own_keys(sealed, Vault(loaded.byok_master_file)),
        own_key_calls=own_key_calls,
        key_hint="" if key is None else key.hint,
        allowance=None if key is None else permit(key.permissions, key.restrictions).allowance,
    )


def _check_usable(database: Database, key: queries.Key, now_us: int) -> None:
    """Refuse a key by which no call can be made."""
    project = database.read(lambda c: queries.project(c, key.project)) if key.project else None
    if key.expires_us is not None and key.expires_us <= now_us:
        state = "has expired"
    elif key.disabled_us is not None:
        state = "is disabled"
    elif project is not None and project.disabled_us is not None:
        state = f"is of the project `{project.name}`, which is disabled"
    elif "inference" not in permit(key.permissions, key.restrictions).scopes:
        state = "is not for calls (its scopes lack `inference`)"
    else:
        return
    raise CliError(f"the API key `{key.hint}` {state}; `farebox keys list` shows others")


def _markup(market: Market, caller: _Caller) -> MarkupPlan | None:
    """The plan of the caller's account. One that is not configured any more has no price."""
    if not caller.markup:
        return None
    found = market.markups.get(caller.markup)
    if found is None:
        raise CliError(
            f"the account `{caller.account}` pays by the markup plan `{caller.markup}`, which is not configured: add "
            f"`[markup.{caller.markup}]`, or give it another with `farebox accounts markup`"
        )
    return found


def _explained(loaded: Loaded, call: Call, caller: _Caller, now_us: int) -> dict[str, Any]:
    market, _ = make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))
    health = NothingMeasured()
    router = make_router(loaded, market, health)
    sorter = make_sorter(router, lambda *_: asyncio.Future[Any]())
    found = router.plan(
        call,
        assessment=sorter.assess_now(call) if sorter is not None and call.model in sorter.examples else None,
        now_us=now_us,
        day=_date(now_us),
        random=SystemRandom(),
        policy=caller.policy,
        allowance=caller.allowance,
        markup=_markup(market, caller),
        volume_nano=caller.volume_nano,
        own_keys=caller.own_keys,
        own_key_calls=caller.own_key_calls,
        expresses=lambda call, candidate: bridge.unsayable(call, candidate, drop_unsupported=False),
        everything=True,
        sayable=True,
    )
    tried = loaded.config.attempts.attempts_max if found.attempts_max is None else found.attempts_max
    decision = router.policies.decision(call.model)
    return explaining.explained(call, found, lambda target: health.view(target, now_us), tried=tried, decision=decision)


def _date(us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d")


def _print(told: dict[str, Any]) -> None:
    by = f" by the policy `{told['policy']}`" if told["policy"] else ""
    hard = told["complexity"]
    if hard is not None:
        reasons = ", ".join(f"{one['feature']} {one['points']:+d}" for one in hard["reasons"])
        click.echo(f"{hard['tier']} ({hard['score']} of 100): {reasons}")
    click.echo(f"`{told['model']}`{by}: about {told['input_tokens_estimate']} tokens in, ${told['hold_usd']} held.")
    print_table(
        ("", "provider", "id", "expected USD", "at most USD", "why"),
        [
            (str(one["position"]), one["provider"], one["id"], one["expected_cost_usd"], one["worst_case_usd"], one["reason"])
            for one in told["offers"]
        ],
        right=(3, 4),
    )
    for one in told["excluded"]:
        click.echo(f"not {one['provider']}/{one['id']}: {one['reason']} ({one['rule']})")


COMMANDS = (route,)
