"""Memory against what is added up by hand, whatever ran before."""

from __future__ import annotations

import torch
from torch import nn

from vlbench.core.profile import ProfileSpec
from vlbench.profiling.memory import added, free
from vlbench.profiling.profile import profile

CPU = torch.device("cpu")


def test_a_small_network_by_hand() -> None:
    """4 rows of 8, 32 and 8 numbers, of 4 bytes each."""
    rows, network = torch.randn(4, 8), nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    with torch.inference_mode(), added(CPU) as found:
        network(rows)
    assert found.peak == 4 * (4 * 32 + 4 * 32)  # the activation's argument and its result


def test_what_is_released_counts_no_more_and_what_stays_does() -> None:
    before, kept = torch.randn(100), []
    with torch.inference_mode(), added(CPU) as found:
        for _ in range(5):
            before + 1
        for _ in range(3):
            kept.append(before * 2)
        before.view(10, 10).t()
        before.add_(1)
    assert found.peak == 4 * 100 * 3


def test_what_was_there_before_counts_nothing_when_it_goes() -> None:
    held = [torch.randn(1000)]
    with torch.inference_mode(), added(CPU) as found:
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


def test_free_memory_is_told_or_not_known() -> None:
    told = free(CPU)
    assert told is None or told > 0
