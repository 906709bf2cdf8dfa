"""Options that say what a key may do, the same for `keys create` and `keys update`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from farebox.cli.output import CliError, book_of, local_url
from farebox.config import ConfigError, Loaded
from farebox.errors import FareboxError
from farebox.gate import permissions
from farebox.gate.permissions import SCOPES, Restrictions
from farebox.market import make_market
from farebox.providers.registry import PROVIDERS
from farebox.routing.preferences import PRICE_CLASSES

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def permission_options(function: F) -> F:
    """`--scope`, `--allow-model`, `--allow-provider`, `--max-price`, `--allow-ip`; each but the first is given again for more."""
    for decorate in reversed(
        (
            click.option(
                "--scope",
                "scopes",
                multiple=True,
                type=click.Choice(SCOPES),
                help="What it is for; again for more. `manage` and `inference` exclude each other.",
            ),
            click.option("--allow-model", "models", multiple=True, help="Only these models; `*` stands for any characters."),
            click.option("--allow-provider", "providers", multiple=True, help="Only these providers."),
            click.option(
                "--max-price",
                "max_prices",
                multiple=True,
                metavar="USD",
                help="Nothing dearer per million tokens, e.g. 10, or prompt=2.50 and completion=10.",
            ),
            click.option("--allow-ip", "ips", multiple=True, help="Only from these networks, e.g. 10.0.0.0/8 or 2001:db8::/32."),
        )
    ):
        function = decorate(function)
    return function


def scopes_of(scopes: Sequence[str]) -> str:
    """The checked words."""
    return _refused_nicely(lambda: permissions.checked_scopes(scopes, "--scope"))


def restrictions_of(
    loaded: Loaded,
    before: Restrictions,
    *,
    models: Sequence[str],
    providers: Sequence[str],
    max_prices: Sequence[str],
    ips: Sequence[str],
    lift: Sequence[str] = (),
) -> Restrictions:
    """Restrictions after a command: what was given replaces what was there, what is in `lift` is gone."""

    def work() -> Restrictions:
        found = before
        if models:
            try:
                market, _ = make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))
            except ConfigError as error:
                raise CliError(str(error)) from None
            catalog = market.catalog
            slugs = [model.slug for model in catalog.list_models()]
            found = _with(found, models=permissions.model_patterns(models, "--allow-model", catalog.slug_of, slugs))
        if providers:
            names = {*PROVIDERS, *loaded.config.providers}
            found = _with(found, providers=permissions.provider_patterns(providers, "--allow-provider", names))
        if max_prices:
            found = _with(found, max_price=permissions.prices(_prices(max_prices), "--max-price"))
        if ips:
            found = _with(found, ips=permissions.networks(ips, "--allow-ip"))
        cleared: dict[str, Any] = {"models": (), "providers": (), "max_price": {}, "ips": ()}
        return _with(found, **{name: cleared[name] for name in lift})

    return _refused_nicely(work)


def _with(before: Restrictions, **values: Any) -> Restrictions:
    return Restrictions(**{name: values.get(name, getattr(before, name)) for name in Restrictions.__struct_fields__})


def _prices(texts: Sequence[str]) -> Any:
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in PRICE_CLASSES:
            raise CliError(f"--max-price {text}: write one amount, or CLASS=USD with a class of {', '.join(PRICE_CLASSES)}")
        found[name] = value
    return found


def _refused_nicely(work: Callable[[], T]) -> T:
    try:
        return work()
    except FareboxError as error:
        raise CliError(error.message) from None


def shown(restrictions: str) -> dict[str, Any]:
    """Stored restrictions under their stable names."""
    found = permissions.restored(restrictions)
    return {
        "allowed_models": list(found.models),
        "allowed_providers": list(found.providers),
        "max_price": found.max_price,
        "allowed_ips": list(found.ips),
    }
