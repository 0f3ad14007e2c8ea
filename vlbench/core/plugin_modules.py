"""Import the modules of a plug-in's folder, so that `import helper` in one of them finds the helper.py beside it.

Each folder is a package with a private name: two plug-ins may have helpers of one name, and none of them takes the
place of an installed module.
"""

from __future__ import annotations

import builtins
import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from vlbench.core.user_code import LIBRARIES, same_folder

_PREFIX = "vlbench_private_"


def import_file(path: Path) -> ModuleType:
    """The module in a file, imported once unless an imported file of its folder has changed since.

    Raises what the code of the module raises.
    """
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    path = path.resolve()
    name = f"{_package(path.parent)}.{_identifier(path.stem)}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Loader(name, str(path))
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = sys.modules[name] = module_from_spec(spec)  # dataclasses and pickle look up the module of a class there
    try:
        with same_folder():
            loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


class _Finder:
    """Finds the modules of private packages."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(_PREFIX) or path is None:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Runs a module of a private package, whose absolute imports look into the package too."""

    def path_stats(self, path: str) -> Mapping[str, int]:
        """No bytecode is cached: Python does not renew that of a file that changes twice in a second."""
        raise OSError

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(self.name.partition(".")[0])}
        module.__dict__["__stamp__"] = _stamp(Path(self.path))
        super().exec_module(module)


def _importer(package: str) -> Callable[..., ModuleType]:
    """What `import` calls in a module of that package."""

    def import_(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not _is_helper(Path(sys.modules[package].__path__[0]), top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = builtins.__import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[f"{package}.{top}"]

    return import_


def _is_helper(folder: Path, name: str) -> bool:
    """Whether a module is in the folder, and is not the name of a library."""
    if not (folder / f"{name}.py").is_file() and not (folder / name).is_dir():
        return False
    if name in sys.stdlib_module_names or name == "vlbench":
        return False
    spec = find_spec(name)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    return not any(LIBRARIES & set(Path(place).parts) for place in places)


def _package(folder: Path) -> str:
    """The name of the private package of a folder; its modules are dropped if the file of one has changed."""
    name = f"{_PREFIX}{_identifier(folder.name)}_{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    loaded = {key: module for key, module in sys.modules.items() if key.startswith(f"{name}.")}
    if any(vars(module).get("__stamp__") != _stamp(module.__file__) for module in loaded.values() if module.__file__):
        for key in loaded:
            del sys.modules[key]
    return name


def _stamp(file: str | Path) -> tuple[int, int] | None:
    """What changes with the content of a file; None if it is not there."""
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)
