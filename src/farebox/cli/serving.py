"""`serve` and `run`: bring the database up to date, see what can be called, and run the processes."""

import sys

import click

from farebox import __version__
from farebox.cli.output import CliError, book_of, local_url
from farebox.cli.setup import first_key
from farebox.config import ConfigError, Loaded
from farebox.configured_routing import make_router
from farebox.edge.model_lists import openai_list
from farebox.market import make_market
from farebox.pepper import read_pepper
from farebox.ports import SystemClock
from farebox.processes.supervisor import supervise
from farebox.routing.measured import NothingMeasured
from farebox.storage import migrate
from farebox.storage.database import StoreError

LOCAL_MODEL = "local/smollm2-135m-instruct"
SHOWN_MODELS_MAX = 4


def _curl(base: str, key: str, model: str) -> str:
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Say hello."}}], "max_tokens": 64}}'
    return f"curl {base}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'"


def _callable_models(loaded: Loaded) -> list[str]:
    """Slugs that a call would reach now, the local one first."""
    market, _ = make_market(loaded, local_url=local_url(loaded), versions=book_of(loaded))
    make_router(loaded, market, NothingMeasured())  # a policy that cannot be is told before any process starts
    now_us = SystemClock().now_us()
    day = f"{_date(now_us)}"
    slugs = [str(item["id"]) for item in openai_list(market.targets, day)["data"]]
    return sorted(slugs, key=lambda slug: (slug != LOCAL_MODEL, slug))


def _date(us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%d")


def run(loaded: Loaded, *, workers: int | None, host: str | None, port: int | None, quickstart: bool) -> None:
    """Migrate, then run until a signal; the banner comes when calls are answered."""
    try:
        read_pepper(loaded)
        migrate.upgrade(loaded.database_url)
        models = _callable_models(loaded)
    except StoreError as error:
        raise CliError(f"the database cannot be used: {error}; `farebox doctor` looks for the cause") from None
    except ConfigError as error:
        raise CliError(str(error)) from None

    def ready(base: str, local: bool) -> None:
        shown = ", ".join(models[:SHOWN_MODELS_MAX]) or "none yet: set OPENAI_API_KEY or the like, or add a provider"
        more = f" and {len(models) - SHOWN_MODELS_MAX} more" if len(models) > SHOWN_MODELS_MAX else ""
        key = first_key(loaded.folder)
        click.echo(f"Farebox {__version__} is serving {base}/v1  (OpenAI's and Anthropic's APIs)")
        click.echo(f"Models  {shown}{more}")
        click.echo(f"Data    {loaded.folder}")
        if quickstart:
            click.echo(f"Key     {key or '(shown once when it was made; `farebox keys create --account default` makes another)'}")
            if models and key:
                click.echo("Try it:")
                click.echo(_curl(base, key, models[0]))
        elif local:
            click.echo("Local   llama.cpp with SmolLM2-135M-Instruct is on")
        sys.stdout.flush()

    try:
        supervise(
            loaded,
            workers=workers or loaded.config.server.workers,
            host=host or loaded.config.server.host,
            port=loaded.config.server.port if port is None else port,
            ready=ready,
        )
    except ConfigError as error:
        raise CliError(str(error)) from None
