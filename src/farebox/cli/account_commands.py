"""`accounts`, `topup`."""

import datetime as dt
from pathlib import Path
from typing import Any

import click

from farebox.billing.accounts import signups
from farebox.billing.books import customers, ledger
from farebox.billing.books.customers import CommandRefused
from farebox.billing.invoicing import dunning
from farebox.cli.arguments import amount, check_policy, find_account
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table
from farebox.money import format_amount
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage import queries
from farebox.terms import invoice_terms, signup_rules


@click.group()
def accounts() -> None:
    """Customers: create, list."""


@accounts.command("create")
@click.argument("name")
@click.option("--prepaid", "kind", flag_value="prepaid", default="prepaid", help="Draws on credit bought before (default).")
@click.option("--postpaid", "kind", flag_value="postpaid", help="Pays afterwards, up to a credit line.")
@click.option("--credit-limit", help="The postpaid credit line in USD, e.g. 100.")
@config_option
@json_option
def create_account(name: str, kind: str, credit_limit: str | None, config_path: Path, as_json: bool) -> None:
    """Create an account."""
    if kind == "postpaid" and credit_limit is None:
        raise CliError("a postpaid account needs its credit line: --credit-limit 100")
    if kind == "prepaid" and credit_limit is not None:
        raise CliError("only a postpaid account has a credit line; add --postpaid or leave --credit-limit out")
    limit = 0 if credit_limit is None else amount(credit_limit, "--credit-limit")
    clock = SystemClock()
    with database_of(config_path) as (_, database):
        account_id = TimeOrderedIds(clock).new("acc")
        try:
            customers.create_account(
                database,
                id=account_id,
                name=name,
                kind="postpaid" if kind == "postpaid" else "prepaid",
                credit_limit_nano=limit,
                now_us=clock.now_us(),
            )
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json({"id": account_id, "name": name, "kind": kind, "credit_limit": format_amount(limit)})
        return
    click.echo(f"Made the {kind} account `{name}` ({account_id}).")
    click.echo(f"Next: farebox topup {name} 25.00" if kind == "prepaid" else f"Next: farebox keys create --account {name}")


@accounts.command("list")
@config_option
@json_option
def list_accounts(config_path: Path, as_json: bool) -> None:
    """List accounts with what they have left, also in the currency of [display] in the configuration."""
    with database_of(config_path) as (loaded, database):
        shown = loaded.config.display.shown

        def ask(connection: Any) -> list[tuple[queries.Account, queries.Balance | None]]:
            return [(account, queries.balance(connection, account.id)) for account in queries.list_accounts(connection)]

        rows = database.read(ask)
    today = dt.datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, dt.UTC).date()
    rate = shown.rate_on(today) if shown else None
    if as_json:
        print_json(
            {
                "accounts": [
                    {
                        "id": account.id,
                        "name": account.name,
                        "kind": account.kind,
                        "status": account.status,
                        "credit_limit": format_amount(account.credit_limit_nano),
                        "markup": account.markup or None,
                        "policy": account.policy or None,
                        "tier": account.tier or None,
                        "remaining": format_amount(balance.remaining_nano if balance else 0),
                        "charged": format_amount(balance.posted_nano if balance else 0),
                        "allotted": format_amount(balance.allotted_nano if balance else 0),
                        "display": {
                            "currency": shown.currency,
                            "rate": rate.text,
                            "since": str(rate.day),
                            "remaining": shown.convert(balance.remaining_nano if balance else 0, rate),
                            "charged": shown.convert(balance.posted_nano if balance else 0, rate),
                        }
                        if shown and rate
                        else None,
                    }
                    for account, balance in rows
                ]
            }
        )
        return
    extra = (f"remaining {shown.currency}",) if shown and rate else ()
    print_table(
        ("name", "kind", "status", "remaining USD", *extra, "charged USD", "id"),
        [
            (
                account.name,
                account.kind,
                account.status,
                format_amount(balance.remaining_nano if balance else 0),
                *((shown.convert(balance.remaining_nano if balance else 0, rate),) if shown and rate else ()),
                format_amount(balance.posted_nano if balance else 0),
                account.id,
            )
            for account, balance in rows
        ],
        right=(3, 4, 5) if extra else (3, 4),
        empty="No accounts yet; `farebox accounts create NAME` makes one.",
    )


