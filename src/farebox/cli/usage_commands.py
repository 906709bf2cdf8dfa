"""`usage`, `compare`, `ledger check`."""

import csv
import datetime as dt
import difflib
import sys
from pathlib import Path
from typing import Any, cast

import click

from farebox.billing.accounts import compare as comparing
from farebox.billing.accounts import price_book
from farebox.billing.accounts.compare import compared
from farebox.billing.books import evidence
from farebox.billing.books.periods import format_moment
from farebox.billing.invariants import checks
from farebox.billing.invoicing import exports
from farebox.cli.arguments import find_account, moment
from farebox.cli.output import CliError, config_option, database_of, json_option, local_url, print_json, print_table
from farebox.config import ConfigError
from farebox.market import make_market
from farebox.money import format_amount
from farebox.ports import SystemClock
from farebox.storage import queries, reports
from farebox.storage.database import Database
from farebox.storage.reports import Group, Narrow, UsageLine


def _groups(text: str) -> tuple[Group, ...]:
    found = tuple(part.strip() for part in text.split(","))
    for name in found:
        if name not in reports.GROUPS:
            near = difflib.get_close_matches(name, reports.GROUPS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(reports.GROUPS)}"
            raise CliError(f"--by {name!r} is not a dimension; {fix}")
    if len(set(found)) != len(found):
        raise CliError("--by names a dimension twice")
    return cast("tuple[Group, ...]", found)


def _project(database: Database, account_id: str | None, name: str) -> str:
    """The id of a project by its id or name; of several accounts' with the name, one has to be chosen."""
    projects = database.read(lambda connection: queries.list_projects(connection, account_id))
    found = [one.id for one in projects if one.id == name] or [one.id for one in projects if one.name == name]
    if not found:
        raise CliError(f"there is no project `{name}`; `farebox projects list --account NAME` shows an account's")
    if len(found) > 1:
        raise CliError(f"{len(found)} accounts have a project `{name}`; say which with --account")
    return found[0]


