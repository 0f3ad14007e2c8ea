"""The machine and what is installed on it, as far as it matters to a run."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

import torch

from vlbench import __version__
from vlbench.core.cores import usable_cores
from vlbench.core.validate import Frozen
from vlbench.data.cache.folder import cache_folder
from vlbench.records.provenance import environment, without_home

GIB = 2**30
EXTRAS = {
    "gpu": (("pynvml",), "energy and memory of NVIDIA GPUs are not measured"),
    "track": (("tensorboard", "wandb"), "--log-with has nobody to log with"),
    "dev": (("pytest", "hypothesis", "ruff", "mypy"), "the tests of vlbench cannot be run"),
}
"""Extra -> the modules it brings, and what is not to be had without them."""


class GPU(Frozen):
    """One that torch sees, and its memory in GiB."""

    name: str
    memory_gib: float
    bfloat16: bool


class Machine(Frozen):
    """memory_gib, cache_free_gib: None where the platform does not say. missing: extra -> what is lacking without it.

    cache: the folder, its home as `~`. cores: that this process may use.
    """

    vlbench: str
    python: str
    platform: str
    libraries: dict[str, str]
    cpu: str
    cores: int
    threads: int
    memory_gib: float | None
    gpus: tuple[GPU, ...]
    driver: str
    cache: str
    cache_free_gib: float | None
    extras: tuple[str, ...]
    missing: dict[str, str]


def machine() -> Machine:
    """This one."""
    place = environment("cuda" if torch.cuda.is_available() else "cpu", 1)
    lacking = {extra: [name for name in names if not _installed(name)] for extra, (names, _) in EXTRAS.items()}
    cache = cache_folder()
    return Machine(
        vlbench=__version__,
        python=place.python,
        platform=platform.platform(),
        libraries=place.libraries,
        cpu=place.cpu,
        cores=usable_cores(),
        threads=place.threads,
        memory_gib=_memory_gib(),
        gpus=tuple(_gpu(number) for number in range(torch.cuda.device_count())),
        driver=place.driver,
        cache=without_home(str(cache)),
        cache_free_gib=_free_gib(cache),
        extras=tuple(extra for extra, names in lacking.items() if not names),
        missing={extra: _explained(extra, names) for extra, names in lacking.items() if names},
    )


def _explained(extra: str, names: list[str]) -> str:
    return f"without {' and '.join(names)}, {EXTRAS[extra][1]}: pip install 'vlbench[{extra}]'"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _gpu(number: int) -> GPU:
    known = torch.cuda.get_device_properties(number)
    return GPU(name=known.name, memory_gib=round(known.total_memory / GIB, 1), bfloat16=torch.cuda.is_bf16_supported())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _free_gib(folder: Path) -> float | None:
    """Room where the folder is, or will be made."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return None if there is None else round(shutil.disk_usage(there).free / GIB, 1)
