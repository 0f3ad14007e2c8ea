"""BertAdam against a plain re-statement, the schedule by hand, what decays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.engine.optimizer import BertAdam, make_optimizer, make_schedule


def test_bert_adam_is_adam_without_bias_correction() -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
    expected = parameter.detach().clone()
    mean, square = torch.zeros_like(expected), torch.zeros_like(expected)
    optimizer = BertAdam([parameter], lr=0.1, weight_decay=0.01)
    for _ in range(4):
        gradient = torch.randn_like(expected)
        parameter.grad = gradient.clone()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        expected = expected - 0.1 * (mean / (square.sqrt() + 1e-6) + 0.01 * expected)
    assert torch.allclose(parameter, expected, atol=1e-12)


def test_schedule_rises_then_falls_to_zero() -> None:
    optimizer = BertAdam([nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=0.0)
    schedule = make_schedule(optimizer, steps=10, warmup=0.2)
    rates = []
    for _ in range(11):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0])


def test_adamw_spares_biases_and_norms() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer = make_optimizer(module, Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.5))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(module[0].weight)}


def test_a_recipe_without_learning_rate_is_refused() -> None:
    with pytest.raises(VlbenchError, match=r"train\.lr"):
        make_optimizer(nn.Linear(1, 1), Recipe(optimizer="adamw"))
