"""The modules that are compiled keep to what compiled code can do; docs/decisions/0021-hot-modules-are-compiled.md says why."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LISTED: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["farebox"]["compiled"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_the_list_is_in_order_and_of_modules_that_exist() -> None:
    assert sorted(set(LISTED)) == LISTED
    missing = [name for name in LISTED if not (SOURCE / name).is_file()]
    assert not missing, f"pyproject.toml, `tool.farebox.compiled`: there is no {missing}"
    assert "farebox/money.py" in LISTED, "farebox.compiled looks at this one"


# --- structs -----------------------------------------------------------------------------------------------------------------


def struct_names(trees: list[ast.Module]) -> set[str]:
    """The names of all classes that are Structs, by whatever way; imported names count as what they are called at home."""
    known = {"Struct"}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    renamed = {
        alias.asname: alias.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    while True:
        more = {node.name for node in classes for name in base_names(node) if renamed.get(name, name) in known} - known
        if not more:
            return known | {new for new, old in renamed.items() if old in known}
        known |= more


def base_names(node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:
        plain = base.value if isinstance(base, ast.Subscript) else base
        yield plain.attr if isinstance(plain, ast.Attribute) else getattr(plain, "id", "")


def structs(tree: ast.Module, known: set[str]) -> list[str]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [node.name for node in found if known & set(base_names(node))]


@cache
def structs_of_the_package() -> set[str]:
    return struct_names([ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))])


@pytest.mark.parametrize("name", LISTED)
def test_no_struct_is_compiled(name: str) -> None:
    found = structs(ast.parse((SOURCE / name).read_text()), structs_of_the_package())
    assert not found, (
        f"{name}: {', '.join(found)}: mypyc loses the keywords and the annotations of such a class; make it a plain class with "
        "an `__init__` that is written out, or move it to a module that is not compiled"
    )


def test_structs_are_found() -> None:
    planted = (
        "import msgspec\nfrom msgspec import Struct\nfrom msgspec import Struct as S\n"
        "class A(msgspec.Struct, frozen=True): ...\nclass B(Struct): ...\nclass C(B): ...\nclass D(S): ...\n"
        "class E(C[int]): ...\nclass F: ...\nclass G(F, Exception): ...\ndef f():\n    class H(A): ...\n"
    )
    tree = ast.parse(planted)
    assert structs(tree, struct_names([tree])) == ["A", "B", "C", "D", "E", "H"]


# --- recursion ---------------------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> dict[str, tuple[Function, str]]:
    """Every function by its qualified name, with the name of the class that it is a method of."""
    found: dict[str, tuple[Function, str]] = {}

    def look(node: ast.AST, place: str, owner: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                found[place + child.name] = (child, owner)
                look(child, f"{place}{child.name}.", owner)
            elif isinstance(child, ast.ClassDef):
                look(child, f"{place}{child.name}.", f"{place}{child.name}")
            else:
                look(child, place, owner)

    look(tree, "", "")
    return found


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """What belongs to a function itself, without functions inside it."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, Function | ast.ClassDef)]


def called(name: str, function: Function, owner: str, all_names: set[str]) -> set[str]:
    """Which functions of its module a function calls, as far as names tell."""
    found: set[str] = set()
    for node in own_nodes(function):
        if not isinstance(node, ast.Call):
            continue
        to = node.func
        if isinstance(to, ast.Name):
            # The innermost function of that name that can be seen from here; or the class's `__init__`.
            steps = name.split(".")
            places = [".".join([*steps[:depth], to.id]) for depth in range(len(steps), -1, -1)]
            places = [place for place in places if place.rpartition(".")[0] != owner or not owner]
            found.update(next(([place] for place in places if place in all_names), []))
            found.add(f"{to.id}.__init__")
        elif isinstance(to, ast.Attribute) and isinstance(to.value, ast.Name):
            receiver = to.value.id
            if receiver in {"self", "cls"}:
                found.add(f"{owner}.{to.attr}")
            elif f"{receiver}.{to.attr}" in all_names:
                found.add(f"{receiver}.{to.attr}")
            elif owner and is_of(function, receiver, owner.rpartition(".")[2]):
                found.add(f"{owner}.{to.attr}")
    return found & all_names


