"""Low-rank adapters in a backbone: trained in place of its weights, and added to them wherever they are saved.

Source: Hu et al. 2021 (LoRA), in peft's implementation, with its defaults, on every linear layer but the output's.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from vlbench.core.backbone import Adaptable
from vlbench.core.errors import VlbenchError

_ADAPTER = "default"
_INSIDE = "base_layer."
"""Where a layer keeps what it was before it got an adapter."""


def add_adapters(backbone: nn.Module, rank: int) -> None:
    """Put an adapter of that rank into every linear layer; nothing else in the backbone is trained then.

    Raises:
        VlbenchError: a backbone that is none of transformers'.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if not isinstance(backbone, Adaptable):
        raise VlbenchError(
            f"train.lora_rank {rank} is for models of transformers (hf:), not for {type(backbone).__name__}: "
            f"leave it out"
        )
    network = backbone.adaptable()
    # torch's own attention multiplies by this layer's weight without calling it, so an adapter there would do nothing.
    passed_by = [
        f"{name}.out_proj" for name, layer in network.named_modules() if isinstance(layer, nn.MultiheadAttention)
    ]
    config = LoraConfig(r=rank, target_modules="all-linear", exclude_modules=passed_by or None)
    inject_adapter_in_model(config, network, _ADAPTER)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


def remove_adapters(module: nn.Module) -> None:
    """Put the layers back that `add_adapters` replaced, as they were before."""
    for name, layer in _adapted(module).items():
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, layer.base_layer)


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state under the names that it has without adapters, what they learned added to the weights."""
    layers = _adapted(module)
    adapters = tuple(f"{name}.lora_" for name in layers)
    state = {name: value for name, value in module.state_dict().items() if not name.startswith(adapters)}
    for name, layer in layers.items():
        weight = f"{name}.{_INSIDE}weight"
        with torch.no_grad():
            state[weight] = state[weight] + cast(Tensor, layer.get_delta_weight(_ADAPTER))
    inside = tuple(f"{name}.{_INSIDE}" for name in layers)
    return {name.replace(_INSIDE, "", 1) if name.startswith(inside) else name: value for name, value in state.items()}


def _adapted(module: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by name."""
    return {name: layer for name, layer in module.named_modules() if hasattr(layer, "get_delta_weight")}
