"""`byok add`, `list`, `update`, `enable`, `disable`, `remove`, `rotate-master`: customers' own keys at providers.

A secret comes from a prompt, from standard input or from a file, never from the command line: that is in the history of the shell
and in the list of processes.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import UNSET

from farebox.billing.accounts import provider_keys
from farebox.billing.accounts.provider_keys import PER_PROVIDER_MAX, Change, NewProviderKey
from farebox.billing.books.customers import CommandRefused
from farebox.cli.arguments import find_account, find_key, find_project
from farebox.cli.output import CliError, config_option, database_of, day, json_option, local_url, print_json, print_table
from farebox.config import ConfigError, Loaded
from farebox.gate import provider_secret
from farebox.gate.provider_secret import BadSecret
from farebox.market import enabled_providers
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.providers.registry import PROVIDERS
from farebox.storage import provider_key_queries as stored
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.storage.provider_key_queries import Holder, ProviderKey
from farebox.vault.envelope import CannotOpen
from farebox.vault.master_file import MasterFileError
from farebox.vault.vault import Vault

T = TypeVar("T")
SECRET_INPUT_MAX = 64 * 1024
_position = click.IntRange(0, PER_PROVIDER_MAX - 1)
_secret_file = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.group()
def byok() -> None:
    """Customers' own keys at providers: add, list, update, enable, disable, remove, rotate-master."""


