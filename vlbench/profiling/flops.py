"""Operations and parameters by stage, which do not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from vlbench.core.profile import UNOWNED, Operations, Parameters
from vlbench.models.detector.pooling import RegionPooling
from vlbench.profiling.timing import Stage

_FREE = ("view", "reshape", "t.", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "clone",
         "_to_copy", "copy_", "detach", "cat", "stack", "split", "unbind", "alias", "empty", "zeros", "ones", "full",
         "arange", "index", "gather", "embedding", "lift_fresh", "_unsafe_view", "as_strided", "fill_", "zero_",
         "_local_scalar_dense", "scalar_tensor", "constant_pad", "scatter", "masked_select", "new_")  # fmt: skip
"""Prefixes of operators that move numbers and compute none."""


def _count_cpu_attention(query: object, key: object, value: object, *_: object, **__: object) -> int:
    """The formula for CPU flash attention, which torch's own table lacks; the arguments are shapes."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_MORE = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_cpu_attention}


def count_costs(modules: Mapping[str, nn.Module], stages: Sequence[Stage]) -> tuple[Operations, Parameters]:
    """Run the stages once and count the operations they compute and the parameters they use.

    A multiplication with its addition counts as two operations, as in torch. Matrix products, convolutions and
    attention are counted, which are nearly all of the work; other operators are listed as uncounted. RoIAlign is among
    these whether torchvision or matrix products compute it, so that the count does not depend on what is installed. A
    parameter counts once, for the stage that first calls the module which holds it.

    modules: all modules that the stages run, by any names.
    """
    counted: dict[str, int] = {}
    owners: dict[int, str] = {}
    observer = _UncountedOperators()
    for stage in stages:
        counter = FlopCounterMode(display=False, custom_mapping=_MORE)
        pooling = _record_pooling(modules.values(), observer, counter)
        with _record_calls(modules.values()) as called, observer, counter, pooling as pooled:
            stage.run()
        counted[stage.name] = counted.get(stage.name, 0) + counter.get_total_flops() - sum(pooled)
        for module in called:
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), stage.name)
    operations = Operations(stages=counted, uncounted=dict(sorted(observer.uncounted.items())))
    return operations, _count_parameters(modules.values(), owners)


def _count_parameters(modules: Iterable[nn.Module], owners: Mapping[int, str]) -> Parameters:
    """owners: id of a parameter -> the stage that it counts for."""
    layers = {id(layer): layer for module in modules for layer in module.modules()}.values()
    parameters = {id(parameter): parameter for layer in layers for parameter in layer.parameters(recurse=False)}
    by_stage: dict[str, int] = {}
    for key, parameter in parameters.items():
        name = owners.get(key, UNOWNED)
        by_stage[name] = by_stage.get(name, 0) + parameter.numel()
    tables = {id(layer.weight): layer.weight.numel() for layer in layers if isinstance(layer, nn.Embedding)}
    total = sum(parameter.numel() for parameter in parameters.values())
    return Parameters(total=total, embeddings=sum(tables.values()), stages=by_stage)


class _UncountedOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A counter of operators without a formula, by name. is_pooling: whether RoI pooling runs, which counts as one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uncounted: dict[str, int] = {}
        self.is_pooling = False

    def add(self, name: str) -> None:
        """Count one run of the operator."""
        self.uncounted[name] = self.uncounted.get(name, 0) + 1

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        name = str(func).removeprefix("aten.")
        counted = func.overloadpacket in flop_registry or func.overloadpacket in _MORE
        if not (counted or self.is_pooling or name.startswith(_FREE)):
            self.add(name.partition(".")[0])
        result: object = func(*args, **(kwargs or {}))
        return result


@contextmanager
def _record_calls(modules: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Record the modules that run inside the block."""
    called: list[nn.Module] = []
    record: Callable[..., None] = lambda module, *_: called.append(module)  # noqa: E731 - a hook of torch's
    hooks = [layer.register_forward_pre_hook(record) for module in modules for layer in module.modules()]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _record_pooling(
    modules: Iterable[nn.Module], observer: _UncountedOperators, counter: FlopCounterMode
) -> Iterator[list[int]]:
    """Record the operations counted inside each call of RoI pooling, which as a whole is one uncounted operator."""
    before: list[int] = []
    inside: list[int] = []

    def enter(*_: object) -> None:
        before.append(counter.get_total_flops())
        observer.is_pooling = True

    def leave(module: RegionPooling, *_: object) -> None:
        inside.append(counter.get_total_flops() - before.pop())
        observer.is_pooling = False
        observer.add(f"roi_{module.pooling}")

    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, RegionPooling)]
    hooks = [layer.register_forward_pre_hook(enter) for layer in layers]
    hooks += [layer.register_forward_hook(leave) for layer in layers]
    try:
        yield inside
    finally:
        for hook in hooks:
            hook.remove()


def module_mib(modules: Sequence[nn.Module]) -> float:
    """MiB of all parameters and buffers, each storage once."""
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values()) / 2**20
