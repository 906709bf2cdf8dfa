"""`tiers`, and an account's place on the ladder."""

from pathlib import Path

import click
import msgspec

from farebox.billing.books import customers
from farebox.cli.account_commands import accounts
from farebox.cli.arguments import find_account
from farebox.cli.output import CliError, config_option, database_of, json_option, load_config, print_json, print_table
from farebox.money import format_amount
from farebox.ports import SystemClock
from farebox.terms import make_ladder

US_PER_DAY = 86_400_000_000


@click.command()
@config_option
@json_option
def tiers(config_path: Path, as_json: bool) -> None:
    """List the ladder of tiers, with their limits and what leads to each."""
    ladder = make_ladder(load_config(config_path))
    if as_json:
        print_json(
            {
                "first": ladder.first or None,
                "tiers": [
                    {
                        "name": tier.name,
                        "requests_per_minute": tier.limits.requests_per_minute,
                        "tokens_per_minute": tier.limits.tokens_per_minute,
                        "tokens_per_day": tier.limits.tokens_per_day,
                        "concurrent_calls": tier.limits.concurrent_calls,
                        "daily_spend": None if tier.daily_spend_nano is None else format_amount(tier.daily_spend_nano),
                        "models": list(tier.models),
                        "classes": {pattern: msgspec.structs.asdict(limits) for pattern, limits in tier.classes},
                        "paid": format_amount(tier.paid_nano),
                        "age_days": tier.age_us // US_PER_DAY,
                    }
                    for tier in ladder.tiers
                ],
            }
        )
        return

    def shown(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    print_table(
        ("tier", "requests/min", "tokens/min", "tokens/day", "calls", "USD/day", "paid USD", "days"),
        [
            (
                tier.name,
                shown(tier.limits.requests_per_minute),
                shown(tier.limits.tokens_per_minute),
                shown(tier.limits.tokens_per_day),
                shown(tier.limits.concurrent_calls),
                "" if tier.daily_spend_nano is None else format_amount(tier.daily_spend_nano),
                format_amount(tier.paid_nano),
                str(tier.age_us // US_PER_DAY),
            )
            for tier in ladder.tiers
        ],
        right=(1, 2, 3, 4, 5, 6, 7),
    )
    first = f"New accounts begin in `{ladder.first}`." if ladder.first else "New accounts have no tier (`limits.tier` is empty)."
    click.echo(first)


@accounts.command("tier")
@click.argument("account")
@click.argument("tier")
@click.option("--pin", is_flag=True, help="It stays there, whatever it pays.")
@config_option
@json_option
def set_tier(account: str, tier: str, pin: bool, config_path: Path, as_json: bool) -> None:
    """Move an account to a tier; a running server sees it within a second."""
    with database_of(config_path) as (loaded, database):
        known = [one.name for one in make_ladder(loaded).tiers]
        if tier not in known:
            raise CliError(f"there is no tier `{tier}`; `farebox tiers` lists them: {', '.join(known)}")
        found = find_account(database, account)
        customers.set_tier(database, found.id, tier, pinned=pin, now_us=SystemClock().now_us())
    if as_json:
        print_json({"id": found.id, "name": found.name, "tier": tier, "pinned": pin})
        return
    click.echo(f"`{found.name}` is in the tier `{tier}` now{', and stays there' if pin else ''}.")


COMMANDS = (tiers,)
