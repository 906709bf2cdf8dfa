"""`usage`, `ledger check`."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click

from farebox.billing import checks
from farebox.cli.account_commands import find_account
from farebox.cli.output import CliError, config_option, database_of, json_option, print_json, print_table
from farebox.money import format_amount
from farebox.ports import SystemClock
from farebox.storage import queries

_SPAN = re.compile(r"([0-9]{1,5})([mhdw])")
_UNIT_US = {"m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}


def since_us(text: str, now_us: int) -> int:
    """`7d`, `12h`, `30m`, `2w` before now, or a date `2026-11-01` (UTC)."""
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now_us - int(span[1]) * _UNIT_US[span[2]]
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        raise CliError(f"--since {text!r} is not understood; write 7d, 12h, 30m, 2w or a date such as 2026-11-01") from None


@click.command()
@click.option("--by", type=click.Choice(["model", "key", "provider", "day", "account"]), default="model", show_default=True)
@click.option("--since", default="7d", show_default=True, help="7d, 12h, 30m, 2w, or a date (UTC).")
@click.option("--account", "account_name", help="Only this account's.")
@config_option
@json_option
def usage(by: str, since: str, account_name: str | None, config_path: Path, as_json: bool) -> None:
    """What was called and what it cost."""
    start_us = since_us(since, SystemClock().now_us())
    with database_of(config_path) as (_, database):
        account_id = None if account_name is None else find_account(database, account_name).id

        def ask(connection: Any) -> tuple[list[queries.UsageGroup], dict[str, str]]:
            rows = queries.usage_report(connection, cast("queries.GroupBy", by), since_us=start_us, account_id=account_id)
            labels: dict[str, str] = {}
            if by == "key":
                labels = {key.id: key.name or key.hint for key in queries.list_keys(connection)}
            if by == "account":
                labels = {account.id: account.name for account in queries.list_accounts(connection)}
            return rows, labels

        rows, labels = database.read(ask)

    def shown(group: str | int) -> str:
        if isinstance(group, int):
            return datetime.fromtimestamp(group * 86_400, UTC).strftime("%Y-%m-%d")
        return group

    charged, costs = sum(row.charge_nano for row in rows), sum(row.cost_nano for row in rows)
    if as_json:
        print_json(
            {
                "by": by,
                "since": datetime.fromtimestamp(start_us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "rows": [
                    {
                        by: shown(row.group),
                        "name": labels.get(str(row.group), shown(row.group)),
                        "calls": row.calls,
                        "attempts": row.attempts,
                        "prompt_tokens": row.prompt_tokens,
                        "completion_tokens": row.completion_tokens,
                        "charge": format_amount(row.charge_nano),
                        "cost": format_amount(row.cost_nano),
                        "unknown_costs": row.unknown_costs,
                    }
                    for row in rows
                ],
                "total": {
                    "calls": sum(row.calls for row in rows),
                    "charge": format_amount(charged),
                    "cost": format_amount(costs),
                },
            }
        )
        return
    lines = [
        (
            labels.get(str(row.group), shown(row.group)),
            str(row.calls),
            str(row.prompt_tokens),
            str(row.completion_tokens),
            format_amount(row.charge_nano),
            format_amount(row.cost_nano) + ("+?" if row.unknown_costs else ""),
        )
        for row in rows
    ]
    if lines:
        lines.append(("total", str(sum(row.calls for row in rows)), "", "", format_amount(charged), format_amount(costs)))
    print_table(
        (by, "calls", "prompt", "completion", "charged USD", "cost USD"),
        lines,
        right=(1, 2, 3, 4, 5),
        empty="No calls in this period. The curl that `farebox run` prints makes one.",
    )
    if any(row.unknown_costs for row in rows):
        click.echo("+?  the provider's price of some attempts is not known yet (broken off before it said)")


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


COMMANDS = (usage, ledger_group)
