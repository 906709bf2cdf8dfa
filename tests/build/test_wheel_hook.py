"""Builds of the wheel: compiled where that is possible, without where it is not or not wanted, and never half of it silently."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("farebox_hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The build of this project, around two small modules; the first is listed."""
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    listing(tmp_path, "farebox/counting.py")
    package = tmp_path / "src" / "farebox"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    twice = "from farebox import others\n\n\ndef twice(n: int) -> int:\n    return others.plus(n, n)\n"
    (package / "counting.py").write_text(twice)
    (package / "others.py").write_text("def plus(a: int, b: int) -> int:\n    return a + b\n\n\nWRONG: int = 'text'\n")
    return tmp_path


def listing(project: Path, *names: str) -> None:
    text = (project / "pyproject.toml").read_text()
    begin = text.index("compiled = [")
    end = text.index("]", begin)
    (project / "pyproject.toml").write_text(text[:begin] + f"compiled = [{', '.join(map(repr, names))}" + text[end:])


def build(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name not in {"FAREBOX_PURE", "FAREBOX_COMPILED"}}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(project / "dist")]
    return subprocess.run(
        command, cwd=project, env={**given, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def refused(project: Path, **environment: str) -> str:
    """What was said by a build that ended in an error, and left no wheel."""
    done = build(project, **environment)
    assert done.returncode == 1, done.stderr
    assert not list(project.glob("dist/*.whl"))
    assert "Traceback" not in done.stderr
    return done.stderr


def extensions(project: Path) -> list[str]:
    (wheel,) = project.glob("dist/*.whl")
    return sorted(name.partition(".")[0] for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so"))


def test_a_pure_wheel_says_that_it_is_one(project: Path) -> None:
    done = build(project, FAREBOX_PURE="1")
    assert done.returncode == 0 and "FAREBOX_PURE=1" in done.stderr
    assert extensions(project) == []
    assert [path.name for path in project.glob("dist/*")] == ["farebox-0.1.0-py3-none-any.whl"]


def test_without_a_compiler_the_wheel_is_pure_and_says_what_to_install(project: Path) -> None:
    done = build(project, CC="no-such-compiler")
    assert done.returncode == 0
    assert "no C compiler `no-such-compiler`" in done.stderr and "apt-get install gcc python3-dev" in done.stderr
    assert extensions(project) == []


def test_without_a_compiler_it_is_an_error_where_a_compiled_one_is_asked_for(project: Path) -> None:
    said = refused(project, CC="no-such-compiler", FAREBOX_COMPILED="1")
    assert "no C compiler `no-such-compiler`" in said and "apt-get install gcc python3-dev" in said


def test_switches_that_contradict_each_other_or_are_unknown_are_refused(project: Path) -> None:
    assert "contradict" in refused(project, FAREBOX_PURE="1", FAREBOX_COMPILED="1")
    assert "FAREBOX_PURE is `yes`; set it to 1, or to 0" in refused(project, FAREBOX_PURE="yes")


def test_an_editable_install_needs_no_compiler(project: Path) -> None:
    """It is what `make run` waits for; nothing of what is listed is even looked at."""
    listing(project, "farebox/gone.py")
    command = [sys.executable, "-c", "from hatchling.build import build_editable; print(build_editable('dist'))"]
    environment = {**os.environ, "CC": "no-such-compiler", "FAREBOX_COMPILED": "1"}
    (project / "dist").mkdir()
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert extensions(project) == []


def test_a_list_that_is_wrong_is_refused(project: Path) -> None:
    listing(project, "farebox/gone.py")
    assert "there is no module src/farebox/gone.py" in refused(project)
    listing(project, "farebox/counting.py", "farebox/counting.py")
    assert "farebox/counting.py is there twice" in refused(project, FAREBOX_PURE="1")


def test_a_wrong_type_in_a_listed_module_is_an_error(project: Path) -> None:
    listing(project, "farebox/others.py")
    said = refused(project)
    assert "farebox/others.py:5: error: Incompatible types in assignment" in said
    assert "tool.farebox.compiled" in said


def test_headers_of_python_are_looked_for(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "commands", lambda: ([sys.executable], []))
    monkeypatch.setattr(hook.sysconfig, "get_path", lambda _: str(tmp_path))
    assert hook.missing() == f"there is no {tmp_path / 'Python.h'}"
    (tmp_path / "Python.h").touch()
    assert hook.missing() == ""


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@needs_compiler
def test_only_what_changed_is_compiled_again(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "commands", lambda: (["cc", "-fPIC"], ["cc", "-shared"]))
    header, first, second = tmp_path / "one.h", tmp_path / "first.c", tmp_path / "second.c"
    header.write_text("#define ONE 1\n")
    first.write_text('#include "one.h"\nint first(void) { return ONE; }\n')
    second.write_text("int second(void) { return 2; }\n")

    def compiled(*words: str) -> int:
        hook.digest.cache_clear()
        workshop = hook.Workshop()
        extension = hook.Extension("both", [str(first), str(second)], [], list(words))
        objects = [workshop.compile(source, extension) for source in (first, second)]
        workshop.link(objects, tmp_path / "wheel" / "both.so")
        return int(workshop.compiled)

    assert [compiled(), compiled()] == [2, 0]
    before = (tmp_path / "wheel" / "both.so").read_bytes()
    header.write_text("#define ONE 11\n")
    assert [compiled(), compiled()] == [1, 0]
    assert (tmp_path / "wheel" / "both.so").read_bytes() != before
    assert compiled("-O1") == 2
    first.write_text("not C\n")
    with pytest.raises(SystemExit, match=r"(?s)the C compiler failed: cc .*first\.c"):
        compiled("-O1")
    first.write_text("int first(void) { return 1; }\n")
    header.unlink()
    assert compiled("-O1") == 1


@needs_compiler
@pytest.mark.full
def test_a_small_project_compiled(project: Path) -> None:
    """What its unlisted modules have wrong in their types keeps nobody from building."""
    done = build(project, FAREBOX_COMPILED="1")
    assert done.returncode == 0, done.stderr
    assert extensions(project) == ["farebox/counting", "farebox__mypyc"]
    assert not list(project.glob("dist/*-none-any.whl"))
