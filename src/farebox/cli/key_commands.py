"""`keys`: create, list, update, rotate, disable and enable, revoke."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click
from msgspec import UNSET

from farebox.billing.books import customers
from farebox.billing.books.customers import CommandRefused, KeyChange, Window
from farebox.cli.arguments import amount, check_policy, find_account, find_project
from farebox.cli.key_options import permission_options, restrictions_of, scopes_of, shown
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table
from farebox.cli.setup import make_key
from farebox.config import ConfigError
from farebox.gate import keys as secrets
from farebox.gate.permissions import UNRESTRICTED, restored, scope_words, stored
from farebox.money import format_amount
from farebox.pepper import read_pepper
from farebox.ports import SystemClock
from farebox.storage import queries
from farebox.storage.database import Database

US_PER_HOUR = 3_600_000_000


@click.group()
def keys() -> None:
    """API keys: create, list, update, rotate, disable, revoke."""


@keys.command("create")
@click.option("--account", "account_name", required=True, help="Whose key it is: an account's name or id.")
@click.option("--name", default="", help="What it is for.")
@click.option("--project", "project_name", help="The project that it belongs to, by name or id.")
@click.option("--policy", default="", help="The routing policy of its calls, of the configuration.")
@click.option("--budget", help="The most that it may spend, in USD, e.g. 5.00.")
@click.option(
    "--budget-window",
    type=click.Choice(["none", "hour", "day", "week", "month"]),
    default="none",
    show_default=True,
    help="The budget is for each of these (UTC), or, with none, for the key's whole life.",
)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="After so many days it stops working.")
@permission_options
@config_option
@json_option
def create_key(
    account_name: str,
    name: str,
    project_name: str | None,
    policy: str,
    budget: str | None,
    budget_window: str,
    expires_in_days: int | None,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    providers: tuple[str, ...],
    max_prices: tuple[str, ...],
    ips: tuple[str, ...],
    config_path: Path,
    as_json: bool,
) -> None:
    """Create a key. It is shown once."""
    if budget is None and budget_window != "none":
        raise CliError("--budget-window needs a --budget, e.g. --budget 5.00")
    budget_nano = None if budget is None else amount(budget, "--budget")
    clock = SystemClock()
    expires_us = None if expires_in_days is None else clock.now_us() + expires_in_days * 86_400_000_000
    with database_of(config_path) as (loaded, database):
        check_policy(loaded, policy)
        found = find_account(database, account_name)
        allowed = restrictions_of(
            loaded, UNRESTRICTED, models=models, providers=providers, max_prices=max_prices, ips=ips
        )
        permissions = scopes_of(scopes) if scopes else customers.DEFAULT_PERMISSIONS
        project = "" if project_name is None else find_project(database, found.id, project_name).id
        try:
            made = make_key(
                database,
                read_pepper(loaded),
                account_id=found.id,
                name=name,
                project=project,
                policy=policy,
                budget_nano=budget_nano,
                window=cast("Window", budget_window),
                expires_us=expires_us,
                permissions=permissions,
                restrictions=stored(allowed),
            )
        except (CommandRefused, ConfigError) as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json(
            {
                "id": made.id,
                "key": made.secret,
                "account": found.id,
                "name": name,
                "project": project or None,
                "policy": policy or None,
                "hint": made.hint,
                "budget": None if budget_nano is None else format_amount(budget_nano),
                "budget_window": budget_window,
                "expires_at": day(expires_us) or None,
                "scopes": permissions.split(),
                **shown(stored(allowed)),
            }
        )
        return
    click.echo(made.secret)
    click.echo(f"This is key {made.id} of `{found.name}`; it is not shown again.")


@keys.command("list")
@click.option("--account", "account_name", help="Only this account's.")
@config_option
@json_option
def list_keys(account_name: str | None, config_path: Path, as_json: bool) -> None:
    """List keys, without their secrets."""
    with database_of(config_path) as (_, database):
        account_id = None if account_name is None else find_account(database, account_name).id

        def ask(connection: Any) -> tuple[list[queries.Key], dict[str, str]]:
            names = {account.id: account.name for account in queries.list_accounts(connection)}
            return queries.list_keys(connection, account_id), names

        rows, names = database.read(ask)

    now_us = SystemClock().now_us()
    if as_json:
        print_json(
            {
                "keys": [
                    {
                        "id": key.id,
                        "hint": key.hint,
                        "name": key.name,
                        "account": key.account_id,
                        "account_name": names.get(key.account_id, ""),
                        "project": key.project or None,
                        "policy": key.policy or None,
                        "state": state(key, now_us),
                        "budget": None if key.budget_nano is None else format_amount(key.budget_nano),
                        "budget_window": key.budget_window,
                        "created_at": day(key.created_us),
                        "expires_at": day(key.expires_us) or None,
                        "last_used_at": day(key.last_used_us) or None,
                        "scopes": sorted(scope_words(key.permissions)),
                        **shown(key.restrictions),
                    }
                    for key in rows
                ]
            }
        )
        return
    print_table(
        ("id", "key", "name", "account", "state", "budget USD"),
        [
            (
                key.id,
                key.hint,
                key.name,
                names.get(key.account_id, ""),
                state(key, now_us),
                "" if key.budget_nano is None else f"{format_amount(key.budget_nano)} / {key.budget_window}",
            )
            for key in rows
        ],
        empty="No keys yet; `farebox keys create --account NAME` makes one.",
    )


@keys.command("update")
@click.argument("key_id")
@click.option("--name", help="What it is for.")
@click.option("--expires-in-days", type=click.IntRange(0, 3650), help="From now on; 0 for never.")
@permission_options
@click.option(
    "--allow-any",
    "lift",
    multiple=True,
    type=click.Choice(["model", "provider", "price", "ip"]),
    help="Lift this restriction; again for more.",
)
@config_option
@json_option
def update_key(
    key_id: str,
    name: str | None,
    expires_in_days: int | None,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    providers: tuple[str, ...],
    max_prices: tuple[str, ...],
    ips: tuple[str, ...],
    lift: tuple[str, ...],
    config_path: Path,
    as_json: bool,
) -> None:
    """Change what a key may do. A list that is given replaces the one before."""
    now_us = SystemClock().now_us()
    with database_of(config_path) as (loaded, database):
        before = database.read(lambda connection: queries.key(connection, key_id))
        if before is None:
            raise CliError(f"there is no key `{key_id}`; `farebox keys list` shows them")
        allowed = restrictions_of(
            loaded,
            restored(before.restrictions),
            models=models,
            providers=providers,
            max_prices=max_prices,
            ips=ips,
            lift=[_LIFTED[word] for word in lift],
        )
        expires_us = UNSET
        if expires_in_days is not None:
            expires_us = now_us + expires_in_days * 86_400_000_000 if expires_in_days else None
        change = KeyChange(
            name=UNSET if name is None else name,
            expires_us=expires_us,
            permissions=scopes_of(scopes) if scopes else UNSET,
            restrictions=stored(allowed),
        )
        checked(lambda: customers.change_key(database, key_id, change, now_us=now_us))
        after = database.read(lambda connection: queries.key(connection, key_id))
    assert after is not None, "it was changed a moment ago"
    if as_json:
        print_json(
            {
                "id": key_id,
                "name": after.name,
                "state": state(after, now_us),
                "expires_at": day(after.expires_us) or None,
                "scopes": sorted(scope_words(after.permissions)),
                **shown(after.restrictions),
            }
        )
        return
    click.echo(f"Changed {key_id}; a running server knows within a second.")


_LIFTED = {"model": "models", "provider": "providers", "price": "max_price", "ip": "ips"}


@keys.command("revoke")
@click.argument("key_id")
@config_option
@json_option
def revoke_key(key_id: str, config_path: Path, as_json: bool) -> None:
    """Revoke a key for good; a running server refuses it within a second."""
    with database_of(config_path) as (_, database):
        checked(lambda: customers.revoke_key(database, key_id, now_us=SystemClock().now_us()))
    if as_json:
        print_json({"id": key_id, "state": "revoked"})
        return
    click.echo(f"Revoked {key_id}.")


def state(key: queries.Key, now_us: int) -> str:
    """`active`, or what keeps a key from being used."""
    if key.revoked_us is not None:
        return "revoked"
    if key.disabled_us is not None:
        return "disabled"
    return "expired" if key.expires_us is not None and key.expires_us <= now_us else "active"


@keys.command("rotate")
@click.argument("key_id")
@click.option("--overlap-hours", type=click.IntRange(0, 90 * 24), default=24, show_default=True, help="How long both work.")
@config_option
@json_option
def rotate_key(key_id: str, overlap_hours: int, config_path: Path, as_json: bool) -> None:
    """Give a key a new secret, shown once. Budget and usage go on; the old one works for the overlap."""
    secret = secrets.make(os.urandom(secrets.SECRET_BYTES))
    hint = secrets.hint(secret)
    with database_of(config_path) as (loaded, database):
        try:
            digest = secrets.digest(secret, read_pepper(loaded))
        except ConfigError as error:
            raise CliError(str(error)) from None
        now_us = SystemClock().now_us()
        until_us = now_us + overlap_hours * US_PER_HOUR
        checked(
            lambda: customers.rotate_key(
                database, key_id, digest=digest, hint=hint, overlap_us=until_us - now_us, now_us=now_us
            )
        )
    if as_json:
        print_json({"id": key_id, "key": secret, "hint": hint, "previous_until": day(until_us) if overlap_hours else None})
        return
    click.echo(secret)
    before = f"the secret before it works for {overlap_hours} hours more" if overlap_hours else "the one before it is void"
    click.echo(f"This is key {key_id} from now on; it is not shown again, and {before}.")


@keys.command("policy")
@click.argument("key_id")
@click.argument("policy", required=False)
@click.option("--none", "unset", is_flag=True, help="Back to its account's.")
@config_option
@json_option
def key_policy(key_id: str, policy: str | None, unset: bool, config_path: Path, as_json: bool) -> None:
    """Give a key a routing policy; a running server sees it within a second."""
    if unset == (policy is not None):
        raise CliError("write the policy's name or --none, one of them")
    with database_of(config_path) as (loaded, database):
        check_policy(loaded, policy or "")
        change = KeyChange(policy=policy or "")
        checked(lambda: customers.change_key(database, key_id, change, now_us=SystemClock().now_us()))
    if as_json:
        print_json({"id": key_id, "policy": policy})
        return
    click.echo(f"Calls of {key_id} go by {'the policy of its account' if policy is None else f'the policy `{policy}`'} now.")


@keys.command("disable")
@click.argument("key_id")
@config_option
@json_option
def disable_key(key_id: str, config_path: Path, as_json: bool) -> None:
    """Stop a key until it is enabled again."""
    _switch(key_id, config_path, as_json, disabled=True)


@keys.command("enable")
@click.argument("key_id")
@config_option
@json_option
def enable_key(key_id: str, config_path: Path, as_json: bool) -> None:
    """Let a disabled key call again."""
    _switch(key_id, config_path, as_json, disabled=False)


def _switch(key_id: str, config_path: Path, as_json: bool, *, disabled: bool) -> None:
    with database_of(config_path) as (_, database):
        now_us = SystemClock().now_us()
        checked(lambda: customers.change_key(database, key_id, KeyChange(disabled=disabled), now_us=now_us))
        told = _state_of(database, key_id, now_us)
    if as_json:
        print_json({"id": key_id, "state": told})
        return
    click.echo(f"{key_id} is {told}.")


def _state_of(database: Database, key_id: str, now_us: int) -> str:
    found = database.read(lambda connection: queries.key(connection, key_id))
    assert found is not None, "it was changed a moment ago"
    return state(found, now_us)


def checked(command: Callable[[], None]) -> None:
    """Carry out a command; its refusal is a sentence for whoever gave it."""
    try:
        command()
    except CommandRefused as error:
        raise CliError(f"{error}; `farebox keys list` shows them") from None


COMMANDS = (keys,)
