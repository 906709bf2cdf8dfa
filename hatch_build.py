"""Builds the wheel: the modules under `[tool.farebox] compiled` in pyproject.toml become C extensions, beside their source.

They are compiled by mypyc (docs/decisions/0021-hot-modules-are-compiled.md). An editable install, as `make run` makes it, is
interpreted and needs none of this. FAREBOX_PURE=1 asks for a wheel without extensions, FAREBOX_COMPILED=1 refuses to make one.
What was compiled stays in `build/compiled`, so that the next build compiles only what has changed since.
"""

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GROUP = "farebox"
"""All modules are one shared library, `farebox__mypyc`, so that they call each other directly; beside each lies a door to it."""
EXTENSIONS = "extensions.json"
INSTALL = "Debian: apt-get install gcc python3-dev"


def say(text: str) -> None:
    print(f"farebox: {text}", file=sys.stderr, flush=True)


def refuse(text: str) -> NoReturn:
    sys.exit(f"farebox: {text}")


def asked(name: str) -> bool:
    """Whether a switch of the environment is on."""
    value = os.environ.get(name, "")
    if value not in {"", "0", "1"}:
        refuse(f"{name} is `{value}`; set it to 1, or to 0")
    return value == "1"


def listed_modules(root: Path, tool: dict[str, Any]) -> list[str]:
    """The paths below `src`, as pyproject.toml has them."""
    listed: list[str] = tool["farebox"]["compiled"]
    for name in listed:
        if not name.endswith(".py") or not (root / "src" / name).is_file():
            refuse(f"pyproject.toml, `tool.farebox.compiled`: there is no module src/{name}; correct or remove it")
        if listed.count(name) > 1:
            refuse(f"pyproject.toml, `tool.farebox.compiled`: {name} is there twice")
    return listed


def commands() -> tuple[list[str], list[str]]:
    """How this Python's extensions are compiled and linked; CC, CFLAGS and the like in the environment count."""
    import setuptools  # noqa: F401  it brings distutils, which newer Pythons have no more

    # isort: split
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    compiler: Any = new_compiler()
    customize_compiler(compiler)
    return compiler.compiler_so, compiler.linker_so


def missing() -> str:
    """What of the machine's own is missing to compile."""
    try:
        import mypyc.build  # noqa: F401

        compile_words, _ = commands()
    except ImportError as error:
        refuse(f"{error}; mypy and setuptools compile: `make .venv/test.stamp` installs them, FAREBOX_PURE=1 does without")
    if shutil.which(compile_words[0]) is None:
        return f"there is no C compiler `{compile_words[0]}`"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.is_file() else f"there is no {header}"


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the extensions to the wheel, or says why not."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        listed = listed_modules(root, self.metadata.config["tool"])
        must = asked("FAREBOX_COMPILED")
        if asked("FAREBOX_PURE"):
            if must:
                refuse("FAREBOX_PURE=1 and FAREBOX_COMPILED=1 contradict each other; set one of them")
            say("a wheel without compiled modules, as FAREBOX_PURE=1 asks for")
            return
        if lacks := missing():
            if must:
                refuse(f"{lacks}, so nothing can be compiled, and FAREBOX_COMPILED=1 insists; {INSTALL}")
            say(f"{lacks}: this wheel is not compiled, and needs half as much CPU again per call; {INSTALL}")
            return
        begun = time.monotonic()
        folder = root / "build" / "compiled" / sysconfig.get_config_var("SOABI")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")  # until this process ends: the files have yet to get into the wheel
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        built, count = build(root, listed, folder)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(built)
        say(f"{len(listed)} modules are compiled; {count} C files of theirs were new, {time.monotonic() - begun:.0f} s")


class Extension(NamedTuple):
    """What setuptools calls one, as far as it is needed."""

    name: str
    sources: list[str]
    include_dirs: list[str]
    extra_compile_args: list[str]


def build(root: Path, listed: list[str], folder: Path) -> tuple[dict[str, str], int]:
    """Every extension's file with its place in the wheel; and how many C files had to be compiled."""
    workshop = Workshop()
    extensions = workshop.translate(root, listed, folder)
    built: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sources = [(Path(source), extension) for extension in extensions for source in extension.sources]
        sources.sort(key=lambda one: -one[0].stat().st_size)  # the longest first, so that all cores end together
        jobs = {source: pool.submit(workshop.compile, source, extension) for source, extension in sources}
        try:
            objects = {source: job.result() for source, job in jobs.items()}
        except SystemExit:
            pool.shutdown(cancel_futures=True)
            raise
        links: list[Future[None]] = []
        for extension in extensions:
            place = extension.name.replace(".", "/") + sysconfig.get_config_var("EXT_SUFFIX")
            target = folder / "wheel" / place
            links.append(pool.submit(workshop.link, [objects[Path(source)] for source in extension.sources], target))
            built[str(target)] = place
        for link in links:
            link.result()
    return built, workshop.compiled


