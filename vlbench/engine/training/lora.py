"""Low-rank adapters (LoRA) in a backbone: trained instead of its weights, and merged into them when they are saved.

Source: Hu et al. 2021, in peft's implementation with its defaults, on every linear layer except the output layer.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vlbench.core.backbone import Adaptable
from vlbench.core.errors import VlbenchError

_ADAPTER = "default"
_BASE = "base_layer"
"""The submodule in which peft keeps the original layer."""


@runtime_checkable
class _AdaptedLayer(Protocol):
    """A layer of peft: the original layer and its adapter."""

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What the adapter adds to the layer's weight, in the same shape."""
        ...


def add_adapters(backbone: nn.Module, rank: int) -> None:
    """Put an adapter of the given rank into every linear layer and freeze everything else in the backbone.

    Raises:
        VlbenchError: the backbone is not a model of transformers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if not isinstance(backbone, Adaptable):
        raise VlbenchError(
            f"train.lora_rank {rank} is for models of transformers (hf:), not for {type(backbone).__name__}: "
            f"leave it out"
        )
    network = backbone.adaptable()
    # torch's own attention multiplies by this layer's weight without calling it, so an adapter there has no effect.
    not_called = [
        f"{name}.out_proj" for name, layer in network.named_modules() if isinstance(layer, nn.MultiheadAttention)
    ]
    config = LoraConfig(r=rank, target_modules="all-linear", exclude_modules=not_called or None)
    inject_adapter_in_model(config, network, _ADAPTER)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


def remove_adapters(module: nn.Module) -> None:
    """Put back the layers that `add_adapters` replaced, unchanged."""
    for name in _adapted_layers(module):
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, module.get_submodule(f"{name}.{_BASE}"))


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state with the adapters merged into the weights, under the names that it has without adapters."""
    layers = _adapted_layers(module)
    adapters = tuple(f"{name}.lora_" for name in layers)
    state = {name: value for name, value in module.state_dict().items() if not name.startswith(adapters)}
    for name, layer in layers.items():
        weight = f"{name}.{_BASE}.weight"
        with torch.no_grad():
            state[weight] = state[weight] + layer.get_delta_weight(_ADAPTER)
    base = tuple(f"{name}.{_BASE}." for name in layers)
    return {name.replace(f"{_BASE}.", "", 1) if name.startswith(base) else name: value for name, value in state.items()}


def _adapted_layers(module: nn.Module) -> dict[str, _AdaptedLayer]:
    """The layers with an adapter, by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, _AdaptedLayer)}
