"""The compiled package: complete, alone, and what `make test` starts its servers from."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tests.build.test_listed_modules import LISTED
from tests.support.running import COMPILED, Farebox

from bench import compiled
from farebox import compiled as running

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture(scope="module")
def package() -> Path:
    """The one that `make test` names, or the one that is there."""
    if COMPILED is not None:
        return COMPILED
    try:
        compiled.check(compiled.FOLDER)
    except compiled.NotCompiled as error:
        pytest.skip(f"{error}, as `make test` does")
    return compiled.FOLDER


def test_every_listed_module_has_its_extension_beside_its_source(package: Path) -> None:
    wanted = {name.removesuffix(".py") + SUFFIX for name in LISTED} | {compiled.GROUP + SUFFIX}
    assert {str(path.relative_to(package)) for path in package.rglob("*.so")} == wanted
    assert all((package / name).is_file() for name in LISTED), "it is for people, and for whoever wants to run it"


def test_it_works_away_from_the_checkout_and_without_what_built_it(package: Path, tmp_path: Path) -> None:
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    names = [name.removesuffix(".py").replace("/", ".") for name in LISTED]
    program = (
        f"import sys; sys.path[:0] = [{str(package)!r}]; sys.path.append({packages!r})\n"
        "for name in ('mypy', 'mypyc', 'mypy_extensions', 'librt', 'setuptools', 'hatchling'): sys.modules[name] = None\n"
        "import importlib\n"
        f"for name in {names}: assert importlib.import_module(name).__file__.endswith({SUFFIX!r}), name\n"
        "from farebox.cli import main; main()"
    )
    # `-S` leaves out the editable install's path file.
    run = [sys.executable, "-S", "-c", program]
    made = subprocess.run([*run, "init", "--data", str(tmp_path / "data"), "--json"], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["account"] == "default"
    version = subprocess.run([*run, "--version"], capture_output=True, text=True, timeout=60)
    assert version.stdout.strip().endswith(", compiled"), version.stderr


def test_servers_under_test_are_compiled(tmp_path: Path) -> None:
    """Where `make test` says so; by hand they are interpreted."""
    with Farebox(tmp_path / "box") as box:
        assert box.process is not None
        pids = {"supervisor": box.process.pid, **box.children()}
        assert set(pids) == {"supervisor", "worker", "bookkeeper"}
        assert {name: compiled.runs_compiled(pid) for name, pid in pids.items()} == dict.fromkeys(pids, COMPILED is not None)
        (said,) = [one for one in box.cli("doctor", check=False)["findings"] if one["subject"] == "program"]
        assert said["text"].startswith("interpreted" if COMPILED is None else "compiled")


def test_units_are_interpreted() -> None:
    """Whoever calls them in the test's own process may replace what they like, and coverage and tracebacks are whole."""
    assert not running.is_compiled() and running.word() == "interpreted"


def test_make_and_the_check_of_a_change_test_the_compiled_package() -> None:
    """Without that variable every server would be interpreted, and nobody would see it."""
    for name in ("Makefile", ".ci/run"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if "-m pytest" in line]
        assert lines and all("FAREBOX_COMPILED_PATH=" in line for line in lines), f"{name}: {lines}"


def test_a_package_of_another_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(compiled.NotCompiled, match="there is no compiled package in .*; `make compiled` makes it"):
        compiled.check(tmp_path)
    (tmp_path / f"{compiled.GROUP}{SUFFIX}").touch()
    with pytest.raises(compiled.NotCompiled, match="was made from another source, .* differs; `make compiled` makes it anew"):
        compiled.check(tmp_path)
