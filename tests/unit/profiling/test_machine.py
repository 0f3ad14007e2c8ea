"""NVIDIA's management library is queried about the device that torch uses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlbench.profiling import machine

DEVICE = torch.device("cuda", 0)


class NVMLError(Exception):
    """Of the library."""


class Library:
    """A machine of two GPUs that are known by their names only, as where CUDA_VISIBLE_DEVICES=1 hides the first."""

    NVMLError, NVML_CLOCK_SM = NVMLError, 1
    opened = 0

    def __init__(self) -> None:
        self.known = {"GPU-aaaa-1": 100_000, "GPU-bbbb-2": 7_000}

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.known:
            raise NVMLError(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.known[handle]

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return 1000 * int(handle[-1])

    def nvmlDeviceGetPowerManagementLimit(self, handle: str) -> int:
        return 300_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=-1)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Library]:
    """The library where torch's first device has this name."""

    def named(uuid: str) -> Library:
        library: Any = Library()
        properties = SimpleNamespace(uuid=uuid)
        monkeypatch.setitem(sys.modules, "pynvml", library)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return library  # type: ignore[no-any-return]

    return named


def test_the_device_that_torch_uses_is_queried(gpu: Callable[[str], Library]) -> None:
    library = gpu("bbbb-2")
    assert machine.energy_joules(DEVICE) == 7.0
    found = machine.describe_machine(0.0, 1, {}, DEVICE)
    assert found.clocks == "SM 2000 MHz, power limit 300 W"
    assert found.reasons == ("1 other processes on the GPU",)
    assert library.opened == 0


def test_a_device_unknown_to_the_library_gives_nothing(gpu: Callable[[str], Library]) -> None:
    library = gpu("cccc-3")
    assert machine.energy_joules(DEVICE) is None
    found = machine.describe_machine(0.0, 1, {}, DEVICE)
    assert (found.clocks, found.reasons, library.opened) == ("", (), 0)
