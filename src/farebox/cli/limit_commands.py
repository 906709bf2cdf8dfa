"""`keys limits` and `projects limits`: rate limits of single keys and projects, beneath those of their account's tier."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from farebox.billing.books import customers
from farebox.billing.books.customers import KeyChange
from farebox.cli.arguments import find_account, find_project
from farebox.cli.budget_commands import projects
from farebox.cli.key_commands import checked, keys
from farebox.cli.output import CliError, config_option, database_of, json_option, print_json
from farebox.gate.limits import LIMIT_MAX, Limits, restored, stored
from farebox.ports import SystemClock
from farebox.storage import queries

F = TypeVar("F", bound=Callable[..., Any])
NAMES = Limits.__struct_fields__
_HELP = {
    "requests_per_minute": "Requests a minute, over all workers.",
    "concurrent_calls": "Calls in flight.",
    "tokens_per_minute": "Tokens a minute, estimated before a call and trued up after it.",
    "tokens_per_day": "Tokens a day, likewise.",
}


def limit_options(function: F) -> F:
    """An option per limit, and `--lift`."""
    lift = click.option("--lift", multiple=True, type=click.Choice(NAMES), help="Lift this limit; again for more.")
    function = lift(function)
    for name in reversed(NAMES):
        option = f"--{name.replace('_', '-')}"
        function = click.option(option, name, type=click.IntRange(1, LIMIT_MAX), help=_HELP[name])(function)
    return function


def changed(before: str, lift: tuple[str, ...], given: dict[str, int | None]) -> Limits:
    """Stored limits after a command: what was given replaces what was there, what is in `lift` is gone."""
    both = [name for name in lift if given[name] is not None]
    if both:
        raise CliError(f"--{both[0].replace('_', '-')} is given and lifted; write one of them")
    values = {name: value for name, value in given.items() if value is not None} | dict.fromkeys(lift)
    return msgspec.structs.replace(restored(before), **values)


def tell(whose: str, id: str, limits: Limits, usual: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": id, **msgspec.structs.asdict(limits)})
        return
    found = [f"{value:,} {name.replace('_', ' ')}" for name, value in msgspec.structs.asdict(limits).items() if value is not None]
    click.echo(f"{whose} {'may make ' + ', '.join(found) if found else usual}.")


@keys.command("limits")
@click.argument("key_id")
@limit_options
@config_option
@json_option
def key_limits(key_id: str, lift: tuple[str, ...], config_path: Path, as_json: bool, **given: int | None) -> None:
    """Show a key's own rate limits, or set them; those of [limits] hold for it, too."""
    with database_of(config_path) as (_, database):
        key = database.read(lambda connection: queries.key(connection, key_id))
        if key is None:
            raise CliError(f"there is no key `{key_id}`; `farebox keys list` shows them")
        limits = changed(key.limits, lift, given)
        if stored(limits) != key.limits:
            change = KeyChange(limits=stored(limits))
            checked(lambda: customers.change_key(database, key_id, change, now_us=SystemClock().now_us()))
    tell(f"The key {key.hint}", key.id, limits, "has no limits of its own", as_json=as_json)


@projects.command("limits")
@click.argument("name")
@click.option("--account", "account_name", required=True, help="Whose project it is.")
@limit_options
@config_option
@json_option
def project_limits(
    name: str, account_name: str, lift: tuple[str, ...], config_path: Path, as_json: bool, **given: int | None
) -> None:
    """Show the rate limits that a project's keys have in all, or set them."""
    with database_of(config_path) as (_, database):
        project = find_project(database, find_account(database, account_name).id, name)
        limits = changed(project.limits, lift, given)
        if stored(limits) != project.limits:
            customers.change_project(database, project.id, limits=stored(limits), now_us=SystemClock().now_us())
    tell(f"The project `{project.name}`", project.id, limits, "has no limits of its own", as_json=as_json)


COMMANDS = ()
"""They belong to the groups `keys` and `projects`."""
