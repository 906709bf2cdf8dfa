"""`init`, `serve`, `run`, `simulate`, `doctor`."""

import sys
from pathlib import Path

import click

from farebox.cli.output import config_option, json_option, load_config, print_json
from farebox.cli.setup import CONFIG_NAME, initialise


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
    from farebox.cli import serving

    serving.run(load_config(config_path), workers=workers, host=host, port=port, quickstart=False)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path("data"), show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: server.port).")
def run(data: Path, port: int | None) -> None:
    """Make the data folder if there is none, then serve: what `make run` does."""
    from farebox.cli import serving

    path = data / CONFIG_NAME
    loaded = load_config(path) if path.exists() else initialise(data)[0]
    serving.run(loaded, workers=None, host=None, port=port, quickstart=True)


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
    from farebox.cli import doctor as doctors

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
