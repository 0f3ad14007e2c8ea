"""Fully sharded training (FSDP): weights, gradients and optimizer state are split over the processes.

Source: Zhao et al. 2023 (arXiv 2304.11277), as torch's `fully_shard`, on GPUs and on CPUs. Its packages are imported
where something is sharded: they are slow to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from vlbench.core.errors import VlbenchError
from vlbench.engine.training.optimizer import CombinedOptimizer


def shard(module: nn.Module) -> None:
    """Split the parameters of a module over all processes, in place: they become DTensors.

    Each layer of a ModuleList is gathered when it runs, all other parameters together. A forward pass must go through
    the module itself.

    Raises:
        VlbenchError: a parameter is a scalar, which cannot be split.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if scalars := [name for name, parameter in module.named_parameters() if parameter.ndim == 0]:
        raise VlbenchError(f"--fsdp cannot split the parameter {scalars[0]}, a scalar: leave it out")
    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    stacks = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    for layer in reversed([layer for stack in stacks for layer in stack]):  # inner layers before outer ones
        if any(parameter.numel() for parameter in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; all processes must take part."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return tensor
    whole: Tensor = tensor.full_tensor()
    return whole


class ShardedWeights:
    """The weights of a sharded module, saved and loaded as whole tensors; all processes must take part."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Tensor]:
        """The whole tensors by name."""
        return {name: gathered(value.detach()) for name, value in self.module.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take each process's part of the tensors; raises KeyError or RuntimeError if they do not fit the module."""
        for name, own in self.module.state_dict().items():
            own.copy_(_like(own, state[name].to(own.device, own.dtype)))


class ShardedOptimizer:
    """The state of an optimizer over sharded parameters, saved and loaded as whole tensors, as `ShardedWeights`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> StateDict:
        """The optimizer's state with whole tensors."""
        return {name: _with_whole_tensors(value) for name, value in self.optimizer.state_dict().items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Load the state, and keep each process's part of the tensors that have the shape of their parameter."""
        self.optimizer.load_state_dict(state)
        for part in _parts(self.optimizer):
            for parameter, values in part.state.items():
                for name, value in values.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        values[name] = _like(parameter, value)


def _like(own: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor, sharded as `own` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    return distribute_tensor(whole, own.device_mesh, own.placements) if isinstance(own, DTensor) else whole


def _with_whole_tensors(value: object) -> object:
    """The value with whole tensors in all dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _with_whole_tensors(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_tensors(inner) for inner in value]
    return gathered(value) if isinstance(value, Tensor) else value


def _parts(optimizer: Optimizer) -> Iterator[Optimizer]:
    """The optimizers that hold state: inside Accelerate's wrapper and in a combined one."""
    inner = getattr(optimizer, "optimizer", optimizer)
    yield from inner.parts if isinstance(inner, CombinedOptimizer) else (inner,)
