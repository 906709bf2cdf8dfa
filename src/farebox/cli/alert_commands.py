"""`alerts`: who is told of what, and what became of it."""

import asyncio
from pathlib import Path
from typing import cast

import click

from farebox.billing.accounts import alerts as conditions
from farebox.billing.accounts.alerts import AlertSettings
from farebox.billing.books.customers import CommandRefused
from farebox.billing.books.periods import format_second
from farebox.cli.arguments import find_account
from farebox.cli.output import CliError, config_option, database_of, day, json_option, print_json, print_table
from farebox.config import ConfigError, Loaded
from farebox.control import channels, deliveries
from farebox.control.channels import Channel, Kind
from farebox.control.messages import EVENT_TYPES, Letter
from farebox.control.senders import Outcome
from farebox.control.signing import secret_text
from farebox.money import MoneyError, format_amount, parse_amount
from farebox.pepper import read_pepper
from farebox.ports import SystemClock, TimeOrderedIds
from farebox.processes.channels import all_channels
from farebox.storage.database import Database


@click.group()
def alerts() -> None:
    """Alerts: channels, deliveries, what to be told of."""


def _find(loaded: Loaded, database: Database, channel_id: str) -> Channel:
    try:
        found = {channel.id: channel for channel in all_channels(loaded, database, SystemClock())}
    except ConfigError as error:
        raise CliError(str(error)) from None
    if channel_id not in found:
        raise CliError(f"there is no channel `{channel_id}`; `farebox alerts list` shows them")
    return found[channel_id]


@alerts.command("list")
@config_option
@json_option
def list_channels(config_path: Path, as_json: bool) -> None:
    """List channels, those of the configuration first."""
    with database_of(config_path) as (loaded, database):
        try:
            found = all_channels(loaded, database, SystemClock())
        except ConfigError as error:
            raise CliError(str(error)) from None
        names = {account: name for name, account in database.read(channels.account_ids).items()}
    if as_json:
        print_json(
            {
                "channels": [
                    {
                        "id": channel.id,
                        "kind": channel.kind,
                        "target": channel.shown_target,
                        "account": channel.account_id,
                        "events": list(channel.events),
                    }
                    for channel in found
                ]
            }
        )
        return
    print_table(
        ("id", "kind", "target", "account", "events"),
        [
            (
                channel.id,
                channel.kind,
                channel.shown_target,
                "every" if channel.account_id is None else names.get(channel.account_id, channel.account_id),
                " ".join(channel.events) or "all",
            )
            for channel in found
        ],
        empty="Nobody is told anything yet; `farebox alerts add --webhook URL` makes a channel.",
    )


@alerts.command("add")
@click.option("--webhook", help="A URL that gets signed JSON (Standard Webhooks).")
@click.option("--slack", help="The URL of an incoming webhook of Slack, Mattermost, Discord (…/slack) and the like.")
@click.option("--email", help="A mail address; needs [alerts.smtp].")
@click.option("--account", "account_name", help="Only events of this account; without it of all, and the operator's own.")
@click.option("--event", "events", multiple=True, help=f"Only this event; may be repeated: {', '.join(EVENT_TYPES)}.")
@config_option
@json_option
def add(
    webhook: str | None,
    slack: str | None,
    email: str | None,
    account_name: str | None,
    events: tuple[str, ...],
    config_path: Path,
    as_json: bool,
) -> None:
    """Add a channel. A webhook's signing secret is shown once."""
    given = [(kind, target) for kind, target in (("webhook", webhook), ("slack", slack), ("email", email)) if target is not None]
    if len(given) != 1:
        raise CliError("write one of --webhook URL, --slack URL and --email ADDRESS")
    ((kind, target),) = given
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        if kind == "email" and loaded.config.alerts.smtp is None:
            raise CliError(f"{loaded.path}: there is no `[alerts.smtp]`, so no mail can be sent; name the mail server first")
        account_id = None if account_name is None else find_account(database, account_name).id
        try:
            read_pepper(loaded)
            made = channels.add_channel(
                database,
                TimeOrderedIds(clock),
                kind=cast("Kind", kind),
                target=target,
                account_id=account_id,
                events=events,
                allow_private=loaded.config.alerts.allow_private,
                now_us=clock.now_us(),
            )
        except (CommandRefused, ConfigError) as error:
            raise CliError(str(error)) from None
        secrets = _find(loaded, database, made).secrets
    secret = secret_text(secrets[0]) if secrets else None
    if as_json:
        print_json({"id": made, "kind": kind, "account": account_id, "events": list(events), "secret": secret})
        return
    click.echo(f"Added {made}; `farebox alerts test {made}` tries it.")
    if secret is not None:
        click.echo(f"It is signed with {secret}; that is not shown again.")


@alerts.command("remove")
@click.argument("channel_id")
@config_option
@json_option
def remove(channel_id: str, config_path: Path, as_json: bool) -> None:
    """Remove a channel; what was on its way there is given up."""
    with database_of(config_path) as (_, database):
        try:
            channels.remove_channel(database, channel_id, now_us=SystemClock().now_us())
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json({"id": channel_id, "state": "removed"})
        return
    click.echo(f"Removed {channel_id}.")


