"""The machine's state while it is measured, and whether figures made on it should be quoted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from vlbench.core.cores import usable_cores
from vlbench.core.profile import Machine

_IDLE_LOAD = 0.25
"""Runnable tasks per core, besides ours, above which others disturb."""
_SPREAD = 0.5
"""Of the 95th percentile over the median, above which something else was going on."""


def load() -> float | None:
    """Tasks that ran or wanted to in the last minute; None where the platform does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def state(before: float | None, threads: int, spreads: dict[str, float], device: torch.device) -> Machine:
    """What is to be said of the machine.

    Args:
        before: the load before anything was measured.
        threads: torch's.
        spreads: of each model, how far the 95th percentile of its latency lies above the median, as a share.
    """
    cores = usable_cores()
    reasons = []
    if before is not None and before > _IDLE_LOAD * cores:
        reasons.append(f"a load of {before:.2f} on {cores} cores before anything was measured")
    reasons += [
        f"{name}'s 95th percentile lies {100 * spread:.0f} % above its median"
        for name, spread in spreads.items()
        if spread > _SPREAD
    ]
    clocks = ""
    if device.type == "cuda":
        clocks, others = _gpu_state(device)
        if others:
            reasons.append(f"{others} other processes on the GPU")
    return Machine(
        cores=cores, threads=threads, load=before, clocks=clocks, noisy=bool(reasons), reasons=tuple(reasons)
    )


@contextmanager
def nvml(device: torch.device) -> Iterator[tuple[Any, Any] | None]:
    """NVIDIA's management library and the device's handle; None where it does not know it or the package is absent."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # the library's own kinds of errors are not known where it is absent
        yield None
        return
    try:
        yield _handle(pynvml, device)
    finally:
        pynvml.nvmlShutdown()


def _handle(library: Any, device: torch.device) -> tuple[Any, Any] | None:
    """By the device's own name: torch counts the devices that CUDA_VISIBLE_DEVICES leaves, NVML all of the machine."""
    with suppress(library.NVMLError):  # a slice of a GPU (MIG) has another sort of name
        return library, library.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    return None


def joules(device: torch.device) -> float | None:
    """What the GPU has used since its driver was loaded; None where it does not say."""
    with nvml(device) as found:
        if found is None:
            return None
        library, handle = found
        with suppress(library.NVMLError):
            return float(library.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None


def _gpu_state(device: torch.device) -> tuple[str, int]:
    """Clocks and power limit in words, and how many other processes compute on it."""
    with nvml(device) as found:
        if found is None:
            return "", 0
        library, handle = found
        with suppress(library.NVMLError):
            clock = library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM)
            limit = library.nvmlDeviceGetPowerManagementLimit(handle) / 1000
            others = [one.pid for one in library.nvmlDeviceGetComputeRunningProcesses(handle) if one.pid != os.getpid()]
            return f"SM {clock} MHz, power limit {limit:.0f} W", len(others)
    return "", 0


def reset_peak() -> bool:
    """Forget the most memory this process ever held, so that the next peak is told; False where that cannot be."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return sys.platform == "linux"


def host_mib(field: str) -> float:
    """`VmRSS`, what this process holds, or `VmHWM`, its peak, in MiB; 0 where the platform does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)
