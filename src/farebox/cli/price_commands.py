"""`prices list`, `prices show`; `price_book_commands` has those that change prices."""

from pathlib import Path
from typing import Any

import click

from farebox.catalog.model import Model, Offer
from farebox.catalog.price import Price, Rates
from farebox.cli import price_book_commands
from farebox.cli.output import CliError, book_of, config_option, json_option, load_config, local_url, print_json, print_table
from farebox.config import ConfigError, Loaded
from farebox.errors import FareboxError
from farebox.market import make_market
from farebox.money import format_rate, format_unit_rate
from farebox.ports import SystemClock
from farebox.routing.market import Market
from farebox.wires.usage import Usage


def _market(path: Path) -> tuple[Loaded, Market]:
    loaded = load_config(path)
    try:
        return loaded, make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))[0]
    except ConfigError as error:
        raise CliError(str(error)) from None


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, UTC).strftime("%Y-%m-%d")


def _rates(rates: Rates) -> dict[str, str]:
    """USD per million tokens by class; fees per request and search in USD each."""
    shown = {name: format_rate(getattr(rates, name)) for name in Usage.TOKEN_CLASSES}
    shown["web_search"] = format_unit_rate(rates.web_searches)
    shown["request"] = format_unit_rate(rates.request)
    return shown


def _price(price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    return {
        "version": price.version,
        "effective_from": price.effective_from,
        "checked": price.checked,
        "source": list(price.source),
        "confidence": price.confidence,
        **_rates(price.standard.rates),
        "tiers": [{"above": tier.above, **_rates(tier.rates)} for tier in price.standard.tiers],
        "service_tiers": {name: _rates(schedule.rates) for name, schedule in price.service_tiers.items()},
    }


def _offer(offer: Offer, day: str, *, enabled: bool) -> dict[str, Any]:
    return {
        "provider": offer.provider,
        "id": offer.id,
        "wire": offer.wire,
        "enabled": enabled,
        "variant": offer.variant,
        "context_window": offer.context_window,
        "max_output_tokens": offer.max_output_tokens,
        "price": _price(offer.price_on(day)),
    }


def _model(model: Model, market: Market, day: str) -> dict[str, Any]:
    callable_here = {id(target.offer) for target in market.targets.get(model.slug, ())}
    return {
        "slug": model.slug,
        "name": model.name,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": sorted(model.capabilities),
        "offers": [_offer(offer, day, enabled=id(offer) in callable_here) for offer in model.offers],
    }


@click.group()
def prices() -> None:
    """List prices and the price book: list, show; diff, sync, set, approve, reject. USD per million tokens."""


for _command in price_book_commands.COMMANDS:
    prices.add_command(_command)


@prices.command("list")
@click.option("--all", "everything", is_flag=True, help="Also models whose providers are not switched on.")
@config_option
@json_option
def list_prices(everything: bool, config_path: Path, as_json: bool) -> None:
    """The models that can be called now (all known ones with --all, and in JSON) and their prices."""
    _, market = _market(config_path)
    day = _today()
    models = [m for m in market.catalog.list_models() if everything or as_json or m.slug in market.targets]
    if as_json:
        print_json({"models": [_model(model, market, day) for model in models]})
        return
    rows: list[tuple[str, ...]] = []
    for model in models:
        callable_here = {id(target.offer) for target in market.targets.get(model.slug, ())}
        for offer in model.offers:
            price = offer.price_on(day)
            if price is not None and (everything or id(offer) in callable_here):
                rates = price.standard.rates
                rows.append(
                    (
                        model.slug,
                        offer.provider,
                        format_rate(rates.input),
                        format_rate(rates.cache_read),
                        format_rate(rates.output),
                    )
                )
    print_table(
        ("model", "provider", "input", "cached", "output"),
        rows,
        right=(2, 3, 4),
        empty="No provider is switched on: set OPENAI_API_KEY or the like, or add one to the configuration; see --all.",
    )


@prices.command("show")
@click.argument("slug")
@config_option
@json_option
def show(slug: str, config_path: Path, as_json: bool) -> None:
    """One model: every offer, every rate, where it comes from and when it was checked."""
    _, market = _market(config_path)
    day = _today()
    found = next((model for model in market.catalog.list_models() if model.slug == slug), None)
    if found is None:
        try:
            found = market.catalog.resolve(slug).model
        except FareboxError as error:
            said = error.message.partition("; `GET /v1/models`")[0]
            raise CliError(f"{said}; `farebox prices list --all` shows every model") from None
    data = _model(found, market, day)
    if as_json:
        print_json(data)
        return
    click.echo(f"{found.slug}  ({found.name})  context {found.context_window}, output up to {found.max_output_tokens}")
    rows: list[tuple[str, ...]] = []
    for offer in data["offers"]:
        price = offer["price"]
        if price is None:
            rows.append((offer["provider"], offer["id"], "", "", "", "", "no price today"))
            continue
        write, cached = price["cache_write_5m"], price["cache_read"]
        rows.append((offer["provider"], offer["id"], price["input"], cached, write, price["output"], str(price["checked"] or "")))
        for tier in price["tiers"]:
            rows.append(
                (
                    "",
                    f"above {tier['above']} prompt tokens",
                    tier["input"],
                    tier["cache_read"],
                    tier["cache_write_5m"],
                    tier["output"],
                    "",
                )
            )
    print_table(("provider", "id", "input", "cached", "write 5m", "output", "checked"), rows, right=(2, 3, 4, 5))


COMMANDS = (prices,)