@click.command()
@click.option(
    "--by", default="model", show_default=True, help=f"One or more of {', '.join(reports.GROUPS)}, with commas: model,day."
)
@click.option("--since", default="7d", show_default=True, help="7d, 12h, 30m, 2w, a date, or a time (UTC).")
@click.option("--until", help="Likewise; unset: now.")
@click.option("--account", "account_name", help="Only this account's.")
@click.option("--project", help="Only this project's, by name or id.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@config_option
@json_option
def usage(
    by: str,
    since: str,
    until: str | None,
    account_name: str | None,
    project: str | None,
    as_csv: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """What was called and what it cost, the dearest first (days and hours in their order); the total also in the currency of
    [display] in the configuration, by today's rate. What providers billed customers for their own keys stands beside it, if
    anything."""
    groups = _groups(by)
    start_us = moment(since, "--since")
    end_us = None if until is None else moment(until, "--until")
    if as_csv and as_json:
        raise CliError("--csv and --json exclude each other")
    with database_of(config_path) as (loaded, database):
        account_id = None if account_name is None else find_account(database, account_name).id
        project_id = None if project is None else _project(database, account_id, project)
        narrow = Narrow(since_us=start_us, until_us=end_us, account_id=account_id, project=project_id)
        dearest_first = not {"day", "hour"} & set(groups)

        def ask(connection: Any) -> tuple[list[UsageLine], dict[tuple[str | int, ...], int], dict[str, dict[str, str]]]:
            rows = reports.usage_lines(connection, groups, narrow, dearest_first=dearest_first)
            labels: dict[str, dict[str, str]] = {}
            if "key" in groups:
                labels["key"] = {key.id: key.name or key.hint for key in queries.list_keys(connection)}
            if "project" in groups:
                labels["project"] = {one.id: one.name for one in queries.list_projects(connection, account_id)}
            if "account" in groups:
                labels["account"] = {account.id: account.name for account in queries.list_accounts(connection)}
            return rows, reports.own_key_lines(connection, groups, narrow), labels

        rows, own, labels = database.read(ask)

    def shown(row: UsageLine) -> dict[str, str]:
        return {name: reports.shown(name, value) for name, value in zip(groups, row.groups, strict=True)}

    def named(row: UsageLine) -> list[str]:
        return [labels.get(name, {}).get(value, value) for name, value in shown(row).items()]

    billed = sum(own.values())
    charged, costs = sum(row.charge_nano for row in rows), sum(row.cost_nano for row in rows)
    currency = loaded.config.display.shown
    today = dt.datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, dt.UTC).date()
    rate = currency.rate_on(today) if currency else None
    records = [
        {
            **shown(row),
            "name": " ".join(named(row)),
            "calls": row.calls,
            "attempts": row.attempts,
            "prompt_tokens": row.prompt_tokens,
            "cached_tokens": row.cached_tokens,
            "completion_tokens": row.completion_tokens,
            "reasoning_tokens": row.reasoning_tokens,
            "charge": format_amount(row.charge_nano),
            "cost": format_amount(row.cost_nano),
            "unknown_costs": row.unknown_costs,
            "byok_cost": format_amount(own.get(row.groups, 0)),
        }
        for row in rows
    ]
    if as_json:
        print_json(
            {
                "by": by,
                "since": format_moment(start_us),
                "until": None if end_us is None else format_moment(end_us),
                "rows": records,
                "total": {
                    "calls": sum(row.calls for row in rows),
                    "charge": format_amount(charged),
                    "cost": format_amount(costs),
                    "byok_cost": format_amount(billed),
                    "display": {
                        "currency": currency.currency,
                        "rate": rate.text,
                        "since": str(rate.day),
                        "charge": currency.convert(charged, rate),
                    }
                    if currency and rate
                    else None,
                },
            }
        )
        return
    if as_csv:
        sums = ("calls", "attempts", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
        columns: list[str] = [*groups, "name", *sums, "charge", "cost", "unknown_costs", "byok_cost"]
        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(records)
        return
    lines = [
        (
            *named(row),
            str(row.calls),
            str(row.prompt_tokens),
            str(row.completion_tokens),
            format_amount(row.charge_nano),
            format_amount(row.cost_nano) + ("+?" if row.unknown_costs else ""),
            *([format_amount(own.get(row.groups, 0))] if billed else []),
        )
        for row in rows
    ]
    wide = len(groups)
    if lines:
        total = (str(sum(row.calls for row in rows)), "", "", format_amount(charged), format_amount(costs))
        total += (format_amount(billed),) if billed else ()
        lines.append(("total", *[""] * (wide - 1), *total))
    print_table(
        (*groups, "calls", "prompt", "completion", "charged USD", "cost USD", *(["byok USD"] if billed else [])),
        lines,
        right=range(wide, wide + 6 if billed else wide + 5),
        empty="No calls in this period. The curl that `farebox run` prints makes one.",
    )
    if rows and currency and rate:
        name = currency.currency
        told = f"1 USD = {rate.text} {name}, the rate from {rate.day} on"
        click.echo(f"Charged in {name}: {currency.convert(charged, rate)} ({told})")
    if billed:
        click.echo("byok USD is what providers billed customers for their own keys; it is no cost of yours")
    if any(row.unknown_costs for row in rows):
        click.echo("+?  the provider's price of some attempts is not known yet (broken off before it said)")


@click.command()
@click.option("--account", "account_name", help="Only this account's.")
@click.option("--since", default="30d", show_default=True, help="7d, a date, or a time (UTC).")
@click.option("--until", help="Likewise; unset: now.")
@config_option
@json_option
def compare(account_name: str | None, since: str, until: str | None, config_path: Path, as_json: bool) -> None:
    """What the calls cost here, and would have cost directly at each provider's list price."""
    start_us, end_us = moment(since, "--since"), None if until is None else moment(until, "--until")
    with database_of(config_path) as (loaded, database):
        try:
            versions = database.read(price_book.versions)
            catalog = make_market(loaded, local_url=local_url(loaded), versions=versions)[0].catalog
        except ConfigError as error:
            raise CliError(str(error)) from None
        account_id = None if account_name is None else find_account(database, account_name).id
        narrow = Narrow(since_us=start_us, until_us=end_us, account_id=account_id)
        models, total = database.read(
            lambda connection: comparing.compare(exports.usage_rows(connection, narrow), evidence.attempt, catalog.get)
        )
    if as_json:
        print_json({"since": format_moment(start_us), "models": [compared(one) for one in models], "total": compared(total)})
        return
    lines: list[tuple[str, ...]] = []
    for one in (*models, total) if models else ():
        name = one.model or "in all"
        lines.append((name, "here", str(one.calls), format_amount(one.here_nano), ""))
        lines.append(("", "as served, at list price", "", format_amount(one.as_served_nano), ""))
        for direct in one.direct:
            shown = direct.provider if one.model else f"{direct.provider} ({direct.models} of {len(models)} models)"
            lines.append(
                ("", shown, str(direct.calls), format_amount(direct.direct_nano), format_amount(direct.difference_nano))
            )
    lines += [("", "cheapest of each model", "", format_amount(total.cheapest_nano), "")] if models else []
    print_table(
        ("model", "where", "calls", "USD", "more than here"), lines, right=(2, 3, 4), empty="No charged calls in this period."
    )


@click.group("ledger")
def ledger_group() -> None:
    """The books: check."""


@ledger_group.command("check")
@config_option
@json_option
def check(config_path: Path, as_json: bool) -> None:
    """Check the invariants I1 to I10 of the books. Exit status 0 when all hold, 1 when not."""
    with database_of(config_path) as (loaded, database):
        violations = checks.check(database, loaded.journal_dir)
    if as_json:
        print_json({"ok": not violations, "violations": violations})
    else:
        for violation in violations:
            click.echo(f"{violation.invariant}: {violation.subject}: {violation.sentence}")
        if not violations:
            click.echo("The books balance: I1 to I10 hold.")
    if violations:
        sys.exit(1)


COMMANDS = (usage, compare, ledger_group)