@accounts.command("markup")
@click.argument("account")
@click.argument("plan", required=False)
@click.option("--usual", is_flag=True, help="Back to the plan of accounts that have none of their own.")
@config_option
@json_option
def set_markup(account: str, plan: str | None, usual: bool, config_path: Path, as_json: bool) -> None:
    """Give an account a markup plan ([markup.PLAN] in the configuration)."""
    if usual == (plan is not None):
        raise CliError("write the plan's name or --usual, one of them")
    with database_of(config_path) as (loaded, database):
        if plan is not None and plan not in loaded.config.markup:
            known = ", ".join(sorted(loaded.config.markup)) or "none yet"
            raise CliError(f"the configuration has no `[markup.{plan}]`; plans: {known}")
        found = find_account(database, account)
        customers.set_markup(database, found.id, plan or "", now_us=SystemClock().now_us())
    if as_json:
        print_json({"id": found.id, "name": found.name, "markup": plan})
        return
    click.echo(f"`{found.name}` now pays by {'the usual markup' if plan is None else f'the plan `{plan}`'}.")


@click.command()
@click.argument("mail")
@click.option("--ip", "address", default="", help="Where the request for it came from; one network gets so many a day.")
@config_option
@json_option
def signup(mail: str, address: str, config_path: Path, as_json: bool) -> None:
    """Make an account named by a mail address, with credit to try the gateway ([signup] in the configuration)."""
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        try:
            network = signups.network_of(address)
            made = signups.sign_up(
                database, TimeOrderedIds(clock), signup_rules(loaded), mail=mail, network=network, now_us=clock.now_us()
            )
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        credit, expires = format_amount(made.amount_nano), day(made.expires_us) or None
        print_json({"account": made.account_id, "grant": made.grant_id, "credit": credit, "expires_at": expires})
        return
    until = f" until {day(made.expires_us)}" if made.expires_us else ""
    click.echo(f"Made {made.account_id} with ${format_amount(made.amount_nano)}{until}; `farebox keys create` makes its key.")


@accounts.command("policy")
@click.argument("account")
@click.argument("policy", required=False)
@click.option("--none", "unset", is_flag=True, help="Back to the gateway's default.")
@config_option
@json_option
def set_policy(account: str, policy: str | None, unset: bool, config_path: Path, as_json: bool) -> None:
    """Give an account a routing policy ([policies.POLICY] in the configuration)."""
    if unset == (policy is not None):
        raise CliError("write the policy's name or --none, one of them")
    with database_of(config_path) as (loaded, database):
        check_policy(loaded, policy or "")
        found = find_account(database, account)
        customers.set_policy(database, found.id, policy or "", now_us=SystemClock().now_us())
    if as_json:
        print_json({"id": found.id, "name": found.name, "policy": policy})
        return
    click.echo(f"Calls of `{found.name}` go by {'the default' if policy is None else f'the policy `{policy}`'} now.")


@click.command(short_help="Add bought credit to an account, or book its payment.")
@click.argument("account")
@click.argument("usd")
@click.option("--command-id", help="Makes a repeat of this very top-up do nothing (e.g. a payment's id).")
@click.option("--stripe", "by_card", is_flag=True, help="Show the address of a page where it can be paid by card.")
@config_option
@json_option
def topup(account: str, usd: str, command_id: str | None, by_card: bool, config_path: Path, as_json: bool) -> None:
    """Add bought credit to a prepaid account (a payment to a postpaid one): farebox topup ACCOUNT 25.00

    With --stripe the credit comes when it is paid by card ([stripe] in the configuration)."""
    nano = amount(usd, "the amount")
    clock = SystemClock()
    ids = TimeOrderedIds(clock)
    if command_id is not None and not command_id.strip():
        raise CliError("--command-id is empty; give the payment's own id, or leave it out")
    command = ids.new("cmd") if command_id is None else command_id
    with database_of(config_path) as (loaded, database):
        found = find_account(database, account)
        if by_card:
            from farebox.cli.card_commands import ask_for_page

            ask_for_page(loaded, database, found, nano, command, as_json)
            return
        try:
            if found.kind == "prepaid":
                ledger.top_up(database, ids, command_id=command, account_id=found.id, amount_nano=nano, now_us=clock.now_us())
            else:
                ledger.pay(database, ids, command_id=command, account_id=found.id, amount_nano=nano, now_us=clock.now_us())
                dunning.paid_again(database, ids, found.id, invoice_terms(loaded), clock.now_us())
        except CommandRefused as error:
            raise CliError(str(error)) from None
        balance = database.read(lambda connection: queries.balance(connection, found.id))
    remaining = format_amount(balance.remaining_nano if balance else 0)
    if as_json:
        print_json(
            {
                "account": found.id,
                "name": found.name,
                "amount": format_amount(nano),
                "remaining": remaining,
                "command_id": command,
            }
        )
        return
    click.echo(f"`{found.name}` got ${format_amount(nano)} and has ${remaining} left.")


COMMANDS = (accounts, topup, signup)
