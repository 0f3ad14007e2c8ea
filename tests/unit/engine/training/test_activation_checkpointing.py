"""Recomputed activations give the same gradients as kept ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from vlbench.engine.training.steps import recompute_activations


class Stack(nn.Module):
    """Three layers with dropout, one of them with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        plain = (nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5)) for _ in range(2))
        self.layers = nn.ModuleList([*plain, nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))])
        for layer in self.layers:
            layer[0].register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.runs += 1

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


def gradients(module: nn.Module, run: Callable[[], Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    run().square().sum().backward()
    found = [one.grad.clone() for one in module.parameters() if one.grad is not None]
    module.zero_grad()
    return found


def test_layers_run_twice_and_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    stack, inputs = Stack(), torch.randn(8, 4)
    kept = gradients(stack, lambda: stack(inputs))
    assert stack.runs == 3
    assert recompute_activations(stack) == 2
    again = gradients(stack, lambda: stack(inputs))
    assert stack.runs == 3 + 5  # statistics would move twice
    assert all(torch.equal(left, right) for left, right in zip(kept, again, strict=True))


def test_networks_of_transformers_use_their_own_implementation(make_hf: Callable[..., Path]) -> None:
    network: Any = AutoModel.from_pretrained(make_hf("ViltModel"))
    assert not network.is_gradient_checkpointing
    assert recompute_activations(nn.ModuleDict({"network": network})) == 1
    assert network.is_gradient_checkpointing


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