@alerts.command("rotate")
@click.argument("channel_id")
@config_option
@json_option
def rotate(channel_id: str, config_path: Path, as_json: bool) -> None:
    """Give a webhook a new signing secret; the old one signs along for a day."""
    with database_of(config_path) as (loaded, database):
        try:
            channels.rotate_secret(database, channel_id, now_us=SystemClock().now_us())
        except CommandRefused as error:
            raise CliError(str(error)) from None
        secret = secret_text(_find(loaded, database, channel_id).secrets[0])
    if as_json:
        print_json({"id": channel_id, "secret": secret})
        return
    click.echo(secret)
    click.echo("The secret before it signs along for 24 hours.")


@alerts.command("test")
@click.argument("channel_id")
@config_option
@json_option
def test(channel_id: str, config_path: Path, as_json: bool) -> None:
    """Send a test message now, once, and say what came of it."""
    clock = SystemClock()
    with database_of(config_path) as (loaded, database):
        channel = _find(loaded, database, channel_id)
    letter = Letter(TimeOrderedIds(clock).new("msg"), "test", format_second(clock.now_us()), {"channel": channel.id})

    async def send() -> Outcome:
        from farebox.processes.courier import make_senders

        senders = make_senders(loaded, clock)
        try:
            return await senders.send(channel, letter)
        finally:
            await senders.close()

    outcome = asyncio.run(send())
    if not outcome.ok:
        raise CliError(f"{channel.id} was not reached: {outcome.error}")
    if as_json:
        print_json({"id": channel.id, "message_id": letter.id, "status": outcome.status})
        return
    click.echo(f"Told {channel.shown_target}" + (f", which answered {outcome.status}." if outcome.status else "."))


@alerts.command("deliveries")
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]), help="Only these.")
@config_option
@json_option
def list_deliveries(state: str | None, config_path: Path, as_json: bool) -> None:
    """List the newest deliveries."""
    with database_of(config_path) as (_, database):
        found = database.read(lambda connection: deliveries.listed(connection, state=state))
    if as_json:
        print_json(
            {
                "deliveries": [
                    {
                        "id": one.id,
                        "event": one.kind,
                        "message_id": one.message_id,
                        "channel": one.channel_id,
                        "state": one.state,
                        "attempts": one.attempts,
                        "status": one.status,
                        "error": one.error or None,
                        "next_at": day(one.next_us) if one.state == "pending" else None,
                        "created_at": day(one.created_us),
                    }
                    for one in found
                ]
            }
        )
        return
    print_table(
        ("id", "event", "state", "tries", "what happened"),
        [(one.id, one.kind, one.state, str(one.attempts), one.error or (str(one.status) if one.status else "")) for one in found],
        right=(3,),
        empty="Nothing was sent yet.",
    )


@alerts.command("redeliver")
@click.argument("delivery_id", required=False)
@click.option("--dead", is_flag=True, help="All that were given up.")
@config_option
@json_option
def redeliver(delivery_id: str | None, dead: bool, config_path: Path, as_json: bool) -> None:
    """Send a delivery again, or all dead ones, under the same message id."""
    if dead == (delivery_id is not None):
        raise CliError("write a delivery's id or --dead, one of them; `farebox alerts deliveries` shows them")
    with database_of(config_path) as (_, database):
        try:
            count = deliveries.redeliver(database, delivery_id=delivery_id, now_us=SystemClock().now_us())
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        print_json({"redelivered": count})
        return
    click.echo(f"{count} will be sent again within a second.")


@alerts.command("set")
@click.argument("account")
@click.option("--low-balance", help="Tell when less USD is left; 0: never.")
@click.option("--runway-days", type=click.IntRange(0, conditions.DAYS_MAX), help="Tell when credit lasts for less; 0: never.")
@click.option("--spike-factor", type=click.IntRange(0, conditions.FACTOR_MAX), help="Times the usual spend of an hour; 0: never.")
@config_option
@json_option
def set_settings(
    account: str, low_balance: str | None, runway_days: int | None, spike_factor: int | None, config_path: Path, as_json: bool
) -> None:
    """Say what an account is told of; what is left out is as configured."""
    try:
        low_nano = None if low_balance is None else parse_amount(low_balance)
    except MoneyError as error:
        raise CliError(f"--low-balance: {error}") from None
    settings = AlertSettings(low_nano, runway_days, spike_factor)
    with database_of(config_path) as (_, database):
        found = find_account(database, account)
        try:
            conditions.set_alerts(database, found.id, settings)
        except CommandRefused as error:
            raise CliError(str(error)) from None
    if as_json:
        low = None if low_nano is None else format_amount(low_nano)
        print_json({"account": found.id, "low_balance": low, "runway_days": runway_days, "spike_factor": spike_factor})
        return
    click.echo(f"`{found.name}` has its own alert settings now.")


COMMANDS = (alerts,)
