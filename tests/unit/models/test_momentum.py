"""The moving average of weights against its closed form."""

from __future__ import annotations

import torch
from torch import nn

from vlbench.models.layers.momentum import MomentumCopy


def source() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()


def test_closed_form_after_several_steps() -> None:
    model, momentum, history = source(), 0.9, []
    copy = MomentumCopy(model, momentum)
    history.append(model[0].weight.detach().double().clone())
    for _ in range(7):
        with torch.no_grad():
            model[0].weight += torch.randn(4, 3)
            model[1].running_mean += 1.5
        copy.update(model)
        history.append(model[0].weight.detach().double().clone())
    # m^n w_0 + sum over k of (1 - m) m^(n - k) w_k
    expected = momentum**7 * history[0] + sum((1 - momentum) * momentum ** (7 - k) * history[k] for k in range(1, 8))
    torch.testing.assert_close(copy.module[0].weight.double(), expected, atol=1e-6, rtol=0)
    assert copy.module[1].running_mean.tolist() == [1.5 * 7] * 4


def test_momentum_zero_equals_the_source() -> None:
    model = source()
    copy = MomentumCopy(model, 0.0)
    with torch.no_grad():
        model[0].weight.mul_(3)
    copy.update(model)
    assert torch.equal(copy.module[0].weight, model[0].weight)


def test_the_copy_is_apart_frozen_and_evaluating() -> None:
    model = source()
    copy = MomentumCopy(model, 0.5).module
    assert not any(parameter.requires_grad for parameter in copy.parameters()) and not copy[1].training
    assert model[1].training and all(parameter.requires_grad for parameter in model.parameters())
    addresses = {parameter.data_ptr() for parameter in model.parameters()}
    assert addresses.isdisjoint(parameter.data_ptr() for parameter in copy.parameters())


def test_what_is_no_weight_is_shared() -> None:
    class Store:
        def __deepcopy__(self, memo: object) -> Store:
            raise AssertionError("a store was copied")

    model = source()
    model[0].store = Store()
    assert MomentumCopy(model, 0.5).module[0].store is model[0].store
