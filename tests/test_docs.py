"""The pages are true: commands in them parse, configurations load, links lead somewhere, generated pages are up to date."""

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from farebox.cli import cli, reference
from farebox.config import file as config
from farebox.edge.app import GENERATE
from farebox.edge.routes import ROUTES
from farebox.errors import Kind
from farebox.market import make_market

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").iterdir())
DECISION_LINES_MAX = 40


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def commands() -> list[tuple[str, list[str]]]:
    """Every `farebox …` line in the shell blocks of the pages."""
    found: list[tuple[str, list[str]]] = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                start = re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?farebox ", line)
                if start is not None:
                    found.append((page.name, shlex.split(line[start.end() :], comments=True)))
    return found


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_commands_in_pages_parse(page: str, words: list[str]) -> None:
    group: click.Command = cli
    context = click.Context(cli, info_name="farebox", **cli.context_settings)
    rest = list(words)
    while isinstance(group, click.Group):
        assert rest and rest[0] in group.commands, f"{page}: there is no `farebox {' '.join(words)}`"
        group = group.commands[rest.pop(0)]
    group.make_context("farebox", rest, parent=context)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 6


TOML = [(page.name, block) for page in PAGES for block in blocks(page, "toml")]


@pytest.mark.parametrize(("page", "text"), TOML, ids=[page for page, _ in TOML])
def test_configurations_in_pages_load(page: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "farebox.toml"
    path.write_text(text)
    loaded = config.load(path, {"LAB_KEY": "secret"})
    market, providers = make_market(loaded, local_url=None)
    assert set(loaded.config.providers) <= set(providers)
    assert {model.slug for model in loaded.config.models} <= set(market.targets), f"{page}: its models can be called"


def test_python_in_pages_parses() -> None:
    found = [block for page in PAGES for block in blocks(page, "python")]
    assert found
    for block in found:
        ast.parse(block)


def test_json_in_pages_is_json() -> None:
    for page in PAGES:
        for block in blocks(page, "json"):
            json.loads(block)


def targets_of_make() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_has_the_targets_that_pages_name() -> None:
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)`", page.read_text()))
        named |= {word for block in blocks(page, "sh") for word in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)}
        assert named <= targets_of_make(), f"{page.name}: the Makefile has no {named - targets_of_make()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_pages_exist(page: Path) -> None:
    for name in re.findall(r"`((?:src|tests|docs|examples|requirements)/[\w./-]+)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name}: `{name}` is not there"


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, f"README.md does not lead to docs/{page.name}"


@pytest.mark.parametrize(("page", "made"), [("configuration", "config"), ("cli", "cli")])
def test_generated_pages_are_up_to_date(page: str, made: str) -> None:
    stored = (ROOT / "docs" / f"{page}.md").read_text()
    assert stored == reference.PAGES[made](), (
        f"docs/{page}.md is old: `.venv/bin/python -m farebox.cli.reference {made} > docs/{page}.md`"
    )


def test_help_texts_fit_100_columns() -> None:
    for block in blocks(ROOT / "docs" / "cli.md", "text"):
        # The table of directives is the simulator's own, with a width of its own.
        lines = [line for line in block.splitlines() if not re.match(r"[a-z0-9-]+(\[?=|  )", line)]
        assert max(map(len, lines)) <= reference.WIDTH


def test_decisions_are_numbered_and_short() -> None:
    found = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for number, path in enumerate(found, start=1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04d}-") and text.startswith(f"# {number}. "), path.name
        assert text.count("\n") <= DECISION_LINES_MAX, f"{path.name} is longer than {DECISION_LINES_MAX} lines"


def test_the_api_page_names_every_endpoint_and_every_code() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    for path in GENERATE:
        assert f"/v1{path}" in text, f"docs/api.md does not name `/v1{path}`"
    for route in ROUTES:
        path = route.path.removesuffix("*")
        assert path in text, f"docs/api.md does not name `{route.method} {path}`"
    for kind in Kind:
        assert f"`{kind.code}`" in text, f"docs/api.md does not name the code `{kind.code}`"


def test_every_header_of_ours_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    source = "\n".join(path.read_text() for path in (ROOT / "src" / "farebox").rglob("*.py") if "simulator" not in path.parts)
    internal = {"x-farebox-attempt"}  # towards providers of one's own
    for header in sorted(set(re.findall(r"x-farebox-[a-z-]+", source)) - internal):
        assert header in text, f"docs/api.md does not name `{header}`"


# --- examples ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_parse(path: Path) -> None:
    checkers = {".py": None, ".sh": ["sh", "-n"], ".mjs": ["node", "--check"]}
    checker = checkers[path.suffix]
    if checker is None:
        ast.parse(path.read_text())
        return
    if shutil.which(checker[0]) is None:
        pytest.skip(f"`{checker[0]}` is not installed")
    done = subprocess.run([*checker, str(path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