def translate(configuration: str, folder: str, *listed: str) -> None:
    """Python to C, in a process of its own, which leaves a description of the extensions behind."""
    from mypyc.build import mypycify

    found = mypycify(
        ["--config-file", configuration, "--cache-dir", os.devnull, *listed],
        opt_level="3",
        debug_level="0",
        group_name=GROUP,
        multi_file=True,
        target_dir=folder,
    )
    described = [[one.name, one.sources, one.include_dirs, one.extra_compile_args] for one in found]
    (Path(folder) / EXTENSIONS).write_text(json.dumps(described))
    sys.stdout.flush()
    os._exit(0)  # to take mypy's trees apart first takes as long as to make them


class Workshop:
    """Compiles and links what is not yet there as it would come out now: by content, since times of files say little."""

    def __init__(self) -> None:
        self._compile, self._link = commands()
        self._version = subprocess.run([self._compile[0], "--version"], capture_output=True, check=True).stdout
        paths = sysconfig.get_paths()
        self._python = sorted({paths["include"], paths["platinclude"]})
        self.compiled = 0

    def translate(self, root: Path, listed: list[str], folder: Path) -> list[Extension]:
        """The extensions, with their C files written. Types of any module may matter, and of any package."""
        target, configuration = folder / EXTENSIONS, root / "pyproject.toml"
        words = [sys.executable, str(Path(__file__).resolve()), str(configuration), str(folder), *listed]
        needs = [configuration, Path(words[1]), *sorted((root / "src").rglob("*.py"))]
        installed = sorted(f"{one.name} {one.version}" for one in metadata.distributions())
        key = [*words, sys.version, *installed]
        if not self._is_made(target, key, lambda: needs):
            # From `src`, so that tracebacks name `farebox/money.py`.
            done = subprocess.run(words, cwd=root / "src", capture_output=True, text=True, check=False)
            if done.returncode:
                refuse(f"mypyc could not compile the modules under `tool.farebox.compiled`:\n{done.stdout}{done.stderr}")
            self._mark_made(target, key, needs)
        return [Extension(*one) for one in json.loads(target.read_text())]

    def compile(self, source: Path, extension: Extension) -> Path:
        """The object file of a source."""
        target, needs = source.with_suffix(".o"), source.with_suffix(".d")
        words = [*self._compile, *(f"-I{path}" for path in [*extension.include_dirs, *self._python])]
        # A compiler's new warning is none of the installing person's business.
        words += [*extension.extra_compile_args, "-Wno-error", "-MMD", "-MF", str(needs), "-c", str(source), "-o", str(target)]
        if not self._is_made(target, words, lambda: dependencies(needs)):
            self._run(words)
            self._mark_made(target, words, dependencies(needs))
            self.compiled += 1
        return target

    def link(self, objects: list[Path], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        words = [*self._link, *map(str, objects), "-o", str(target)]
        if not self._is_made(target, words, lambda: objects):
            target.unlink(missing_ok=True)  # a process that runs the old one keeps it
            self._run(words)
            self._mark_made(target, words, objects)

    def _run(self, words: list[str]) -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            refuse(f"the C compiler failed: {shlex.join(words)}\n{done.stderr}")

    def _key(self, words: list[str], needs: Iterable[Path]) -> str:
        key = hashlib.sha256(self._version + "\0".join(words).encode())
        for path in needs:
            key.update(str(path).encode() + digest(path))
        return key.hexdigest()

    def _is_made(self, target: Path, words: list[str], needs: Callable[[], Iterable[Path]]) -> bool:
        """Where it is not, its mark is taken away: whoever is interrupted while it is made has nothing."""
        try:
            if target.is_file() and _mark(target).read_text() == self._key(words, needs()):
                return True
        except FileNotFoundError:
            pass  # nothing was made before, or a header has gone since
        _mark(target).unlink(missing_ok=True)
        return False

    def _mark_made(self, target: Path, words: list[str], needs: Iterable[Path]) -> None:
        _mark(target).write_text(self._key(words, needs))


def _mark(target: Path) -> Path:
    return target.with_name(target.name + ".key")


def dependencies(rule: Path) -> list[Path]:
    """The files that a compiler has read, from the rule for make that it wrote."""
    return [Path(word) for word in shlex.split(rule.read_text().replace("\\\n", " "))[1:]]


@cache
def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


if __name__ == "__main__":
    translate(*sys.argv[1:])
