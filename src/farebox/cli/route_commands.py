"""`route explain`: where a call would go, and why."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from farebox.cli.arguments import check_policy, find_account
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
from farebox.edge.surfaces import CHAT_COMPLETIONS, MESSAGES
from farebox.errors import FareboxError
from farebox.market import make_market
from farebox.ports import SystemClock, SystemRandom
from farebox.routing import explain as explaining
from farebox.routing.measured import NothingMeasured
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
@click.option("--account", help="With the policy and the markup of this account.")
@config_option
@json_option
def explain(
    model: str | None,
    file: Path | None,
    messages: bool,
    policy: str,
    account: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Show where a call would go by configuration and prices: farebox route explain openai/gpt-4o.

    A running gateway also knows how its offers are doing: ask it by POST /v1/route/explain.
    """
    if (model is None) == (file is None):
        raise CliError("write a model or --file FILE, one of them, e.g. `farebox route explain openai/gpt-4o`")
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
    markup = ""
    if account is not None:
        with database_of(config_path) as (_, database):
            found = find_account(database, account)
        policy, markup = policy or found.policy, found.markup
    try:
        told = _explained(loaded, surface.read_call(body), policy, markup)
    except FareboxError as error:
        raise CliError(error.message) from None
    except ConfigError as error:
        raise CliError(str(error)) from None
    if as_json:
        print_json(told)
        return
    _print(told)


def _explained(loaded: Loaded, call: Call, policy: str, markup: str) -> dict[str, Any]:
    market, _ = make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))
    health = NothingMeasured()
    router = make_router(loaded, market, health)
    now_us = SystemClock().now_us()
    sorter = make_sorter(router, lambda *_: asyncio.Future[Any]())
    found = router.plan(
        call,
        assessment=sorter.assess_now(call) if sorter is not None and call.model in sorter.examples else None,
        now_us=now_us,
        day=_date(now_us),
        random=SystemRandom(),
        policy=policy,
        markup=market.markups.get(markup) if markup else None,
        everything=True,
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
