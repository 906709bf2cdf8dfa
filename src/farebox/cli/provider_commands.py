"""`providers`: who can be called, and how they have done lately at this machine's gateway workers."""

from pathlib import Path

import click

from farebox.cli.output import CliError, book_of, config_option, json_option, load_config, local_url, print_json, print_table
from farebox.config import ConfigError
from farebox.edge import health_files
from farebox.edge.providers import providers_page
from farebox.market import make_market
from farebox.routing import shown
from farebox.routing.preferences import Percentiles
from farebox.routing.shown import percent


@click.command()
@click.option("--offers", is_flag=True, help="Each model at each provider, instead of providers.")
@config_option
@json_option
def providers(offers: bool, config_path: Path, as_json: bool) -> None:
    """Show providers that can be called: how they have done in the last half hour, and which of their keys are left alone."""
    loaded = load_config(config_path)
    try:
        market, _ = make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))
    except ConfigError as error:
        raise CliError(str(error)) from None
    seen = health_files.read(loaded.folder / "run")
    listed = providers_page(market.targets, seen)["data"]
    keys = shown.keys_json(seen)
    if as_json:
        print_json({"providers": listed, "offers": shown.offers_json(seen), "keys": keys, "places": shown.places_json(seen)})
        return
    if offers:
        print_table(
            ("provider", "model", "state", "up 30 min", "first token", "tokens/s", "now"),
            [
                (
                    one.provider, one.model, one.state, _percent(percent(one.half_hour)), _median(one.first_token_ms, " ms"),
                    _median(one.tokens_per_s), str(one.in_flight),
                )
                for one in seen.offers
            ],
            right=(3, 4, 5, 6),
            empty="Nothing was called yet by the workers that run here; `farebox serve` starts them.",
        )  # fmt: skip
        return
    print_table(
        ("provider", "models", "status", "up 30 min"),
        [(one["slug"], str(one["models"]), one["status"], _percent(one["uptime_last_30m"])) for one in listed],
        right=(1, 3),
        empty="No provider is enabled; set a key such as OPENAI_API_KEY, or add `[providers.NAME]` to the configuration.",
    )
    for key in keys:
        if key["benched_s"]:
            click.echo(f"{key['key'] or key['provider']} is left alone for {key['benched_s']} s: {key['reason'] or 'refused'}")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:g} %"


def _median(found: Percentiles | None, unit: str = "") -> str:
    return "" if found is None or found.p50 is None else f"{found.p50:.0f}{unit}"


COMMANDS = (providers,)
