"""`invoices list|show|close|credit-note|pay`, `payments list|book`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection, select

from farebox.billing.books import ledger
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.periods import format_day, format_moment
from farebox.billing.invoicing import credit_notes, dunning, invoice_pages, invoices, months
from farebox.billing.invoicing.dunning import Standing
from farebox.billing.invoicing.invoice_pages import unit_name
from farebox.billing.invoicing.invoices import Document
from farebox.billing.payments import bill_payments
from farebox.cli.arguments import amount, find_account
from farebox.cli.output import CliError, config_option, database_of, json_option, print_json, print_table
from farebox.failpoints import armed
from farebox.money import format_amount
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.processes.till import make_till
from farebox.storage import queries
from farebox.storage.tables import invoices as documents
from farebox.storage.tables import transfers
from farebox.terms import card_terms, invoice_terms


@click.group("invoices")
def invoices_group() -> None:
    """Invoices and credit notes: list, show, close, credit-note, pay. Months close by themselves."""


@invoices_group.command("list")
@click.option("--account", "account_name", help="Only this account's.")
@config_option
@json_option
def list_invoices(account_name: str | None, config_path: Path, as_json: bool) -> None:
    """What was invoiced, and what is still open."""
    now_us = SystemClock().now_us()
    with database_of(config_path) as (loaded, database):
        terms = invoice_terms(loaded)
        wanted = None if account_name is None else find_account(database, account_name).id

        def ask(connection: Connection) -> tuple[list[Standing], dict[str, str]]:
            owners = queries.list_accounts(connection)
            found: list[Standing] = []
            for one in owners:
                if wanted in (None, one.id):
                    found += dunning.standings(connection, one.id, terms, now_us)
            return found, {one.id: one.name for one in owners}

        rows, names = database.read(ask)
    if as_json:
        print_json({"invoices": [{**standing(row), "account_name": names[row.account_id]} for row in rows]})
        return
    print_table(
        ("number", "account", "month", "issued", "due", "total USD", "open USD", "state"),
        [
            (
                row.number,
                names[row.account_id],
                row.month,
                format_day(row.issued_us),
                "" if row.due_us is None else format_day(row.due_us),
                format_amount(row.total_nano),
                format_amount(row.open_nano),
                row.state,
            )
            for row in rows
        ],
        right=(5, 6),
        empty="No invoices yet; a month is closed when it and its grace are over.",
    )


def standing(row: Standing) -> dict[str, Any]:
    """A document and how it stands, with stable names."""
    return {
        "number": row.number,
        "kind": row.kind,
        "account": row.account_id,
        "month": row.month,
        "corrects": row.corrects,
        "issued": format_day(row.issued_us),
        "due_day": None if row.due_us is None else format_day(row.due_us),
        "usage": format_amount(row.usage_nano),
        "net": format_amount(row.net_nano),
        "tax": format_amount(row.tax_nano),
        "total": format_amount(row.total_nano),
        "credit": format_amount(row.credit_nano),
        "due": format_amount(row.due_nano),
        "open": format_amount(row.open_nano),
        "state": row.state,
    }


@invoices_group.command("show")
@click.argument("number")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "html", "pdf"]), default="text", show_default=True, help="Form."
)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A file; unset: standard output.")
@config_option
@json_option
def show(number: str, form: str, output: Path | None, config_path: Path, as_json: bool) -> None:
    """An invoice or credit note, as it was issued."""
    with database_of(config_path) as (_, database):
        found = database.read(lambda connection: months.stored(connection, number=number))
    if not found:
        raise CliError(f"there is no document `{number}`; `farebox invoices list` shows them")
    if as_json:
        form = "json"
    if form == "text" and output is None:
        _print(found[0])
        return
    try:
        data = _written(found[0], form)
    except invoice_pages.PdfMissing as error:
        raise CliError(str(error)) from None
    if output is not None:
        output.write_bytes(data)
        click.echo(f"Wrote {output}.", err=True)
    else:
        sys.stdout.buffer.write(data)


def _written(made: Document, form: str) -> bytes:
    if form == "pdf":
        return invoice_pages.pdf(made)
    if form == "html":
        return invoice_pages.html(made).encode()
    if form == "json":
        return invoices.encode(made).encode() + b"\n"
    raise CliError("--output needs a --format: json, html or pdf")


def _print(made: Document) -> None:
    click.echo(f"{made.number}  {made.kind.replace('_', ' ')} for {made.month} (UTC), issued {made.issued}")
    click.echo(f"{made.customer.name} ({made.customer.id})" + (f", due {made.due_day}" if made.due_day else ""))
    if made.corrects:
        click.echo(f"corrects {made.corrects}: {made.reason}")
    print_table(
        ("month", "project", "model", "unit", "quantity", "USD", "exact"),
        [
            (line.month, line.project, line.model, unit_name(line.unit), str(line.quantity), line.amount, line.exact)
            for line in made.lines
        ],
        right=(4, 5, 6),
    )
    click.echo(f"net {made.net}, {made.tax.label} {made.tax.percent} % {made.tax.amount}, total {made.total} USD")
    click.echo(f"paid from credit {made.credit}, due {made.due}; exact usage {made.usage}, rounding {made.rounding}")


@invoices_group.command("close")
@click.option("--month", required=True, help="A UTC month such as 2026-11; earlier ones are closed first.")
@click.option("--account", "account_name", help="Only this account's.")
@click.option("--early", is_flag=True, help="Do not wait for the grace after the month's end.")
@config_option
@json_option
def close(month: str, account_name: str | None, early: bool, config_path: Path, as_json: bool) -> None:
    """Close a month now. Again, it changes nothing and shows the same."""
    clock = SystemClock()
    made: list[Document] = []
    with database_of(config_path) as (loaded, database):
        terms, ids = invoice_terms(loaded), TimeOrderedIds(clock)
        if account_name is not None:
            owners: Sequence[queries.Account] = [find_account(database, account_name)]
        else:
            owners = database.read(queries.list_accounts)
        for owner in owners:
            try:
                made += months.close(
                    database, ids, account_id=owner.id, month=month, terms=terms, now_us=clock.now_us(), early=early
                )
            except (CommandRefused, ValueError) as error:
                raise CliError(str(error)) from None
    if as_json:
        print_json({"documents": made})
        return
    for one in made:
        click.echo(f"{one.number}  {one.customer.name}  {one.month}  total {one.total} USD, due {one.due} USD")
    if not made:
        click.echo("Nothing was used that is not on an invoice.")


@invoices_group.command("credit-note")
@click.argument("number")
@click.option("--call", "calls", multiple=True, required=True, help="A call (gen-…) to take back; may be given several times.")
@click.option("--reason", required=True, help="Why; stands on the credit note.")
@config_option
@json_option
def make_credit_note(number: str, calls: tuple[str, ...], reason: str, config_path: Path, as_json: bool) -> None:
    """Take calls of an invoice back: refunds them, and issues the credit note."""
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        try:
            made = credit_notes.credit_note(
                database,
                TimeOrderedIds(clock),
                number=number,
                calls=calls,
                reason=reason,
                terms=invoice_terms(loaded),
                now_us=clock.now_us(),
            )
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json(made)
        return
    click.echo(f"Issued {made.number} over {made.total} USD.")


@invoices_group.command("pay")
@click.argument("number")
@click.option("--command-id", help="Makes a repeat give the same page.")
@config_option
@json_option
def pay_by_card(number: str, command_id: str | None, config_path: Path, as_json: bool) -> None:
    """The address of Stripe's page where what is open of an invoice can be paid by card ([stripe] in the configuration)."""
    clock = SystemClock()
    ids = TimeOrderedIds(clock)
    with database_of(config_path) as (loaded, database):
        cards, section, terms = card_terms(loaded), loaded.config.stripe, invoice_terms(loaded)
        if cards is None or section is None:
            raise CliError("the configuration has no `[stripe]` section; docs/money.md shows one")
        whose = select(documents.c.account_id).where(documents.c.number == number)
        account_id = database.read(lambda connection: connection.execute(whose).scalar_one_or_none())
        if account_id is None:
            raise CliError(f"there is no invoice `{number}`; `farebox invoices list` shows them")
        try:
            payment = bill_payments.order(
                database,
                cards,
                terms,
                id=ids.new(bill_payments.MARK),
                account_id=account_id,
                number=number,
                command_id=command_id or ids.new("cmd"),
                now_us=clock.now_us(),
            )
        except CommandRefused as error:
            raise CliError(str(error)) from None
        if payment.state == "wanted":
            payment = make_till(section, terms, database, clock, armed(loaded.environment)).advance_bill(payment)
        if payment.state in ("wanted", "failed"):
            raise CliError(f"{payment.id} has no page yet: {payment.problem}; the same command with --command-id tries again")
    if as_json:
        amount_usd = format_amount(payment.amount_nano)
        print_json({
            "id": payment.id, "account": payment.account_id, "invoice": number, "amount": amount_usd, "state": payment.state,
            "url": payment.url or None, "session": payment.session_id, "problem": payment.problem or None,
        })  # fmt: skip
        return
    click.echo(payment.url if payment.state == "open" else f"{payment.id} is {payment.state}.")


