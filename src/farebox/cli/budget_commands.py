"""`projects` and `budgets`: what an account is divided into, and how much each part may spend."""

from pathlib import Path
from typing import cast

import click
from msgspec import UNSET

from farebox.billing.accounts import budget_commands
from farebox.billing.books import carrying, customers
from farebox.billing.books.customers import CommandRefused, NotFound
from farebox.billing.budgets import Budget, BudgetKind, Window
from farebox.cli.arguments import amount, find_account, find_project
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table
from farebox.money import format_amount
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage import queries
from farebox.storage.database import Database

WINDOWS = ("none", "hour", "day", "week", "month")


@click.group()
def projects() -> None:
    """Projects: create, list, disable and enable."""


@projects.command("create")
@click.argument("name")
@click.option("--account", "account_name", required=True, help="Whose project it is: an account's name or id.")
@config_option
@json_option
def create_project(name: str, account_name: str, config_path: Path, as_json: bool) -> None:
    """Create a project; `farebox keys create --project NAME` makes its keys."""
    clock = SystemClock()
    id = TimeOrderedIds(clock).new("prj")
    with database_of(config_path) as (_, database):
        account = find_account(database, account_name)
        try:
            customers.create_project(database, id=id, account_id=account.id, name=name, now_us=clock.now_us())
        except CommandRefused as error:
            raise CliError(f"{error}; `farebox projects list --account {account.name}` shows them") from None
    if as_json:
        print_json({"id": id, "name": name, "account": account.id})
        return
    click.echo(f"Created the project `{name}` of `{account.name}`.")


