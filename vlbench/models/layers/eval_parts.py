"""Modules some parts of which stay in eval mode while the rest is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from torch import nn


class EvalParts(nn.Module):
    """A module whose `eval_parts` stay in eval mode also while it is trained."""

    def eval_parts(self) -> Iterable[nn.Module]:
        """The submodules that stay in eval mode."""
        return ()

    def train(self, mode: bool = True) -> Self:
        """Set the mode as `nn.Module.train` does, then put `eval_parts` back into eval mode."""
        super().train(mode)
        for module in self.eval_parts():
            module.eval()
        return self
