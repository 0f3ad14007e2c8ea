"""The optimizers and the learning rate schedule that the papers' recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import ParamsT, StateDict

from vlbench.core.backbone import EndToEnd
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError

ADAM_BETAS = (0.9, 0.999)
SGD_MOMENTUM, SGD_DECAY = 0.9, 1e-4
"""As in SOHO's release."""
_ROUNDING = 1e-6
"""Rounding error by which a milestone's share of all steps may exceed a whole step."""


class BertAdam(Optimizer):
    """Adam as in BERT's release: without bias correction, with decoupled weight decay on every tensor.

    Source: the optimizer of the LXMERT and CVLP releases (betas 0.9, 0.999, eps 1e-6).
    """

    def __init__(
        self, params: ParamsT, lr: float, weight_decay: float, betas: tuple[float, float] = ADAM_BETAS
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": 1e-6})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every tensor that has a gradient."""
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


class CombinedOptimizer(Optimizer):
    """Several optimizers over different tensors, stepped, scheduled and saved as one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, object]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step each optimizer."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> StateDict:
        """The states of all optimizers, under `parts`."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load the state of each optimizer."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()  # loading creates new groups


def make_optimizer(module: nn.Module, backbone: object, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer for the trainable parameters of `module`, which contains the backbone.

    With a `visual_lr`, a second optimizer trains the backbone's visual network.

    Raises:
        VlbenchError: the recipe has a `visual_lr` and the backbone has no visual network that is trained separately.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if recipe.visual_lr is None:
        return _make_adam(trained, recipe)
    if not isinstance(backbone, EndToEnd):
        raise VlbenchError(
            f"train.visual_lr {recipe.visual_lr} is for a network over pixels that is trained by itself and this model "
            f"has none: leave it out"
        )
    visual = {id(parameter) for parameter in backbone.visual_parameters()}
    visually_trained = [parameter for parameter in trained.values() if id(parameter) in visual]
    pixels = SGD(visually_trained, lr=recipe.visual_lr, momentum=SGD_MOMENTUM, weight_decay=SGD_DECAY)
    others = {name: parameter for name, parameter in trained.items() if id(parameter) not in visual}
    return CombinedOptimizer([_make_adam(others, recipe), pixels])


def _make_adam(trained: Mapping[str, nn.Parameter], recipe: Recipe) -> Optimizer:
    """AdamW or BertAdam. Unless the recipe says otherwise, AdamW decays no bias and no norm (ViLT), BertAdam all."""
    betas, decay = recipe.betas or ADAM_BETAS, recipe.weight_decay or 0.0
    decays_all = recipe.optimizer == "bert_adam" if recipe.decay_biases is None else recipe.decay_biases
    decay_of_vectors = decay if decays_all else 0.0
    lr = needed(recipe.lr, "lr")
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        rate = recipe.head_lr or lr if name.startswith("head.") else lr
        kinds.setdefault((rate, decay if parameter.ndim > 1 else decay_of_vectors), []).append(parameter)
    groups = [{"params": group, "lr": rate, "weight_decay": share} for (rate, share), group in kinds.items()]
    if recipe.optimizer == "bert_adam":
        return BertAdam(groups, lr, decay, betas)
    return AdamW(groups, lr=lr, betas=betas, fused=True)


def make_schedule(optimizer: Optimizer, steps: int, recipe: Recipe) -> LambdaLR:
    """Linear warm-up from a share of the learning rate, 0 by default, then linear decay to 0.

    With milestones, the rate is divided by ten at each of them instead of decaying linearly. Training starts at the
    full rate where the warm-up rounds to no step, and where there is a single step.
    """
    asked = round(steps * (recipe.warmup or 0.0)) if recipe.warmup_steps is None else recipe.warmup_steps
    warmup = asked if steps > 1 else 0
    begin = recipe.warmup_from or 0.0

    def factor(step: int) -> float:
        warm = begin + (1 - begin) * step / warmup if step < warmup else 1.0
        if recipe.milestones is not None:
            return warm * 0.1 ** sum(step >= share * steps - _ROUNDING for share in recipe.milestones)
        return warm if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))

    return LambdaLR(optimizer, factor)


def needed(value: float | None, name: str) -> float:
    """A recipe's value. Raises VlbenchError if neither the model card nor the run sets it."""
    if value is None:
        raise VlbenchError(f"the recipe has no {name}: give it in the model card or with --set train.{name}=...")
    return value
