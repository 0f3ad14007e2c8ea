"""The files that a plug-in model or a task consists of, and one hash of them that changes when any of them does.

Python files are found by what lies beside the card and by their import statements, which are read and never run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlbench.core.errors import DataError
from vlbench.data.cache.folder import cache_folder, file_sha256

CODE = (".py", ".so", ".pyd")
WEIGHTS = (
    ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npy", ".npz", ".h5", ".hdf5", ".msgpack", ".onnx", ".pkl", ".gguf"
)  # fmt: skip
"""How files of weights end."""
_LIBRARIES = ("site-packages", "dist-packages")
_SKIPPED = (*_LIBRARIES, "node_modules")
_SMALL = 1 << 20
_TASKS = "vlbench._tasks"


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files with these suffixes in a folder, and in those of its sub-folders that hold some themselves.

    Tests, hidden folders and folders of installed packages are left out, so a folder that also holds runs, data or a
    virtual environment costs no more than one that does not.
    """
    entries = [] if folder.name in _LIBRARIES or not folder.is_dir() else sorted(folder.iterdir())
    wanted = [path for path in entries if path.suffix in suffixes and path.is_file() and not _is_test(path)]
    yield from wanted
    for path in entries:
        hidden = path.name.startswith((".", "__")) or path.name in _SKIPPED
        if not hidden and path.is_dir() and not path.is_symlink() and _holds(path, suffixes):
            yield from files_below(path, suffixes)


def data_beside(folder: Path, but: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files directly in a folder that are neither code, documentation nor hidden; but: names left out as well."""
    for path in sorted(folder.iterdir()) if folder.name not in _LIBRARIES else []:
        documents = path.suffix == ".md" or path.name.split(".")[0] in ("README", "LICENSE", "CHANGELOG")
        hidden = path.name.startswith(".") or path.suffix in (*CODE, ".pyc")
        if path.is_file() and not documents and not hidden and path.name not in but:
            yield path


def with_imports(folder: Path, files: Iterable[Path], modules: Iterable[str] = ()) -> dict[str, Path]:
    """Files of a folder and every module that they import, directly or not, as far as it is no installed library.

    Modules of vlbench count where they belong to a built-in task; installed packages where the folder lies in them or
    they are named. Imports of names that are built at run time are not found.

    Args:
        folder: where the files lie; modules are looked for there first, then where Python would look for them.
        files: those that count in any case.
        modules: dotted names of further modules that count.

    Returns:
        The files by a name that does not say where the folder or the modules lie.
    """
    named = tuple(modules)
    finder = _Finder(folder, {*_package_of(folder), *(name.split(".")[0] for name in named)})
    for path in files:
        finder.add(path.relative_to(folder).as_posix(), path)
    for name in named:
        finder.follow(name, [])
    finder.finish()
    return finder.found


def content_sha256(files: dict[str, Path]) -> str:
    """The hash of files by their names here and their content.

    Raises:
        DataError: one cannot be read.
    """
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{_sha256(path)}\0".encode())
    return digest.hexdigest()


@dataclass
class _Finder:
    """found: the files so far; own: top-level packages that count although they are installed."""

    folder: Path
    own: set[str]
    found: dict[str, Path] = field(default_factory=dict)
    _todo: list[tuple[Path, list[Path]]] = field(default_factory=list)
    _places: dict[str, list[Path]] = field(default_factory=dict)
    _known: set[Path] = field(default_factory=set)

    def add(self, name: str, path: Path) -> None:
        """Count a file; its imports are followed by `finish`."""
        real = path.resolve()
        if real not in self._known:
            self._known.add(real)
            while name in self.found:  # the same place in another folder
                name = f"{name}+"
            self.found[name] = path
            if path.suffix == ".py":
                self._todo.append((path, [path.parent, self.folder]))

    def finish(self) -> None:
        """Follow the imports of all files, and theirs in turn."""
        while self._todo:
            path, beside = self._todo.pop()
            for name, level in _imports(path):
                if level:
                    base = path.parents[level - 1] if level <= len(path.parents) else path.parent
                    self._take(name, [base], f"{'.' * level}{base.name}")
                else:
                    self.follow(name, beside)

    def follow(self, name: str, beside: list[Path]) -> None:
        """Count a module by its dotted name: one beside the importing file, else the one that Python finds."""
        if name.startswith(f"{_TASKS}."):
            tasks = Path(str(importlib.import_module(_TASKS).__file__)).parent
            self._take(name.removeprefix(f"{_TASKS}."), [tasks], _TASKS)
        elif name.split(".")[0] != "vlbench" and not self._take(name, beside, ""):
            self._take(name, self._installed(name.split(".")[0]), "")

    def _take(self, name: str, places: list[Path], prefix: str) -> bool:
        """Whether the module lies in one of the places; it and the packages above it count then."""
        for place in places:
            files = list(_module_files(place, name.split(".") if name else []))
            for path in files:
                self.add(f"{prefix}/{path.relative_to(place).as_posix()}", path)
            if files:
                return True
        return False

    def _installed(self, top: str) -> list[Path]:
        """The folders that hold a top-level module; none of a library's."""
        if top not in self._places:
            library = top in sys.stdlib_module_names or top in sys.builtin_module_names
            places = [] if library else _folders_of(top)
            self._places[top] = [
                place for place in places if top in self.own or not set(place.parts).intersection(_LIBRARIES)
            ]
        return self._places[top]


def _module_files(place: Path, parts: list[str]) -> Iterator[Path]:
    """The file of a module and the `__init__.py` of each package that it lies in; as far as they are there."""
    if (init := place / "__init__.py").is_file() and not parts:
        yield init
    for part in parts:
        if (package := place / part).is_dir():
            if (init := package / "__init__.py").is_file():
                yield init
            place = package
            continue
        if (module := place / f"{part}.py").is_file():
            yield module
        yield from (path for path in sorted(place.glob(f"{part}.*")) if path.suffix in CODE[1:])
        return


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules that a file may import, by dotted name, with the number of dots of a relative import."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # whoever runs it says what is wrong
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module, node.level
            for alias in node.names:
                yield (f"{module}.{alias.name}" if module else alias.name), node.level


def _sha256(path: Path) -> str:
    """Of a small file at once, of a large one by what is remembered of it."""
    try:
        if path.stat().st_size < _SMALL:
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}): give a readable file") from None
    return file_sha256(path, cache_folder())


def _folders_of(top: str) -> list[Path]:
    """The folders that a top-level module or package lies in; nothing is imported."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place).parent for place in spec.submodule_search_locations]
    return [Path(spec.origin).parent] if spec.has_location and spec.origin else []


def _package_of(folder: Path) -> set[str]:
    """The top-level package of a folder among installed packages; empty elsewhere."""
    parts = folder.resolve().parts
    places = [place for place, part in enumerate(parts[:-1]) if part in _LIBRARIES]
    return {parts[places[-1] + 1]} if places else set()


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return False
    return "pyvenv.cfg" not in names and any(name.endswith(suffixes) for name in names)


def _is_test(path: Path) -> bool:
    return path.name == "conftest.py" or (path.name.startswith("test_") and path.suffix == ".py")
