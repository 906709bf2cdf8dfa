"""`receipt show`, `export`, `verify`, `keys`, `rotate`."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import click
from sqlalchemy import Connection

from farebox.billing.books.periods import parse_day
from farebox.billing.hedges import holds_of
from farebox.billing.sealing import receipt_keys, seals
from farebox.billing.sealing.receipt_audit import LINE_BYTES_MAX, Report, audit, documents
from farebox.billing.sealing.receipt_keys import KeyFileError, Keys
from farebox.billing.sealing.receipts import Content, canonical
from farebox.billing.sealing.seals import SealBroken
from farebox.billing.sealing.signatures import PublicKeys, read_key_set
from farebox.cli.arguments import find_account
from farebox.cli.export_commands import opened
from farebox.cli.output import CliError, config_option, database_of, json_option, load_config, print_json, print_table
from farebox.config import Loaded
from farebox.money import format_amount
from farebox.ports import SystemClock
from farebox.storage import queries
from farebox.storage.database import Database

T = TypeVar("T")
KEY_BYTES_MAX = 1024 * 1024
SHOWN_MAX = 20


@click.group("receipt")
def receipt_group() -> None:
    """Signed receipts of calls: show, export a day, verify, and the keys."""


def _keys(loaded: Loaded) -> Keys:
    try:
        return receipt_keys.read_or_make(loaded.receipt_keys_file, SystemClock().now_us())
    except KeyFileError as error:
        raise CliError(str(error)) from None


@receipt_group.command()
@click.argument("call")
@config_option
@json_option
def show(call: str, config_path: Path, as_json: bool) -> None:
    """The receipts of a call, by its generation id: one for each attempt and correction. --json has them signed."""
    with database_of(config_path) as (loaded, database):
        account_id = database.read(lambda connection: queries.account_of_call(connection, holds_of(call)))
        found = [] if account_id is None else _sealed(database, lambda c: seals.of_call(c, account_id, call))
        if not found:
            raise CliError(f"there is no receipt of `{call}`; `farebox usage` shows what was called, `farebox doctor` what waits")
        contents = [content for _, content in found]
        if as_json:
            signer = _keys(loaded).signer
            print_json({"receipts": [signer.signed("receipt", content) for content in contents]})
            return
    for content in contents:
        _print(content)


def _print(content: Content) -> None:
    chain: dict[str, Any] = content["chain"]
    markup: dict[str, str] = content["markup"] or {}
    units: dict[str, int] = content["units"] or {}
    rates: dict[str, str] = content["rates_usd"] or {}
    lines = [("receipt", f"{chain['number']} of {chain['day']}, account {content['account']}")]
    which = f"attempt {content['attempt']}" + (f", correction {content['revision']}" if content["revision"] else "")
    lines.append(("call", f"{content['call']}, {which}: {content['outcome'] or content['state']}"))
    lines.append(("model", f"{content['model']} at {content['provider']}" if content["provider"] else content["model"]))
    for name, count in units.items():
        lines.append((name, f"{count} × {rates.get(name, '0')} USD"))
    if rates.get("request"):
        lines.append(("request", f"{rates['request']} USD"))
    lines.append(("price", content["price_version"]))
    lines.append(("markup", " ".join(f"{name}={value}" for name, value in sorted(markup.items()) if value)))
    lines.append(("amount", f"{content['amount_usd']} USD"))
    if content["uncharged_usd"] != "0.00":
        lines.append(("not charged", f"{content['uncharged_usd']} USD"))
    print_table(("", ""), lines)


def _sealed(database: Database, work: Callable[[Connection], T]) -> T:
    try:
        return database.read(work)
    except SealBroken as error:
        raise CliError(f"{error}; `farebox ledger check` looks for what else does not fit") from None


@receipt_group.command()
@click.option("--account", "account_name", required=True, help="Whose, by name or id.")
@click.option("--day", "day_text", required=True, help="The UTC day on which they were sealed, such as 2026-11-23.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A file; unset: standard output.")
@config_option
@json_option
def export(account_name: str, day_text: str, output: Path | None, config_path: Path, as_json: bool) -> None:
    """An account's day as JSON lines: its signed receipts, then its signed head."""
    if as_json and output is None:
        raise CliError("--json tells about a file; give one with --output")
    try:
        day = parse_day(day_text)
    except ValueError as error:
        raise CliError(f"--day: {error}") from None
    with database_of(config_path) as (loaded, database):
        account_id = find_account(database, account_name).id
        signer = _keys(loaded).signer
        # The head first: what is sealed meanwhile is not in it, nor in the file.
        head = _sealed(database, lambda c: seals.head(c, account_id, day))
        with opened(output, "jsonl") as file:
            for content in _day(database, account_id, day, head["receipts"]):
                file.write(canonical(signer.signed("receipt", content)) + b"\n")
            file.write(canonical(signer.signed("head", head)) + b"\n")
    if as_json:
        print_json({"file": str(output), "account": account_id, **{name: head[name] for name in ("day", "receipts", "final")}})


