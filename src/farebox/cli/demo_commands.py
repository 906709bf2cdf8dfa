"""`demo`: a whole month of an invented organisation, to look at what Farebox does with one."""

import os
import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farebox.billing.accounts import compare as comparing
from farebox.billing.accounts import price_book
from farebox.billing.accounts.compare import compared
from farebox.billing.books import evidence
from farebox.billing.books.periods import format_day, month_bounds
from farebox.billing.invariants import checks
from farebox.billing.invoicing import exports
from farebox.cli import usage_commands
from farebox.cli.output import CliError, json_option, print_json
from farebox.config import Loaded
from farebox.market import make_market
from farebox.money import format_amount
from farebox.ports import SystemClock
from farebox.storage import queries, reports
from farebox.storage.database import Database, StoreError
from farebox.storage.reports import Narrow

if TYPE_CHECKING:
    from farebox.demo.month import Played

CALLS = 3_000
SEED_MAX = 2**63 - 1


@click.command(short_help="Play a month of an invented company, and show what came of it.")
@click.option("--month", is_flag=True, help="A whole past month: calls, a price change, a spike, an outage, the invoice.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"), show_default=True,
              help="The data folder to make; it must not have anything in it.")  # fmt: skip
@click.option("--calls", type=int, default=CALLS, show_default=True, help="How many calls the month has.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=1, show_default=True, help="The same seed, the same month.")
@json_option
@click.pass_context
def demo(context: click.Context, month: bool, data: Path, calls: int, seed: int, as_json: bool) -> None:
    """Play an invented organisation's month through the real gateway and a simulated provider, and show what came of it."""
    # Here, because the other commands start without the demo.
    import uvloop

    from farebox.demo import papers
    from farebox.demo.month import play
    from farebox.demo.traffic import CALLS_MAX, CALLS_MIN

    if not month:
        raise CliError("say what to play: `farebox demo --month`")
    if not CALLS_MIN <= calls <= CALLS_MAX:
        raise CliError(f"--calls {calls} is not from {CALLS_MIN} to {CALLS_MAX}; `farebox demo --month` plays {CALLS}")
    if data.exists() and any(data.iterdir()):
        raise CliError(f"{data} has something in it already; choose a new folder: `farebox demo --month --data {data}-2`")
    try:
        with progress(calls) as tell:
            played = uvloop.run(play(data, dict(os.environ), real=SystemClock(), calls=calls, seed=seed, tell=tell))
    except StoreError as error:
        raise CliError(f"the database could not do that: {error}; remove {data} and try again") from None
    files, no_pdf = papers.write(played)
    if as_json:
        found = _facts(played, [str(path) for path in files], no_pdf)
        print_json(found)
        if not found["ledger"]["ok"]:
            sys.exit(1)
        return
    _show(context, played, files, no_pdf)


@contextmanager
def progress(calls: int) -> Generator[Callable[[str, int, int], None]]:
    """A bar on standard error where somebody looks at it, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what, done, whole: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("opening the accounts", total=calls)

        def tell(what: str, done: int, whole: int) -> None:
            bar.update(task, description=what, completed=done, total=whole)

        yield tell


def _next(played: "Played") -> list[str]:
    return [
        f"farebox serve --config {shlex.quote(str(played.loaded.path))}",
        f"farebox simulate --port {played.provider_port} --any-model",
    ]


def _show(context: click.Context, played: "Played", files: list[Path], no_pdf: str | None) -> None:
    """The tables are the commands' own."""
    start_us, end_us = month_bounds(played.month)
    invoice, note = played.invoice, played.credit_note
    config_path = played.loaded.path
    since, until = format_day(start_us), format_day(end_us)
    ended = ", ".join(f"{count} with {status}" for status, count in sorted(played.statuses.items()))
    click.echo(f"{invoice.customer.name}, {played.month} (UTC): {sum(played.statuses.values())} calls, {ended}.\n")
    period = {"since": since, "until": until, "config_path": config_path, "as_json": False}
    context.invoke(usage_commands.compare, account_name=invoice.customer.id, **period)
    click.echo()
    context.invoke(usage_commands.usage, by="project", account_name=invoice.customer.id, **period)
    due = f"due {invoice.due} USD on {invoice.due_day}; paid"
    click.echo(f"\n{invoice.number}: usage {invoice.usage}, with tax {invoice.total}, {due}")
    click.echo(f"{note.number}: takes back {note.total} USD: {note.reason}")
    for path in files:
        click.echo(f"  {path}")
    if no_pdf is not None:
        click.echo(no_pdf)
    click.echo()
    context.invoke(usage_commands.check, config_path=config_path, as_json=False)
    serve, simulate = _next(played)
    click.echo(f"\nNext: {serve}")
    click.echo(f"and, so that calls are answered, too: {simulate}")


def _facts(played: "Played", files: list[str], no_pdf: str | None) -> dict[str, Any]:
    """The same with stable names, out of the books."""
    loaded, invoice, note = played.loaded, played.invoice, played.credit_note
    start_us, end_us = month_bounds(played.month)
    narrow = Narrow(since_us=start_us, until_us=end_us, account_id=played.account)
    with Database.open(loaded.database_url) as database:
        violations = checks.check(database, loaded.journal_dir)
        by_project = database.read(lambda connection: reports.usage_lines(connection, ("project",), narrow, dearest_first=True))
        names = {one.id: one.name for one in database.read(lambda connection: queries.list_projects(connection, played.account))}
        models, total = _compared(loaded, database, narrow)
    return {
        "month": played.month,
        "account": invoice.customer.name,
        "account_id": played.account,
        "calls": sum(played.statuses.values()),
        "statuses": {str(status): count for status, count in sorted(played.statuses.items())},
        "usage": [
            {"project": names.get(str(one.groups[0]), ""), "calls": one.calls, "charge": format_amount(one.charge_nano)}
            for one in by_project
        ],
        "compare": {"models": models, "total": total},
        "invoice": {
            "number": invoice.number, "usage": invoice.usage, "total": invoice.total, "due": invoice.due,
        },
        "credit_note": {"number": note.number, "total": note.total},
        "files": files,
        "no_pdf": no_pdf,
        "ledger": {"ok": not violations, "violations": violations},
        "config": str(loaded.path),
        "next": _next(played),
    }  # fmt: skip


def _compared(loaded: Loaded, database: Database, narrow: Narrow) -> tuple[list[Any], Any]:
    versions = database.read(price_book.versions)
    catalog = make_market(loaded, local_url=None, versions=versions)[0].catalog
    models, total = database.read(
        lambda connection: comparing.compare(exports.usage_rows(connection, narrow), evidence.attempt, catalog.get)
    )
    return [compared(one) for one in models], compared(total)


COMMANDS = (demo,)
