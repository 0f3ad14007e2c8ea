"""How many trials of a command run at once by default, and which GPUs each of them uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vlbench import catalog
from vlbench.core.accelerate_env import TORCH_DEVICE
from vlbench.core.cores import default_threads, free_memory, usable_cores
from vlbench.core.spec import RunSpec
from vlbench.engine.defaults import size_of, workers_of
from vlbench.engine.source import given_root
from vlbench.world.generate import is_world

BYTES_PER_TRIAL = 3 * 2**29
"""1.5 GiB: the trials of the committed records, of tiny models, peak at 0.7 to 1.0 GiB."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def fitting_jobs(specs: Sequence[RunSpec]) -> int:
    """The number of trials that the machine runs at once without computing otherwise or more slowly.

    On GPUs one trial for each, on a CPU as many as the cores suffice for, by the threads and data workers of a trial,
    and never more than the free memory suffices for. A run of several processes, or of a model that is spread over
    all devices, has the machine for itself.
    """
    if any((spec.num_processes or 1) > 1 or spec.device_map for spec in specs):
        return 1
    device = specs[0].device
    most = len(visible_gpus(device))
    if not most:
        apple = sys.platform == "darwin" and device != "cpu"
        most = 1 if apple else usable_cores() // max(map(_processes, specs))
    memory = free_memory()
    return max(1, most if memory is None else min(most, memory // BYTES_PER_TRIAL))


def _processes(spec: RunSpec) -> int:
    """Cores that a trial keeps busy: the threads that it computes with and the processes that prepare its batches."""
    root, card = given_root(spec.data_root), catalog.model_card(spec.model)
    world = root is None or is_world(root)
    size = card.sizes.get(size_of(spec, card, world))
    return (spec.threads or (size.threads if size else None) or default_threads()) + workers_of(spec, world)


def visible_gpus(device: str | None) -> list[str]:
    """The GPUs that trials on the device can use, by the names that CUDA_VISIBLE_DEVICES takes; empty on a CPU."""
    if (device or os.environ.get(TORCH_DEVICE) or "cuda").split(":")[0] != "cuda":
        return []
    if not any(True for name in ("nvidia[0-9]*", "dxg", "kfd") for _ in Path("/dev").glob(name)):
        return []  # torch, whose import takes long, is not needed to know that
    import torch

    names = os.environ.get(_VISIBLE, "")
    count = torch.cuda.device_count()
    return [name.strip() for name in names.split(",")][:count] if names else [str(number) for number in range(count)]


def gpu_environments(jobs: int, device: str | None) -> list[dict[str, str]]:
    """The variables that give each of the trials that run at once its GPUs; none on a CPU."""
    gpus = visible_gpus(device)
    if not gpus:
        return [{} for _ in range(jobs)]
    return [{_VISIBLE: ",".join(gpus[job::jobs] or [gpus[job % len(gpus)]])} for job in range(jobs)]
