"""`init`, `serve`, `run`, `simulate`, `doctor`."""

import sys
from pathlib import Path

import click

from farebox import __version__
from farebox.cli import doctor as doctors
from farebox.cli.output import CliError, book_of, config_option, json_option, load_config, local_url, print_json
from farebox.cli.setup import CONFIG_NAME, first_key, initialise
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


def _serve(loaded: Loaded, *, workers: int | None, host: str | None, port: int | None, quickstart: bool) -> None:
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


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path("data"), show_default=True)
@json_option
def init(data: Path, as_json: bool) -> None:
    """Make a data folder: configuration, database, first account, first key."""
    loaded, made = initialise(data)
    if as_json:
        print_json({"config": str(loaded.path), "account": "default", "key_id": made.id, "key": made.secret})
        return
    click.echo(f"Made {loaded.path} with the account `default` ($10.00 of starting credit).")
    click.echo(f"Key  {made.secret}   (also in {data / '.env'}; not shown again)")
    click.echo(f"Next: farebox serve --config {data / CONFIG_NAME}")


@click.command()
@config_option
@click.option("--workers", type=click.IntRange(1, 64), help="Gateway processes (default: server.workers).")
@click.option("--host", help="Address to listen on (default: server.host).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: server.port; 0: any free one).")
def serve(config_path: Path, workers: int | None, host: str | None, port: int | None) -> None:
    """Run the gateway: workers, bookkeeper, local model. SIGTERM drains."""
    _serve(load_config(config_path), workers=workers, host=host, port=port, quickstart=False)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path("data"), show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: server.port).")
def run(data: Path, port: int | None) -> None:
    """Make the data folder if there is none, then serve: what `make run` does."""
    path = data / CONFIG_NAME
    loaded = load_config(path) if path.exists() else initialise(data)[0]
    _serve(loaded, workers=None, host=None, port=port, quickstart=True)


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Run a simulated provider that misbehaves on command.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> None:
    """Run a simulated provider that misbehaves on command and keeps a true bill; --help lists its options."""
    from farebox.simulator import serve as serve_simulator
    from farebox.simulator.__main__ import config_from

    serve_simulator(config_from(list(arguments)))


@click.command()
@config_option
@json_option
def doctor(config_path: Path, as_json: bool) -> None:
    """Look for what is wrong: configuration, database, journals, providers, prices. Exit status 1 if something is."""
    findings = doctors.examine(config_path)
    bad = any(finding.level == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not bad, "findings": findings})
    else:
        for finding in findings:
            mark = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}[finding.level]
            click.echo(f"{mark} {finding.subject}: {finding.text}")
            if finding.fix:
                click.echo(f"        → {finding.fix}")
    if bad:
        sys.exit(1)


COMMANDS = (init, serve, run, simulate, doctor)
