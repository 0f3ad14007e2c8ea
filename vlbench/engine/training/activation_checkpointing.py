"""Activation checkpointing: what a layer gave is computed once more on the way back instead of being kept."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


def recompute_activations(module: nn.Module) -> int:
    """Switch it on for every layer of a stack, in place; how many layers or networks it is on for.

    Layers with running statistics are left alone: seeing everything twice would move those twice as far. Networks of
    transformers do it by their own means. Copies of the module are to be made before.

    Source: Chen et al. 2016 (arXiv 1604.06174).
    """
    own = [one for one in module.modules() if isinstance(one, PreTrainedModel) and one.supports_gradient_checkpointing]
    for network in own:
        # The older name became an alias that warns.
        older = network.gradient_checkpointing_enable
        getattr(network, "activation_checkpointing_enable", older)({"use_reentrant": False})
    theirs = {id(part) for network in own for part in network.modules()}
    stacks = [one for one in module.modules() if isinstance(one, nn.ModuleList) and id(one) not in theirs]
    layers = [layer for stack in stacks for layer in stack if not _counts(layer)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return len(own) + len(layers)


def _counts(layer: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in layer.modules())
