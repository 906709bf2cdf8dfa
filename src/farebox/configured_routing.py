"""Routing under the configuration's policies, for workers, and for commands that show what they would do."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from farebox.catalog.missing import ModelNotFound
from farebox.config import ConfigError, Loaded
from farebox.embedding import model as embedding
from farebox.errors import FareboxError
from farebox.market import by_price
from farebox.providers.registry import PROVIDERS
from farebox.routing.auto import AUTO, DECISIONS, automatic
from farebox.routing.market import Market
from farebox.routing.measured import Measured
from farebox.routing.policy import OPENROUTER_AUTO, Decisions, Policies, Policy, PolicyError, compiled
from farebox.routing.preferences import Providers, Reader, split_suffix
from farebox.routing.router import Router
from farebox.sorting import Sorter


def make_router(
    loaded: Loaded, market: Market, health: Measured, decisions: Mapping[str, Decisions] = DECISIONS
) -> Router:
    """Routing over a market, under the configuration's policies, every one of them checked."""
    sections = loaded.config.providers
    titles = {name: row.title for name, row in PROVIDERS.items()} | {name: s.title or name for name, s in sections.items()}
    providers = Providers.of(titles)
    policies: list[Policy] = []
    sections_of_policies = loaded.config.policies
    for name, section in sections_of_policies.items():
        try:
            policy = compiled(name, section, providers, decisions)
            for setting, models in policy.named_models():
                for index, model in enumerate(models):
                    _check_model(market, model, f"policies.{name}.{setting}[{index}]")
            if policy.examples and embedding.missing():
                raise PolicyError(f"policies.{name}.examples", f"needs a small model on this machine: {embedding.INSTALL}")
        except PolicyError as error:
            raise ConfigError(f"{loaded.path}: {error}") from None
        except FareboxError as error:
            raise ConfigError(f"{loaded.path}: {error.message}") from None
        policies.append(policy)
    if AUTO not in sections_of_policies:
        usual = automatic(market.targets.keys(), by_price(market))
        if usual is not None:
            policies.append(usual)
    return Router(
        market.catalog,
        market.by_wire,
        policies=Policies(policies, decisions, taken=[OPENROUTER_AUTO] if market.catalog.knows(OPENROUTER_AUTO) else []),
        reader=Reader(providers),
        health=health,
        attempts_max=loaded.config.attempts.attempts_max,
        default_policy=loaded.config.routing.policy or "",
    )


def make_sorter(router: Router, run: Callable[..., "asyncio.Future[Any]"]) -> Sorter | None:
    """What sorts calls by examples, where policies want that; `run` is a thread of its own."""
    wanted = any(policy.examples for policy in router.policies)
    return Sorter(router.policies, embedding.Model().embed, run) if wanted else None


def _check_model(market: Market, name: str, place: str) -> None:
    """A policy's model has to exist; whether its provider is switched on may change from day to day."""
    try:
        market.catalog.resolve(split_suffix(name)[0])
    except ModelNotFound as error:
        if "providers" not in error.details:
            raise PolicyError(place, error.message.partition("; `GET /v1/models`")[0]) from None
