"""torch.compile, asked on a sum first: where its own compiler is missing, that is said before an hour's work."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlbench.core.errors import VlbenchError


def compile_forward(module: nn.Module, device: torch.device) -> None:
    """Let torch compile the module's forward pass when it first runs, in place, for inputs of any size.

    Raises:
        VlbenchError: torch cannot compile for this device on this machine.
    """
    try:
        torch.compile(_sum)(torch.ones(2, device=device))
    except Exception as error:  # whatever a compiler may raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise VlbenchError(
            f"--compile does not work here ({reason.strip()[:160]}): install a C++ compiler, or leave it out"
        ) from None
    module.compile(dynamic=True)


def _sum(values: Tensor) -> Tensor:
    return values + values
