"""Optimizers and the schedule that the papers' recipes name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlbench.core.backbone import EndToEnd
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError

ADAM_BETAS = (0.9, 0.999)
SGD_MOMENTUM, SGD_DECAY = 0.9, 1e-4
"""Of SOHO's release."""
_ROUNDING = 1e-6
"""What a milestone's share of all steps may lie above a whole step for want of precision."""


class BertAdam(Optimizer):
    """Adam as BERT's authors ran it: no bias correction, decoupled weight decay on every tensor.

    Source: the optimizer of the LXMERT and CVLP releases (betas 0.9, 0.999, eps 1e-6).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = ADAM_BETAS,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": 1e-6})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every tensor that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
            if tensors:
                self._update(tensors, group["lr"], group["weight_decay"], group["betas"], group["eps"])
        return loss

    def _update(
        self, tensors: list[Tensor], lr: float, weight_decay: float, betas: tuple[float, float], eps: float
    ) -> None:
        for tensor in tensors:
            if not self.state[tensor]:
                self.state[tensor] = {"mean": torch.zeros_like(tensor), "square": torch.zeros_like(tensor)}
        gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
        means = [self.state[tensor]["mean"] for tensor in tensors]
        squares = [self.state[tensor]["square"] for tensor in tensors]
        torch._foreach_lerp_(means, gradients, 1 - betas[0])
        torch._foreach_mul_(squares, betas[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, eps)
        torch._foreach_mul_(tensors, 1 - lr * weight_decay)
        torch._foreach_addcdiv_(tensors, means, roots, -lr)


class Together(Optimizer):
    """Two optimizers over different tensors, stepped, scheduled and saved as one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update by each."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give the parts theirs."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()  # loading made new ones


def make_optimizer(module: nn.Module, backbone: object, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer of `module`, which holds the backbone, with a second one where there is a `visual_lr`.

    Raises:
        VlbenchError: a `visual_lr` for a backbone without a network over pixels of its own.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if recipe.visual_lr is None:
        return _of_recipe(trained, recipe)
    if not isinstance(backbone, EndToEnd):
        raise VlbenchError(
            f"train.visual_lr {recipe.visual_lr} is for a network over pixels that is trained by itself and this model "
            f"has none: leave it out"
        )
    visual = {id(parameter) for parameter in backbone.visual_parameters()}
    pixels = SGD(
        [parameter for parameter in trained.values() if id(parameter) in visual],
        lr=recipe.visual_lr,
        momentum=SGD_MOMENTUM,
        weight_decay=SGD_DECAY,
    )
    others = {name: parameter for name, parameter in trained.items() if id(parameter) not in visual}
    return Together([_of_recipe(others, recipe), pixels])


def _of_recipe(trained: Mapping[str, nn.Parameter], recipe: Recipe) -> Optimizer:
    """AdamW decays no bias and no norm (ViLT's rule) and BertAdam everything, unless the recipe says otherwise."""
    betas, decay = recipe.betas or ADAM_BETAS, recipe.weight_decay or 0.0
    decays_all = recipe.optimizer == "bert_adam" if recipe.decay_biases is None else recipe.decay_biases
    spared = decay if decays_all else 0.0
    lr = needed(recipe.lr, "lr")
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        rate = recipe.head_lr or lr if name.startswith("head.") else lr
        kinds.setdefault((rate, decay if parameter.ndim > 1 else spared), []).append(parameter)
    groups = [{"params": of, "lr": rate, "weight_decay": share} for (rate, share), of in kinds.items()]
    if recipe.optimizer == "bert_adam":
        return BertAdam(groups, lr, decay, betas)
    return AdamW(groups, lr=lr, betas=betas, fused=True)


def make_schedule(optimizer: Optimizer, steps: int, recipe: Recipe) -> LambdaLR:
    """Linear warm-up from a share of the rate, 0 by default; then linear decay to 0, or a tenth at each milestone.

    Warm-up of no step, which a small share of few steps rounds to, begins at the full rate; so does a single step.
    """
    rising = _warmup_steps(steps, recipe)
    begin = recipe.warmup_from or 0.0

    def factor(step: int) -> float:
        warm = begin + (1 - begin) * step / rising if step < rising else 1.0
        if recipe.milestones is not None:
            return warm * 0.1 ** sum(step >= share * steps - _ROUNDING for share in recipe.milestones)
        return warm if step < rising else max(0.0, (steps - step) / max(1, steps - rising))

    return LambdaLR(optimizer, factor)


def _warmup_steps(steps: int, recipe: Recipe) -> int:
    if steps == 1:
        return 0
    return recipe.warmup_steps if recipe.warmup_steps is not None else round(steps * (recipe.warmup or 0.0))


def needed(value: float | None, name: str) -> float:
    """A recipe's value that nobody left out.

    Raises:
        VlbenchError: neither the model card nor the run gives it.
    """
    if value is None:
        raise VlbenchError(f"the recipe has no {name}: give it in the model card or with --set train.{name}=...")
    return value
