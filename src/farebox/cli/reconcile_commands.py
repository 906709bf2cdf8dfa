"""`reconcile`, `reconcile list|show|approve|reject`: a provider's own statement against our records."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import click

from farebox.billing import journal
from farebox.billing.accounts import price_book
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.periods import format_day, format_moment, month_bounds
from farebox.billing.journal import JournalError
from farebox.billing.position import Position
from farebox.billing.posting import poster
from farebox.billing.records import Settle
from farebox.catalog.catalog import Catalog
from farebox.cli.output import CliError, config_option, database_of, day, json_option, local_url, print_json, print_table
from farebox.config import ConfigError, Loaded
from farebox.failpoints import armed
from farebox.market import Enabled, make_market
from farebox.money import MoneyError, format_amount, parse_unit_rate
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.providers.registry import PROVIDERS
from farebox.reconciliation import records, runs
from farebox.reconciliation.admin_apis import APIS, Fetcher
from farebox.reconciliation.figures import StatementError
from farebox.reconciliation.figures import day as read_day
from farebox.reconciliation.judging import Refused
from farebox.reconciliation.names import offers_by_name
from farebox.reconciliation.reading import FILE_BYTES_MAX, read_files, zone_of
from farebox.reconciliation.reports import File, Wanted
from farebox.reconciliation.runs import Run, Stored
from farebox.reconciliation.statement import KINDS, Statement
from farebox.storage.database import Database
from farebox.transport import Client, ProxySettings, Tls

UNPOSTED_MAX = 100_000
"""Records of a journal that are looked at; a bookkeeper that is further behind has more to say in `farebox doctor`."""
SHOWN_MAX = 40
"""Findings in a table; `--all` shows more."""
_file_type = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("reconcile", invoke_without_command=True)
@click.option("--provider", help="Whose statement it is.")
@click.option("--file", "files", multiple=True, type=_file_type, help="The statement; repeat it for usage and costs.")
@click.option("--api", is_flag=True, help="Ask the provider, with an administrator's key from the environment.")
@click.option("--month", help="The days of a month such as 2026-11.")
@click.option("--since", help="The first day; unset: the statement's own.")
@click.option("--until", help="The day after the last; unset: the statement's own.")
@click.option("--zone", default="UTC", show_default=True, help="The time zone of the statement's days.")
@click.option("--rounding", help="The step that its costs are rounded to, in USD, such as 0.01; unset: as they are written.")
@click.option("--key", "keys", multiple=True, metavar="THEIRS=OURS", help="Tell keys apart: their name of one, and ours.")
@click.option("--again", is_flag=True, help="Compare a statement that was compared before.")
@config_option
@json_option
@click.pass_context
def reconcile(context: click.Context, config_path: Path, as_json: bool, **options: Any) -> None:
    """Compare a provider's statement with our records: farebox reconcile --provider openai --file usage.json --file costs.json.

    Exit status 1 when something differs by more than rounding. Nothing is posted before `farebox reconcile approve RUN`.
    """
    if context.invoked_subcommand is not None:
        return
    with database_of(config_path) as (loaded, database):
        try:
            made, seen = _reconcile(loaded, database, **options)
            found = runs.findings(database, made.id)
        except (StatementError, Refused) as error:
            raise CliError(f"{error}; `farebox reconcile --help` shows the options") from None
        except CommandRefused as error:
            raise CliError(f"{error}; `farebox reconcile list` shows earlier runs") from None
    if as_json:
        print_json({"run": _run_words(made), "seen_before": seen, **_words(found)})
    else:
        if seen:
            click.echo(f"This statement was compared before, on {day(made.taken_us)}; --again compares it once more.")
        _print(made, found, SHOWN_MAX)
    if any(one.state == "open" and one.finding.kind != "rounding" for one in found):
        sys.exit(1)


def _reconcile(loaded: Loaded, database: Database, **options: Any) -> tuple[Run, bool]:
    """The run, and whether it is an earlier one over the same statement."""
    provider, files, api = options["provider"], options["files"], options["api"]
    if not provider:
        raise CliError("name the --provider whose statement it is; `farebox providers` shows yours")
    if bool(files) == api:
        raise CliError("give the statement as --file, or ask for it with --api")
    catalog, enabled = _market(loaded, database)
    if provider not in enabled and provider not in PROVIDERS and provider not in loaded.config.providers:
        raise CliError(f"there is no provider `{provider}`; `farebox providers` shows yours")
    wanted = _wanted(provider, options)
    clock = SystemClock()
    if api:
        source, (statement, read) = f"{provider} API", asyncio.run(_fetch(loaded, enabled, wanted, clock))
    else:
        read = [_read(path) for path in files]
        source, statement = ", ".join(one.name for one in read)[:200], read_files(read, wanted)
    digest = runs.digest_of(read, statement)
    before = runs.known(database, provider, digest)
    if before is not None and not options["again"]:
        return before, True
    _all_posted(loaded, database, statement)
    made = runs.reconcile(
        database, TimeOrderedIds(clock), clock, statement, source=source, digest=digest,
        offer_of=offers_by_name(catalog.list_models(), provider), keys=_keys(options["keys"]),
    )  # fmt: skip
    return made, False


def _all_posted(loaded: Loaded, database: Database, statement: Statement) -> None:
    """Refuse to compare days of which this machine's journals still have calls: they would seem to be missing."""
    from_us, until_us = records.bounds_us(statement.first_day, statement.last_day, statement.zone)
    positions = poster.positions(database)
    waiting = 0
    for slot in sorted(loaded.journal_dir.glob("w*")):
        try:
            found, _ = journal.read(slot, positions.get(slot.name, Position()), records_max=UNPOSTED_MAX)
        except JournalError as error:
            raise CliError(f"{error}; `farebox doctor` says more") from None
        ended = [one for one, _ in found if isinstance(one, Settle) and from_us <= one.created_us < until_us]
        waiting += sum(1 for one in ended if any(attempt.provider == statement.provider for attempt in one.attempts))
    if waiting:
        raise CliError(f"{waiting} calls of these days are in the journals and not posted yet; `farebox serve` posts them")


