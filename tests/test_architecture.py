"""The rules of the architecture, checked on the syntax: layers, no cycles, decisions in one place, a quick start."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vlbench

PACKAGE = Path(vlbench.__file__).parent
REPOSITORY = Path(__file__).resolve().parents[1]
LAYERS = [
    {"core"},
    {"objectives", "data", "metrics"},
    {"models", "heads", "world", "records"},
    {"catalog"},
    {"report"},
    {"engine", "profiling"},
    {"cli"},
]
LAYER = {package: number for number, layer in enumerate(LAYERS) for package in layer}
OUTSIDE = {"__init__", "__main__"}
WITHOUT_TORCH = ("core", "records", "report", "metrics")
HEAVY = {"transformers", "pandas", "matplotlib", "pycocotools", "evaluate", "datasets", "peft"}
"""Libraries that take long to import and that most commands do not need."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
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


def package(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_imports(name: str) -> list[str]:
    return [other for other in imports(name, modules()[name]) if other == "vlbench" or other.startswith("vlbench.")]


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_down(name: str) -> None:
    if package(name) in OUTSIDE:
        return
    assert package(name) in LAYER, f"{name} belongs to no layer of the plan"
    for other in own_imports(name):
        target = package(other)
        if target in OUTSIDE or target == package(name):
            continue
        if target.startswith("_tasks"):
            assert package(name) == "catalog", f"{name} imports the task {other} by name"
        else:
            assert LAYER[target] < LAYER[package(name)], f"{name} imports {other}, which is not below it"


def test_nobody_imports_a_model_by_name() -> None:
    folders = {path.parent.name for path in (PACKAGE / "models").glob("*/model.yaml")}
    for name in modules():
        for other in own_imports(name):
            parts = other.split(".")
            if parts[1:2] == ["models"] and len(parts) > 2 and parts[2] in folders:
                assert name.split(".")[:3] == parts[:3], f"{name} imports {other}: the catalogue loads models"


def test_no_list_of_the_errors_of_a_reader() -> None:
    """No list of the types that a library raises on damaged bytes is complete: `reading` takes any."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            parts = node.elts if isinstance(node, ast.Tuple) else []
            types = [part for part in parts if ast.unparse(part).endswith(("Error", "Exception", ".error"))]
            assert len(types) <= 4, f"{name}, line {node.lineno} lists {len(types)} types of errors: use `reading`"


def test_no_cycles() -> None:
    inside = {name for name in modules() if package(name) not in OUTSIDE}  # the top imports lazily
    graph = {name: {other for other in own_imports(name) if other in inside and other != name} for name in inside}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"imports form a cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(n for n in modules() if package(n) in WITHOUT_TORCH))
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


DECIDES = ("vlbench.engine.evaluators", "vlbench.heads", "vlbench.engine.capabilities")
"""What may ask for the mode, the output kind or the head: everything else asks these."""
DECIDED_BY = {"mode", "output", "outputs", "ranks_by"}


def decisions(tree: ast.AST) -> Iterator[str]:
    """Comparisons of a mode, an output kind or a way of ranking, and checks for the class of a head or a batch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            fields = {side.attr for side in sides if isinstance(side, ast.Attribute)}
            fields |= {side.id for side in sides if isinstance(side, ast.Name)} - {"outputs"}  # channels of a layer
            if fields & DECIDED_BY and not all(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            classes = [name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)]
            if any(name.endswith(("Head", "Batch")) for name in classes):
                yield ast.unparse(node)


def test_decisions_are_found() -> None:
    code = (
        "if a.mode == 'eval' or b.output in ('rank',) or isinstance(c, (int, DualHead)) or card.ranks_by != 'dual': ..."
    )
    assert len(list(decisions(ast.parse(code)))) == 4
    assert not list(decisions(ast.parse("image.size == (1, 2) or isinstance(a, int) or spec.trains")))


def test_how_a_task_is_answered_is_decided_in_one_place() -> None:
    # Cards define the output kinds, Pillow's images have modes of their own, and weights of transformers bring a head.
    others = ("vlbench.core.cards", "vlbench.data.images", "vlbench.models.hf")
    found = {
        name: lines
        for name, tree in modules().items()
        if not name.startswith((*DECIDES, *others)) and (lines := list(decisions(tree)))
    }
    assert not found, "ask the evaluator, `EvaluatorKind`, `HeadKind` or `MODES` instead"


def test_the_forward_pass_exists_once() -> None:
    """Heads fuse pairs; evaluators only encode the sides of a gallery, which is searched pair by pair."""
    may = {"fuse": ("vlbench.heads", "vlbench.models"), "see": ("vlbench.heads", "vlbench.models", DECIDES[0])}
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in may:
                assert name.startswith(may[node.func.attr]), f"{name} runs {node.func.attr}() itself: use vlbench.heads"


def test_every_way_of_answering_has_an_evaluator() -> None:
    from vlbench.engine.build import EVALUATORS
    from vlbench.engine.capabilities import EvaluatorKind

    assert set(EVALUATORS) == set(EvaluatorKind)
    assert len(set(EVALUATORS.values())) == len(EVALUATORS)


def test_tasks_import_only_what_they_may() -> None:
    for path in sorted((REPOSITORY / "tasks").glob("*/*.py")):
        for other in imports(str(path), ast.parse(path.read_text(encoding="utf8"))):
            if other.startswith("vlbench"):
                assert package(other) in {"core", "data", "metrics"} or other.startswith("vlbench._tasks"), (
                    path,
                    other,
                )


def test_an_adapter_fits_one_screen() -> None:
    for path in sorted((REPOSITORY / "tasks").glob("*/adapter.py")):
        assert len(path.read_text(encoding="utf8").splitlines()) <= 60, path


def test_heavy_libraries_are_imported_where_they_are_needed() -> None:
    """`import scipy` is light and loads a submodule on its first use, which importing the submodule does at once."""
    for name, tree in modules().items():
        if name.startswith("vlbench.metrics.hub."):  # scripts that `evaluate` loads
            continue
        for other in imports(name, tree, running=True):
            top, _, inner = other.partition(".")
            assert top not in HEAVY and not (top == "scipy" and inner), f"{name} imports {other} when it is imported"


def test_a_run_loads_no_library_that_it_does_not_need(tiny_world: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from vlbench.cli.main import main; code = main(sys.argv[1:]);"
        f"print('HEAVY', sorted({HEAVY | {'scipy.stats', 'scipy.ndimage'}} & set(sys.modules))); sys.exit(code)"
    )
    run = ["run", "--task", "nlvr2", "--model", "cvlp", "--limit", "8", "--batch-size", "4", "--steps", "1", "--quiet"]
    run += ["--controls", "none", "--data-root", str(tiny_world), "--output-path", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("HEAVY []", "HEAVY ['pandas']")  # pyarrow imports pandas to make an array


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