def _day(database: Database, account_id: str, day: str, count: int) -> Iterator[Content]:
    """A page at a time: rows and seals never change, so pages fit together without one snapshot."""
    after = 0
    while after < count:
        limit = min(seals.PAGE_MAX, count - after)

        def work(connection: Connection, after: int = after, limit: int = limit) -> list[Content]:
            return seals.of_day(connection, account_id, day, after=after, limit=limit)

        page = _sealed(database, work)
        assert page, "the head has counted them"
        after = page[-1]["chain"]["number"]
        yield from page


@receipt_group.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--key", "key_path", type=click.Path(path_type=Path, dir_okay=False),
    help="The operator's public keys, from /.well-known/farebox-keys.json; unset: those beside the configuration.",
)  # fmt: skip
@config_option
@json_option
def verify(file: Path, key_path: Path | None, config_path: Path, as_json: bool) -> None:
    """Check receipts with the public keys alone: signatures, amounts, order, and that none is missing. No database, no network.

    FILE is one receipt, an answer of the API, or an exported day; - is standard input. Exit status 0 when all is well, else 1.
    """
    keys = _public(key_path, config_path)
    if str(file) == "-":
        report = audit(documents(_lines(sys.stdin.buffer)), keys)
    else:
        if not file.exists():
            raise CliError(f"there is no file {file}; `farebox receipt export` makes one")
        with file.open("rb") as opened_file:
            report = audit(documents(_lines(opened_file)), keys)
    if as_json:
        print_json({
            "ok": report.ok, "receipts": report.receipts, "whole": report.whole, "accounts": report.accounts, "days": report.days,
            "amount": format_amount(report.amount_nano), "findings": report.findings,
        })  # fmt: skip
    else:
        _tell(report)
    if not report.ok:
        sys.exit(1)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines, none of them read further than it may be long."""
    while line := file.readline(LINE_BYTES_MAX + 2):
        yield line


def _public(key_path: Path | None, config_path: Path) -> PublicKeys:
    if key_path is None:
        if not config_path.exists():
            raise CliError("whose receipts? give the operator's public keys with --key FILE (/.well-known/farebox-keys.json)")
        try:
            found = receipt_keys.read(load_config(config_path).receipt_keys_file)
        except KeyFileError as error:
            raise CliError(str(error)) from None
        if found is None:
            raise CliError("nothing was signed here yet; give the operator's public keys with --key FILE")
        return read_key_set(found.document)
    if not key_path.exists():
        raise CliError(f"there is no file {key_path}; the operator's server has it at /.well-known/farebox-keys.json")
    with key_path.open("rb") as file:
        try:
            return read_key_set(file.read(KEY_BYTES_MAX))
        except ValueError as error:
            raise CliError(f"{key_path}: {error}; take it from /.well-known/farebox-keys.json") from None


def _tell(report: Report) -> None:
    if not report.receipts and not report.findings:
        click.echo("There is no receipt in it.")
        return
    for one in report.findings[:SHOWN_MAX]:
        where = f"line {one.line}: " if one.line else ""
        which = "" if one.number is None or not one.line else f"receipt {one.number} ({one.call}): "
        click.echo(f"{where}{which}{one.problem}")
    if len(report.findings) > SHOWN_MAX:
        click.echo(f"… and {len(report.findings) - SHOWN_MAX} more; --json has them")
    if report.findings:
        return
    many = "1 receipt" if report.receipts == 1 else f"{report.receipts} receipts"
    end = "none is missing" if report.whole else "whether later ones are missing, only the final head of their day can say"
    click.echo(f"{many}, {format_amount(report.amount_nano)} USD: signed, rightly reckoned, in their order; {end}.")


@receipt_group.command("keys")
@config_option
@json_option
def show_keys(config_path: Path, as_json: bool) -> None:
    """The public keys that receipts are checked with, as customers get them; the first one signs."""
    import msgspec

    found = msgspec.json.decode(_keys(load_config(config_path)).document)
    if as_json:
        print_json(found)
        return
    print_table(("id", "key"), [(one["kid"], one["x"]) for one in found["keys"]])


@receipt_group.command()
@config_option
@json_option
def rotate(config_path: Path, as_json: bool) -> None:
    """Sign with a new key from now on. Old receipts stay good: the old public key stays in the list."""
    loaded = load_config(config_path)
    try:
        made = receipt_keys.rotate(loaded.receipt_keys_file, SystemClock().now_us())
    except KeyFileError as error:
        raise CliError(str(error)) from None
    if as_json:
        print_json({"kid": made.signer.kid, "keys": len(made.public)})
        return
    click.echo(f"Receipts are signed with {made.signer.kid} now; {len(made.public) - 1} earlier keys stay public.")


COMMANDS = (receipt_group,)