@click.group()
def payments() -> None:
    """Payments of postpaid accounts: list, book."""


@payments.command("book")
@click.argument("account")
@click.argument("usd")
@click.option("--command-id", help="The payment's own id: booking it again does nothing.")
@config_option
@json_option
def book(account: str, usd: str, command_id: str | None, config_path: Path, as_json: bool) -> None:
    """Book a payment; it pays the oldest invoice first, and lets a paused account work again."""
    nano = amount(usd, "the amount")
    clock = SystemClock()
    ids = TimeOrderedIds(clock)
    command = command_id or ids.new("cmd")
    with database_of(config_path) as (loaded, database):
        found, terms = find_account(database, account), invoice_terms(loaded)
        try:
            ledger.pay(database, ids, command_id=command, account_id=found.id, amount_nano=nano, now_us=clock.now_us())
        except CommandRefused as error:
            raise CliError(str(error)) from None
        dunning.paid_again(database, ids, found.id, terms, clock.now_us())
        left = database.read(lambda connection: dunning.standings(connection, found.id, terms, clock.now_us()))
    still_open = format_amount(sum(one.open_nano for one in left))
    if as_json:
        print_json({"account": found.id, "amount": format_amount(nano), "command_id": command, "open": still_open})
        return
    click.echo(f"`{found.name}` paid ${format_amount(nano)}; ${still_open} of its invoices is open.")