def is_of(function: Function, variable: str, owner: str) -> bool:
    """Whether a variable is said to be of a class: another node of the same tree, for one."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    said = [argument.annotation for argument in arguments if argument.arg == variable and argument.annotation]
    said += [
        node.annotation
        for node in own_nodes(function)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == variable
    ]
    return any(owner in ast.unparse(annotation).replace('"', " ").replace("'", " ").split() or ast.unparse(annotation) == owner
               for annotation in said)  # fmt: skip


def recursive(tree: ast.Module) -> list[str]:
    """Functions that come back to themselves, directly or by others of their module."""
    found = functions(tree)
    names = set(found)
    calls = {name: called(name, function, owner, names) for name, (function, owner) in found.items()}
    looping: list[str] = []
    for name in names:
        reached: set[str] = set()
        waiting = [*calls[name]]
        while waiting:
            step = waiting.pop()
            if step not in reached:
                reached.add(step)
                waiting += calls[step]
        if name in reached:
            looping.append(name)
    return sorted(looping)


@pytest.mark.parametrize("name", LISTED)
def test_nothing_that_is_compiled_calls_itself(name: str) -> None:
    found = recursive(ast.parse((SOURCE / name).read_text()))
    assert not found, (
        f"{name}: {', '.join(found)}: compiled code has no recursion limit, deep input overflows the C stack and ends the "
        "process; write a loop, or move it to a module that is not compiled"
    )


PLANTED = """
def direct(n): return direct(n - 1)
def ping(n): return [pong(m) for m in range(n)]
def pong(n): return lambda: ping(n)
async def wait(): await wait()
def outer():
    def inner(n): return inner(n - 1)
    return inner(3)
class Node:
    def walk(self): return self.walk()
    def up(self, other: "Node"): return other.up(self)
    def there(self): return self.back()
    def back(self): return Node.there(self)
    def __init__(self): self.child = Node()
    def close(self): self.child.file.close()
    def open(self): return open("x")
    def twice(self): return self.close(), self.close()
def close(node): node.close()
def plain(n): return close(n), outer()
"""


def test_recursion_is_found() -> None:
    assert recursive(ast.parse(PLANTED)) == [
        "Node.__init__", "Node.back", "Node.there", "Node.up", "Node.walk", "direct", "outer.inner", "ping", "pong", "wait",
    ]  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_no_program_is_compiled(name: str) -> None:
    """`python -m` needs the code of a module, which an extension has not."""
    assert "__main__" not in (SOURCE / name).read_text(), f"{name}: what is started with `python -m` stays out of the list"


# --- names of a module -------------------------------------------------------------------------------------------------------


def loose_names(tree: ast.Module) -> list[str]:
    """Names that a module gives a value once without saying so. Those of types are written like types."""
    found: list[str] = []
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and "Final" not in ast.unparse(node.annotation):
            targets = [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        found += [name for name in names if not (name.lstrip("_")[:1].isupper() and name != name.upper())]
    return found


@pytest.mark.parametrize("name", LISTED)
def test_names_of_a_compiled_module_are_final(name: str) -> None:
    found = loose_names(ast.parse((SOURCE / name).read_text()))
    assert not found, f"{name}: {', '.join(found)}: without `Final` they are looked up in the module's dictionary each time"


def test_loose_names_are_found() -> None:
    planted = "A = 1\n_b = f()\nKind = Literal['x']\n_Row = tuple[int]\nC: Final = 2\nD: Final[int] = f()\nE: int = 3\n"
    assert loose_names(ast.parse(planted)) == ["A", "_b", "E"]
