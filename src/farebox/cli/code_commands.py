"""`codes` and `redeem`: credit by redemption code."""

import os
from pathlib import Path

import click

from farebox.billing.accounts import codes as billing_codes
from farebox.billing.accounts.codes import NewBatch
from farebox.billing.books.customers import CommandRefused
from farebox.cli.arguments import amount, find_account
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table
from farebox.config import ConfigError
from farebox.money import format_amount
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.storage import queries


@click.group()
def codes() -> None:
    """Redemption codes: create, list, revoke."""


@codes.command("create")
@click.argument("usd")
@click.option("--count", type=click.IntRange(1, billing_codes.CODES_MAX), default=1, show_default=True, help="How many codes.")
@click.option(
    "--uses", type=click.IntRange(1, billing_codes.USES_MAX), default=1, show_default=True, help="Accounts that each code serves."
)
@click.option("--paid", is_flag=True, help="They are sold: bought credit, not promotional.")
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="After so many days they cannot be redeemed any more.")
@click.option("--credit-days", type=click.IntRange(1, billing_codes.CREDIT_DAYS_MAX), help="So long the credit lasts once taken.")
@click.option("--name", default="", help="What they are for.")
@config_option
@json_option
def create(
    usd: str,
    count: int,
    uses: int,
    paid: bool,
    expires_in_days: int | None,
    credit_days: int | None,
    name: str,
    config_path: Path,
    as_json: bool,
) -> None:
    """Create codes worth USD each: farebox codes create 5.00 --count 100. They are shown once."""
    nano = amount(usd, "the amount")
    clock = SystemClock()
    expires_us = None if expires_in_days is None else clock.now_us() + expires_in_days * billing_codes.US_PER_DAY
    kind = "paid" if paid else "promo"
    batch = NewBatch(nano, kind, uses, credit_days, expires_us, name)
    made = [billing_codes.code_text(os.urandom(billing_codes.SECRET_BYTES)) for _ in range(count)]
    with database_of(config_path) as (loaded, database):
        try:
            pepper = read_pepper(loaded)
            digests = [billing_codes.digest(code, pepper) for code in made]
            batch_id = billing_codes.create_batch(database, TimeOrderedIds(clock), batch, digests, now_us=clock.now_us())
        except (CommandRefused, ConfigError) as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json({"batch": batch_id, "amount": format_amount(nano), "kind": kind, "uses": uses, "codes": made})
        return
    for code in made:
        click.echo(code)
    click.echo(f"These are the codes of {batch_id}, ${format_amount(nano)} each; they are not shown again.", err=True)


@codes.command("list")
@config_option
@json_option
def list_codes(config_path: Path, as_json: bool) -> None:
    """List batches, without their codes."""
    with database_of(config_path) as (_, database):
        found = database.read(billing_codes.list_batches)
    now_us = SystemClock().now_us()

    def state(one: billing_codes.Batch) -> str:
        if one.revoked_us is not None:
            return "revoked"
        return "expired" if one.expires_us is not None and one.expires_us <= now_us else "active"

    if as_json:
        print_json(
            {
                "batches": [
                    {
                        "id": one.id,
                        "name": one.name,
                        "amount": format_amount(one.amount_nano),
                        "kind": one.kind,
                        "state": state(one),
                        "codes": one.codes,
                        "uses": one.uses_max,
                        "used": one.used,
                        "expires_at": day(one.expires_us) or None,
                    }
                    for one in found
                ]
            }
        )
        return
    print_table(
        ("id", "name", "kind", "state", "USD", "codes", "used"),
        [
            (one.id, one.name, one.kind, state(one), format_amount(one.amount_nano), str(one.codes),
             f"{one.used} of {one.codes * one.uses_max}")
            for one in found
        ],
        right=(4, 5),
        empty="No codes yet; `farebox codes create 5.00 --count 10` makes some.",
    )  # fmt: skip


@codes.command("revoke")
@click.argument("batch_id")
@config_option
@json_option
def revoke(batch_id: str, config_path: Path, as_json: bool) -> None:
    """Revoke a batch; credit already taken stays."""
    with database_of(config_path) as (_, database):
        try:
            billing_codes.revoke_batch(database, batch_id, now_us=SystemClock().now_us())
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json({"id": batch_id, "state": "revoked"})
        return
    click.echo(f"Revoked {batch_id}.")


@click.command()
@click.argument("account")
@click.argument("code")
@config_option
@json_option
def redeem(account: str, code: str, config_path: Path, as_json: bool) -> None:
    """Give an account the credit of a redemption code. A repeat changes nothing."""
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        found = find_account(database, account)
        try:
            made = billing_codes.redeem(
                database,
                TimeOrderedIds(clock),
                account_id=found.id,
                code_digest=billing_codes.digest(code, read_pepper(loaded)),
                now_us=clock.now_us(),
            )
        except (CommandRefused, ConfigError) as error:
            raise CliError(str(error)) from None
        balance = database.read(lambda connection: queries.balance(connection, found.id))
    remaining = format_amount(balance.remaining_nano if balance else 0)
    if as_json:
        print_json(
            {
                "account": found.id,
                "grant": made.id,
                "kind": made.kind,
                "amount": format_amount(made.amount_nano),
                "expires_at": day(made.expires_us) or None,
                "remaining": remaining,
            }
        )
        return
    click.echo(f"`{found.name}` got ${format_amount(made.amount_nano)} by the code and has ${remaining} left.")


COMMANDS = (codes, redeem)