@byok.command("add")
@click.argument("account")
@click.argument("provider")
@click.option("--name", default="", help="What its owner calls it.")
@click.option("--project", "project_name", help="Only for calls of this project's API keys, by name or id.")
@click.option("--key", "key_names", multiple=True, help="Only for calls of this API key, by name or id; again for more.")
@click.option("--always-use", is_flag=True, help="Never use the house's key at this provider instead, not even when it fails.")
@click.option("--position", type=_position, help="Its place in the order of use, 0 first.  [default: the last]")
@click.option("--disabled", is_flag=True, help="Keep it, and do not use it yet.")
@click.option("--secret-file", type=_secret_file, help="Read the provider's key from here; - is standard input.")
@config_option
@json_option
def add_key(
    account: str,
    provider: str,
    name: str,
    project_name: str | None,
    key_names: tuple[str, ...],
    always_use: bool,
    position: int | None,
    disabled: bool,
    secret_file: Path | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Keep an account's own key at a provider, sealed; asks for it unless it comes from a file or a pipe."""
    with database_of(config_path) as (loaded, database):
        found = find_account(database, account)
        on = _check_provider(loaded, provider)
        project = "" if project_name is None else find_project(database, found.id, project_name).id
        key_ids = _key_ids(database, found.id, key_names)
        secret = _read_secret(secret_file)
        clock = SystemClock()
        new = NewProviderKey(
            id=TimeOrderedIds(clock).new("byok"),
            account_id=found.id,
            provider=provider,
            secret=secret,
            hint=provider_secret.hint(secret),
            name=name,
            project=project,
            key_ids=key_ids,
            always_use=always_use,
            disabled=disabled,
            position=position,
        )
        vault = Vault(loaded.byok_master_file)
        _checked(lambda: provider_keys.create(database, vault, new, now_us=clock.now_us()))
        made = _find(database, new.id)
        about = _about(made, vault)
    if as_json:
        print_json(about)
        return
    click.echo(f"Kept {made.hint} as {made.id}; calls of `{found.name}` at {provider} use it within a second.")
    if not on:
        click.echo(f"Note: {provider} is not switched on in this environment, and only providers that are on are called.")


@byok.command("list")
@click.option("--account", "account_name", help="Only this account's.")
@config_option
@json_option
def list_keys(account_name: str | None, config_path: Path, as_json: bool) -> None:
    """List customers' own keys at providers, in the order of use, without their secrets."""
    with database_of(config_path) as (loaded, database):
        vault = Vault(loaded.byok_master_file)
        account_id = None if account_name is None else find_account(database, account_name).id

        def ask(connection: Any) -> tuple[list[ProviderKey], dict[str, str]]:
            names = {one.id: one.name for one in queries.list_accounts(connection)}
            if account_id is not None:
                return stored.page(connection, Holder(account_id))[0], names
            found = list(stored.after(connection, "", queries.ROWS_MAX))
            return sorted(found, key=lambda one: (names.get(one.account_id, ""), one.provider, one.position)), names

        rows, names = database.read(ask)
        shown = [_about(one, vault) | {"account_name": names.get(one.account_id, "")} for one in rows]
    if as_json:
        print_json({"keys": shown})
        return
    print_table(
        ("id", "account", "provider", "key", "name", "state", "for"),
        [
            (
                one["id"],
                one["account_name"],
                f"{one['provider']} {one['position']}",
                one["hint"],
                one["name"],
                one["state"] + (", always" if one["always_use"] else ""),
                _for(one["project"], len(one["keys"])),
            )
            for one in shown
        ],
        empty="No keys of customers' own yet; `farebox byok add ACCOUNT PROVIDER` keeps one.",
    )


@byok.command("update")
@click.argument("id")
@click.option("--name", help="What its owner calls it.")
@click.option("--project", "project_name", help="Only for calls of this project's API keys, by name or id.")
@click.option("--any-project", is_flag=True, help="For calls of any project.")
@click.option("--key", "key_names", multiple=True, help="Only for calls of this API key; again for more. Replaces the list.")
@click.option("--any-key", is_flag=True, help="For calls of any API key.")
@click.option("--always-use/--not-always", default=None, help="Whether the house's key is never used instead.")
@click.option("--position", type=_position, help="Its place in the order of use, 0 first.")
@click.option("--replace", is_flag=True, help="Ask for another secret, which takes the place of the one before.")
@click.option("--secret-file", type=_secret_file, help="Read that secret from here; - is standard input.")
@config_option
@json_option
def update_key(
    id: str,
    name: str | None,
    project_name: str | None,
    any_project: bool,
    key_names: tuple[str, ...],
    any_key: bool,
    always_use: bool | None,
    position: int | None,
    replace: bool,
    secret_file: Path | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Change one of a customer's own keys; what is not named stays."""
    for first, second, words in (
        (project_name is not None, any_project, "--project NAME or --any-project"),
        (bool(key_names), any_key, "--key NAME or --any-key"),
    ):
        if first and second:
            raise CliError(f"write {words}, one of them")
    with database_of(config_path) as (loaded, database):
        before = _find(database, id)
        project = UNSET if project_name is None else find_project(database, before.account_id, project_name).id
        secret = UNSET
        if replace or secret_file is not None:
            text = _read_secret(secret_file)
            secret = (text, provider_secret.hint(text))
        wanted = Change(
            secret=secret,
            name=UNSET if name is None else name,
            project="" if any_project else project,
            key_ids=() if any_key else _key_ids(database, before.account_id, key_names) if key_names else UNSET,
            always_use=UNSET if always_use is None else always_use,
            position=UNSET if position is None else position,
        )
        _change(loaded, database, id, wanted, as_json)


@byok.command("disable")
@click.argument("id")
@config_option
@json_option
def disable_key(id: str, config_path: Path, as_json: bool) -> None:
    """Do not use a key until it is enabled again: the house's takes its place."""
    with database_of(config_path) as (loaded, database):
        _change(loaded, database, id, Change(disabled=True), as_json)


@byok.command("enable")
@click.argument("id")
@config_option
@json_option
def enable_key(id: str, config_path: Path, as_json: bool) -> None:
    """Use a key again that was disabled."""
    with database_of(config_path) as (loaded, database):
        _change(loaded, database, id, Change(disabled=False), as_json)


@byok.command("remove")
@click.argument("id")
@config_option
@json_option
def remove_key(id: str, config_path: Path, as_json: bool) -> None:
    """Forget a key for good; of its secret nothing is left."""
    with database_of(config_path) as (_, database):
        _checked(lambda: provider_keys.remove(database, id, now_us=SystemClock().now_us()))
    if as_json:
        print_json({"id": id, "state": "removed"})
        return
    click.echo(f"Removed {id}; a running server does not use it from within a second.")


@byok.command("rotate-master")
@click.option("--prepare", is_flag=True, help="Only put the next master key into the file, to copy it elsewhere first.")
@config_option
@json_option
def rotate_master(prepare: bool, config_path: Path, as_json: bool) -> None:
    """Seal with a new master key from now on, and wrap anew what is sealed. The keys at providers stay as they are.

    Several machines with one database: --prepare, copy byok-master.json to each of them, then without --prepare, then copy again.
    """
    with database_of(config_path) as (loaded, database):
        vault, now_us = Vault(loaded.byok_master_file), SystemClock().now_us()
        if prepare:
            made = _checked(lambda: provider_keys.prepare_master(database, vault, now_us=now_us))
            if as_json:
                print_json({"prepared": made.id, "file": str(vault.path)})
                return
            click.echo(f"{vault.path} has the next master key {made.id}; nothing is sealed with it yet.")
            click.echo("Copy the file to the other machines, then `farebox byok rotate-master`.")
            return
        done = _checked(lambda: provider_keys.rotate_master(database, vault, now_us=now_us))
    if as_json:
        print_json(
            {"master": done.master, "rewrapped": done.rewrapped, "broken": list(done.broken), "dropped": done.dropped}
        )
        return
    click.echo(f"Sealed with {done.master} now; wrapped anew: {done.rewrapped}; master keys dropped: {done.dropped}.")
    if done.broken:
        click.echo(f"Could not be opened and stay as they are: {', '.join(done.broken)}; have their owners store them again.")


# --- what they share ----------------------------------------------------------------------------------------------------------


def _change(loaded: Loaded, database: Database, id: str, wanted: Change, as_json: bool) -> None:
    vault = Vault(loaded.byok_master_file)
    _checked(lambda: provider_keys.change(database, vault, id, wanted, now_us=SystemClock().now_us()))
    about = _about(_find(database, id), vault)
    if as_json:
        print_json(about)
        return
    click.echo(f"{id} is {about['state']}; a running server sees the change within a second.")


def _about(key: ProviderKey, vault: Vault) -> dict[str, Any]:
    """What may be shown of it."""
    state = "active" if key.disabled_us is None else "disabled"
    try:
        vault.open(key.sealed, provider_keys.place(key), key.master)
    except CannotOpen:
        state = "broken"
    return {
        "id": key.id,
        "account": key.account_id,
        "provider": key.provider,
        "name": key.name,
        "hint": key.hint,
        "state": state,
        "always_use": key.always_use,
        "position": key.position,
        "project": key.project or None,
        "keys": key.key_list,
        "created_at": day(key.created_us),
        "changed_at": day(key.changed_us),
    }


def _for(project: str | None, count: int) -> str:
    """Whose calls may use it, in a few words."""
    if count:
        return f"{count} API key" + ("s" if count > 1 else "")
    return "all" if project is None else "a project"


def _find(database: Database, id: str) -> ProviderKey:
    found = database.read(lambda connection: stored.by_id_alone(connection, id))
    if found is None:
        raise CliError(f"there is no provider key `{id}`; `farebox byok list` shows them")
    return found


def _check_provider(loaded: Loaded, name: str) -> bool:
    """Refuse what is no provider or takes no key; whether it is switched on here."""
    try:
        on = enabled_providers(loaded, local_url=local_url(loaded))
    except ConfigError as error:
        raise CliError(str(error)) from None
    known = dict(PROVIDERS) | {one: at.provider for one, at in on.items()}
    row = known.get(name)
    if row is None:
        taking = ", ".join(sorted(one for one, at in known.items() if at.takes_key))
        raise CliError(f"there is no provider `{name}`; those that take a key: {taking}")
    if not row.takes_key:
        raise CliError(f"`{name}` runs on your own machines and takes no key of a customer's")
    return name in on


def _key_ids(database: Database, account_id: str, names: Sequence[str]) -> tuple[str, ...]:
    """API keys by name or id, each of which must be there and be one."""
    return tuple(find_key(database, account_id, name).id for name in names)


def _read_secret(path: Path | None) -> str:
    """A provider's key from a file, a pipe or a prompt; what is wrong with it is said without it."""
    if path is not None and str(path) != "-":
        try:
            with path.open("rb") as file:
                raw = file.read(SECRET_INPUT_MAX)
        except OSError as error:
            raise CliError(f"{path}: {error.strerror}") from None
    elif path is None and sys.stdin.isatty():
        raw = str(click.prompt("The provider's key", hide_input=True, err=True)).encode()
    else:
        raw = sys.stdin.buffer.read(SECRET_INPUT_MAX)
    try:
        return provider_secret.checked(raw.decode())
    except UnicodeDecodeError:
        raise CliError("the provider's key is not text") from None
    except BadSecret as error:
        raise CliError(f"the provider's key {error}") from None


def _checked(command: Callable[[], T]) -> T:
    """Carry out a command; its refusal is a sentence for whoever gave it."""
    try:
        return command()
    except CommandRefused as error:
        raise CliError(f"{error}; `farebox byok list` shows them") from None
    except MasterFileError as error:
        raise CliError(str(error)) from None


COMMANDS = (byok,)