def _market(loaded: Loaded, database: Database) -> tuple[Catalog, dict[str, Enabled]]:
    try:
        market, enabled = make_market(loaded, local_url=local_url(loaded), versions=database.read(price_book.versions))
    except ConfigError as error:
        raise CliError(str(error)) from None
    return market.catalog, enabled


def _read(path: Path) -> File:
    with path.open("rb") as opened:
        return File(path.name, opened.read(FILE_BYTES_MAX + 1))


def _wanted(provider: str, options: dict[str, Any]) -> Wanted:
    first, last = options["since"], None
    if options["month"]:
        if options["since"] or options["until"]:
            raise CliError("--month names all days; leave --since and --until out")
        try:
            start_us, end_us = month_bounds(options["month"])
        except ValueError as error:
            raise CliError(f"--month: {error}") from None
        first, last = format_day(start_us), format_day(end_us - 1)
    elif options["until"]:
        last = (date.fromisoformat(read_day(options["until"], "--until")) - timedelta(days=1)).isoformat()
    if first is not None and read_day(first, "--since") > (last or first):
        raise CliError("--since is not before --until")
    step = None
    if options["rounding"] is not None:
        try:
            step = parse_unit_rate(options["rounding"])
        except MoneyError as error:
            raise CliError(f"--rounding: {error}") from None
    zone_of(options["zone"])
    return Wanted(provider=provider, zone=options["zone"], first_day=first, last_day=last, step_pico=step)


