"""The machine's GPUs, shared among trials that run at once."""

from __future__ import annotations

import os
from pathlib import Path

from vlbench.core.accelerate_env import TORCH_DEVICE

_VISIBLE = "CUDA_VISIBLE_DEVICES"


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


def environments(jobs: int, device: str | None) -> list[dict[str, str]]:
    """For each of the trials that run at once the variables that give it its GPUs; none on a CPU."""
    gpus = visible_gpus(device)
    if not gpus:
        return [{} for _ in range(jobs)]
    return [{_VISIBLE: ",".join(gpus[job::jobs] or [gpus[job % len(gpus)]])} for job in range(jobs)]
