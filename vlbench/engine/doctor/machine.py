"""The machine and the installed software, as far as they matter to a run."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec
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
    "track": (("tensorboard", "wandb"), "--log-with has no experiment tracker"),
    "dev": (("pytest", "hypothesis", "ruff", "mypy"), "the tests of vlbench cannot be run"),
}
"""Extra -> the modules it installs, and what does not work without them."""


class GPU(Frozen):
    """A GPU that torch sees. memory_gib: its memory. bfloat16: whether it supports that type."""

    name: str
    memory_gib: float
    bfloat16: bool


class MachineReport(Frozen):
    """A report of the machine.

    cores: those that this process may use. memory_gib, cache_free_gib: None where the platform does not say. cache: the
    cache folder, its home as `~`. missing: extra that is not installed -> what does not work without it.
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


def describe_machine() -> MachineReport:
    """The report of this machine."""
    here = environment("cuda" if torch.cuda.is_available() else "cpu", 1)
    absent = {extra: [name for name in names if find_spec(name) is None] for extra, (names, _) in EXTRAS.items()}
    cache = cache_folder()
    return MachineReport(
        vlbench=__version__,
        python=here.python,
        platform=platform.platform(),
        libraries=here.libraries,
        cpu=here.cpu,
        cores=usable_cores(),
        threads=here.threads,
        memory_gib=_memory_gib(),
        gpus=tuple(_gpu(number) for number in range(torch.cuda.device_count())),
        driver=here.driver,
        cache=without_home(str(cache)),
        cache_free_gib=_free_gib(cache),
        extras=tuple(extra for extra, names in absent.items() if not names),
        missing={
            extra: f"without {' and '.join(names)}, {EXTRAS[extra][1]}: pip install 'vlbench[{extra}]'"
            for extra, names in absent.items()
            if names
        },
    )


def _gpu(number: int) -> GPU:
    properties = torch.cuda.get_device_properties(number)
    memory = round(properties.total_memory / GIB, 1)
    return GPU(name=properties.name, memory_gib=memory, bfloat16=torch.cuda.is_bf16_supported())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _free_gib(folder: Path) -> float | None:
    """Free space in GiB where the folder is, or will be made."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    return None if existing is None else round(shutil.disk_usage(existing).free / GIB, 1)
