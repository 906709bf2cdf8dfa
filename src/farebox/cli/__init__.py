"""The command line. Commands work on the configuration and the database; a running server sees changes within a second."""

import sys

import click

from farebox.cli import account_commands, price_commands, server_commands, usage_commands
from farebox.cli.output import CliError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="farebox")
def cli() -> None:
    """Farebox: a pay-as-you-go gateway for AI models."""


for module in (server_commands, account_commands, usage_commands, price_commands):
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Run; an expected failure is one sentence on standard error and exit status 1."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CliError as error:
        click.echo(f"farebox: {error}", err=True)
        sys.exit(1)