def _keys(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        theirs, equals, ours = one.partition("=")
        if not theirs or not equals:
            raise CliError(f"--key {one!r}: write THEIRS=OURS, such as key_abc=openai#1; `farebox providers` shows ours")
        found[theirs] = ours
    return found


def _certificates(loaded: Loaded, provider: str) -> Tls:
    """Who vouches for the provider, and what is shown to it, as for its calls. Files are relative to the configuration."""
    section = loaded.config.providers.get(provider)
    if section is None:
        return Tls()

    def beside(setting: str, name: str | None) -> str | None:
        if name is None:
            return None
        file = loaded.folder / name
        if not file.is_file():
            raise CliError(f"{loaded.path}: `providers.{provider}.{setting}`: there is no file {file}; put the PEM file there")
        return str(file)

    return Tls(
        ca_file=beside("ca_file", section.ca_file),
        client_cert_file=beside("client_cert_file", section.client_cert_file),
        client_key_file=beside("client_key_file", section.client_key_file),
    )


async def _fetch(
    loaded: Loaded, enabled: dict[str, Enabled], wanted: Wanted, clock: SystemClock
) -> tuple[Statement, list[File]]:
    api = APIS.get(wanted.provider)
    if api is None:
        raise CliError(f"only {', '.join(APIS)} have such an API; give `{wanted.provider}`'s statement as --file")
    key = loaded.environment.get(api.env)
    if not key:
        raise CliError(f"--api needs an administrator's key in {api.env}; {api.docs_url} says how to get one")
    if wanted.first_day is None:
        raise CliError("--api needs --since, or --month")
    last = wanted.last_day or (date.fromisoformat(format_day(clock.now_us())) - timedelta(days=1)).isoformat()
    wanted = Wanted(provider=wanted.provider, first_day=wanted.first_day, last_day=last, step_pico=wanted.step_pico)
    at = enabled.get(wanted.provider)
    section = loaded.config.providers.get(wanted.provider)
    base_url = at.base_url if at is not None else (section and section.base_url) or PROVIDERS[wanted.provider].base_url
    client = Client(proxies=ProxySettings.from_env(loaded.environment))
    try:
        fetcher = Fetcher(client, base_url, api, key, asyncio.sleep, _certificates(loaded, wanted.provider))
        return await fetcher.statement(wanted), fetcher.pages
    finally:
        await client.aclose()


@reconcile.command("list")
@click.option("--provider", help="Only this provider's.")
@config_option
@json_option
def list_runs(provider: str | None, config_path: Path, as_json: bool) -> None:
    """What was compared, the newest first."""
    with database_of(config_path) as (_, database):
        found = runs.runs(database, provider)
    if as_json:
        print_json({"runs": [_run_words(one) for one in found]})
        return
    print_table(
        ("run", "provider", "days", "statement USD", "open", "appr.", "rej."),
        [
            (
                one.id, one.provider, _days(one), _usd(one.statement_nano), str(one.open), str(one.approved), str(one.rejected),
            )
            for one in found
        ],
        right=(3, 4, 5, 6),
        empty="Nothing was compared yet; `farebox reconcile --provider NAME --file FILE` does.",
    )  # fmt: skip


@reconcile.command()
@click.argument("run_id", metavar="RUN")
@click.option("--all", "everything", is_flag=True, help="Every finding, however many there are.")
@config_option
@json_option
def show(run_id: str, everything: bool, config_path: Path, as_json: bool) -> None:
    """A run and its findings."""
    with database_of(config_path) as (_, database):
        made, found = _decided(lambda: (runs.run(database, run_id), runs.findings(database, run_id)))
    if as_json:
        print_json({"run": _run_words(made), **_words(found)})
        return
    _print(made, found, len(found) if everything else SHOWN_MAX)


@reconcile.command()
@click.argument("run_id", metavar="RUN")
@click.option("--finding", "numbers", type=int, multiple=True, help="Only this one; may be repeated.")
@click.option("--may-raise", is_flag=True, help="Estimates that were too low may raise a customer's charge, up to its hold.")
@config_option
@json_option
def approve(run_id: str, numbers: tuple[int, ...], may_raise: bool, config_path: Path, as_json: bool) -> None:
    """Post the differences of a run, each once: what we owe the provider, and estimates by their exact usage."""
    clock = SystemClock()
    fail_point = armed(os.environ)
    with database_of(config_path) as (_, database):
        done = _decided(
            lambda: runs.approve(
                database, TimeOrderedIds(clock), clock, run_id, numbers or None, may_raise=may_raise, fail_point=fail_point
            )
        )
        made = runs.run(database, run_id)
        unpriced = [] if numbers else [one for one in runs.findings(database, run_id) if one.state == "open"]
    total = sum(one.finding.difference_nano or 0 for one in done)
    if as_json:
        words = [_finding_words(one) for one in done]
        print_json({"run": _run_words(made), "difference": format_amount(total), "approved": words, "left": len(unpriced)})
        return
    click.echo(f"{len(done)} findings approved; what we owe {made.provider} changes by {format_amount(total)} USD.")
    if unpriced:
        click.echo(f"{len(unpriced)} have no amount and stay open; the statement of costs says more.")


@reconcile.command()
@click.argument("run_id", metavar="RUN")
@click.option("--finding", "numbers", type=int, multiple=True, help="Only this one; may be repeated.")
@config_option
@json_option
def reject(run_id: str, numbers: tuple[int, ...], config_path: Path, as_json: bool) -> None:
    """Leave the books as they are: the provider will correct its statement, or it is nothing."""
    clock = SystemClock()
    with database_of(config_path) as (_, database):
        done = _decided(lambda: runs.reject(database, clock, run_id, numbers or None))
        made = runs.run(database, run_id)
    if as_json:
        print_json({"run": _run_words(made), "rejected": done})
        return
    click.echo(f"{len(done)} findings rejected.")


def _decided(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except CommandRefused as error:
        raise CliError(f"{error}; `farebox reconcile list` and `farebox reconcile show RUN` show what there is") from None


def _usd(nano: int | None) -> str:
    return "" if nano is None else format_amount(nano)


def _days(one: Run) -> str:
    return one.first_day if one.first_day == one.last_day else f"{one.first_day} to {one.last_day}"


def _run_words(one: Run) -> dict[str, Any]:
    return {
        "id": one.id,
        "provider": one.provider,
        "source": one.source,
        "first_day": one.first_day,
        "last_day": one.last_day,
        "zone": one.zone,
        "lines": one.lines,
        "statement_cost": None if one.statement_nano is None else format_amount(one.statement_nano),
        "created_at": format_moment(one.taken_us),
        "open": one.open,
        "approved": one.approved,
        "rejected": one.rejected,
    }


def _words(found: Sequence[Stored]) -> dict[str, Any]:
    return {"kinds": dict(Counter(one.finding.kind for one in found)), "findings": [_finding_words(one) for one in found]}


def _finding_words(stored: Stored) -> dict[str, Any]:
    one = stored.finding
    amounts = {"ours": one.ours_nano, "theirs": one.theirs_nano, "difference": one.difference_nano}
    return {
        "number": stored.number,
        "kind": one.kind,
        "day": one.day,
        "model": one.model,
        "key": one.key or None,
        "request_id": one.request_id or None,
        "id": one.hold_id or None,
        "attempt": one.attempt or None,
        **{name: None if nano is None else format_amount(nano) for name, nano in amounts.items()},
        "ours_units": one.ours_units,
        "theirs_units": one.theirs_units,
        "ours_requests": one.ours_requests,
        "theirs_requests": one.theirs_requests,
        "place": one.place or None,
        "state": stored.state,
        "adjusted": format_amount(stored.adjusted_nano),
        "decided_at": None if stored.decided_us is None else format_moment(stored.decided_us),
    }


def _print(made: Run, found: Sequence[Stored], shown_max: int) -> None:
    stated = f", {format_amount(made.statement_nano)} USD" if made.statement_nano is not None else ""
    click.echo(f"{made.id}: {made.provider}, {_days(made)} ({made.zone}), {made.lines} lines{stated}.")
    if not found:
        click.echo("Everything agrees.")
        return
    kinds = Counter(one.finding.kind for one in found)
    print_table(
        ("finding", "count", "difference USD", "meaning"),
        [
            (
                kind, str(kinds[kind]),
                format_amount(sum(one.finding.difference_nano or 0 for one in found if one.finding.kind == kind)), KINDS[kind],
            )
            for kind in KINDS if kinds[kind]
        ],
        right=(1, 2),
    )  # fmt: skip
    print_table(
        ("no.", "day", "model, key, request", "finding", "ours USD", "theirs USD", "state"),
        [
            (
                str(one.number), one.finding.day,
                " ".join(part for part in (one.finding.model, one.finding.key, one.finding.request_id) if part),
                one.finding.kind, _usd(one.finding.ours_nano), _usd(one.finding.theirs_nano), one.state,
            )
            for one in found[:shown_max]
        ],
        right=(0, 4, 5),
    )  # fmt: skip
    if len(found) > shown_max:
        click.echo(f"{len(found) - shown_max} more: farebox reconcile show {made.id} --all")
    if any(one.state == "open" for one in found):
        click.echo(f"Next: farebox reconcile approve {made.id}, or reject; --finding N for one of them.")


COMMANDS = (reconcile,)
