"""The state of the machine during a measurement, and whether the results are reliable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import torch

from vlbench.core.cores import usable_cores
from vlbench.core.profile import Machine

_IDLE_LOAD = 0.25
"""Runnable tasks per core, besides ours, above which other processes disturb the measurement."""
_SPREAD = 0.5
"""Share by which the 95th percentile may exceed the median; above it, something disturbed the measurement."""


def system_load() -> float | None:
    """The load average of the last minute; None where the platform does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def describe_machine(before: float | None, threads: int, spreads: dict[str, float], device: torch.device) -> Machine:
    """The state of the machine for the record.

    before: the load before the measurement. threads: torch's number. spreads: model -> the share by which the 95th
    percentile of its latency exceeds the median.
    """
    cores = usable_cores()
    reasons = []
    if before is not None and before > _IDLE_LOAD * cores:
        reasons.append(f"a load of {before:.2f} on {cores} cores before the measurement")
    for name, spread in spreads.items():
        if spread > _SPREAD:
            reasons.append(f"the 95th percentile of {name} is {100 * spread:.0f} % above its median")
    clocks, others = _gpu_state(device) if device.type == "cuda" else ("", 0)
    if others:
        reasons.append(f"{others} other processes on the GPU")
    noisy = bool(reasons)
    return Machine(cores=cores, threads=threads, load=before, clocks=clocks, noisy=noisy, reasons=tuple(reasons))


@contextmanager
def open_nvml(device: torch.device) -> Iterator[tuple[ModuleType, object] | None]:
    """NVIDIA's management library and the device's handle; None if it is not installed or does not know the device."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # the error classes of the library are not known where it is absent
        yield None
        return
    try:
        yield _with_handle(pynvml, device)
    finally:
        pynvml.nvmlShutdown()


def _with_handle(library: ModuleType, device: torch.device) -> tuple[ModuleType, object] | None:
    """Look the device up by UUID: torch counts only the devices in CUDA_VISIBLE_DEVICES, NVML all of the machine."""
    with suppress(library.NVMLError):  # a MIG slice of a GPU has another kind of UUID
        return library, library.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    return None


def energy_joules(device: torch.device) -> float | None:
    """Energy that the GPU has used since its driver was loaded; None if it does not say."""
    with open_nvml(device) as opened:
        if opened is None:
            return None
        library, handle = opened
        with suppress(library.NVMLError):
            return float(library.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None


def _gpu_state(device: torch.device) -> tuple[str, int]:
    """Clock and power limit as text, and the number of other processes that compute on the device."""
    with open_nvml(device) as opened:
        if opened is None:
            return "", 0
        library, handle = opened
        with suppress(library.NVMLError):
            clock = library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM)
            limit = library.nvmlDeviceGetPowerManagementLimit(handle) / 1000
            processes = library.nvmlDeviceGetComputeRunningProcesses(handle)
            others = sum(process.pid != os.getpid() for process in processes)
            return f"SM {clock} MHz, power limit {limit:.0f} W", others
    return "", 0


def reset_peak_memory() -> bool:
    """Reset the peak memory of this process; False where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return sys.platform == "linux"


def process_mib(field: str) -> float:
    """The `VmRSS` (current memory) or `VmHWM` (peak memory) of this process in MiB; 0 where the platform has none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)
