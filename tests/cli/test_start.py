"""Commands start quickly: each loads what it needs, and none that works on the books alone loads the gateway."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.shell import Shell

from farebox import cli as package
from farebox.cli import cli
from farebox.cli.shelf import MODULES

NEVER = (
    "farebox.app", "farebox.edge", "farebox.gateway", "farebox.pipeline", "farebox.flight", "farebox.bridge", "farebox.demo",
    "farebox.simulator", "farebox.transport", "farebox.processes.worker", "farebox.processes.supervisor",
    "alembic", "httptools", "numpy", "prometheus_client", "psycopg", "pyarrow", "regex", "stripe", "typst", "uvloop", "xllamacpp",
)  # fmt: skip
"""What a command over a SQLite file does without: the way of a call, and what another driver, an export, a page or a page's
receiver needs."""

COMMANDS = (
    ("keys", "list"),
    ("keys", "create", "--account", "default"),
    ("accounts", "list"),
    ("accounts", "create", "acme"),
    ("topup", "default", "5"),
    ("projects", "list", "--account", "default"),
    ("budgets", "list"),
    ("codes", "list"),
    ("byok", "list"),
    ("tiers",),
    ("usage",),
    ("compare",),
    ("ledger", "check"),
    ("audit",),
    ("invoices", "list"),
    ("export", "usage", "--format", "jsonl", "-o", "usage.jsonl"),
    ("receipt", "keys"),
    ("prices", "list"),
)

PROGRAM = """
import json, sys
config, never, commands = json.loads(sys.argv[1])
from farebox.cli import main
said = []
for words in commands:
    sys.argv = ["farebox", *words, "--json", "--config", config]
    try:
        main()
    except SystemExit as end:
        said.append(f"{words}: ended with {end.code}")
    said += [f"{words}: loaded {name}" for name in never if name in sys.modules]
    said.append(sorted(name for name in sys.modules if name.startswith("farebox.cli.") and name.endswith("_commands")))
sys.stderr.write(json.dumps(said))
"""


def loaded(shell: Shell, *commands: tuple[str, ...]) -> list[str | list[str]]:
    """What went wrong, and, after each command, the modules of commands that are loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([str(shell.config), NEVER, commands])],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120, cwd=shell.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr)


def test_a_command_loads_no_gateway_and_no_other_command(shell: Shell) -> None:
    first, *rest = loaded(shell, *COMMANDS)
    assert first == [f"farebox.cli.{name}_commands" for name in ("budget", "key", "limit")], "those with the group `keys`"
    wrong = [text for text in rest if isinstance(text, str)]
    assert not wrong, f"import it where it is used, or move what is shared out of it: {wrong}"
    assert len(rest) == len(COMMANDS) - 1


def test_every_command_is_on_the_shelf() -> None:
    for name, modules in MODULES.items():
        assert cli.commands[name].name == name, modules
    folder = Path(package.__file__).parent
    files = {path.stem for path in folder.glob("*_commands.py")} - {"price_book_commands"}
    assert files == {module for modules in MODULES.values() for module in modules}
    made = {command.name for file in files for command in sys.modules[f"farebox.cli.{file}"].COMMANDS}
    assert made == set(MODULES), "what a module makes can be called"
