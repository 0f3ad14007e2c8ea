"""The machine and code of a run, without the names of machines, users and home folders."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from vlbench.core.accelerate_env import kept_variables
from vlbench.core.cores import default_threads
from vlbench.core.record import Environment, ToolInfo
from vlbench.core.spec import PretrainSpec, RunSpec

Spec = TypeVar("Spec", RunSpec, PretrainSpec)

_LIBRARIES = (
    "torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "scipy", "pandas", "pyarrow",
    "pillow", "torchvision", "pydantic", "pycocotools", "evaluate", "tabulate",
)  # fmt: skip
_PACKAGE = Path(__file__).resolve().parents[1]
_TASKS = "_tasks"
_CODE = (".py", ".yaml", ".json")
_PATIENCE = 5.0
"""Seconds after which git or nvidia-smi is stopped and its fields of the record stay empty."""


def environment(device: str, world_size: int, threads: int | None = None, trials_at_once: int = 0) -> Environment:
    """The machine and libraries of this process. device: as torch names it: cpu, cuda, cuda:1, mps. threads: the number
    of CPU threads; None for all that this process may use. trials_at_once: 0 where it is not known.
    """
    gpu, driver = _gpu() if device.startswith("cuda") else ("", "")
    return Environment(
        python=platform.python_version(),
        libraries={name: version for name in _LIBRARIES if (version := _version(name))} | _decoders(),
        cpu=_cpu(),
        threads=threads or default_threads(),
        gpu=gpu,
        driver=driver,
        world_size=world_size,
        device=device,
        accelerate=kept_variables(),
        trials_at_once=trials_at_once,
    )


def tool() -> ToolInfo:
    """This vlbench: its version and the hash of its files; in a git checkout also the commit and dirty flag."""
    commit, dirty = _git_state(_PACKAGE.parent)
    return ToolInfo(
        version=_version("vlbench") or "not installed", commit=commit, dirty=dirty, code_sha256=code_sha256()
    )


def code_sha256() -> str:
    """The hash of vlbench's code and cards: the Python, YAML and JSON files of its package and built-in tasks. It is
    the same for a git checkout and for a wheel built from it.
    """
    tasks = importlib.util.find_spec(f"vlbench.{_TASKS}")
    files = dict(_files(_PACKAGE))
    if tasks is not None and tasks.origin:
        files |= {f"{_TASKS}/{name}": path for name, path in _files(Path(tasks.origin).parent)}
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path below the folder, file) of code and cards; folders that begin with `_` or `.` are left out."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix in _CODE and not any(part.startswith(("_", ".")) for part in name.parts[:-1]):
            yield name.as_posix(), path


def peak_memory_mib() -> float:
    """The peak resident memory of this process in MiB; 0 where the platform does not report it (Windows)."""
    if sys.platform == "win32":
        return 0.0
    own = _status_kib("VmHWM")
    if own:
        return own / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def portable(spec: Spec) -> Spec:
    """The spec with paths below the home folder as `~/...`, and other paths unchanged."""
    return spec.model_copy(update={name: _portable(getattr(spec, name)) for name in type(spec).model_fields})


def _portable(value: object) -> object:
    if isinstance(value, Path):
        return Path(without_home(str(value)))
    if isinstance(value, tuple):
        return tuple(map(_portable, value))
    return without_home(value) if isinstance(value, str) else value


def without_home(text: str) -> str:
    """The text with `~` for the home folder at the start of each path in it."""
    if os.sep not in text:  # most texts: there is one for every example
        return text
    home = os.path.expanduser("~").rstrip(os.sep)  # noqa: PTH111 (Path.home raises where there is none)
    if not home or home == "~":
        return text
    # Only at the start of a path: `/data/home/x` is not below a home folder `/home`.
    return re.sub(rf"(?<![\w.~/\\-]){re.escape(home)}(?![\w.-])", "~", text)


def _decoders() -> dict[str, str]:
    """The versions of Pillow's JPEG and WebP libraries, which may change the decoded pixels."""
    from PIL import features

    names = {"libjpeg-turbo": features.version_feature("libjpeg_turbo"), "libwebp": features.version_module("webp")}
    return {f"pillow/{name}": str(version) for name, version in names.items() if version}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    """The processor's model name, else its architecture."""
    names = (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _status_kib(field: str) -> int:
    """A field of Linux's /proc/self/status in KiB, else 0; unlike ru_maxrss it does not include the parent's peak."""
    return next((int(line.split()[1]) for line in _lines("/proc/self/status") if line.startswith(f"{field}:")), 0)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _gpu() -> tuple[str, str]:
    """The names of the GPUs and the version of the driver; empty where nvidia-smi fails."""
    output = _output(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    rows = [line.rpartition(",") for line in output.splitlines()]
    names = dict.fromkeys(name.strip() for name, _, _ in rows)
    drivers = dict.fromkeys(driver.strip() for _, _, driver in rows)
    return ", ".join(names), ", ".join(drivers)


def _git_state(root: Path) -> tuple[str, bool]:
    """The commit and dirty flag of the git checkout at `root`; one in a parent folder is another project."""
    if not (root / ".git").exists():
        return "", False
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    changes = _output(["git", "-C", str(root), "status", "--porcelain", "--", "vlbench", "tasks", "pyproject.toml"])
    return commit, bool(commit and changes)


def _output(command: list[str]) -> str:
    """The standard output of a command; empty if it is missing, fails or takes too long."""
    # Git's variables could point to another repository; without optional locks `status` writes nothing.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True, env=variables)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return process.stdout.strip()
