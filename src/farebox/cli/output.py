"""How commands speak: tables of at most 100 columns, `--json` with stable names, errors in one sentence with the next command."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from farebox.billing.accounts import price_book
from farebox.catalog.book import Version
from farebox.config import ConfigError, Loaded, load
from farebox.money import MoneyError
from farebox.processes import local_model
from farebox.storage import migrate
from farebox.storage.database import Database, StoreError

WIDTH = 100
DEFAULT_CONFIG = Path("data/farebox.toml")
F = TypeVar("F", bound=Callable[..., Any])


class CliError(Exception):
    """An expected failure: one sentence, with the next command to try."""


def config_option(function: F) -> F:
    """`--config FILE`, also from `FAREBOX_CONFIG`."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_CONFIG,
        envvar="FAREBOX_CONFIG",
        show_default=True,
        help="The configuration file.",
    )(function)


def json_option(function: F) -> F:
    """`--json`: one JSON value with stable names; money as decimal strings of USD."""
    text = "Print JSON with stable names, money as decimal strings."
    return click.option("--json", "as_json", is_flag=True, help=text)(function)


def load_config(path: Path) -> Loaded:
    try:
        return load(path)
    except ConfigError as error:
        raise CliError(str(error)) from None


def local_url(loaded: Loaded) -> str | None:
    """Something in place of the local model's address where `serve` would run it, None where not."""
    enabled = loaded.config.local_model.enabled
    return "http://127.0.0.1" if (local_model.installed() if enabled is None else enabled) else None


def book_of(loaded: Loaded) -> Sequence[Version]:
    """The price book's versions; none where there is no database yet, or one that has to be brought up to date first."""
    url = loaded.database_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return ()
    try:
        with Database.open(url) as database:
            migrate.check(database)
            return database.read(price_book.versions)
    except (migrate.SchemaOutdated, StoreError):
        return ()


@contextmanager
def database_of(path: Path) -> Generator[tuple[Loaded, Database]]:
    """The configuration and its open, current database; its failures as sentences."""
    loaded = load_config(path)
    try:
        with Database.open(loaded.database_url) as database:
            migrate.check(database)
            yield loaded, database
    except migrate.SchemaOutdated as error:
        raise CliError(f"{error}; run `farebox serve` or `farebox doctor` to bring the database up to date") from None
    except StoreError as error:
        raise CliError(f"the database could not do that: {error}; `farebox doctor` looks for the cause") from None
    except MoneyError as error:
        raise CliError(str(error)) from None


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), empty: str = "") -> None:
    """A table; columns whose index is in `right` are numbers. Nothing to show says what would make something."""
    if not rows:
        click.echo(empty)
        return
    # Here, because only tables need them and most commands start without.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        # As text: a name such as `[red]` is a name, not markup.
        table.add_row(*map(Text, row))
    Console(width=WIDTH, file=sys.stdout, highlight=False, no_color=not sys.stdout.isatty()).print(table)


def day(us: int | None) -> str:
    """Microseconds since the epoch → `2026-11-23 07:30 UTC`."""
    if us is None:
        return ""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