@payments.command("list")
@click.option("--account", "account_name", help="Only this account's.")
@config_option
@json_option
def list_payments(account_name: str | None, config_path: Path, as_json: bool) -> None:
    """Payments, the oldest first."""
    with database_of(config_path) as (_, database):
        query = select(transfers).where(transfers.c.cause_kind == "payment").order_by(transfers.c.at_us, transfers.c.id)
        if account_name is not None:
            query = query.where(transfers.c.account_id == find_account(database, account_name).id)

        def ask(connection: Connection) -> tuple[list[Any], dict[str, str]]:
            names = {one.id: one.name for one in queries.list_accounts(connection)}
            return list(connection.execute(query.limit(queries.ROWS_MAX))), names

        rows, names = database.read(ask)
    if as_json:
        print_json(
            {
                "payments": [
                    {
                        "at": format_moment(row.at_us),
                        "account": row.account_id,
                        "account_name": names.get(row.account_id, ""),
                        "amount": format_amount(row.amount_nano),
                        "command_id": row.cause_id,
                    }
                    for row in rows
                ]
            }
        )
        return
    print_table(
        ("day", "account", "USD", "id"),
        [(format_day(row.at_us), names.get(row.account_id, ""), format_amount(row.amount_nano), row.cause_id) for row in rows],
        right=(2,),
        empty="No payments yet; `farebox payments book ACCOUNT 25.00` books one.",
    )


COMMANDS = (invoices_group, payments)
