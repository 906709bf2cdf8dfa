"""`audit`: who changed which customer, project, key or budget, and whether the log is whole."""

from pathlib import Path
from typing import Any

import click
import msgspec

from farebox.billing.books import audit as log
from farebox.cli.arguments import find_account
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table

SHOWN_MAX = 60


@click.command()
@click.option("--account", "account_name", help="Only changes of this account, by name or id.")
@click.option("--subject", help="Only changes of this key, project, account or budget, by id.")
@click.option("--limit", type=click.IntRange(1, log.ENTRIES_MAX), default=100, show_default=True, help="The newest so many.")
@config_option
@json_option
def audit(account_name: str | None, subject: str | None, limit: int, config_path: Path, as_json: bool) -> None:
    """Who changed accounts, projects, keys and budgets, newest first. Checks that no entry was altered or removed."""
    with database_of(config_path) as (_, database):
        account_id = None if account_name is None else find_account(database, account_name).id

        def ask(connection: Any) -> tuple[list[log.Entry], int | None]:
            found = log.entries(connection, account_id=account_id, subject=subject, limit=limit)
            return found, log.verify(connection)

        found, broken = database.read(ask)
    if as_json:
        print_json({"entries": [_shown(entry) for entry in found], "whole": broken is None, "broken_at": broken})
    else:
        print_table(
            ("no", "when", "who", "from", "what", "subject", "change"),
            [
                (str(entry.seq), day(entry.at_us), entry.actor, entry.address, entry.action, entry.subject, _short(entry.after))
                for entry in found
            ],
            right=(0,),
            empty="Nothing has been changed yet; `farebox keys create --account NAME` would be.",
        )
    if broken is not None:
        raise CliError(
            f"the audit log is not whole: entry {broken} does not follow from the one before it; compare with a backup of the "
            "database"
        )


def _shown(entry: log.Entry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": day(entry.at_us),
        "account": entry.account_id,
        "actor": entry.actor,
        "address": entry.address or None,
        "action": entry.action,
        "subject": entry.subject,
        "before": msgspec.json.decode(entry.before) if entry.before else None,
        "after": msgspec.json.decode(entry.after),
    }


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


COMMANDS = (audit,)
