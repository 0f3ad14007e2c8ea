"""Weights before training."""

from __future__ import annotations

from torch import nn


def initialize(module: nn.Module, std: float) -> None:
    """Set every linear and embedding weight below `module` to N(0, std), biases to 0, LayerNorms to (1, 0).

    Source: Devlin et al. 2019, where std is 0.02.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        if isinstance(layer, nn.Linear | nn.LayerNorm) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
