"""What does not depend on the machine: operations and parameters, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from vlbench.core.profile import UNOWNED, Operations, Parameters
from vlbench.models.detector.pooling import RegionPooling
from vlbench.profiling.timing import Stage

_FREE = ("view", "reshape", "t.", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "clone",
         "_to_copy", "copy_", "detach", "cat", "stack", "split", "unbind", "alias", "empty", "zeros", "ones", "full",
         "arange", "index", "gather", "embedding", "lift_fresh", "_unsafe_view", "as_strided", "fill_", "zero_",
         "_local_scalar_dense", "scalar_tensor", "constant_pad", "scatter", "masked_select", "new_")  # fmt: skip
"""How operators begin that move numbers and compute none."""


def _attention_on_cpu(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """The one kind of attention that torch's own table of formulas lacks."""
    return int(cast(Any, sdpa_flop_count)(query, key, value))


_MORE = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_on_cpu}


def costs(modules: Mapping[str, nn.Module], stages: Sequence[Stage]) -> tuple[Operations, Parameters]:
    """Run the stages once and count what they compute, and which parameters they use.

    Two operations for each multiplication with its addition, as torch counts. Matrix products, convolutions and
    attention are counted, which is where the work is; the rest is named. RoIAlign is among the rest whether torchvision
    does it or products of matrices do, so that a figure does not depend on what is installed. A parameter counts for
    the stage whose run first calls the module that holds it.

    Args:
        modules: all that the stages run, by any names; a parameter that several share counts once.
    """
    counted: dict[str, int] = {}
    owners: dict[int, str] = {}
    seen = _Seen()
    for stage in stages:
        counter = FlopCounterMode(display=False, custom_mapping=_MORE)
        with _calls(modules.values()) as called, seen, counter, _pooling(modules.values(), seen, counter) as pooled:
            stage.run()
        counted[stage.name] = counted.get(stage.name, 0) + counter.get_total_flops() - sum(pooled)
        for module in called:
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), stage.name)
    operations = Operations(stages=counted, uncounted=dict(sorted(seen.uncounted.items())))
    return operations, _parameters(modules.values(), owners)


def _parameters(modules: Iterable[nn.Module], owners: Mapping[int, str]) -> Parameters:
    """owners: by a parameter's identity, the stage that it counts for."""
    layers = {id(layer): layer for module in modules for layer in module.modules()}.values()
    every = {id(one): one for layer in layers for one in layer.parameters(recurse=False)}
    by_stage: dict[str, int] = {}
    for key, parameter in every.items():
        name = owners.get(key, UNOWNED)
        by_stage[name] = by_stage.get(name, 0) + parameter.numel()
    tables = {id(layer.weight): layer.weight.numel() for layer in layers if isinstance(layer, nn.Embedding)}
    total = sum(parameter.numel() for parameter in every.values())
    return Parameters(total=total, embeddings=sum(tables.values()), stages=by_stage)


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators without a formula."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uncounted: dict[str, int] = {}
        self.pooling = False

    def note(self, name: str) -> None:
        """One that ran."""
        self.uncounted[name] = self.uncounted.get(name, 0) + 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        counted = func.overloadpacket in flop_registry or func.overloadpacket in _MORE
        if not (counted or self.pooling or name.startswith(_FREE)):
            self.note(name.partition(".")[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def _calls(modules: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """The modules that run meanwhile."""
    called: list[nn.Module] = []
    note: Callable[..., None] = lambda module, *_: called.append(module)  # noqa: E731 - a hook of torch's
    hooks = [layer.register_forward_pre_hook(note) for module in modules for layer in module.modules()]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _pooling(modules: Iterable[nn.Module], seen: _Seen, counter: FlopCounterMode) -> Iterator[list[int]]:
    """What the counter counts meanwhile within RoI pooling, call by call, which is one operator without a formula."""
    before: list[int] = []
    within: list[int] = []

    def begin(*_: object) -> None:
        before.append(counter.get_total_flops())
        seen.pooling = True

    def end(module: nn.Module, *_: object) -> None:
        within.append(counter.get_total_flops() - before.pop())
        seen.pooling = False
        seen.note(f"roi_{cast(RegionPooling, module).pooling}")

    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, RegionPooling)]
    hooks = [
        hook for layer in layers for hook in (layer.register_forward_pre_hook(begin), layer.register_forward_hook(end))
    ]
    try:
        yield within
    finally:
        for hook in hooks:
            hook.remove()


def mebibytes(modules: Sequence[nn.Module]) -> float:
    """Of parameters and buffers, each once."""
    held = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(held.values()) / 2**20
