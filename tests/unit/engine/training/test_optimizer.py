"""BertAdam against a plain reimplementation, the schedule by hand, what decays."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.engine.training.optimizer import BertAdam, make_optimizer, make_schedule


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
    schedule = make_schedule(optimizer, 10, Recipe(warmup=0.2))
    rates = []
    for _ in range(11):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0])


def rates(steps: int, recipe: Recipe, kind: str = "bert_adam") -> list[float]:
    """The learning rate of each step, as a share of the peak."""
    optimizer = make_optimizer(nn.Linear(1, 1), None, recipe.model_copy(update={"lr": 1.0, "optimizer": kind}))
    schedule, found = make_schedule(optimizer, steps, recipe), []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("kind", ["adamw", "bert_adam"])
@pytest.mark.parametrize(
    ("steps", "recipe", "expected"),
    [
        (1, Recipe(), [1.0]),
        (1, Recipe(warmup=0.1), [1.0]),
        (1, Recipe(warmup=1.0), [1.0]),
        (1, Recipe(warmup_steps=1000), [1.0]),
        (4, Recipe(warmup=0.1), [1.0, 0.75, 0.5, 0.25]),
        (4, Recipe(), [1.0, 0.75, 0.5, 0.25]),
        (4, Recipe(warmup=0.0, milestones=(0.5,)), [1.0, 1.0, 0.1, 0.1]),
        (4, Recipe(warmup=0.25), [0.0, 1.0, 2 / 3, 1 / 3]),
        (20, Recipe(milestones=(0.55,)), [1.0] * 11 + [0.1] * 9),  # 0.55 * 20 is above 11 in floating point
    ],
)
def test_without_warm_up_the_first_step_has_the_full_rate(
    kind: str, steps: int, recipe: Recipe, expected: list[float]
) -> None:
    assert rates(steps, recipe, kind) == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0.0), (10, 0.2), (50, 0.1), (7, 1.0)])
def test_the_linear_schedule_is_that_of_transformers(steps: int, warmup: float) -> None:
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    official = transformers.get_linear_schedule_with_warmup(optimizer, round(steps * warmup), steps)
    expected = []
    for _ in range(steps):
        expected.append(official.get_last_lr()[0])
        optimizer.step()
        official.step()
    assert rates(steps, Recipe(warmup=warmup)) == pytest.approx(expected)


def test_warm_up_may_begin_at_a_share_of_the_rate() -> None:
    """mmcv's `warmup='linear', warmup_iters=1000, warmup_ratio=1/3` over milestones, by hand."""
    recipe = Recipe(warmup_steps=1000, warmup_from=1 / 3, milestones=(0.6, 0.8))
    found = rates(5000, recipe)
    expected = {0: 1 / 3, 1: 1 / 3 + 2 / 3000, 250: 0.5, 500: 2 / 3, 999: 1 - 2 / 3000, 1000: 1.0, 2999: 1.0}
    expected |= {3000: 0.1, 3999: 0.1, 4000: 0.01, 4999: 0.01}
    assert {step: found[step] for step in expected} == pytest.approx(expected)
    short = rates(800, recipe)  # milestones before its end count too
    assert (short[0], short[480]) == (pytest.approx(1 / 3), pytest.approx(0.1 * (1 / 3 + 2 / 3 * 0.48)))


def test_warm_up_as_steps_replaces_warm_up_as_a_share() -> None:
    share, number = Recipe(warmup=0.1, lr=1.0), Recipe(warmup_steps=5)
    assert share.merged(number) == Recipe(warmup_steps=5, lr=1.0)
    assert share.merged(number).merged(Recipe(warmup=0.2)) == Recipe(warmup=0.2, lr=1.0)
    assert share.merged(Recipe(lr=2.0)) == Recipe(warmup=0.1, lr=2.0)


def test_epochs_asked_for_replace_the_steps_of_a_recipe() -> None:
    by_steps = Recipe(epochs=10, steps=300)
    assert by_steps.merged(Recipe(epochs=2)) == Recipe(epochs=2)
    assert by_steps.merged(Recipe(epochs=2, steps=5)) == Recipe(epochs=2, steps=5)
    assert by_steps.merged(Recipe(steps=5)) == Recipe(epochs=10, steps=5)
    with pytest.raises(ValueError, match="give one of the two"):
        Recipe(warmup=0.1, warmup_steps=5)


