"""The laws of the house, kept with `ast`: floors, no cycles, no torch where none is needed, a quick command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vlbench

HOUSE = Path(vlbench.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]
FLOORS = [
    {"core"},
    {"objectives", "data", "metrics"},
    {"models", "heads", "world", "records"},
    {"catalog"},
    {"report"},
    {"engine", "profiling"},
    {"cli"},
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
OUTSIDE = {"__init__", "__main__"}
WITHOUT_TORCH = ("core", "records", "report", "metrics")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf8"))
    return found


def imports(name: str, tree: ast.AST, *, running: bool = False) -> Iterator[str]:
    """The modules that a module names; `running` leaves out what only type checkers and lazy functions import."""
    if running:
        nodes: Iterator[ast.AST] = _at_import_time(tree)
    else:
        nodes = ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else node.module


def _at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _at_import_time(node)


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_imports(name: str) -> list[str]:
    return [other for other in imports(name, modules()[name]) if other == "vlbench" or other.startswith("vlbench.")]


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_down(name: str) -> None:
    if room(name) in OUTSIDE:
        return
    assert room(name) in FLOOR, f"{name} stands in no room of the plan"
    for other in own_imports(name):
        target = room(other)
        if target in OUTSIDE or target == room(name):
            continue
        if target.startswith("_tasks"):
            assert room(name) == "catalog", f"{name} imports the task {other} by name"
        else:
            assert FLOOR[target] < FLOOR[room(name)], f"{name} imports {other}, which is not below it"


def test_nobody_imports_a_model_by_name() -> None:
    folders = {path.parent.name for path in (HOUSE / "models").glob("*/model.yaml")}
    for name in modules():
        for other in own_imports(name):
            parts = other.split(".")
            if parts[1:2] == ["models"] and len(parts) > 2 and parts[2] in folders:
                assert name.split(".")[:3] == parts[:3], f"{name} imports {other}: the catalogue loads models"


def test_no_cycles() -> None:
    inside = {name for name in modules() if room(name) not in OUTSIDE}  # the top imports lazily
    graph = {name: {other for other in own_imports(name) if other in inside and other != name} for name in inside}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"imports go round: {' -> '.join((*path, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(n for n in modules() if room(n) in WITHOUT_TORCH))
def test_no_torch_where_none_is_needed(name: str) -> None:
    reached, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current in reached:
            continue
        reached.add(current)
        for other in imports(current, modules()[current], running=True):
            assert other.split(".")[0] not in {"torch", "transformers", "accelerate"}, f"{name} -> {current} -> {other}"
            if other in modules():
                todo.append(other)


def test_tasks_import_only_what_they_may() -> None:
    for path in sorted((REPOSITORY / "tasks").glob("*/*.py")):
        for other in imports(str(path), ast.parse(path.read_text(encoding="utf8"))):
            if other.startswith("vlbench"):
                assert room(other) in {"core", "data", "metrics"} or other.startswith("vlbench._tasks"), (path, other)


def test_an_adapter_fits_one_screen() -> None:
    for path in sorted((REPOSITORY / "tasks").glob("*/adapter.py")):
        assert len(path.read_text(encoding="utf8").splitlines()) <= 60, path


@pytest.mark.parametrize("arguments", [["--help"], ["list", "tasks"], ["run", "--help"]])
def test_light_verbs_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from vlbench.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'pandas', 'accelerate', 'scipy', 'matplotlib'} & set(sys.modules);"
        "print('HEAVY', sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_importing_vlbench_is_light() -> None:
    code = "import vlbench, sys; print({'torch', 'pandas', 'transformers', 'yaml'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