@projects.command("list")
@click.option("--account", "account_name", required=True, help="Whose projects: an account's name or id.")
@config_option
@json_option
def list_projects(account_name: str, config_path: Path, as_json: bool) -> None:
    """List an account's projects."""
    with database_of(config_path) as (_, database):
        account = find_account(database, account_name)
        found = database.read(lambda connection: queries.list_projects(connection, account.id))
    rows = [(one.id, one.name, "disabled" if one.disabled_us is not None else "active", day(one.created_us)) for one in found]
    if as_json:
        names = ("id", "name", "state", "created_at")
        print_json({"projects": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    print_table(("id", "name", "state", "created"), rows, empty="No projects yet; `farebox projects create NAME` makes one.")


@projects.command("disable")
@click.argument("name")
@click.option("--account", "account_name", required=True, help="Whose project it is.")
@config_option
@json_option
def disable_project(name: str, account_name: str, config_path: Path, as_json: bool) -> None:
    """Stop every key of a project until it is enabled again."""
    _switch_project(name, account_name, config_path, as_json, disabled=True)


@projects.command("enable")
@click.argument("name")
@click.option("--account", "account_name", required=True, help="Whose project it is.")
@config_option
@json_option
def enable_project(name: str, account_name: str, config_path: Path, as_json: bool) -> None:
    """Let a disabled project's keys call again."""
    _switch_project(name, account_name, config_path, as_json, disabled=False)


def _switch_project(name: str, account_name: str, config_path: Path, as_json: bool, *, disabled: bool) -> None:
    with database_of(config_path) as (_, database):
        account = find_account(database, account_name)
        project = find_project(database, account.id, name)
        customers.change_project(database, project.id, disabled=disabled, now_us=SystemClock().now_us())
    state = "disabled" if disabled else "active"
    if as_json:
        print_json({"id": project.id, "state": state})
        return
    click.echo(f"The project `{project.name}` is {state}.")


@click.group()
def budgets() -> None:
    """Budgets of accounts, projects, keys, end users and tags."""


@budgets.command("create")
@click.argument("usd")
@click.option("--account", "account_name", required=True, help="Whose budget it is: an account's name or id.")
@click.option("--project", help="It limits this project.")
@click.option("--key", "key_id", help="It limits this key (its id).")
@click.option("--end-user", help="It limits this end user; `*` gives each end user one who has none of their own.")
@click.option("--tag", help="It limits the calls with this tag.")
@click.option("--window", type=click.Choice(WINDOWS), default="month", show_default=True, help="For each of these.")
@click.option("--zone", default="UTC", show_default=True, help="The time zone whose days, weeks and months count.")
@click.option("--soft", is_flag=True, help="Alert, but refuse nothing.")
@click.option("--model", "models", multiple=True, help="Count only these models (`openai/*`). Repeat for several.")
@click.option("--provider", "providers", multiple=True, help="Count only what these providers are paid. Repeat for several.")
@click.option("--name", default="", help="What it is called.")
@config_option
@json_option
def create_budget(
    usd: str,
    account_name: str,
    project: str | None,
    key_id: str | None,
    end_user: str | None,
    tag: str | None,
    window: str,
    zone: str,
    soft: bool,
    models: tuple[str, ...],
    providers: tuple[str, ...],
    name: str,
    config_path: Path,
    as_json: bool,
) -> None:
    """Create a budget: farebox budgets create 50.00 --account ACME --project web --window day."""
    subjects = {"project": project, "key": key_id, "end_user": end_user, "tag": tag}
    given = {kind: subject for kind, subject in subjects.items() if subject is not None}
    if len(given) > 1:
        options = ", ".join(f"--{kind.replace('_', '-')}" for kind in given)
        raise CliError(f"a budget has one owner, not {options}; make one budget for each")
    kind, subject = next(iter(given.items()), ("account", ""))
    clock = SystemClock()
    with database_of(config_path) as (_, database):
        account = find_account(database, account_name)
        if kind == "project":
            subject = find_project(database, account.id, subject).id
        budget = Budget(
            id=TimeOrderedIds(clock).new("bud"),
            kind=cast("BudgetKind", kind),
            amount_nano=amount(usd, "the amount"),
            window=cast("Window", window),
            subject=subject,
            name=name,
            zone=zone,
            hard=not soft,
            models=models,
            providers=providers,
        )
        try:
            budget_commands.create_budget(database, account.id, budget, now_us=clock.now_us())
        except CommandRefused as error:
            raise CliError(f"{error}; `farebox budgets create --help` explains it") from None
    if as_json:
        told = {"id": budget.id, "account": account.id, "kind": kind, "subject": subject}
        print_json({**told, "amount": format_amount(budget.amount_nano)})
        return
    click.echo(f"Created {budget.id}: {budget.title} of `{account.name}`, ${format_amount(budget.amount_nano)} per {window}.")


@budgets.command("list")
@click.option("--account", "account_name", help="Only this account's.")
@config_option
@json_option
def list_budgets(account_name: str | None, config_path: Path, as_json: bool) -> None:
    """List budgets, and what is spent of them in their current windows."""
    now_us = SystemClock().now_us()
    with database_of(config_path) as (_, database):
        account_id = None if account_name is None else find_account(database, account_name).id
        found = database.read(lambda connection: queries.list_budgets(connection, account_id))
        budgets_found = [carrying.from_row(row) for row in found]
        spent = [_spent_nano(database, one, now_us) for one in budgets_found]
    if as_json:
        print_json(
            {
                "budgets": [
                    {"account": row.account_id, **_told(one, used)}
                    for row, one, used in zip(found, budgets_found, spent, strict=True)
                ]
            }
        )
        return
    print_table(
        ("id", "of", "USD", "spent", "per", "kind"),
        [
            (
                one.id,
                one.kind if not one.subject else f"{one.kind} {one.subject}",
                format_amount(one.amount_nano),
                format_amount(used),
                one.window if one.zone == "UTC" else f"{one.window} in {one.zone}",
                "hard" if one.hard else "soft",
            )
            for one, used in zip(budgets_found, spent, strict=True)
        ],
        right=(2, 3),
        empty="No budgets yet; `farebox budgets create 50.00 --account NAME` makes one.",
    )


def _told(budget: Budget, spent_nano: int) -> dict[str, object]:
    return {
        "id": budget.id,
        "kind": budget.kind,
        "subject": budget.subject,
        "name": budget.name,
        "amount": format_amount(budget.amount_nano),
        "spent": format_amount(spent_nano),
        "window": budget.window,
        "zone": budget.zone,
        "hard": budget.hard,
        "models": budget.models,
        "providers": budget.providers,
    }


def _spent_nano(database: Database, budget: Budget, now_us: int) -> int:
    """Posted in the current window; of a budget of each end user, by all of them together."""
    window = budget.window_at(now_us)
    found = database.read(lambda connection: queries.budget_scopes(connection, budget.id, window, budget.revision))
    return sum(posted for _, posted, _ in found)


@budgets.command("update")
@click.argument("budget_id")
@click.argument("usd", required=False)
@click.option("--window", type=click.Choice(WINDOWS), help="For each of these.")
@click.option("--zone", help="The time zone whose days, weeks and months count.")
@click.option("--soft/--hard", "soft", default=None, help="Alert, but refuse nothing; or refuse.")
@click.option("--model", "models", multiple=True, help="Count only these models. Repeat for several.")
@click.option("--every-model", is_flag=True, help="Count every model.")
@click.option("--provider", "providers", multiple=True, help="Count only what these providers are paid. Repeat for several.")
@click.option("--every-provider", is_flag=True, help="Count every provider.")
@click.option("--name", help="What it is called.")
@config_option
@json_option
def update_budget(
    budget_id: str,
    usd: str | None,
    window: str | None,
    zone: str | None,
    soft: bool | None,
    models: tuple[str, ...],
    every_model: bool,
    providers: tuple[str, ...],
    every_provider: bool,
    name: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Change a budget: farebox budgets update ID 75.00 --window week.

    A running server sees it within a second. With another window, zone or filter it counts what was spent in the current window
    already. Whom it limits does not change: create another budget for that.
    """
    for option, some, every in (("model", models, every_model), ("provider", providers, every_provider)):
        if some and every:
            raise CliError(f"--{option} and --every-{option} exclude each other; leave one out")
    change = budget_commands.Change(
        amount_nano=UNSET if usd is None else amount(usd, "the amount"),
        window=UNSET if window is None else cast("Window", window),
        zone=UNSET if zone is None else zone,
        hard=UNSET if soft is None else not soft,
        models=models or (() if every_model else UNSET),
        providers=providers or (() if every_provider else UNSET),
        name=UNSET if name is None else name,
    )
    now_us = SystemClock().now_us()
    with database_of(config_path) as (_, database):
        try:
            budget = budget_commands.change_budget(database, budget_id, change, now_us=now_us)
        except NotFound as error:
            raise CliError(f"{error}; `farebox budgets list` shows them") from None
        except CommandRefused as error:
            raise CliError(f"{error}; `farebox budgets update --help` explains it") from None
        spent = _spent_nano(database, budget, now_us)
    if as_json:
        print_json(_told(budget, spent))
        return
    per = "" if budget.window == "none" else f" per {budget.window}"
    kind = "hard" if budget.hard else "soft"
    told = f"{budget_id} allows ${format_amount(budget.amount_nano)}{per} now ({kind})"
    click.echo(f"{told}; ${format_amount(spent)} is spent of it.")


@budgets.command("remove")
@click.argument("budget_id")
@config_option
@json_option
def remove_budget(budget_id: str, config_path: Path, as_json: bool) -> None:
    """Remove a budget; from then on it limits nothing."""
    with database_of(config_path) as (_, database):
        try:
            budget_commands.remove_budget(database, budget_id, now_us=SystemClock().now_us())
        except CommandRefused as error:
            raise CliError(f"{error}; `farebox budgets list` shows them") from None
    if as_json:
        print_json({"id": budget_id, "state": "removed"})
        return
    click.echo(f"Removed {budget_id}.")


COMMANDS = (projects, budgets)
