"""`export usage`, `export focus`, `export journal`."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from sqlalchemy import Connection

from farebox.billing.books.periods import month_bounds
from farebox.billing.invoicing import exports, focus
from farebox.billing.invoicing.export_files import Format, ParquetMissing, writer
from farebox.billing.invoicing.exports import Column, Values
from farebox.cli.arguments import find_account, moment
from farebox.cli.output import CliError, config_option, database_of, json_option, print_json
from farebox.storage.reports import Narrow

F = TypeVar("F", bound=Callable[..., Any])
PROGRESS_EVERY = 1_000


def _options(function: F) -> F:
    """What every export takes."""
    for option in (
        json_option,
        config_option,
        click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A file; unset: standard output."),
        click.option(
            "--format", "form", type=click.Choice(["csv", "jsonl", "parquet"]), default="csv", show_default=True, help="Form."
        ),
        click.option("--account", "account_name", help="Only this account's."),
        click.option("--until", help="Likewise; unset: now."),
        click.option("--since", default="30d", show_default=True, help="7d, a date, or a time (UTC)."),
        click.option("--month", help="A whole UTC month such as 2026-11, in place of --since and --until."),
    ):
        function = option(function)
    return function


@contextmanager
def opened(output: Path | None, form: Format) -> Generator[IO[bytes]]:
    """The file, under a temporary name until it is whole; or standard output."""
    if output is None:
        if form == "parquet":
            raise CliError("Parquet needs a file: --output usage.parquet")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = output.with_name(output.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def _told(lines: Iterable[Values], total: int, done: list[int], step: int) -> Iterator[Values]:
    """The lines as they pass, counted; on a terminal with a bar on standard error."""
    if not sys.stderr.isatty():
        for line in lines:
            done[0] += 1
            yield line
        return
    # Here, because only a terminal needs it.
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("exporting", total=total * step)
        for line in lines:
            done[0] += 1
            if done[0] % PROGRESS_EVERY == 0:
                progress.update(task, completed=done[0])
            yield line
        progress.update(task, completed=total * step)


def _export(
    columns: tuple[Column, ...],
    table: Callable[[Connection, Narrow], Iterator[Values]],
    count: Callable[[Connection, Narrow], int],
    step: int,
    *,
    month: str | None,
    since: str,
    until: str | None,
    account_name: str | None,
    form: Format,
    output: Path | None,
    config_path: Path,
    as_json: bool,
) -> None:
    if as_json and output is None:
        raise CliError("--json tells about a file; give one with --output, or use --format jsonl")
    if month is None:
        since_us, until_us = moment(since, "--since"), None if until is None else moment(until, "--until")
    else:
        try:
            since_us, until_us = month_bounds(month)
        except ValueError as error:
            raise CliError(f"--month: {error}") from None
    done = [0]
    with database_of(config_path) as (_, database):
        account_id = None if account_name is None else find_account(database, account_name).id
        narrow = Narrow(since_us=since_us, until_us=until_us, account_id=account_id)

        def work(connection: Connection) -> None:
            total = count(connection, narrow)
            with opened(output, form) as file:
                try:
                    into = writer(form, columns, file)
                except ParquetMissing as error:
                    raise CliError(str(error)) from None
                into.write(_told(table(connection, narrow), total, done, step))
                into.close()

        database.read(work)
    if as_json:
        print_json({"file": str(output), "format": form, "lines": done[0]})
    elif output is not None:
        click.echo(f"Wrote {done[0]} lines to {output}.", err=True)


@click.group("export")
def export_group() -> None:
    """Export for other programs: usage, focus, journal. One snapshot, streamed, of any length."""


@export_group.command("usage")
@_options
def export_usage(**options: Any) -> None:
    """Every attempt: counts by class, list price, our cost, fee and charge."""
    _export(exports.USAGE_COLUMNS, exports.usage_table, exports.count_usage, 1, **options)


@export_group.command("focus")
@click.option(
    "--focus-version", type=click.Choice(["1.3", "1.2"]), default="1.3", show_default=True, help="Of the specification."
)
@_options
def export_focus(focus_version: focus.Version, **options: Any) -> None:
    """The FinOps cost and usage format (FOCUS), summed up by day, project, key, model, provider and price."""

    def table(connection: Connection, narrow: Narrow) -> Iterator[Values]:
        return focus.focus_table(connection, narrow, focus_version)

    _export(focus.columns(focus_version), table, exports.count_usage, 1, **options)


@export_group.command("journal")
@_options
def export_journal(**options: Any) -> None:
    """The ledger as journal entries for bookkeeping: a debit and a credit line per transfer."""
    _export(exports.JOURNAL_COLUMNS, exports.journal_table, exports.count_journal, 2, **options)


COMMANDS = (export_group,)
