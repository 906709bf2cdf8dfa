"""`topup --stripe`, and `cards list|refund|reversals|auto|retry`: payments by card."""

from pathlib import Path
from typing import Any

import click

from farebox.billing.books.customers import CommandRefused, NotFound
from farebox.billing.payments import auto_topups, bill_payments, card_payments, reversals
from farebox.billing.payments.bill_payments import BillPayment
from farebox.billing.payments.card_payments import Payment
from farebox.billing.payments.reversals import Reversal
from farebox.cli.arguments import amount, find_account
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table
from farebox.config import Loaded
from farebox.failpoints import armed
from farebox.money import format_amount
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.processes.till import make_till
from farebox.storage import queries
from farebox.storage.database import Database
from farebox.terms import card_terms, invoice_terms


def words(payment: Payment) -> dict[str, Any]:
    """A payment in JSON."""
    return {
        "id": payment.id,
        "account": payment.account_id,
        "kind": payment.kind,
        "amount": format_amount(payment.amount_nano),
        "state": payment.state,
        "url": payment.url or None,
        "session": payment.session_id,
        "intent": payment.intent_id,
        "grant": payment.grant_id,
        "problem": payment.problem or None,
        "created_at": day(payment.created_us),
    }


def bill_words(payment: BillPayment) -> dict[str, Any]:
    """The payment of an invoice in JSON, with the same names."""
    return {
        "id": payment.id,
        "account": payment.account_id,
        "kind": "invoice",
        "amount": format_amount(payment.amount_nano),
        "state": payment.state,
        "url": payment.url or None,
        "session": payment.session_id,
        "intent": payment.intent_id,
        "grant": None,
        "problem": payment.problem or None,
        "created_at": day(payment.created_us),
    }


def ask_for_page(
    loaded: Loaded, database: Database, account: queries.Account, nano: int, command_id: str, as_json: bool
) -> None:
    """`farebox topup ACCOUNT 25 --stripe`: the address of a page to pay on."""
    terms, section = card_terms(loaded), loaded.config.stripe
    if terms is None or section is None:
        raise CliError("the configuration has no `[stripe]` section; docs/money.md shows one")
    clock = SystemClock()
    try:
        payment = card_payments.order(
            database,
            terms,
            id=TimeOrderedIds(clock).new("pay"),
            account_id=account.id,
            amount_nano=nano,
            command_id=command_id,
            now_us=clock.now_us(),
        )
    except CommandRefused as error:
        raise CliError(str(error)) from None
    if payment.state == "wanted":
        payment = make_till(section, invoice_terms(loaded), database, clock, armed(loaded.environment)).advance(payment)
    if payment.state in ("wanted", "failed"):
        raise CliError(f"{payment.id} has no page yet: {payment.problem}; the same command with --command-id tries again")
    if as_json:
        print_json(words(payment))
        return
    click.echo(payment.url if payment.state == "open" else f"{payment.id} is {payment.state}.")


@click.group()
def cards() -> None:
    """Payments by card through Stripe: list, refund, reversals, auto, retry."""


@cards.command("list")
@click.option("--account", "account_name", help="Only this account's.")
@click.option(
    "--state", type=click.Choice(["wanted", "open", "paid", *card_payments.CLOSING]), help="Only those in a state."
)
@config_option
@json_option
def list_cards(account_name: str | None, state: str | None, config_path: Path, as_json: bool) -> None:
    """Payments, of top-ups and of invoices, the newest first."""

    with database_of(config_path) as (_, database):
        account_id = None if account_name is None else find_account(database, account_name).id
        topups = database.read(lambda connection: card_payments.listed(connection, account_id=account_id, state=state))
        bills = database.read(lambda connection: bill_payments.listed(connection, account_id=account_id, state=state))
        names = {one.id: one.name for one in database.read(queries.list_accounts)}
    found = [(one.created_us, words(one)) for one in topups] + [(one.created_us, bill_words(one)) for one in bills]
    told = [
        {**one, "account_name": names.get(one["account"], "")}
        for _, one in sorted(found, key=lambda pair: (pair[0], pair[1]["id"]), reverse=True)
    ]
    if as_json:
        print_json({"payments": told})
        return
    columns = ("created_at", "account_name", "amount", "state", "id", "problem")
    print_table(
        ("day", "account", "USD", "state", "id", "problem"),
        [tuple(one[name] or "" for name in columns) for one in told],
        right=(2,),
        empty="No payments by card yet; `farebox topup ACCOUNT 25 --stripe` makes a page to pay on.",
    )


def reversal_words(found: Reversal) -> dict[str, Any]:
    """A refund or a dispute in JSON."""
    return {
        "id": found.id,
        "kind": found.kind,
        "payment": found.payment_id,
        "account": found.account_id,
        "amount": format_amount(found.amount_nano),
        "state": found.state,
        "stripe": found.stripe_id,
        "problem": found.problem or None,
    }


