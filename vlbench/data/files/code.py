"""Find the files of a plug-in model or a task, and hash them so that a change of any file changes the hash.

Python files are those beside the card and those that they import; import statements are parsed, never executed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlbench.core.paths import is_hidden, visible
from vlbench.data.cache.folder import cache_folder, cannot_read, file_sha256

CODE = (".py", ".so", ".pyd")
WEIGHTS = (
    ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npy", ".npz", ".h5", ".hdf5", ".msgpack", ".onnx", ".pkl", ".gguf"
)  # fmt: skip
"""Suffixes of files of weights."""
_LIBRARIES = ("site-packages", "dist-packages")
_SKIPPED = (*_LIBRARIES, "node_modules")
_SMALL = 1 << 20
_TASKS = "vlbench._tasks"


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files with these suffixes in a folder, and in each sub-folder that directly contains such files.

    Tests, hidden folders and folders of installed packages are skipped, so runs, data or a virtual environment in the
    folder do not slow it down.
    """
    entries = [] if folder.name in _LIBRARIES or not folder.is_dir() else visible(folder, "*")
    wanted = [path for path in entries if path.suffix in suffixes and path.is_file() and not _is_test(path)]
    yield from wanted
    for path in entries:
        skipped = path.name.startswith("__") or path.name in _SKIPPED
        if not skipped and path.is_dir() and not path.is_symlink() and _holds(path, suffixes):
            yield from files_below(path, suffixes)


def data_beside(folder: Path, but: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files directly in a folder that are not code, documentation or hidden; but: names to skip as well."""
    for path in sorted(folder.iterdir()) if folder.name not in _LIBRARIES else []:
        documents = path.suffix == ".md" or path.name.split(".")[0] in ("README", "LICENSE", "CHANGELOG")
        hidden = is_hidden(path.name) or path.suffix in (*CODE, ".pyc")
        if path.is_file() and not documents and not hidden and path.name not in but:
            yield path


def with_imports(folder: Path, files: Iterable[Path], modules: Sequence[str] = ()) -> dict[str, Path]:
    """Return files of a folder and all modules that they import, directly or indirectly, except installed libraries.

    The keys are names that do not depend on the location of the folder and the modules. Modules are searched in the
    folder first, then where Python would search for them; those of vlbench are included if they belong to a built-in
    task, those of an installed package if the folder is in it or if it is named. Imports of names that are built at run
    time are not found. modules: dotted names of further modules to include.
    """
    finder = _Finder(folder, {*_package_of(folder), *(name.split(".")[0] for name in modules)})
    for path in files:
        finder.add(path.relative_to(folder).as_posix(), path)
    for name in modules:
        finder.follow(name, [])
    finder.finish()
    return finder.files


def content_sha256(files: dict[str, Path]) -> str:
    """Return one SHA-256 of files by their names and content. Raises DataError if one cannot be read."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{_sha256(path)}\0".encode())
    return digest.hexdigest()


@dataclass
class _Finder:
    """Collects files and the modules that they import.

    files: those found so far, by name. own: top-level packages that are included although they are installed.
    """

    folder: Path
    own: set[str]
    files: dict[str, Path] = field(default_factory=dict)
    _todo: list[tuple[Path, list[Path]]] = field(default_factory=list)
    _places: dict[str, list[Path]] = field(default_factory=dict)
    _known: set[Path] = field(default_factory=set)

    def add(self, name: str, path: Path) -> None:
        """Include a file; `finish` follows its imports."""
        real = path.resolve()
        if real not in self._known:
            self._known.add(real)
            while name in self.files:  # the same place in another folder
                name = f"{name}+"
            self.files[name] = path
            if path.suffix == ".py":
                self._todo.append((path, [path.parent, self.folder]))

    def finish(self) -> None:
        """Follow the imports of all files, and those of the imported modules."""
        while self._todo:
            path, beside = self._todo.pop()
            for name, level in _imports(path):
                if level:
                    base = path.parents[level - 1] if level <= len(path.parents) else path.parent
                    self._take(name, [base], f"{'.' * level}{base.name}")
                else:
                    self.follow(name, beside)

    def follow(self, name: str, beside: list[Path]) -> None:
        """Include a module by its dotted name: one beside the importing file, else the one that Python would find."""
        if name.startswith(f"{_TASKS}."):
            tasks = Path(str(importlib.import_module(_TASKS).__file__)).parent
            self._take(name.removeprefix(f"{_TASKS}."), [tasks], _TASKS)
        elif name.split(".")[0] != "vlbench" and not self._take(name, beside, ""):
            self._take(name, self._installed(name.split(".")[0]), "")

    def _take(self, name: str, places: list[Path], prefix: str) -> bool:
        """Whether the module is in one of the folders; if so, it and the packages that contain it are included."""
        for place in places:
            files = list(_module_files(place, name.split(".") if name else []))
            for path in files:
                self.add(f"{prefix}/{path.relative_to(place).as_posix()}", path)
            if files:
                return True
        return False

    def _installed(self, top: str) -> list[Path]:
        """The folders that contain a top-level module; none for a library."""
        if top not in self._places:
            library = top in sys.stdlib_module_names or top in sys.builtin_module_names
            places = [] if library else _folders_of(top)
            self._places[top] = [
                place for place in places if top in self.own or not set(place.parts).intersection(_LIBRARIES)
            ]
        return self._places[top]


def _module_files(place: Path, parts: list[str]) -> Iterator[Path]:
    """The file of a module and the `__init__.py` of each package that contains it, if they exist."""
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
    """The dotted names of the modules that a file may import, with the number of dots of a relative import."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # running it reports the error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module, node.level
            for alias in node.names:
                yield (f"{module}.{alias.name}" if module else alias.name), node.level


def _sha256(path: Path) -> str:
    """The SHA-256 of a file; that of a large file is remembered in the cache."""
    try:
        if path.stat().st_size < _SMALL:
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise cannot_read(path, error) from None
    return file_sha256(path, cache_folder())


def _folders_of(top: str) -> list[Path]:
    """The folders that contain a top-level module or package; nothing is imported."""
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
    """The top-level package of a folder inside an installed package; empty elsewhere."""
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
