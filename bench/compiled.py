"""The compiled package that `make compiled` makes: whether it is there and of this source, and which processes run it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv" / "compiled"
GROUP = "farebox__mypyc"
"""The library that all compiled modules are in; see hatch_build.py."""


class NotCompiled(Exception):
    """There is no compiled package, or it was made from another source."""


def check(folder: Path) -> None:
    """Numbers and tests of an older source would be of no use."""
    if not list(folder.glob(f"{GROUP}.*.so")):
        raise NotCompiled(f"there is no compiled package in {folder}; `make compiled` makes it")
    here, there = (_modules(path / "farebox") for path in (ROOT / "src", folder))
    changed = sorted(str(name) for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if changed:
        raise NotCompiled(f"{folder} was made from another source, {changed[0]} differs; `make compiled` makes it anew")


def _modules(package: Path) -> dict[Path, bytes]:
    return {path.relative_to(package): path.read_bytes() for path in package.rglob("*.py")}


def environment(folder: Path) -> dict[str, str]:
    """What makes every Farebox process that has it a compiled one."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}


def runs_compiled(pid: int) -> bool:
    """Whether a process, which has to be ours, has the library in its memory."""
    return f"/{GROUP}." in Path(f"/proc/{pid}/maps").read_text()
