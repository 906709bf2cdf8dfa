"""The reference pages, made from the code: `python -m farebox.cli.reference config|cli`.

`docs/configuration.md` and `docs/cli.md` are this module's output, and a test compares them: a setting without a docstring, or
a help text that changed without its page, fails it.
"""

import ast
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

import click
import msgspec

from farebox.config import control as config_control
from farebox.config import display as config_display
from farebox.config import file as config
from farebox.config import payments as config_payments
from farebox.simulator import directives

WIDTH = 100
SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("[server]", config.Server),
    ("[database]", config.Database),
    ("[journal]", config.Journal),
    ("[billing]", config.Billing),
    ("[invoices]", config.Invoices),
    ("[markup.NAME]", config.MarkupSection),
    ("markup.NAME.volume", config.VolumeSection),
    ("markup.NAME.rules", config.MarkupRuleSection),
    ("[markup.NAME.byok]", config.OwnKeySection),
    ("[limits]", config.RateLimits),
    ("[tiers.NAME]", config.RateTierSection),
    ("[tiers.NAME.classes.PATTERN]", config.ClassLimits),
    ("[attempts]", config.Attempts),
    ("[[attempts.models]]", config.ModelTimeouts),
    ("[local_model]", config.LocalModel),
    ("[alerts]", config_control.Alerts),
    ("[signup]", config_control.SignupSection),
    ("[display]", config_display.DisplaySection),
    ("[stripe]", config_payments.StripeSection),
    ("[alerts.channels.NAME]", config_control.ChannelSection),
    ("[alerts.smtp]", config_control.SmtpSection),
    ("[providers.NAME]", config.ProviderSection),
    ("providers.NAME.api_keys", config.KeySection),
    ("[[models]]", config.ModelSection),
    ("models.offers", config.OfferSection),
    ("models.offers.tiers", config.TierSection),
    ("[routing]", config.Routing),
    ("[hedging]", config.Hedging),
    ("[health]", config.HealthSection),
    ("[policies.NAME]", config.PolicySection),
    ("[policies.NAME.examples]", config.ExamplesSection),
    ("[policies.NAME.escalation]", config.EscalationSection),
    ("[policies.NAME.hedge]", config.HedgeSection),
    ("policies.NAME.max_price", config.PriceCapSection),
    ("policies.NAME.preferred_*", config.PercentilesSection),
)
_CONFIG_HEAD = """\
# Configuration

<!-- Made by `python -m farebox.cli.reference config`; change the docstrings in src/farebox/config.py instead. -->

One file, `farebox.toml`, in the data folder (`--config FILE` or `FAREBOX_CONFIG` names another). Every setting has a default,
a name that is not known is an error, and errors name the place in the file. Text may name environment variables as
`"${NAME}"`. Prices and percentages are decimal strings, never floats. `farebox serve` reads the file at its start.

From the environment alone come the keys of known providers (listed at the end), `FAREBOX_PEPPER` (hexadecimal, in place of
the file `pepper`), and `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` for calls to providers.
"""
_CLI_HEAD = """\
# Command line

<!-- Made by `python -m farebox.cli.reference cli`; change the commands in src/farebox/cli/ instead. -->

Commands work on the configuration and the database, so they need no running server, and a running one sees what they change
within a second. With `--json` they print one JSON value with stable names, money as decimal strings of US dollars. An error is
one sentence on standard error with the next command to try, and exit status 1; a wrong command line has exit status 2.
"""


def field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The docstring below each field, as one line."""
    tree = ast.parse(inspect.getsource(struct))
    body = cast("ast.ClassDef", tree.body[0]).body
    found: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _choices(struct: type[msgspec.Struct], name: str) -> str:
    """`a`, `b` or `c` where only these words are allowed."""
    tree = ast.parse(inspect.getsource(struct))
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            literal = next((part for part in ast.walk(node.annotation) if isinstance(part, ast.Subscript)), None)
            if literal is not None and ast.unparse(literal.value) == "Literal":
                return ", ".join(f'`"{word}"`' for word in ast.literal_eval(literal.slice))
    return ""


def _default(value: Any) -> str:
    """A default as it would stand in the file."""
    if value is msgspec.NODEFAULT:
        return "needed"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{value}`" if isinstance(value, int | float) else "none"


def _section(title: str, struct: type[msgspec.Struct]) -> Iterator[str]:
    yield f"## `{title}`"
    yield ""
    yield inspect.cleandoc(struct.__doc__ or "")
    yield ""
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    docs = field_docs(struct)
    for field in msgspec.structs.fields(struct):
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = ()
        choices = _choices(struct, field.name)
        meaning = docs[field.name] + (f" One of {choices}." if choices else "")
        yield f"| `{field.name}` | {_default(default)} | {meaning.replace('|', chr(92) + '|')} |"
    yield ""


def config_page() -> str:
    """`docs/configuration.md`."""
    from farebox.providers.registry import PROVIDERS

    lines = [_CONFIG_HEAD]
    for title, struct in SECTIONS:
        lines += _section(title, struct)
    lines += ["## `[aliases]`", "", field_docs(config.Config)["aliases"], ""]
    lines += ["## Known providers", "", "A key in the environment switches a provider on.", ""]
    lines += ["| name | | environment | APIs |", "|---|---|---|---|"]
    for row in PROVIDERS.values():
        keys = " or ".join(f"`{name}`" for name in row.credential.env)
        needed = keys or ("on when its packages are installed" if row.name == "local" else "a `[providers]` section")
        lines.append(f"| `{row.name}` | {row.title} | {needed} | {', '.join(f'`{wire}`' for wire in row.speaks)} |")
    return "\n".join(lines) + "\n"


def _help(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    settings: dict[str, Any] = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"## `{context.command_path}`" if parent is not None else "## `farebox`"
    yield ""
    yield "```text"
    if name == "simulate":
        # Its options are another parser's; what a test needs to know is the grammar of the directives.
        yield inspect.cleandoc(command.help or "")
        yield ""
        yield "Directives, written behind a model's name as sim+tokens=50+status=503:"
        yield ""
        yield directives.table()
    else:
        yield "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield "```"
    yield ""
    if isinstance(command, click.Group):
        members: Mapping[str, click.Command] = command.commands
        for member, child in sorted(members.items()):
            yield from _help(child, context, member)


def cli_page() -> str:
    """`docs/cli.md`."""
    from farebox.cli import cli

    return "\n".join([_CLI_HEAD, *_help(cli, None, "farebox")])


PAGES = {"config": config_page, "cli": cli_page}


def main() -> None:
    """Print the page that is asked for."""
    wanted = sys.argv[1] if len(sys.argv) == 2 else ""
    if wanted not in PAGES:
        sys.exit(f"usage: python -m farebox.cli.reference {'|'.join(PAGES)}")
    click.echo(PAGES[wanted](), nl=False)


if __name__ == "__main__":
    main()
