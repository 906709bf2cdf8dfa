"""`replay`: recorded calls through a changed configuration."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection

from farebox.billing.accounts import price_book
from farebox.billing.books.periods import format_day, format_moment
from farebox.billing.invoicing import exports
from farebox.cli.arguments import find_account, moment
from farebox.cli.output import CliError, config_option, database_of, json_option, local_url, print_json, print_table
from farebox.config import ConfigError, Loaded, load
from farebox.configured_routing import make_router
from farebox.gate.permissions import permit
from farebox.market import make_market
from farebox.money import format_amount
from farebox.ports import SystemClock
from farebox.replay import replaying
from farebox.replay.history import History
from farebox.replay.planning import Caller, CallerOf, Forced, Planner
from farebox.replay.replaying import LEFT, Move, Replayed, Sum
from farebox.routing.auto import DECISIONS
from farebox.storage import queries
from farebox.storage.queries import UsageRow
from farebox.storage.reports import Narrow

PROGRESS_EVERY = 1_000
MOVES_SHOWN = 20
REFUSALS_SHOWN = 5


@click.command()
@click.option(
    "--policy",
    "proposal",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What would change: any sections of the configuration, in place of the present ones of the same name.",
)
@click.option("--since", default="30d", show_default=True, help="7d, 12h, 2w, a date, or a time (UTC).")
@click.option("--until", help="Likewise; unset: now.")
@click.option("--account", "account_name", help="Only this account's calls.")
@click.option("--day", help="With the prices in force on this day, 2026-12-01; unset: today.")
@config_option
@json_option
def replay(
    proposal: Path,
    since: str,
    until: str | None,
    account_name: str | None,
    day: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Recorded calls through changed policies, prices or markup: cost, margin, time, and which calls would move.

    Nothing is sent and nothing is changed. `new.toml` holds only what would be different, e.g. a [policies.support] table.
    """
    since_us, until_us = moment(since, "--since"), None if until is None else moment(until, "--until")
    day = format_day(SystemClock().now_us()) if day is None else format_day(moment(day, "--day"))
    with database_of(config_path) as (loaded, database):
        account = None if account_name is None else find_account(database, account_name).id
        try:
            changed = load(config_path, loaded.environment, over=proposal)
        except ConfigError as error:
            raise CliError(str(error)) from None
        narrow = Narrow(since_us=since_us, until_us=until_us, account_id=account)

        def work(connection: Connection) -> Replayed:
            total = exports.count_usage(connection, narrow)
            rows = _told(exports.usage_rows(connection, narrow), total, "looking at durations")
            history = replaying.learn(rows)
            planners = [_planner(connection, one, history, day) for one in (loaded, changed)]
            rows = _told(exports.usage_rows(connection, narrow), total, "replaying")
            return replaying.replay(rows, planners[0], planners[1], _callers(connection), history)

        try:
            found = database.read(work)
        except ConfigError as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json(
            {
                "since": format_moment(since_us),
                "until": None if until_us is None else format_moment(until_us),
                "account": account_name,
                "day": day,
                **_json(found),
            }
        )
        return
    _print(found)


def _planner(connection: Connection, loaded: Loaded, history: History, day: str) -> Planner:
    market, _ = make_market(loaded, local_url=local_url(loaded), versions=price_book.versions(connection))
    forced = Forced(DECISIONS)
    router = make_router(loaded, market, history, forced.decisions)
    return Planner(router, market.markups, forced, day=day)


def _callers(connection: Connection) -> CallerOf:
    """Keys as they are now, with the policy and the markup of their accounts."""
    accounts = {one.id: one for one in queries.list_accounts(connection)}
    found: dict[str, Caller] = {}
    for key in queries.list_keys(connection):
        account = accounts[key.account_id]
        allowance = permit(key.permissions, key.restrictions).allowance
        found[key.id] = Caller(account.id, key.policy or account.policy, account.markup, allowance)
    return found.get


def _told(rows: Iterable[UsageRow], total: int, what: str) -> Iterator[UsageRow]:
    """The rows as they pass; on a terminal with a bar on standard error."""
    if not sys.stderr.isatty():
        yield from rows
        return
    # Here, because only a terminal needs it.
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        for count, row in enumerate(rows, 1):
            if count % PROGRESS_EVERY == 0:
                progress.update(task, completed=count)
            yield row


def _sum(found: Sum) -> dict[str, Any]:
    return {
        "calls": found.calls,
        "cost": format_amount(found.cost_nano),
        "charge": format_amount(found.charge_nano),
        "margin": format_amount(found.margin_nano),
        "timed_calls": found.timed,
        "mean_ms": found.duration_us // found.timed // 1_000 if found.timed else None,
    }


def _json(found: Replayed) -> dict[str, Any]:
    return {
        "recorded": _sum(found.recorded),
        "present": _sum(found.present),
        "proposed": _sum(found.proposed),
        "kept": found.kept,
        "moved": sum(one.before.calls for one in found.moves),
        "moves": [
            {"from": one.source, "to": one.target, "before": _sum(one.before), "after": _sum(one.after)} for one in found.moves
        ],
        "refused": {
            "present": _sum(found.refused_sum),
            "reasons": [{"reason": reason, "calls": calls} for reason, calls in found.refused.most_common()],
        },
        "left_out": [{"why": name, "calls": found.left[name], "meaning": LEFT[name]} for name in LEFT if found.left[name]],
    }


def _row(name: str, found: Sum) -> tuple[str, ...]:
    told = _sum(found)
    mean = "" if told["mean_ms"] is None else f"{told['mean_ms']} ms"
    return (name, str(found.calls), told["cost"], told["charge"], told["margin"], mean)


def _moved(one: Move) -> tuple[str, ...]:
    cost = one.after.cost_nano - one.before.cost_nano
    charge = one.after.charge_nano - one.before.charge_nano
    return (f"{one.source} → {one.target}", str(one.before.calls), _signed(cost), _signed(charge))


def _signed(nano: int) -> str:
    return f"{'+' if nano > 0 else ''}{format_amount(nano)}"


def _print(found: Replayed) -> None:
    rows = (("as booked", found.recorded), ("present", found.present), ("proposed", found.proposed))
    print_table(
        ("", "calls", "cost USD", "charge USD", "margin USD", "mean time"),
        [_row(name, one) for name, one in rows],
        right=(1, 2, 3, 4, 5),
    )
    moved = sum(one.before.calls for one in found.moves)
    click.echo(f"{found.kept} calls stay where they are, {moved} move.")
    if found.moves:
        shown = [_moved(one) for one in found.moves[:MOVES_SHOWN]]
        print_table(("move", "calls", "cost USD", "charge USD"), shown, right=(1, 2, 3))
    for reason, calls in found.refused.most_common(REFUSALS_SHOWN):
        click.echo(f"{calls} calls would be refused: {reason}")
    for name, meaning in LEFT.items():
        if found.left[name]:
            click.echo(f"{found.left[name]} calls are left out: {meaning}.")


COMMANDS = (replay,)
