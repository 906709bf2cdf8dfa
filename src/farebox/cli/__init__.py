"""The command line. Commands work on the configuration and the database; a running server sees changes within a second."""

import sys

import click

from farebox import compiled
from farebox.cli.output import CliError
from farebox.cli.shelf import Shelf


@click.group(commands=Shelf(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="farebox", message=f"%(prog)s, version %(version)s, {compiled.word()}")
def cli() -> None:
    """Farebox: a pay-as-you-go gateway for AI models."""


def usage_sentence(error: click.UsageError) -> str:
    """What was typed wrongly, and the command that explains it."""
    said = error.format_message().strip().rstrip(".").replace("\n", " ")
    path = error.ctx.command_path if error.ctx is not None else "farebox"
    return f"{said[:1].lower()}{said[1:]}; `{path} --help` explains it"


def main() -> None:
    """Run; an expected failure is one sentence on standard error and exit status 1, a wrong command line 2."""
    try:
        cli(prog_name="farebox", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.UsageError as error:
        click.echo(f"farebox: {usage_sentence(error)}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"farebox: {error.format_message()}", err=True)
        sys.exit(1)
    except CliError as error:
        click.echo(f"farebox: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has enough.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        click.echo(f"farebox: {where}{reason}; `farebox doctor` looks for the cause", err=True)
        sys.exit(1)
