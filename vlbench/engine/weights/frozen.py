"""Layers that training leaves as they are must not be left at random values."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from vlbench.core.errors import VlbenchError, first_five


def check_frozen(network: nn.Module, loaded: Collection[str], remedy: str) -> None:
    """Every parameter of `network.backbone` that takes no gradient must be among the tensors `loaded`.

    Raises:
        VlbenchError: some are not, and would stay at random values.
    """
    frozen = {
        name: parameter.numel()
        for name, parameter in network.named_parameters()
        if name.startswith("backbone.") and not parameter.requires_grad and name not in loaded
    }
    if frozen:
        raise VlbenchError(
            f"{sum(frozen.values()):,} parameters of this size are frozen and no weights were loaded into them "
            f"({first_five(frozen)}), so they would stay at random values: give {remedy}"
        )
