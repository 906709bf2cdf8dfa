"""The house rules, each with the reason in the sentence that it fails with."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from farebox.catalog import loader
from farebox.cli import reference
from farebox.config import file as config
from farebox.failpoints import POINTS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "farebox"
LINES_MAX = 600


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below `farebox`."""
    found: dict[str, ast.Module] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def place(name: str, node: ast.AST | None = None) -> str:
    return f"farebox.{name}" + (f", line {getattr(node, 'lineno', '?')}" if node is not None else "")


def _for_types_only(tree: ast.Module) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found.update(id(child) for child in ast.walk(node))
    return found


@cache
def imports(name: str) -> tuple[tuple[str, int], ...]:
    """Everything that a module imports when it runs, as dotted names; `from x import y` counts as `x` and `x.y`."""
    tree = modules()[name]
    typing_only = _for_types_only(tree)
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # `from .pool import …` inside a package: `name` is the package itself or a module in it.
            package = f"farebox.{name.partition('.')[0]}." if node.level == 1 else ""
            found.append((package + node.module, node.lineno))
            found += [(f"{package}{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def parts() -> set[str]:
    """The names directly below `farebox`."""
    return {name.partition(".")[0] for name in modules()}


# --- arrows ------------------------------------------------------------------------------------------------------------------

ARROWS: dict[str, set[str]] = {
    # who → whom it may know; what is not listed may know everybody (the roots: app, cli, demo, processes, __main__)
    "errors": set(),
    "money": set(),
    "ports": set(),
    "failpoints": set(),
    "wires": {"errors"},
    "providers": {"wires"},
    "catalog": {"errors", "money", "providers"},
    "config": {"display", "money"},
    "compiled": {"money"},
    "display": {"money"},
    "exchange": {"gate", "surface", "wires"},
    "fiber": {"step"},
    "step": set(),
    "snapshot": set(),
    "settings": {"gate"},
    "surface": {"gate", "wires"},
    "turn": {"fiber"},
    "transport": {"fiber", "turn"},
    "storage": {"ports"},
    "vault": set(),
    "billing": {"catalog", "display", "money", "ports", "storage", "vault", "wires"},
    # What people are told, and what money comes in: it reads the books and speaks to the outside, off the way of a call.
    "control": {"billing", "money", "ports", "storage", "transport"},
    # What a key may use is the router's to keep (`routing.allowance`).
    "gate": {"billing", "errors", "money", "ports", "routing", "wires"},
    "reconciliation": {"billing", "catalog", "money", "ports", "storage", "transport", "wires"},
    "quality": {"wires"},
    "embedding": set(),
    "sorting": {"embedding", "routing", "wires"},
    "replay": {"billing", "catalog", "errors", "routing", "storage", "wires"},
    "escalation": {"billing", "bridge", "errors", "quality", "routing", "verdict", "wires"},
    "routing": {"billing", "catalog", "errors", "money", "ports", "providers", "quality", "wires"},
    "bridge": {"errors", "routing", "wires"},
    "continuation": {"billing", "bridge", "errors", "routing", "wires"},
    "telemetry": {"snapshot"},
    "verdict": {"errors", "routing", "wires"},
    "probes": {"ports", "providers", "routing", "transport"},
    "rating": {"billing", "bridge", "escalation", "quality", "routing", "transport", "wires"},
    "attempt": {
        "billing", "bridge", "errors", "escalation", "fiber", "rating", "routing", "step", "transport", "verdict", "wires",
    },
    "flight": {
        "attempt", "billing", "bridge", "continuation", "errors", "escalation", "exchange", "fiber", "money", "routing",
        "step", "verdict", "wires",
    },
    "gateway": {
        "billing", "catalog", "exchange", "flight", "gate", "ports", "routing", "settings", "sorting", "telemetry",
        "transport", "turn", "wires",
    },
    "monotonic_health": {"ports", "routing"},
    "market": {"billing", "catalog", "config", "providers", "routing", "wires"},
    "configured_routing": {"catalog", "config", "embedding", "errors", "market", "providers", "routing", "sorting"},
    "outside": {"billing", "config", "failpoints", "ports", "storage"},
    "pepper": {"config", "gate"},
    "terms": {"billing", "config", "gate", "money", "pepper"},
    "metering": {"billing", "errors", "exchange", "gate", "gateway", "routing", "wires"},
    "race": {"billing", "continuation", "errors", "exchange", "flight", "routing", "verdict"},
    "pipeline": {
        "billing", "bridge", "continuation", "errors", "exchange", "fiber", "flight", "gate", "gateway", "metering", "money",
        "race", "routing", "step", "wires",
    },
    "edge": {
        "attempt", "billing", "bridge", "catalog", "display", "errors", "exchange", "fiber", "gate", "gateway", "metering",
        "money", "pipeline", "ports", "routing", "storage", "surface", "telemetry", "transport", "turn", "vault", "verdict",
        "wires",
    },
    "simulator": {"wires"},
}  # fmt: skip
"""`edge → pipeline → {gate, routing, billing} → {wires, providers, catalog, money, errors}`, written out."""
ROOTS = {"", "__init__", "__main__", "app", "cli", "demo", "processes"}


@pytest.mark.parametrize("part", sorted(ARROWS))
def test_arrows_point_one_way(part: str) -> None:
    allowed = ARROWS[part] | {part}
    for name in modules():
        if name.partition(".")[0] != part:
            continue
        for imported, line in imports(name):
            steps = imported.split(".")
            if steps[0] == "farebox" and len(steps) > 1 and steps[1] in parts():
                assert steps[1] in allowed, (
                    f"farebox.{name}, line {line}: `{part}` does not know `{steps[1]}`; arrows point one way, so that each part "
                    "can be read and tested without those above it. Move the code, pass the thing in, or argue for a new arrow"
                )


FOLDERS = ("books", "sealing", "posting", "accounts", "invoicing", "payments", "invariants")
"""Of `billing`: what becomes of a call's money, in the order in which they may know each other."""


@pytest.mark.parametrize("name", [name for name in modules() if name.startswith("billing.")])
def test_folders_of_billing_know_only_those_before_them(name: str) -> None:
    """What a call touches knows none of them."""
    steps = name.split(".")
    allowed = FOLDERS[: FOLDERS.index(steps[1]) + 1] if steps[1] in FOLDERS else ()
    for imported, line in imports(name):
        if imported.startswith("farebox.billing.") and (folder := imported.split(".")[2]) in FOLDERS:
            assert folder in allowed, f"{place(name)}, line {line}: `billing.{folder}` comes later; move the code, or pass it in"


def test_every_part_has_its_arrows() -> None:
    missing = parts() - set(ARROWS) - ROOTS
    assert not missing, f"say in ARROWS whom {', '.join(sorted(missing))} may know"


def test_nothing_needs_the_demo() -> None:
    for name in modules():
        if name.partition(".")[0] == "demo" or name == "cli.demo_commands":
            continue
        for imported, line in imports(name):
            assert not imported.startswith("farebox.demo"), (
                f"farebox.{name}, line {line}: the demo plays with the product; what the product needs has to live in it"
            )


PURE = (
    "demo.organisation", "demo.traffic", "demo.chance",
    "wires", "providers", "catalog", "routing", "quality", "escalation", "replay",
    "reconciliation.statement", "reconciliation.judging", "reconciliation.by_request", "reconciliation.by_day",
    "reconciliation.comparison", "reconciliation.figures", "reconciliation.reports", "reconciliation.reading",
    "reconciliation.csv_files", "reconciliation.openai_reports", "reconciliation.anthropic_reports",
    "reconciliation.openrouter_activity",
    "money", "display", "errors", "billing.pricing", "billing.meter", "billing.budgets",
    "billing.bounds", "billing.records", "billing.markup", "billing.books.periods", "billing.sealing.receipts",
    "billing.sealing.receipt_audit", "billing.sealing.signatures",
    "gate.limits", "gate.limit_table", "gate.keys", "gate.permissions", "gate.addresses", "gate.provider_secret",
    "vault.envelope",
    "control.signing", "control.addresses", "control.messages",
)  # fmt: skip
IMPURE = {"asyncio", "socket", "ssl", "sqlalchemy", "time", "random", "uuid", "secrets", "threading", "subprocess", "httptools"}


def is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


@pytest.mark.parametrize("part", PURE)
def test_the_middle_is_pure(part: str) -> None:
    for name in modules():
        if is_in(name, part):
            for imported, line in imports(name):
                assert imported.partition(".")[0] not in IMPURE, (
                    f"farebox.{name}, line {line}: `{imported}` does I/O, waits or asks a clock; here time, chance and bytes are "
                    "arguments, so that a test can be a sentence"
                )


def test_only_the_transport_opens_connections_to_providers() -> None:
    allowed = {
        "transport": "it is the upstream client",
        "simulator": "it is a provider for tests, in a process of its own",
        "processes.supervisor": "it looks whether the local model's port answers",
    }
    openers = {"create_connection", "open_connection", "sock_connect", "create_unix_connection", "urlopen", "HTTPConnection"}
    for name, tree in modules().items():
        if any(is_in(name, part) for part in allowed):
            continue
        for node in ast.walk(tree):
            called = getattr(node, "attr", getattr(node, "id", ""))
            assert called not in openers, (
                f"{place(name, node)}: `{called}`: only farebox.transport opens upstream connections; there time-outs, proxies, "
                "TLS and bounds hold for all"
            )


def test_the_way_of_a_call_touches_no_database() -> None:
    for name in ("pipeline", "flight", "attempt", "bridge", "gateway", "billing.settlement", "billing.holds", "billing.journal"):
        for imported, line in imports(name):
            assert not imported.startswith(("sqlalchemy", "farebox.storage")), (
                f"farebox.{name}, line {line}: the way of a call touches no database; the bookkeeper does"
            )


CHANCE_AND_CLOCKS = {"time", "random", "uuid", "secrets"}
CLOCKS_ALLOWED = {
    "ports": "it is the one source",
    "processes": "they wait for other processes",
    "cli.setup": "it makes the pepper, once",
    "simulator": "a provider for tests, which keeps time of its own",
}


def test_time_and_chance_come_from_ports() -> None:
    for name in modules():
        if any(is_in(name, part) for part in CLOCKS_ALLOWED):
            continue
        for imported, line in imports(name):
            assert imported.partition(".")[0] not in CHANCE_AND_CLOCKS, (
                f"farebox.{name}, line {line}: `{imported}`: time and chance come from farebox.ports, so that tests can move the "
                f"clock; exceptions: {CLOCKS_ALLOWED}"
            )


def test_nobody_asks_datetime_for_the_time() -> None:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"now", "utcnow", "today"} or "datetime" not in ast.unparse(node.func.value), (
                    f"{place(name, node)}: the time comes from a `Clock` (farebox.ports)"
                )


@pytest.mark.parametrize("module", ["farebox.processes.worker", "farebox.processes.bookkeeper"])
def test_the_sdk_of_stripe_is_loaded_only_where_it_is_used(module: str) -> None:
    """Never in a worker; elsewhere when the first payment needs it."""
    names = ("stripe", "requests", "farebox.control.till")
    code = f"import sys, {module}; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = [] if module.endswith("worker") else ["farebox.control.till"]
    assert done.stdout.strip() == str(wanted), "the SDK is synchronous and large: workers write a row, the bookkeeper's till asks"


# --- money -------------------------------------------------------------------------------------------------------------------

MONEY = (
    "billing.accounts.budget_commands", "billing.covering", "billing.books.carrying",
    "display",
    "reconciliation.statement", "reconciliation.judging", "reconciliation.by_request", "reconciliation.by_day",
    "reconciliation.comparison", "reconciliation.figures", "reconciliation.reports", "reconciliation.reading",
    "reconciliation.csv_files", "reconciliation.openai_reports", "reconciliation.anthropic_reports",
    "reconciliation.openrouter_activity",
    "reconciliation.runs", "reconciliation.records", "billing.invariants.check_reconciliations",
    "money", "catalog.rates", "catalog.price", "catalog.configured", "catalog.loader", "billing.pricing", "billing.bounds",
    "billing.meter", "billing.settlement", "billing.records", "billing.posting.recovery", "billing.books.scopes",
    "billing.books.allotments", "billing.books.ledger", "billing.books.transfers", "billing.posting.batch",
    "billing.posting.poster", "billing.posting.care", "billing.accounts.adjustments", "billing.invariants.checks",
    "billing.books.customers", "billing.markup", "billing.books.volumes", "billing.books.breakdown", "billing.invoicing.exports",
    "billing.invoicing.export_files", "billing.invoicing.focus", "billing.invoicing.invoices", "billing.invoicing.months",
    "billing.invoicing.credit_notes", "billing.accounts.compare", "billing.accounts.price_book", "catalog.book",
    "catalog.changes", "catalog.imports", "billing.invoicing.dunning", "billing.invariants.check_invoices",
    "billing.accounts.alerts", "billing.books.hours", "billing.accounts.codes", "billing.payments.card_payments",
    "billing.payments.bill_payments", "config.payments", "billing.sealing.receipts", "billing.sealing.receipt_forms",
    "billing.sealing.receipt_audit", "billing.invariants.check_seals", "billing.sealing.seal_runs", "billing.payments.reversals",
    "billing.invariants.check_cards", "billing.payments.auto_topups",
)  # fmt: skip


@pytest.mark.parametrize("name", MONEY)
def test_no_float_touches_money(name: str) -> None:
    for node in ast.walk(modules()[name]):
        floats = (
            (isinstance(node, ast.Constant) and isinstance(node.value, float))
            or (isinstance(node, ast.Name) and node.id == "float")
            or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
        )
        assert not floats, (
            f"{place(name, node)}: `{ast.unparse(node)}` makes a float, and a float cannot hold a price; use integers, `//` and "
            "`farebox.money.divide_half_even`"
        )


# --- files -------------------------------------------------------------------------------------------------------------------


@cache
def texts() -> dict[Path, str]:
    """What people read and run, by its path from the root; what is only data or made by a tool is left out."""
    folders = ("src", "tests", "docs", "examples", "tools", "bench")
    listed = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    listed += [*sorted(ROOT.glob("*.md")), ROOT / "hatch_build.py", ROOT / "Makefile", ROOT / "pyproject.toml"]
    wanted = {".py", ".md", ".toml", ".sh", ".mjs", ".mako", ".in", ""}
    found = {path.relative_to(ROOT): path for path in listed if path.is_file() and path.suffix in wanted}
    return {name: path.read_text() for name, path in found.items() if "__pycache__" not in name.parts}


def test_files_can_be_read_in_one_sitting() -> None:
    for path, text in texts().items():
        count = text.count("\n")
        assert path.suffix != ".py" or count <= LINES_MAX, f"{path} has {count} lines; above {LINES_MAX} it wants to be two files"


def test_every_module_says_what_it_is() -> None:
    for name, tree in modules().items():
        assert ast.get_docstring(tree), f"farebox.{name} opens with a few lines on what it owns and what it leaves to others"


def test_every_test_module_says_what_it_protects() -> None:
    for path, text in texts().items():
        if path.parts[0] == "tests" and path.suffix == ".py" and text.strip():
            assert ast.get_docstring(ast.parse(text)), f"{path} opens with what its tests protect"


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
    for path, text in texts().items():
        found = mark.search(text)
        assert found is None, f"{path}: `{found[0]}`: do it now, or write it where such things are decided" if found else ""


REGISTRIES = ("pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "index" + "-url =")


def test_no_registry_addresses() -> None:
    files = {**texts(), **{path.relative_to(ROOT): path.read_text() for path in (ROOT / "requirements").iterdir()}}
    for path, text in files.items():
        for address in REGISTRIES:
            assert address not in text, f"{path}: `{address}`: where packages come from is the business of whoever installs them"


def test_no_paths_of_one_machine() -> None:
    path_like = re.compile(r"(?<![\w./:~-])/(?:home|root|work|Users|mnt|srv)/\w+")
    for path, text in texts().items():
        found = path_like.search(text)
        assert found is None, f"{path}: `{found[0]}` exists on one machine only" if found else ""


# --- promises ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", [title for title, _ in reference.SECTIONS])
def test_every_setting_is_documented(title: str) -> None:
    struct = dict(reference.SECTIONS)[title]
    documented = reference.field_docs(struct)
    missing = [name for name in struct.__struct_fields__ if not documented.get(name)]
    assert not missing, f"{title}: say in farebox/config.py what {', '.join(missing)} means; the reference page is made from it"


def test_every_section_is_in_the_reference() -> None:
    known = {struct for _, struct in reference.SECTIONS}
    sections = {
        value
        for value in vars(config).values()
        if isinstance(value, type) and value.__module__.startswith(config.__name__) and hasattr(value, "__struct_fields__")
    }
    left_out = {struct.__name__ for struct in sections - known if not struct.__name__.startswith("_")} - {"Config", "Loaded"}
    assert not left_out, f"name {', '.join(left_out)} in farebox.cli.reference.SECTIONS"


READERS = {
    "[providers.NAME]": ("market", "config.providers", "providers.registry"),
    "[[models]]": ("market", "catalog.configured"),
    "models.offers": ("market", "catalog.configured"),
    "models.offers.tiers": ("catalog.configured",),
    "[markup.NAME]": ("billing.markup",),
    "markup.NAME.volume": ("billing.markup",),
    "markup.NAME.rules": ("billing.markup",),
    "[policies.NAME]": ("configured_routing", "routing.policy", "config", "config.routing"),
    "policies.NAME.max_price": ("routing.filters",),
    "policies.NAME.preferred_*": ("routing.preferences", "routing.measured"),
}
"""Who has to read a section; any module for the others."""


@pytest.mark.parametrize(
    "title", [title for title, _ in reference.SECTIONS]
)
def test_every_setting_is_read_by_something(title: str) -> None:
    trees = [modules()[name] for name in READERS.get(title, tuple(modules()))]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    silent = [name for name in dict(reference.SECTIONS)[title].__struct_fields__ if name not in read]
    assert not silent, f"{title}: nothing reads {', '.join(silent)}; a setting without effect is a lie"


def test_every_fail_point_is_visited() -> None:
    visited: set[str] = set()
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("fail_point") and node.args:
                argument = node.args[0]
                visited.add(str(argument.value) if isinstance(argument, ast.Constant) else "")
    assert visited - {""} == set(POINTS), (
        f"never visited: {sorted(set(POINTS) - visited)}, unknown: {sorted(visited - set(POINTS) - {''})}; "
        "a fail point that nobody passes makes its test pass for nothing"
    )


@cache
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_licence_is_stated() -> None:
    assert project()["license"] == "MIT" and project()["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    optional = project()["optional-dependencies"]
    assert isinstance(optional, dict)
    stated = [*project()["dependencies"], *(text for texts_ in optional.values() for text in texts_)]  # type: ignore[misc]
    built_with = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for text in [*stated, *built_with]:
        name = re.split(r"[\[<>=~! ]", text)[0]
        assert f"`{name}`" in page, f"give `{name}` its reason, licence and upkeep in docs/decisions/0002-dependencies.md"


@pytest.mark.parametrize("name", ["run", "test", "weights"])
def test_locks_have_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    for address in ("://", "--index", "--find-links"):
        assert address not in text, f"{name}.lock names an address (`{address}`); `make lock` writes it without"
    entries = [entry for entry in text.replace("\\\n", " ").splitlines() if entry.strip() and not entry.startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9_.-]+==\S+", entry) and "--hash=sha256:" in entry, (
            f"{name}.lock: `{entry[:60]}` has no exact version with hashes; `make lock` writes them"
        )


def test_the_lock_has_every_dependency() -> None:
    lock = (ROOT / "requirements" / "run.lock").read_text()
    for text in project()["dependencies"]:  # type: ignore[attr-defined]
        name = re.split(r"[\[<>=~! ]", text)[0]
        assert re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE), f"`{name}` is not in run.lock; `make lock`"


# --- the wheel ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("wheel")
    # Not compiled: tests/build has those, and what is in it besides is the same.
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder)]
    environment = {**os.environ, "FAREBOX_PURE": "1", "FAREBOX_COMPILED": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    yield folder / done.stdout.strip().splitlines()[-1]


def test_the_wheel_has_what_the_program_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"catalog/models.jsonl", "catalog/local.jsonl", "catalog/retired.jsonl", "storage/migrations/env.py", "py.typed"}
    wanted |= {"billing/invoicing/invoice.typ"}
    wanted |= {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")}
    missing = sorted(name for name in wanted if f"farebox/{name}" not in names)
    assert not missing, f"the wheel lacks {missing}"
    assert any(name.endswith("licenses/LICENSE") for name in names), "the wheel carries its licence"
    strangers = sorted(name for name in names if not name.startswith(("farebox/", "farebox-")))
    assert not strangers, f"the wheel has {strangers[:3]}, which other packages could overwrite"
    assert not any("__pycache__" in name for name in names)


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    # An environment without the checkout: the wheel unpacked, with this one's packages behind it.
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    program = (
        f"import sys; sys.path[:0] = [{str(site)!r}]; sys.path.append({packages!r}); import farebox; "
        f"assert farebox.__file__.startswith({str(site)!r}), farebox.__file__; from farebox.cli import main; main()"
    )
    # `-S` leaves out the editable install's path file.
    run = [sys.executable, "-S", "-c", program]
    made = subprocess.run([*run, "init", "--data", str(tmp_path / "data"), "--json"], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["account"] == "default"
    listed = subprocess.run(
        [*run, "prices", "list", "--json", "--config", str(tmp_path / "data" / "farebox.toml")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert len(json.loads(listed.stdout)["models"]) == len(loader.load())


def test_nothing_waits_between_a_hold_and_the_flight_that_ends_it() -> None:
    """A call that is cancelled while it waits there would leave its hold open until the worker's next life."""
    tree = ast.parse((SOURCE / "pipeline.py").read_text())
    answer = next(node for node in tree.body if isinstance(node, ast.AsyncFunctionDef) and node.name == "answer")
    waits = [node.lineno for node in ast.walk(answer) if isinstance(node, ast.Await)]
    calls = {ast.unparse(node.func): node.lineno for node in ast.walk(answer) if isinstance(node, ast.Call)}
    held, flies = calls["open_hold"], calls["flight.run"]
    assert held < calls["Flight.of"] < flies
    assert not [line for line in waits if held <= line < min(flies, calls["race.run"])]