@cards.command("refund")
@click.argument("payment")
@click.argument("usd", required=False)
@click.option("--below-zero", is_flag=True, help="Also what is spent already: the account owes it, and its calls are refused.")
@click.option("--command-id", help="Makes a repeat of this very refund do nothing.")
@config_option
@json_option
def refund(
    payment: str, usd: str | None, below_zero: bool, command_id: str | None, config_path: Path, as_json: bool
) -> None:
    """Give a payment back to its card, whole or in part: farebox cards refund pay-… 10.00"""

    nano = None if usd is None else amount(usd, "the amount")
    clock = SystemClock()
    ids = TimeOrderedIds(clock)
    with database_of(config_path) as (loaded, database):
        section = loaded.config.stripe
        if section is None:
            raise CliError("the configuration has no `[stripe]` section; docs/money.md shows one")
        try:
            found = reversals.order_refund(
                database,
                ids,
                id=ids.new("rev"),
                payment_id=payment,
                amount_nano=nano,
                command_id=command_id or ids.new("cmd"),
                below_zero=below_zero,
                now_us=clock.now_us(),
            )
        except CommandRefused as error:
            hint = "; --below-zero does it all the same" if "below zero" in str(error) else ""
            raise CliError(f"{error}{hint}") from None
        if found.state == "wanted":
            found = make_till(section, invoice_terms(loaded), database, clock, armed(loaded.environment)).advance_reversal(found)
    if found.state == "returned":
        raise CliError(f"Stripe did not refund it, the credit is back: {found.problem}; `farebox cards list` shows payments")
    if as_json:
        print_json(reversal_words(found))
        return
    said = {"wanted": "asked for again, Stripe did not answer", "open": "on its way", "done": "done"}[found.state]
    click.echo(f"The refund of ${format_amount(found.amount_nano)} ({found.id}) is {said}.")


@cards.command("reversals")
@click.argument("payment")
@config_option
@json_option
def list_reversals(payment: str, config_path: Path, as_json: bool) -> None:
    """Refunds and disputes of a payment."""
    with database_of(config_path) as (_, database):
        found = database.read(lambda connection: reversals.of_payment(connection, payment))
    if as_json:
        print_json({"reversals": [reversal_words(one) for one in found]})
        return
    print_table(
        ("kind", "USD", "state", "id", "at Stripe", "problem"),
        [(one.kind, format_amount(one.amount_nano), one.state, one.id, one.stripe_id or "", one.problem) for one in found],
        right=(1,),
        empty="Nothing of it went back; `farebox cards refund PAYMENT` gives it back.",
    )


@cards.command("auto")
@click.argument("account")
@click.option("--below", help="USD: top up when less is left.")
@click.option("--amount", "usd", help="USD: by so much.")
@click.option("--month-cap", help="USD: at most so much in a UTC month.")
@click.option("--off", is_flag=True, help="Charge the card no more.")
@click.option("--new-card", is_flag=True, help="Make a page to save another card on.")
@config_option
@json_option
def auto(
    account: str,
    below: str | None,
    usd: str | None,
    month_cap: str | None,
    off: bool,
    new_card: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Top an account up by a saved card: farebox cards auto ACCOUNT --below 5 --amount 25 --month-cap 200

    Without options: how it stands."""

    wishes = {"--below": below, "--amount": usd, "--month-cap": month_cap}
    given = [name for name, text in wishes.items() if text is not None]
    if given and (off or len(given) < len(wishes)):
        raise CliError(f"write {', '.join(wishes)} together, or --off alone; `farebox cards auto --help` explains them")
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        terms, section = card_terms(loaded), loaded.config.stripe
        if terms is None or section is None:
            raise CliError("the configuration has no `[stripe]` section; docs/money.md shows one")
        found = find_account(database, account)
        page: Payment | None = None
        try:
            if off:
                auto_topups.switch_off(database, found.id)
            elif below is not None and usd is not None and month_cap is not None:
                auto_topups.set_up(
                    database,
                    terms,
                    account_id=found.id,
                    below_nano=amount(below, "--below"),
                    amount_nano=amount(usd, "--amount"),
                    month_cap_nano=amount(month_cap, "--month-cap"),
                    now_us=clock.now_us(),
                )
            wish = database.read(lambda connection: auto_topups.auto_topup(connection, found.id))
            if new_card or (given and wish is not None and not wish.payment_method):
                ordered = TimeOrderedIds(clock).new("pay")
                page = auto_topups.order_setup(database, terms, id=ordered, account_id=found.id, now_us=clock.now_us())
                page = make_till(section, invoice_terms(loaded), database, clock, armed(loaded.environment)).advance(page)
        except CommandRefused as error:
            raise CliError(str(error)) from None
    url = page.url or None if page is not None else None
    if wish is None:
        raise CliError(f"`{account}` has no automatic top-up; --below 5 --amount 25 --month-cap 200 switches one on")
    if as_json:
        print_json(
            {
                "account": found.id,
                "enabled": wish.enabled,
                "below": format_amount(wish.below_nano),
                "amount": format_amount(wish.amount_nano),
                "month_cap": format_amount(wish.month_cap_nano),
                "card_saved": bool(wish.payment_method),
                "declines": wish.declines,
                "problem": wish.problem or None,
                "url": url,
            }
        )
        return
    says = f"by ${format_amount(wish.amount_nano)} below ${format_amount(wish.below_nano)}, at most "
    says += f"${format_amount(wish.month_cap_nano)} a month"
    click.echo(f"`{found.name}`: {'on' if wish.enabled else 'off'}, {says}. {wish.problem}".rstrip())
    if url is not None:
        click.echo(f"A card can be saved here: {url}")
    elif not wish.payment_method:
        click.echo("No card is saved yet; --new-card makes a page for that.")


@cards.command("retry")
@click.argument("event")
@config_option
@json_option
def retry(event: str, config_path: Path, as_json: bool) -> None:
    """Look into a quarantined webhook (evt_…) again."""
    with database_of(config_path) as (_, database):
        try:
            card_payments.retry_event(database, event, now_us=SystemClock().now_us())
        except NotFound as error:
            raise CliError(f"{error}; the alert that told of it names it") from None
    if as_json:
        print_json({"event": event})
        return
    click.echo(f"`{event}` is looked into again within a second, where `farebox serve` runs.")


COMMANDS = (cards,)
