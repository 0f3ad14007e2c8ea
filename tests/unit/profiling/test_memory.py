"""Memory compared with sums made by hand, independent of what ran before."""

from __future__ import annotations

import torch
from torch import nn

from vlbench.core.profile import ProfileSpec
from vlbench.profiling.memory import free_bytes, track_added_memory
from vlbench.profiling.profile import profile

CPU = torch.device("cpu")


def test_a_small_network_by_hand() -> None:
    """4 rows of 8, 32 and 8 numbers, of 4 bytes each."""
    rows, network = torch.randn(4, 8), nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    with torch.inference_mode(), track_added_memory(CPU) as found:
        network(rows)
    assert found.peak == 4 * (4 * 32 + 4 * 32)  # the activation's argument and its result


def test_only_memory_that_is_still_held_counts() -> None:
    before, kept = torch.randn(100), []
    with torch.inference_mode(), track_added_memory(CPU) as found:
        for _ in range(5):
            before + 1
        for _ in range(3):
            kept.append(before * 2)
        before.view(10, 10).t()
        before.add_(1)
    assert found.peak == 4 * 100 * 3


def test_releasing_earlier_memory_does_not_count() -> None:
    held = [torch.randn(1000)]
    with torch.inference_mode(), track_added_memory(CPU) as found:
        small = held[0][:10] * 2
        held.clear()
        small + 1
    assert found.peak == 4 * (10 + 10)


def test_the_order_of_models_changes_nothing() -> None:
    def activations(*models: str) -> dict[str, float | None]:
        spec = ProfileSpec(models=models, size="tiny", scenario=(), picture=(96, 64), detector=False)
        return {one.model: one.memory.activations for one in profile(spec)[0].models if one.memory}

    found = activations("vilt", "cvlp")
    assert found == activations("cvlp", "vilt") and all(found.values())


def test_free_memory_is_a_number_or_unknown() -> None:
    free = free_bytes(CPU)
    assert free is None or free > 0