@pytest.mark.parametrize(
    ("optimizer", "decay_biases", "decayed"),
    [
        ("adamw", None, 1), ("adamw", False, 1), ("adamw", True, 4),
        ("bert_adam", None, 4), ("bert_adam", True, 4), ("bert_adam", False, 1),
    ],
)  # fmt: skip
def test_biases_and_norms_decay_where_the_recipe_says_so(
    optimizer: Any, decay_biases: bool | None, decayed: int
) -> None:
    """By the effect: gradients of zero, so that only decay moves a tensor; lr 0.5 * decay 0.5 takes a quarter."""
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    for parameter in module.parameters():
        nn.init.constant_(parameter, 1.0)
        parameter.grad = torch.zeros_like(parameter)
    recipe = Recipe(optimizer=optimizer, lr=0.5, weight_decay=0.5, decay_biases=decay_biases)
    make_optimizer(module, module, recipe).step()
    left = [float(parameter.detach().mean()) for parameter in module.parameters()]
    assert sorted(left) == pytest.approx([0.75] * decayed + [1.0] * (4 - decayed)) and left[0] == pytest.approx(0.75)


def test_adamw_spares_biases_and_norms() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer = make_optimizer(module, module, Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.5))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(module[0].weight)}


def test_a_recipe_without_learning_rate_is_rejected() -> None:
    with pytest.raises(VlbenchError, match=r"train\.lr"):
        make_optimizer(nn.Linear(1, 1), None, Recipe(optimizer="adamw"))


def test_milestones_take_the_place_of_the_linear_decay() -> None:
    optimizer = BertAdam([nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=0.0)
    schedule = make_schedule(optimizer, 10, Recipe(warmup=0.2, milestones=(0.5, 0.8)))
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


class Seeing(nn.Module):
    """A backbone with two layers, the first of which is its visual network."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels, self.rest = nn.Linear(2, 2), nn.Linear(2, 2)

    def visual_parameters(self) -> Iterator[nn.Parameter]:
        return self.pixels.parameters()


TWO_RATES = Recipe(optimizer="adamw", lr=1e-3, visual_lr=0.1)


def test_pixels_are_trained_by_sgd_at_a_rate_of_their_own() -> None:
    torch.manual_seed(0)
    module = Seeing()
    optimizer = make_optimizer(module, module, TWO_RATES)
    schedule = make_schedule(optimizer, 4, Recipe(warmup=0.5))
    weight, velocity = module.pixels.weight.detach().clone(), torch.zeros(2, 2)
    rest = nn.Linear(2, 2)
    rest.load_state_dict(module.rest.state_dict())
    alone = make_optimizer(rest, rest, Recipe(optimizer="adamw", lr=1e-3))
    same = make_schedule(alone, 4, Recipe(warmup=0.5))
    for rate in (0.0, 0.05, 0.1, 0.05):
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
        for parameter, own in zip(rest.parameters(), module.rest.parameters(), strict=True):
            parameter.grad = own.grad
        gradient = module.pixels.weight.grad
        assert gradient is not None
        velocity = 0.9 * velocity + gradient + 1e-4 * weight
        weight = weight - rate * velocity
        for stepped, scheduled in ((optimizer, schedule), (alone, same)):
            stepped.step()
            scheduled.step()
    torch.testing.assert_close(module.pixels.weight, weight)
    torch.testing.assert_close(module.rest.weight, rest.weight)


def test_two_optimizers_are_saved_as_one() -> None:
    torch.manual_seed(0)
    module = Seeing()

    def advance(optimizer: torch.optim.Optimizer, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()

    first = make_optimizer(module, module, TWO_RATES)
    advance(first, 1)
    state, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(module.state_dict())
    advance(first, 2)
    expected = copy.deepcopy(module.state_dict())
    module.load_state_dict(weights)
    second = make_optimizer(module, module, TWO_RATES)
    second.load_state_dict(state)
    make_schedule(second, 2, Recipe(warmup=0.5))
    assert {group["lr"] for group in second.param_groups} == {0.0}  # groups that came by loading are scheduled too
    for group in second.param_groups:
        group["lr"] = 0.1 if "momentum" in group else 1e-3
    advance(second, 2)
    assert all(torch.equal(expected[name], value) for name, value in module.state_dict().items())


def test_a_rate_for_pixels_needs_a_network_over_them() -> None:
    with pytest.raises(VlbenchError, match=r"train\.visual_lr 0\.1 .* leave it out"):
        make_optimizer(nn.Linear(1, 1), nn.Linear(1, 1), TWO_RATES)


@pytest.mark.parametrize("optimizer", ["adamw", "bert_adam"])
def test_the_head_has_a_rate_of_its_own(optimizer: Any) -> None:
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    made = make_optimizer(module, None, Recipe(optimizer=optimizer, lr=1e-3, head_lr=1e-2))
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in module.named_parameters()} == {
        "backbone.weight": 1e-3, "backbone.bias": 1e-3, "head.weight": 1e-2, "head.bias": 1e-2,
    }  # fmt: skip
    schedule = make_schedule(made, 4, Recipe(warmup=0.5))
    made.step()
    schedule.step()
    assert {group["lr"] for group in made.param_groups} == {5e-4, 5e-3}
